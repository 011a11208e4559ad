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
#include "core/packed.h"

namespace hepops::core::spline {

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

template <class T>
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
  p.at = point_in(u, p.bin, p.ends);
  const T v = min(p.bin.Y + p.bin.h * (p.at.n * p.at.per_m), T(1));
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
  const T u = min(p.bin.X + p.bin.w * xi, T(1));
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
    p.at = point_in(returned, p.bin, p.ends);
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

}  // namespace hepops::core::spline
