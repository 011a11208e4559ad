#pragma once
// Vectors of numbers that are stored in half as many bits as they are computed in.
#include <bit>
#include <cstring>
#ifdef __F16C__
#include <immintrin.h>
#endif

#include "sparse/convolve.h"
#include "sparse/simd.h"

namespace hepops::sparse {

// What a 16-bit type is: whoever brings one in says so (convolve.cu for torch's).
enum class Half { no, ieee, brain };
template <class S>
constexpr Half half_of = Half::no;

// V numbers stored as S, in the dtype they are computed in
template <class S, int V>
[[gnu::always_inline]] inline typename Simd<Wide<S>, V>::type load_wide(const S* from) {
  using T = Wide<S>;
  if constexpr (std::is_same_v<S, T>) {
    return Simd<T, V>::load(from);
  } else if constexpr (half_of<S> == Half::brain) {
    const auto bits = Simd<uint16_t, V>::load(reinterpret_cast<const uint16_t*>(from));
    return reinterpret_cast<typename Simd<T, V>::type>(__builtin_convertvector(bits, typename Simd<uint32_t, V>::type)
                                                       << 16);
  } else {
#ifdef __F16C__
    if constexpr (half_of<S> == Half::ieee && V == 8)
      return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#ifdef __AVX512F__
    if constexpr (half_of<S> == Half::ieee && V == 16)
      return _mm512_maskz_cvtph_ps(__mmask16(-1), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#endif
#endif
    T wide[V];
    for (int n = 0; n < V; ++n) wide[n] = T(from[n]);
    return Simd<T, V>::load(wide);
  }
}

// Rounded to nearest, ties to even; NaN stays NaN.
template <class S, int V>
[[gnu::always_inline]] inline void store_narrow(S* to, typename Simd<Wide<S>, V>::type x) {
  using T = Wide<S>;
  if constexpr (std::is_same_v<S, T>) {
    Simd<T, V>::store(to, x);
  } else if constexpr (half_of<S> == Half::brain) {
    using Bits = typename Simd<uint32_t, V>::type;
    const Bits bits = reinterpret_cast<Bits>(x);
    const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Bits result = x == x ? rounded : (bits >> 16 | 0x40u);
    Simd<uint16_t, V>::store(reinterpret_cast<uint16_t*>(to),
                             __builtin_convertvector(result, typename Simd<uint16_t, V>::type));
  } else {
#ifdef __F16C__
    if constexpr (half_of<S> == Half::ieee && V == 8)
      return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#ifdef __AVX512F__
    if constexpr (half_of<S> == Half::ieee && V == 16)
      return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                                 _mm512_maskz_cvtps_ph(__mmask16(-1), x, _MM_FROUND_TO_NEAREST_INT));
#endif
#endif
    T wide[V];
    Simd<T, V>::store(wide, x);
    for (int n = 0; n < V; ++n) to[n] = S(wide[n]);
  }
}

// A bfloat16 as its bits, for the instruction that adds products of two pairs of them.
struct Brain {
  uint16_t bits;
};

// x rounded to nearest, ties to even
template <class W>
Brain to_brain(W x) {
  if constexpr (half_of<W> == Half::brain) return std::bit_cast<Brain>(x);
  const uint32_t bits = std::bit_cast<uint32_t>(float(x));
  return {uint16_t(float(x) != float(x) ? bits >> 16 | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// Whether this processor has that instruction.
inline bool has_brain_products() {
#if defined(__AVX512F__)
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

template <class S>
void widen(const S* from, int64_t number, Wide<S>* to) {
  constexpr int V = full_lanes<Wide<S>>;
  int64_t n = 0;
  for (; n + V <= number; n += V) Simd<Wide<S>, V>::store(to + n, load_wide<S, V>(from + n));
  for (; n < number; ++n) to[n] = Wide<S>(from[n]);
}

}  // namespace hepops::sparse
