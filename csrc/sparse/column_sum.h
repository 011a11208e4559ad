#pragma once
// The sums of the columns of a matrix, in double: blocks of 256 rows, each from its first row to its last, then the
// blocks in order. One order for any number of threads and on every device. It is the gradient of a bias.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/host_device.h"
#include "core/parallel.h"

namespace hepops::sparse {

constexpr int64_t sum_block = 256;

HEPOPS_HD int64_t sum_blocks(int64_t rows) { return (rows + sum_block - 1) / sum_block; }

// n = block * columns + column
template <class S>
struct SumBlock {
  const S* x;  // (rows, columns)
  int64_t rows, columns;
  double* partial;  // (blocks, columns)

  HEPOPS_HD void operator()(int64_t n) const {
    const int64_t first = n / columns * sum_block, last = first + sum_block < rows ? first + sum_block : rows;
    double sum = 0;
    for (int64_t row = first; row < last; ++row) sum += double(x[row * columns + n % columns]);
    partial[n] = sum;
  }
};

template <class T>
struct SumPartials {
  const double* partial;
  int64_t blocks, columns;
  T* sums;  // (columns)

  HEPOPS_HD void operator()(int64_t column) const {
    double sum = 0;
    for (int64_t b = 0; b < blocks; ++b) sum += partial[b * columns + column];
    sums[column] = T(sum);
  }
};

// The host's form: the same sums, a row at a time.
template <class S, class T, class Parallel = core::Serial>
void column_sum_on_host(const S* x, int64_t rows, int64_t columns, T* sums, const Parallel& parallel = {}) {
  const int64_t blocks = sum_blocks(rows);
  std::vector<double> partial(blocks * columns);
  parallel(blocks, 1 + (1 << 14) / (sum_block * columns), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      double* sum = partial.data() + b * columns;
      for (int64_t row = b * sum_block; row < std::min((b + 1) * sum_block, rows); ++row) {
        const S* from = x + row * columns;
        for (int64_t c = 0; c < columns; ++c) sum[c] += double(from[c]);
      }
    }
  });
  std::vector<double> total(columns);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t c = 0; c < columns; ++c) total[c] += partial[b * columns + c];
  for (int64_t c = 0; c < columns; ++c) sums[c] = T(total[c]);
}

}  // namespace hepops::sparse
