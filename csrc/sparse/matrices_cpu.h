#pragma once
// The matrices M_k as the kernels of blocks_cpu.h read them: each row a vector's width past its end.
//
// In place where they can be; else packed, group after group (rows of a group, its channels padded to whole vectors):
// transposed, widened, or narrowed to bfloat16 with the rows interleaved by twos. Only those in use are packed.
#include <vector>

#include "sparse/blocks_cpu.h"

namespace hepops::sparse {

template <class X>
class Matrices {
 public:
  template <class C, class Parallel>
  Matrices(const C& c, const Panels<X>& panels, const Parallel& parallel) : volume_(c.volume), flip_(c.flip) {
    using W = typename C::W;
    if constexpr (std::is_same_v<W, X>) {
      if (!c.transposed) {
        base_ = c.weight;
        size_ = c.matrix_size();
        stride_ = c.out;
        group_ = c.group_out();
        if (group_ % panels.lanes) guard(panels.lanes);
        return;
      }
    }
    size_ = c.in * panels.padded;
    stride_ = (std::is_same_v<X, Brain> ? 2 : 1) * panels.padded;
    group_ = c.group_in() * panels.padded;
    const int64_t used = number(c.list);
    base_ = buffer_.reserve(used * size_);
    const int64_t grain = 1 + (int64_t(1) << 14) / (1 + size_);
    parallel(volume_, grain, [&](int64_t first, int64_t last) {
      for (int64_t kk = first; kk < last; ++kk)
        if (slot_[kk] >= 0)
          for (int64_t g = 0; g < c.groups; ++g)
            pack(c, c.weight + kk * c.matrix_size(), g, panels.padded, buffer_.get() + slot_[kk] * size_ + g * group_);
    });
  }

  // Row 0 of M_k for a group
  const X* operator()(int64_t k, int64_t group) const {
    const int64_t kk = flip_ ? volume_ - 1 - k : k;
    return (kk == guarded_ ? buffer_.get() : base_ + (slot_.empty() ? kk : slot_[kk]) * size_) + group * group_;
  }
  int64_t stride() const { return stride_; }

 private:
  // The last matrix is followed by nothing: it is copied, with zeros after it.
  void guard(int64_t lanes) {
    guarded_ = volume_ - 1;
    X* copy = buffer_.reserve(size_ + lanes);
    std::copy_n(base_ + guarded_ * size_, size_, copy);
    std::fill_n(copy + size_, lanes, X{});
  }

  // Gives each matrix in use its place.
  template <class I>
  int64_t number(const PairList<I>& list) {
    slot_.assign(volume_, -1);
    int64_t used = 0;
    if (!list.entries) return slot_[0] = 0, 1;
    for (int64_t e = 0; e < list.num_entries; ++e) {
      const int64_t k = list.entries[e].offset;
      int64_t& slot = slot_[flip_ ? volume_ - 1 - k : k];
      if (slot < 0) slot = used++;
    }
    return used;
  }

  template <class W>
  static X stored(W w) {
    if constexpr (std::is_same_v<X, Brain>)
      return to_brain(w);
    else
      return X(w);
  }

  template <class C, class W>
  static void pack(const C& c, const W* from, int64_t g, int64_t padded, X* to) {
    const int64_t in = c.group_in(), out = c.group_out();
    // Element (i, o) of the group is from[i * down + o * across].
    const int64_t down = c.transposed ? 1 : c.out, across = c.transposed ? c.in : 1;
    from += g * (c.transposed ? in : out);
    if constexpr (std::is_same_v<X, Brain>) {
      for (int64_t i = 0; i < in; i += 2, to += 2 * padded) {
        for (int64_t o = 0; o < out; ++o)
          for (int64_t n = 0; n < 2; ++n) to[2 * o + n] = stored(from[(i + n) * down + o * across]);
        std::fill_n(to + 2 * out, 2 * (padded - out), X{});
      }
    } else {
      constexpr int64_t step = 16;  // columns at a time, whose lines the first-level cache holds
      for (int64_t o = 0; o < out; o += step)
        for (int64_t i = 0; i < in; ++i) {
          X* row = to + i * padded + o;
          const W* column = from + i * down + o * across;
          if (o + step <= out)
            for (int64_t n = 0; n < step; ++n) row[n] = stored(column[n * across]);
          else
            for (int64_t n = 0; n < padded - o; ++n) row[n] = o + n < out ? stored(column[n * across]) : X{};
        }
    }
  }

  int64_t volume_, size_ = 0, stride_ = 0, group_ = 0, guarded_ = -1;
  bool flip_;
  const X* base_ = nullptr;
  std::vector<int64_t> slot_;  // of each matrix that is packed
  Buffer<X> buffer_;
};

}  // namespace hepops::sparse
