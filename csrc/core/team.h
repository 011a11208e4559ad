#pragma once
// Who works on a row: one thread on the CPU, one block on the GPU (for_each_row.h).
#include <cstddef>

#include "core/host_device.h"

namespace hepops::core {

struct Team {
  int rank, size;
  std::byte* memory;  // scratch of the team, not initialised

  HEPOPS_HD void sync() const {
#ifdef __CUDA_ARCH__
    __syncthreads();
#endif
  }
};

}  // namespace hepops::core
