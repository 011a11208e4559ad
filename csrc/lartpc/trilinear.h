#pragma once
// A function given on the nodes of a regular grid, linear along each axis between them.
//
//   f(x) = sum over the 8 corners c of x's cell of w_c f_c,   w_c = prod_a (c_a ? s_a : 1 - s_a),   s = (x - x_cell) /
//   h
//
// Linear in the map, and linear along each axis of the point within a cell; its slope jumps between cells, where the
// cell above is taken.
#include <cstdint>

#include "core/host_device.h"
#include "core/vec.h"

namespace hepops::lartpc {

enum class Outside : int {
  refuse = 0,  // an error
  clamp = 1,   // the value at the nearest point of the grid, with slope 0 along what was clamped
};

struct Grid {
  int64_t n[3];       // nodes along each axis, at least 2
  double origin[3];   // of the first node
  double spacing[3];  // between nodes, positive
  double inverse[3];  // 1 / spacing
  double slack[3];    // rounding of a coordinate, in cells: beyond an end by less is not outside
  HEPOPS_HD int64_t nodes() const { return n[0] * n[1] * n[2]; }
};

// Where a point lies: the low corner of its cell, and how far into it.
template <class T>
struct Cell {
  int64_t corner;  // index of the low corner, the last axis fastest
  T s[3];          // 0 ... 1
  T per[3];        // ds / dx: 1 / h, or 0 where the coordinate was clamped
  bool outside;    // beyond an end of the grid by more than rounding, or not a number
};

// Computed in double for either T, as far as the cell: a coordinate of float has no digits to lose.
template <class T>
HEPOPS_HD Cell<T> locate(const Grid& grid, const T* point) {
  Cell<T> cell{0, {}, {}, false};
  for (int a = 0; a < 3; ++a) {
    const double last = double(grid.n[a] - 1);
    double t = (double(point[a]) - grid.origin[a]) * grid.inverse[a];
    const bool inside = t >= -grid.slack[a] && t <= last + grid.slack[a];  // false for NaN
    cell.outside = cell.outside || !inside;
    t = t < 0 ? 0 : t;  // a NaN stays
    t = t > last ? last : t;
    int64_t i = t > 0 ? int64_t(t) : 0;
    i = i < grid.n[a] - 2 ? i : grid.n[a] - 2;
    cell.corner = cell.corner * grid.n[a] + i;
    cell.s[a] = T(t - double(i));
    cell.per[a] = inside ? T(grid.inverse[a]) : T(0);
  }
  return cell;
}

// The 8 corners of a cell relative to the low one.
HEPOPS_HD int64_t corner_offset(const Grid& grid, int c) {
  return ((c >> 2) * grid.n[1] + ((c >> 1) & 1)) * grid.n[2] + (c & 1);
}

template <class T>
HEPOPS_HD T corner_weight(const Cell<T>& cell, int c) {
  const T x = c & 4 ? cell.s[0] : T(1) - cell.s[0];
  const T y = c & 2 ? cell.s[1] : T(1) - cell.s[1];
  const T z = c & 1 ? cell.s[2] : T(1) - cell.s[2];
  return x * y * z;
}

// One channel at the cell: f points at the low corner.
template <class T>
HEPOPS_HD T interpolate(const Grid& grid, const Cell<T>& cell, const T* f) {
  const int64_t row = grid.n[2], plane = grid.n[1] * grid.n[2];
  const auto along_z = [&](const T* p) { return p[0] + cell.s[2] * (p[1] - p[0]); };
  const T a = along_z(f), b = along_z(f + row), c = along_z(f + plane), d = along_z(f + plane + row);
  const T low = a + cell.s[1] * (b - a), high = c + cell.s[1] * (d - c);
  return low + cell.s[0] * (high - low);
}

// df/dx: along each axis the difference of the two faces, interpolated on the face.
template <class T>
HEPOPS_HD core::Vec<T, 3> interpolate_slope(const Grid& grid, const Cell<T>& cell, const T* f) {
  const int64_t row = grid.n[2], plane = grid.n[1] * grid.n[2];
  const T x = cell.s[0], y = cell.s[1], z = cell.s[2];
  const T f000 = f[0], f001 = f[1], f010 = f[row], f011 = f[row + 1];
  const T f100 = f[plane], f101 = f[plane + 1], f110 = f[plane + row], f111 = f[plane + row + 1];
  const T low = (T(1) - y) * (f000 + z * (f001 - f000)) + y * (f010 + z * (f011 - f010));
  const T high = (T(1) - y) * (f100 + z * (f101 - f100)) + y * (f110 + z * (f111 - f110));
  const T along_y = (T(1) - x) * ((f010 - f000) + z * ((f011 - f001) - (f010 - f000))) +
                    x * ((f110 - f100) + z * ((f111 - f101) - (f110 - f100)));
  const T along_z = (T(1) - x) * ((f001 - f000) + y * ((f011 - f010) - (f001 - f000))) +
                    x * ((f101 - f100) + y * ((f111 - f110) - (f101 - f100)));
  return {(high - low) * cell.per[0], along_y * cell.per[1], along_z * cell.per[2]};
}

}  // namespace hepops::lartpc
