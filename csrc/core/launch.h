#pragma once
// launch(on, kernel, blocks, threads, args...) starts a kernel on the device and the current stream of the tensor `on`.
// No operator can forget the guard, the stream, the check or the empty grid, since none of them writes <<< >>>.
#ifdef __CUDACC__
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "core/tensor.h"

namespace hepops::core {

// f(stream), with the device of `on` as the current one and its current stream: for a library's own launches.
template <class F>
void on_stream(const Tensor& on, const F& f) {
  const torch::stable::accelerator::DeviceGuard guard(on.get_device_index());
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(on.get_device_index(), &stream));
  f(cudaStream_t(stream));
}

// launch with dynamic shared memory; above 48 KiB the kernel must be told, and a device that has less refuses.
template <class... Parameters, class... Arguments>
void launch_shared(const Tensor& on, void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes,
                   const Arguments&... arguments) {
  if (blocks == 0) return;
  on_stream(on, [&](cudaStream_t stream) {
    if (shared_bytes > 48 * 1024)
      STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)));
    kernel<<<unsigned(blocks), threads, shared_bytes, stream>>>(arguments...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

template <class... Parameters, class... Arguments>
void launch(const Tensor& on, void (*kernel)(Parameters...), int64_t blocks, int threads,
            const Arguments&... arguments) {
  launch_shared(on, kernel, blocks, threads, 0, arguments...);
}

// Calls f(workspace, bytes, stream) as CUB wants it: once without a workspace, to learn its bytes, and once with it.
template <class F>
void with_workspace(const Tensor& on, const F& f) {
  on_stream(on, [&](cudaStream_t stream) {
    size_t bytes = 0;
    STD_CUDA_CHECK(f(nullptr, bytes, stream));
    const Tensor workspace = torch::stable::new_empty(on, {int64_t(bytes)}, ScalarType::Byte);
    STD_CUDA_CHECK(f(workspace.mutable_data_ptr(), bytes, stream));
  });
}

}  // namespace hepops::core
#endif
