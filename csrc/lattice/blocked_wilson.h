#pragma once
// Sums of staples, forces and loops of a blocked gauge field (the laws: wilson.h).
#ifndef __CUDACC__
#include <vector>

#include "core/double_double.h"
#include "lattice/blocked_walk.h"

namespace hepops::lattice {

// The weights of loops, one for each site and plane, or the numbers c0 and c1 alone.
template <class T>
struct Weights {
  static constexpr int V = Fold<T>::V;
  alignas(64) T plaquette[V], rectangle[V];
  const T* field = nullptr;  // blocked, (blocks, planes [+ D (D - 1) oriented rectangles], V)
  int components = 0;
  bool unit, rectangles;

  explicit Weights(const Coefficients& c) : unit(c.plaquette == 1), rectangles(c.rectangle != 0) {
    for (int lane = 0; lane < V; ++lane) plaquette[lane] = T(c.plaquette), rectangle[lane] = T(c.rectangle);
  }
  int words() const { return rectangles ? staple_words : plaquette_words; }

  // of the loop that a word of U_mu(x) closes
  template <int N>
  const T* of(const Word& word, const Place<T>& x, int mu, int nu, Turned<N, T>& turned) const {
    if (!field) return word.loop != plaquette_loop ? rectangle : unit ? nullptr : plaquette;
    Place<T> base = x;
    base.step(mu, word.along_mu), base.step(nu, word.along_nu);
    const int D = x.fold->whole.dims, a = word.loop == tall_loop ? nu : mu, b = word.loop == tall_loop ? mu : nu;
    const int component = word.loop == plaquette_loop ? plane(std::min(mu, nu), std::max(mu, nu), D)
                                                      : components - D * (D - 1) + a * (D - 1) + b - (b > a);
    const T* weight = field + (base.block * components + component) * V;
    return base.turn ? turned.template operator()<1>(*x.fold, weight, base.turn) : weight;
  }
};

// The links of the plaquettes around a site, each found (and turned) once for the staples of all directions.
template <int N, class T>
struct Around {
  const T* here[most_dims];               // U_mu(x)
  const T* ahead[most_dims][most_dims];   // U_nu(x + mu)
  const T* behind[most_dims][most_dims];  // U_nu(x - mu)
  const T* corner[most_dims][most_dims];  // U_nu(x + mu - nu)

  Around(const Field<N, T>& field, const Place<T>& x, Turned<N, T>& turned) {
    const int D = field.fold.whole.dims;
    const auto link = [&](const Place<T>& place, int nu) {
      const T* at = field.U + (place.block * D + nu) * (2 * N * N * field.fold.V);
      return place.turn ? turned(field.fold, at, place.turn) : at;
    };
    turned.clear();
    for (int mu = 0; mu < D; ++mu) {
      Place<T> up = x, down = x;
      up.ahead(mu), down.behind(mu);
      here[mu] = link(x, mu);
      for (int nu = 0; nu < D; ++nu) {
        behind[mu][nu] = link(down, nu);
        if (nu == mu) continue;
        Place<T> beside = up;
        beside.behind(nu);
        ahead[mu][nu] = link(up, nu), corner[mu][nu] = link(beside, nu);
      }
    }
  }
};

// The products that staples of several directions share: U_nu(x + mu) U_mu(x + nu)^+ of mu < nu
template <int N, class T>
struct Corners {
  Block<N, T> product[most_dims * (most_dims - 1) / 2];

  [[gnu::noinline]] void fill(const Around<N, T>& at, int D) {
    for (int mu = 0; mu < D; ++mu)
      for (int nu = mu + 1; nu < D; ++nu)
        multiply<N, false, true>(at.ahead[mu][nu], at.ahead[nu][mu], product[plane(mu, nu, D)].numbers);
  }
};

// s A_mu(x) of plaquettes alone
template <int N, class T>
[[gnu::noinline]] void staple_sum(const Around<N, T>& at, const Corners<N, T>& corners, int D, int mu, const T* s,
                                  T* sum) {
  Block<N, T> below[most_dims];  // U_mu(x - nu)^+ U_nu(x - nu)
  for (int nu = 0; nu < D; ++nu)
    if (nu != mu) multiply<N, true, false>(at.behind[nu][mu], at.behind[nu][nu], below[nu].numbers);
  for (int first = 0; first < N; first += Rows<N, T>::R) {
    Rows<N, T> rows;
    for (int nu = 0; nu < D; ++nu) {
      if (nu == mu) continue;
      const T* corner = corners.product[plane(std::min(mu, nu), std::max(mu, nu), D)].numbers;
      if (mu < nu)
        rows.template add<false, true>(corner, at.here[nu], first);
      else
        rows.template add<true, true>(corner, at.here[nu], first);
      rows.template add<true, false>(at.corner[mu][nu], below[nu].numbers, first);
    }
    rows.store(sum, first);
  }
  if (!s) return;
  const auto scale = core::PackedOf<T>::load(s);
  for (int k = 0; k < Block<N, T>::size; k += scale.size) (scale * core::PackedOf<T>::load(sum + k)).store(sum + k);
}

// A_mu(x), and where `moving` its slope.
template <bool rectangles, bool moving, int N, class T>
[[gnu::noinline]] void staple_sum(const Field<N, T>& field, const Place<T>& x, int mu, const Weights<T>& weights,
                                  Turned<N, T>& turned, T* sum, T* slopes) {
  static constexpr StapleWords words;
  Path<T> paths[most_dims - 1][staple_words];
  int planes = 0;
  turned.clear();
  Place<T> end = x;
  end.ahead(mu);
  const auto find = [&](int k, const Word& word, int nu) __attribute__((always_inline)) {
    field.find(paths[planes][k], end, word, mu, nu, turned);
    paths[planes][k].scale = weights.of(word, x, mu, nu, turned);
  };
  for (int nu = 0; nu < field.fold.whole.dims; ++nu) {
    if (nu == mu) continue;
    if constexpr (rectangles)
      for (int k = 0; k < staple_words; ++k) find(k, words.word[k], nu);
    else
      core::unroll<plaquette_words>(HEPOPS_UNROLLED(k) { find(k, words.word[k], nu); });
    ++planes;
  }
  sum_of_paths<moving, N>(paths, planes, rectangles ? staple_words : plaquette_words, sum, slopes);
}

// s TA(M)
template <int N, class T, class P = core::PackedOf<T>>
[[gnu::always_inline]] inline void traceless_antihermitian(const T* M, const P& s, T* to) {
  constexpr int V = Fold<T>::V;
  const P half = P(0.5) * s;
  P mean = 0.0;
  core::unroll<N>(HEPOPS_UNROLLED(i) { mean += im<N>(M, i, i); });
  mean *= P(1.0 / N) * s;
  core::unroll<N>(HEPOPS_UNROLLED(i) {
    P(0.0).store(to + 2 * (i * N + i) * V);
    (s * im<N>(M, i, i) - mean).store(to + (2 * (i * N + i) + 1) * V);
    core::unroll<i>(HEPOPS_UNROLLED(j) {
      const P real = half * (re<N>(M, i, j) - re<N>(M, j, i)), imag = half * (im<N>(M, i, j) + im<N>(M, j, i));
      real.store(to + 2 * (i * N + j) * V), imag.store(to + (2 * (i * N + j) + 1) * V);
      (-real).store(to + 2 * (j * N + i) * V), imag.store(to + (2 * (j * N + i) + 1) * V);
    });
  });
}

// s M^+
template <int N, class T, class P = core::PackedOf<T>>
[[gnu::always_inline]] inline void adjoint(const T* M, const P& scale, T* to) {
  constexpr int V = Fold<T>::V;
  core::unroll<N>(HEPOPS_UNROLLED(i) {
    core::unroll<N>(HEPOPS_UNROLLED(j) {
      (scale * re<N>(M, j, i)).store(to + 2 * (i * N + j) * V);
      (-scale * im<N>(M, j, i)).store(to + (2 * (i * N + j) + 1) * V);
    });
  });
}

// Re tr(A B)
template <int N, class T>
[[gnu::always_inline]] inline core::PackedOf<T> real_trace_of_product(const T* A, const T* B) {
  core::PackedOf<T> trace = 0.0;
  core::unroll<N>(HEPOPS_UNROLLED(i) {
    core::unroll<N>(HEPOPS_UNROLLED(j) {
      trace += re<N>(A, i, j) * re<N>(B, j, i);
      trace -= im<N>(A, i, j) * im<N>(B, j, i);
    });
  });
  return trace;
}

// For every link of some blocks of one group: finish(block, mu, A, its slope), called in order.
template <bool rectangles, bool moving, int N, class T, class Finish>
void for_staples(const Field<N, T>& field, const Weights<T>& weights, int64_t first, int64_t last,
                 const Finish& finish) {
  Turned<N, T> turned;
  Corners<N, T> corners;
  Block<N, T> sum, slope;
  for (int64_t n = first; n < last; ++n) {
    const int64_t block = field.fold.visit(n);
    const Place<T> x(field.fold, block);
    if constexpr (!rectangles && !moving)
      if (!weights.field) {
        const Around<N, T> around(field, x, turned);
        corners.fill(around, field.fold.whole.dims);
        for (int mu = 0; mu < field.fold.whole.dims; ++mu) {
          staple_sum(around, corners, field.fold.whole.dims, mu, weights.unit ? nullptr : weights.plaquette,
                     sum.numbers);
          finish(block, mu, sum.numbers, slope.numbers);
        }
        continue;
      }
    for (int mu = 0; mu < field.fold.whole.dims; ++mu) {
      staple_sum<rectangles, moving>(field, x, mu, weights, turned, sum.numbers, slope.numbers);
      finish(block, mu, sum.numbers, slope.numbers);
    }
  }
}
template <bool moving, int N, class T, class Finish>
void for_staples(const Field<N, T>& field, const Weights<T>& weights, int64_t first, int64_t last,
                 const Finish& finish) {
  if (weights.rectangles)
    for_staples<true, moving>(field, weights, first, last, finish);
  else
    for_staples<false, moving>(field, weights, first, last, finish);
}

// Re tr of P_mu,nu(x), or of R_mu,nu(x)
template <bool rectangle, int N, class T>
[[gnu::noinline]] core::PackedOf<T> loop_trace(const Field<N, T>& field, const Place<T>& x, int mu, int nu,
                                               Turned<N, T>& turned) {
  static constexpr Word word = LoopWords{}.word[rectangle];
  Path<T> path;
  turned.clear();
  field.find(path, x, word, mu, nu, turned);
  if constexpr (!rectangle) return trace_of_plaquette<N>(path.link[0], path.link[1], path.link[2], path.link[3]);
  return real_trace<N>(path, word);
}

// finish(block, loop number, Re tr): plaquettes in the order of planes, then rectangles R_mu,nu in the order of (mu,
// nu)
template <int N, class T, class Finish>
void for_loops(const Field<N, T>& field, bool rectangles, int64_t first, int64_t last, const Finish& finish) {
  const int D = field.fold.whole.dims;
  Turned<N, T> turned;
  for (int64_t n = first; n < last; ++n) {
    const int64_t block = field.fold.visit(n);
    const Place<T> x(field.fold, block);
    int number = 0;
    for (int mu = 0; mu < D; ++mu)
      for (int nu = mu + 1; nu < D; ++nu) finish(block, number++, loop_trace<false>(field, x, mu, nu, turned));
    for (int mu = 0; mu < D && rectangles; ++mu)
      for (int nu = 0; nu < D; ++nu)
        if (nu != mu) finish(block, number++, loop_trace<true>(field, x, mu, nu, turned));
  }
}

// Sums of what the sites of a configuration bring, in chunks of blocks of fixed length, lane by lane: one order for any
// number of threads and any batch. A is double or DoubleDouble.
constexpr int64_t sum_chunk_blocks = 32;

template <class A, class T>
struct LaneSums {
  static constexpr int V = Fold<T>::V;
  A sum[V] = {};
  void add(const core::PackedOf<T>& x) {
    alignas(64) T numbers[V];
    x.store(numbers);
#pragma GCC ivdep
    for (int lane = 0; lane < V; ++lane) sum[lane] = sum[lane] + double(numbers[lane]);
  }
};

// body(first, last, sums) for the chunks of one group; total[config] receives scale times the sum.
template <class A, class T, class Parallel, class Body>
void sum_blocks(const Fold<T>& fold, int64_t group, int64_t batch, double scale, double* total,
                const Parallel& parallel, const Body& body) {
  const int64_t blocks = fold.blocks.sites, chunks = (blocks + sum_chunk_blocks - 1) / sum_chunk_blocks;
  std::vector<LaneSums<A, T>> partial(chunks);
  parallel(chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      LaneSums<A, T> sums;
      body(c * sum_chunk_blocks, std::min((c + 1) * sum_chunk_blocks, blocks), sums);
      partial[c] = sums;
    }
  });
  const int lanes = fold.V / fold.configs;
  for (int config = 0; config < fold.configs && group * fold.configs + config < batch; ++config) {
    A sum = 0.0;
    for (int lane = config * lanes; lane < (config + 1) * lanes; ++lane)
      for (const auto& part : partial) sum = sum + part.sum[lane];
    total[group * fold.configs + config] = scale * double(sum);
  }
}

// scale times the bracket (wilson.h) of the configurations of a group
template <int N, class A, class T, class Parallel>
void sum_of_loops(const Field<N, T>& field, int64_t group, int64_t batch, const Coefficients& c, double scale,
                  double* total, const Parallel& parallel) {
  using P = core::PackedOf<T>;
  const int D = field.fold.whole.dims, planes = D * (D - 1) / 2;
  sum_blocks<A>(field.fold, group, batch, scale, total, parallel, [&](int64_t first, int64_t last, auto& sums) {
    for_loops<N>(field, c.rectangle != 0, first, last, [&](int64_t, int loop, const P& trace) {
      sums.add(P(loop < planes ? c.plaquette : c.rectangle) * trace);
    });
  });
}

}  // namespace hepops::lattice
#endif
