#pragma once
// torch's 16-bit types, for halves.h.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "sparse/halves.h"

namespace hepops::sparse {

template <>
inline constexpr Half half_of<torch::headeronly::Half> = Half::ieee;
template <>
inline constexpr Half half_of<torch::headeronly::BFloat16> = Half::brain;

}  // namespace hepops::sparse
