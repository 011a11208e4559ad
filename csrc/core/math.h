#pragma once
// The elementary functions under one name for every scalar: float, double, and by argument-dependent lookup Dual.
// A domain says `using core::exp;` (or using std::exp, where it meets only numbers and Dual) and writes exp(x).
// Plain ::exp would round a float through double.
#include <cmath>
#include <type_traits>

#include "core/host_device.h"

namespace hepops::core {

using std::abs, std::sqrt, std::pow, std::exp, std::expm1, std::log, std::log1p;
using std::floor, std::fma;
using std::sin, std::cos, std::tan, std::atan, std::atan2, std::tanh, std::erf, std::erfc;

// std::min and std::max are no device functions. As theirs, these return a where b is NaN.
template <class T>
  requires std::is_arithmetic_v<T>
HEPOPS_HD T min(T a, T b) {
  return b < a ? b : a;
}

template <class T>
  requires std::is_arithmetic_v<T>
HEPOPS_HD T max(T a, T b) {
  return a < b ? b : a;
}

}  // namespace hepops::core
