#pragma once
// blob.h on SIMD registers, values alone: the weights of a node for many universes.
//
// The normal tail is e^{-z^2/2} times Mills' ratio m(z) / sqrt(2 pi) = e^{z^2/2} Phi(-z), a polynomial in
// (z - 5) / (z + 5) for z in [0, 10]: a Chebyshev interpolant of degree 18 made with mpmath in 50 digits, in powers of
// s = 3/2 t + 1/2; within 9e-16 of its value, relative. Beyond z = 10 the tail is below 1e-23. Tested through the
// currents of both forms (tests/lartpc/test_universes.py).
#include "core/packed.h"
#include "lartpc/waveforms.h"

namespace hepops::lartpc::packed {

using core::Packed;

// e^{z^2/2} Phi(-z) for 0 <= z <= 10
inline Packed scaled_tail(Packed z) {
  constexpr double c[] = {
      0.1413313313805753,      -0.17105231981247915,   0.10640201474243526,     -0.052867108648323419,
      0.020750798406129155,    -0.0062068239880509911, 0.0012868365500033432,   -0.00012748058775166352,
      -1.7451689460573739e-05, 7.3600082093623296e-06, -2.0846645168434024e-07, -2.9207949991466343e-07,
      2.7604145883080456e-08,  1.2784183348384862e-08, -1.5394131245377445e-09, -6.5599260449166634e-10,
      6.4285000577429738e-11,  3.0398042931776742e-11, -1.5555656365197729e-12};
  const Packed s = 1.5 * ((z - 5.0) / (z + 5.0)) + 0.5, ss = s * s;
  Packed even = c[18], odd = c[17];  // two chains: half the wait
#pragma GCC unroll 16
  for (int k = 16; k >= 2; k -= 2) {
    even = even * ss + c[k];
    odd = odd * ss + c[k - 1];
  }
  return even * ss + odd * s + c[0];
}

// As blob::Normal; per_sigma is 1 / sigma, or 0 where there is no blur.
struct Normal {
  Packed Phi, phi, g;
  Normal(Packed x, double sigma, double per_sigma) {
    if (!(per_sigma > 0)) {
      Phi = select(x < 0.0, 0.0, 1.0);
      phi = g = 0.0;
      return;
    }
    const Packed a = abs(x), z = min(a * per_sigma, 38.0), bell = exp(-0.5 * z * z);
    const Packed tail = bell * scaled_tail(min(z, 10.0));
    phi = 0.39894228040143268 * bell;
    Phi = select(x < 0.0, tail, 1.0 - tail);
    g = sigma * phi - a * tail;
  }
};

inline Packed ramp(Packed x) { return max(x, 0.0); }

// share_below(x, sigma, width).value
inline Packed share_below(Packed x, double sigma, double width) {
  const double per_sigma = sigma > 0 ? 1 / sigma : 0.0;
  if (width < blob::narrow * sigma) {
    const Normal n(x, sigma, per_sigma);
    const Packed z = x * per_sigma;
    const double rr = width * width * per_sigma * per_sigma;
    return n.Phi + n.phi * rr * z * (-1. / 24 + rr / 1920 * (3.0 - z * z));
  }
  const double h = 0.5 * width;
  if (!(h > 0)) return select(x < 0.0, 0.0, 1.0);
  const Normal high(x + h, sigma, per_sigma), low(x - h, sigma, per_sigma);
  return (ramp(x + h) - ramp(x - h) + high.g - low.g) * (1 / width);
}

// ramp_below(x, sigma, width).value
inline Packed ramp_below(Packed x, double sigma, double width) {
  const double per_sigma = sigma > 0 ? 1 / sigma : 0.0;
  if (width < blob::narrow * sigma) {
    const Normal n(x, sigma, per_sigma);
    const Packed z = x * per_sigma;
    const double rr = width * width * per_sigma * per_sigma;
    return ramp(x) + n.g + sigma * n.phi * rr * (1. / 24 + rr / 1920 * (z * z - 1.0));
  }
  const double h = 0.5 * width;
  if (!(h > 0)) return ramp(x);
  const Packed a = x + h, b = x - h;
  const Normal high(a, sigma, per_sigma), low(b, sigma, per_sigma);
  const Packed square = select(b > 0.0, 2.0 * x * width, ramp(a) * ramp(a));
  return 0.5 * (square + sigma * sigma * (high.Phi - low.Phi) + a * high.g - b * low.g) * (1 / width);
}

inline Packed count_from(double first) {
  Packed x;
  for (int k = 0; k < Packed::size; ++k) x.v[k] = first + k;
  return x;
}

constexpr int most = 128 + 2 * Packed::size;  // values of C or D of one node, and what a register writes beyond

template <class T>
void share_bins(T* w, double centre, double sigma, double width, double bin, int64_t first, int64_t n) {
  double below[most];
  for (int64_t b = 0; b < n - 1; b += Packed::size)
    share_below(count_from(double(first + b + 1)) * bin - centre, sigma, width).store(below + b);
  below[n - 1] = 1;
  double low = 0;
  for (int64_t b = 0; b < n; ++b) {
    w[b] = T(below[b] - low);
    low = below[b];
  }
}

template <class T>
void share_ticks(T* w, double fraction, double sigma, double width, int64_t half) {
  double D[most];
  D[0] = D[1] = 0;
  const int64_t n = 2 * half;
  for (int64_t k = 0; k < n; k += Packed::size)
    ramp_below(count_from(double(k - half + 1)) - fraction, sigma, width).store(D + 2 + k);
  for (int64_t k = n; k < n + 2; ++k) D[2 + k] = double(k - half + 1) - fraction;
  for (int64_t k = 0; k < n + 2; ++k) w[k] = T(D[k + 2] - 2 * D[k + 1] + D[k]);
}

// As weigh(...) of waveforms.h without slopes.
template <class T>
void weigh(const Weights<T>& w, const Nodes& nodes, int64_t i, const Place& at, const Plane& plane) {
  const double s = nodes(sigma, i), per_tick = 1 / plane.dt;
  share_bins(w.u, nodes(u, i), s, nodes(width_u, i), plane.bin(), at.bin_u, at.bins_u);
  share_bins(w.v, nodes(v, i), s, nodes(width_v, i), plane.bin(), at.bin_v, at.bins_v);
  share_ticks(w.t, nodes(time, i) * per_tick - double(at.tick), nodes(sigma_time, i) * per_tick,
              nodes(width_time, i) * per_tick, at.half);
}

}  // namespace hepops::lartpc::packed
