#pragma once
// A stable sort of int64 keys, each with an int64 payload, on the device of the keys.
//
// On a CPU the radix sort of radix_sort.h, on a GPU that of CUB. A stable sort has one result, so both give the same.
#include <optional>
#include <tuple>

#include "core/tensor.h"

namespace hepops::core {

// keys (N) int64, payload (N) int64 or none for 0 ... N - 1  ->  the same, sorted by the lowest `bits` bits of the
// keys; by their signed value where bits is 64. Fewer bits are fewer passes: 64 - countl_zero(largest key) will do.
std::tuple<Tensor, Tensor> sort_pairs(const Tensor& keys, const std::optional<Tensor>& payload = {}, int64_t bits = 64);

}  // namespace hepops::core
