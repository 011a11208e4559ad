#pragma once
// The sum of every row of a matrix, in double, or in double-double where asked. The order is fixed: a row's own length
// decides it, never the number of rows or threads.
//
//   short rows (below 32 numbers)  from the first number to the last
//   longer ones                    16 interleaved sums, each from its first number to its last, then one after the
//   other
//
// The host takes short rows many at a time, so that both kinds are SIMD.
#include <algorithm>
#include <cstdint>

#include "core/double_double.h"

namespace hepops::core {

constexpr int row_sum_lanes = 16, short_row = 32;

// Row r, column m lies at x[r * row_stride + m * stride].
template <class S>
struct Rows {
  const S* x;
  int64_t length, row_stride, stride;

  HEPOPS_HD double at(int64_t row, int64_t m) const { return double(x[row * row_stride + m * stride]); }
};

// A is double or DoubleDouble.
template <class A, class S>
HEPOPS_HD A long_row_sum(const Rows<S>& rows, int64_t row) {
  A sum[row_sum_lanes] = {};
  int64_t m = 0;
  for (; m + row_sum_lanes <= rows.length; m += row_sum_lanes)
    for (int lane = 0; lane < row_sum_lanes; ++lane) sum[lane] = sum[lane] + rows.at(row, m + lane);
  for (int lane = 0; m + lane < rows.length; ++lane) sum[lane] = sum[lane] + rows.at(row, m + lane);
  A total = sum[0];
  for (int lane = 1; lane < row_sum_lanes; ++lane) total = total + sum[lane];
  return total;
}

template <class A, class S>
HEPOPS_HD A short_row_sum(const Rows<S>& rows, int64_t row) {
  A sum = rows.length > 0 ? A(rows.at(row, 0)) : A(0.0);
  for (int64_t m = 1; m < rows.length; ++m) sum = sum + rows.at(row, m);
  return sum;
}

// Where the sum of a row goes: low is there for DoubleDouble alone.
struct RowSums {
  double *high, *low;

  template <class S>
  HEPOPS_HD void put(const Rows<S>&, int64_t row, double sum) const {
    high[row] = sum;
  }
  // The errors of an infinite sum are NaN, and spoil it: such a row is summed plainly.
  template <class S>
  HEPOPS_HD void put(const Rows<S>& rows, int64_t row, const DoubleDouble& sum) const {
    const bool finite = sum.high - sum.high == 0;
    high[row] = finite ? sum.high : short_row_sum<double>(rows, row);
    low[row] = finite ? sum.low : 0;
  }
};

// Rows first ... last - 1, a block of short rows at a time. M > 0: that length is known, and rows are dense.
template <class A, int M, class S>
void row_sums(const Rows<S>& rows, const RowSums& sums, int64_t first, int64_t last) {
  const Rows<S> local = M > 0 ? Rows<S>{rows.x, M, M, 1} : rows;
  const RowSums out = sums;
  if constexpr (M > 0) {
#pragma GCC ivdep
    for (int64_t row = first; row < last; ++row) out.put(local, row, short_row_sum<A>(local, row));
  } else if (local.length >= short_row) {
    for (int64_t row = first; row < last; ++row) out.put(local, row, long_row_sum<A>(local, row));
  } else {
    constexpr int64_t block = 64;
    for (int64_t begin = first; begin < last; begin += block) {
      const int64_t count = std::min(block, last - begin);
      A sum[block];
      for (int64_t i = 0; i < count; ++i) sum[i] = local.length > 0 ? A(local.at(begin + i, 0)) : A(0.0);
      for (int64_t m = 1; m < local.length; ++m)
#pragma GCC ivdep
        for (int64_t i = 0; i < count; ++i) sum[i] = sum[i] + local.at(begin + i, m);
      for (int64_t i = 0; i < count; ++i) out.put(local, begin + i, sum[i]);
    }
  }
}

// The host's form, in ranges of a caller's threads.
template <class A, class S, class Parallel>
void row_sums_on_host(int64_t n, const Rows<S>& rows, const RowSums& sums, const Parallel& parallel) {
  const bool dense = rows.stride == 1 && rows.row_stride == rows.length;
  const int64_t grain = 1 + (1 << 15) / (rows.length + 1);
  parallel(n, grain, [&](int64_t first, int64_t last) {
    if (dense && rows.length == 2) return row_sums<A, 2>(rows, sums, first, last);
    if (dense && rows.length == 4) return row_sums<A, 4>(rows, sums, first, last);
    row_sums<A, 0>(rows, sums, first, last);
  });
}

}  // namespace hepops::core
