#pragma once
// Wilson's gauge action, and those improved by rectangles, of links U_mu(x), which join x and x + mu:
//
//   P_mu,nu(x) = U_mu(x) U_nu(x+mu) U_mu(x+nu)^+ U_nu(x)^+,   R_mu,nu the same with two links along mu
//   S = -(beta/N) [c0 sum_{x, mu < nu} Re tr P + c1 sum_{x, mu != nu} Re tr R],   c0 = 1 - 8 c1
//   M. Luscher, P. Weisz, Commun. Math. Phys. 97 (1985) 59 (c1 = -1/12); Y. Iwasaki, arXiv:1111.7054 (c1 = -0.331)
//
//   A_mu(x)   Re tr(U_mu(x) A_mu(x)) are those terms of the bracket that hold U_mu(x)
//   F = (beta/2N) TA(U A),   TA(M) = (M - M^+)/2 - tr(M - M^+)/2N
//   dS/dRe U + i dS/dIm U = -(beta/N) A^+, each entry of a link for itself
//
// The terms are closed walks on the lattice, and A sums walks from x + mu back to x: they are written as words.
//
// This is the plain form, a matrix at a time: that of the GPU, and the oracle of blocked.h.
#include "core/block.h"
#include "core/dual.h"
#include "core/matrix.h"
#include "lattice/geometry.h"

namespace hepops::lattice {

using core::Complex, core::Dual, core::Matrix;

// Which loop a walk is part of: the plaquette, R_mu,nu (wide: two links along mu) or R_nu,mu (tall).
enum Loop { plaquette_loop, wide_loop, tall_loop };

struct Word {
  int length;
  int step[6];             // 1 ahead along mu, -1 back along it; 2 and -2 along nu
  int loop;                // which loop it closes with U_mu(x),
  int along_mu, along_nu;  // and where that one begins, seen from x

  HEPOPS_HD constexpr bool back(int s) const { return step[s] < 0; }
  HEPOPS_HD constexpr int along(int s, int mu, int nu) const { return step[s] == 1 || step[s] == -1 ? mu : nu; }
};

// The parts of A_mu(x) in the plane of mu and nu: the first two are plaquettes', the others rectangles'.
constexpr int plaquette_words = 2, staple_words = 8, longest_staple = 5;
struct StapleWords {
  Word word[staple_words] = {
      {3, {2, -1, -2}, plaquette_loop, 0, 0},    {3, {-2, -1, 2}, plaquette_loop, 0, -1},
      {5, {1, 2, -1, -1, -2}, wide_loop, 0, 0},  {5, {1, -2, -1, -1, 2}, wide_loop, 0, -1},
      {5, {2, -1, -1, -2, 1}, wide_loop, -1, 0}, {5, {-2, -1, -1, 2, 1}, wide_loop, -1, -1},
      {5, {2, 2, -1, -2, -2}, tall_loop, 0, 0},  {5, {-2, -2, -1, 2, 2}, tall_loop, 0, -2},
  };
};
// P_mu,nu(x) and R_mu,nu(x)
struct LoopWords {
  Word word[2] = {{4, {1, 2, -1, -2}, plaquette_loop, 0, 0}, {6, {1, 1, 2, -1, -1, -2}, wide_loop, 0, 0}};
};

// A complex number as torch stores it: one load, one store.
template <class S>
struct alignas(2 * sizeof(S)) Pair {
  S real, imag;
};

template <int N, class T, class S>
HEPOPS_HD void store(const Matrix<T, N>& M, S* to, int64_t matrix) {
  auto* pairs = reinterpret_cast<Pair<S>*>(to) + matrix * (N * N);
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) pairs[i * N + j] = {S(M(i, j).real), S(M(i, j).imag)};
}

// The links of one configuration, stored as S and computed in T. The lattice is the caller's: a copy, its extents
// indexed by a direction, would be kept in a GPU's local memory.
template <class S, class T, int size>
struct Links {
  static constexpr int N = size;
  using Number = T;
  const S* U;  // (D, sites, N, N, 2)
  const Lattice& lattice;

  HEPOPS_HD Matrix<T, N> operator()(int64_t site, int mu) const { return load(U, mu * lattice.sites + site); }
  HEPOPS_HD static Matrix<T, N> load(const S* from, int64_t matrix) {
    const auto* pairs = reinterpret_cast<const Pair<S>*>(from) + matrix * (N * N);
    return Matrix<T, N>::from([&](int i, int j) {
      const Pair<S> z = pairs[i * N + j];
      return Complex<T>{T(z.real), T(z.imag)};
    });
  }
};

// Links and a direction V in which they change: what is made of them has the slope along V.
template <class S, class T, int size>
struct MovingLinks {
  static constexpr int N = size;
  using Number = Dual<T, 1>;
  Links<S, T, N> U, V;
  const Lattice& lattice;

  HEPOPS_HD Complex<Number> entry(int64_t site, int mu, int i, int j) const {
    const int64_t at = (mu * lattice.sites + site) * (N * N) + i * N + j;
    const Pair<S> u = reinterpret_cast<const Pair<S>*>(U.U)[at], v = reinterpret_cast<const Pair<S>*>(V.U)[at];
    return {Number::with(T(u.real), {T(v.real)}), Number::with(T(u.imag), {T(v.imag)})};
  }
};

// The product of the links on a walk from `site`.
template <class L>
HEPOPS_HD auto walk(const L& U, int64_t site, const Word& word, int mu, int nu) {
  using M = Matrix<typename L::Number, L::N>;
  M product = M::identity();
  for (int s = 0; s < word.length; ++s) {
    const int along = word.along(s, mu, nu);
    if (word.back(s)) site = U.lattice.behind(site, along);
    const M link = U(site, along), next = word.back(s) ? adjoint(link) : link;
    product = s == 0 ? next : product * next;
    if (!word.back(s)) site = U.lattice.ahead(site, along);
  }
  return product;
}

// Row i of that product: what registers hold of two numbers an entry.
template <class L>
struct RowOfWalk {
  static constexpr int N = L::N;
  using T = typename L::Number;
  Complex<T> entry[N];

  HEPOPS_HD RowOfWalk(const L& U, int64_t site, const Word& word, int mu, int nu, int i) {
    for (int j = 0; j < N; ++j) entry[j] = {T(i == j ? 1 : 0), T(0)};
    for (int s = 0; s < word.length; ++s) {
      const int along = word.along(s, mu, nu);
      const bool back = word.back(s);
      if (back) site = U.lattice.behind(site, along);
      Complex<T> next[N] = {};
      for (int k = 0; k < N; ++k)
        for (int j = 0; j < N; ++j) {
          const Complex<T> u = back ? conj(U.entry(site, along, j, k)) : U.entry(site, along, k, j);
          next[j] += entry[k] * u;
        }
      for (int j = 0; j < N; ++j) entry[j] = next[j];
      if (!back) site = U.lattice.ahead(site, along);
    }
  }
};

// c0 and c1
struct Coefficients {
  double plaquette, rectangle;
  HEPOPS_HD static Coefficients improved(double c1) { return {1 - 8 * c1, c1}; }
  HEPOPS_HD int words() const { return rectangle == 0 ? plaquette_words : staple_words; }
  HEPOPS_HD double of(const Word& word) const { return word.loop == plaquette_loop ? plaquette : rectangle; }
};

// A_mu(x), each part times scale(word, nu)
template <class L, class Scale>
HEPOPS_HD auto staple_sum(const L& U, int64_t site, int mu, const StapleWords& words, int count, const Scale& scale) {
  using T = typename L::Number;
  Matrix<T, L::N> sum{};
  const int64_t end = U.lattice.ahead(site, mu);
  for (int nu = 0; nu < U.lattice.dims; ++nu)
    if (nu != mu)
      for (int k = 0; k < count; ++k) sum += T(scale(words.word[k], nu)) * walk(U, end, words.word[k], mu, nu);
  return sum;
}

// The same of moving links, a row at a time.
template <class S, class T, int N, class Scale>
HEPOPS_HD auto staple_sum(const MovingLinks<S, T, N>& U, int64_t site, int mu, const StapleWords& words, int count,
                          const Scale& scale) {
  using Number = Dual<T, 1>;
  Matrix<Number, N> sum{};
  const int64_t end = U.lattice.ahead(site, mu);
  for (int nu = 0; nu < U.lattice.dims; ++nu)
    if (nu != mu)
      for (int k = 0; k < count; ++k) {
        const T weight(scale(words.word[k], nu));
        HEPOPS_UNROLL(N)
        for (int i = 0; i < N; ++i) {
          const RowOfWalk row(U, end, words.word[k], mu, nu, i);
          for (int j = 0; j < N; ++j) sum(i, j) += weight * row.entry[j];
        }
      }
  return sum;
}

// The part of the bracket that begins at a site: the sum over the whole lattice is S / (-beta/N).
template <class L>
HEPOPS_HD auto bracket(const L& U, int64_t site, const LoopWords& words, const Coefficients& c) {
  typename L::Number sum(0);
  for (int mu = 0; mu < U.lattice.dims; ++mu)
    for (int nu = 0; nu < U.lattice.dims; ++nu) {
      if (mu < nu) sum += c.plaquette * real_trace(walk(U, site, words.word[0], mu, nu));
      if (mu != nu && c.rectangle != 0) sum += c.rectangle * real_trace(walk(U, site, words.word[1], mu, nu));
    }
  return sum;
}

// (M - M^+)/2 - tr(M - M^+)/2N
template <class T, int N>
HEPOPS_HD Matrix<T, N> traceless_antihermitian(const Matrix<T, N>& M) {
  const T mean = trace(M).imag * T(1.0 / N);
  return Matrix<T, N>::from([&](int i, int j) {
    const T half(0.5);
    return Complex<T>{half * (M(i, j).real - M(j, i).real),
                      half * (M(i, j).imag + M(j, i).imag) - (i == j ? mean : T(0))};
  });
}

}  // namespace hepops::lattice
