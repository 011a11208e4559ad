#pragma once
// Random bits made into uniform and normal numbers.
//
//   uniform  (k + 1/2) / 2^p with k the leading p bits: inside (0, 1), never on its ends     p = 23 or 52
//   normal   sqrt(-2 ln u) (cos 2 pi v, sin 2 pi v)
//
// G. E. P. Box, M. E. Muller, Ann. Math. Stat. 29 (1958) 610.
//
// The numbers are the same to the last bit on every CPU and GPU: apart from sqrt and division, which IEEE 754 fixes,
// each multiplication that meets an addition is an explicit fma, so that no compiler has a rounding left to choose, and
// ln, cos and sin are the series below. Without calls, the loop around them is SIMD as well. The bits that float leaves
// out are the trailing ones, so float and double numbers of one block agree to the precision of float.
#include <cmath>
#include <cstdint>
#include <numbers>
#include <type_traits>

#include "core/rounded.h"
#include "core/vec.h"

namespace hepops::core {

// The leading word decides; double takes its further bits from the second.
template <class T>
HEPOPS_HD T uniform(uint32_t bits, uint32_t more = 0) {
  if constexpr (std::is_same_v<T, float>) {
    return (float(bits >> 9) + 0.5f) * 0x1p-23f;
  } else {
    const uint64_t all = uint64_t(bits) << 32 | more;
    return (double(all >> 12) + 0.5) * 0x1p-52;
  }
}

namespace detail {

template <class T>
struct Bits;

template <>
struct Bits<float> {
  using Int = int32_t;
  static constexpr int mantissa = 23, log_terms = 5, trigonometric_terms = 6;
};

template <>
struct Bits<double> {
  using Int = int64_t;
  static constexpr int mantissa = 52, log_terms = 11, trigonometric_terms = 9;
};

// ln x = e ln 2 + 2 artanh s,  x = 2^e m,  s = (m - 1) / (m + 1),  1/sqrt 2 <= m < sqrt 2 hence s^2 < 0.0295
template <class T>
HEPOPS_HD T log_series(T x) {
  using Int = typename Bits<T>::Int;
  constexpr Int sqrt_half = __builtin_bit_cast(Int, T(1) / std::numbers::sqrt2_v<T>);
  const Int bits = __builtin_bit_cast(Int, x), exponent = (bits - sqrt_half) >> Bits<T>::mantissa;
  const T m = __builtin_bit_cast(T, Int(bits - (exponent << Bits<T>::mantissa)));
  const T s = (m - T(1)) / (m + T(1)), s2 = s * s;
  T sum = T(1) / T(2 * Bits<T>::log_terms - 1);
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int n = Bits<T>::log_terms - 2; n >= 0; --n) sum = fma(sum, s2, T(1) / T(2 * n + 1));
  return fma(T(exponent), std::numbers::ln2_v<T>, (s + s) * sum);
}

// sum over n of (-x^2)^n / (2n + odd)!, and that times x where odd: cos x or sin x, for |x| <= pi/4
template <class T, int odd>
HEPOPS_HD T trigonometric_series(T x) {
  const T minus_x2 = -(x * x);
  T sum = T(1);
  // Horner from within: 1 - x^2/(1 2) (1 - x^2/(3 4) (...)) for cos
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int n = Bits<T>::trigonometric_terms - 1; n > 0; --n)
    sum = fma(sum * minus_x2, T(1) / T((2 * n + odd) * (2 * n + odd - 1)), T(1));
  return odd ? x * sum : sum;
}

// (cos, sin) of `bits` 2^-32 turns (and `more` 2^-64). The quarter is taken off as an integer, without error.
template <class T>
HEPOPS_HD Vec<T, 2> unit_circle(uint32_t bits, uint32_t more) {
  const uint32_t quarter = (bits + (1u << 29)) >> 30;
  const int32_t rest = int32_t(bits - (quarter << 30));
  T angle;
  if constexpr (std::is_same_v<T, float>) {
    angle = float(rest) * (2 * std::numbers::pi_v<float> * 0x1p-32f);
  } else {
    angle = fma(double(more), 0x1p-32, double(rest)) * (2 * std::numbers::pi * 0x1p-32);
  }
  const T c = trigonometric_series<T, 0>(angle), s = trigonometric_series<T, 1>(angle);
  const T x = quarter & 1 ? -s : c, y = quarter & 1 ? c : s;
  return {quarter & 2 ? -x : x, quarter & 2 ? -y : y};
}

}  // namespace detail

// Two independent normal numbers of mean 0 and variance 1. The radius takes all 32 (double: 64) bits of a, so that the
// tail reaches 6.7 (9.4) standard deviations and not the 5.8 of 23 bits.
template <class T>
HEPOPS_HD Vec<T, 2> normal2(uint32_t a, uint32_t b, uint32_t more_a = 0, uint32_t more_b = 0) {
  T u;  // (a + 1/2) / 2^32, in (0, 1]
  if constexpr (std::is_same_v<T, float>) {
    u = fma(float(a), 0x1p-32f, 0x1p-33f);
  } else {
    u = fma(double(uint64_t(a) << 32 | more_a), 0x1p-64, 0x1p-65);
  }
  const T radius = sqrt(T(-2) * detail::log_series(u));
  const Vec<T, 2> circle = detail::unit_circle<T>(b, more_b);
  return {rounded_product(radius, circle[0]), rounded_product(radius, circle[1])};
}

// From a block of four words: float takes the first two, double all.
template <class T>
HEPOPS_HD Vec<T, 2> normal2(const Vec<uint32_t, 4>& block) {
  return normal2<T>(block[0], block[1], block[2], block[3]);
}

}  // namespace hepops::core
