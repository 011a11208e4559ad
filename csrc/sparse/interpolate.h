#pragma once
// Multilinear values between the corners of a cell:
//
//   y[q] = sum_j w_j(f[q]) x[rows[q, j]],   w_j(f) = prod_a (f_a where bit a of j is set, else 1 - f_a)
//
// over the 2^D corners j, of which the first axis has the highest bit. A corner without a row (-1) counts as 0.
#include <cstdint>

#include "core/host_device.h"

namespace hepops::sparse {

constexpr int max_dimension = 6;

HEPOPS_HD bool is_upper(int corner, int axis, int dimension) { return corner >> (dimension - 1 - axis) & 1; }

template <class T>
HEPOPS_HD T corner_weight(const T* fractions, int corner, int dimension) {
  T weight = 1;
  for (int a = 0; a < dimension; ++a) weight *= is_upper(corner, a, dimension) ? fractions[a] : T(1) - fractions[a];
  return weight;
}

// d w_j / d f_a: the product without the factor of axis a, up or down
template <class T>
HEPOPS_HD T corner_slope(const T* fractions, int corner, int axis, int dimension) {
  T slope = is_upper(corner, axis, dimension) ? T(1) : T(-1);
  for (int a = 0; a < dimension; ++a)
    if (a != axis) slope *= is_upper(corner, a, dimension) ? fractions[a] : T(1) - fractions[a];
  return slope;
}

}  // namespace hepops::sparse
