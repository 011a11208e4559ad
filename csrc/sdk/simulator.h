#pragma once
// A simulator as it is kept: geometry, constants and the pads' response, all decided when it is made.
#include <vector>

#include "lartpc/arrive.h"
#include "lartpc/frontend.h"
#include "lartpc/waveforms.h"
#include "sdk/context.h"

namespace hepops::sdk {

template <class T>
using Vector = std::vector<T, std::pmr::polymorphic_allocator<T>>;

struct Box {
  double low[3], high[3];  // x y z
};

// The tables of lartpc/waveforms.h, as hepops.lartpc.response.Response has them; slopes are not needed here.
template <class T>
struct Tables {
  Vector<T> r, lead, potential;
  int B = 0, length = 0, stride = 0, points = 2;
  int bins = 10;
  lartpc::Lead mode = lartpc::point;
  double dz = 1;

  explicit Tables(std::pmr::memory_resource& m) : r(&m), lead(&m), potential(&m) {}
  lartpc::Response<T> view() const {
    return {r.data(), r.data(), lead.data(), lead.data(), potential.data(), B, length, stride, points, mode, dz};
  }
};

// Where a part of a segment lies in its drift volume: u along z, v along y, depth from the anode.
struct Piece {
  int64_t segment, event, tpc;
  double start[3], end[3];
  double dE, dEdx, t0;
};

struct Outside {
  int64_t segments = 0;
  double energy = 0;
};

}  // namespace hepops::sdk

struct hepops_simulator {
  hepops::sdk::Resource resource;
  hepops_simulator_config config;  // its pointers are to the copies below
  hepops::sdk::Vector<hepops_tpc> tpcs;
  hepops::sdk::Vector<hepops::sdk::Box> boxes;
  hepops::sdk::Vector<int64_t> first_pixel;
  hepops::sdk::Vector<double> thresholds;
  double velocity = 0;  // [cm/us]
  hepops::lartpc::larpix::Chip chip{};
  hepops::sdk::Tables<float> single;
  hepops::sdk::Tables<double> wide;

  hepops_simulator(const hepops_execution& execution, const hepops_simulator_config& given,
                   const hepops::sdk::Parallel& parallel);

  template <class T>
  const hepops::sdk::Tables<T>& tables() const {
    if constexpr (sizeof(T) == 4)
      return single;
    else
      return wide;
  }
};

namespace hepops::sdk {

// Segments cut at the borders of the drift volumes, sorted by (event, tpc, segment); what hepops.lartpc.pieces.cut
// does.
Outside cut(const hepops_simulator& simulator, const hepops_segments& segments, Resource& memory, Array<Piece>& pieces);

// How many nodes no longer than the step a piece is divided into.
int64_t count_nodes(const Piece& piece, double step);

// Nodes of some pieces: rows for `arrive` (DepositField, N), and charge ... depth (lartpc::Field, N), of which the
// positions and the extents across the drift are written.
struct NodeTable {
  double *deposits, *fields;
  int64_t n;
};
void divide(const Piece* pieces, const int64_t* first_node, int64_t count, const NodeTable& to);

// Refuses segments that have no meaning, by name.
void check_segments(const hepops_segments& segments);

Vector<Box> boxes_of(const Vector<hepops_tpc>& tpcs, std::pmr::memory_resource& memory);

template <class T>
void make_tables(const hepops_simulator& simulator, Tables<T>& tables, const Parallel& parallel);

// What hits are written as.
struct HitPlace {
  double y, z;
  double anode, direction;
};
HitPlace place_of_pixel(const hepops_simulator& simulator, int64_t tpc, int64_t ix, int64_t iy);
double drift_position(const HitPlace& place, double velocity, double time, double t0);
double adc(const hepops_frontend& chip, double charge, bool single, bool rounded);

}  // namespace hepops::sdk
