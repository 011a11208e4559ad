#pragma once
// Stands in until core/dual.h has them.
#include <cmath>

#include "core/dual.h"

namespace hepops::core {
#define D Dual<T, N>
template <class T, int N>
HEPOPS_HD D operator-(const D& a) {
  return chain(-a.value, T(-1), a, T(0), a);
}
template <class T, int N>
HEPOPS_HD bool operator==(const D& a, const D& b) {
  return a.value == b.value;
}
template <class T, int N>
HEPOPS_HD bool operator<(const D& a, const D& b) {
  return a.value < b.value;
}
template <class T, int N>
HEPOPS_HD bool operator<=(const D& a, const D& b) {
  return a.value <= b.value;
}
template <class T, int N>
HEPOPS_HD D exp(const D& a) {
  const T e = std::exp(a.value);
  return chain(e, e, a, T(0), a);
}
template <class T, int N>
HEPOPS_HD D log1p(const D& a) {
  return chain(std::log1p(a.value), T(1) / (T(1) + a.value), a, T(0), a);
}
template <class T, int N>
HEPOPS_HD D sqrt(const D& a) {
  const T r = std::sqrt(a.value);
  return chain(r, T(0.5) / r, a, T(0), a);
}
#undef D
}  // namespace hepops::core
