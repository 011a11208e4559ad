#pragma once
// The leading dimensions of a strided tensor as few as they can be: two neighbours are one where the outer steps over
// the whole of the inner. An element's number, in the order of a contiguous tensor, then gives its place.
#include <cstdint>

#include "core/host_device.h"
#include "core/tensor.h"

namespace hepops::core {

struct Leading {
  static constexpr int most = 3;
  int dims = 0;
  int64_t size[most] = {}, stride[most] = {};

  HEPOPS_HD int64_t place(int64_t i) const {
    if (dims == 1) return i * stride[0];
    int64_t place = 0;
    for (int d = most - 1; d > 0; --d)
      if (d < dims) place += i % size[d] * stride[d], i /= size[d];
    return dims > 0 ? place + i * stride[0] : 0;
  }
};

// -> whether the dimensions of x but the last `trailing` go into `leading`
inline bool collapse(const Tensor& x, int64_t trailing, Leading& leading) {
  const auto sizes = x.sizes(), strides = x.strides();
  leading = {};
  for (int64_t d = 0; d < x.dim() - trailing; ++d) {
    if (sizes[d] == 1) continue;
    const int last = leading.dims - 1;
    if (leading.dims > 0 && leading.stride[last] == sizes[d] * strides[d]) {
      leading.size[last] *= sizes[d];
      leading.stride[last] = strides[d];
    } else {
      if (leading.dims == Leading::most) return false;
      leading.size[leading.dims] = sizes[d];
      leading.stride[leading.dims++] = strides[d];
    }
  }
  if (leading.dims == 0) leading.dims = 1, leading.size[0] = 1;
  return true;
}

}  // namespace hepops::core
