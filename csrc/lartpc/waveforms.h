#pragma once
// Currents on the pixels, from charges that arrive at the plane.
//
// A node is a short piece of track: q electrons that reach the plane at (u, v) at time t, spread by diffusion and by
// the piece's own extent (blob.h). Its share in bin (i, k), a fraction 1/bins of a pixel, is w_i w_k; the pixel sees
//
//   current[tick] = q / dt  sum_p a[p] W[tick - p],     a[p] = sum_{i,k} w_i w_k r[|i|][|k|][p]
//
// with r the charge that a unit charge arriving in that bin induces p ticks before the end of the response, and W the
// arrival in time: longitudinal diffusion, the piece's extent and the part of a tick, one kernel.
//
// p runs forward in time, p = 0 .. M; p = M is the last tick before arrival. p = 0 (or the tick in which the charge was
// created, if it was created within M ticks of the plane) takes all that was induced before, so that the sum over time
// is exactly w - phi_w(x, y, z0): w the share that the pixel collects, phi_w the weighting potential where the charge
// was made. Here: the plain form, one text for a GPU block and a CPU thread. waveforms_cpu.h has the tuned one.
#include <cstdint>

#include "core/team.h"
#include "core/vec.h"
#include "lartpc/blob.h"
#include "lartpc/response.h"

namespace hepops::lartpc {

constexpr int max_bins = 64;   // bins that one node may cover along an axis
constexpr int max_taps = 128;  // ticks over which one node may arrive
constexpr int max_tangents = 16;

enum Lead : int {
  drop =
      0,  // what a charge induces before the M ticks is lost, and it induces before it exists: the rivals' convention
  point = 1,  // exact, from the weighting potential of a square pad
  table = 2,  // from the response table's own sums
};

// The rows of the tensor of nodes (fields, N), double.
enum Field : int { charge, u, v, time, sigma, sigma_time, width_u, width_v, width_time, depth, num_fields };

struct Plane {
  double pitch, dt;  // [cm], [us]
  int bins, reach;   // bins per pixel (even); pixels on each side that see a node
  double cut;        // where a Gaussian ends, in sigmas: what lies beyond joins the last bin
  HEPOPS_HD double bin() const { return pitch / bins; }
  HEPOPS_HD int side() const { return 2 * reach + 1; }
};

// Response to a unit charge in bin (i, k) from the pad's centre, quadrant only; and its slope with the drift velocity.
template <class T>
struct Response {
  const T *r, *rv;        // (B, B, stride): charge induced at p = 0 .. M, and its slope with the velocity
  const T *lead, *leadv;  // (B, B, stride): [p] all that is induced up to and including p, from far away
  const T* potential;     // (B, B, P): phi_w at depth j dz, where lead is `table`
  int B, M, stride, P;
  Lead mode;
  double dz;  // [cm]
};

// Where a node's weights begin: integers, from which the rows are laid out.
struct Place {
  int64_t bin_u, bins_u, bin_v, bins_v;  // first bin and number of bins
  int64_t tick, half;                    // of arrival; support of W: -half .. half + 1
  int64_t start;                         // first p that is not 0
  int64_t first, last;                   // ticks in use [first, last)
};
constexpr int place_size = 9;

struct Nodes {
  const double* field;
  int64_t n;
  HEPOPS_HD double operator()(int k, int64_t i) const { return field[k * n + i]; }
};

HEPOPS_HD int64_t floor_int(double x) {
  const auto i = int64_t(x);
  return double(i) > x ? i - 1 : i;
}

HEPOPS_HD int64_t min_int(int64_t a, int64_t b) { return a < b ? a : b; }
HEPOPS_HD int64_t max_int(int64_t a, int64_t b) { return a > b ? a : b; }

HEPOPS_HD Place place(const Nodes& nodes, int64_t i, const Plane& plane, double velocity, int M, Lead mode) {
  const double bin = plane.bin(), blur = plane.cut * nodes(sigma, i);
  const double du = blur + 0.5 * nodes(width_u, i), dv = blur + 0.5 * nodes(width_v, i);
  Place at{};
  at.bin_u = floor_int((nodes(u, i) - du) / bin);
  at.bins_u = floor_int((nodes(u, i) + du) / bin) - at.bin_u + 1;
  at.bin_v = floor_int((nodes(v, i) - dv) / bin);
  at.bins_v = floor_int((nodes(v, i) + dv) / bin) - at.bin_v + 1;
  at.tick = floor_int(nodes(time, i) / plane.dt);
  at.half = 1 + int64_t((plane.cut * nodes(sigma_time, i) + 0.5 * nodes(width_time, i)) / plane.dt + 1.0);
  at.start = mode == drop ? 0 : M - min_int(M, max_int(0, floor_int(nodes(depth, i) / (velocity * plane.dt))));
  at.first = at.tick - 1 - M - at.half + at.start;
  at.last = at.tick + at.half + 1;
  return at;
}

// A node's weights and, after them, their slopes, each set `size` apart: value, position (or time), sigma, width.
template <class T>
struct Weights {
  T *u, *v, *t;
  int64_t size;  // bins_u_max + bins_v_max + taps_max
};

// Shares of the bins: differences of C at their edges. The outermost edges stand at infinity, so that they sum to 1.
template <class T>
HEPOPS_HD void share_bins(T* w, int64_t size, bool slopes, double centre, double sigma, double width, double bin,
                          int64_t first, int64_t n) {
  Cumulative<double> low{0, 0, 0, 0};
  for (int64_t b = 0; b < n; ++b) {
    const Cumulative<double> high =
        b == n - 1 ? Cumulative<double>{1, 0, 0, 0} : share_below(double(first + b + 1) * bin - centre, sigma, width);
    w[b] = T(high.value - low.value);
    if (slopes) {
      w[b + size] = T(low.x - high.x);  // by the centre
      w[b + 2 * size] = T(high.sigma - low.sigma);
      w[b + 3 * size] = T(high.width - low.width);
    }
    low = high;
  }
}

// Shares of the ticks j = -half .. half + 1 from the tick of arrival: second differences of D, exact at both ends.
template <class T>
HEPOPS_HD void share_ticks(T* w, int64_t size, bool slopes, double fraction, double sigma, double width, int64_t half) {
  Cumulative<double> a{0, 0, 0, 0}, b{0, 0, 0, 0};
  for (int64_t k = 0; k < 2 * half + 2; ++k) {
    const double x = double(k - half + 1) - fraction;
    const Cumulative<double> c = k >= 2 * half ? Cumulative<double>{x, 1, 0, 0} : ramp_below(x, sigma, width);
    w[k] = T(c.value - 2 * b.value + a.value);
    if (slopes) {
      w[k + size] = T(-(c.x - 2 * b.x + a.x));
      w[k + 2 * size] = T(c.sigma - 2 * b.sigma + a.sigma);
      w[k + 3 * size] = T(c.width - 2 * b.width + a.width);
    }
    a = b, b = c;
  }
}

// The weights of node i, time in ticks.
template <class T>
HEPOPS_HD void weigh(const Weights<T>& w, bool slopes, const Nodes& nodes, int64_t i, const Place& at,
                     const Plane& plane) {
  const double s = nodes(sigma, i), per_tick = 1 / plane.dt;
  share_bins(w.u, w.size, slopes, nodes(u, i), s, nodes(width_u, i), plane.bin(), at.bin_u, at.bins_u);
  share_bins(w.v, w.size, slopes, nodes(v, i), s, nodes(width_v, i), plane.bin(), at.bin_v, at.bins_v);
  share_ticks(w.t, w.size, slopes, nodes(time, i) * per_tick - double(at.tick), nodes(sigma_time, i) * per_tick,
              nodes(width_time, i) * per_tick, at.half);
}

// The pixel under a node, the centre of the square of pixels that see it.
HEPOPS_HD int64_t pixel_under(double x, const Plane& plane) { return floor_int(x / plane.pitch); }

// Bin b of the plane, seen from pixel c: its row in the quadrant table.
HEPOPS_HD int64_t quadrant(int64_t b, int64_t c, int bins) {
  const int64_t from_centre = b - c * bins - bins / 2;
  return from_centre < 0 ? ~from_centre : from_centre;
}

// The potential at depth z of bin (i, k), linear in z between the table's points, and its slope.
template <class T>
HEPOPS_HD core::Vec<double, 2> tabulated_potential(const Response<T>& response, int64_t bin, double z) {
  const double x = z / response.dz;
  const int64_t j = max_int(0, min_int(int64_t(x), response.P - 2));
  if (x > double(response.P - 1)) return {double(response.potential[bin * response.P + response.P - 1]), 0.0};
  const double a = response.potential[bin * response.P + j], b = response.potential[bin * response.P + j + 1];
  return {a + (b - a) * (x - double(j)), (b - a) / response.dz};
}

// Column p of a table, or of the lead where a node was created within the response's reach; null before that.
template <class T>
HEPOPS_HD const T* column(const T* table, const T* lead, int64_t p, int64_t start) {
  if (p < start) return nullptr;
  return (p == start && start > 0 ? lead : table) + p;
}

// f(x, y, bin) for every bin of a node that the table reaches from the pixel (cu, cv).
template <class T, class F>
HEPOPS_HD void for_each_bin(const Place& at, int64_t cu, int64_t cv, const Plane& plane, const Response<T>& response,
                            const F& f) {
  const int nu = int(at.bins_u), nv = int(at.bins_v), B = response.B;
  const int u0 = int(at.bin_u - cu * plane.bins) - plane.bins / 2,
            v0 = int(at.bin_v - cv * plane.bins) - plane.bins / 2;
  for (int x = 0; x < nu; ++x) {
    const int qx = u0 + x < 0 ? ~(u0 + x) : u0 + x;
    if (qx >= B) continue;
    for (int y = 0; y < nv; ++y) {
      const int qy = v0 + y < 0 ? ~(v0 + y) : v0 + y;
      if (qy < B) f(x, y, qx * B + qy);
    }
  }
}

// phi_w where the node was created, for the pixel (cu, cv).
template <class T>
HEPOPS_HD double point_potential(const Response<T>& response, const Nodes& nodes, int64_t i, int64_t cu, int64_t cv,
                                 const Plane& plane) {
  if (response.mode != point) return 0;
  return weighting_potential(nodes(u, i) - (double(cu) + 0.5) * plane.pitch,
                             nodes(v, i) - (double(cv) + 0.5) * plane.pitch, nodes(depth, i), 0.5 * plane.pitch);
}

// ---- forward, and forward mode -------------------------------------------------------------------------------------

// How the nodes change along K directions of the detector's parameters, which move no charge: (K, 5, N), (K).
struct Tangents {
  const double* node;  // charge, time, sigma, sigma_time, width_time
  const double* velocity;
  int K;
};

// One row: the nodes that reach a pixel, in a fixed order, and its window of ticks.
template <class T>
struct Rows {
  const int64_t *pair_offset, *pair;  // pair = node * side^2 + slot
  const int64_t *first, *offset;      // first tick and place in values
  T* values;                          // (total)            [e/us]
  T* tangents;                        // (K, total)
  int64_t total;
};

template <class T>
struct WaveRow {
  Nodes nodes;
  const Place* places;
  const T* weights;
  int64_t bins_u_max, bins_v_max, taps_max, weights_per_node;
  Plane plane;
  Response<T> response;
  Rows<T> rows;
  Tangents tangent;

  HEPOPS_HD Weights<const T> weights_of(int64_t i) const {
    const T* w = weights + i * weights_per_node;
    return {w, w + bins_u_max, w + bins_u_max + bins_v_max, bins_u_max + bins_v_max + taps_max};
  }

  HEPOPS_HD static size_t scratch(int M, int K) { return size_t(K ? 3 : 1) * (M + 1) * sizeof(T); }

  HEPOPS_HD void operator()(int64_t row, const core::Team& team) const {
    const int64_t length = rows.offset[row + 1] - rows.offset[row];
    for (int64_t o = team.rank; o < length; o += team.size) {
      rows.values[rows.offset[row] + o] = 0;
      for (int k = 0; k < tangent.K; ++k) rows.tangents[k * rows.total + rows.offset[row] + o] = 0;
    }
    for (int64_t j = rows.pair_offset[row]; j < rows.pair_offset[row + 1]; ++j) add(row, rows.pair[j], team);
  }

  // a = sum w r, a_sigma = sum dw/dsigma r, a_velocity = sum w dr/dv at p
  HEPOPS_HD core::Vec<T, 3> contract(int64_t p, int64_t i, const Place& at, const Weights<const T>& w, int64_t cu,
                                     int64_t cv) const {
    core::Vec<T, 3> a{};
    const T* r = column(response.r, response.lead, p, at.start);
    if (r == nullptr) return a;
    const int stride = response.stride;
    if (tangent.K == 0) {
      for_each_bin(at, cu, cv, plane, response,
                   [&](int x, int y, int bin) { a[0] += w.u[x] * w.v[y] * r[bin * stride]; });
    } else {
      const T* rv = column(response.rv, response.leadv, p, at.start);
      const T *us = w.u + 2 * w.size, *vs = w.v + 2 * w.size;
      for_each_bin(at, cu, cv, plane, response, [&](int x, int y, int bin) {
        const T induced = r[bin * stride];
        a[0] += w.u[x] * w.v[y] * induced;
        a[1] += (us[x] * w.v[y] + w.u[x] * vs[y]) * induced;
        a[2] += w.u[x] * w.v[y] * rv[bin * stride];
      });
    }
    if (p == at.start && response.mode == table) {
      const T *us = w.u + 2 * w.size, *vs = w.v + 2 * w.size;
      for_each_bin(at, cu, cv, plane, response, [&](int x, int y, int bin) {
        const T phi = T(tabulated_potential(response, bin, nodes(depth, i))[0]);
        a[0] -= w.u[x] * w.v[y] * phi;
        if (tangent.K) a[1] -= (us[x] * w.v[y] + w.u[x] * vs[y]) * phi;
      });
    }
    return a;
  }

  HEPOPS_HD void add(int64_t row, int64_t pair, const core::Team& team) const {
    const int side = plane.side(), M = response.M;
    const int64_t i = pair / (side * side), slot = pair % (side * side);
    const Place at = places[i];
    const int64_t cu = pixel_under(nodes(u, i), plane) + slot / side - plane.reach;
    const int64_t cv = pixel_under(nodes(v, i), plane) + slot % side - plane.reach;
    const Weights<const T> w = weights_of(i);
    T* a = reinterpret_cast<T*>(team.memory);

    team.sync();
    for (int64_t p = team.rank; p <= M; p += team.size) {
      core::Vec<T, 3> sum = contract(p, i, at, w, cu, cv);
      if (p == at.start) sum[0] -= T(point_potential(response, nodes, i, cu, cv, plane));
      a[p] = sum[0];
      if (tangent.K) a[M + 1 + p] = sum[1], a[2 * (M + 1) + p] = sum[2];
    }
    team.sync();

    const int64_t taps = 2 * at.half + 2, begin = rows.offset[row] + at.first - rows.first[row] - at.start;
    const double q = nodes(charge, i) / plane.dt;
    for (int64_t o = at.start + team.rank; o < M + taps; o += team.size) {
      T y[6] = {};  // a W; a with W's slopes by time, sigma and width; a_sigma W; a_velocity W
      for (int64_t t = max_int(0, o - M); t < taps && t <= o - at.start; ++t) {
        y[0] += a[o - t] * w.t[t];
        if (tangent.K) {
          for (int k = 1; k < 4; ++k) y[k] += a[o - t] * w.t[t + k * w.size];
          y[4] += a[M + 1 + o - t] * w.t[t];
          y[5] += a[2 * (M + 1) + o - t] * w.t[t];
        }
      }
      rows.values[begin + o] += T(q) * y[0];
      for (int k = 0; k < tangent.K; ++k) {
        const double* d = tangent.node + (k * 5) * nodes.n + i;
        const double per_tick = 1 / plane.dt;
        rows.tangents[k * rows.total + begin + o] +=
            T(d[0] * per_tick) * y[0] + T(q * d[nodes.n] * per_tick) * y[1] + T(q * d[2 * nodes.n]) * y[4] +
            T(q * d[3 * nodes.n] * per_tick) * y[2] + T(q * d[4 * nodes.n] * per_tick) * y[3] +
            T(q * tangent.velocity[k]) * y[5];
      }
    }
  }
};

// ---- reverse mode --------------------------------------------------------------------------------------------------

// One node: sums over the pixels that see it, so that nothing is written twice.
//   dL/dq = 1/dt sum g a W, and the same with the slope of w, W or r in its place for all others.
template <class T>
struct WaveNode {
  WaveRow<T> forward;
  const T* grad;            // (total)
  const int64_t* node_row;  // (N, side^2), -1 where there is no pixel
  double* grad_nodes;       // (num_fields, N)
  double* grad_velocity;    // (N)

  static constexpr int sums = num_fields + 1;
  static size_t scratch(int threads) { return size_t(threads) * sums * sizeof(double); }

  HEPOPS_HD void operator()(int64_t i, const core::Team& team) const {
    const Plane& plane = forward.plane;
    double sum[sums] = {};
    const int side = plane.side();
    for (int slot = 0; slot < side * side; ++slot) {
      const int64_t row = node_row[i * side * side + slot];
      if (row >= 0) add(sum, i, row, slot, team);
    }
    team_sum(sum, team);
    if (team.rank == 0) {
      for (int k = 0; k < num_fields; ++k) grad_nodes[k * forward.nodes.n + i] = sum[k];
      grad_velocity[i] = sum[num_fields];
    }
  }

  // Thread 0 leaves with the sums over the team, in the order of the ranks.
  HEPOPS_HD static void team_sum(double* sum, const core::Team& team) {
    if (team.size == 1) return;
    double* all = reinterpret_cast<double*>(team.memory);
    team.sync();
    for (int k = 0; k < sums; ++k) all[team.rank * sums + k] = sum[k];
    team.sync();
    if (team.rank == 0)
      for (int other = 1; other < team.size; ++other)
        for (int k = 0; k < sums; ++k) sum[k] += all[other * sums + k];
    team.sync();
  }

  HEPOPS_HD void add(double* sum, int64_t i, int64_t row, int slot, const core::Team& team) const {
    const Plane& plane = forward.plane;
    const Response<T>& response = forward.response;
    const Nodes& nodes = forward.nodes;
    const int side = plane.side(), M = response.M;
    const Place at = forward.places[i];
    const int64_t cu = pixel_under(nodes(u, i), plane) + slot / side - plane.reach;
    const int64_t cv = pixel_under(nodes(v, i), plane) + slot % side - plane.reach;
    const Weights<const T> w = forward.weights_of(i);
    const T* g = grad + forward.rows.offset[row] + at.first - forward.rows.first[row] - at.start;
    const double q = nodes(charge, i) / plane.dt, per_tick = 1 / plane.dt;
    const int64_t taps = 2 * at.half + 2;

    for (int64_t p = at.start + team.rank; p <= M; p += team.size) {
      T gw[4] = {};  // g with W and its slopes by time, sigma, width
      for (int64_t t = 0; t < taps; ++t)
        for (int k = 0; k < 4; ++k) gw[k] += g[p + t] * w.t[t + k * w.size];
      T a[8] = {};  // a, and its slopes by u, v, sigma, width_u, width_v, velocity, depth
      const T *r = column(response.r, response.lead, p, at.start),
              *rv = column(response.rv, response.leadv, p, at.start);
      const auto gather = [&](int x, int y, T induced) {
        const T wu = w.u[x], wv = w.v[y];
        a[0] += wu * wv * induced;
        a[1] += w.u[x + w.size] * wv * induced;
        a[2] += wu * w.v[y + w.size] * induced;
        a[3] += (w.u[x + 2 * w.size] * wv + wu * w.v[y + 2 * w.size]) * induced;
        a[4] += w.u[x + 3 * w.size] * wv * induced;
        a[5] += wu * w.v[y + 3 * w.size] * induced;
      };
      for_each_bin(at, cu, cv, plane, response, [&](int x, int y, int bin) {
        gather(x, y, r[bin * response.stride]);
        a[6] += w.u[x] * w.v[y] * rv[bin * response.stride];
      });
      if (p == at.start && response.mode == table)
        for_each_bin(at, cu, cv, plane, response, [&](int x, int y, int bin) {
          const core::Vec<double, 2> phi = tabulated_potential(response, bin, nodes(depth, i));
          gather(x, y, T(-phi[0]));
          a[7] -= w.u[x] * w.v[y] * T(phi[1]);
        });
      if (p == at.start && response.mode == point) {
        const double x = nodes(u, i) - (double(cu) + 0.5) * plane.pitch, z = nodes(depth, i);
        const double y = nodes(v, i) - (double(cv) + 0.5) * plane.pitch, half = 0.5 * plane.pitch;
        const core::Vec<double, 3> slope = weighting_potential_slope(x, y, z, half);
        a[0] -= T(weighting_potential(x, y, z, half));
        a[1] -= T(slope[0]);
        a[2] -= T(slope[1]);
        a[7] -= T(slope[2]);
      }
      const double gq = gw[0] * q;
      sum[charge] += double(gw[0]) * a[0] * per_tick;
      sum[u] += gq * a[1];
      sum[v] += gq * a[2];
      sum[sigma] += gq * a[3];
      sum[width_u] += gq * a[4];
      sum[width_v] += gq * a[5];
      sum[num_fields] += gq * a[6];
      sum[depth] += gq * a[7];
      sum[time] += double(gw[1]) * a[0] * q * per_tick;
      sum[sigma_time] += double(gw[2]) * a[0] * q * per_tick;
      sum[width_time] += double(gw[3]) * a[0] * q * per_tick;
    }
  }
};

}  // namespace hepops::lartpc
