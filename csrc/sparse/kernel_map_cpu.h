#pragma once
// Kernel maps of three axes on the host, by blocks of 4^3 cells: the tuned form of `probe` in kernel_map.h, for offsets
// that reach four cells at most.
//
// A block is 64 cells whose keys share all but their lowest six bits, so that it is a run of places, and its occupancy
// one word. Only blocks are looked up (hash table); the cells around a block are then gathered into a small grid, in
// which every question about a neighbour is a bit. A first sweep counts the pairs of each entry, a second one writes
// them where they belong, so that results have their exact size and nothing is sorted. Tiles are independent: any
// number of threads makes the same list.
//
// Measured on one core of a Zen 4 (AVX-512), 3^3 on voxels of tracks with 12.4 neighbours: see
// benchmarks/sparse/bench_kernel_map.py.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "sparse/packing.h"
#include "sparse/pairs.h"
#include "sparse/workspace.h"

namespace hepops::sparse::cpu {

constexpr int max_reach = 4;

// The lowest six bits of a key are x1 y1 z1 x0 y0 z0; a cell is x + 4 y + 16 z.
struct Cell {
  uint8_t x, y, z;
};

constexpr std::array<Cell, 64> make_cells() {
  std::array<Cell, 64> cells{};
  for (int c = 0; c < 64; ++c)
    cells[c] = {uint8_t((c >> 4 & 2) | (c >> 2 & 1)), uint8_t((c >> 3 & 2) | (c >> 1 & 1)),
                uint8_t((c >> 2 & 2) | (c & 1))};
  return cells;
}
constexpr std::array<Cell, 64> cell_of = make_cells();

// Offsets in cells, distinct, none beyond the reach: how each is found.
struct Stencil {
  int64_t volume;
  std::vector<std::array<int, 3>> offsets;  // (K), in cells; {99, 0, 0} where it leads between the cells
  int reach;
};

constexpr uint64_t nowhere = ~uint64_t(0);  // the key of no block

struct Block {
  uint64_t places;  // occupancy, in the order of places
  int64_t first;    // place
};

struct Blocks {
  int64_t count;
  const uint64_t*
      keys;  // (count + 1), ascending, as those of cells without their lowest six bits, behind them `nowhere`
  const Block* blocks;    // (count + 1), behind the last one an empty one
  const uint64_t* cells;  // (count + 1), occupancy, bit x + 4 y + 16 z
};

inline Blocks make_blocks(const uint64_t* keys, int64_t n, Workspace& workspace) {
  uint64_t* const block = workspace.get<uint64_t>(n + 1);
  Block* const blocks = workspace.get<Block>(n + 1);
  uint64_t* const cells = workspace.get<uint64_t>(n + 1);
  int64_t count = 0;
  for (int64_t i = 0; i < n;) {
    const uint64_t key = keys[i] >> 6;
    uint64_t by_cell = 0, by_place = 0;
    block[count] = key;
    const int64_t first = i;
    for (; i < n && keys[i] >> 6 == key; ++i) {
      const Cell c = cell_of[keys[i] & 63];
      by_cell |= uint64_t(1) << (c.x + 4 * c.y + 16 * c.z);
      by_place |= uint64_t(1) << (keys[i] & 63);
    }
    cells[count] = by_cell;
    blocks[count++] = {by_place, first};
  }
  block[count] = nowhere;
  cells[count] = 0;
  blocks[count] = {0, n};
  return {count, block, blocks, cells};
}

// Blocks by their keys: open addresses with linear probing, a quarter of the slots in use at most. Neither a block that
// is there nor one that is not costs a branch that is hard to foretell: both end the search at its first slot, mostly.
class BlockTable {
 public:
  BlockTable(const Blocks& blocks, Workspace& workspace)
      : keys_(blocks.keys),
        count_(uint32_t(blocks.count)),
        bits_(std::max<int>(4, std::bit_width(4 * uint64_t(count_)))) {
    slots_ = workspace.get<uint32_t>(int64_t(1) << bits_);
    std::fill_n(slots_, int64_t(1) << bits_, count_);
    for (uint32_t b = 0; b < count_; ++b) {
      uint64_t slot = first_slot(keys_[b]);
      while (slots_[slot] != count_) slot = next(slot);
      slots_[slot] = b;
    }
  }
  // The block of a key, or the empty one behind the last.
  uint32_t find(uint64_t key) const {
    uint64_t slot = first_slot(key);
    uint32_t block = slots_[slot];
    while (!(int(block == count_) | int(keys_[block] == key))) {
      slot = next(slot);
      block = slots_[slot];
    }
    return block;
  }

 private:
  uint64_t first_slot(uint64_t key) const { return key * 0x9E3779B97F4A7C15u >> (64 - bits_); }
  uint64_t next(uint64_t slot) const { return (slot + 1) & ((uint64_t(1) << bits_) - 1); }

  const uint64_t* keys_;
  uint32_t count_;
  int bits_;
  uint32_t* slots_;
};

// Directions are (dx + 1) + 3 (dy + 1) + 9 (dz + 1), so that the opposite of d is 26 - d.
constexpr int own = 13;

// The neighbours of target blocks among source blocks.
struct Neighbours {
  const uint32_t* block;    // (count, 27), that of the empty block where there is none
  const uint32_t* present;  // (count), the directions that there are
};

inline Neighbours neighbours(const Packing& packing, const Blocks& target, const Blocks& source, Workspace& workspace) {
  const BlockTable table(source, workspace);
  const bool same = target.keys == source.keys;
  uint32_t* const all =
      workspace.get<uint32_t>(27 * (target.count + 1));  // the empty block has a row, which none reads
  uint32_t* const present = workspace.get<uint32_t>(target.count + 1);
  std::fill_n(all, 27 * target.count, uint32_t(source.count));
  std::fill_n(present, target.count, 0);
  uint64_t mask[3];
  for (int a = 0; a < 3; ++a) mask[a] = packing.field[1 + a].mask[0] >> 6;
  const uint64_t batch = ~(mask[0] | mask[1] | mask[2]);
  for (int64_t b = 0; b < target.count; ++b) {
    const uint64_t key = target.keys[b];
    uint64_t part[3][3], inside[3][3];  // of each axis: one block down, here, one up
    for (int a = 0; a < 3; ++a) {
      const uint64_t here = key & mask[a];
      part[a][0] = (here - 1) & mask[a], inside[a][0] = here != 0;
      part[a][1] = here, inside[a][1] = 1;
      part[a][2] = ((here | ~mask[a]) + 1) & mask[a], inside[a][2] = here != mask[a];
    }
    const auto look = [&](int d) {
      const int x = d % 3, y = d / 3 % 3, z = d / 9;
      const uint64_t outside = (inside[0][x] & inside[1][y] & inside[2][z]) - 1;  // all ones, or none
      return table.find((key & batch) | part[0][x] | part[1][y] | part[2][z] | outside);
    };
    uint32_t* const mine = all + 27 * b;
    uint32_t here = 0;
    if (same) {
#pragma GCC unroll 13
      for (int d = 0; d < own; ++d) {  // the other half by mirror
        const uint32_t found = look(d);
        mine[d] = found;
        here |= uint32_t(found != source.count) << d;
        all[27 * int64_t(found) + 26 - d] = uint32_t(b);
        present[found] |= 1u << (26 - d);
      }
      mine[own] = uint32_t(b);
      present[b] |= here | 1u << own;
    } else {
      for (int d = 0; d < 27; ++d) {
        mine[d] = look(d);
        here |= uint32_t(mine[d] != source.count) << d;
      }
      present[b] = here;
    }
  }
  return {all, present};
}

// Where the pairs of each (tile, column) begin, from their counts; entries and tiles are written.
// A column is a slot of the counts; `column[k]` is that of offset k, -1 where it has none.
template <class I>
struct Layout {
  int64_t num_tiles, columns, volume;
  const int* column;  // (volume)
  int64_t* counts;    // (num_tiles, columns), then first pairs

  int64_t num_pairs = 0, num_entries = 0;
  void total() {
    for (int64_t j = 0; j < num_tiles * columns; ++j) num_pairs += counts[j], num_entries += counts[j] > 0;
  }
  void write(Entry<I>* entries, I* tiles) const {
    int64_t pair = 0, entry = 0;
    for (int64_t t = 0; t < num_tiles; ++t) {
      tiles[t] = I(entry);
      for (int64_t k = 0; k < volume; ++k) {
        if (column[k] < 0) continue;
        int64_t& count = counts[t * columns + column[k]];
        if (count > 0) entries[entry++] = {I(pair), I(k)};
        pair += std::exchange(count, pair);
      }
    }
    tiles[num_tiles] = I(entry);
    entries[entry] = {I(pair), I(-1)};
  }
};

// f(block, first place, last place) for the blocks that a tile meets.
template <class F>
void for_blocks_of_tile(const Blocks& blocks, int64_t first, int64_t last, const F& f) {
  const auto after = [](int64_t place, const Block& block) { return place < block.first; };
  int64_t b = std::upper_bound(blocks.blocks, blocks.blocks + blocks.count, first, after) - blocks.blocks - 1;
  for (; b < blocks.count && blocks.blocks[b].first < last; ++b)
    f(b, std::max(first, blocks.blocks[b].first), std::min(last, blocks.blocks[b + 1].first));
}

// --- offsets of one cell: 27 neighbours, the bits of a word ----------------------------------------------------------

// The cells of a block and of its shell: bit x + 8 y of plane z, its own cells from 1 to 4.
struct Planes {
  uint64_t plane[6];
};

template <int D>
[[gnu::always_inline]] inline void add_planes(uint64_t cells, Planes& to) {
  constexpr int dx = D % 3 - 1, dy = D / 3 % 3 - 1, dz = D / 9 - 1;
  for (int z = 0; z < 4; ++z) {
    if ((dz < 0 && z != 3) || (dz > 0 && z != 0)) continue;
    uint64_t rows = cells >> 16 * z & 0xffff;  // a row of four bits becomes a byte
    rows = (rows | rows << 8) & 0x00ff00ff;
    rows = (rows | rows << 4) & 0x0f0f0f0f;
    rows = dy < 0 ? rows >> 24 : dy > 0 ? (rows & 0x0f) << 40 : rows << 8;
    rows = dx < 0 ? rows >> 3 & 0x0101010101010101 : dx > 0 ? (rows & 0x0101010101010101) << 5 : rows << 1;
    to.plane[dz < 0 ? 0 : dz > 0 ? 5 : z + 1] |= rows;
  }
}

inline Planes planes_of(const Blocks& source, const uint32_t* near) {
  Planes planes{};
  [&]<int... D>(std::integer_sequence<int, D...>) {
    (add_planes<D>(source.cells[near[D]], planes), ...);
  }(std::make_integer_sequence<int, 27>());
  return planes;
}

// Which of the 27 cells around a cell are occupied, in the order of directions.
inline uint32_t around(const Planes& planes, Cell c) {
  const auto nine = [&](int z) {
    const uint64_t rows = planes.plane[z] >> (c.x + 8 * c.y);
    return uint32_t((rows & 7) | (rows >> 5 & 0x38) | (rows >> 10 & 0x1c0));
  };
  return nine(c.z) | nine(c.z + 1) << 9 | nine(c.z + 2) << 18;
}

// A grid around a block: rows of `row` cells, planes of `plane`, the block's own cells from `margin` on every axis; of
// its neighbours it holds a shell of `reach` cells.
struct Grid {
  std::array<uint64_t, 27> border{};                    // cells that are in it, in the order of places
  std::array<std::array<uint16_t, 64>, 27> position{};  // where each is
  std::array<uint16_t, 64> own{};

  constexpr Grid(int reach, int margin, int row, int plane) {
    const auto near = [&](int d, int x) { return d < 0 ? x >= 4 - reach : d > 0 ? x < reach : true; };
    for (int d = 0; d < 27; ++d)
      for (int c = 0; c < 64; ++c) {
        const int dx = d % 3 - 1, dy = d / 3 % 3 - 1, dz = d / 9 - 1;
        const auto [x, y, z] = cell_of[c];
        if (!near(dx, x) || !near(dy, y) || !near(dz, z)) continue;
        border[d] |= uint64_t(1) << c;
        position[d][c] = uint16_t(x + 4 * dx + margin + row * (y + 4 * dy + margin) + plane * (z + 4 * dz + margin));
      }
    own = position[13];
  }

  // f(position, row) for every occupied cell in the grid of block b.
  template <class J, class F>
  void for_each_cell(const Blocks& source, const Neighbours& near, int64_t b, const J* schedule, const F& f) const {
    for (uint32_t directions = near.present[b]; directions; directions &= directions - 1) {
      const int d = std::countr_zero(directions);
      const Block block = source.blocks[near.block[27 * b + d]];
      const J* const rows = schedule + block.first;
      const uint16_t* const at = position[d].data();
      for (uint64_t left = block.places & border[d]; left; left &= left - 1) {
        const int c = std::countr_zero(left);
        f(at[c], rows[std::popcount(block.places & ((uint64_t(1) << c) - 1))]);
      }
    }
  }
};

// Places are those of the target, keys in the frame of `packing` for both; allocate(num_pairs, num_entries) gives the
// arrays {pairs, entries, tiles}, or none where I does not hold the number of pairs: then the answer is false.
template <class I, class Parallel, class Allocate>
bool pairs_around(const Packing& packing, const uint64_t* target_keys, int64_t num_targets, const uint64_t* source_keys,
                  int64_t num_sources, const I* schedule, const Stencil& stencil, const Parallel& parallel,
                  const Allocate& allocate) {
  constexpr int64_t tile = tile_on_cpu;
  Workspace workspace;
  const Blocks source = make_blocks(source_keys, num_sources, workspace);
  const Blocks target = target_keys == source_keys ? source : make_blocks(target_keys, num_targets, workspace);
  const Neighbours near = neighbours(packing, target, source, workspace);
  const int64_t num_tiles = (num_targets + tile - 1) / tile;

  uint32_t wanted = 0;
  std::vector<int> column(stencil.volume, -1);
  for (int64_t k = 0; k < stencil.volume; ++k) {
    const auto& [x, y, z] = stencil.offsets[k];
    if (x > 1) continue;
    column[k] = (x + 1) + 3 * (y + 1) + 9 * (z + 1);
    wanted |= uint32_t(1) << column[k];
  }

  uint32_t* const found = workspace.get<uint32_t>(num_targets);
  int64_t* const counts = workspace.get<int64_t>(27 * num_tiles);
  parallel(num_tiles, 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = t * tile, last = std::min((t + 1) * tile, num_targets);
      for_blocks_of_tile(target, first, last, [&](int64_t b, int64_t from, int64_t to) {
        const Planes planes = planes_of(source, near.block + 27 * b);
        for (int64_t i = from; i < to; ++i) found[i] = around(planes, cell_of[target_keys[i] & 63]) & wanted;
      });
      for (int k = 0; k < 27; ++k) {
        uint32_t count = 0;
        for (int64_t i = first; i < last; ++i) count += found[i] >> k & 1;
        counts[27 * t + k] = count;
      }
    }
  });

  Layout<I> layout{num_tiles, 27, stencil.volume, column.data(), counts};
  layout.total();
  const auto [pairs, entries, tiles] = allocate(layout.num_pairs, layout.num_entries);
  if (!tiles) return false;
  layout.write(entries, tiles);

  static constexpr Grid grid(1, 1, 8, 64);
  int64_t delta[27];
  for (int d = 0; d < 27; ++d) delta[d] = (d % 3 - 1) + 8 * (d / 3 % 3 - 1) + 64 * (d / 9 - 1);
  parallel(num_tiles, 8, [&, pairs = pairs](int64_t begin, int64_t end) {
    I rows[6 * 64];
    for (int64_t t = begin; t < end; ++t) {
      Pair<I>* next[27];
      for (int k = 0; k < 27; ++k) next[k] = pairs + counts[27 * t + k];
      const int64_t first = t * tile, last = std::min((t + 1) * tile, num_targets);
      for_blocks_of_tile(target, first, last, [&](int64_t b, int64_t from, int64_t to) {
        grid.for_each_cell(source, near, b, schedule, [&](int position, I row) { rows[position] = row; });
        for (int64_t i = from; i < to; ++i) {
          const I* const here = rows + grid.own[target_keys[i] & 63];
          for (uint32_t left = found[i]; left; left &= left - 1) {
            const int k = std::countr_zero(left);
            *next[k]++ = {here[delta[k]], I(i)};
          }
        }
      });
    }
  });
  return true;
}

// --- offsets of up to four cells: a grid of 12^3 cells ---------------------------------------------------------------

constexpr int margin = max_reach, lines = 4 + 2 * margin;  // rows of 16 cells, planes of 12 rows

// Offsets that differ in x alone: bits of a row, dx + margin.
struct StencilRow {
  int at;         // row from the cell's own, in the grid
  uint32_t bits;  // wanted
  int k[2 * max_reach + 1];
};

inline std::vector<StencilRow> stencil_rows(const Stencil& stencil) {
  std::vector<StencilRow> rows;
  for (int dz = -margin; dz <= margin; ++dz)
    for (int dy = -margin; dy <= margin; ++dy) {
      StencilRow row{dy + lines * dz, 0, {}};
      for (int64_t k = 0; k < stencil.volume; ++k) {
        const auto& [x, y, z] = stencil.offsets[k];
        if (x > max_reach || y != dy || z != dz) continue;
        row.bits |= uint32_t(1) << (x + margin);
        row.k[x + margin] = int(k);
      }
      if (row.bits) rows.push_back(row);
    }
  return rows;
}

template <class I, class Parallel, class Allocate>
bool pairs_within(const Packing& packing, const uint64_t* target_keys, int64_t num_targets, const uint64_t* source_keys,
                  int64_t num_sources, const I* schedule, const Stencil& stencil, const Parallel& parallel,
                  const Allocate& allocate) {
  constexpr int64_t tile = tile_on_cpu;
  Workspace workspace;
  const Blocks source = make_blocks(source_keys, num_sources, workspace);
  const Blocks target = target_keys == source_keys ? source : make_blocks(target_keys, num_targets, workspace);
  const Neighbours near = neighbours(packing, target, source, workspace);
  const int64_t num_tiles = (num_targets + tile - 1) / tile;
  const std::vector<StencilRow> rows = stencil_rows(stencil);
  const Grid grid(stencil.reach, margin, 16, 16 * lines);
  std::vector<int> column(stencil.volume);
  for (int64_t k = 0; k < stencil.volume; ++k) column[k] = int(k);

  // f(t, place, k, row) for every pair; the grid of a block holds who is there, a bit a cell, and their rows.
  const auto sweep = [&](int64_t t, const auto& f) {
    uint16_t there[lines * lines];
    I row_at[lines * lines * 16];
    const int64_t first = t * tile, last = std::min((t + 1) * tile, num_targets);
    for_blocks_of_tile(target, first, last, [&](int64_t b, int64_t from, int64_t to) {
      std::fill_n(there, lines * lines, 0);
      grid.for_each_cell(source, near, b, schedule, [&](int position, I row) {
        there[position / 16] |= uint16_t(1 << position % 16);
        row_at[position] = row;
      });
      for (int64_t i = from; i < to; ++i) {
        const int own_cell = grid.own[target_keys[i] & 63], line = own_cell / 16, from_x = own_cell % 16 - margin;
        for (const StencilRow& r : rows) {
          uint32_t left = uint32_t(there[line + r.at] >> from_x) & r.bits;
          for (; left; left &= left - 1) {
            const int x = std::countr_zero(left);
            f(i, r.k[x], row_at[16 * (line + r.at) + from_x + x]);
          }
        }
      }
    });
  };

  int64_t* const counts = workspace.get<int64_t>(stencil.volume * num_tiles);
  std::fill_n(counts, stencil.volume * num_tiles, 0);
  parallel(num_tiles, 4, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      sweep(t, [count = counts + stencil.volume * t](int64_t, int k, I) { ++count[k]; });
  });
  Layout<I> layout{num_tiles, stencil.volume, stencil.volume, column.data(), counts};
  layout.total();
  const auto [pairs, entries, tiles] = allocate(layout.num_pairs, layout.num_entries);
  if (!tiles) return false;
  layout.write(entries, tiles);
  parallel(num_tiles, 4, [&, pairs = pairs](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      sweep(t, [next = counts + stencil.volume * t, pairs](int64_t place, int k, I row) {
        pairs[next[k]++] = {row, I(place)};
      });
  });
  return true;
}

// --- a kernel as wide as its stride: every fine row has one parent ---------------------------------------------------

// Children of a cell are neighbours in the order, and the lowest `low_bits` of a key are their place in it: a merge of
// two ascending lists of keys. `offset` (2^low_bits) is k of each. The list is grouped by parents, which it writes, or,
// where `up`, by children, and reads parents.
template <bool up, class I, class Allocate>
bool pairs_of_children(const uint64_t* children, int64_t num_children, const uint64_t* parents, int64_t num_parents,
                       int low_bits, const uint8_t* offset, int64_t volume, const I* schedule,
                       const Allocate& allocate) {
  constexpr int64_t tile = tile_on_cpu;
  Workspace workspace;
  const uint64_t low = (uint64_t(1) << low_bits) - 1;
  const int64_t num_tiles = ((up ? num_children : num_parents) + tile - 1) / tile;
  I* const parent = workspace.get<I>(num_children);
  int64_t* const counts = workspace.get<int64_t>(num_tiles * volume);
  std::fill_n(counts, num_tiles * volume, 0);
  const auto count_of = [=](int64_t i, I p) -> int64_t& {
    return counts[(up ? i : int64_t(p)) / tile * volume + offset[children[i] & low]];
  };
  // Where the parents are those of these children, and no others, each new key is the next one: nothing is looked for.
  uint64_t strangers = num_children > 0 && num_parents == 0;
  for (int64_t i = 0, p = -1; i < num_children && !strangers; ++i) {
    p += i == 0 || ((children[i] ^ children[i - 1]) >> low_bits) != 0;
    strangers = p < num_parents ? parents[p] ^ children[i] >> low_bits : 1;
    if (strangers) break;
    parent[i] = I(p);
    ++count_of(i, I(p));
  }
  if (strangers) {
    std::fill_n(counts, num_tiles * volume, 0);
    for (int64_t i = 0, p = 0; i < num_children; ++i) {
      const uint64_t key = children[i] >> low_bits;
      while (p < num_parents && parents[p] < key) ++p;
      parent[i] = p < num_parents && parents[p] == key ? I(p) : I(-1);
      if (parent[i] >= 0) ++count_of(i, parent[i]);
    }
  }
  std::vector<int> column(volume);
  for (int64_t k = 0; k < volume; ++k) column[k] = int(k);
  Layout<I> layout{num_tiles, volume, volume, column.data(), counts};
  layout.total();
  const auto [pairs, entries, tiles] = allocate(layout.num_pairs, layout.num_entries);
  if (!tiles) return false;
  layout.write(entries, tiles);
  for (int64_t i = 0; i < num_children; ++i)
    if (const I p = parent[i]; p >= 0)
      pairs[count_of(i, p)++] = up ? Pair<I>{schedule[p], I(i)} : Pair<I>{schedule[i], p};
  return true;
}

}  // namespace hepops::sparse::cpu
