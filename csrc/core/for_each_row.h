#pragma once
// for_each_row(on, rows, shared_bytes, f) runs f(row, team) for every row, in any order, on the device of `on`.
//
// What a team is, and how the body of f is written, says team.h. What a team sums in a fixed order is the same to the
// last bit for any number of threads.
#include <algorithm>

#include "core/launch.h"
#include "core/team.h"
#include "core/tensor.h"

namespace hepops::core {

#ifdef __CUDACC__

template <class F>
__global__ void for_each_row_kernel(int64_t rows, F f) {
  extern __shared__ Scratch for_each_row_memory[];
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    f(row, Team{int(threadIdx.x), int(blockDim.x), for_each_row_memory->bytes});
    __syncthreads();  // the next row writes the scratch anew
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
  for_each_row_on_host(rows, shared_bytes, f, Threads{});
}

#endif

}  // namespace hepops::core
