#pragma once
// Where each of many parts begins, from their counts, on the host.
//
//   offsets[i] = counts[0] + ... + counts[i - 1],   i = 0 ... n; the last one is the total
//
// G. E. Blelloch, Prefix sums and their applications, CMU-CS-90-190 (1990).
// Integers: the same in any order of the sums, so chunks go in parallel.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/parallel.h"

namespace hepops::core {

// counts (n), offsets (n + 1)
template <class Parallel = Serial>
void exclusive_scan(const int64_t* counts, int64_t n, int64_t* offsets, const Parallel& parallel = {}) {
  constexpr int64_t length = int64_t(1) << 16;
  const int64_t chunks = (n + length - 1) / length;
  std::vector<int64_t> starts(chunks + 1);
  const auto each_chunk = [&](const auto& f) {
    parallel(chunks, 1, [&](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c) f(c, c * length, std::min((c + 1) * length, n));
    });
  };
  // One chunk needs no start, so a short scan reads its counts once.
  if (chunks > 1)
    each_chunk([&](int64_t c, int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) starts[c + 1] += counts[i];
    });
  for (int64_t c = 0; c < chunks; ++c) starts[c + 1] += starts[c];
  offsets[0] = 0;
  each_chunk([&](int64_t c, int64_t first, int64_t last) {
    int64_t sum = starts[c];
    for (int64_t i = first; i < last; ++i) offsets[i + 1] = sum += counts[i];
  });
}

}  // namespace hepops::core
