#include "core/row_sum.h"

#include <tuple>
#include <vector>

#include "core/check.h"
#include "core/collapse.h"
#include "core/for_each.h"
#include "core/op.h"

namespace hepops::core {
namespace {

template <class A, class S>
struct SumRow {
  Rows<S> rows;
  RowSums sums;

  HEPOPS_HD void operator()(int64_t row) const { sums.put(rows, row, short_row_sum<A>(rows, row)); }
};

#ifdef __CUDACC__

// A warp takes a long row: 32 interleaved sums, added pairwise.
constexpr int row_threads = 128;

HEPOPS_HD double shifted(double x, int by) {
#ifdef __CUDA_ARCH__
  return __shfl_down_sync(0xffffffff, x, by);
#else
  return x;
#endif
}
HEPOPS_HD DoubleDouble shifted(const DoubleDouble& x, int by) { return {shifted(x.high, by), shifted(x.low, by)}; }

template <class A, class S>
__global__ void sum_long_rows(int64_t n, Rows<S> rows, RowSums sums) {
  const int64_t warps = int64_t(gridDim.x) * (row_threads / 32);
  for (int64_t row = (int64_t(blockIdx.x) * row_threads + threadIdx.x) / 32; row < n; row += warps) {
    A sum(0.0);
    for (int64_t m = threadIdx.x % 32; m < rows.length; m += 32) sum = sum + rows.at(row, m);
    for (int half = 16; half > 0; half /= 2) sum = sum + shifted(sum, half);
    if (threadIdx.x % 32 == 0) sums.put(rows, row, sum);
  }
}

#endif

template <class A, class S>
void sum_rows(const Tensor& on, int64_t n, const Rows<S>& rows, const RowSums& sums) {
#ifdef __CUDACC__
  if (rows.length < short_row) return for_each(on, n, SumRow<A, S>{rows, sums});
  constexpr int64_t warps = row_threads / 32, max_blocks = 1 << 16;
  launch(on, sum_long_rows<A, S>, std::min((n + warps - 1) / warps, max_blocks), row_threads, n, rows, sums);
#else
  (void)on;
  row_sums_on_host<A>(n, rows, sums, Threads{});
#endif
}

Tensor sums_like(const Tensor& x) {
  const auto sizes = x.sizes();
  return torch::stable::new_empty(x, {sizes.data(), sizes.size() - 1}, ScalarType::Double);
}

template <class A>
void sum(const Tensor& x, const RowSums& sums, int64_t n) {
  Leading leading;
  const Tensor y = collapse(x, 1, leading) && leading.dims == 1 ? x : core::contiguous(x);
  collapse(y, 1, leading);
  for_floating_or_half("row_sum: x", y, [&]<class S, class T>() {
    sum_rows<A>(y, n, Rows<S>{in<S>(y), y.size(-1), leading.stride[0], y.stride(-1)}, sums);
  });
}

int64_t checked_rows(const Tensor& x) {
  check_floating_or_half("row_sum: x", x);
  check_value(x.dim() > 0, "row_sum: x must have a dimension to sum over, got shape ", Shape{x});
  int64_t n = 1;
  for (int64_t d = 0; d + 1 < x.dim(); ++d) n *= x.size(d);
  return n;
}

Tensor row_sum(const Tensor& x) {
  const int64_t n = checked_rows(x);
  const Tensor sums = sums_like(x);
  if (n > 0) sum<double>(x, {out<double>(sums), nullptr}, n);
  return sums;
}

// -> high, low
std::tuple<Tensor, Tensor> row_sum_accurate(const Tensor& x) {
  const int64_t n = checked_rows(x);
  const Tensor high = sums_like(x), low = sums_like(x);
  if (n > 0) sum<DoubleDouble>(x, {out<double>(high), out<double>(low)}, n);
  return {high, low};
}

const Operators operators{
    op<row_sum>("row_sum(Tensor x) -> Tensor"),
    op<row_sum_accurate>("_row_sum_accurate(Tensor x) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::core
