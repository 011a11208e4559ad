#include "core/exclusive_scan.h"

#include "core/check.h"
#include "core/launch.h"
#include "core/op.h"
#include "core/scan.h"

#ifdef __CUDACC__
#include <cub/device/device_scan.cuh>
#endif

namespace hepops::core {

Tensor exclusive_scan(const Tensor& counts) {
  check_int64("exclusive_scan: counts", counts);
  check_value(counts.dim() == 1, "exclusive_scan: counts must be (N), got shape ", Shape{counts});
  const Tensor c = core::contiguous(counts);
  const int64_t n = c.numel();
  Tensor offsets = torch::stable::new_empty(c, {n + 1});
#ifdef __CUDACC__
  // offsets[0] = 0, and the inclusive scan behind it
  int64_t* first = out<int64_t>(offsets);
  on_stream(c, [&](cudaStream_t stream) { STD_CUDA_CHECK(cudaMemsetAsync(first, 0, sizeof(int64_t), stream)); });
  if (n > 0)
    with_workspace(c, [&](void* workspace, size_t& bytes, cudaStream_t stream) {
      return cub::DeviceScan::InclusiveSum(workspace, bytes, in<int64_t>(c), first + 1, n, stream);
    });
#else
  exclusive_scan(in<int64_t>(c), n, out<int64_t>(offsets), Threads{});
#endif
  return offsets;
}

namespace {
Tensor forward(const Tensor& counts) { return exclusive_scan(counts); }
const Operators operators{op<forward>("exclusive_scan(Tensor counts) -> Tensor")};
}  // namespace

}  // namespace hepops::core
