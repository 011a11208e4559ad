#pragma once
// series::exp and series::log1p, for loops over many numbers. The host's standard functions are calls that keep a loop
// from becoming SIMD; these are selects and polynomials that do not. On a GPU the standard ones are used, which are
// inlined there.
//
// Within 2 ulp of the correct value (tests/core/test_elementary.cpp), infinities and NaN as the standard ones.
// exp: k = round(x / ln 2), a Taylor series in r = x - k ln 2, |r| < 0.35. log1p: 1 + u = 2^k m, the series of
// fdlibm's log in s = f / (2 + f), f = m - 1 (Sun Microsystems 1993), with what 1 + u lost in rounding put back.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/host_device.h"

namespace hepops::core::series {

template <class T>
struct Binary;

template <>
struct Binary<float> {
  using Int = int32_t;
  static constexpr int mantissa_bits = 23, exponent_bias = 127;
  static constexpr float round = 0x1.8p23f;  // x + round - round is the nearest integer
  static constexpr float ln2_high = 0x1.62e3p-1f, ln2_low = 0x1.2fefa2p-17f;  // k ln2_high is exact
  static constexpr float exp_least = -104, exp_most = 89;                     // beyond: 0 and infinity
  static constexpr int32_t root_half = 0x3f3504f3;                            // the bits of sqrt(1/2)
};

template <>
struct Binary<double> {
  using Int = int64_t;
  static constexpr int mantissa_bits = 52, exponent_bias = 1023;
  static constexpr double round = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double exp_least = -746, exp_most = 710;
  static constexpr int64_t root_half = 0x3fe6a09e667f3bcd;
};

// 2^k, for k from 1 - bias to bias
template <class T>
HEPOPS_HD T power_of_two(typename Binary<T>::Int k) {
  return std::bit_cast<T>((k + Binary<T>::exponent_bias) << Binary<T>::mantissa_bits);
}

// A short integer as a number, without the conversion that older processors lack for 64 bits.
template <class T>
HEPOPS_HD T number(typename Binary<T>::Int k) {
  return std::bit_cast<T>(std::bit_cast<typename Binary<T>::Int>(Binary<T>::round) + k) - Binary<T>::round;
}

// sum_n r^n / n!, to r^7 or r^13: what is left is below half an ulp for |r| < 0.35
HEPOPS_HD float exp_series(float r) {
  return 1 + r * (1 + r * (1 / 2.f + r * (1 / 6.f + r * (1 / 24.f + r * (1 / 120.f + r * (1 / 720.f + r / 5040))))));
}

HEPOPS_HD double exp_series(double r) {
  const double tail =
      1 / 5040. +
      r * (1 / 40320. +
           r * (1 / 362880. + r * (1 / 3628800. + r * (1 / 39916800. + r * (1 / 479001600. + r / 6227020800.)))));
  return 1 + r * (1 + r * (1 / 2. + r * (1 / 6. + r * (1 / 24. + r * (1 / 120. + r * (1 / 720. + r * tail))))));
}

template <class T>
HEPOPS_HD T exp_by_series(T x) {
  using B = Binary<T>;
  using Int = typename B::Int;
  T bounded = x < B::exp_least ? B::exp_least : x;
  bounded = bounded > B::exp_most ? B::exp_most : bounded;  // a NaN passes both
  const T shifted = bounded * T(0x1.71547652b82fep0) + B::round, k = shifted - B::round;
  const T r = (bounded - k * B::ln2_high) - k * B::ln2_low;
  const Int power = std::bit_cast<Int>(shifted) - std::bit_cast<Int>(B::round), half = power >> 1;
  // In two factors, since 2^k alone may overflow where the result does not, and be subnormal.
  return exp_series(r) * power_of_two<T>(half) * power_of_two<T>(power - half);
}

// ln(m) = f - f^2/2 + s (f^2/2 + R(s^2)); the coefficients are fdlibm's
HEPOPS_HD float log_series(float z) {
  return z * (0.66666662693f + z * (0.40000972152f + z * (0.28498786688f + z * 0.24279078841f)));
}

HEPOPS_HD double log_series(double z) {
  return z * (6.666666666666735130e-01 +
              z * (3.999999999940941908e-01 +
                   z * (2.857142874366239149e-01 +
                        z * (2.222219843214978396e-01 +
                             z * (1.818357216161805012e-01 +
                                  z * (1.531383769920937332e-01 + z * 1.479819860511658591e-01))))));
}

template <class T>
HEPOPS_HD T log1p_by_series(T u) {
  using B = Binary<T>;
  using Int = typename B::Int;
  constexpr Int one = Int(B::exponent_bias) << B::mantissa_bits, mantissa = (Int(1) << B::mantissa_bits) - 1;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const T y = T(1) + u, lost = (u - (y - T(1))) / y;
  const Int bits = std::bit_cast<Int>(y) + (one - B::root_half);  // so that m lies in [sqrt(1/2), sqrt(2))
  const T k = number<T>((bits >> B::mantissa_bits) - B::exponent_bias);
  const T f = std::bit_cast<T>((bits & mantissa) + B::root_half) - T(1);
  const T s = f / (T(2) + f), half_square = f * f / T(2), R = log_series(s * s);
  const T result = k * B::ln2_high + (f - (half_square - (s * (half_square + R) + (k * B::ln2_low + lost))));
  const T at_least_zero = y > T(0) ? result : (y == T(0) ? -infinity : std::numeric_limits<T>::quiet_NaN());
  return y < infinity ? at_least_zero : y;  // infinity and NaN as they are
}

#ifdef __CUDA_ARCH__
__device__ inline float exp(float x) { return ::expf(x); }
__device__ inline double exp(double x) { return ::exp(x); }
__device__ inline float log1p(float x) { return ::log1pf(x); }
__device__ inline double log1p(double x) { return ::log1p(x); }
#else
HEPOPS_HD float exp(float x) { return exp_by_series(x); }
HEPOPS_HD double exp(double x) { return exp_by_series(x); }
HEPOPS_HD float log1p(float x) { return log1p_by_series(x); }
HEPOPS_HD double log1p(double x) { return log1p_by_series(x); }
#endif

}  // namespace hepops::core::series
