#pragma once
// The gradient of a convolution (convolve.h) with respect to its weight.
//
//   dM_k = sum over the pairs (r, p) under k of x[r]^T g[schedule[p]];   dW[kk] = dM_k, or its transpose
//
// x is what the convolution read, g the gradient of what it wrote. The sum over the pairs runs by ascending tile, then
// by ascending place: it has one owner, no partial sums, and bits that do not depend on the number of threads. Here
// stands the plain form, the oracle of weight_gradient_cpu.h and weight_gradient_cuda.cuh.
#include "sparse/convolve.h"

namespace hepops::sparse {

template <class Stored, class Index>
struct WeightGradient {
  using S = Stored;
  using I = Index;
  using T = Wide<S>;
  const S* x;     // (rows read, in)
  const S* grad;  // (rows written, out)
  PairList<I> list;
  T* gradient;  // (volume, A, B) as Convolution::weight
  int64_t volume, rows_read, in, out, groups;
  bool flip, transposed;
  bool tf32 = false;  // as Convolution::tf32

  HEPOPS_HD int64_t group_in() const { return in / groups; }
  HEPOPS_HD int64_t group_out() const { return out / groups; }
  HEPOPS_HD int64_t matrix_size() const { return in * out / groups; }
  HEPOPS_HD T* matrix(int64_t k) const { return gradient + (flip ? volume - 1 - k : k) * matrix_size(); }
};

// The entry of offset k in a tile; entries[e].offset is another where there is none.
template <class I>
HEPOPS_HD int64_t find_entry(const PairList<I>& list, int64_t tile, int64_t k) {
  int64_t first = list.tiles[tile], last = list.tiles[tile + 1];
  while (first < last) {
    const int64_t middle = first + (last - first) / 2;
    if (list.entries[middle].offset < k)
      first = middle + 1;
    else
      last = middle;
  }
  return first;
}

// n counts the elements of the gradient; every one of them is written.
template <class G>
struct WeightGradientAt {
  using T = typename G::T;
  G f;

  HEPOPS_HD void operator()(int64_t n) const {
    const auto& list = f.list;
    const int64_t columns = f.transposed ? f.in : f.out;
    const int64_t kk = n / f.matrix_size(), a = n % f.matrix_size() / columns, b = n % columns;
    const int64_t k = f.flip ? f.volume - 1 - kk : kk;
    const int64_t per_group = columns / f.groups, g = b / per_group;
    const int64_t i = f.transposed ? b : g * f.group_in() + a;
    const int64_t o = f.transposed ? g * f.group_out() + a : b;
    T sum = 0;
    for (int64_t t = 0; t < list.num_tiles; ++t) {
      const int64_t e = find_entry(list, t, k);
      if (e == list.tiles[t + 1] || list.entries[e].offset != k) continue;
      for (int64_t p = list.entries[e].first; p < list.entries[e + 1].first; ++p)
        sum += T(f.x[list.pairs[p].row * f.in + i]) * T(f.grad[list.schedule[list.pairs[p].place] * f.out + o]);
    }
    f.gradient[n] = sum;
  }
};

// A linear layer, where each row reads itself.
template <class G>
struct LinearGradientAt {
  using T = typename G::T;
  G f;

  HEPOPS_HD void operator()(int64_t n) const {
    const int64_t columns = f.transposed ? f.in : f.out, a = n / columns, b = n % columns;
    const int64_t i = f.transposed ? b : a, o = f.transposed ? a : b;
    T sum = 0;
    for (int64_t row = 0; row < f.list.num_rows; ++row) sum += T(f.x[row * f.in + i]) * T(f.grad[row * f.out + o]);
    f.gradient[n] = sum;
  }
};

}  // namespace hepops::sparse
