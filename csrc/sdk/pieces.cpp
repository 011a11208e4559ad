// From segments to nodes, and from pixels to positions: what the Python package does with torch's elementwise
// operators. Compiled without contraction of products and sums, so that every number is theirs to the last bit.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "sdk/simulator.h"

namespace hepops::sdk {
namespace {

struct Slabs {
  double enter, leave;  // in units of the segment
  bool kept, point;
};

Slabs through(const double* start, const double* along, const Box& box, double inside_before) {
  double enter = 0, leave = 1;
  bool flat[3], within = true, point = true;
  for (int k = 0; k < 3; ++k) {
    flat[k] = along[k] == 0;
    point &= flat[k];
    const bool held = start[k] >= box.low[k] && start[k] < box.high[k];  // half-open
    within &= !flat[k] || held;
    if (flat[k]) continue;
    const double a = (box.low[k] - start[k]) / along[k], b = (box.high[k] - start[k]) / along[k];
    enter = std::max(enter, std::min(a, b));
    leave = std::min(leave, std::max(a, b));
  }
  // A segment in an anode or cathode plane belongs to the first volume that has it.
  bool in_plane = flat[0] && start[0] == box.high[0] && inside_before == 0;
  for (int k = 1; k < 3; ++k) in_plane &= !flat[k] || (start[k] >= box.low[k] && start[k] < box.high[k]);
  within |= in_plane;
  return {enter, leave, within && (leave > enter || (point && leave >= enter)), point};
}

}  // namespace

void check_segments(const hepops_segments& s) {
  check(s.count >= 0, "segments: count must not be negative, got ", s.count);
  check(s.count == 0 || (s.event && s.start && s.end && s.dE && s.dEdx && s.t0), "segments: an array is NULL");
  const auto finite = [&](const char* name, const double* x, int64_t i) {
    for (int k = 0; k < 3; ++k)
      check(std::isfinite(x[3 * i + k]), "segments: ", name, " of segment ", i, " is ", x[3 * i + k],
            ", expected finite numbers [cm]");
  };
  for (int64_t i = 0; i < s.count; ++i) {
    check(s.event[i] >= 0, "segments: event of segment ", i, " is ", s.event[i], ", expected a number >= 0");
    finite("start", s.start, i);
    finite("end", s.end, i);
    check(std::isfinite(s.dE[i]) && s.dE[i] >= 0, "segments: dE of segment ", i, " is ", s.dE[i],
          ", expected a finite number >= 0 [MeV]");
    check(std::isfinite(s.dEdx[i]) && (s.dEdx[i] > 0 || !(s.dE[i] > 0)), "segments: dEdx of segment ", i, " is ",
          s.dEdx[i], ", expected a finite number > 0 [MeV/cm]");
    check(std::abs(s.t0[i]) < 1e14, "segments: t0 of segment ", i, " is ", s.t0[i],
          ", expected a finite number below 1e14 [us]");
  }
}

// Where two volumes overlap, the earlier one has the space: the later one is cut along the axis of which it loses
// least.
Vector<Box> boxes_of(const Vector<hepops_tpc>& tpcs, std::pmr::memory_resource& memory) {
  Vector<Box> boxes(&memory);
  for (const hepops_tpc& tpc : tpcs) {
    Box box{{std::min(tpc.anode, tpc.cathode), tpc.y[0], tpc.z[0]},
            {std::max(tpc.anode, tpc.cathode), tpc.y[1], tpc.z[1]}};
    for (const Box& before : boxes) {
      double overlap[3], share[3];
      for (int k = 0; k < 3; ++k) {
        overlap[k] = std::min(box.high[k], before.high[k]) - std::max(box.low[k], before.low[k]);
        share[k] = overlap[k] / (box.high[k] - box.low[k]);
      }
      if (*std::min_element(overlap, overlap + 3) < 1e-4) continue;  // less than a micrometre is rounding
      const int k = int(std::min_element(share, share + 3) - share);
      if (before.low[k] <= box.low[k] && before.high[k] < box.high[k])
        box.low[k] = before.high[k];
      else if (before.low[k] > box.low[k] && before.high[k] >= box.high[k])
        box.high[k] = before.low[k];
      else
        refuse("tpcs: one drift volume lies within another along ", "xyz"[k], ": whose is the charge?");
    }
    boxes.push_back(box);
  }
  return boxes;
}

Outside cut(const hepops_simulator& simulator, const hepops_segments& s, Resource& memory, Array<Piece>& pieces) {
  Array<double> inside(memory, s.count);
  inside.fill(0);
  Array<Piece> found(memory);
  int64_t n = 0;
  for (size_t t = 0; t < simulator.tpcs.size(); ++t) {
    const hepops_tpc& tpc = simulator.tpcs[t];
    const double origin[3] = {tpc.anode, tpc.y[0], tpc.z[0]};
    const double sign[3] = {tpc.cathode > tpc.anode ? 1.0 : -1.0, 1.0, 1.0};
    for (int64_t i = 0; i < s.count; ++i) {
      const double *start = s.start + 3 * i, *end = s.end + 3 * i;
      const double along[3] = {end[0] - start[0], end[1] - start[1], end[2] - start[2]};
      const Slabs slabs = through(start, along, simulator.boxes[t], inside[i]);
      if (!slabs.kept) continue;
      const double share = slabs.point ? 1.0 : slabs.leave - slabs.enter;
      inside[i] += share;
      Piece piece{i, s.event[i], int64_t(t), {}, {}, s.dE[i] * share, s.dEdx[i], s.t0[i]};
      for (int k = 0; k < 3; ++k) {  // (x, y, z) -> (u, v, depth)
        piece.start[2 - k] = (start[k] + slabs.enter * along[k] - origin[k]) * sign[k];
        piece.end[2 - k] = (start[k] + slabs.leave * along[k] - origin[k]) * sign[k];
      }
      found.grow(n + 1, n)[n] = piece;
      ++n;
    }
  }
  Outside outside;
  for (int64_t i = 0; i < s.count; ++i) {
    const double lost = std::max(1 - inside[i], 0.0);
    outside.segments += inside[i] == 0;
    if (lost > 1e-9) outside.energy += s.dE[i] * lost;
  }
  Array<int64_t> order(memory, n);
  std::iota(order.begin(), order.end(), int64_t(0));
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const Piece &p = found[a], &q = found[b];
    if (p.event != q.event) return p.event < q.event;
    if (p.tpc != q.tpc) return p.tpc < q.tpc;
    return p.segment < q.segment;
  });
  pieces.resize(n);
  for (int64_t i = 0; i < n; ++i) pieces[i] = found[order[i]];
  return outside;
}

int64_t count_nodes(const Piece& p, double step) {
  double square = 0;
  for (int k = 0; k < 3; ++k) square += (p.end[k] - p.start[k]) * (p.end[k] - p.start[k]);
  return std::max<int64_t>(1, int64_t(std::ceil(std::sqrt(square) / step * (1 - 1e-6))));
}

void divide(const Piece* pieces, const int64_t* first_node, int64_t count, const NodeTable& to) {
  using D = lartpc::DepositField;
  const auto deposit = [&](int field, int64_t i) -> double& { return to.deposits[field * to.n + i]; };
  const auto node = [&](int field, int64_t i) -> double& { return to.fields[field * to.n + i]; };
  for (int64_t k = 0; k < count; ++k) {
    const Piece& p = pieces[k];
    const int64_t begin = first_node[k], nodes = first_node[k + 1] - begin;
    const double n = double(nodes);
    const double along[3] = {p.end[0] - p.start[0], p.end[1] - p.start[1], p.end[2] - p.start[2]};
    const double square = along[0] * along[0] + along[1] * along[1] + along[2] * along[2];
    const double cos2 = square > 0 ? along[2] * along[2] / square : 0.0;
    for (int64_t j = 0; j < nodes; ++j) {
      const int64_t i = begin + j;
      const double middle = (double(j) + 0.5) / n;
      deposit(D::dE, i) = p.dE / n;
      deposit(D::dEdx, i) = p.dEdx;
      deposit(D::cos2, i) = cos2;
      deposit(D::depth, i) = node(lartpc::depth, i) = p.start[2] + middle * along[2];
      deposit(D::width, i) = std::abs(along[2]) / n;
      deposit(D::t0, i) = p.t0;
      node(lartpc::u, i) = p.start[0] + middle * along[0];
      node(lartpc::v, i) = p.start[1] + middle * along[1];
      node(lartpc::width_u, i) = std::abs(along[0]) / n;
      node(lartpc::width_v, i) = std::abs(along[1]) / n;
    }
  }
}

HitPlace place_of_pixel(const hepops_simulator& simulator, int64_t t, int64_t ix, int64_t iy) {
  const hepops_tpc& tpc = simulator.tpcs[size_t(t)];
  const double pitch = simulator.config.pixel_pitch;
  return {tpc.y[0] + (double(iy) + 0.5) * pitch, tpc.z[0] + (double(ix) + 0.5) * pitch, tpc.anode,
          tpc.cathode > tpc.anode ? 1.0 : -1.0};
}

double drift_position(const HitPlace& place, double velocity, double time, double t0) {
  const double distance = velocity * (time - t0);
  return place.anode + distance * place.direction;
}

namespace {

// min(round(max(q gain + V_ped - V_cm, 0) counts / (V_ref - V_cm)), counts - 1), in the type of the charge
template <class T>
double digitise(const hepops_frontend& chip, T charge, bool rounded) {
  const double codes = double(int64_t(1) << chip.adc_bits);
  const T voltage = charge * T(chip.gain) + T(chip.v_ped) - T(chip.v_cm);
  T counts = std::max(voltage, T(0)) * T(codes / (chip.v_ref - chip.v_cm));
  if (rounded) counts = std::nearbyint(counts);
  return double(std::min(counts, T(codes - 1)));
}

}  // namespace

double adc(const hepops_frontend& chip, double charge, bool single, bool rounded) {
  return single ? digitise(chip, float(charge), rounded) : digitise(chip, charge, rounded);
}

}  // namespace hepops::sdk
