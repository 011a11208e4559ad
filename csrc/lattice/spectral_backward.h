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

// A GPU has registers for a few dozen numbers. What is cheap to compute is computed again there, from numbers of which
// the compiler does not know that it has seen them, and is not kept meanwhile.
template <class T>
HEPOPS_HD void forget([[maybe_unused]] T& x) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+d"(x));
#endif
}

template <bool inverse, class T, class Row>
HEPOPS_HD Place<T> again(const Splines<T, Row>& along, const Place<T>& p) {
  if constexpr (Row::keeps) return p;
  Gap<T> at = inverse ? p.v : p.u;
  forget(at.s);
  forget(at.c);
  return along.template place<inverse>(at);
}

template <int N>
using Size = std::integral_constant<int, N>;

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

// Those of a spline's parameters are put, that of its point is given back.
template <bool inverse, class T, class Row, class To>
HEPOPS_HD T put_gradients(const Place<T>& p, const PlaceGradient<T>& grad, const Splines<T, Row>& along, const To& to) {
  const auto g = place_backward<inverse>(p, grad);
  along.put(p, g, to);
  return g.x;
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
  const T ga = put_gradients<inverse>(again<inverse>(along_a, x.a), a, along_a, to),
          gb = put_gradients<inverse>(again<inverse>(along_b, x.b), b, along_b, to);
  const Gap<T>&in_a = inverse ? x.a.v : x.a.u, &in_b = inverse ? x.b.v : x.b.u;
  const T per_c = gb * inverse_gap(in_a.c);
  const T s1 = ga + per_c * in_b.s, s2 = per_c;
  grad_in[0] = T(-0.5 / pi) * s1;
  grad_in[1] = T(0.5 / pi) * (s1 - s2);
  grad_in[2] = T(0.5 / pi) * s2;
}

template <class T>
HEPOPS_HD Complex<T> turn_by(const T& angle) {
  Complex<T> z;
  sin_cos_half_turn(angle, z.imag, z.real);
  return z;
}

// `loop` gives W and `seed` the gradient of W', each time they are asked. A GPU asks twice, since its registers do not
// hold eigenvectors beside two splines.
template <bool inverse, class T, class Loop, class Seed, class Row, class To>
HEPOPS_HD Matrix<T, 3> spectral_backward(const Loop& loop, const Seed& seed, const T& grad_logdet, const Row& row,
                                         int bins, const To& to, Size<3>) {
  Spectrum<T, 3> s = eigen_unitary(loop());
  const auto seed_in_basis = [&] { return adjoint(s.vectors) * (seed() * s.vectors); };
  Matrix<T, 3> M = seed_in_basis();
  Gap<T> gaps[3];
  gaps_of(s.values, gaps);
  const Splines<T, Row> along_a(row, bins, 0), along_b(row, bins, 1);
  const auto x = coupling<inverse>(gaps, along_a, along_b);
  T shift[3], grad_phases[3], diagonal[3];
  shifts_of(inverse ? x.to : x.from, inverse ? x.from : x.to, shift);
  Complex<T> before[3], after[3];  // e^{i th/2}, e^{i th'/2}
  for (int k = 0; k < 3; ++k) {
    after[k] = turn_by(0.5 * (s.values[k] + shift[k]));
    grad_phases[k] = (M(k, k) * conj(after[k] * after[k])).imag;
  }
  coupling_backward<inverse>(x, grad_phases, grad_logdet, along_a, along_b, to, diagonal);
  if constexpr (!Row::keeps) {
    s = eigen_unitary(loop());
    M = seed_in_basis();
    for (int k = 0; k < 3; ++k) after[k] = turn_by(0.5 * (s.values[k] + shift[k]));
  }
  for (int k = 0; k < 3; ++k) before[k] = turn_by(0.5 * s.values[k]);
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
  const T mean = T(1.0 / 3) * (diagonal[0] + diagonal[1] + diagonal[2]);
  for (int k = 0; k < 3; ++k) E(k, k) = {diagonal[k] - mean, T(0.0)};
  // i E W = V (i E diag(e^{i th})) V^+
  for (int k = 0; k < 3; ++k) {
    const Complex<T> square = before[k] * before[k], turn{-square.imag, square.real};
    for (int i = 0; i < 3; ++i) E(i, k) = E(i, k) * turn;
  }
  return turned_back(s.vectors, E);
}

// x0 = cos th, x = sin th n: a turn of n moves W' by rho times what it moves W by.
template <bool inverse, class T, class Loop, class Seed, class Row, class To>
HEPOPS_HD Matrix<T, 2> spectral_backward(const Loop& loop, const Seed& seed, const T& grad_logdet, const Row& row,
                                         int bins, const To& to, Size<2>) {
  const Angle<T> angle = angle_of(quaternion_of(loop()));
  const Splines<T, Row> along(row, bins, 0);
  const auto x = coupling<inverse>(angle.gap, along);
  const T rho = inverse ? T(1.0) / x.rho : x.rho, l = inverse ? -grad_logdet : grad_logdet;
  T sine, cosine;
  sin_cos_turn(T(pi) * (inverse ? x.a.u.s : x.a.v.s), sine, cosine);
  const Quaternion<T> g = quaternion_of(seed());  // half of the gradient of the image's coordinates
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
