#pragma once
// The gradients of the spectral coupling, all computed anew from W and the splines' parameters. In the basis of the
// eigenvectors, with dW = i K W and k = V^+ K V (eigen_backward.h):
//
//   dth_i = k_ii,  (V^+ dW' V)_ij = R_ij i k_ij e^{i th_j},  R_ij = (e^{i th'_i} - e^{i th'_j}) / (e^{i th_i} - e^{i
//   th_j})
//
// beside the diagonal, and R_ij is rho of the pair times a phase: no difference of eigenvalues is divided by.
#include "lattice/eigen_backward.h"
#include "lattice/spectral.h"

namespace hepops::lattice {

// 1 / x, or 0 where gaps coincide to rounding: there ln J has no derivative
template <class T>
HEPOPS_HD T inverse_gap(const T& x) {
  const auto coincide = x < T(1e-14);
  return select(coincide, T(0.0), T(1.0) / x);
}

// d ln g / ds
template <class T>
HEPOPS_HD T sine_factor_slope(const Gap<T>& gap) {
  const auto g = sine_factor(gap);
  return (2.0 * gap.s - 1.0) * g.slope / g.value;
}

// The slopes along a and b of 2 (ln c_2 + ln c_3 + sum_k ln g_k), and of sum_k p_k s_k in s_1, s_2.
template <class T>
HEPOPS_HD void along_box(const Gap<T> (&s)[3], const Gap<T>& b, const T& weight, T& along_a, T& along_b) {
  const T E1 = 2.0 * sine_factor_slope(s[0]), E2 = 2.0 * (sine_factor_slope(s[1]) - inverse_gap(s[1].c)),
          E3 = 2.0 * (sine_factor_slope(s[2]) - inverse_gap(s[2].c));
  along_a += weight * (E1 - b.s * E2 - b.c * E3);
  along_b += weight * s[0].c * (E2 - E3);
}

// From the gradients of the phases as they leave and of ln J: those of the phases as they come in, and of the splines.
template <bool inverse, class T, class Row, class To>
HEPOPS_HD void coupling_backward(const Coupling<T, 3>& x, const T (&grad_phases)[3], const T& grad_logdet,
                                 const Splines<T, Row>& along_a, const Splines<T, Row>& along_b, const To& to,
                                 T (&grad_in)[3]) {
  const T l = inverse ? -grad_logdet : grad_logdet;
  const T mean = (grad_phases[0] + grad_phases[1] + grad_phases[2]) * T(1.0 / 3);
  const T p1 = T(2 * pi) * (mean - grad_phases[0]), p2 = T(2 * pi) * (grad_phases[2] - mean);
  const T zero = T(0.0);
  PlaceGradient<T> a{zero, zero, l, 2.0 * l, 7.0 * l}, b{zero, zero, l, 2.0 * l, 2.0 * l};
  along_box(x.from, x.b.u, -l, a.u, b.u);
  along_box(x.to, x.b.v, l, a.v, b.v);
  const Gap<T>&out_a = inverse ? x.a.u : x.a.v, &out_b = inverse ? x.b.u : x.b.v;
  (inverse ? a.u : a.v) += p1 - out_b.s * p2;
  (inverse ? b.u : b.v) += out_a.c * p2;
  const auto ga = place_backward<inverse>(x.a, a), gb = place_backward<inverse>(x.b, b);
  along_a.put(x.a, ga, to);
  along_b.put(x.b, gb, to);
  const Gap<T>&in_a = inverse ? x.a.v : x.a.u, &in_b = inverse ? x.b.v : x.b.u;
  const T per_c = gb.x * inverse_gap(in_a.c);
  const T s1 = ga.x + per_c * in_b.s, s2 = per_c;
  grad_in[0] = T(-0.5 / pi) * s1;
  grad_in[1] = T(0.5 / pi) * (s1 - s2);
  grad_in[2] = T(0.5 / pi) * s2;
}

template <bool inverse, class T, class Row, class To>
HEPOPS_HD Matrix<T, 3> spectral_backward(const Matrix<T, 3>& G, const T& grad_logdet, const Matrix<T, 3>& W,
                                         const Row& row, int bins, const To& to) {
  const Spectrum<T, 3> s = eigen_unitary(W);
  Gap<T> gaps[3];
  gaps_of(s.values, gaps);
  const Splines<T, Row> along_a(row, bins, 0), along_b(row, bins, 1);
  const auto x = coupling<inverse>(gaps, along_a, along_b);
  T shift[3];
  shifts_of(inverse ? x.to : x.from, inverse ? x.from : x.to, shift);
  const Matrix<T, 3> M = adjoint(s.vectors) * (G * s.vectors);
  Complex<T> before[3], after[3];  // e^{i th/2}, e^{i th'/2}
  T grad_phases[3];
  for (int k = 0; k < 3; ++k) {
    sin_cos_half_turn(0.5 * s.values[k], before[k].imag, before[k].real);
    sin_cos_half_turn(0.5 * (s.values[k] + shift[k]), after[k].imag, after[k].real);
    grad_phases[k] = (M(k, k) * conj(after[k] * after[k])).imag;
  }
  Matrix<T, 3> C, E;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) {
      if (i == j) continue;
      const T& forward = x.rho[i + j == 1 ? 0 : i + j == 3 ? 1 : 2];
      const T rho = inverse ? T(1.0) / forward : forward;
      const Complex<T> turn = conj(M(i, j)) * (after[i] * after[j]) * (before[j] * conj(before[i]));
      C(i, j) = {-rho * turn.imag, rho * turn.real};
    }
  hermitian_gradient(E, C);
  T diagonal[3];
  coupling_backward<inverse>(x, grad_phases, grad_logdet, along_a, along_b, to, diagonal);
  for (int k = 0; k < 3; ++k) E(k, k) = {diagonal[k], T(0.0)};
  return tangent_gradient(s.vectors, E, W);
}

// x0 = cos th, x = sin th n: a turn of n moves W' by rho times what it moves W by.
template <bool inverse, class T, class Row, class To>
HEPOPS_HD Matrix<T, 2> spectral_backward(const Matrix<T, 2>& G, const T& grad_logdet, const Matrix<T, 2>& W,
                                         const Row& row, int bins, const To& to) {
  const Angle<T> angle = angle_of(quaternion_of(W));
  const Splines<T, Row> along(row, bins, 0);
  const auto x = coupling<inverse>(angle.gap, along);
  const T rho = inverse ? T(1.0) / x.rho : x.rho, l = inverse ? -grad_logdet : grad_logdet;
  T sine, cosine;
  sin_cos_turn(T(pi) * (inverse ? x.a.u.s : x.a.v.s), sine, cosine);
  const Quaternion<T> g = quaternion_of(G);  // half of the gradient of the image's coordinates
  const T* y = g.x;
  const T on_axis = y[1] * angle.n[0] + y[2] * angle.n[1] + y[3] * angle.n[2];
  PlaceGradient<T> at{T(0.0), T(0.0), l, 2.0 * l, 2.0 * l};
  at.u = -2.0 * l * sine_factor_slope(x.a.u);
  at.v = 2.0 * l * sine_factor_slope(x.a.v);
  (inverse ? at.u : at.v) += T(2 * pi) * (cosine * on_axis - sine * y[0]);
  const auto ga = place_backward<inverse>(x.a, at);
  along.put(x.a, ga, to);
  const T turn = T(0.5 / pi) * ga.x, rest = turn * angle.cosine - rho * on_axis;  // halves, as g
  Quaternion<T> grad{{-turn * angle.sine, rho * y[1] + rest * angle.n[0], rho * y[2] + rest * angle.n[1],
                      rho * y[3] + rest * angle.n[2]}};
  // tangent to the group: what points along W is left out
  return grad.matrix();
}

}  // namespace hepops::lattice
