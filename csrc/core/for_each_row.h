#pragma once
// for_each_row(on, rows, shared_bytes, f) runs f(row, team) for every row, in any order, on the device of `on`.
//
// A row is worked on by a team: one thread on the CPU, one block on the GPU. The body is written once: it strides its
// loops by team.size from team.rank, and calls team.sync() before it reads what another member wrote. team.memory is
// scratch of shared_bytes for the team alone, not initialised. What a team sums in a fixed order is the same to the
// last bit for any number of threads.
#include <algorithm>
#include <vector>

#include "core/launch.h"
#include "core/team.h"
#include "core/tensor.h"

namespace hepops::core {

#ifdef __CUDACC__

template <class F>
__global__ void for_each_row_kernel(int64_t rows, F f) {
  extern __shared__ double for_each_row_memory[];  // double: aligned for every scalar
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    f(row, Team{int(threadIdx.x), int(blockDim.x), reinterpret_cast<std::byte*>(for_each_row_memory)});
    __syncthreads();
  }
}

template <class F>
void for_each_row(const Tensor& on, int64_t rows, size_t shared_bytes, const F& f, int threads = 128) {
  constexpr int64_t max_blocks = 1 << 20;
  launch_shared(on, for_each_row_kernel<F>, std::min(rows, max_blocks), threads, shared_bytes, rows, f);
}

#else

template <class F>
void for_each_row(const Tensor&, int64_t rows, size_t shared_bytes, const F& f, int /*threads*/ = 128) {
  torch::stable::parallel_for(0, rows, /*grain_size=*/1, [&](int64_t first, int64_t last) {
    const F local = f;
    std::vector<double> memory((shared_bytes + sizeof(double) - 1) / sizeof(double));
    const Team team{0, 1, reinterpret_cast<std::byte*>(memory.data())};
    for (int64_t row = first; row < last; ++row) local(row, team);
  });
}

#endif

}  // namespace hepops::core
