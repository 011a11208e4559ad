#pragma once
// The rational-quadratic spline (core/spline.h: its letters and parameters) on the box [0, 1], for what needs both ends
// of the box to all digits: a point is a pair (s, 1 - s), and so is its image. With n = xi (s xi + d0 (1 - xi)) and
// m - n = (1 - xi) (s (1 - xi) + d1 xi), in the first and in the last bin
//
//   v / u = s (s xi + d0 (1 - xi)) / m,   (1 - v) / (1 - u) = s (s (1 - xi) + d1 xi) / m
//
// which are never 0/0. Row reads the 3 K + 1 raw parameters of a spline: K widths, K heights, K + 1 slopes.
#include "core/spline_backward.h"
#include "lattice/alcove.h"

namespace hepops::lattice {

namespace spline = core::spline;

// e^x for x <= 0; on a pack without the two factors that results below 1e-308 need
template <class T>
HEPOPS_HD T exp_of_logit(const T& x) {
  return exp(x);
}

#ifndef __CUDACC__
HEPOPS_HD core::Packed exp_of_logit(const core::Packed& x) {
  using B = core::series::Binary<double>;
  using Values = core::Packed::Values;
  using Bits = core::Packed::Bits;
  constexpr double round = B::round + 1023;  // the sum has the nearest integer and 2^k's exponent in its last bits
  const Values bounded = max(x, core::Packed(-708.0)).v;
  const Values shifted = bounded * 0x1.71547652b82fep0 + round, k = shifted - round;
  const Values r = (bounded - k * B::ln2_high) - k * B::ln2_low;
  Values sum = 1 / 479001600. - Values{};
  constexpr double term[] = {1 / 39916800., 1 / 3628800., 1 / 362880., 1 / 40320., 1 / 5040., 1 / 720.,
                             1 / 120.,      1 / 24.,      1 / 6.,      1 / 2.,     1.,        1.};
#pragma GCC unroll 12
  for (int n = 0; n < 12; ++n) sum = sum * r + term[n];
  return sum * (Values)((Bits)shifted << 52);
}
#endif

// The fractions that K logits stand for: the exponentials are kept where Row has room for them (a CPU), or taken anew.
template <class T, class Row>
struct Fractions {
  Row row;
  int first;
  T most, scale;

  HEPOPS_HD Fractions(const Row& from, int begin, int bins) : row(from), first(begin) {
    most = row(first);
    for (int k = 1; k < bins; ++k) most = max(most, row(first + k));
    T sum = T(0.0);
    for (int k = 0; k < bins; ++k) {
      const T e = exp_of_logit(row(first + k) - most);
      sum += e;
      if constexpr (Row::keeps) row.put(first + k, e);
      if constexpr (requires { row.fetch_ahead(); }) row.fetch_ahead();
    }
    scale = T(1.0 - spline::least * bins) / sum;
  }
  HEPOPS_HD T operator()(int k) const {
    if constexpr (Row::keeps)
      return T(spline::least) + scale * row(first + k);
    else
      return T(spline::least) + scale * exp_of_logit(row(first + k) - most);
  }
};

template <class T>
struct Place {
  spline::Bin<T> bin;
  T raw0, raw1, d0, d1;
  T xi, rest, s, q, D, per_m, per_N, n1, n2;
  T in_first, in_last;      // 1 or 0
  Gap<T> u, v;              // the point and its image
  T slope, ratio, ratio_c;  // dv/du, v / u, (1 - v) / (1 - u)
};

// Whether the point (or, for the inverse, the image) lies in a later bin is found by comparison.
template <bool inverse, class T, class Row>
HEPOPS_HD Place<T> find_bin(const T& target, const Fractions<T, Row>& widths, const Fractions<T, Row>& heights,
                            const Row& row, int slopes, int bins) {
  Place<T> p;
  T x = widths(0), y = heights(0);
  p.bin = {T(0.0), T(0.0), x, T(0.0), y};
  p.raw0 = row(slopes);
  p.raw1 = row(slopes + 1);
  for (int k = 1; k < bins; ++k) {
    const auto past = target >= (inverse ? y : x);
    const T w = widths(k), h = heights(k);
    p.bin = {select(past, T(double(k)), p.bin.index), select(past, x, p.bin.X), select(past, w, p.bin.w),
             select(past, y, p.bin.Y), select(past, h, p.bin.h)};
    p.raw0 = select(past, row(slopes + k), p.raw0);
    p.raw1 = select(past, row(slopes + k + 1), p.raw1);
    x += w;
    y += h;
  }
  p.in_first = select(p.bin.index == T(0.0), T(1.0), T(0.0));
  p.in_last = select(p.bin.index == T(double(bins - 1)), T(1.0), T(0.0));
  p.bin.w = select(p.in_last > T(0.0), T(1.0) - p.bin.X, p.bin.w);
  p.bin.h = select(p.in_last > T(0.0), T(1.0) - p.bin.Y, p.bin.h);
  p.d0 = spline::slope_of(p.raw0, spline::Convention::nflows);
  p.d1 = spline::slope_of(p.raw1, spline::Convention::nflows);
  return p;
}

template <class T>
HEPOPS_HD void set_letters(Place<T>& p) {
  p.q = p.xi * p.rest;
  p.D = p.d0 + p.d1 - T(2.0) * p.s;
  p.per_m = T(1.0) / (p.s + p.D * p.q);
  p.n1 = p.s * p.xi + p.d0 * p.rest;
  p.n2 = p.s * p.rest + p.d1 * p.xi;
  const T N = p.d1 * p.xi * p.xi + T(2.0) * p.s * p.q + p.d0 * p.rest * p.rest, r = p.s * p.per_m;
  p.per_N = T(1.0) / N;
  p.slope = N * r * r;
}

// From `at`, the point, or for the inverse its image.
template <bool inverse, class T, class Row>
HEPOPS_HD Place<T> place_on_box(const Gap<T>& at, const Fractions<T, Row>& widths, const Fractions<T, Row>& heights,
                                const Row& row, int slopes, int bins) {
  Place<T> p = find_bin<inverse>(at.s, widths, heights, row, slopes, bins);
  const auto first = p.in_first > T(0.0), last = p.in_last > T(0.0);
  const auto& b = p.bin;
  const T per_w = T(1.0) / b.w;
  p.s = b.h * per_w;
  if constexpr (inverse) {
    const T per_h = T(1.0) / b.h, t = spline::clamp((at.s - b.Y) * per_h);
    const T rest = select(last, spline::clamp(at.c * per_h), T(1.0) - t);
    p.xi = spline::clamp(spline::solve(t, p.s, p.d0, p.d1));
    p.rest = spline::clamp(spline::solve(rest, p.s, p.d1, p.d0));
  } else {
    p.xi = spline::clamp((at.s - b.X) * per_w);
    p.rest = select(last, spline::clamp(at.c * per_w), T(1.0) - p.xi);
  }
  set_letters(p);
  if constexpr (inverse) {
    p.v = at;
    p.u = {b.X + b.w * p.xi, select(last, T(0.0), T(1.0) - b.X - b.w) + b.w * p.rest};
  } else {
    p.u = at;
    p.v = {b.Y + b.h * p.xi * p.n1 * p.per_m, select(last, T(0.0), T(1.0) - b.Y - b.h) + b.h * p.rest * p.n2 * p.per_m};
  }
  p.ratio = select(first, p.s * p.n1 * p.per_m, p.v.s / p.u.s);
  p.ratio_c = select(last, p.s * p.n2 * p.per_m, p.v.c / p.u.c);
  return p;
}

// What L depends on: explicitly on the point and on the image, and on l = ln dv/du, r = ln v/u, rc = ln (1-v)/(1-u).
template <class T>
struct PlaceGradient {
  T u, v, l, r, rc;
};

// -> the gradient of the point (of the image, for the inverse) and of the bin's numbers. With k what the image's (the
// point's) dependence on the parameters is multiplied by:
//   forward   dL/du + L_v f',  k = L_v        inverse   by the implicit function rule L_v + L_u / f',  k = -L_u / f'
template <bool inverse, class T>
HEPOPS_HD spline::Gradient<T> place_backward(const Place<T>& p, const PlaceGradient<T>& L) {
  const auto first = p.in_first > T(0.0), last = p.in_last > T(0.0);
  const T r_bin = select(first, L.r, T(0.0)), r_far = L.r - r_bin;
  const T c_bin = select(last, L.rc, T(0.0)), c_far = L.rc - c_bin;
  const T per_w = T(1.0) / p.bin.w, middle = p.rest - p.xi, per_n1 = T(1.0) / p.n1, per_n2 = T(1.0) / p.n2;
  const T xi2 = p.xi * p.xi, rest2 = p.rest * p.rest, qm = p.q * p.per_m, per_s = T(1.0) / p.s;
  const T m_xi = p.D * middle * p.per_m, m_s = (T(1.0) - T(2.0) * p.q) * p.per_m;
  const T logs = T(2.0) * L.l + r_bin + c_bin;  // how often ln m stands in them
  const T xi = L.l * T(2.0) * (p.d1 * p.xi + p.s * middle - p.d0 * p.rest) * p.per_N + r_bin * (p.s - p.d0) * per_n1 +
               c_bin * (p.d1 - p.s) * per_n2 - logs * m_xi;
  T s = L.l * T(2.0) * p.q * p.per_N + r_bin * p.xi * per_n1 + c_bin * p.rest * per_n2 + logs * (per_s - m_s);
  T d0 = L.l * rest2 * p.per_N + r_bin * p.rest * per_n1 - logs * qm;
  T d1 = L.l * xi2 * p.per_N + c_bin * p.xi * per_n2 - logs * qm;
  const T L_u = L.u + xi * per_w + select(first, T(0.0), -r_far / p.u.s) + select(last, T(0.0), c_far / p.u.c);
  const T L_v = L.v + select(first, T(0.0), r_far / p.v.s) - select(last, T(0.0), c_far / p.v.c);
  const T k = inverse ? -L_u / p.slope : L_v;
  spline::Gradient<T> g;
  g.x = inverse ? L_v - k : L_u + k * p.slope;
  // u = X + w xi: at a fixed point xi moves by -(dX + xi dw) / w
  const T along = xi * per_w + k * p.slope;
  const T hq = k * p.bin.h * qm * p.per_m;
  s += hq * (p.d1 * xi2 - p.d0 * rest2);
  d0 += hq * (p.s * rest2 + p.d1 * p.q);
  d1 -= hq * p.xi * p.n1;
  g.d0 = d0;
  g.d1 = d1;
  g.X = -along;
  g.w = -along * p.xi - s * p.s * per_w;
  g.Y = k;
  g.h = k * p.xi * p.n1 * p.per_m + s * per_w;
  return g;
}

// The gradients of the raw parameters, put where `to` keeps them; a Row that keeps exponentials is `to` itself.
template <class T, class Row, class To>
HEPOPS_HD void put_raw_gradients(const Place<T>& p, const spline::Gradient<T>& g, const Fractions<T, Row>& widths,
                                 const Fractions<T, Row>& heights, int slopes, int bins, const To& to) {
  const double floor = spline::least, c = 1.0 - floor * bins;
  const auto& b = p.bin;
  const auto logits = [&](const Fractions<T, Row>& fractions, const T& before, const T& here, const T& begin,
                          const T& size) {
    const T mean = spline::mean_gradient(before, here, b.index, begin, size, floor, c);
    for (int k = 0; k < bins; ++k)
      to.put(fractions.first + k, spline::logit_gradient(k, fractions(k), before, here, b.index, mean, floor));
  };
  logits(widths, g.X, g.w, b.X, b.w);
  logits(heights, g.Y, g.h, b.Y, b.h);
  const T g0 = spline::slope_of_backward(g.d0, p.raw0, spline::Convention::nflows);
  const T g1 = spline::slope_of_backward(g.d1, p.raw1, spline::Convention::nflows);
  for (int k = 0; k <= bins; ++k)
    to.put(slopes + k, select(b.index == T(double(k)), g0, T(0.0)) + select(b.index == T(double(k - 1)), g1, T(0.0)));
}

}  // namespace hepops::lattice
