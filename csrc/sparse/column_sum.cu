#include "sparse/column_sum.h"

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"

namespace hepops::sparse {
namespace {

using core::ScalarType, core::Tensor;

Tensor column_sum(const Tensor& x) {
  core::check_value(x.dim() == 2, "column_sum: x must be (N, C), got shape ", core::Shape{x});
  const Tensor from = core::contiguous(x);
  const int64_t rows = x.size(0), columns = x.size(1);
  Tensor sums;
  core::for_floating_or_half("column_sum: x", x, [&]<class S, class T>() {
    sums = torch::stable::new_empty(from, {columns}, sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float);
    if (columns == 0) return;
#ifdef __CUDACC__
    const int64_t blocks = sum_blocks(rows);
    const Tensor partial = torch::stable::new_empty(from, {blocks, columns}, ScalarType::Double);
    core::for_each(from, blocks * columns, SumBlock<S>{core::in<S>(from), rows, columns, core::out<double>(partial)});
    core::for_each(from, columns, SumPartials<T>{core::in<double>(partial), blocks, columns, core::out<T>(sums)});
#else
    column_sum_on_host(core::in<S>(from), rows, columns, core::out<T>(sums), core::Threads{});
#endif
  });
  return sums;
}

const core::Operators operators{core::op<column_sum>("_sparse_column_sum(Tensor x) -> Tensor")};

}  // namespace
}  // namespace hepops::sparse
