#pragma once
// Products of blocked matrices (blocked.h) as sums of outer products: with 32 registers the whole result stays in them
// and each number of the factors is loaded once; with fewer, a row of it at a time.
#ifndef __CUDACC__
#include "core/simd.h"
#include "lattice/blocked.h"

namespace hepops::lattice {

template <int N, class T>
struct alignas(64) Block {
  static constexpr int V = Fold<T>::V, size = 2 * N * N * V;
  T numbers[size];
};

// Entry (i, j) of a blocked matrix.
template <int N, class T>
[[gnu::always_inline]] inline core::PackedOf<T> re(const T* M, int i, int j) {
  return core::PackedOf<T>::load(M + 2 * (i * N + j) * Fold<T>::V);
}
template <int N, class T>
[[gnu::always_inline]] inline core::PackedOf<T> im(const T* M, int i, int j) {
  return core::PackedOf<T>::load(M + (2 * (i * N + j) + 1) * Fold<T>::V);
}

#ifdef __AVX512F__
template <int N>
constexpr int rows_at_once = N;
#else
template <int N>
constexpr int rows_at_once = 1;
#endif

// Some rows of a sum of products.
template <int N, class T>
struct Rows {
  static constexpr int R = rows_at_once<N>, V = Fold<T>::V;
  using P = core::PackedOf<T>;
  P re[R][N], im[R][N];

  [[gnu::always_inline]] Rows() {
    core::unroll<R>(HEPOPS_UNROLLED(i) { core::unroll<N>(HEPOPS_UNROLLED(j) { re[i][j] = im[i][j] = 0.0; }); });
  }

  // += rows `first` ... of A B, or of A^+ and B^+
  template <bool dagger_a, bool dagger_b>
  [[gnu::always_inline]] void add(const T* A, const T* B, int first) {
    core::unroll<N>(HEPOPS_UNROLLED(k) {
      P ar[R], ai[R];
      core::unroll<R>(HEPOPS_UNROLLED(i) {
        ar[i] = dagger_a ? lattice::re<N>(A, k, first + i) : lattice::re<N>(A, first + i, k);
        ai[i] = dagger_a ? lattice::im<N>(A, k, first + i) : lattice::im<N>(A, first + i, k);
      });
      core::unroll<N>(HEPOPS_UNROLLED(j) {
        const P br = dagger_b ? lattice::re<N>(B, j, k) : lattice::re<N>(B, k, j);
        const P bi = dagger_b ? lattice::im<N>(B, j, k) : lattice::im<N>(B, k, j);
        core::unroll<R>(HEPOPS_UNROLLED(i) {
          re[i][j] += ar[i] * br;
          if constexpr (dagger_b)
            im[i][j] -= ar[i] * bi;
          else
            im[i][j] += ar[i] * bi;
        });
        core::unroll<R>(HEPOPS_UNROLLED(i) {
          if constexpr (dagger_a == dagger_b)
            re[i][j] -= ai[i] * bi;
          else
            re[i][j] += ai[i] * bi;
          if constexpr (dagger_a)
            im[i][j] -= ai[i] * br;
          else
            im[i][j] += ai[i] * br;
        });
      });
    });
  }

  [[gnu::always_inline]] void store(T* M, int first) const {
    core::unroll<R>(HEPOPS_UNROLLED(i) {
      core::unroll<N>(HEPOPS_UNROLLED(j) {
        re[i][j].store(M + 2 * ((first + i) * N + j) * V), im[i][j].store(M + (2 * ((first + i) * N + j) + 1) * V);
      });
    });
  }
};

// A B, or of A^+ and B^+
template <int N, bool dagger_a = false, bool dagger_b = false, class T>
[[gnu::always_inline]] inline void multiply(const T* A, const T* B, T* product) {
  for (int first = 0; first < N; first += Rows<N, T>::R) {
    Rows<N, T> rows;
    rows.template add<dagger_a, dagger_b>(A, B, first);
    rows.store(product, first);
  }
}

// Re tr(A B C^+ D^+) of C^+ D^+ = (D C)^+
template <int N, class T>
[[gnu::always_inline]] inline core::PackedOf<T> trace_of_plaquette(const T* A, const T* B, const T* C, const T* D) {
  Block<N, T> left;
  multiply<N>(A, B, left.numbers);
  core::PackedOf<T> trace[N];
  core::unroll<N>(HEPOPS_UNROLLED(j) { trace[j] = 0.0; });
  for (int first = 0; first < N; first += Rows<N, T>::R) {
    Rows<N, T> rows;
    rows.template add<false, false>(D, C, first);
    core::unroll<Rows<N, T>::R>(HEPOPS_UNROLLED(i) {
      core::unroll<N>(HEPOPS_UNROLLED(j) {
        trace[j] += rows.re[i][j] * re<N>(left.numbers, first + i, j);
        trace[j] += rows.im[i][j] * im<N>(left.numbers, first + i, j);
      });
    });
  }
  core::unroll<N - 1>(HEPOPS_UNROLLED(j) { trace[0] += trace[j + 1]; });
  return trace[0];
}

}  // namespace hepops::lattice
#endif
