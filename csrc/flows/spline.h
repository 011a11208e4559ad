#pragma once
// The monotone rational-quadratic spline of Durkan et al. (2019), arXiv:1906.04032, after Gregory and Delbourgo,
// IMA J. Numer. Anal. 2 (1982) 123. On a domain [low, high] that it maps onto itself, in units of the domain:
//
//   bin k begins at (X, Y), has width w, height h, slopes d0 and d1 at its ends;  s = h / w,  xi = (u - X) / w,
//   q = xi (1 - xi),  D = d0 + d1 - 2 s,  n = s xi^2 + d0 q,  m = s + D q,  N = d1 xi^2 + 2 s q + d0 (1 - xi)^2
//   v = Y + h n / m,   dv/du = s^2 N / m^2
//
// What the numbers of a network become (K bins; c = 1 - K/1000):
//   nflows   w = 1/1000 + c softmax(W),  d = 1/1000 + softplus(D)
//   zuko     w = softmax(W / (1 + |2 W / ln 1000|)),  d = exp(D / (1 + |D / ln 1000|))     [arXiv 1906.04032, zuko 1.6]
//
// The text serves any T: double, Dual, and Pack for SIMD. A `source` gives what belongs to an element:
//   bins(), tails, convention; width(k), height(k): fractions of the domain; raw_slope(j): by knot 0 ... K, a T.
#include "core/math.h"

namespace hepops::flows {

using core::abs, core::exp, core::log, core::log1p, core::max, core::min, core::sqrt;
using std::fmod;

enum class Tails : int { linear, circular, none };
enum class Convention : int { nflows, zuko };

constexpr double least = 1e-3;  // width, height and slope
constexpr double log_least = -6.907755278982137;

// How many slopes are free: all but the ends, the end once, all.
constexpr int64_t slope_count(int64_t bins, Tails tails) {
  return bins + (tails == Tails::linear ? -1 : tails == Tails::circular ? 0 : 1);
}

constexpr double floor_of(Convention convention) { return convention == Convention::nflows ? least : 0.0; }

template <class T>
HEPOPS_HD T select(bool first, const T& a, const T& b) {
  return first ? a : b;
}
HEPOPS_HD bool any(bool x) { return x; }

template <class S>
HEPOPS_HD double round_to(S, double x) {
  return double(S(x));
}

template <class T>
HEPOPS_HD T log1p_of_fraction(const T& t) {
  return log1p(t);
}

// x / (1 + |x factor / ln 1000|)
template <class T>
HEPOPS_HD T soft_clip(const T& x, double factor) {
  return x / (T(1) + abs(x * T(factor / log_least)));
}

// (1 + |x factor / ln 1000|)^-2
template <class T>
HEPOPS_HD T soft_clip_slope(const T& x, double factor) {
  const T root = T(1) / (T(1) + abs(x * T(factor / log_least)));
  return root * root;
}

template <class T>
HEPOPS_HD T slope_of(const T& raw, Convention convention) {
  if (convention == Convention::zuko) return exp(soft_clip(raw, 1));
  return T(least) + max(raw, T(0)) + log1p_of_fraction(exp(-abs(raw)));
}

// the logistic function; exp's chain rule
template <class T>
HEPOPS_HD T slope_of_backward(const T& grad, const T& raw, Convention convention) {
  if (convention == Convention::zuko) return grad * exp(soft_clip(raw, 1)) * soft_clip_slope(raw, 1);
  const T t = exp(-abs(raw));
  return grad * select(raw >= T(0), T(1), t) / (T(1) + t);
}

// A bin, in units of the domain, and its number.
template <class T>
struct Bin {
  T index, X, w, Y, h;
};

// The bin that holds u, or v where by_height. A NaN ends in bin 0.
template <bool by_height, class T, class Source>
HEPOPS_HD Bin<T> find(const T& target, const Source& source) {
  T x = source.width(0), y = source.height(0);
  Bin<T> bin{T(0), T(0), x, T(0), y};
  for (int k = 1; k < source.bins(); ++k) {
    const auto past = target >= (by_height ? y : x);
    const T w = source.width(k), h = source.height(k);
    bin = {select(past, T(k), bin.index), select(past, x, bin.X), select(past, w, bin.w), select(past, y, bin.Y),
           select(past, h, bin.h)};
    x += w;
    y += h;
  }
  const auto last = bin.index == T(source.bins() - 1);  // which ends where the domain does, whatever the sum
  bin.w = select(last, T(1) - bin.X, bin.w);
  bin.h = select(last, T(1) - bin.Y, bin.h);
  return bin;
}

// The raw parameters of the slopes at a bin's ends, and the slopes.
template <class T>
struct Ends {
  T raw0, raw1, d0, d1;
};

template <class T, class Source>
HEPOPS_HD Ends<T> ends(const T& index, const Source& source) {
  Ends<T> e;
  source.raw_slopes(index, e.raw0, e.raw1);
  e.d0 = slope_of(e.raw0, source.convention);
  e.d1 = slope_of(e.raw1, source.convention);
  if (source.tails == Tails::linear) {  // which go on with slope 1
    e.d0 = select(index == T(0), T(1), e.d0);
    e.d1 = select(index == T(source.bins() - 1), T(1), e.d1);
  }
  return e;
}

// The letters of the formula at one point.
template <class T>
struct Point {
  T xi, rest, q, s, d0, d1, n, N, per_m, slope;
};

template <class T>
HEPOPS_HD Point<T> point(const T& xi, const T& s, const T& d0, const T& d1) {
  const T rest = T(1) - xi, q = xi * rest;
  const T n = s * xi * xi + d0 * q, N = d1 * xi * xi + T(2) * s * q + d0 * rest * rest;
  const T per_m = T(1) / (s + (d0 + d1 - T(2) * s) * q), r = s * per_m;
  return {xi, rest, q, s, d0, d1, n, N, per_m, N * r * r};
}

// v -> xi, from a xi^2 + b xi = s t, t = (v - Y) / h, b = d0 - t D, a = s - b. The root is written so that nothing
// cancels: 2 s t / (b + root) or (root - b) / 2a, after the sign of b.
template <class T>
HEPOPS_HD T solve(const T& t, const T& s, const T& d0, const T& d1) {
  const T b = d0 - t * (d0 + d1 - T(2) * s), a = s - b;
  const T root = sqrt(max(b * b + T(4) * a * s * t, T(0)));
  const auto rising = b >= T(0);
  return select(rising, T(2) * s * t, root - b) / select(rising, b + root, T(2) * a);
}

template <class T>
HEPOPS_HD T clamp(const T& x) {
  return min(max(x, T(0)), T(1));  // a NaN stays
}

// What is mapped and where: x or y, brought into the domain.
template <class T>
struct Domain {
  T low, high;
  HEPOPS_HD T span() const { return high - low; }
};

template <class T>
HEPOPS_HD T wrap(const T& x, const Domain<T>& domain) {
  const auto outside = (x < domain.low) | (x > domain.high);
  if (!any(outside)) return x;
  const T rest = fmod(x - domain.low, domain.span());
  return select(outside, domain.low + select(rest < T(0), rest + domain.span(), rest), x);
}

// Where an element lies: its bin and the letters there, on either side of the map.
template <class T>
struct Place {
  Bin<T> bin;
  Ends<T> ends;
  Point<T> at;
  T value;  // y, or x in the inverse direction
};

template <class T, class Source>
HEPOPS_HD Point<T> point_in(const T& u, const Bin<T>& bin, const Ends<T>& e) {
  const T per_w = T(1) / bin.w;
  return point(clamp((u - bin.X) * per_w), bin.h * per_w, e.d0, e.d1);
}

template <class T, class Source>
HEPOPS_HD Place<T> place(const T& x, const Domain<T>& domain, const Source& source) {
  const T u = (x - domain.low) / domain.span();
  Place<T> p;
  p.bin = find<false>(u, source);
  p.ends = ends(p.bin.index, source);
  p.at = point_in<T, Source>(u, p.bin, p.ends);
  const T v = p.bin.Y + p.bin.h * (p.at.n * p.at.per_m);
  p.value = select(v == T(1), domain.high, domain.low + domain.span() * v);
  return p;
}

// The letters are those at x as it is returned, rounded to S: there the forward direction will be evaluated.
template <class S, class T, class Source>
HEPOPS_HD Place<T> place_inverse(const T& y, const Domain<T>& domain, const Source& source) {
  const T v = (y - domain.low) / domain.span();
  Place<T> p;
  p.bin = find<true>(v, source);
  p.ends = ends(p.bin.index, source);
  const T s = p.bin.h / p.bin.w, xi = clamp(solve(clamp((v - p.bin.Y) / p.bin.h), s, p.ends.d0, p.ends.d1));
  const T u = p.bin.X + p.bin.w * xi;
  p.value = select(u == T(1), domain.high, domain.low + domain.span() * u);
  if constexpr (sizeof(S) == sizeof(double)) {
    p.at = point(xi, s, p.ends.d0, p.ends.d1);
  } else {
    p.value = round_to(S(), p.value);
    const T returned = (p.value - domain.low) / domain.span();
    if (any((returned < p.bin.X) | (returned > p.bin.X + p.bin.w))) {  // rounding may pass a knot
      p.bin = find<false>(returned, source);
      p.ends = ends(p.bin.index, source);
    }
    p.at = point_in<T, Source>(returned, p.bin, p.ends);
  }
  return p;
}

template <class T>
struct Image {
  T value, logdet;
};

template <bool inverse, class S, class T, class Source>
HEPOPS_HD Place<T> place_of(const T& x, const Domain<T>& domain, const Source& source) {
  if constexpr (inverse)
    return place_inverse<S>(x, domain, source);
  else
    return place(x, domain, source);
}

template <bool inverse, class S, class T, class Source>
HEPOPS_HD Image<T> map(const T& x, const Domain<T>& domain, const Source& source) {
  const T z = source.tails == Tails::circular ? wrap(x, domain) : x;
  const auto inside = (z >= domain.low) & (z <= domain.high);
  const T middle = T(0.5) * (domain.low + domain.high);
  const Place<T> p = place_of<inverse, S>(select(inside, z, middle), domain, source);
  const T logdet = inverse ? -log(p.at.slope) : log(p.at.slope);
  if (source.tails == Tails::linear)
    return {select(inside, p.value, x), select(inside, logdet, select(x == x, T(0), x))};
  const T nan = T(NAN);
  return {select(inside, p.value, nan), select(inside, logdet, nan)};
}

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

}  // namespace hepops::flows
