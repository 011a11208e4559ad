#pragma once
// A block of channels of one offset's weight gradient by one block of a GPU: a matrix product over pairs.
//
// A block owns M x N elements of dW[kk] and a run of entries of offset k: those of a range of tiles, or, where the
// kernel is so large that most offsets have few entries, a run in the entries sorted by offset. Entries come in
// batches; their pairs lie close together in a table, so that no product is wasted on rows that are not there. Then, 32
// pairs at a time, rows of x and of the gradient are brought to shared memory, three steps deep, and multiplied. The
// order of the sum is that of the entries and pairs; where ranges of tiles are summed apart, the partial sums are added
// in order by AddPartials.
#include "core/block_matmul.h"
#include "sparse/weight_gradient.h"

namespace hepops::sparse {

template <class Kind_, class G_, int M, int N>
struct WeightGradientBlock {
  using G = G_;
  using Kind = Kind_;
  using I = typename G::I;
  using Stored = typename Kind::Stored;
  using Matmul = core::BlockMatmul<Kind, M, N, true, false>;
  using Registers = typename Matmul::Registers;
  static_assert(sizeof(typename G::S) == sizeof(Stored));

  static constexpr bool needs_sm80 = Matmul::matrix_unit;
  static constexpr int blocks_together = (sizeof(Stored) == 2 ? 4 : 3) * 64 / M;  // on one multiprocessor
  static constexpr int depth = Matmul::depth, threads = Matmul::threads;
  static constexpr int stages = 3, batch = 16, rows_of_a_tile = int(tile_on_gpu);  // entries decoded at once

  struct Stage {
    alignas(16) Stored a[Matmul::a_size];
    alignas(16) Stored b[Matmul::b_size];
  };
  struct Shared {
    Stage stage[stages];
    I read[batch * rows_of_a_tile], written[batch * rows_of_a_tile];  // rows of x and of the gradient
    int64_t first[batch];                                             // pair of each entry
    int length[batch], start[batch + 1];                              // pairs of each, and before each
  };

  G f;
  float* gradient;  // (splits, volume, A, B)
  int splits;       // ranges of tiles
  // Where entries are sorted by offset: the offsets and the entries, (entries). Otherwise nullptr.
  const int64_t *keys, *order;
  bool vectors_of_x, vectors_of_grad;

  HEPOPS_HD int64_t group_rows() const { return f.transposed ? f.group_out() : f.group_in(); }
  HEPOPS_HD int64_t group_columns() const { return f.transposed ? f.group_in() : f.group_out(); }
  HEPOPS_HD int64_t row_blocks() const { return (group_rows() + M - 1) / M; }
  HEPOPS_HD int64_t column_blocks() const { return (group_columns() + N - 1) / N; }
  // Blocks to run; of one (offset or sorted entry, split) they are neighbours, since they share rows.
  HEPOPS_HD int64_t blocks() const {
    return (keys ? f.list.num_entries : f.volume * splits) * f.groups * row_blocks() * column_blocks();
  }

  struct Task {
    int64_t k, group, row, column;  // first row and column, within the group
    int64_t next, last;             // tiles, or places in the sorted entries
    float* to;
  };

  HEPOPS_HD Task task(int64_t number) const {
    Task t;
    t.column = number % column_blocks() * N, number /= column_blocks();
    t.row = number % row_blocks() * M, number /= row_blocks();
    t.group = number % f.groups, number /= f.groups;
    int64_t split = 0;
    if (keys) {
      t.k = keys[number], t.next = number, t.last = f.list.num_entries;
      if (number > 0 && keys[number - 1] == t.k) t.last = t.next;  // in the middle of a run: another block's
    } else {
      split = number % splits, t.k = number / splits;
      t.next = f.list.num_tiles * split / splits, t.last = f.list.num_tiles * (split + 1) / splits;
    }
    t.to = gradient + (split * f.volume + (f.flip ? f.volume - 1 - t.k : t.k)) * f.matrix_size();
    return t;
  }

  template <class Block>
  HEPOPS_HD void operator()(Block& block, int64_t number) const {
    Shared& shared = *reinterpret_cast<Shared*>(block.memory);
    Task t = task(number);
    if (keys && t.next == t.last) return;
    block.each([](int, Registers& r) { Matmul::clear(r); });
    while (t.next < t.last) {
      const int pairs = decode(block, shared, t);
      multiply(block, shared, t, pairs);
      block.sync();
      t.next += batch;
      if (keys && t.next < t.last && keys[t.next] != t.k) break;
    }
    const int64_t columns = group_columns() * f.groups;
    block.each([&](int thread, Registers& r) {
      Matmul::for_elements(thread, r, [&](int i, int j, float sum) {
        const int64_t row = t.row + i, column = t.column + j;
        if (row < group_rows() && column < group_columns())
          t.to[row * columns + t.group * group_columns() + column] = sum;
      });
    });
  }

  // The pairs of the next entries in the table; returns how many.
  template <class Block>
  HEPOPS_HD int decode(Block& block, Shared& shared, const Task& t) const {
    const auto& list = f.list;
    block.each([&](int thread, Registers&) {
      if (thread >= batch) return;
      const int64_t at = t.next + thread;
      int64_t first = 0;
      int length = 0;
      if (at < t.last) {
        int64_t entry = 0;
        bool there;
        if (keys) {
          there = keys[at] == t.k;
          if (there) entry = order[at];
        } else {
          entry = find_entry(list, at, t.k);
          there = entry < list.tiles[at + 1] && list.entries[entry].offset == t.k;
        }
        if (there) first = list.entries[entry].first, length = int(list.entries[entry + 1].first - first);
      }
      block.store(thread, shared.first + thread, first);
      block.store(thread, shared.length + thread, length);
    });
    block.sync();
    block.each([&](int thread, Registers&) {
      if (thread > batch) return;
      int before = 0;
      for (int i = 0; i < thread; ++i) before += block.load(thread, shared.length + i);
      block.store(thread, shared.start + thread, before);
    });
    block.sync();
    block.each([&](int thread, Registers&) {
      const int pairs = block.load(thread, shared.start + batch);
      HEPOPS_UNROLL(4)
      for (int p = thread; p < pairs; p += threads) {
        int low = 0, high = batch;  // the last entry with start <= p, so not an empty one
        while (high - low > 1) {
          const int middle = (low + high) / 2;
          if (block.load(thread, shared.start + middle) <= p)
            low = middle;
          else
            high = middle;
        }
        const Pair<I> pair =
            list.pairs[block.load(thread, shared.first + low) + p - block.load(thread, shared.start + low)];
        block.store(thread, shared.read + p, pair.row);
        block.store(thread, shared.written + p, list.schedule[pair.place]);
      }
    });
    block.sync();
    return shared.start[batch];
  }

  template <class Block>
  HEPOPS_HD void multiply(Block& block, Shared& shared, const Task& t, int pairs) const {
    const int steps = (pairs + depth - 1) / depth;
    for (int step = 1 - stages; step < steps; ++step) {  // the first ones only bring
      if (step >= 0) {
        block.template wait<stages - 2>();
        block.sync();
      }
      const int ahead = step + stages - 1;
      if (ahead < steps) load(block, shared, shared.stage[ahead % stages], t, ahead * depth, pairs);
      block.commit();
      if (step < 0) continue;
      const Stage& stage = shared.stage[step % stages];
      block.each_warp([&](const auto& warp) { Matmul::accumulate(warp, stage.a, stage.b); });
    }
  }

  template <class Block>
  HEPOPS_HD void load(Block& block, Shared& shared, Stage& stage, const Task& t, int first, int pairs) const {
    const auto* x = reinterpret_cast<const Stored*>(f.x) + t.group * f.group_in();
    const auto* g = reinterpret_cast<const Stored*>(f.grad) + t.group * f.group_out();
    const auto* left = (f.transposed ? g : x) + t.row;
    const auto* right = (f.transposed ? x : g) + t.column;
    const I* left_rows = (f.transposed ? shared.written : shared.read) + first;
    const I* right_rows = (f.transposed ? shared.read : shared.written) + first;
    const int64_t left_stride = f.transposed ? f.out : f.in, right_stride = f.transposed ? f.in : f.out;
    const int64_t rows = group_rows() - t.row, columns = group_columns() - t.column;
    block.each([&](int thread, Registers&) {
      core::stage<depth, M, Matmul::a_stride, threads>(
          block, thread, stage.a,
          [&](int i) { return left + int64_t(block.load(thread, left_rows + i)) * left_stride; },
          int(rows < M ? rows : M), pairs - first, f.transposed ? vectors_of_grad : vectors_of_x, left);
      core::stage<depth, N, Matmul::b_stride, threads>(
          block, thread, stage.b,
          [&](int i) { return right + int64_t(block.load(thread, right_rows + i)) * right_stride; },
          int(columns < N ? columns : N), pairs - first, f.transposed ? vectors_of_x : vectors_of_grad, right);
    });
  }
};

// gradient[n] = sum over the splits of partial[split][n], in order
struct AddPartials {
  const float* partial;
  float* gradient;
  int64_t size;
  int splits;

  HEPOPS_HD void operator()(int64_t n) const {
    float sum = 0;
    for (int s = 0; s < splits; ++s) sum += partial[s * size + n];
    gradient[n] = sum;
  }
};

}  // namespace hepops::sparse
