#pragma once
// Where each of many parts begins, on the device of their counts: the law of scan.h.
#include "core/tensor.h"

namespace hepops::core {

// counts (N) int64 -> offsets (N + 1) int64: offsets[i] = counts[0] + ... + counts[i - 1], the total last.
Tensor exclusive_scan(const Tensor& counts);

}  // namespace hepops::core
