#pragma once
// What is made of staples (wilson_staples.h, the laws: wilson.h), for a Matrix and for blocked matrices.
#include "lattice/blocked_wilson.h"
#include "lattice/wilson.h"

namespace hepops::lattice {

// s TA(U A)
template <int N>
struct ForceRule {
  static constexpr bool moving = false;
  template <class M, class T>
  HEPOPS_HD M result(const M& U, const M& A, const M&, const M&, const T& s) const {
    return s * traceless_antihermitian(U * A);
  }
#ifndef __CUDACC__
  template <class T, class P>
  [[gnu::always_inline]] void block(const T* U, const T* A, const T*, const T*, const P& s, T* to) const {
    Block<N, T> product;
    multiply<N>(U, A, product.numbers);
    traceless_antihermitian<N>(product.numbers, s, to);
  }
#endif
};

// s A, or s A^+
template <int N, bool dagger>
struct StapleRule {
  static constexpr bool moving = false;
  template <class M, class T>
  HEPOPS_HD M result(const M&, const M& A, const M&, const M&, const T& s) const {
    return s * (dagger ? adjoint(A) : A);
  }
#ifndef __CUDACC__
  template <class T, class P>
  [[gnu::always_inline]] void block(const T*, const T* A, const T*, const T*, const P& s, T* to) const {
    if constexpr (dagger) return adjoint<N>(A, s, to);
    for (int k = 0; k < Block<N, T>::size; k += P::size) (s * P::load(A + k)).store(to + k);
  }
#endif
};

// s DA^+
template <int N>
struct HessianRule {
  static constexpr bool moving = true;
  template <class M, class T>
  HEPOPS_HD M result(const M&, const M&, const M& DA, const M&, const T& s) const {
    return s * adjoint(DA);
  }
#ifndef __CUDACC__
  template <class T, class P>
  [[gnu::always_inline]] void block(const T*, const T*, const T* DA, const T*, const P& s, T* to) const {
    adjoint<N>(DA, s, to);
  }
#endif
};

// The backward of F = s TA(U A), L = Re tr(G^+ F): with X = s TA(G) and W = X^+ U,
//   dL = Re tr(X^+ dU A) + Re tr(W dA), and the sum over links of the second is that of Re tr(dU DA[W]), since the
//   bracket's second derivative is symmetric:   grad_U = X A^+ + DA[W]^+
template <int N>
struct ForceBackwardRule {
  static constexpr bool moving = true;
  template <class M, class T>
  HEPOPS_HD M result(const M&, const M& A, const M& DA, const M& X, const T&) const {
    return X * adjoint(A) + adjoint(DA);
  }
#ifndef __CUDACC__
  template <class T, class P>
  [[gnu::always_inline]] void block(const T*, const T* A, const T* DA, const T* X, const P&, T* to) const {
    adjoint<N>(DA, P(1.0), to);
    for (int i = 0; i < N; ++i) {
      Row<N, T> row = row_of<false, N>(to, i);
      add_product<true>(row, row_of<false, N>(X, i), A);
      store(row, to, i);
    }
  }
#endif
};

// X = s TA(G) and W = X^+ U, link by link
template <class S, class T, int N>
struct ForceSeeds {
  const S *G, *U;
  S *X, *W;
  double scale;

  HEPOPS_HD void operator()(int64_t link) const {
    const auto x = T(scale) * traceless_antihermitian(Links<S, T, N>::load(G, link));
    store(x, X, link);
    store(adjoint(x) * Links<S, T, N>::load(U, link), W, link);
  }
};

}  // namespace hepops::lattice
