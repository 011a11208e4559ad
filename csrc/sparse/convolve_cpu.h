#pragma once
// convolve.h for a CPU core: the same sums, a tile of written rows at a time.
//
// The sums of a tile lie in a scratch of its own (places x channels), and rows of x are read where they are: for an
// entry, for a panel of NV vectors of channels, for MR of its pairs, the MR x NV sums are loaded, get their in-channels
// added, and are stored again. The rows of the next pairs are fetched ahead. Weights are used in place; they are copied
// only where they are transposed, or stored in less than they are computed in. The epilogue writes the tile's rows to
// their public places.
#include <cstring>
#include <vector>

#include "core/parallel.h"
#include "sparse/convolve.h"
#include "sparse/simd.h"

namespace hepops::sparse {

// How many pairs are added at a time, beside NV vectors of channels: their sums, the weights and a number of x are to
// stay in registers.
constexpr int pairs_at_once(int NV) {
  if (simd_registers == 32) return NV == 1 ? 16 : NV == 2 ? 12 : NV == 3 ? 8 : NV == 4 ? 6 : 5;
  return NV == 1 ? 8 : NV == 2 ? 6 : 4;
}
constexpr int max_panel = simd_registers == 32 ? 5 : 3;  // vectors in a panel
constexpr int max_pairs_at_once = 16;

// s[m][c] += sum over i of x[m][i] w[i][c], for MR rows and NV vectors of channels c
template <class T>
struct Block {
  const T* const* x;  // of the pairs
  T* const* sums;     // of their places
  int64_t x_at, sums_at;
  const T* w;
  int64_t depth, stride;  // rows of w, and their distance

  template <int V, int MR, int NV>
  static void add(const Block& b) {
    using Vec = Simd<T, V>;
    typename Vec::type s[MR][NV];
    const T* x[MR];
    unroll<MR>(HEPOPS_UNROLLED(m) {
      x[m] = b.x[m] + b.x_at;
      unroll<NV>(HEPOPS_UNROLLED(n) { s[m][n] = Vec::load(b.sums[m] + b.sums_at + n * V); });
    });
    const T* w = b.w;
    for (int64_t i = 0; i < b.depth; ++i, w += b.stride) {
      typename Vec::type row[NV];
      unroll<NV>(HEPOPS_UNROLLED(n) { row[n] = Vec::load(w + n * V); });
      unroll<MR>(HEPOPS_UNROLLED(m) {
        const T a = x[m][i];
        unroll<NV>(HEPOPS_UNROLLED(n) { s[m][n] += a * row[n]; });
      });
    }
    unroll<MR>(
        HEPOPS_UNROLLED(m) { unroll<NV>(HEPOPS_UNROLLED(n) { Vec::store(b.sums[m] + b.sums_at + n * V, s[m][n]); }); });
  }
};

template <class T>
using AddBlock = void (*)(const Block<T>&);

// The kernels of 1 ... pairs_at_once(NV) rows
template <class T, int V, int NV>
constexpr auto blocks_of = []<int... M>(std::integer_sequence<int, M...>) {
  return std::array<AddBlock<T>, sizeof...(M)>{Block<T>::template add<V, M + 1, NV>...};
}(std::make_integer_sequence<int, pairs_at_once(NV)>{});

// Calls f<V>() with the lanes of the narrowest vector that holds all channels, or of the widest.
template <class T, class F>
void for_lanes(int64_t channels, const F& f) {
  constexpr int V = full_lanes<T>, least = 16 / sizeof(T);
  if (V / 4 >= least && channels <= V / 4)
    f.template operator()<std::max(V / 4, least)>();
  else if (V / 2 >= least && channels <= V / 2)
    f.template operator()<std::max(V / 2, least)>();
  else
    f.template operator()<V>();
}

// Calls f<NV>(first, size) for panels of nearly one width that cover the channels, the last perhaps in part.
template <int V, class F>
void for_panels(int64_t channels, const F& f) {
  const int64_t vectors = (channels + V - 1) / V, number = (vectors + max_panel - 1) / max_panel;
  for (int64_t n = 0; n < number; ++n) {
    const int64_t from = vectors * n / number, to = vectors * (n + 1) / number;
    unroll<max_panel>(HEPOPS_UNROLLED(v) {
      if (to - from == v + 1) f.template operator()<v + 1>(from * V, std::min(to * V, channels) - from * V);
    });
  }
}

// Channels [first, first + size) of a group, and who adds them up.
template <class T>
struct Panel {
  int64_t group, first, size;
  int pairs;               // at once
  const AddBlock<T>* add;  // for 1 ... pairs rows
};

// A group's channels in panels of nearly one width, and the distance of its rows in the scratch.
template <class T>
struct Panels {
  std::vector<Panel<T>> panels;
  int64_t padded;  // channels of a group in the scratch
  int lanes;

  Panels(int64_t channels, int64_t groups) {
    for_lanes<T>(channels, [&]<int V>() {
      lanes = V;
      padded = (channels + V - 1) / V * V;
      for (int64_t g = 0; g < groups; ++g)
        for_panels<V>(channels, [&]<int NV>(int64_t first, int64_t size) {
          panels.push_back({g, first, size, pairs_at_once(NV), blocks_of<T, V, NV>.data()});
        });
    });
  }
};

// The matrices M_k in the dtype of the sums, each row of them readable a vector past its end.
template <class C>
class Matrices {
 public:
  using T = typename C::T;
  using W = typename C::W;

  Matrices(const C& c, const Panels<T>& panels) : c_(c), lanes_(panels.lanes), padded_(panels.padded) {
    if (c.transposed || !std::is_same_v<W, T>)
      pack();
    else if (c.group_out() % lanes_)
      guard();
  }

  // Row 0 of M_k for a group
  const T* operator()(int64_t k, int64_t group) const {
    const int64_t kk = c_.flip ? c_.volume - 1 - k : k;
    if (c_.transposed) return buffer_.get() + slot_[kk] * size_ + group * c_.group_in() * padded_;
    const int64_t at = group * c_.group_out();
    if constexpr (std::is_same_v<W, T>)
      return (kk == guarded_ ? buffer_.get() : c_.weight + kk * c_.matrix_size()) + at;
    else
      return buffer_.get() + slot_[kk] * size_ + at;
  }
  int64_t stride() const { return c_.transposed ? padded_ : c_.out; }

 private:
  // The last matrix is followed by nothing.
  void guard() {
    if constexpr (std::is_same_v<W, T>) {
      guarded_ = c_.volume - 1;
      T* copy = buffer_.reserve(c_.matrix_size() + lanes_);
      std::copy_n(c_.weight + guarded_ * c_.matrix_size(), c_.matrix_size(), copy);
      std::fill_n(copy + c_.matrix_size(), lanes_, T(0));
    }
  }

  // Only the matrices that are used are copied: there may be very many that are not.
  void pack() {
    const auto& list = c_.list;
    slot_.assign(c_.volume, -1);
    int64_t used = 0;
    for (int64_t e = 0; e < list.num_entries; ++e) {
      const int64_t k = list.entries[e].offset, kk = c_.flip ? c_.volume - 1 - k : k;
      if (slot_[kk] < 0) slot_[kk] = used++;
    }
    size_ = c_.transposed ? c_.in * padded_ : c_.matrix_size() + lanes_;
    buffer_.reserve(used * size_);
    for (int64_t kk = 0; kk < c_.volume; ++kk)
      if (slot_[kk] >= 0) pack(c_.weight + kk * c_.matrix_size(), buffer_.get() + slot_[kk] * size_);
  }

  void pack(const W* from, T* to) const {
    if (!c_.transposed) {
      for (int64_t n = 0; n < c_.matrix_size(); ++n) to[n] = T(from[n]);
      std::fill_n(to + c_.matrix_size(), lanes_, T(0));
      return;
    }
    const int64_t in = c_.in, out = c_.group_out();
    constexpr int64_t step = 16;  // rows at a time, whose lines the first-level cache holds
    for (int64_t o = 0; o < padded_; o += step) {
      const int64_t some = std::min(step, out - o);
      for (int64_t i = 0; i < in; ++i) {
        T* row = to + i * padded_ + o;
        if (some == step)
          for (int64_t n = 0; n < step; ++n) row[n] = T(from[(o + n) * in + i]);
        else
          for (int64_t n = 0; n < std::min(step, padded_ - o); ++n)
            row[n] = n < some ? T(from[(o + n) * in + i]) : T(0);
      }
    }
  }

  const C& c_;
  int64_t lanes_, padded_, size_ = 0, guarded_ = -1;
  std::vector<int64_t> slot_;  // of each matrix in the buffer
  Buffer<T> buffer_;
};

// One panel of one tile: the sums, then what follows.
template <class C>
class Tile {
 public:
  using T = typename C::T;
  static constexpr int64_t longest = 256;  // pairs whose addresses are worked out at a time

  Tile(const C& c, const T* x, const Matrices<C>& matrices, const Panels<T>& panels)
      : c_(c), x_(x), matrices_(matrices), panels_(panels), stride_(panels.padded * c.groups) {}

  void operator()(int64_t tile, int64_t first_panel, int64_t last_panel, T* scratch) const {
    const auto& list = c_.list;
    const int64_t first = list.first_place(tile), last = list.last_place(tile);
    std::memset(scratch, 0, (last - first) * stride_ * sizeof(T));
    for (int64_t e = list.tiles[tile]; e < list.tiles[tile + 1]; ++e)
      for (int64_t p = list.entries[e].first, end = list.entries[e + 1].first; p < end; p += longest)
        add(list.entries[e].offset, p, std::min(longest, end - p), first_panel, last_panel, scratch - first * stride_);
    for (int64_t n = first_panel; n < last_panel; ++n) finish(tile, panels_.panels[n], scratch);
  }

 private:
  void add(int64_t k, int64_t p, int64_t number, int64_t first_panel, int64_t last_panel, T* scratch) const {
    const auto* pairs = c_.list.pairs;
    const T* x[longest];
    T* sums[longest];
    for (int64_t n = 0; n < number; ++n) {
      x[n] = x_ + pairs[p + n].row * c_.in;
      sums[n] = scratch + pairs[p + n].place * stride_;
    }
    for (int64_t j = first_panel; j < last_panel; ++j) {
      const Panel<T>& panel = panels_.panels[j];
      Block<T> block{x,
                     sums,
                     panel.group * c_.group_in(),
                     panel.group * panels_.padded + panel.first,
                     matrices_(k, panel.group) + panel.first,
                     c_.group_in(),
                     matrices_.stride()};
      const int64_t blocks = (number + panel.pairs - 1) / panel.pairs;
      for (int64_t b = 0, n = 0; b < blocks; ++b) {
        const int64_t next = number * (b + 1) / blocks;  // of nearly one size
        if (j == first_panel) fetch(p + next, panel.pairs);
        panel.add[next - n - 1](block);
        block.x += next - n;
        block.sums += next - n;
        n = next;
      }
    }
  }

  void fetch(int64_t p, int64_t number) const {
    const int64_t last = std::min(p + number, c_.list.num_pairs);
    for (; p < last; ++p) {
      const char* row = reinterpret_cast<const char*>(x_ + c_.list.pairs[p].row * c_.in);
      for (int64_t byte = 0; byte < c_.in * int64_t(sizeof(T)); byte += 64) __builtin_prefetch(row + byte);
    }
  }

  void finish(int64_t tile, const Panel<T>& panel, T* scratch) const {
    const auto& list = c_.list;
    const int64_t channel = panel.group * c_.group_out() + panel.first, first = list.first_place(tile);
    for (int64_t place = first; place < list.last_place(tile); ++place) {
      const T* sums = scratch + (place - first) * stride_ + panel.group * panels_.padded + panel.first;
      for (int64_t n = 0; n < panel.size; ++n) c_.epilogue(list.schedule[place], c_.out, channel + n, sums[n]);
    }
  }

  const C& c_;
  const T* x_;
  const Matrices<C>& matrices_;
  const Panels<T>& panels_;
  int64_t stride_;  // of the rows of the scratch
};

template <class C, class Parallel>
void convolve_on_host(const C& c, const Parallel& parallel) {
  using T = typename C::T;
  Buffer<T> wide;
  const T* x;
  if constexpr (std::is_same_v<typename C::S, T>) {
    x = c.x;
  } else {
    T* copy = wide.reserve(c.rows_read * c.in);
    parallel(c.rows_read * c.in, 1 << 14, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) copy[n] = T(c.x[n]);
    });
    x = copy;
  }
  const Panels<T> panels(c.group_out(), c.groups);
  const Matrices<C> matrices(c, panels);
  const Tile<C> tile(c, x, matrices, panels);
  const int64_t number = panels.panels.size(), scratch_size = c.list.tile * panels.padded * c.groups;
  const int64_t split = c.list.num_tiles < 8 ? number : 1;  // few tiles: their panels are tasks of their own
  for_tasks(c.list.num_tiles * split, parallel, [&](int64_t task) {
    static thread_local Buffer<T> scratch;
    const int64_t part = task % split;
    tile(task / split, number * part / split, number * (part + 1) / split, scratch.reserve(scratch_size));
  });
}

}  // namespace hepops::sparse
