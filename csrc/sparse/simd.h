#pragma once
// The compiler's vectors and what goes with them (core/simd.h), by their short names.
#include "core/simd.h"

namespace hepops::sparse {

using core::Buffer, core::Simd, core::for_tasks, core::full_lanes, core::simd_bytes, core::simd_registers, core::unroll;

}  // namespace hepops::sparse
