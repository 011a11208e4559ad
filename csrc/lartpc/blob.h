#pragma once
// A short piece of a track as the readout sees it: a line of charge of length `width`, blurred by a Gaussian `sigma`.
//
//   C(x) = 1/width  int_{x - width/2}^{x + width/2} Phi(t / sigma) dt        share of the charge below x
//   D(x) = int_{-inf}^{x} C                                                  so that D'' is the density
//
// Along each axis the line's extent is kept exactly, so that a chain of pieces is as smooth as the track. Differences
// of C at bin edges are the bins' shares; second differences of D at whole ticks are the shares of a charge that is
// spread over the two ticks it overlaps. Sources: the integrals of Phi; checked against quadrature and dual numbers.
#include <cmath>

#include "core/host_device.h"

namespace hepops::lartpc {

template <class T>
struct Cumulative {
  T value, x, sigma, width;  // the value and its slopes
};

namespace blob {

constexpr double narrow = 0.03;  // width / sigma below which the series in it is exact to 1e-13

// Phi(x / sigma), phi(x / sigma), and g = sigma phi - |x| Phi(-|x| / sigma), the part of int Phi beyond max(x, 0)
template <class T>
struct Normal {
  T Phi, phi, g;
  HEPOPS_HD Normal(T x, T sigma) {
    using std::abs, std::erfc, std::exp;
    const T z = sigma > T(0) ? abs(x) / sigma : T(100);
    const T tail = z < T(38) ? T(0.5) * erfc(z * T(0.70710678118654752)) : T(0);
    phi = z < T(38) ? T(0.39894228040143268) * exp(T(-0.5) * z * z) : T(0);
    Phi = x < T(0) ? tail : T(1) - tail;
    g = sigma > T(0) ? sigma * phi - abs(x) * tail : T(0);
  }
};

template <class T>
HEPOPS_HD T ramp(T x) {
  return x > T(0) ? x : T(0);
}

}  // namespace blob

// C and its slopes. C is homogeneous of degree 0: x C_x + sigma C_sigma + width C_width = 0 checks them.
template <class T>
HEPOPS_HD Cumulative<T> share_below(T x, T sigma, T width) {
  using blob::Normal, blob::ramp;
  if (width < T(blob::narrow) * sigma) {  // Phi and the even powers of width / sigma
    const Normal<T> n(x, sigma);
    const T z = x / sigma, r = width / sigma, zz = z * z, rr = r * r, slope = n.phi / sigma;
    const T value = n.Phi + n.phi * rr * z * (T(-1) / 24 + rr / 1920 * (T(3) - zz));
    const T dx = slope * (T(1) + rr / 24 * (zz - T(1)) + rr * rr / 1920 * (zz * zz - T(6) * zz + T(3)));
    const T dwidth = slope * r * z * (T(-1) / 12 + rr / 480 * (T(3) - zz));
    return {value, dx, -(x * dx + width * dwidth) / sigma, dwidth};
  }
  const T h = T(0.5) * width;
  if (!(h > T(0))) return {x < T(0) ? T(0) : T(1), T(0), T(0), T(0)};  // a point without blur
  const Normal<T> high(x + h, sigma), low(x - h, sigma);
  const T value = (ramp(x + h) - ramp(x - h) + high.g - low.g) / width;
  return {value, (high.Phi - low.Phi) / width, (high.phi - low.phi) / width,
          (T(0.5) * (high.Phi + low.Phi) - value) / width};
}

// D and its slopes; D_x = C, D_sigma = sigma C_x.
template <class T>
HEPOPS_HD Cumulative<T> ramp_below(T x, T sigma, T width) {
  using blob::Normal, blob::ramp;
  if (width < T(blob::narrow) * sigma) {
    const Normal<T> n(x, sigma);
    const T z = x / sigma, r = width / sigma, zz = z * z, rr = r * r;
    const T value = ramp(x) + n.g + sigma * n.phi * rr * (T(1) / 24 + rr / 1920 * (zz - T(1)));
    const Cumulative<T> C = share_below(x, sigma, width);
    return {value, C.value, sigma * C.x, n.phi * r * (T(1) / 12 + rr / 480 * (zz - T(1)))};
  }
  const T h = T(0.5) * width;
  if (!(h > T(0))) return {ramp(x), x < T(0) ? T(0) : T(1), T(0), T(0)};
  const T a = x + h, b = x - h;
  const Normal<T> high(a, sigma), low(b, sigma);
  // int int Phi = max(x, 0)^2 / 2 + sigma^2 Phi / 2 + x g / 2; the first part without cancellation
  const T square = b > T(0) ? T(2) * x * width : ramp(a) * ramp(a);
  const T value = T(0.5) * (square + sigma * sigma * (high.Phi - low.Phi) + a * high.g - b * low.g) / width;
  const T C = (ramp(a) - ramp(b) + high.g - low.g) / width;
  const T H = T(0.5) * (ramp(a) + ramp(b) + high.g + low.g);
  return {value, C, sigma * (high.Phi - low.Phi) / width, (H - value) / width};
}

}  // namespace hepops::lartpc
