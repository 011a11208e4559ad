#pragma once
// One list of a kernel map: which rows meet under which kernel offset, grouped by tiles of the rows that are written.
//
//   out[schedule[place]] += in[row] W_k      for each entry (tile, k), for each of its pairs (row, place)
//
// A tile is `tile` consecutive places of the target's Morton schedule; entries ascend by (tile, k) and exist only where
// they hold pairs; within one, pairs ascend by place, and a place occurs at most once. So a written row belongs to one
// tile, and its sum runs over ascending k: no two threads meet, and the bits do not depend on their number.
#include <cstdint>

#include "core/host_device.h"

namespace hepops::sparse {

template <class I>
struct Pair {
  I row;    // that is read, in the order of its tensor
  I place;  // that is written, in the schedule of the target
};

template <class I>
struct Entry {
  I first;   // pair
  I offset;  // k
};

template <class I>
struct PairList {
  const Pair<I>* pairs;     // (P)
  const Entry<I>* entries;  // (E + 1), the last one (P, -1)
  const I* tiles;           // (T + 1), first entry of each tile
  const I* schedule;        // (num_rows), the row at each place
  int64_t num_pairs, num_entries, num_tiles, num_rows;
  int64_t tile;  // places in a tile

  HEPOPS_HD int64_t first_place(int64_t t) const { return t * tile; }
  HEPOPS_HD int64_t last_place(int64_t t) const { return (t + 1) * tile < num_rows ? (t + 1) * tile : num_rows; }
};

constexpr int64_t tile_on_cpu =
    256;  // long enough that 3^3 leaves some hundred pairs an entry, short enough for the L2
constexpr int64_t tile_on_gpu = 64;

}  // namespace hepops::sparse
