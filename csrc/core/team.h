#pragma once
// A team works on one row: one thread on the CPU, one block on the GPU (for_each_row.h).
//
// The body is written once: it strides its loops by team.size from team.rank, and calls team.sync() before it reads
// what another member wrote. team.memory is scratch of the asked size for the team alone, not initialised, aligned for
// anything up to 16 bytes.
#include <cstddef>
#include <vector>

#include "core/host_device.h"
#include "core/parallel.h"

namespace hepops::core {

struct Team {
  int rank, size;
  std::byte* memory;

  HEPOPS_HD void sync() const {
#ifdef __CUDA_ARCH__
    __syncthreads();
#endif
  }
};

struct alignas(16) Scratch {
  std::byte bytes[16];
};

// The host's form of for_each_row: f(row, team), a thread's rows in order, with one scratch for all of them.
template <class F, class Parallel = Serial>
void for_each_row_on_host(int64_t rows, size_t scratch_bytes, const F& f, const Parallel& parallel = {}) {
  parallel(rows, 1, [&](int64_t first, int64_t last) {
    const F local = f;  // on this stack, so that the compiler sees that no store changes it
    std::vector<Scratch> memory((scratch_bytes + sizeof(Scratch) - 1) / sizeof(Scratch));
    const Team team{0, 1, reinterpret_cast<std::byte*>(memory.data())};
    for (int64_t row = first; row < last; ++row) local(row, team);
  });
}

}  // namespace hepops::core
