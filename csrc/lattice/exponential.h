#pragma once
// e^X of X in su(2) and su(3), and its backward, for any number T: double, Dual, Packed. With X = i Q, by Cayley and
// Hamilton Q^3 = c1 Q + c0, c1 = tr Q^2 / 2, c0 = det Q = tr Q^3 / 3:
//
//   e^{iQ} = f0 + f1 Q + f2 Q^2
//
// C. Morningstar, M. Peardon, hep-lat/0311018, whose closed form of the f_j divides by differences of eigenvalues. The
// f_j are entire functions of c0 and c1, so here they are summed: with h_n from Q^n = ... + h_n Q^2,
//
//   h_0 = h_1 = 0, h_2 = 1,  h_n = c1 h_{n-2} + c0 h_{n-3}
//   f2 = sum i^n/n! h_n,  f1 = sum i^n/n! h_{n+1},  f0 = 1 + c0 sum i^n/n! h_{n-1}
//
// which converges fast for eigenvalues up to 2 (c1 <= 3); larger Q are halved first, and e^{iQ/2} squared. Nothing is
// singular. The derivatives: with p(x) = x^3 - c1 x - c0 and e^{ix} = p(x) g(x) + f(x), 0 = -g + p dg/dc0 + df/dc0, so
//
//   df/dc0 = g mod p = g0 + g1 x + g2 x^2,  df/dc1 = x g mod p = c0 g2 + (g0 + c1 g2) x + g1 x^2
//
// where g is summed from k_n, the quotient's share: k_n = c1 k_{n-2} + c0 k_{n-3} + h_{n-3}.
//
// SU(2): Q^2 = c, e^{iQ} = C + i S Q, C = cos sqrt(c), S = sin sqrt(c) / sqrt(c); dC/dc = -S/2, D = dS/dc.
#include "lattice/algebra.h"

namespace hepops::lattice {

using core::any, core::select;

constexpr int exp_halvings = 600;  // more than any finite number needs

// How often c, the square of an eigenvalue, is divided by 4 until it is small: 2^-times, which is a lane's own.
template <class T>
HEPOPS_HD T shrunk(T& square, double most) {
  T scale = T(1.0);
  for (int k = 0; k < exp_halvings && any(square > T(most)); ++k) {
    const auto large = square > T(most);
    scale = select(large, T(0.5) * scale, scale);
    square = select(large, T(0.25) * square, square);
  }
  return scale;
}

// Numbers q0 + q1 x + q2 x^2 modulo p(x) = x^3 - c1 x - c0.
template <class T>
struct Quadratic {
  Complex<T> q[3];
};

// a b = r + p s: r, and s = s0 + s1 x
template <class T>
HEPOPS_HD Quadratic<T> product(const Quadratic<T>& a, const Quadratic<T>& b, const T& c0, const T& c1,
                               Complex<T> (&s)[2]) {
  const auto &x = a.q, &y = b.q;
  s[1] = x[2] * y[2];
  s[0] = x[1] * y[2] + x[2] * y[1];
  return {{x[0] * y[0] + c0 * s[0], x[0] * y[1] + x[1] * y[0] + c1 * s[0] + c0 * s[1],
           x[0] * y[2] + x[1] * y[1] + x[2] * y[0] + c1 * s[1]}};
}

template <class T>
HEPOPS_HD void select_into(Quadratic<T>& a, const auto& condition, const Quadratic<T>& b) {
  for (int j = 0; j < 3; ++j) {
    a.q[j].real = select(condition, b.q[j].real, a.q[j].real);
    a.q[j].imag = select(condition, b.q[j].imag, a.q[j].imag);
  }
}

// f, and with `slopes` g, for Q / scale^-1: the powers are those of scale Q.
template <class T>
struct Exponential3 {
  T c0, c1, scale;
  Quadratic<T> f, g;
};

// Adds i^n x to a sum: the even terms are real, the odd ones imaginary.
template <int n, class T>
HEPOPS_HD void add_turned(Complex<T>& sum, const T& x) {
  if constexpr (n % 4 == 0) sum.real += x;
  if constexpr (n % 4 == 1) sum.imag += x;
  if constexpr (n % 4 == 2) sum.real -= x;
  if constexpr (n % 4 == 3) sum.imag -= x;
}

constexpr double factorial(int n) { return n < 2 ? 1.0 : n * factorial(n - 1); }

// The terms from n on: h[j] is h_{n-j+1} and k[j] is k_{n-j+1}, j = 0, 1, 2
template <bool slopes, int n, int last, class T>
HEPOPS_HD void add_terms(Exponential3<T>& e, const T (&h)[3], const T (&k)[3]) {
  constexpr double per_factorial = 1 / factorial(n);
  const T weight = T(per_factorial);
  add_turned<n>(e.f.q[2], weight * h[1]);
  add_turned<n>(e.f.q[1], weight * h[0]);
  add_turned<n>(e.f.q[0], weight * h[2]);  // times c0, at the end
  if constexpr (slopes) {
    add_turned<n>(e.g.q[2], weight * k[1]);
    add_turned<n>(e.g.q[1], weight * k[0]);
    add_turned<n>(e.g.q[0], weight * (e.c0 * k[2] + h[2]));
  }
  if constexpr (n < last) {
    const T next_h[3] = {e.c1 * h[1] + e.c0 * h[2], h[0], h[1]};
    const T next_k[3] = {slopes ? e.c1 * k[1] + e.c0 * k[2] + h[2] : T(0.0), k[0], k[1]};
    add_terms<slopes, n + 1, last>(e, next_h, next_k);
  }
}

template <bool slopes, class T>
HEPOPS_HD Exponential3<T> exponential3(const T& c0, const T& c1) {
  Exponential3<T> e;
  e.c1 = c1;
  e.scale = shrunk(e.c1, 3.0);
  e.c0 = c0 * e.scale * e.scale * e.scale;
  e.f = e.g = {};
  for (int j = 0; j < 3; ++j) e.f.q[j] = e.g.q[j] = {T(0.0), T(0.0)};
  // of eigenvalues up to 2 the terms beyond are below 2^-53 of the sum
  constexpr int last = slopes ? 28 : 26;
  const T one = T(1.0), zero = T(0.0);
  add_terms<slopes, 1, last>(e, {one, zero, zero}, {zero, zero, zero});
  e.f.q[0] = {one + e.c0 * e.f.q[0].real, e.c0 * e.f.q[0].imag};
  T scale = e.scale;
  for (int n = 0; n < exp_halvings && any(scale < T(1.0)); ++n) {
    const auto still = scale < T(1.0);
    Complex<T> s[2], unused[2];
    // (p g + f)^2 = p (p g^2 + 2 g f + s) + r, f^2 = p s + r
    const Quadratic<T> r = product(e.f, e.f, e.c0, e.c1, s);
    if constexpr (slopes) {
      Quadratic<T> twice = product(e.g, e.f, e.c0, e.c1, unused);
      for (int j = 0; j < 3; ++j) twice.q[j] = T(2.0) * twice.q[j] + (j < 2 ? s[j] : Complex<T>{zero, zero});
      select_into(e.g, still, twice);
    }
    select_into(e.f, still, r);
    scale = select(still, T(2.0) * scale, scale);
  }
  return e;
}

// C, S and, with `slopes`, D, of c
template <class T>
struct Exponential2 {
  T C, S, D;
};

// sum (-c)^n / (2n)!, / (2n + 1)!, and the latter's derivative, from n on
template <bool slopes, int n, class T>
HEPOPS_HD Exponential2<T> sum_terms(const T& c) {
  constexpr double even = 1 / factorial(2 * n), odd = 1 / factorial(2 * n + 1), slope = -(n + 1) / factorial(2 * n + 3);
  if constexpr (n == 11) {
    return {T(even), T(odd), T(slope)};
  } else {
    const auto rest = sum_terms<slopes, n + 1>(c);
    return {T(even) - c * rest.C, T(odd) - c * rest.S, slopes ? T(slope) - c * rest.D : rest.D};
  }
}

template <bool slopes, class T>
HEPOPS_HD Exponential2<T> exponential2(const T& c) {
  T small = c;
  T scale = shrunk(small, 3.0);
  Exponential2<T> e = sum_terms<slopes, 0>(small);
  for (int n = 0; n < exp_halvings && any(scale < T(1.0)); ++n) {  // C(4c) = 2 C^2 - 1 = C^2 - c S^2, S(4c) = C S
    const auto still = scale < T(1.0);
    const Exponential2<T> twice{e.C * e.C - small * e.S * e.S, e.C * e.S, T(0.25) * (e.C * e.D - T(0.5) * e.S * e.S)};
    e.C = select(still, twice.C, e.C);
    e.S = select(still, twice.S, e.S);
    e.D = select(still, twice.D, e.D);
    small = select(still, T(4.0) * small, small);
    scale = select(still, T(2.0) * scale, scale);
  }
  return e;
}

// det Q of a hermitian Q: real
template <class T>
HEPOPS_HD T hermitian_determinant(const Matrix<T, 3>& Q) {
  const T a = Q(0, 0).real, b = Q(1, 1).real, c = Q(2, 2).real;
  const Complex<T> around = Q(0, 1) * Q(1, 2);
  return a * (b * c - norm(Q(1, 2))) - b * norm(Q(0, 2)) - c * norm(Q(0, 1)) +
         T(2.0) * (around.real * Q(2, 0).real - around.imag * Q(2, 0).imag);
}

template <class T, int N>
HEPOPS_HD T half_trace(const Matrix<T, N>& square) {
  T sum = square(0, 0).real;
  for (int i = 1; i < N; ++i) sum += square(i, i).real;
  return T(0.5) * sum;
}

// X must lie in su(N): see traceless_antihermitian
template <class T>
HEPOPS_HD Matrix<T, 2> exp_of_algebra(const Matrix<T, 2>& X) {
  const auto e = exponential2<false>(T(0.5) * real_inner(X, X));
  Matrix<T, 2> U = e.S * X;
  for (int i = 0; i < 2; ++i) U(i, i).real += e.C;
  return U;
}

template <class T>
HEPOPS_HD Matrix<T, 3> exp_of_algebra(const Matrix<T, 3>& X) {
  const Matrix<T, 3> Q = over_i(X), square = hermitian_square(Q);
  const auto e = exponential3<false>(hermitian_determinant(Q), half_trace(square));
  const Complex<T> f1 = e.scale * e.f.q[1], f2 = (e.scale * e.scale) * e.f.q[2];
  Matrix<T, 3> U = Matrix<T, 3>::from([&](int i, int j) { return f1 * Q(i, j) + f2 * square(i, j); });
  for (int i = 0; i < 3; ++i) U(i, i) += e.f.q[0];
  return U;
}

// G is dL/dU; the gradient lies in su(N). dU = -S/2 dc + D dc X + S dX with dc = Re tr X^+ dX.
template <class T>
HEPOPS_HD Matrix<T, 2> exp_of_algebra_backward(const Matrix<T, 2>& G, const Matrix<T, 2>& X) {
  const auto e = exponential2<true>(T(0.5) * real_inner(X, X));
  const T along = e.D * real_inner(G, X) - T(0.5) * e.S * (G(0, 0).real + G(1, 1).real);
  return e.S * traceless_antihermitian(G) + along * X;
}

// dU = df0 + df1 Q + df2 Q^2 + f1 dQ + f2 (Q dQ + dQ Q), dc0 = tr Q^2 dQ, dc1 = tr Q dQ
template <class T>
HEPOPS_HD Matrix<T, 3> exp_of_algebra_backward(const Matrix<T, 3>& G, const Matrix<T, 3>& X) {
  const Matrix<T, 3> Q = over_i(X), square = hermitian_square(Q);
  const auto e = exponential3<true>(hermitian_determinant(Q), half_trace(square));
  const T s = e.scale, s2 = s * s;
  const Complex<T> t[3] = {conj(trace(G)), s * inner(G, Q), s2 * inner(G, square)};
  const auto &f = e.f.q, &g = e.g.q;
  const Complex<T> along0 = t[0] * g[0] + t[1] * g[1] + t[2] * g[2];
  const Complex<T> along1 = t[0] * (e.c0 * g[2]) + t[1] * (g[0] + e.c1 * g[2]) + t[2] * g[1];
  const T B0 = along0.real * s2 * s, B1 = along1.real * s2;
  const Complex<T> f1 = s * conj(f[1]), f2 = s2 * conj(f[2]);
  const Matrix<T, 3> A = f1 * G + f2 * (Q * G + G * Q);
  const Matrix<T, 3> B = B1 * Q + B0 * square;
  // the hermitian part of A is that of i times the anti-hermitian part of -i A
  return traceless_antihermitian(times_i(A + B));
}

template <class T, int N>
HEPOPS_HD Matrix<T, N> exp_of(const Matrix<T, N>& M) {
  return exp_of_algebra(traceless_antihermitian(M));
}

template <class T, int N>
HEPOPS_HD Matrix<T, N> exp_of_backward(const Matrix<T, N>& G, const Matrix<T, N>& M) {
  return exp_of_algebra_backward(G, traceless_antihermitian(M));
}

}  // namespace hepops::lattice
