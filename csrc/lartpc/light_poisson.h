#pragma once
// Poisson numbers whose random bits have names (core/philox.h).
//
//   mean < 10    inversion: the least n with u < P(0) + ... + P(n)
//   else         transformed rejection, PTRS: W. Hoermann, Insurance: Math. and Econ. 12 (1993) 39
//
// The name of an attempt is (seed, index, step, purpose + attempt), so that a number depends on its name and its mean
// alone. Both ways are exact to the rounding of double.
#include <cmath>

#include "core/philox.h"

namespace hepops::lartpc {

constexpr double poisson_inversion_below = 10;
constexpr int poisson_attempts = 64;  // the chance to reject once is below 0.3: more never happens (0.3^64 = 1e-34)

// ln k!, by Stirling's series from k = 9 on, to a few 1e-14
HEPOPS_HD double log_factorial(double k) {
  double x = k + 1, shift = 0;
  while (x < 10) shift += std::log(x), x += 1;
  const double y = 1 / x, yy = y * y;
  return (x - 0.5) * std::log(x) - x + 0.91893853320467274 +
         y * (1 / 12. - yy * (1 / 360. - yy * (1 / 1260. - yy * (1 / 1680. - yy / 1188.)))) - shift;
}

HEPOPS_HD double poisson_by_inversion(double mean, double u) {
  if (u < 1 - mean) return 0;  // 1 - mean <= e^-mean: most ticks are dark, and need no exponential
  double p = std::exp(-mean), sum = p, n = 0;
  while (u >= sum) {
    n += 1;
    p *= mean / n;
    const double more = sum + p;
    if (more == sum) break;  // u lies in what rounding left of the tail
    sum = more;
  }
  return n;
}

HEPOPS_HD double poisson(double mean, const core::Philox& random, uint32_t step, uint32_t purpose) {
  if (!(mean > 0)) return 0;
  if (mean < poisson_inversion_below) {
    const auto bits = random.block(step, purpose);
    return poisson_by_inversion(mean, core::uniform<double>(bits[0], bits[1]));
  }
  const double b = 0.931 + 2.53 * std::sqrt(mean), a = -0.059 + 0.02483 * b;
  const double inverse_alpha = 1.1239 + 1.1328 / (b - 3.4), v_r = 0.9277 - 3.6224 / (b - 2), log_mean = std::log(mean);
  for (int attempt = 0; attempt < poisson_attempts; ++attempt) {
    const auto bits = random.block(step, purpose + uint32_t(attempt));
    const double U = core::uniform<double>(bits[0], bits[1]) - 0.5, V = core::uniform<double>(bits[2], bits[3]);
    const double us = 0.5 - std::abs(U), k = std::floor((2 * a / us + b) * U + mean + 0.43);
    if (us >= 0.07 && V <= v_r) return k;
    if (k < 0 || (us < 0.013 && V > us)) continue;
    if (std::log(V * inverse_alpha / (a / (us * us) + b)) <= k * log_mean - mean - log_factorial(k)) return k;
  }
  return std::floor(mean);
}

}  // namespace hepops::lartpc
