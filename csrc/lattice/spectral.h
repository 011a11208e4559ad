#pragma once
// The spectral coupling of SU(2) and SU(3): W = V diag(e^{i th_k}) V^+ becomes W' = V diag(e^{i th'_k}) V^+, the phases
// moved by splines of the box coordinates of the alcove:
//
//   gaps s_k = (th_{k+1} - th_k) / 2 pi, s_1 + s_2 + s_3 = 1;  box a = s_1, b = s_2 / (1 - s_1);  a' = f(a), b' = f(b)
//   ln J = ln f_a' + ln f_b' + ln (1 - a')/(1 - a) + 2 sum_k ln rho_k,  rho_k = sin(pi s'_k) / sin(pi s_k)
//
// [D. Boyda et al., arXiv:2008.05456; the Haar density of the phases is prod_{i<j} 4 sin^2((th_i - th_j)/2), the box
// has |d(s_1, s_2)/d(a, b)| = 1 - a.] SU(2): phases -+ th, a = th / pi, ln J = ln f' + 2 ln rho, rho = sin th' / sin
// th.
//
// All ratios are taken of numbers that are known to their last digit, also where gaps vanish:
//   rho_1 = A A_c G_1,  rho_2 = A_c B (c'_2/c_2) G_2,  rho_3 = A_c B_c (c'_3/c_3) G_3
// with A = a'/a, A_c = (1 - a')/(1 - a), likewise B, c_k = 1 - s_k, and G_k = g'/g of alcove.h.
#include "lattice/box_spline.h"

namespace hepops::lattice {

// What the phases do: the box coordinates' places, the gaps before and after (always of the forward map), and rho.
template <class T, int N>
struct Coupling;

template <class T>
struct Coupling<T, 3> {
  Place<T> a, b;
  Gap<T> from[3], to[3];
  T rho[3], jacobian;  // e^{ln J}
};

template <class T>
struct Coupling<T, 2> {
  Place<T> a;
  T rho, jacobian;
};

template <class T>
HEPOPS_HD void gaps_of_box(const Gap<T>& a, const Gap<T>& b, Gap<T> (&gaps)[3]) {
  const T s2 = a.c * b.s, s3 = a.c * b.c;
  gaps[0] = a;
  gaps[1] = {s2, a.s + s3};
  gaps[2] = {s3, a.s + s2};
}

// The splines' logits as fractions: of a, of b, behind each other in a row.
template <class T, class Row>
struct Splines {
  Row row;
  int bins, first;
  Fractions<T, Row> widths, heights;

  HEPOPS_HD Splines(const Row& from, int K, int number)
      : row(from), bins(K), first(number * (3 * K + 1)), widths(from, first, K), heights(from, first + K, K) {}
  HEPOPS_HD int slopes() const { return first + 2 * bins; }
  template <bool inverse>
  HEPOPS_HD Place<T> place(const Gap<T>& at) const {
    return place_on_box<inverse>(at, widths, heights, row, slopes(), bins);
  }
  template <class To>
  HEPOPS_HD void put(const Place<T>& p, const spline::Gradient<T>& g, const To& to) const {
    put_raw_gradients(p, g, widths, heights, slopes(), bins, to);
  }
};

template <bool inverse, class T, class Row>
HEPOPS_HD Coupling<T, 3> coupling(const Gap<T> (&gaps)[3], const Splines<T, Row>& along_a,
                                  const Splines<T, Row>& along_b) {
  Coupling<T, 3> x;
  const T per_c = T(1.0) / gaps[0].c;
  x.a = along_a.template place<inverse>(gaps[0]);
  x.b = along_b.template place<inverse>({gaps[1].s * per_c, gaps[2].s * per_c});
  gaps_of_box(x.a.u, x.b.u, x.from);
  gaps_of_box(x.a.v, x.b.v, x.to);
  T G[3];
  for (int k = 0; k < 3; ++k) G[k] = sine_factor(x.to[k]).value / sine_factor(x.from[k]).value;
  x.rho[0] = x.a.ratio * x.a.ratio_c * G[0];
  x.rho[1] = x.a.ratio_c * x.b.ratio * (x.to[1].c / x.from[1].c) * G[1];
  x.rho[2] = x.a.ratio_c * x.b.ratio_c * (x.to[2].c / x.from[2].c) * G[2];
  const T product = x.rho[0] * x.rho[1] * x.rho[2];
  x.jacobian = x.a.slope * x.b.slope * x.a.ratio_c * product * product;
  return x;
}

template <bool inverse, class T, class Row>
HEPOPS_HD Coupling<T, 2> coupling(const Gap<T>& gap, const Splines<T, Row>& along_a) {
  Coupling<T, 2> x;
  x.a = along_a.template place<inverse>(gap);
  x.rho = x.a.ratio * x.a.ratio_c * sine_factor(x.a.v).value / sine_factor(x.a.u).value;
  x.jacobian = x.a.slope * x.rho * x.rho;
  return x;
}

// th'_k - th_k, of gaps that changed
template <class T>
HEPOPS_HD void shifts_of(const Gap<T> (&in)[3], const Gap<T> (&out)[3], T (&shift)[3]) {
  const T d1 = out[0].s - in[0].s, d2 = out[1].s - in[1].s;
  shift[0] = T(-2 * pi / 3) * (2.0 * d1 + d2);
  shift[1] = shift[0] + T(2 * pi) * d1;
  shift[2] = shift[1] + T(2 * pi) * d2;
}

// V diag(z_k) V^+
template <class T, int N>
HEPOPS_HD Matrix<T, N> assembled(const Matrix<T, N>& V, const Complex<T> (&z)[N]) {
  Matrix<T, N> scaled;
  for (int i = 0; i < N; ++i)
    for (int k = 0; k < N; ++k) scaled(i, k) = V(i, k) * z[k];
  return scaled * adjoint(V);
}

template <class T, int N>
struct SpectralImage {
  Matrix<T, N> W;
  T logdet;
};

template <bool inverse, class T, class Row>
HEPOPS_HD SpectralImage<T, 3> spectral(const Matrix<T, 3>& W, const Row& row, int bins) {
  const Spectrum<T, 3> s = eigen_unitary(W);
  Gap<T> gaps[3];
  gaps_of(s.values, gaps);
  const auto x = coupling<inverse>(gaps, Splines<T, Row>(row, bins, 0), Splines<T, Row>(row, bins, 1));
  T shift[3];
  shifts_of(inverse ? x.to : x.from, inverse ? x.from : x.to, shift);
  Complex<T> z[3];
  for (int k = 0; k < 3; ++k) sin_cos_turn(s.values[k] + shift[k], z[k].imag, z[k].real);
  const T logdet = log(x.jacobian);
  return {assembled(s.vectors, z), inverse ? -logdet : logdet};
}

// An element of SU(2) as x0 + i x.sigma, of unit length, and its angle: x0 = cos th, |x| = sin th
template <class T>
struct Quaternion {
  T x[4];
  HEPOPS_HD Matrix<T, 2> matrix() const { return {{{{x[0], x[3]}, {x[2], x[1]}}, {{-x[2], x[1]}, {x[0], -x[3]}}}}; }
};

// The quaternion nearest to a matrix: half of Re tr M and of Re tr (i sigma)^+ M
template <class T>
HEPOPS_HD Quaternion<T> quaternion_of(const Matrix<T, 2>& M) {
  return {{0.5 * (M(0, 0).real + M(1, 1).real), 0.5 * (M(0, 1).imag + M(1, 0).imag),
           0.5 * (M(0, 1).real - M(1, 0).real), 0.5 * (M(0, 0).imag - M(1, 1).imag)}};
}

template <class T>
struct Angle {
  T sine, cosine, n[3];  // x = sine n; n is 0 where the sine is
  Gap<T> gap;            // th / pi
};

template <class T>
HEPOPS_HD Angle<T> angle_of(const Quaternion<T>& q) {
  const T* x = q.x;
  const T square = x[1] * x[1] + x[2] * x[2] + x[3] * x[3], length = sqrt(square);
  const T per_norm = T(1.0) / sqrt(x[0] * x[0] + square);
  const auto some = length > T(0.0);
  const T per_length = select(some, T(1.0), T(0.0)) / select(length == T(0.0), T(1.0), length);
  Angle<T> angle;
  angle.sine = length * per_norm;
  angle.cosine = x[0] * per_norm;
  for (int k = 0; k < 3; ++k) angle.n[k] = x[k + 1] * per_length;
  const T least = T(least_gap);
  angle.gap = {max(atan2(length, x[0]) * T(1 / pi), least), max(atan2(length, -x[0]) * T(1 / pi), least)};
  return angle;
}

template <bool inverse, class T, class Row>
HEPOPS_HD SpectralImage<T, 2> spectral(const Matrix<T, 2>& W, const Row& row, int bins) {
  const Angle<T> angle = angle_of(quaternion_of(W));
  const auto x = coupling<inverse>(angle.gap, Splines<T, Row>(row, bins, 0));
  const T along = angle.sine * (inverse ? T(1.0) / x.rho : x.rho), there = T(pi) * (inverse ? x.a.u.s : x.a.v.s);
  T sine, cosine;
  sin_cos_turn(there, sine, cosine);
  const T logdet = log(x.jacobian);
  return {Quaternion<T>{{cosine, along * angle.n[0], along * angle.n[1], along * angle.n[2]}}.matrix(),
          inverse ? -logdet : logdet};
}

}  // namespace hepops::lattice
