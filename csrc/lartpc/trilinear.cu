#include "lartpc/trilinear.h"

#include <bit>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"
#include "core/scatter_add.h"
#include "core/sort_pairs.h"

namespace hepops::lartpc {
namespace {

using core::ScalarType;
using core::Tensor;

template <class T>
struct Forward {
  Grid grid;
  const T *map, *points;
  T* out;
  int64_t C;
  bool refuse;
  HEPOPS_HD void operator()(int64_t i) const {
    const Cell<T> cell = locate(grid, points + 3 * i);
#ifdef __CUDA_ARCH__
    if (refuse && cell.outside) __trap();  // a GPU is not read back: the kernel stops, as scatter_add's does
#endif
    for (int64_t c = 0; c < C; ++c) out[i * C + c] = interpolate(grid, cell, map + c * grid.nodes() + cell.corner);
  }
};

// df/dpoint, summed over the channels.
template <class T>
struct PointGradient {
  Grid grid;
  const T *grad, *map, *points;
  T* out;
  int64_t C;
  HEPOPS_HD void operator()(int64_t i) const {
    const Cell<T> cell = locate(grid, points + 3 * i);
    core::Vec<T, 3> sum{};
    for (int64_t c = 0; c < C; ++c)
      sum += grad[i * C + c] * interpolate_slope(grid, cell, map + c * grid.nodes() + cell.corner);
    for (int a = 0; a < 3; ++a) out[3 * i + a] = sum[a];
  }
};

#ifdef __CUDACC__

template <class T>
struct CellOfPoint {
  Grid grid;
  const T* points;
  int64_t* corner;
  HEPOPS_HD void operator()(int64_t i) const { corner[i] = locate(grid, points + 3 * i).corner; }
};

struct CellStarts {
  const int64_t* sorted;
  int64_t n;
  int64_t* starts;
  HEPOPS_HD void operator()(int64_t cell) const { starts[cell] = core::lower_bound(sorted, n, cell); }
};

// A node of the map collects from the points in the up to eight cells around it, cell by cell in the points' order: no
// atomics, and the same bits each time.
template <class T>
struct MapGradient {
  Grid grid;
  const T *grad, *points;
  const int64_t *starts, *entries;
  T* out;
  int64_t C;
  HEPOPS_HD void operator()(int64_t k) const {
    const int64_t c = k / grid.nodes(), node = k % grid.nodes();
    const int64_t at[3] = {node / (grid.n[1] * grid.n[2]), node / grid.n[2] % grid.n[1], node % grid.n[2]};
    double sum = 0;
    for (int corner = 0; corner < 8; ++corner) {
      const int up[3] = {corner >> 2, (corner >> 1) & 1, corner & 1};
      bool exists = true;
      for (int a = 0; a < 3; ++a) exists = exists && at[a] >= up[a] && at[a] - up[a] <= grid.n[a] - 2;
      if (!exists) continue;
      const int64_t cell = node - corner_offset(grid, corner);
      for (int64_t j = starts[cell]; j < starts[cell + 1]; ++j) {
        const int64_t i = entries[j];
        sum += double(grad[i * C + c]) * double(corner_weight(locate(grid, points + 3 * i), corner));
      }
    }
    out[k] = T(sum);
  }
};

template <class T>
void map_gradient(const Grid& grid, const Tensor& grad, const Tensor& points, Tensor& out, int64_t C) {
  const int64_t n = points.size(0);
  Tensor corner = torch::stable::new_empty(points, {n}, ScalarType::Long);
  core::for_each(points, n, CellOfPoint<T>{grid, core::in<T>(points), core::out<int64_t>(corner)});
  const auto [sorted, entries] = core::sort_pairs(corner, {}, std::bit_width(uint64_t(grid.nodes())));
  Tensor starts = torch::stable::new_empty(corner, {grid.nodes() + 1});
  core::for_each(points, grid.nodes() + 1, CellStarts{core::in<int64_t>(sorted), n, core::out<int64_t>(starts)});
  core::for_each(points, C * grid.nodes(),
                 MapGradient<T>{grid, core::in<T>(grad), core::in<T>(points), core::in<int64_t>(starts),
                                core::in<int64_t>(entries), core::out<T>(out), C});
}

#else

// Each channel of the map belongs to one thread, which adds the points in their order, in double.
template <class T>
void map_gradient(const Grid& grid, const Tensor& grad, const Tensor& points, Tensor& out, int64_t C) {
  const int64_t n = points.size(0), nodes = grid.nodes();
  const T *g = core::in<T>(grad), *x = core::in<T>(points);
  T* const result = core::out<T>(out);
  torch::stable::parallel_for(0, C, 1, [&](int64_t first, int64_t last) {
    const int64_t channels = last - first;
    std::vector<double> sums(nodes * channels);
    for (int64_t i = 0; i < n; ++i) {
      const Cell<T> cell = locate(grid, x + 3 * i);
      const T* from = g + i * C + first;
      for (int k = 0; k < 8; ++k) {
        double* const to = sums.data() + (cell.corner + corner_offset(grid, k)) * channels;
        const double weight = corner_weight(cell, k);
        for (int64_t c = 0; c < channels; ++c) to[c] += double(from[c]) * weight;
      }
    }
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t k = 0; k < nodes; ++k) result[(first + c) * nodes + k] = T(sums[k * channels + c]);
  });
}

// The first point outside is named, with the axis and the ends of the grid.
template <class T>
void check_inside(const Grid& grid, const Tensor& points) {
  const T* x = core::in<T>(points);
  for (int64_t i = 0; i < points.size(0); ++i) {
    if (!locate(grid, x + 3 * i).outside) continue;
    for (int a = 0; a < 3; ++a) {
      const double t = (double(x[3 * i + a]) - grid.origin[a]) * grid.inverse[a], last = double(grid.n[a] - 1);
      core::check_value(t >= -grid.slack[a] && t <= last + grid.slack[a], "trilinear: point ", i, " has ", "xyz"[a],
                        " = ", x[3 * i + a], ", outside the grid's ", grid.origin[a], " to ",
                        grid.origin[a] + last * grid.spacing[a], " (outside=\"clamp\" takes the nearest value)");
    }
  }
}

#endif

struct Checked {
  Tensor map, points;
  Grid grid;
  int64_t C;
};

Checked check(const Tensor& map, const Tensor& points, const double (&origin)[3], const double (&spacing)[3],
              int64_t outside) {
  core::check_floating("trilinear: map", map);
  core::check_value(map.dim() == 4 && map.size(1) > 1 && map.size(2) > 1 && map.size(3) > 1,
                    "trilinear: map must be (C, nx, ny, nz) with two nodes or more along each axis, got ",
                    core::Shape{map});
  core::check_same_kind("trilinear: points", points, map);
  core::check_value(points.dim() == 2 && points.size(1) == 3, "trilinear: points must be (N, 3), got ",
                    core::Shape{points});
  core::check_value(outside == 0 || outside == 1, "trilinear: outside must be 0 or 1, got ", outside);
  const double eps = map.scalar_type() == ScalarType::Double ? std::numeric_limits<double>::epsilon()
                                                             : std::numeric_limits<float>::epsilon();
  Grid grid{};
  for (int a = 0; a < 3; ++a) {
    core::check_value(spacing[a] > 0 && std::isfinite(spacing[a]), "trilinear: spacing along ", "xyz"[a],
                      " must be positive and finite, got ", spacing[a]);
    core::check_value(std::isfinite(origin[a]), "trilinear: origin along ", "xyz"[a], " must be finite, got ",
                      origin[a]);
    grid.n[a] = map.size(a + 1);
    grid.origin[a] = origin[a];
    grid.spacing[a] = spacing[a];
    grid.inverse[a] = 1 / spacing[a];
    const double far = origin[a] < 0 ? -origin[a] : origin[a];
    grid.slack[a] = 8 * eps * (far / spacing[a] + double(grid.n[a]));
  }
  return {core::contiguous(map), core::contiguous(points), grid, map.size(0)};
}

Tensor forward(const Tensor& map, const Tensor& points, double x0, double y0, double z0, double hx, double hy,
               double hz, int64_t outside) {
  const Checked c = check(map, points, {x0, y0, z0}, {hx, hy, hz}, outside);
  const int64_t N = c.points.size(0);
  Tensor result = torch::stable::new_empty(c.map, {N, c.C});
  core::for_floating("trilinear: map", map, [&]<class T>() {
    const bool refuse = Outside(outside) == Outside::refuse;
#ifndef __CUDACC__
    if (refuse) check_inside<T>(c.grid, c.points);
#endif
    core::for_each(c.map, N,
                   Forward<T>{c.grid, core::in<T>(c.map), core::in<T>(c.points), core::out<T>(result), c.C, refuse});
  });
  return result;
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& map, const Tensor& points, double x0, double y0,
                                    double z0, double hx, double hy, double hz, int64_t outside, bool want_map,
                                    bool want_points) {
  const Checked c = check(map, points, {x0, y0, z0}, {hx, hy, hz}, outside);
  const int64_t N = c.points.size(0);
  core::check_same_kind("trilinear_backward: grad", grad, map);
  core::check_value(grad.dim() == 2 && grad.size(0) == N && grad.size(1) == c.C, "trilinear_backward: grad has shape ",
                    core::Shape{grad}, ", expected (", N, ", ", c.C, ")");
  const Tensor g = core::contiguous(grad);
  Tensor grad_map = want_map ? core::empty_like(c.map) : torch::stable::new_empty(c.map, {0});
  Tensor grad_points = want_points ? core::empty_like(c.points) : torch::stable::new_empty(c.points, {0});
  core::for_floating("trilinear: map", map, [&]<class T>() {
    if (want_map) map_gradient<T>(c.grid, g, c.points, grad_map, c.C);
    if (want_points)
      core::for_each(c.map, N,
                     PointGradient<T>{c.grid, core::in<T>(g), core::in<T>(c.map), core::in<T>(c.points),
                                      core::out<T>(grad_points), c.C});
  });
  return {grad_map, grad_points};
}

const core::Operators operators{
    core::op<forward>(
        "trilinear(Tensor map, Tensor points, float x0, float y0, float z0, float hx, float hy, float hz, "
        "int outside) -> Tensor"),
    core::op<backward>("trilinear_backward(Tensor grad, Tensor map, Tensor points, float x0, float y0, float z0, "
                       "float hx, float hy, float hz, int outside, bool want_map, bool want_points) -> (Tensor, "
                       "Tensor)"),
};

}  // namespace
}  // namespace hepops::lartpc
