#pragma once
// float16 to and from float32 for a CPU core, by whole vectors where the level has the instruction: left to itself the
// compiler makes them one by one, and a rectifier between becomes a branch that is guessed wrong half of the time.
#include <torch/headeronly/util/Half.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

#include <cstdint>

namespace hepops::sparse {

inline void convert(const torch::headeronly::Half* from, float* to, int64_t n) {
  int64_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#endif
  for (; i < n; ++i) to[i] = float(from[i]);
}

inline void convert(const float* from, torch::headeronly::Half* to, int64_t n) {
  int64_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#endif
  for (; i < n; ++i) to[i] = torch::headeronly::Half(from[i]);
}

}  // namespace hepops::sparse
