#pragma once
// along(value, slope): a dual number that moves along one direction. A formula run on such numbers yields its
// directional derivative; a backward run on them, the product of the second derivatives with that direction.
#include "core/dual.h"

namespace hepops::core {

template <class T>
HEPOPS_HD Dual<T, 1> along(T value, T slope) {
  Dual<T, 1> dual(value);
  dual.slope[0] = slope;
  return dual;
}

}  // namespace hepops::core
