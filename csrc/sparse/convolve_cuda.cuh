#pragma once
// The tuned kernels of convolve.h for a GPU.
#include "core/launch.h"
#include "sparse/convolve.h"

namespace hepops::sparse {

// Nothing yet: the plain form does it all.
template <class S, class W, class I>
bool convolve_tiles(const core::Tensor&, const Convolution<S, W, I>&) {
  return false;
}

}  // namespace hepops::sparse
