#pragma once
// A convolution that keeps the channels apart, over a list of pairs.
//
//   y[schedule[p], c] = b_c + sum over k and the pairs (r, p) under k of x[r, c] W[kk, c]        kk = k, or K-1-k
//
// Its input gradient is the same sum over the other list; that of its weight a sum over the pairs, by ascending tile,
// entry and place.
#include "sparse/weight_gradient.h"

namespace hepops::sparse {

template <class Stored, class Weight, class Index>
struct Depthwise {
  using S = Stored;
  using W = Weight;
  using T = Wide<S>;
  const S* x;       // (rows read, channels)
  const W* weight;  // (volume, channels)
  const T* bias;    // (channels), or nullptr
  PairList<Index> list;
  int64_t volume, channels;
  bool flip;
  S* y;  // (rows written, channels)

  HEPOPS_HD int64_t matrix(int64_t k) const { return flip ? volume - 1 - k : k; }

  // n = place * channels + c
  HEPOPS_HD void operator()(int64_t n) const {
    const int64_t place = n / channels, c = n % channels, tile = place / list.tile;
    T sum = 0;
    for (int64_t e = list.tiles[tile]; e < list.tiles[tile + 1]; ++e) {
      const int64_t last = list.entries[e + 1].first;
      const int64_t p = find_place(list.pairs, list.entries[e].first, last, place);
      if (p == last || list.pairs[p].place != place) continue;
      sum += T(x[list.pairs[p].row * channels + c]) * T(weight[matrix(list.entries[e].offset) * channels + c]);
    }
    y[list.schedule[place] * channels + c] = S(bias ? sum + bias[c] : sum);
  }
};

template <class Stored, class Index>
struct DepthwiseGradient {
  using S = Stored;
  using T = Wide<S>;
  const S* x;     // (rows read, channels)
  const S* grad;  // (rows written, channels)
  PairList<Index> list;
  T* gradient;  // (volume, channels)
  int64_t volume, channels;
  bool flip;

  // n = kk * channels + c
  HEPOPS_HD void operator()(int64_t n) const {
    const int64_t c = n % channels, kk = n / channels, k = flip ? volume - 1 - kk : kk;
    T sum = 0;
    for (int64_t t = 0; t < list.num_tiles; ++t) {
      const int64_t e = find_entry(list, t, k);
      if (e == list.tiles[t + 1] || list.entries[e].offset != k) continue;
      T part = 0;
      for (int64_t p = list.entries[e].first; p < list.entries[e + 1].first; ++p) {
        const auto [row, place] = list.pairs[p];
        part += T(x[row * channels + c]) * T(grad[list.schedule[place] * channels + c]);
      }
      sum += part;
    }
    gradient[n] = sum;
  }
};

// On the host a tile is done at a time, a row of channels at a time: the same sums, in the same order.
template <class S, class W, class I>
void depthwise_tile(const Depthwise<S, W, I>& f, int64_t tile, Wide<S>* sums) {
  using T = Wide<S>;
  const int64_t C = f.channels, first = f.list.first_place(tile), last = f.list.last_place(tile);
  for (int64_t n = 0; n < (last - first) * C; ++n) sums[n] = 0;
  for (int64_t e = f.list.tiles[tile]; e < f.list.tiles[tile + 1]; ++e) {
    const W* w = f.weight + f.matrix(f.list.entries[e].offset) * C;
    for (int64_t p = f.list.entries[e].first; p < f.list.entries[e + 1].first; ++p) {
      const S* x = f.x + f.list.pairs[p].row * C;
      T* sum = sums + (f.list.pairs[p].place - first) * C;
#pragma GCC ivdep
      for (int64_t c = 0; c < C; ++c) sum[c] += T(x[c]) * T(w[c]);
    }
  }
  for (int64_t place = first; place < last; ++place) {
    S* y = f.y + f.list.schedule[place] * C;
    const T* sum = sums + (place - first) * C;
    for (int64_t c = 0; c < C; ++c) y[c] = S(f.bias ? sum[c] + f.bias[c] : sum[c]);
  }
}

// All tiles' entries of one offset, for the gradient's row kk; `part` holds a row.
template <class S, class I>
void depthwise_gradient_row(const DepthwiseGradient<S, I>& f, int64_t kk, Wide<S>* part) {
  using T = Wide<S>;
  const int64_t C = f.channels, k = f.flip ? f.volume - 1 - kk : kk;
  T* sum = f.gradient + kk * C;
  for (int64_t c = 0; c < C; ++c) sum[c] = 0;
  for (int64_t t = 0; t < f.list.num_tiles; ++t) {
    const int64_t e = find_entry(f.list, t, k);
    if (e == f.list.tiles[t + 1] || f.list.entries[e].offset != k) continue;
    for (int64_t c = 0; c < C; ++c) part[c] = 0;
    for (int64_t p = f.list.entries[e].first; p < f.list.entries[e + 1].first; ++p) {
      const S* x = f.x + f.list.pairs[p].row * C;
      const S* grad = f.grad + f.list.schedule[f.list.pairs[p].place] * C;
#pragma GCC ivdep
      for (int64_t c = 0; c < C; ++c) part[c] += T(x[c]) * T(grad[c]);
    }
    for (int64_t c = 0; c < C; ++c) sum[c] += part[c];
  }
}

}  // namespace hepops::sparse
