#pragma once
// launch_blocks(on, count, body) runs body(block, 0) ... body(block, count - 1) on the GPU of `on`, a block of
// Body::threads threads each, with the registers and the shared memory that the body names: Body::Registers,
// Body::Shared. The compiler leaves registers for Body::blocks_together blocks on one multiprocessor.
#ifdef __CUDACC__
#include <algorithm>

#include "core/block.h"
#include "core/launch.h"

namespace hepops::core {

// Whether a body stands on instructions that came with sm_80; below, its kernel is never launched.
template <class Body>
concept NeedsSm80 = Body::needs_sm80;

template <class Body>
__global__ void __launch_bounds__(Body::threads, Body::blocks_together)
    block_kernel(const __grid_constant__ Body body, int64_t first) {
  extern __shared__ Scratch block_memory[];
#if __CUDA_ARCH__ < 800
  if constexpr (NeedsSm80<Body>) {
    __trap();
  } else
#endif
  {
    GpuBlock<Body::threads, typename Body::Registers> block;
    block.memory = block_memory->bytes;
    body(block, first + blockIdx.x);
  }
}

template <class Body>
void launch_blocks(const Tensor& on, int64_t count, const Body& body) {
  constexpr int64_t most = int64_t(1) << 30;  // a grid has at most 2^31 - 1
  for (int64_t first = 0; first < count; first += most)
    launch_shared(on, block_kernel<Body>, std::min(count - first, most), Body::threads, sizeof(typename Body::Shared),
                  body, first);
}

// What the device of a tensor can do.
struct Device {
  int capability, shared_bytes;  // 90 for sm_90; that a block may have
};

inline Device device(const Tensor& on) {
  const int index = on.get_device_index();
  const auto ask = [&](cudaDeviceAttr what) {
    int value = 0;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, what, index));
    return value;
  };
  return {10 * ask(cudaDevAttrComputeCapabilityMajor) + ask(cudaDevAttrComputeCapabilityMinor),
          ask(cudaDevAttrMaxSharedMemoryPerBlockOptin)};
}

template <class Body>
bool runs_on(const Device& device) {
  return (device.capability >= 80 || !NeedsSm80<Body>) && size_t(device.shared_bytes) >= sizeof(typename Body::Shared);
}

}  // namespace hepops::core
#endif
