#pragma once
// The mathematics of the spline (core/spline.h, core/spline_backward.h), which lattices use as well, by its short
// names.
#include "core/spline_backward.h"

namespace hepops::flows {

using namespace core::spline;
using core::abs, core::exp, core::log, core::log1p, core::max, core::min, core::sqrt;
using core::any, core::select;

}  // namespace hepops::flows
