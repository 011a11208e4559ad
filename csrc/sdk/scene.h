#pragma once
// The nodes of some whole events, and the rows of ticks that their pixels see: who reaches whom, and when. Integers but
// for the nodes themselves; what hepops.lartpc.waveforms.plan lays out with torch's sorts.
#include "sdk/simulator.h"

namespace hepops::sdk {

// Deposits of one event and TPC that share rows: those that lie further apart in time have rows of their own.
struct Window {
  int64_t event, tpc;
  int64_t begin, end;  // in Scene::order
  double t0;           // of its earliest deposit [us]
};

struct Scene {
  explicit Scene(Resource& memory);

  // pieces sorted by (event, tpc)
  void set(const hepops_simulator& simulator, const Piece* pieces, int64_t count, const Parallel& parallel);

  lartpc::Plane plane{};
  lartpc::Nodes nodes{};
  int64_t N = 0, rows = 0, total = 0, bins_u = 1, bins_v = 1, taps = 2;
  bool several = false;  // whether a pixel may have rows in more than one window

  Array<double> deposits, fields;
  Array<int64_t> first_node;  // of each piece
  Array<int64_t> piece_of;    // of each node
  Array<lartpc::Place> places;
  Array<int64_t> order;  // nodes by window
  Array<Window> windows;
  Array<int64_t> row_window, row_u, row_v;  // (rows)
  Array<int64_t> pair_offset, pair;         // (rows + 1), node * side^2 + slot
  Array<int64_t> first_tick, offset;        // (rows), (rows + 1)

 private:
  void place_nodes(const hepops_simulator& simulator, const Parallel& parallel);
  void find_windows(const hepops_simulator& simulator, const Piece* pieces, int64_t count);
  void find_window(const Piece* pieces, int64_t begin, int64_t end, double tick, double apart);
  void find_rows(const hepops_simulator& simulator);
  void rows_of(const Window& window, int64_t number, const hepops_tpc& tpc);
  template <class F>
  void for_slots(int64_t node, const hepops_tpc& tpc, const F& f) const;

  Array<int64_t> grid_, sorted_;
};

// Charge that arrives, and that ends beside the planes, event by event (sums in the order of the nodes).
struct Collected {
  double arriving, lost;
};
Collected collect(const hepops_simulator& simulator, const Scene& scene, const Piece* pieces, int64_t first_node,
                  int64_t last_node);

}  // namespace hepops::sdk
