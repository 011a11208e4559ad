#pragma once
// The gradients of the spline (spline.h), in both directions: everything is computed anew from what the forward was
// given. Held to rounding against dual numbers in tests/flows/test_rational_quadratic_spline.cpp.
#include "core/spline.h"

namespace hepops::core::spline {

// dL/d of x (or y) and of the bin's numbers; X and Y are sums of the widths and heights before.
template <class T>
struct Gradient {
  T x, X, w, Y, h, d0, d1;
};

// With l = ln dv/du = 2 ln s + ln N - 2 ln m, at fixed w, h, X, Y:
//   dv/ds = h q (d1 xi^2 - d0 (1 - xi)^2) / m^2         dl/ds = 2/s + 2q/N - 2(1 - 2q)/m
//   dv/dd0 = h q (s (1 - xi)^2 + d1 q) / m^2            dl/dd0 = (1 - xi)^2/N - 2q/m
//   dv/dd1 = -h q n / m^2                               dl/dd1 = xi^2/N - 2q/m
//   dl/dxi = (2 d1 xi + 2 s (1 - 2 xi) - 2 d0 (1 - xi))/N - 2 D (1 - 2 xi)/m
// and s = h/w, xi = (u - X)/w. The inverse follows from v = f(u; p):  du = (dv - f_p dp)/f',  dl = l_u du + l_p dp.
template <bool inverse, class T>
HEPOPS_HD Gradient<T> point_backward(const Point<T>& p, const T& w, const T& h, const T& grad_value,
                                     const T& grad_logdet) {
  const T per_N = T(1) / p.N, per_w = T(1) / w, middle = p.rest - p.xi, xi2 = p.xi * p.xi, rest2 = p.rest * p.rest;
  const T D = p.d0 + p.d1 - T(2) * p.s;
  const T l_u = per_w * T(2) * ((p.d1 * p.xi + p.s * middle - p.d0 * p.rest) * per_N - D * middle * p.per_m);
  Gradient<T> g;
  T v = grad_value, l = grad_logdet;
  if constexpr (inverse) {
    g.x = (grad_value - grad_logdet * l_u) / p.slope;
    v = -g.x;
    l = -grad_logdet;
    g.X = grad_value;
  } else {
    g.x = grad_value * p.slope + grad_logdet * l_u;
    g.X = -g.x;
  }
  const T hq = v * h * p.q * p.per_m * p.per_m, both = T(2) * p.q * p.per_m;
  const T s = hq * (p.d1 * xi2 - p.d0 * rest2) + l * T(2) * (T(1) / p.s + p.q * per_N - (T(1) - T(2) * p.q) * p.per_m);
  g.d0 = hq * (p.s * rest2 + p.d1 * p.q) + l * (rest2 * per_N - both);
  g.d1 = l * (xi2 * per_N - both) - hq * p.n;
  g.w = g.X * p.xi - s * p.s * per_w;
  g.Y = v;
  g.h = v * p.n * p.per_m + s * per_w;
  return g;
}

template <class T>
struct Backward {
  Gradient<T> gradient;
  Bin<T> bin;
  Ends<T> ends;
};

template <bool inverse, class S, class T, class Source>
HEPOPS_HD Backward<T> map_backward(const T& grad_value, const T& grad_logdet, const T& x, const Domain<T>& domain,
                                   const Source& source) {
  const T z = source.tails == Tails::circular ? wrap(x, domain) : x;
  const auto inside = (z >= domain.low) & (z <= domain.high);
  const T middle = T(0.5) * (domain.low + domain.high);
  const Place<T> p = place_of<inverse, S>(select(inside, z, middle), domain, source);
  Gradient<T> g = point_backward<inverse>(p.at, p.bin.w, p.bin.h, select(inside, grad_value * domain.span(), T(0)),
                                          select(inside, grad_logdet, T(0)));
  const T outside = source.tails == Tails::linear ? grad_value : T(0);
  g.x = select(inside, g.x / domain.span(), outside);
  return {g, p.bin, p.ends};
}

// The softmax behind the widths, w_j = floor + r_j, r_j = c e_j / sum(e), of which bin k and those before it are used:
// dL/dlogit_j = r_j (G_j - sum_i r_i G_i / c), with G_j = dL/dX for j < k, dL/dw for j = k, 0 beyond.
template <class T>
HEPOPS_HD T mean_gradient(const T& before, const T& here, const T& index, const T& begin, const T& size, double floor,
                          double c) {
  return (before * (begin - T(floor) * index) + here * (size - T(floor))) * T(1 / c);
}

template <class T>
HEPOPS_HD T logit_gradient(int j, const T& fraction, const T& before, const T& here, const T& index, const T& mean,
                           double floor) {
  const T G = select(index > T(j), before, select(index == T(j), here, T(0)));
  return (fraction - T(floor)) * (G - mean);
}

}  // namespace hepops::core::spline
