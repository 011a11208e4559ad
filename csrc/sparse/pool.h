#pragma once
// Rows that meet under a kernel map, pooled: out[o, c] from all x[i, c] whose triple (i, o, k) is in the map.
//
//   sum     out[o] = sum_k x[i]
//   avg     out[o] = sum_k x[i] / n_o, n_o the rows that o meets
//   spread  out[o] = sum_k x[i] / n_i, n_i the rows that i meets: the adjoint of avg
//   max     out[o] = max_k x[i]; of equals the lowest k, and a NaN before all numbers
//
// Rows that meet nothing are 0. Sums run over ascending k, in double, and are rounded once.
#include <cstdint>

#include "core/host_device.h"

namespace hepops::sparse {

enum class Pool : int64_t { sum, avg, spread, max };

// Whether a later candidate takes the place of what holds it: greater, or the first NaN.
template <class T>
HEPOPS_HD bool takes_over(T candidate, T holder) {
  return !(candidate <= holder) && holder == holder;
}

// out[o, c] = x[argmax[o, c], c], 0 where argmax is negative: what a maximum reads
template <class S, class I>
struct Pick {
  const S* x;
  const I* argmax;
  S* out;
  int64_t channels;
  HEPOPS_HD void operator()(int64_t j) const {
    const I row = argmax[j];
    out[j] = row < 0 ? S(0.0f) : x[int64_t(row) * channels + j % channels];
  }
};

}  // namespace hepops::sparse
