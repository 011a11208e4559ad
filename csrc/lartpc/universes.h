#pragma once
// The currents of one set of charges for many sets of the detector's parameters, "universes".
//
// The response to a unit charge is nearly the same curve everywhere: over all bins of the plane, and all velocities of
// the universes,
//
//   r_b(v)[p] = sum_l U_b(v)[l] B_l[p],     l < L ~ 15 (float), 30 (double) instead of 151 ticks,
//
// to the rounding of the dtype (hepops/lartpc/universes.py makes U and B, and checks it). So a node is contracted with
// L numbers per bin instead of with its ticks, and the nodes of a pixel are added up before they meet the ticks:
//
//   current[k] = sum_l sum_j S[j][l] B_l[k - j],    S[j][l] = sum_nodes q alpha_l W[j],   alpha_l = sum_b w_b U_b[l]
//
// l = 0 is the tick p = 0 alone, which takes what was induced before. Here: the plain form, one text for a GPU block
// and a CPU thread, node by node. universes_cpu.h has the tuned one.
#include "lartpc/waveforms.h"

namespace hepops::lartpc {

template <class T>
struct Universes {
  const double* nodes;  // (n, num_fields, N)
  const double* velocity;
  const int64_t* table;  // of each universe, among those of U
  int64_t n, N;
  Plane plane;
  Response<T> response;  // B, M, stride, mode, potential, P, dz: its curves are U and basis
  const T *U, *basis;    // (tables, B, B, L), (rank, stride)
  int64_t L, rank;
  const T *X, *D;  // for universes_cpu.h: (ticks, L, columns), (curves, stride)
  int64_t ticks, columns, curves;
  const double* created;              // (pairs) phi_w where the node was created, as the pixel sees it; mode `point`
  const int64_t *pair_offset, *pair;  // rows of pixels, the same in all universes
  const int64_t *job_universe, *job_row, *first, *offset;  // what is wanted: (jobs), offset (jobs + 1)
  int64_t jobs;
  T* values;
  int64_t bins_u_max, bins_v_max, taps_max;

  HEPOPS_HD Nodes nodes_of(int64_t universe) const { return {nodes + universe * num_fields * N, N}; }
  HEPOPS_HD Place place_of(int64_t universe, int64_t i) const {
    return place(nodes_of(universe), i, plane, velocity[universe], response.M, response.mode);
  }
  HEPOPS_HD const T* table_of(int64_t universe) const { return U + table[universe] * response.B * response.B * L; }
  HEPOPS_HD int64_t per_node() const { return bins_u_max + bins_v_max + taps_max; }
  template <class S>
  HEPOPS_HD Weights<S> in_turn(S* w) const {
    return {w, w + bins_u_max, w + bins_u_max + bins_v_max, per_node()};
  }
};

// First tick of every node in every universe, and the one after its last: (n, N).
template <class T>
struct NodeWindow {
  Universes<T> f;
  int64_t *first, *last;
  HEPOPS_HD void operator()(int64_t k) const {
    const Place at = f.place_of(k / f.N, k % f.N);
    first[k] = at.first;
    last[k] = at.last;
  }
};

// First tick of a row in a universe, and the one after its last.
template <class T>
struct UniverseWindow {
  Universes<T> f;
  const int64_t *node_first, *node_last;
  int64_t *first, *last;
  HEPOPS_HD void operator()(int64_t job) const {
    const int64_t row = f.job_row[job], squares = f.plane.side() * f.plane.side(), shift = f.job_universe[job] * f.N;
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (int64_t j = f.pair_offset[row]; j < f.pair_offset[row + 1]; ++j) {
      const int64_t k = shift + f.pair[j] / squares;
      low = min_int(low, node_first[k]);
      high = max_int(high, node_last[k]);
    }
    first[job] = low;
    last[job] = high;
  }
};

template <class T>
struct WeighUniverses {
  Universes<T> f;
  Place* places;  // (n, N)
  T* weights;     // (n, N, per_node)
  HEPOPS_HD void operator()(int64_t k) const {
    const int64_t universe = k / f.N, i = k % f.N;
    places[k] = f.place_of(universe, i);
    weigh(f.in_turn(weights + k * f.per_node()), false, f.nodes_of(universe), i, places[k], f.plane);
  }
};

template <class T>
struct UniverseRow {
  Universes<T> f;
  const Place* places;
  const T* weights;

  static size_t scratch(int M, int64_t L) { return size_t(M + 1 + L) * sizeof(T); }

  HEPOPS_HD void operator()(int64_t job, const core::Team& team) const {
    const int64_t row = f.job_row[job];
    for (int64_t o = f.offset[job] + team.rank; o < f.offset[job + 1]; o += team.size) f.values[o] = 0;
    for (int64_t j = f.pair_offset[row]; j < f.pair_offset[row + 1]; ++j) add(job, j, team);
  }

  HEPOPS_HD void add(int64_t job, int64_t j, const core::Team& team) const {
    const Plane& plane = f.plane;
    const int64_t side = plane.side(), i = f.pair[j] / (side * side), slot = f.pair[j] % (side * side);
    const int64_t universe = f.job_universe[job], k = universe * f.N + i, M = f.response.M;
    const Nodes nodes = f.nodes_of(universe);
    const Place at = places[k];
    const Weights<const T> w = f.in_turn(weights + k * f.per_node());
    const int64_t cu = pixel_under(nodes(u, i), plane) + slot / side - plane.reach;
    const int64_t cv = pixel_under(nodes(v, i), plane) + slot % side - plane.reach;
    const T* U = f.table_of(universe);
    T* a = reinterpret_cast<T*>(team.memory);
    T* alpha = a + M + 1;

    team.sync();
    for (int64_t l = team.rank; l < f.rank; l += team.size) {
      T sum = 0;
      for_each_bin(at, cu, cv, plane, f.response,
                   [&](int x, int y, int bin) { sum += w.u[x] * w.v[y] * U[bin * f.L + l]; });
      alpha[l] = sum;
    }
    team.sync();
    for (int64_t p = team.rank; p <= M; p += team.size) {
      T sum = 0;
      for (int64_t l = 0; l < f.rank; ++l) sum += alpha[l] * f.basis[l * f.response.stride + p];
      a[p] = sum;
    }
    team.sync();
    if (team.rank == 0) {  // created within reach: all at once what was induced before, less what was there already
      T sum = 0;
      for (int64_t p = 0; p <= at.start; ++p) sum += a[p];
      if (f.response.mode == point) sum -= T(f.created[j]);
      if (f.response.mode == table)
        for_each_bin(at, cu, cv, plane, f.response, [&](int x, int y, int bin) {
          sum -= w.u[x] * w.v[y] * T(tabulated_potential(f.response, bin, nodes(depth, i))[0]);
        });
      a[at.start] = sum;
    }
    team.sync();
    const int64_t taps = 2 * at.half + 2, begin = f.offset[job] + at.first - f.first[job] - at.start;
    const T q = T(nodes(charge, i) / plane.dt);
    for (int64_t o = at.start + team.rank; o < M + taps; o += team.size) {
      T y = 0;
      for (int64_t t = max_int(0, o - M); t < taps && t <= o - at.start; ++t) y += a[o - t] * w.t[t];
      f.values[begin + o] += q * y;
    }
  }
};

// What a row may at most receive of positive charge, from a node: with P the positive part of the whole response,
//
//   sum_b w_b P_b  <=  at a sigma in the middle + |slope with ln sigma| d + rest max P
//
// with d the distance of the universes' ln sigma from it and `rest` the second order, a distance in total variation.
// Beside it phi_w where the node was created.
template <class T>
struct PairReach {
  Nodes nodes;
  Plane plane;
  const Place* places;
  const T *weights, *slopes;  // (N, bins_u + bins_v), by sigma
  const T *positive, *most;   // (2 B, 2 B): P of the whole plane around a pad; (B, B): the largest from there outwards
  int64_t bins_u_max, bins_v_max, extra;
  int64_t B;
  double distance, rest;
  const int64_t* pair;
  double* reach;

  // The least row of the quadrant among bins [low, high) from the centre.
  HEPOPS_HD static int64_t nearest_row(int64_t low, int64_t high) { return low > 0 ? low : high <= 0 ? -high : 0; }

  HEPOPS_HD void operator()(int64_t j) const {
    const int64_t side = plane.side(), i = pair[j] / (side * side), slot = pair[j] % (side * side);
    const int64_t cu = pixel_under(nodes(u, i), plane) + slot / side - plane.reach;
    const int64_t cv = pixel_under(nodes(v, i), plane) + slot % side - plane.reach;
    const Place& at = places[i];
    const int64_t shift = i * (bins_u_max + bins_v_max);
    const T *wu = weights + shift, *wv = wu + bins_u_max, *su = slopes + shift, *sv = su + bins_u_max;
    const int64_t u0 = at.bin_u - cu * plane.bins - plane.bins / 2, v0 = at.bin_v - cv * plane.bins - plane.bins / 2;
    const int64_t x0 = max_int(0, -B - u0), x1 = min_int(at.bins_u, B - u0);
    const int64_t y0 = max_int(0, -B - v0), y1 = min_int(at.bins_v, B - v0);
    double sum = 0, slope = 0;
    for (int64_t x = x0; x < x1; ++x) {
      const T* P = positive + (u0 + x + B) * 2 * B + v0 + B;
      double along = 0, turned = 0;
      for (int64_t y = y0; y < y1; ++y) along += wv[y] * P[y];
      for (int64_t y = y0; y < y1; ++y) turned += sv[y] * P[y];
      sum += wu[x] * along;
      slope += wu[x] * turned + su[x] * along;
    }
    slope *= nodes(sigma, i) * distance;
    const int64_t qx = nearest_row(u0 - extra, u0 + at.bins_u + extra);
    const int64_t qy = nearest_row(v0 - extra, v0 + at.bins_v + extra);
    reach[j] = sum + (slope < 0 ? -slope : slope) + (qx < B && qy < B ? rest * most[qx * B + qy] : 0.0);
  }
};

// phi_w where the nodes of some rows were created, as their pixels see it; 0 for the others.
struct CreatedPotential {
  Nodes nodes;
  Plane plane;
  const int64_t *pair_offset, *pair, *rows;
  double* created;
  HEPOPS_HD void operator()(int64_t k) const {
    const int64_t side = plane.side();
    for (int64_t j = pair_offset[rows[k]]; j < pair_offset[rows[k] + 1]; ++j) {
      const int64_t i = pair[j] / (side * side), slot = pair[j] % (side * side);
      const int64_t cu = pixel_under(nodes(u, i), plane) + slot / side - plane.reach;
      const int64_t cv = pixel_under(nodes(v, i), plane) + slot % side - plane.reach;
      created[j] =
          weighting_potential(nodes(u, i) - (double(cu) + 0.5) * plane.pitch,
                              nodes(v, i) - (double(cv) + 0.5) * plane.pitch, nodes(depth, i), 0.5 * plane.pitch);
    }
  }
};

// bound[row][universe] = sum over the row's pairs of charge times reach [e]
struct RowBound {
  const double *charge, *reach;  // (N, n), (pairs)
  const int64_t *pair_offset, *pair;
  int64_t squares, n;
  double* bound;
  HEPOPS_HD void operator()(int64_t row) const {
    for (int64_t m = 0; m < n; ++m) bound[row * n + m] = 0;
    for (int64_t j = pair_offset[row]; j < pair_offset[row + 1]; ++j) {
      const double* q = charge + pair[j] / squares * n;
      for (int64_t m = 0; m < n; ++m) bound[row * n + m] += q[m] * reach[j];
    }
  }
};

}  // namespace hepops::lartpc
