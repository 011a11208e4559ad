#pragma once
// The tuned kernels of weight_gradient.h for a GPU.
#include "core/launch.h"
#include "sparse/weight_gradient.h"

namespace hepops::sparse {

// Nothing yet: the plain form does it all.
template <class S, class I>
bool weight_gradient_chunks(const core::Tensor&, const WeightGradient<S, I>&) {
  return false;
}

}  // namespace hepops::sparse
