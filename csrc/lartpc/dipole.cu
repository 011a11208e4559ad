#include "lartpc/dipole.h"

#include <tuple>

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"

namespace hepops::lartpc {
namespace {

using core::Scalar;
using core::ScalarType;
using core::Tensor;

#ifdef __CUDA_ARCH__
constexpr int lanes = 1;
#else
constexpr int lanes = 8;
#endif

// A row or a node is much work: unlike core::for_each, a few of them are worth a thread.
template <class F>
void for_each_heavy(const Tensor& on, int64_t n, const F& f) {
#ifdef __CUDACC__
  core::for_each(on, n, f);
#else
  (void)on;
  torch::stable::parallel_for(0, n, 16, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) f(i);
  });
#endif
}

struct Far {
  Nodes nodes;
  FarGroups groups;
  FarPlane plane;
  Scalar<double> velocity;

  // f(node) for the nodes of a group that see this row from far away.
  template <class F>
  HEPOPS_HD void for_each_node(int64_t group, int64_t row, const F& f) const {
    const int64_t pu = groups.pixel_u[row], pv = groups.pixel_v[row];
    for (int64_t j = groups.node_offset[group]; j < groups.node_offset[group + 1]; ++j) {
      const int64_t i = groups.node[j];
      if (plane.sees(groups.node_u[i] - pu, groups.node_v[i] - pv)) f(i);
    }
  }
};

// One row: first the potential at the edges of the bins, summed over nodes; then its differences are the charges.
struct Forward {
  Far far;
  const int64_t* group_of_row;
  double* out;

  HEPOPS_HD void operator()(int64_t row) const {
    const int64_t g = group_of_row[row], bins = far.groups.bins[g], first = far.groups.first[g];
    double* const sum = out + far.groups.offset[g] + (row - far.groups.row_offset[g]) * bins;
    const Dipole dipole = far.plane.dipole(far.groups.drift_length[g]);
    const double v = far.velocity;
    const int64_t pu = far.groups.pixel_u[row], pv = far.groups.pixel_v[row];
    for (int64_t k = 0; k < bins; ++k) sum[k] = 0;
    far.for_each_node(g, row, [&](int64_t i) {
      const FarPair pair = far_pair(far.nodes, i, pu, pv, first, far.plane, v);
      const double q = far.nodes(charge, i), rho2 = pair.rho2;
      for (int image = -dipole.images; image <= dipole.images; ++image) {
        const double shift = 2 * image * dipole.drift_length;
#pragma GCC ivdep
        for (int64_t k = pair.created + 1; k <= pair.last; ++k) sum[k] += q * dipole.term(rho2, pair.z(k) + shift);
      }
#pragma GCC ivdep
      for (int64_t k = pair.created + 1; k <= pair.last; ++k) sum[k] += q * dipole.rest(rho2, pair.z(k));
    });
    for (int64_t k = 0; k + 1 < bins; ++k) sum[k] = sum[k + 1] - sum[k];
    if (bins > 0) sum[bins - 1] = -sum[bins - 1];  // by the last edge all have arrived: potential 0
    far.for_each_node(g, row, [&](int64_t i) {
      const FarPair pair = far_pair(far.nodes, i, pu, pv, first, far.plane, v);
      sum[pair.created] -= far.nodes(charge, i) * dipole.potential(pair.rho2, far.nodes(depth, i));
    });
  }
};

// The same along K directions of the parameters, which move no charge across and no place of creation.
struct Tangent {
  Far far;
  const int64_t* group_of_row;
  const double* node_tangents;      // (K, 5, N)
  const double* velocity_tangents;  // (K)
  int64_t K, total;
  double* out;  // (K, total)

  HEPOPS_HD void operator()(int64_t row) const {
    const int64_t g = group_of_row[row], bins = far.groups.bins[g], first = far.groups.first[g], n = far.nodes.n;
    double* const at = out + far.groups.offset[g] + (row - far.groups.row_offset[g]) * bins;
    const Dipole dipole = far.plane.dipole(far.groups.drift_length[g]);
    const double v = far.velocity;
    const int64_t pu = far.groups.pixel_u[row], pv = far.groups.pixel_v[row];
    for (int64_t d = 0; d < K; ++d)
      for (int64_t k = 0; k < bins; ++k) at[d * total + k] = 0;
    far.for_each_node(g, row, [&](int64_t i) {
      const FarPair pair = far_pair(far.nodes, i, pu, pv, first, far.plane, v);
      const double q = far.nodes(charge, i);
      for (int image = -dipole.images; image <= dipole.images + 1; ++image) {  // the last: all further images
        const double shift = 2 * image * dipole.drift_length;
        for (int64_t k = pair.created + 1; k <= pair.last; k += lanes) {
          double phi[lanes], along[lanes], z[lanes];
          const int some = int(min_int(lanes, pair.last + 1 - k));
          for (int l = 0; l < lanes; ++l) {
            z[l] = pair.z(k + l);
            const auto f =
                image > dipole.images ? dipole.rest_slopes(pair.rho2, z[l]) : dipole.slopes(pair.rho2, z[l] + shift);
            phi[l] = f.value, along[l] = q * f.z;
          }
          for (int64_t d = 0; d < K; ++d) {
            const double dq = node_tangents[(d * 5) * n + i], dz = v * node_tangents[(d * 5 + 1) * n + i];
            const double stretch = velocity_tangents[d] / v;
            for (int l = 0; l < some; ++l) at[d * total + k + l] += dq * phi[l] + along[l] * (dz + stretch * z[l]);
          }
        }
      }
    });
    for (int64_t d = 0; d < K && bins > 0; ++d) {
      double* const sum = at + d * total;
      for (int64_t k = 0; k + 1 < bins; ++k) sum[k] = sum[k + 1] - sum[k];
      sum[bins - 1] = -sum[bins - 1];
    }
    far.for_each_node(g, row, [&](int64_t i) {
      const FarPair pair = far_pair(far.nodes, i, pu, pv, first, far.plane, v);
      const double born = dipole.potential(pair.rho2, far.nodes(depth, i));
      for (int64_t d = 0; d < K; ++d) at[d * total + pair.created] -= node_tangents[(d * 5) * n + i] * born;
    });
  }
};

// One node: the charge of bin k is q (F_{k+1} - F_k), so that F_k has the weight q (g_{k-1} - g_k).
struct Backward {
  Far far;
  const int64_t* group_of_node;
  const double* grad;
  double* grad_nodes;     // (num_fields, N)
  double* grad_velocity;  // (N)

  HEPOPS_HD void operator()(int64_t i) const {
    const int64_t g = group_of_node[i], bins = far.groups.bins[g], first = far.groups.first[g], n = far.nodes.n;
    const Dipole dipole = far.plane.dipole(far.groups.drift_length[g]);
    const int64_t cu = far.groups.node_u[i], cv = far.groups.node_v[i];
    const double vd = far.velocity, q = far.nodes(charge, i), z0 = far.nodes(depth, i);
    double by_q = 0, by_u = 0, by_v = 0, by_time = 0, by_depth = 0, by_velocity = 0;
    for (int64_t row = far.groups.row_offset[g]; row < far.groups.row_offset[g + 1]; ++row) {
      if (!far.plane.sees(cu - far.groups.pixel_u[row], cv - far.groups.pixel_v[row])) continue;
      const FarPair pair =
          far_pair(far.nodes, i, far.groups.pixel_u[row], far.groups.pixel_v[row], first, far.plane, vd);
      const double* of_row = grad + far.groups.offset[g] + (row - far.groups.row_offset[g]) * bins;
      // sums of the potential and its slopes with the edges' weights, in lanes, so that they are SIMD in one order
      double value[lanes] = {}, rho2[lanes] = {}, slope[lanes] = {}, stretch[lanes] = {};
      for (int image = -dipole.images; image <= dipole.images + 1; ++image) {  // the last: all further images
        const double shift = 2 * image * dipole.drift_length;
        const auto add = [&](int l, int64_t k) {
          const double weight = of_row[k - 1] - of_row[k], z = pair.z(k);
          const auto f = image > dipole.images ? dipole.rest_slopes(pair.rho2, z) : dipole.slopes(pair.rho2, z + shift);
          value[l] += weight * f.value, rho2[l] += weight * f.rho2;
          slope[l] += weight * f.z, stretch[l] += weight * f.z * z;
        };
        int64_t k = pair.created + 1;
        for (; k + lanes - 1 <= pair.last; k += lanes)
#pragma GCC ivdep
          for (int l = 0; l < lanes; ++l) add(l, k + l);
        for (int l = 0; k + l <= pair.last; ++l) add(l, k + l);
        const auto born =
            image > dipole.images ? dipole.rest_slopes(pair.rho2, z0) : dipole.slopes(pair.rho2, z0 + shift);
        const double weight = -of_row[pair.created];
        value[0] += weight * born.value, rho2[0] += weight * born.rho2, by_depth += q * weight * born.z;
      }
      double by_rho2 = 0;
      for (int l = 0; l < lanes; ++l) {
        by_q += value[l], by_rho2 += q * rho2[l];
        by_time += q * vd * slope[l], by_velocity += q / vd * stretch[l];
      }
      by_u += 2 * pair.x * by_rho2;
      by_v += 2 * pair.y * by_rho2;
    }
    for (int f = 0; f < num_fields; ++f) grad_nodes[f * n + i] = 0;
    grad_nodes[charge * n + i] = by_q;
    grad_nodes[u * n + i] = by_u;
    grad_nodes[v * n + i] = by_v;
    grad_nodes[time * n + i] = by_time;
    grad_nodes[depth * n + i] = by_depth;
    grad_velocity[i] = by_velocity;
  }
};

struct Checked {
  Tensor nodes, groups[11];
  Far far;
  int64_t rows, total;
};

Checked check(const Tensor& nodes, const Tensor& velocity, const Tensor& node_offset, const Tensor& node,
              const Tensor& node_u, const Tensor& node_v, const Tensor& row_offset, const Tensor& pixel_u,
              const Tensor& pixel_v, const Tensor& first, const Tensor& bins, const Tensor& offset,
              const Tensor& drift_length, double pitch, double dt, int64_t reach, int64_t far, int64_t ticks,
              int64_t images) {
  core::check_type(nodes.scalar_type() == ScalarType::Double, "far_field: nodes must be float64, got ",
                   toString(nodes.scalar_type()));
  core::check_value(nodes.dim() == 2 && nodes.size(0) == num_fields, "far_field: nodes must be (", int(num_fields),
                    ", N), got ", core::Shape{nodes});
  core::check_scalar("far_field: velocity", velocity, nodes);
  core::check_same_kind("far_field: drift_length", drift_length, nodes);
  for (const Tensor* x :
       {&node_offset, &node, &node_u, &node_v, &row_offset, &pixel_u, &pixel_v, &first, &bins, &offset})
    core::check_int64("far_field: layout", *x);
  core::check_value(pitch > 0 && dt > 0 && ticks > 0, "far_field: pitch, tick and ticks must be positive, got ", pitch,
                    ", ", dt, ", ", ticks);
  core::check_value(far > reach && reach >= 1, "far_field: it must reach beyond the near field's ", reach,
                    " pixels, got ", far);
  Checked c{core::contiguous(nodes),
            {core::contiguous(node_offset), core::contiguous(node), core::contiguous(node_u), core::contiguous(node_v),
             core::contiguous(row_offset), core::contiguous(pixel_u), core::contiguous(pixel_v),
             core::contiguous(first), core::contiguous(bins), core::contiguous(offset), core::contiguous(drift_length)},
            {{}, {}, {}, velocity},
            pixel_u.numel(),
            0};
  const auto at = [&](int k) { return core::in<int64_t>(c.groups[k]); };
  c.far.nodes = {core::in<double>(c.nodes), nodes.size(1)};
  c.far.groups = {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), core::in<double>(c.groups[10])};
  c.far.plane = {pitch, dt, int(reach), int(far), int(ticks), int(images)};
  return c;
}

#define FAR_LAYOUT                                                                                                     \
  const Tensor &node_offset, const Tensor &node, const Tensor &node_u, const Tensor &node_v, const Tensor &row_offset, \
      const Tensor &pixel_u, const Tensor &pixel_v, const Tensor &first, const Tensor &bins, const Tensor &offset,     \
      const Tensor &drift_length, const Tensor &group_of_row, const Tensor &group_of_node, double pitch, double dt,    \
      int64_t reach, int64_t far, int64_t ticks, int64_t images, int64_t total
#define FAR_CHECK                                                                                              \
  check(nodes, velocity, node_offset, node, node_u, node_v, row_offset, pixel_u, pixel_v, first, bins, offset, \
        drift_length, pitch, dt, reach, far, ticks, images)

Tensor forward(const Tensor& nodes, const Tensor& velocity, FAR_LAYOUT) {
  const Checked c = FAR_CHECK;
  core::check_int64("far_field: group_of_node", group_of_node);
  const Tensor of_row = core::contiguous(group_of_row);
  Tensor result = torch::stable::new_empty(c.nodes, {total});
  for_each_heavy(c.nodes, c.rows, Forward{c.far, core::in<int64_t>(of_row), core::out<double>(result)});
  return result;
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& nodes, const Tensor& velocity, FAR_LAYOUT) {
  const Checked c = FAR_CHECK;
  core::check_int64("far_field: group_of_row", group_of_row);
  core::check_same_kind("far_field_backward: grad", grad, nodes);
  core::check_value(grad.numel() == total, "far_field_backward: grad has ", grad.numel(), " numbers, expected ", total);
  const Tensor g = core::contiguous(grad), of_node = core::contiguous(group_of_node);
  Tensor grad_nodes = core::empty_like(c.nodes);
  Tensor grad_velocity = torch::stable::new_empty(c.nodes, {c.far.nodes.n});
  for_each_heavy(c.nodes, c.far.nodes.n,
                 Backward{c.far, core::in<int64_t>(of_node), core::in<double>(g), core::out<double>(grad_nodes),
                          core::out<double>(grad_velocity)});
  return {grad_nodes, grad_velocity};
}

Tensor jvp(const Tensor& nodes, const Tensor& velocity, const Tensor& node_tangents, const Tensor& velocity_tangents,
           FAR_LAYOUT) {
  const Checked c = FAR_CHECK;
  core::check_int64("far_field_jvp: group_of_node", group_of_node);
  core::check_same_kind("far_field_jvp: node_tangents", node_tangents, nodes);
  core::check_same_kind("far_field_jvp: velocity_tangents", velocity_tangents, nodes);
  const int64_t K = velocity_tangents.numel();
  core::check_value(node_tangents.numel() == K * 5 * c.far.nodes.n, "far_field_jvp: node_tangents must be (K, 5, N)");
  const Tensor t = core::contiguous(node_tangents), v = core::contiguous(velocity_tangents),
               of_row = core::contiguous(group_of_row);
  Tensor result = torch::stable::new_empty(c.nodes, {K, total});
  for_each_heavy(c.nodes, c.rows,
                 Tangent{c.far, core::in<int64_t>(of_row), core::in<double>(t), core::in<double>(v), K, total,
                         core::out<double>(result)});
  return result;
}

#define FAR_SCHEMA                                                                                                     \
  "Tensor node_offset, Tensor node, Tensor node_u, Tensor node_v, Tensor row_offset, Tensor pixel_u, Tensor pixel_v, " \
  "Tensor first, Tensor bins, "                                                                                        \
  "Tensor offset, Tensor drift_length, Tensor group_of_row, Tensor group_of_node, float pitch, float tick, "           \
  "int reach, int far, int ticks, int images, int total)"

const core::Operators operators{
    core::op<forward>("_far_field(Tensor nodes, Tensor velocity, " FAR_SCHEMA " -> Tensor"),
    core::op<backward>("_far_field_backward(Tensor grad, Tensor nodes, Tensor velocity, " FAR_SCHEMA
                       " -> (Tensor, Tensor)"),
    core::op<jvp>(
        "_far_field_jvp(Tensor nodes, Tensor velocity, Tensor node_tangents, Tensor velocity_tangents, " FAR_SCHEMA
        " -> Tensor"),
};

}  // namespace
}  // namespace hepops::lartpc
