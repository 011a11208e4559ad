#pragma once
// Rows of numbers added where an index sends them.
//
//   out[r, c] = sum over i with index[i] = r of values[i, c]
//
// Two ways, chosen by name, because on a GPU they promise different things:
//   deterministic  sums in double, in an order that depends on the index alone: the same bits from run to run. On a GPU
//                  the index is sorted, and rows with many entries are summed by runs of run_length entries.
//   atomic         sums in the dtype of the values. On a GPU by atomic additions, in the order of their arrival: fast,
//                  and different from run to run in the last bits.
// On the CPU both add in the order of i, for any number of threads: a thread owns a range of rows and reads the whole
// index, so that nothing is sorted.
#include <cstdint>
#include <vector>

#include "core/host_device.h"
#include "core/parallel.h"

namespace hepops::core {

// The host's form: index (n) in [0, rows), values (n, channels), out (rows, channels). Adds up in Sum.
template <class Sum, class T, class Parallel = Serial>
void scatter_add_on_host(const int64_t* index, const T* values, int64_t n, int64_t channels, T* out, int64_t rows,
                         const Parallel& parallel = {}) {
  constexpr int64_t work = 1 << 15;  // additions that are worth a thread
  const int64_t grain = 1 + rows * work / (1 + (n + rows) * channels);
  parallel(rows, grain, [=](int64_t first, int64_t last) {
    std::vector<Sum> sums((last - first) * channels);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = index[i];
      if (row < first || row >= last) continue;
      Sum* sum = sums.data() + (row - first) * channels;
      for (int64_t c = 0; c < channels; ++c) sum[c] += Sum(values[i * channels + c]);
    }
    T* const place = out + first * channels;
    for (int64_t k = 0; k < int64_t(sums.size()); ++k) place[k] = T(sums[k]);
  });
}

// The place of the first of n ascending numbers that is not below x.
HEPOPS_HD int64_t lower_bound(const int64_t* ascending, int64_t n, int64_t x) {
  int64_t first = 0;
  while (n > 0) {
    const int64_t half = n / 2;
    const bool below = ascending[first + half] < x;
    first += below ? half + 1 : 0;
    n = below ? n - half - 1 : half;
  }
  return first;
}

}  // namespace hepops::core
