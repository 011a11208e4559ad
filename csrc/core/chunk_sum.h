#pragma once
// N sums over a chunk of terms, in double and in one order: the law of reduce.h on the host.
//
// A chunk is summed in interleaved lanes, then lane by lane: this fixes the order, and lets the compiler use SIMD
// without reordering.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/parallel.h"
#include "core/vec.h"

namespace hepops::core {

constexpr int64_t chunk_length = 4096;

// The sums over first <= i < last of f(i), a Vec<T, N> of any T that converts to double.
template <int N, class F>
Vec<double, N> sum_chunk(int64_t first, int64_t last, const F& f) {
  constexpr int lanes = 16;
  double sum[N][lanes] = {};
  const auto add = [&](int64_t i, int lane) {
    const auto term = f(i);
    for (int k = 0; k < N; ++k) sum[k][lane] += double(term[k]);
  };
  int64_t i = first;
  for (; i + lanes <= last; i += lanes)
#pragma GCC ivdep
    for (int lane = 0; lane < lanes; ++lane) add(i + lane, lane);
  for (; i < last; ++i) add(i, int(i % lanes));

  Vec<double, N> total{};
  for (int k = 0; k < N; ++k)
    for (int lane = 0; lane < lanes; ++lane) total[k] += sum[k][lane];
  return total;
}

// The sums over 0 <= i < n: chunks in parallel, then one after the other.
template <int N, class F, class Parallel = Serial>
Vec<double, N> sum_chunks_on_host(int64_t n, const F& f, const Parallel& parallel = {}) {
  const int64_t chunks = (n + chunk_length - 1) / chunk_length;
  std::vector<Vec<double, N>> partial(chunks);
  parallel(chunks, 2, [&](int64_t first, int64_t last) {
    const F local = f;  // on this stack, so that the compiler sees that no store changes it
    for (int64_t c = first; c < last; ++c)
      partial[c] = sum_chunk<N>(c * chunk_length, std::min((c + 1) * chunk_length, n), local);
  });
  Vec<double, N> total{};
  for (const auto& sum : partial) total += sum;
  return total;
}

}  // namespace hepops::core
