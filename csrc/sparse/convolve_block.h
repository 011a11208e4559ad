#pragma once
// A tile of a convolution by one block of a GPU: implicit GEMM over the entries of the tile.
//
// A block owns the 64 places of a tile, up to N channels of one group, and a part of the tile's entries (all of them,
// but for few tiles). Entries come in batches: their pairs are spread over a table rows[entry][local row], -1 where the
// entry has none. Then, for each entry and 32 channels at a time, the rows of x that the table names and the same 32
// rows of M_k are brought to shared memory, three steps deep, and multiplied. The sums stay in registers over all
// entries; a warp none of whose rows an entry writes sits it out. Everything is in ascending k: no two blocks meet.
//
// A row that an entry does not write takes part as zeros, so a weight that is not finite makes more rows NaN here than
// in the plain form; a row of x that is not finite does not.
//
// The text is a template on the block (core/block.h), so that a test runs it on the host.
#include <algorithm>

#include "core/block_matmul.h"
#include "sparse/convolve.h"

namespace hepops::sparse {

constexpr int rows_of_a_tile = int(tile_on_gpu);

// The part of a problem that a block works on, counted from one number: neighbours share rows of x.
template <class C>
struct TileTask {
  int64_t tile, group, first_channel, split;

  // blocks of N channels in a group
  HEPOPS_HD static int64_t blocks_of_channels(const C& c, int N) { return (c.group_out() + N - 1) / N; }

  HEPOPS_HD TileTask(const C& c, int N, int splits, int64_t block) {
    const int64_t blocks = blocks_of_channels(c, N);
    split = block % splits, block /= splits;
    first_channel = block % blocks * N, block /= blocks;
    group = block % c.groups, tile = block / c.groups;
  }
};

template <class Kind_, class C_, int N, bool transposed>
struct ConvolveBlock {
  using C = C_;
  using Kind = Kind_;
  using I = typename C::I;
  using Stored = typename Kind::Stored;
  using Matmul = core::BlockMatmul<Kind, rows_of_a_tile, N, false, transposed>;
  using Registers = typename Matmul::Registers;
  static_assert(sizeof(typename C::S) == sizeof(Stored) && sizeof(typename C::W) == sizeof(Stored));

  static constexpr bool needs_sm80 = Matmul::matrix_unit;
  static constexpr int blocks_together = sizeof(Stored) == 2 ? 4 : 3;  // on one multiprocessor, as far as registers go
  static constexpr int rows = Matmul::M, depth = Matmul::depth, threads = Matmul::threads, warps = threads / 32;
  static constexpr int stages = 3, batch = 32;  // steps in flight, entries decoded at once
  static constexpr int rows_of_a_warp = Matmul::m;

  // the sums, when they leave the registers; their stride in floats keeps the stores of fragments out of one bank
  static constexpr int sum_stride = N + 8;

  // Shared memory
  struct Stage {
    alignas(16) Stored a[Matmul::a_size];
    alignas(16) Stored b[Matmul::b_size];
  };
  union Numbers {
    Stage stage[stages];
    alignas(16) float sums[rows * sum_stride];
  };
  struct Shared {
    Numbers numbers;
    I table[batch * rows];                       // row of x, or -1
    int first[batch + 1];                        // pair of each entry, from the first of the batch
    int offset[batch];                           // k
    uint8_t present[batch * Matmul::warp_rows];  // whether an entry writes any of a warp's rows
  };

  C c;
  int splits;
  float* partial;                        // (splits, places, out) where the entries of a tile are split, else nullptr
  bool vectors_of_x, vectors_of_weight;  // whether rows can be copied 16 bytes at a time

  // A position in the sequence of (entry of the batch, 32 channels).
  struct Cursor {
    int entry = 0, channel = 0;
    HEPOPS_HD void advance(int channels) {
      channel += depth;
      if (channel >= channels) channel = 0, ++entry;
    }
  };

  template <class Block>
  HEPOPS_HD void operator()(Block& block, int64_t number) const {
    Shared& shared = *reinterpret_cast<Shared*>(block.memory);
    const TileTask<C> task(c, N, splits, number);
    const int64_t from = c.list.tiles[task.tile], all = c.list.tiles[task.tile + 1] - from;
    const int64_t last = from + all * (task.split + 1) / splits;
    block.each([](int, Registers& r) { Matmul::clear(r); });
    for (int64_t entry = from + all * task.split / splits; entry < last; entry += batch) {
      const int entries = int(last - entry < batch ? last - entry : batch);
      decode(block, shared, entry, entries);
      multiply(block, shared, task, entries);
      block.sync();
    }
    block.each([&](int thread, Registers& r) {
      Matmul::for_elements(thread, r, [&](int row, int column, float sum) {
        block.store(thread, shared.numbers.sums + row * sum_stride + column, sum);
      });
    });
    block.sync();
    if (partial)
      keep(block, shared, task);
    else
      finish(block, shared.numbers.sums, task);
  }

  // The pairs of a batch, spread over its table.
  template <class Block>
  HEPOPS_HD void decode(Block& block, Shared& shared, int64_t entry, int entries) const {
    const auto& list = c.list;
    const int64_t first = list.entries[entry].first;
    block.each([&](int thread, Registers&) {
      if (thread <= entries)
        block.store(thread, shared.first + thread, int(list.entries[entry + thread].first - first));
      if (thread < entries) block.store(thread, shared.offset + thread, int(list.entries[entry + thread].offset));
      HEPOPS_UNROLL(1)
      for (int i = thread; i < entries * rows; i += threads) block.store(thread, shared.table + i, I(-1));
    });
    block.sync();
    block.each([&](int thread, Registers&) {
      const int pairs = block.load(thread, shared.first + entries);
      HEPOPS_UNROLL(4)
      for (int p = thread; p < pairs; p += threads) {
        const Pair<I> pair = list.pairs[first + p];
        int low = 0, high = entries;  // the entry that p is of: first[low] <= p < first[high]
        while (high - low > 1) {
          const int middle = (low + high) / 2;
          if (block.load(thread, shared.first + middle) <= p)
            low = middle;
          else
            high = middle;
        }
        block.store(thread, shared.table + low * rows + int(pair.place % rows), pair.row);
      }
    });
    block.sync();
    block.each([&](int thread, Registers&) {
      for (int i = thread; i < entries * Matmul::warp_rows; i += threads) {
        bool any = false;
        HEPOPS_UNROLL(4)
        for (int row = 0; row < rows_of_a_warp; ++row)
          any |= block.load(thread, shared.table + i * rows_of_a_warp + (row + thread) % rows_of_a_warp) >= 0;
        block.store(thread, shared.present + i, uint8_t(any));
      }
    });
  }

  // All steps of a batch. The first barrier in the loop also orders the table's last column: `present`.
  template <class Block>
  HEPOPS_HD void multiply(Block& block, Shared& shared, const TileTask<C>& task, int entries) const {
    const int channels = int(c.group_in());
    const int steps = entries * ((channels + depth - 1) / depth);
    Cursor bring, use;
    for (int step = 1 - stages; step < steps; ++step) {  // the first ones only bring
      if (step >= 0) {
        block.template wait<stages - 2>();
        block.sync();
      }
      const int ahead = step + stages - 1;
      if (ahead < steps) load(block, shared, shared.numbers.stage[ahead % stages], task, bring, channels);
      bring.advance(channels);
      block.commit();
      if (step < 0) continue;
      const Stage& stage = shared.numbers.stage[step % stages];
      block.each_warp([&](const auto& warp) {
        const auto* present = shared.present + use.entry * Matmul::warp_rows + warp.index / Matmul::warp_columns;
        if (warp.load(32 * warp.index, present)) Matmul::accumulate(warp, stage.a, stage.b);
      });
      use.advance(channels);
    }
  }

  template <class Block>
  HEPOPS_HD void load(Block& block, Shared& shared, Stage& stage, const TileTask<C>& task, const Cursor& at,
                      int channels) const {
    const int left = channels - at.channel < depth ? channels - at.channel : depth;  // channels of this step
    const int64_t outs = c.group_out() - task.first_channel;
    const int wanted = int(outs < N ? outs : N);
    const auto* x = reinterpret_cast<const Stored*>(c.x) + task.group * c.group_in() + at.channel;
    const auto* all_weights = reinterpret_cast<const Stored*>(c.weight);
    block.each([&](int thread, Registers&) {
      const I* table = shared.table + at.entry * rows;
      core::stage<rows, depth, Matmul::a_stride, threads>(
          block, thread, stage.a,
          [&](int i) {
            const I row = block.load(thread, table + i);
            return row < 0 ? nullptr : x + int64_t(row) * c.in;
          },
          left, rows, vectors_of_x, x);
      const int64_t k = block.load(thread, shared.offset + at.entry);
      const auto* matrix = all_weights + (c.flip ? c.volume - 1 - k : k) * c.matrix_size();
      if constexpr (transposed) {  // rows of W are channels written
        const auto* corner = matrix + task.first_channel * c.in + task.group * c.group_in() + at.channel;
        core::stage<N, depth, Matmul::b_stride, threads>(
            block, thread, stage.b, [&](int i) { return corner + i * c.in; }, left, wanted, vectors_of_weight, corner);
      } else {
        const auto* corner = matrix + at.channel * c.out + task.group * c.group_out() + task.first_channel;
        core::stage<depth, N, Matmul::b_stride, threads>(
            block, thread, stage.b, [&](int i) { return corner + i * c.out; }, wanted, left, vectors_of_weight, corner);
      }
    });
  }

  // The sums of a split, for ConvolveSums.
  template <class Block>
  HEPOPS_HD void keep(Block& block, Shared& shared, const TileTask<C>& task) const {
    const int64_t first = c.list.first_place(task.tile), places = c.list.last_place(task.tile) - first;
    const int64_t outs = c.group_out() - task.first_channel;
    float* to =
        partial + (task.split * c.list.num_rows + first) * c.out + task.group * c.group_out() + task.first_channel;
    block.each([&](int thread, Registers&) {
      HEPOPS_UNROLL(2)
      for (int i = thread; i < rows * N; i += threads)
        if (i / N < places && i % N < outs)
          to[i / N * c.out + i % N] = block.load(thread, shared.numbers.sums + i / N * sum_stride + i % N);
    });
  }

  // What follows the sums: convolve.h's epilogue, and the moments of what it has stored.
  template <class Block>
  HEPOPS_HD void finish(Block& block, float* sums, const TileTask<C>& task) const {
    finish_tile<N, sum_stride, threads>(block, c, sums, task);
  }
};

// sums[local row][channel - first_channel] -> raw, activated, moments
template <int N, int stride, int threads, class Block, class C>
HEPOPS_HD void finish_tile(Block& block, const C& c, float* sums, const TileTask<C>& task) {
  using S = typename C::S;
  const int64_t first = c.list.first_place(task.tile);
  const int places = int(c.list.last_place(task.tile) - first);
  const int64_t outs = c.group_out() - task.first_channel, channel = task.group * c.group_out() + task.first_channel;
  const int wanted = int(outs < N ? outs : N);
  const bool moments = c.epilogue.moments;
  block.each([&](int thread, auto&) {
    HEPOPS_UNROLL(2)
    for (int i = thread; i < places * N; i += threads) {
      const int row = i / N, column = i % N;
      if (column >= wanted) continue;
      float* sum = sums + row * stride + column;
      const float v = c.epilogue(c.list.schedule[first + row], c.out, channel + column, block.load(thread, sum));
      if (moments) block.store(thread, sum, float(S(v)));
    }
  });
  if (!moments) return;
  block.sync();
  // One thread a channel; four interleaved sums, so that additions need not wait for one another.
  block.each([&](int thread, auto&) {
    for (int column = thread; column < wanted; column += threads) {
      const float* v = sums + column;
      double sum[4] = {}, squares[4] = {};
      HEPOPS_UNROLL(4)
      for (int row = 0; row < rows_of_a_tile; ++row)
        if (row < places) sum[row % 4] += double(block.load(thread, v + row * stride));
      const double mean = (sum[0] + sum[1] + (sum[2] + sum[3])) / places;
      HEPOPS_UNROLL(4)
      for (int row = 0; row < rows_of_a_tile; ++row)
        if (row < places) {
          const double d = double(block.load(thread, v + row * stride)) - mean;
          squares[row % 4] += d * d;
        }
      double* to = c.epilogue.moments + 2 * task.tile * c.out + channel + column;
      to[0] = mean;
      to[c.out] = squares[0] + squares[1] + (squares[2] + squares[3]);
    }
  });
}

// The second half where entries were split: sums of the splits in order, and what follows.
template <class C_>
struct ConvolveSums {
  using C = C_;
  static constexpr bool needs_sm80 = false;
  static constexpr int blocks_together = 4;
  static constexpr int N = 32, stride = N, threads = 128, rows = rows_of_a_tile;
  struct Registers {};
  struct Shared {
    float sums[rows * stride];
  };
  C c;
  int splits;
  const float* partial;

  template <class Block>
  HEPOPS_HD void operator()(Block& block, int64_t number) const {
    Shared& shared = *reinterpret_cast<Shared*>(block.memory);
    const TileTask<C> task(c, N, 1, number);
    const int64_t first = c.list.first_place(task.tile), places = c.list.last_place(task.tile) - first;
    const int64_t outs = c.group_out() - task.first_channel;
    const float* from = partial + first * c.out + task.group * c.group_out() + task.first_channel;
    block.each([&](int thread, Registers&) {
      for (int i = thread; i < rows * N; i += threads) {
        if (i / N >= places || i % N >= outs) continue;
        float sum = 0;
        for (int s = 0; s < splits; ++s) sum += from[s * c.list.num_rows * c.out + i / N * c.out + i % N];
        block.store(thread, shared.sums + i / N * stride + i % N, sum);
      }
    });
    block.sync();
    finish_tile<N, stride, threads>(block, c, shared.sums, task);
  }
};

// The list of a linear layer, where each row reads itself: n from 0 to the number of rows.
struct Itself {
  Pair<int32_t>* pairs;
  Entry<int32_t>* entries;
  int32_t *tiles, *schedule;
  int64_t rows, num_tiles;
  HEPOPS_HD void operator()(int64_t n) const {
    if (n < rows) pairs[n] = {int32_t(n), int32_t(n)}, schedule[n] = int32_t(n);
    if (n > num_tiles) return;
    tiles[n] = int32_t(n);
    entries[n] = n < num_tiles ? Entry<int32_t>{int32_t(n * tile_on_gpu), 0} : Entry<int32_t>{int32_t(rows), -1};
  }
};

}  // namespace hepops::sparse
