#include "sdk/scene.h"

#include <algorithm>
#include <numeric>

namespace hepops::sdk {
namespace {

constexpr double apart_beyond_response = 2000;  // ticks after which deposits of one event no longer share a row

struct ArriveNode {
  const double *deposits, *parameters;
  double* fields;
  int64_t N;
  int model;

  HEPOPS_HD void operator()(int64_t i) const {
    constexpr int num_deposit = lartpc::DepositField::count;
    double x[lartpc::arrive_inputs];
    for (int k = 0; k < num_deposit; ++k) x[k] = deposits[k * N + i];
    for (int k = 0; k < lartpc::ParameterField::count; ++k) x[num_deposit + k] = parameters[k];
    const auto result = lartpc::arrive<double>(x, x + num_deposit, model, 1.0);
    fields[lartpc::charge * N + i] = result[lartpc::ArrivalField::charge];
    fields[lartpc::time * N + i] = result[lartpc::ArrivalField::time];
    fields[lartpc::sigma * N + i] = result[lartpc::ArrivalField::sigma];
    fields[lartpc::sigma_time * N + i] = result[lartpc::ArrivalField::sigma_time];
    fields[lartpc::width_time * N + i] = result[lartpc::ArrivalField::width_time];
  }
};

}  // namespace

Scene::Scene(Resource& m)
    : deposits(m),
      fields(m),
      first_node(m),
      piece_of(m),
      places(m),
      order(m),
      windows(m),
      row_window(m),
      row_u(m),
      row_v(m),
      pair_offset(m),
      pair(m),
      first_tick(m),
      offset(m),
      grid_(m),
      sorted_(m) {}

void Scene::set(const hepops_simulator& s, const Piece* pieces, int64_t count, const Parallel& parallel) {
  first_node.resize(count + 1);
  first_node[0] = 0;
  for (int64_t k = 0; k < count; ++k) first_node[k + 1] = first_node[k] + count_nodes(pieces[k], s.config.step);
  N = first_node[count];
  piece_of.resize(N);
  for (int64_t k = 0; k < count; ++k)
    std::fill(piece_of.data() + first_node[k], piece_of.data() + first_node[k + 1], k);
  deposits.resize(N * lartpc::DepositField::count);
  fields.resize(N * lartpc::num_fields);
  nodes = {fields.data(), N};
  divide(pieces, first_node.data(), count, {deposits.data(), fields.data(), N});
  const bool single = s.config.precision == 32;
  // what lies beyond so many sigmas is below the rounding of the sums
  plane = {s.config.pixel_pitch, s.config.tick, single ? s.single.bins : s.wide.bins, int(s.config.reach),
           single ? 4.0 : 6.0};
  place_nodes(s, parallel);
  find_windows(s, pieces, count);
  find_rows(s);
}

void Scene::place_nodes(const hepops_simulator& s, const Parallel& parallel) {
  static_assert(sizeof(hepops_parameters) == lartpc::ParameterField::count * sizeof(double));
  const ArriveNode f{deposits.data(), &s.config.parameters.lifetime, fields.data(), N, int(s.config.recombination)};
  parallel(N, 8192, [&f](int64_t first, int64_t last) {
    const ArriveNode local = f;
#pragma GCC ivdep
    for (int64_t i = first; i < last; ++i) local(i);
  });
  places.resize(N);
  const lartpc::Lead mode = s.config.precision == 32 ? s.single.mode : s.wide.mode;
  parallel(N, 8192, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      places[i] = lartpc::place(nodes, i, plane, s.velocity, int(s.config.length), mode);
  });
  bins_u = bins_v = 1, taps = 2;
  for (const lartpc::Place& at : places) {
    bins_u = std::max(bins_u, at.bins_u);
    bins_v = std::max(bins_v, at.bins_v);
    taps = std::max(taps, 2 * at.half + 2);
  }
  check(bins_u <= lartpc::max_bins && bins_v <= lartpc::max_bins, "simulate: a node covers ", std::max(bins_u, bins_v),
        " bins, more than ", lartpc::max_bins, ": is its diffusion right?");
  check(taps <= lartpc::max_taps, "simulate: a node arrives over ", taps, " ticks, more than ", lartpc::max_taps,
        ": is its diffusion right?");
}

void Scene::find_windows(const hepops_simulator& s, const Piece* pieces, int64_t count) {
  order.resize(N);
  std::iota(order.begin(), order.end(), int64_t(0));
  windows.resize(0);
  several = false;
  const double apart = double(s.config.length) + apart_beyond_response;
  for (int64_t k = 0, end; k < count; k = end) {
    for (end = k + 1; end < count && pieces[end].event == pieces[k].event && pieces[end].tpc == pieces[k].tpc;) ++end;
    find_window(pieces, first_node[k], first_node[end], s.config.tick, apart);
  }
}

// The windows of the nodes [begin, end), which are those of one event and TPC.
void Scene::find_window(const Piece* pieces, int64_t begin, int64_t end, double tick, double apart) {
  const double* time = fields.data() + lartpc::time * N;
  const auto add = [&](int64_t first, int64_t last) {
    double t0 = pieces[piece_of[order[first]]].t0;
    for (int64_t j = first; j < last; ++j) t0 = std::min(t0, pieces[piece_of[order[j]]].t0);
    const Piece& p = pieces[piece_of[begin]];
    const int64_t n = windows.size();
    windows.grow(n + 1, n)[n] = {p.event, p.tpc, first, last, t0};
  };
  const auto [least, most] = std::minmax_element(time + begin, time + end);
  if (!(*most / tick - *least / tick > apart)) return add(begin, end);
  std::sort(order.data() + begin, order.data() + end, [&](int64_t a, int64_t b) { return time[a] < time[b]; });
  int64_t first = begin;
  for (int64_t j = begin + 1; j <= end; ++j) {
    if (j < end && !(time[order[j]] / tick - time[order[j - 1]] / tick > apart)) continue;
    std::sort(order.data() + first, order.data() + j);  // a pixel sums its nodes in their own order
    several |= first > begin;
    add(first, j);
    first = j;
  }
}

// f(slot, u, v) for the pixels of the plane around a node
template <class F>
void Scene::for_slots(int64_t i, const hepops_tpc& tpc, const F& f) const {
  const int side = plane.side();
  const int64_t cu = lartpc::pixel_under(nodes(lartpc::u, i), plane) - plane.reach;
  const int64_t cv = lartpc::pixel_under(nodes(lartpc::v, i), plane) - plane.reach;
  for (int a = 0; a < side; ++a)
    for (int b = 0; b < side; ++b)
      if (cu + a >= 0 && cu + a < tpc.nx && cv + b >= 0 && cv + b < tpc.ny) f(a * side + b, cu + a, cv + b);
}

void Scene::find_rows(const hepops_simulator& s) {
  rows = 0;
  const int64_t most = N * plane.side() * plane.side();
  pair.resize(most);
  pair_offset.resize(1)[0] = 0;
  for (int64_t w = 0; w < windows.size(); ++w) rows_of(windows[w], w, s.tpcs[size_t(windows[w].tpc)]);
  offset.resize(rows + 1);
  offset[0] = 0;
  first_tick.resize(rows);
  const int64_t square = plane.side() * plane.side();
  for (int64_t r = 0; r < rows; ++r) {
    int64_t first = places[pair[pair_offset[r]] / square].first, last = first;
    for (int64_t j = pair_offset[r]; j < pair_offset[r + 1]; ++j) {
      const lartpc::Place& at = places[pair[j] / square];
      first = std::min(first, at.first);
      last = std::max(last, at.last);
    }
    first_tick[r] = first;
    offset[r + 1] = offset[r] + last - first;
  }
  total = offset[rows];
}

// The pixels that see a window's nodes, by (v, u), and for each its nodes in order: counted on the box around them.
void Scene::rows_of(const Window& window, int64_t number, const hepops_tpc& tpc) {
  int64_t low_u = tpc.nx, high_u = -1, low_v = tpc.ny, high_v = -1;
  for (int64_t j = window.begin; j < window.end; ++j)
    for_slots(order[j], tpc, [&](int, int64_t u, int64_t v) {
      low_u = std::min(low_u, u), high_u = std::max(high_u, u);
      low_v = std::min(low_v, v), high_v = std::max(high_v, v);
    });
  if (high_u < 0) return;
  const int64_t width = high_u - low_u + 1, cells = width * (high_v - low_v + 1);
  grid_.resize(cells);
  grid_.fill(0);
  const auto cell = [&](int64_t u, int64_t v) -> int64_t& { return grid_[(v - low_v) * width + u - low_u]; };
  for (int64_t j = window.begin; j < window.end; ++j)
    for_slots(order[j], tpc, [&](int, int64_t u, int64_t v) { ++cell(u, v); });
  int64_t at = pair_offset[rows];
  for (int64_t c = 0; c < cells; ++c) {
    if (grid_[c] == 0) continue;
    row_window.grow(rows + 1, rows)[rows] = number;
    row_u.grow(rows + 1, rows)[rows] = low_u + c % width;
    row_v.grow(rows + 1, rows)[rows] = low_v + c / width;
    const int64_t next = at + grid_[c];
    grid_[c] = at;
    at = next;
    ++rows;
    pair_offset.grow(rows + 1, rows)[rows] = at;
  }
  const int64_t square = plane.side() * plane.side();
  for (int64_t j = window.begin; j < window.end; ++j)
    for_slots(order[j], tpc, [&](int slot, int64_t u, int64_t v) { pair[cell(u, v)++] = order[j] * square + slot; });
}

namespace {

// The share of a node's charge within n bins from 0 along one axis, as lartpc::share_bins makes it.
double share_within(const lartpc::Nodes& nodes, int64_t i, lartpc::Field centre, lartpc::Field width, double bin,
                    int64_t first, int64_t bins, int64_t n) {
  const auto below = [&](int64_t b) {
    if (b <= first) return 0.0;
    if (b >= first + bins) return 1.0;
    return lartpc::share_below(double(b) * bin - nodes(centre, i), nodes(lartpc::sigma, i), nodes(width, i)).value;
  };
  return below(n) - below(0);
}

}  // namespace

Collected collect(const hepops_simulator& s, const Scene& scene, const Piece* pieces, int64_t first, int64_t last) {
  Collected sum{0, 0};
  const lartpc::Plane& plane = scene.plane;
  for (int64_t i = first; i < last; ++i) {
    const hepops_tpc& tpc = s.tpcs[size_t(pieces[scene.piece_of[i]].tpc)];
    const lartpc::Place& at = scene.places[i];
    const int64_t nu = tpc.nx * plane.bins, nv = tpc.ny * plane.bins;
    const double charge = scene.nodes(lartpc::charge, i);
    sum.arriving += charge;
    if (at.bin_u >= 0 && at.bin_u + at.bins_u <= nu && at.bin_v >= 0 && at.bin_v + at.bins_v <= nv) continue;
    const double along_u =
        share_within(scene.nodes, i, lartpc::u, lartpc::width_u, plane.bin(), at.bin_u, at.bins_u, nu);
    const double along_v =
        share_within(scene.nodes, i, lartpc::v, lartpc::width_v, plane.bin(), at.bin_v, at.bins_v, nv);
    sum.lost += charge * (1 - along_u * along_v);
  }
  return sum;
}

}  // namespace hepops::sdk
