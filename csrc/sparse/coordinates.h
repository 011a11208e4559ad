#pragma once
// Sets of coordinates that can be searched, on the device of their tensors: keys in the canonical order of packing.h,
// and the schedule, which names the row of each place in that order.
#include <vector>

#include "core/tensor.h"
#include "sparse/packing.h"

namespace hepops::sparse {

// keys (m, words) of the merged rows, ascending; schedule (m), the merged row of each key. first (m) is where each
// merged row occurred first, inverse (n) the merged row of every row; both are empty where no row was merged, for 0 ...
// n - 1.
struct Indexed {
  core::Tensor packing, keys, schedule, first, inverse;
};

// coordinates (n, 1 + D) int32 or int64 [batch, x, y, ...]. `wide` makes the schedule int64 whatever n.
Indexed index(const core::Tensor& coordinates, const std::vector<int64_t>& stride, bool wide, bool plain);

// The set floor(c / stride) stride in canonical order: its packing, keys (m, words) and coordinates (m, 1 + D), and the
// place (n) int64 of every row. `on_stride` refuses what is no multiple of the stride.
struct Canonical {
  core::Tensor packing, keys, coordinates, place;
};
Canonical canonical(const core::Tensor& coordinates, const std::vector<int64_t>& stride, bool on_stride, bool plain);

}  // namespace hepops::sparse
