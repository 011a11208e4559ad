#pragma once
// A convolution over one list of a kernel map, and what may follow it while its tile is at hand.
//
//   y[schedule[p]] = sum over k and the pairs (r, p) under k of x[r] M_k
//   M_k = W[kk], or its transpose; kk = k, or K-1-k where `flip`ped
//
//   v = y + bias + residual,   raw = v,   activated = act(scale v + shift),   act(z) = z > 0 ? z : slope z
//   moments[t] = mean of raw over the rows of tile t, and the sum of its squared distances from that mean
//
// Groups: W (K, A, B) has A = channels of a group that W's forward use reads, B = all that it writes; group g maps its
// slice of the channels to its slice. Here stands the plain form: a sum for each row and channel, in ascending k. It is
// the oracle of convolve_cpu.h and convolve_cuda.cuh, and what runs where they do not.
#include <cstdint>

#include "core/host_device.h"
#include "sparse/pairs.h"

namespace hepops::sparse {

// What is stored as S is added up in Wide<S>.
template <class S>
struct WideOf {
  using type = float;
};
template <>
struct WideOf<double> {
  using type = double;
};
template <class S>
using Wide = typename WideOf<S>::type;

// nullptr for what is not wanted
template <class S>
struct Epilogue {
  using T = Wide<S>;
  const T* bias;      // (out)
  const S* residual;  // (rows written, out)
  const T* scale;     // (out)
  const T* shift;     // (out)
  T slope;            // of the activation below 0; 1 for none
  S* raw;             // (rows written, out)
  S* activated;       // (rows written, out)
  double* moments;    // (tiles, 2, out): mean, M2; asked for together with raw

  // Returns v.
  HEPOPS_HD T operator()(int64_t row, int64_t out, int64_t channel, T sum) const {
    const int64_t at = row * out + channel;
    T v = sum;
    if (bias) v += bias[channel];
    if (residual) v += T(residual[at]);
    if (raw) raw[at] = S(v);
    if (activated) activated[at] = S(activate(v, channel));
    return v;
  }

  HEPOPS_HD T activate(T v, int64_t channel) const {
    const T z = (scale ? v * scale[channel] : v) + (shift ? shift[channel] : T(0));
    return z < 0 ? slope * z : z;  // NaN stays NaN
  }
};

template <class Stored, class Weight, class Index>
struct Convolution {
  using S = Stored;
  using W = Weight;
  using I = Index;
  using T = Wide<S>;
  const S* x;       // (rows read, in)
  const W* weight;  // (volume, A, B): (in / groups, out), or (out / groups, in) where transposed
  PairList<I> list;
  int64_t volume, rows_read, in, out, groups;
  bool flip, transposed;
  Epilogue<S> epilogue;
  bool tf32 = false;  // whether float32 may be multiplied in tf32, which only a GPU has

  HEPOPS_HD int64_t group_in() const { return in / groups; }
  HEPOPS_HD int64_t group_out() const { return out / groups; }
  HEPOPS_HD int64_t matrix_size() const { return in * out / groups; }
  HEPOPS_HD const W* matrix(int64_t k) const { return weight + (flip ? volume - 1 - k : k) * matrix_size(); }

  // M_k[i, o] of group g, with i and o counted within the group
  HEPOPS_HD W element(const W* matrix, int64_t g, int64_t i, int64_t o) const {
    return transposed ? matrix[o * in + g * group_in() + i] : matrix[i * out + g * group_out() + o];
  }
};

// The first of the ascending pairs [first, last) whose place is not below `place`.
template <class I>
HEPOPS_HD int64_t find_place(const Pair<I>* pairs, int64_t first, int64_t last, int64_t place) {
  while (first < last) {
    const int64_t middle = first + (last - first) / 2;
    if (pairs[middle].place < place)
      first = middle + 1;
    else
      last = middle;
  }
  return first;
}

// n = place * out + channel
template <class C>
struct ConvolveAt {
  using T = typename C::T;
  C c;

  HEPOPS_HD void operator()(int64_t n) const {
    const auto& list = c.list;
    const int64_t place = n / c.out, channel = n % c.out, tile = place / list.tile;
    const int64_t g = channel / c.group_out(), o = channel % c.group_out();
    T sum = 0;
    for (int64_t e = list.tiles[tile]; e < list.tiles[tile + 1]; ++e) {
      const int64_t last = list.entries[e + 1].first;
      const int64_t p = find_place(list.pairs, list.entries[e].first, last, place);
      if (p == last || list.pairs[p].place != place) continue;
      const auto* row = c.x + list.pairs[p].row * c.in + g * c.group_in();
      const auto* matrix = c.matrix(list.entries[e].offset);
      for (int64_t i = 0; i < c.group_in(); ++i) sum += T(row[i]) * T(c.element(matrix, g, i, o));
    }
    c.epilogue(list.schedule[place], c.out, channel, sum);
  }
};

// A linear layer: each row reads itself, through the one matrix. n = row * out + channel
template <class C>
struct LinearAt {
  using T = typename C::T;
  C c;

  HEPOPS_HD void operator()(int64_t n) const {
    const int64_t row = n / c.out, channel = n % c.out;
    T sum = 0;
    for (int64_t i = 0; i < c.in; ++i) sum += T(c.x[row * c.in + i]) * T(c.element(c.weight, 0, i, channel));
    c.epilogue(row, c.out, channel, sum);
  }
};

// n = tile * out + channel; reads raw, when all of it is written
template <class C>
struct MomentsAt {
  C c;

  HEPOPS_HD void operator()(int64_t n) const {
    const int64_t t = n / c.out, channel = n % c.out;
    const int64_t first = c.list.first_place(t), last = c.list.last_place(t);
    double sum = 0, squares = 0;
    for (int64_t p = first; p < last; ++p) sum += double(c.epilogue.raw[c.list.schedule[p] * c.out + channel]);
    const double mean = sum / double(last - first);
    for (int64_t p = first; p < last; ++p) {
      const double d = double(c.epilogue.raw[c.list.schedule[p] * c.out + channel]) - mean;
      squares += d * d;
    }
    c.epilogue.moments[2 * t * c.out + channel] = mean;
    c.epilogue.moments[(2 * t + 1) * c.out + channel] = squares;
  }
};

}  // namespace hepops::sparse
