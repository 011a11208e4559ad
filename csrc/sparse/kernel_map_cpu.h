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

struct Blocks {
  int64_t count;
  const uint64_t* keys;    // of blocks, ascending, as those of cells without their lowest six bits
  const int64_t* first;    // place (count + 1)
  const uint64_t* cells;   // occupancy, bit x + 4 y + 16 z; behind the last block an empty one
  const uint64_t* places;  // occupancy, in the order of places
};

inline Blocks make_blocks(const uint64_t* keys, int64_t n, Workspace& workspace) {
  uint64_t* const block = workspace.get<uint64_t>(n + 1);
  int64_t* const first = workspace.get<int64_t>(n + 1);
  uint64_t* const cells = workspace.get<uint64_t>(n + 1);
  uint64_t* const places = workspace.get<uint64_t>(n + 1);
  int64_t count = 0;
  for (int64_t i = 0; i < n;) {
    const uint64_t key = keys[i] >> 6;
    uint64_t by_cell = 0, by_place = 0;
    block[count] = key;
    first[count] = i;
    for (; i < n && keys[i] >> 6 == key; ++i) {
      const Cell c = cell_of[keys[i] & 63];
      by_cell |= uint64_t(1) << (c.x + 4 * c.y + 16 * c.z);
      by_place |= uint64_t(1) << (keys[i] & 63);
    }
    cells[count] = by_cell;
    places[count++] = by_place;
  }
  first[count] = n;
  cells[count] = places[count] = 0;
  return {count, block, first, cells, places};
}

class BlockTable {
 public:
  BlockTable(const Blocks& blocks, Workspace& workspace) : blocks_(blocks) {
    bits_ = std::max<int>(4, std::bit_width(uint64_t(blocks.count)) + 2);
    slots_ = workspace.get<uint32_t>(int64_t(1) << bits_);
    std::fill_n(slots_, int64_t(1) << bits_, 0);
    for (int64_t b = 0; b < blocks.count; ++b) {
      uint64_t slot = hash(blocks.keys[b]);
      while (slots_[slot]) slot = (slot + 1) & ((uint64_t(1) << bits_) - 1);
      slots_[slot] = uint32_t(b + 1);
    }
  }
  // The block of a key, or the empty one.
  int64_t find(uint64_t key) const {
    for (uint64_t slot = hash(key); slots_[slot]; slot = (slot + 1) & ((uint64_t(1) << bits_) - 1))
      if (blocks_.keys[slots_[slot] - 1] == key) return slots_[slot] - 1;
    return blocks_.count;
  }

 private:
  uint64_t hash(uint64_t key) const { return key * 0x9E3779B97F4A7C15u >> (64 - bits_); }
  const Blocks& blocks_;
  uint32_t* slots_;
  int bits_;
};

// Directions are (dx + 1) + 3 (dy + 1) + 9 (dz + 1), so that the opposite of d is 26 - d.
constexpr int own = 13;

// The neighbours of target blocks among source blocks, (count, 27); blocks.count where there is none.
inline const uint32_t* neighbours(const Packing& packing, const Blocks& target, const Blocks& source,
                                  Workspace& workspace) {
  const BlockTable table(source, workspace);
  uint32_t* const all = workspace.get<uint32_t>(27 * target.count);
  std::fill_n(all, 27 * target.count, uint32_t(source.count));
  uint64_t mask[3];
  for (int a = 0; a < 3; ++a) mask[a] = packing.field[1 + a].mask[0] >> 6;
  const uint64_t batch = ~(mask[0] | mask[1] | mask[2]);
  const bool same = target.keys == source.keys;
  for (int64_t b = 0; b < target.count; ++b) {
    const uint64_t key = target.keys[b];
    uint64_t part[3][3];  // of each axis, one block down, here, one up
    bool inside[3][3];
    for (int a = 0; a < 3; ++a) {
      const uint64_t here = key & mask[a];
      part[a][0] = (here - 1) & mask[a], inside[a][0] = here != 0;
      part[a][1] = here, inside[a][1] = true;
      part[a][2] = ((here | ~mask[a]) + 1) & mask[a], inside[a][2] = here != mask[a];
    }
    uint32_t* const mine = all + 27 * b;
    for (int d = 0; d < (same ? own : 27); ++d) {
      const int x = d % 3, y = d / 3 % 3, z = d / 9;
      if (!(inside[0][x] & inside[1][y] & inside[2][z])) continue;
      const int64_t found = table.find((key & batch) | part[0][x] | part[1][y] | part[2][z]);
      mine[d] = uint32_t(found);
      if (same && found < source.count) all[27 * found + 26 - d] = uint32_t(b);
    }
    if (same) mine[own] = uint32_t(b);
  }
  return all;
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
  int64_t b = std::upper_bound(blocks.first, blocks.first + blocks.count, first) - blocks.first - 1;
  for (; b < blocks.count && blocks.first[b] < last; ++b)
    f(b, std::max(first, blocks.first[b]), std::min(last, blocks.first[b + 1]));
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

// The cells of a block that its neighbour in direction D sees in a shell of `reach` cells, in the order of places.
inline std::array<uint64_t, 27> make_borders(int reach) {
  std::array<uint64_t, 27> borders{};
  const auto near = [&](int d, int x) { return d < 0 ? x >= 4 - reach : d > 0 ? x < reach : true; };
  for (int d = 0; d < 27; ++d)
    for (int c = 0; c < 64; ++c)
      if (near(d % 3 - 1, cell_of[c].x) && near(d / 3 % 3 - 1, cell_of[c].y) && near(d / 9 - 1, cell_of[c].z))
        borders[d] |= uint64_t(1) << c;
  return borders;
}

// f(cell in the grid of the block, row) for every occupied cell of the block's grid.
template <class J, class F>
void for_grid(const Blocks& source, const uint32_t* near, const std::array<uint64_t, 27>& borders, const J* schedule,
              const F& f) {
  for (int d = 0; d < 27; ++d) {
    const uint64_t places = source.places[near[d]];
    const int64_t first = source.first[near[d]];
    const int x = 4 * (d % 3 - 1), y = 4 * (d / 3 % 3 - 1), z = 4 * (d / 9 - 1);
    for (uint64_t left = places & borders[d]; left; left &= left - 1) {
      const int c = std::countr_zero(left);
      const int64_t place = first + std::popcount(places & ((uint64_t(1) << c) - 1));
      f(x + cell_of[c].x, y + cell_of[c].y, z + cell_of[c].z, schedule[place]);
    }
  }
}

// Places are those of the target, keys in the frame of `packing` for both; allocate(num_pairs, num_entries) gives the
// arrays {pairs, entries, tiles}, or none where I does not hold the number of pairs: then the answer is false.
template <class I, class Parallel, class Allocate>
bool pairs_around(const Packing& packing, const uint64_t* target_keys, int64_t num_targets, const uint64_t* source_keys,
                  int64_t num_sources, const I* schedule, const Stencil& stencil, int64_t tile,
                  const Parallel& parallel, const Allocate& allocate) {
  Workspace workspace;
  const Blocks source = make_blocks(source_keys, num_sources, workspace);
  const Blocks target = target_keys == source_keys ? source : make_blocks(target_keys, num_targets, workspace);
  const uint32_t* near = neighbours(packing, target, source, workspace);
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
        const Planes planes = planes_of(source, near + 27 * b);
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

  static const std::array<uint64_t, 27> borders = make_borders(1);
  int delta[27];  // in a grid of rows of 8, planes of 64, whose own cells begin at 1
  for (int d = 0; d < 27; ++d) delta[d] = (d % 3 - 1) + 8 * (d / 3 % 3 - 1) + 64 * (d / 9 - 1);
  parallel(num_tiles, 8, [&, pairs = pairs](int64_t begin, int64_t end) {
    I rows[6 * 64];
    for (int64_t t = begin; t < end; ++t) {
      Pair<I>* next[27];
      for (int k = 0; k < 27; ++k) next[k] = pairs + counts[27 * t + k];
      const int64_t first = t * tile, last = std::min((t + 1) * tile, num_targets);
      for_blocks_of_tile(target, first, last, [&](int64_t b, int64_t from, int64_t to) {
        for_grid(source, near + 27 * b, borders, schedule,
                 [&](int x, int y, int z, I row) { rows[x + 1 + 8 * (y + 1) + 64 * (z + 1)] = row; });
        for (int64_t i = from; i < to; ++i) {
          const Cell c = cell_of[target_keys[i] & 63];
          const I* const here = rows + c.x + 1 + 8 * (c.y + 1) + 64 * (c.z + 1);
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

constexpr int margin = max_reach, grid = 4 + 2 * margin;

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
      StencilRow row{dy + grid * dz, 0, {}};
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
                  int64_t num_sources, const I* schedule, const Stencil& stencil, int64_t tile,
                  const Parallel& parallel, const Allocate& allocate) {
  Workspace workspace;
  const Blocks source = make_blocks(source_keys, num_sources, workspace);
  const Blocks target = target_keys == source_keys ? source : make_blocks(target_keys, num_targets, workspace);
  const uint32_t* near = neighbours(packing, target, source, workspace);
  const int64_t num_tiles = (num_targets + tile - 1) / tile;
  const std::vector<StencilRow> rows = stencil_rows(stencil);
  const std::array<uint64_t, 27> borders = make_borders(stencil.reach);
  std::vector<int> column(stencil.volume);
  for (int64_t k = 0; k < stencil.volume; ++k) column[k] = int(k);

  // f(t, place, k, row) for every pair; the grid of a block holds who is there, a bit a cell, and their rows.
  const auto sweep = [&](int64_t t, const auto& f) {
    uint16_t there[grid * grid];
    I row_at[grid * grid * 16];
    const int64_t first = t * tile, last = std::min((t + 1) * tile, num_targets);
    for_blocks_of_tile(target, first, last, [&](int64_t b, int64_t from, int64_t to) {
      std::fill_n(there, grid * grid, 0);
      for_grid(source, near + 27 * b, borders, schedule, [&](int x, int y, int z, I row) {
        const int line = y + margin + grid * (z + margin);
        there[line] |= uint16_t(1 << (x + margin));
        row_at[16 * line + x + margin] = row;
      });
      for (int64_t i = from; i < to; ++i) {
        const Cell c = cell_of[target_keys[i] & 63];
        const int line = c.y + margin + grid * (c.z + margin);
        for (const StencilRow& r : rows) {
          uint32_t left = uint32_t(there[line + r.at] >> c.x) & r.bits;
          for (; left; left &= left - 1) {
            const int x = std::countr_zero(left);
            f(i, r.k[x], row_at[16 * (line + r.at) + c.x + x]);
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

}  // namespace hepops::sparse::cpu
