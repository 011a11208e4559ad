#pragma once
// convolve.h for a CPU core: the same sums, a tile of written rows at a time.
//
// The sums of a tile lie in a scratch of its own (places x channels), and rows of x are read where they are, with no
// buffer between: for an entry, a panel of NV vectors of channels and MR of its pairs, the MR x NV sums are loaded, get
// their in-channels added, and are stored again (blocks_cpu.h). The rows of the next pairs are fetched ahead. Then the
// epilogue writes the tile's rows to their public places.
//
// bfloat16 is multiplied as it is where the processor can (AVX512-BF16); a float32 weight is rounded to it first. Else
// the halves are widened, once. A list without entries is that of a linear layer: each row reads itself.
//
// Measured on one AVX-512 core whose multiply-add limit P is 114 GFLOP/s, 20 000 voxels with 12.6 neighbours in 3^3,
// least of many runs: float32 6.0 ms for 32 channels (0.75 P), 20 ms for 64 (0.90 P), 76 ms for 128 (0.94 P) with rows
// in Morton order; 6.7 to 7, 21 to 22 and 80 ms with rows in random order. The rest at 32 channels is the loading and
// storing of sums, for a product only 32 deep; of what random rows cost, a part is the look-up of their pages, and is
// gone with pages of 2 MB. bfloat16 is 1.6 times as fast for 32 channels, 1.8 for 64, 1.9 for 128; float64 takes twice
// as long. In a prototype the same loop with the rows gathered first was 5 to 10 % slower; a gather, a product and a
// scatter 40 %.
#include <cstring>
#include <vector>

#include "core/parallel.h"
#include "sparse/matrices_cpu.h"

namespace hepops::sparse {

// S: what rows are stored in; X: what x and the matrices are multiplied in
template <class S, class X, class I>
class Tiles {
 public:
  using T = Wide<S>;
  static constexpr int64_t longest = 256;  // pairs whose addresses are worked out at a time

  template <class C, class Parallel>
  Tiles(const C& c, const X* x, const Parallel& parallel)
      : list_(c.list),
        epilogue_(c.epilogue),
        x_(x),
        in_(c.in),
        out_(c.out),
        group_in_(c.group_in()),
        group_out_(c.group_out()),
        panels_(c.group_out(), c.groups),
        matrices_(c, panels_, parallel),
        stride_(panels_.padded * c.groups) {}

  int64_t number() const { return panels_.panels.size(); }
  int64_t scratch_size() const { return std::min(list_.tile, list_.num_rows) * stride_; }

  void operator()(int64_t tile, int64_t first_panel, int64_t last_panel, T* scratch) const {
    const int64_t first = list_.first_place(tile), last = list_.last_place(tile);
    std::memset(scratch, 0, (last - first) * stride_ * sizeof(T));
    T* const sums = scratch - first * stride_;
    if (list_.entries) {
      const int64_t begin = list_.tiles[tile], end = list_.tiles[tile + 1];
      auto [p, last_p] = longest_entry(tile + 1);
      for (int64_t e = begin; e < end; ++e) {
        const int64_t some = (last_p - p) / (end - e);
        fetch<2>(p, p + some);
        p += some;
        add(list_.entries[e].offset, list_.entries[e].first, list_.entries[e + 1].first, first_panel, last_panel, sums);
      }
    } else {
      add(0, first, last, first_panel, last_panel, sums);
    }
    for (int64_t n = first_panel; n < last_panel; ++n) finish(tile, panels_.panels[n], scratch);
  }

 private:
  int64_t row_read(int64_t p) const { return list_.entries ? int64_t(list_.pairs[p].row) : p; }
  int64_t place(int64_t p) const { return list_.entries ? int64_t(list_.pairs[p].place) : p; }
  int64_t row_written(int64_t place) const { return list_.schedule ? int64_t(list_.schedule[place]) : place; }

  void add(int64_t k, int64_t first, int64_t last, int64_t first_panel, int64_t last_panel, T* scratch) const {
    const X* x[longest];
    T* sums[longest];
    for (int64_t p = first, end; p < last; p = end) {
      end = std::min(p + longest, last);
      for (int64_t n = p; n < end; ++n) {
        x[n - p] = x_ + row_read(n) * in_;
        sums[n - p] = scratch + place(n) * stride_;
      }
      for (int64_t j = first_panel; j < last_panel; ++j)
        add(panels_.panels[j], k, p, end - p, j == first_panel, x, sums);
    }
  }

  void add(const Panel<X>& panel, int64_t k, int64_t p, int64_t number, bool fetching, const X* const* x,
           T* const* sums) const {
    Block<X> block{x,
                   sums,
                   panel.group * group_in_,
                   panel.group * panels_.padded + panel.first,
                   matrices_(k, panel.group) + (std::is_same_v<X, Brain> ? 2 : 1) * panel.first,
                   group_in_,
                   matrices_.stride()};
    const int64_t blocks = (number + panel.rows - 1) / panel.rows;
    for (int64_t b = 0, n = 0; b < blocks; ++b) {
      const int64_t next = number * (b + 1) / blocks;  // of nearly one size
      if (fetching) fetch<3>(p + next, std::min(p + next + panel.rows, list_.num_pairs));
      panel.add[next - n - 1](block);
      block.x += next - n;
      block.sums += next - n;
      n = next;
    }
  }

  // The pairs of a tile's longest entry, which for most layers are its own rows, of which most meet in its other
  // entries.
  std::pair<int64_t, int64_t> longest_entry(int64_t tile) const {
    std::pair<int64_t, int64_t> found{0, 0};
    if (tile < list_.num_tiles)
      for (int64_t e = list_.tiles[tile]; e < list_.tiles[tile + 1]; ++e)
        if (list_.entries[e + 1].first - list_.entries[e].first > found.second - found.first)
          found = {list_.entries[e].first, list_.entries[e + 1].first};
    return found;
  }

  // To the first level of the caches (3), or the second (2)
  template <int locality>
  void fetch(int64_t p, int64_t last) const {
    for (; p < last; ++p) {
      const char* row = reinterpret_cast<const char*>(x_ + row_read(p) * in_);
      for (int64_t byte = 0; byte < in_ * int64_t(sizeof(X)); byte += 64) __builtin_prefetch(row + byte, 0, locality);
    }
  }

  // What follows the sums, for the channels of a panel.
  void finish(int64_t tile, const Panel<X>& panel, T* scratch) const {
    constexpr int64_t ahead = 8;  // rows whose lines are fetched, to be written
    const auto& e = epilogue_;
    const int64_t channel = panel.group * group_out_ + panel.first;
    const int64_t first = list_.first_place(tile), last = list_.last_place(tile);
    T* const sums = scratch + panel.group * panels_.padded + panel.first;
    for (int64_t place = first; place < last; ++place) {
      if (place + ahead < last) {
        const int64_t at = row_written(place + ahead) * out_ + channel;
        for (int64_t n = 0; n < panel.size; n += 64 / sizeof(S)) {
          if (e.raw) __builtin_prefetch(e.raw + at + n, 1);
          if (e.activated) __builtin_prefetch(e.activated + at + n, 1);
          if (e.residual) __builtin_prefetch(e.residual + at + n);
        }
      }
      finish_row(row_written(place) * out_ + channel, channel, panel.size, sums + (place - first) * stride_);
    }
    if (e.moments) moments(last - first, sums, panel.size, e.moments + 2 * tile * out_ + channel);
  }

  void finish_row(int64_t at, int64_t channel, int64_t channels, T* sums) const {
    constexpr int V = full_lanes<T>;
    using Vec = Simd<T, V>;
    const auto& e = epilogue_;
    int64_t n = 0;
    for (; n + V <= channels; n += V) {
      auto v = Vec::load(sums + n);
      if (e.bias) v += Vec::load(e.bias + channel + n);
      if (e.residual) v += load_wide<S, V>(e.residual + at + n);
      if (e.raw) store_narrow<S, V>(e.raw + at + n, v);
      if (e.moments) Vec::store(sums + n, load_wide<S, V>(e.raw + at + n));
      if (e.activated) {
        if (e.scale) v *= Vec::load(e.scale + channel + n);
        if (e.shift) v += Vec::load(e.shift + channel + n);
        store_narrow<S, V>(e.activated + at + n, v < T(0) ? v * e.slope : v);
      }
    }
    for (; n < channels; ++n) {
      T v = sums[n];
      if (e.bias) v += e.bias[channel + n];
      if (e.residual) v += T(e.residual[at + n]);
      if (e.raw) e.raw[at + n] = S(v);
      if (e.moments) sums[n] = T(e.raw[at + n]);
      if (e.activated) e.activated[at + n] = S(e.activate(v, channel + n));
    }
  }

  // Mean and M2 of the tile's rows, as they are stored: in double, row after row.
  void moments(int64_t rows, const T* sums, int64_t channels, double* to) const {
    constexpr int64_t widest = max_panel * full_lanes<float>;
    double mean[widest], squares[widest];
    std::fill_n(mean, channels, 0.0);
    std::fill_n(squares, channels, 0.0);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t n = 0; n < channels; ++n) mean[n] += double(sums[row * stride_ + n]);
    for (int64_t n = 0; n < channels; ++n) mean[n] /= double(rows);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t n = 0; n < channels; ++n) {
        const double d = double(sums[row * stride_ + n]) - mean[n];
        squares[n] += d * d;
      }
    std::copy_n(mean, channels, to);
    std::copy_n(squares, channels, to + out_);
  }

  PairList<I> list_;
  Epilogue<S> epilogue_;
  const X* x_;
  int64_t in_, out_, group_in_, group_out_;
  Panels<X> panels_;
  Matrices<X> matrices_;
  int64_t stride_;  // of the rows of the scratch
};

template <class X, class C, class Parallel>
void run_tiles(const C& c, const X* x, const Parallel& parallel) {
  using T = typename C::T;
  const Tiles<typename C::S, X, typename C::I> tiles(c, x, parallel);
  const int64_t split = c.list.num_tiles < 8 ? tiles.number() : 1;  // few tiles: their panels are tasks of their own
  for_tasks(c.list.num_tiles * split, parallel, [&](int64_t task) {
    static thread_local Buffer<T> scratch;
    const int64_t part = task % split;
    tiles(task / split, tiles.number() * part / split, tiles.number() * (part + 1) / split,
          scratch.reserve(tiles.scratch_size()));
  });
}

template <class C, class Parallel = core::Serial>
void convolve_on_host(const C& c, const Parallel& parallel = {}) {
  using S = typename C::S;
  using T = typename C::T;
  if constexpr (std::is_same_v<S, T>) {
    run_tiles<T>(c, c.x, parallel);
  } else {
#ifdef __AVX512F__
    if constexpr (half_of<S> == Half::brain)
      if (c.group_in() % 2 == 0 && has_brain_products())
        return run_tiles<Brain>(c, reinterpret_cast<const Brain*>(c.x), parallel);
#endif
    const Buffer<T> wide(c.rows_read * c.in);
    parallel(c.rows_read * c.in, 1 << 14,
             [&](int64_t first, int64_t last) { widen(c.x + first, last - first, wide.get() + first); });
    run_tiles<T>(c, wide.get(), parallel);
  }
}

}  // namespace hepops::sparse
