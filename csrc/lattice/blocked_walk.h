#pragma once
// Walks through a blocked field (blocked.h): products of the links on them, a row of the product at a time, so that the
// row and its successor stay in registers while links stream in from the cache.
#ifndef __CUDACC__
#include "lattice/blocked_product.h"
#include "lattice/wilson.h"

namespace hepops::lattice {

template <int N, class T>
struct Row {
  using P = core::PackedOf<T>;
  P re[N], im[N];
};

// Row i of M, or of M^+.
template <bool dagger, int N, class T>
[[gnu::always_inline]] inline Row<N, T> row_of(const T* M, int i) {
  Row<N, T> row;
  core::unroll<N>(HEPOPS_UNROLLED(j) {
    row.re[j] = dagger ? re<N>(M, j, i) : re<N>(M, i, j);
    row.im[j] = dagger ? -im<N>(M, j, i) : im<N>(M, i, j);
  });
  return row;
}

// sum + a M, or sum + a M^+; from nothing where `fresh`
template <bool dagger, bool fresh = false, int N, class T>
[[gnu::always_inline]] inline void add_product(Row<N, T>& sum, const Row<N, T>& a, const T* M) {
  core::unroll<N>(HEPOPS_UNROLLED(k) {
    core::unroll<N>(HEPOPS_UNROLLED(j) {
      const auto x = dagger ? re<N>(M, j, k) : re<N>(M, k, j), y = dagger ? im<N>(M, j, k) : im<N>(M, k, j);
      if constexpr (fresh && k == 0) {
        sum.re[j] = a.re[k] * x;
        sum.im[j] = a.im[k] * x;
      } else {
        sum.re[j] += a.re[k] * x;
        sum.im[j] += a.im[k] * x;
      }
      if constexpr (dagger) {
        sum.re[j] += a.im[k] * y;
        sum.im[j] -= a.re[k] * y;
      } else {
        sum.re[j] -= a.im[k] * y;
        sum.im[j] += a.re[k] * y;
      }
    });
  });
}

template <bool dagger, int N, class T>
[[gnu::always_inline]] inline Row<N, T> times(const Row<N, T>& a, const T* M) {
  Row<N, T> product;
  add_product<dagger, true>(product, a, M);
  return product;
}

template <int N, class T>
[[gnu::always_inline]] inline Row<N, T> zero_row() {
  Row<N, T> row;
  core::unroll<N>(HEPOPS_UNROLLED(j) { row.re[j] = row.im[j] = 0.0; });
  return row;
}

// Where the blocks of a matrix that was turned are kept while a site is worked on.
template <int N, class T>
class Turned {
 public:
  static constexpr int most = 2 * staple_words * (most_dims - 1) * longest_staple + 16;
  explicit Turned() : memory_(int64_t(most) * 2 * N * N * Fold<T>::V), next_(memory_.get()) {}
  void clear() { next_ = memory_.get(); }

  // numbers of a block, as the lanes `by` further see them
  template <int M = 2 * N * N>
  [[gnu::always_inline]] const T* operator()(const Fold<T>& fold, const T* block, int by) {
    constexpr int V = Fold<T>::V;
    T* to = next_;
    next_ += M * V;
    const auto turn = fold.turn[by];
    for (int k = 0; k < M; ++k)
      core::PackedOf<T>(__builtin_shuffle(core::PackedOf<T>::load(block + k * V).v, turn)).store(to + k * V);
    return to;
  }

 private:
  core::Buffer<T> memory_;
  T* next_;
};

// A place of a walk: a block, and how far the lanes have turned on the way.
template <class T>
struct Place {
  const Fold<T>* fold;
  int64_t block;
  int64_t y[most_dims];
  int turn = 0;

  Place(const Fold<T>& fold, int64_t block) : fold(&fold), block(block) {
    for (int mu = 0; mu < fold.whole.dims; ++mu) y[mu] = fold.blocks.coordinate(block, mu);
  }
  [[gnu::always_inline]] void ahead(int mu) {
    const Lattice& blocks = fold->blocks;
    block += blocks.stride[mu];
    if (++y[mu] < blocks.extent[mu]) return;
    y[mu] = 0;
    block -= blocks.extent[mu] * blocks.stride[mu];
    turn = fold->ahead[mu][turn];
  }
  [[gnu::always_inline]] void behind(int mu) {
    const Lattice& blocks = fold->blocks;
    block -= blocks.stride[mu];
    if (--y[mu] >= 0) return;
    y[mu] += blocks.extent[mu];
    block += blocks.extent[mu] * blocks.stride[mu];
    turn = fold->behind[mu][turn];
  }
  void step(int mu, int steps) {
    for (; steps > 0; --steps) ahead(mu);
    for (; steps < 0; ++steps) behind(mu);
  }
};

// The links on a walk, found once for all rows. `slope` are those of a direction in which the field moves, or null;
// `scale` is what the product is multiplied by, or null for 1.
template <class T>
struct Path {
  const T *link[6], *slope[6], *scale;
};

template <int N, class T>
struct Field {
  const Fold<T>& fold;
  const T *U, *V;  // one group; V is the direction, or null

  // Follows a word from `place`.
  [[gnu::always_inline]] void find(Path<T>& path, Place<T> place, const Word& word, int mu, int nu,
                                   Turned<N, T>& turned) const {
#pragma GCC unroll 4
    for (int s = 0; s < word.length; ++s) {
      const int along = word.along(s, mu, nu);
      if (word.back(s)) place.behind(along);
      const int64_t offset = (place.block * fold.whole.dims + along) * (2 * N * N * fold.V);
      path.link[s] = place.turn ? turned(fold, U + offset, place.turn) : U + offset;
      if (V) path.slope[s] = place.turn ? turned(fold, V + offset, place.turn) : V + offset;
      if (!word.back(s) && s + 1 < word.length) place.ahead(along);
    }
  }
};

template <int N, class T>
[[gnu::always_inline]] inline Row<N, T> row_of(const T* M, bool dagger, int i) {
  return dagger ? row_of<true, N>(M, i) : row_of<false, N>(M, i);
}
template <int N, class T>
[[gnu::always_inline]] inline Row<N, T> times(const Row<N, T>& a, const T* M, bool dagger) {
  return dagger ? times<true>(a, M) : times<false>(a, M);
}

// Row i of the product of the first `length` links.
template <int N, class T>
[[gnu::always_inline]] inline Row<N, T> row_of(const Path<T>& path, const Word& word, int length, int i) {
  Row<N, T> row = row_of<N>(path.link[0], word.back(0), i);
#pragma GCC unroll 3
  for (int s = 1; s < length; ++s) row = times<N>(row, path.link[s], word.back(s));
  return row;
}

// The same with its slope: (a + a') (M + M') = a M + (a' M + a M')
template <int N, class T>
[[gnu::always_inline]] inline void row_and_slope(const Path<T>& path, const Word& word, int i, Row<N, T>& row,
                                                 Row<N, T>& slope) {
  row = row_of<N>(path.link[0], word.back(0), i), slope = row_of<N>(path.slope[0], word.back(0), i);
  for (int s = 1; s < word.length; ++s) {
    slope = times<N>(slope, path.link[s], word.back(s));
    if (word.back(s))
      add_product<true>(slope, row, path.slope[s]);
    else
      add_product<false>(slope, row, path.slope[s]);
    row = times<N>(row, path.link[s], word.back(s));
  }
}

template <int N, class T>
[[gnu::always_inline]] inline void add(Row<N, T>& sum, const Row<N, T>& row, const T* scale) {
  if (!scale) {
    core::unroll<N>(HEPOPS_UNROLLED(j) { sum.re[j] += row.re[j], sum.im[j] += row.im[j]; });
  } else {
    const auto s = core::PackedOf<T>::load(scale);
    core::unroll<N>(HEPOPS_UNROLLED(j) { sum.re[j] += s * row.re[j], sum.im[j] += s * row.im[j]; });
  }
}

template <int N, class T>
[[gnu::always_inline]] inline void store(const Row<N, T>& row, T* M, int i) {
  constexpr int V = Fold<T>::V;
  core::unroll<N>(
      HEPOPS_UNROLLED(j) { row.re[j].store(M + 2 * (i * N + j) * V), row.im[j].store(M + (2 * (i * N + j) + 1) * V); });
}

// The sum over planes of the products of paths, those of words 0 ... words - 1, and where `moving` of their slopes.
template <bool moving, int N, class T>
void sum_of_paths(const Path<T> (*paths)[staple_words], int planes, int words, T* sum, T* slopes) {
  static constexpr StapleWords all;
  for (int i = 0; i < N; ++i) {
    Row<N, T> total = zero_row<N, T>(), total_slope = total;
    for (int p = 0; p < planes; ++p)
      for (int k = 0; k < words; ++k) {
        const Path<T>& path = paths[p][k];
        if constexpr (moving) {
          Row<N, T> row, slope;
          row_and_slope(path, all.word[k], i, row, slope);
          add(total, row, path.scale), add(total_slope, slope, path.scale);
        } else {
          add(total, row_of<N>(path, all.word[k], all.word[k].length, i), path.scale);
        }
      }
    store(total, sum, i);
    if constexpr (moving) store(total_slope, slopes, i);
  }
}

// Re tr of the product along a closed path, the last link of which goes back
template <int N, class T>
[[gnu::always_inline]] inline core::PackedOf<T> real_trace(const Path<T>& path, const Word& word) {
  core::PackedOf<T> trace = 0.0;
  const int last = word.length - 1;
  for (int i = 0; i < N; ++i) {
    const Row<N, T> row = row_of<N>(path, word, last, i);
    core::unroll<N>(HEPOPS_UNROLLED(j) {
      trace += row.re[j] * re<N>(path.link[last], i, j);
      trace += row.im[j] * im<N>(path.link[last], i, j);
    });
  }
  return trace;
}

}  // namespace hepops::lattice
#endif
