#pragma once
// The residual (stout-like) update of one link, with its exact log-determinant:
//
//   U' = e^X U,  X = TA(M),  M = U A,  TA(M) = (M - M^+)/2 - tr(M - M^+)/2N,
//
// where A, the sum of staples with their coefficients, does not depend on U. In coordinates dU U^+ = i y^a T^a, with
// tr T^a T^b = 1/2,
//
//   dU' U'^+ = Ad(e^X) [1 + Phi T] y,  ln J = ln det(1 + Phi T)
//   Phi = (1 - e^-ad) / ad,  ad_ab = f_abc x^c,  x^c = 2 Im tr(T^c M)
//   T_ab = 2 Re tr(T^a T^b M) = delta_ab Re tr M / N + d_abc Re tr(T^c M) - ad_ab / 2
//
// (ad and T from T^a T^b = delta_ab / 2N + (d_abc + i f_abc) T^c / 2.) |Phi| <= 1 and |T| <= |M|, so that for |M| < 1
// the determinant is positive, elimination needs no pivots, and U -> e^-TA(UA) U' is a contraction of rate |M|: the map
// is one to one.
//
// Stout links: C. Morningstar, M. Peardon, hep-lat/0311018; M. Lüscher, arXiv:0907.5491, section 3; residual flows:
// R. Abbott et al., arXiv:2305.02402, 2401.10874.
#include "core/matrix.h"
#include "core/packed.h"

namespace hepops::lattice {

using core::abs, core::any, core::log, core::select;

// Plain square matrices of n x n real numbers
template <class T, int n>
struct Square {
  T at[n][n];

  HEPOPS_HD T* operator[](int i) { return at[i]; }
  HEPOPS_HD const T* operator[](int i) const { return at[i]; }

  HEPOPS_HD static Square zero() {
    Square A;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) A[i][j] = T(0.0);
    return A;
  }
  HEPOPS_HD friend Square operator*(const Square& A, const Square& B) {
    Square C;
    for (int i = 0; i < n; ++i) {
      T row[n];
      for (int j = 0; j < n; ++j) row[j] = A[i][0] * B[0][j];
      for (int k = 1; k < n; ++k)
        for (int j = 0; j < n; ++j) row[j] += A[i][k] * B[k][j];
      for (int j = 0; j < n; ++j) C[i][j] = row[j];
    }
    return C;
  }
  HEPOPS_HD friend Square operator+(const Square& A, const Square& B) {
    Square C;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) C[i][j] = A[i][j] + B[i][j];
    return C;
  }
  HEPOPS_HD friend Square operator*(double a, const Square& B) {
    Square C;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) C[i][j] = T(a) * B[i][j];
    return C;
  }
  HEPOPS_HD Square& plus(double a) {
    for (int i = 0; i < n; ++i) at[i][i] = at[i][i] + T(a);
    return *this;
  }
  HEPOPS_HD friend Square transposed(const Square& A) {
    Square C;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) C[j][i] = A[i][j];
    return C;
  }
};

// A matrix and its change: a polynomial of it gives the polynomial's derivative along the change.
template <class T, int n>
struct Moving {
  Square<T, n> value, change;

  HEPOPS_HD friend Moving operator*(const Moving& A, const Moving& B) {
    return {A.value * B.value, A.change * B.value + A.value * B.change};
  }
  HEPOPS_HD friend Moving operator+(const Moving& A, const Moving& B) {
    return {A.value + B.value, A.change + B.change};
  }
  HEPOPS_HD friend Moving operator*(double a, const Moving& B) { return {a * B.value, a * B.change}; }
  HEPOPS_HD Moving& plus(double a) { return value.plus(a), *this; }
};

HEPOPS_HD constexpr double one_over_factorial(int k) {
  double product = 1;
  for (int i = 2; i <= k; ++i) product *= i;
  return 1 / product;
}

// sum_j Z^j / (2j + shift)! up to Z^11, by powers of Z^3
template <class S>
HEPOPS_HD S half_series(const S& Z, const S& Z2, const S& Z3, int shift) {
  const auto c = [&](int j) { return one_over_factorial(2 * j + shift); };
  const auto part = [&](int j) { return (c(j + 1) * Z + c(j + 2) * Z2).plus(c(j)); };
  S sum = part(9);
  for (int j = 6; j >= 0; j -= 3) sum = part(j) + Z3 * sum;
  return sum;
}

// (1 - e^-A) / A = sum_k (-A)^k / (k + 1)!, right to rounding for |A| <= 2 and to 1e-13 for |A| <= 3
template <class S>
HEPOPS_HD S phi_of(const S& A) {
  const S Z = A * A, Z2 = Z * Z, Z3 = Z2 * Z;
  return half_series(Z, Z2, Z3, 1) + -1.0 * (A * half_series(Z, Z2, Z3, 2));
}

// A becomes A^-1 by elimination without pivots -> ln det A, NaN where it is not positive
template <class T, int n>
HEPOPS_HD T invert(Square<T, n>& A) {
  T det = T(1.0);
  for (int k = 0; k < n; ++k) {
    det = det * A[k][k];
    const T pivot = T(1.0) / A[k][k];
    A[k][k] = T(1.0);
    for (int j = 0; j < n; ++j) A[k][j] = A[k][j] * pivot;
    for (int i = 0; i < n; ++i) {
      if (i == k) continue;
      const T factor = A[i][k];
      A[i][k] = T(0.0);
      for (int j = 0; j < n; ++j) A[i][j] = A[i][j] - factor * A[k][j];
    }
  }
  return log(det);
}

// The structure constants of the generators, f_abc with a < b < c and d_abc with a <= b <= c.
template <int N>
struct Structure;

template <>
struct Structure<2> {
  template <class F>
  HEPOPS_HD static void antisymmetric(const F& f) {
    f(0, 1, 2, 1.0);
  }
  template <class F>
  HEPOPS_HD static void symmetric(const F&) {}
};

template <>
struct Structure<3> {
  template <class F>
  HEPOPS_HD static void antisymmetric(const F& f) {
    constexpr double root = 0.8660254037844386468;  // sqrt(3) / 2
    f(0, 1, 2, 1.0), f(0, 3, 6, 0.5), f(0, 4, 5, -0.5), f(1, 3, 5, 0.5), f(1, 4, 6, 0.5), f(2, 3, 4, 0.5);
    f(2, 5, 6, -0.5), f(3, 4, 7, root), f(5, 6, 7, root);
  }
  template <class F>
  HEPOPS_HD static void symmetric(const F& f) {
    constexpr double third = 0.5773502691896257645;  // 1 / sqrt(3)
    f(0, 0, 7, third), f(1, 1, 7, third), f(2, 2, 7, third), f(7, 7, 7, -third);
    f(3, 3, 7, -third / 2), f(4, 4, 7, -third / 2), f(5, 5, 7, -third / 2), f(6, 6, 7, -third / 2);
    f(0, 3, 5, 0.5), f(0, 4, 6, 0.5), f(1, 3, 6, -0.5), f(1, 4, 5, 0.5), f(2, 3, 3, 0.5), f(2, 4, 4, 0.5);
    f(2, 5, 5, -0.5), f(2, 6, 6, -0.5);
  }
};

// ad_ab = f_abc x^c
template <int N, class T, int n>
HEPOPS_HD Square<T, n> adjoint_of(const T (&x)[n]) {
  auto A = Square<T, n>::zero();
  Structure<N>::antisymmetric([&](int a, int b, int c, double f) {
    const T p = f * x[a], q = f * x[b], r = f * x[c];
    A[a][b] += r, A[b][a] -= r, A[b][c] += p, A[c][b] -= p, A[c][a] += q, A[a][c] -= q;
  });
  return A;
}

// its transpose: x^c += f_abc G_ab
template <int N, class T, int n>
HEPOPS_HD void add_adjoint_backward(const Square<T, n>& G, double scale, T (&x)[n]) {
  Structure<N>::antisymmetric([&](int a, int b, int c, double f) {
    const double s = scale * f;
    x[c] += s * (G[a][b] - G[b][a]), x[a] += s * (G[b][c] - G[c][b]), x[b] += s * (G[c][a] - G[a][c]);
  });
}

// f(a, b, c, d_abc) for every order of the three that differs
template <int N, class F>
HEPOPS_HD void for_symmetric(const F& f) {
  Structure<N>::symmetric([&](int a, int b, int c, double d) {
    f(a, b, c, d);
    if (a != b) f(b, a, c, d);
    if (b != c) f(a, c, b, d);
    if (a != b && b != c) f(b, c, a, d), f(c, a, b, d), f(c, b, a, d);
    if (a == b && b != c) f(c, a, b, d);
    if (a != b && b == c) f(b, c, a, d);
  });
}

// tr(T^c M), in the order of hepops.lattice.group.generators
template <class T, int N>
HEPOPS_HD void traces(const core::Matrix<T, N>& M, core::Complex<T> (&m)[N * N - 1]) {
  int c = 0;
  core::Complex<T> above = M(0, 0);
  for (int k = 1; k < N; ++k) {
    for (int j = 0; j < k; ++j) {
      m[c++] = T(0.5) * (M(j, k) + M(k, j));
      const auto difference = M(j, k) - M(k, j);
      m[c++] = {T(-0.5) * difference.imag, T(0.5) * difference.real};
    }
    const double scale = k == 1 ? 0.5 : 0.2886751345948128823;  // 1 / sqrt(2 k (k + 1))
    m[c++] = T(scale) * (above - T(double(k)) * M(k, k));
    above += M(k, k);
  }
}

// trace 1 + sum_c m_c T^c
template <class T, int N>
HEPOPS_HD core::Matrix<T, N> from_traces(const T& trace, const core::Complex<T> (&m)[N * N - 1]) {
  core::Matrix<T, N> M{};
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) M(i, j) = {i == j ? trace : T(0.0), T(0.0)};
  int c = 0;
  for (int k = 1; k < N; ++k) {
    for (int j = 0; j < k; ++j) {
      const auto s = m[c++], a = m[c++];
      M(j, k) += T(0.5) * core::Complex<T>{s.real + a.imag, s.imag - a.real};  // (s - i a) / 2
      M(k, j) += T(0.5) * core::Complex<T>{s.real - a.imag, s.imag + a.real};
    }
    const double scale = k == 1 ? 0.5 : 0.2886751345948128823;
    const auto diagonal = T(scale) * m[c++];
    for (int i = 0; i < k; ++i) M(i, i) += diagonal;
    M(k, k) -= T(double(k)) * diagonal;
  }
  return M;
}

// e^X of X = i x^a T^a. X^2 = -q (N = 2), X^3 = -q X - i r (N = 3): the coefficients of the powers follow from each
// other, and their series is right to rounding for |X| <= 2.
template <int N, class T>
HEPOPS_HD core::Matrix<T, N> exponential(const T (&x)[N * N - 1]) {
  using C = core::Complex<T>;
  core::Complex<T> i_x[N * N - 1];
  for (int a = 0; a < N * N - 1; ++a) i_x[a] = {T(0.0), x[a]};
  const auto X = from_traces<T, N>(T(0.0), i_x);
  const auto X2 = X * X;
  const T q = T(-0.5) * trace(X2).real;
  C p0{T(1.0), T(0.0)}, p1{T(0.0), T(0.0)}, p2 = p1, s0 = p0, s1 = p1, s2 = p1;  // X^k = p0 + p1 X + p2 X^2
  const T r = N == 3 ? -determinant(X).imag : T(0.0);                            // det X = -i r
  for (int k = 1; k <= 26; ++k) {
    const double inverse = 1.0 / k;
    const C last = N == 3 ? p2 : p1;
    const C n0 = N == 3 ? C{r * last.imag, -(r * last.real)} : -q * last;
    const C n1 = N == 3 ? p0 - q * p2 : p0;
    const C n2 = p1;
    p0 = T(inverse) * n0, p1 = T(inverse) * n1;
    s0 += p0, s1 += p1;
    if (N == 3) p2 = T(inverse) * n2, s2 += p2;
  }
  auto E = core::Matrix<T, N>::from([&](int i, int j) {
    const C z = s1 * X(i, j);
    return N == 3 ? z + s2 * X2(i, j) : z;
  });
  for (int i = 0; i < N; ++i) E(i, i) += s0;
  return E;
}

// What one link needs in either direction.
template <class T, int N>
struct Update {
  static constexpr int n = N * N - 1;
  T x[n];
  Square<T, n> ad, stretch;  // T above

  HEPOPS_HD explicit Update(const core::Matrix<T, N>& M) {
    core::Complex<T> m[n];
    traces(M, m);
    for (int c = 0; c < n; ++c) x[c] = T(2.0) * m[c].imag;
    ad = adjoint_of<N>(x);
    const T diagonal = real_trace(M) * T(1.0 / N);
    for (int a = 0; a < n; ++a)
      for (int b = 0; b < n; ++b) stretch[a][b] = T(-0.5) * ad[a][b] + (a == b ? diagonal : T(0.0));
    for_symmetric<N>([&](int a, int b, int c, double d) { stretch[a][b] += d * m[c].real; });
  }
};

template <class T, int N>
HEPOPS_HD void residual(const core::Matrix<T, N>& U, const core::Matrix<T, N>& A, core::Matrix<T, N>& result,
                        T& logdet) {
  const Update<T, N> at(U * A);
  result = exponential<N>(at.x) * U;
  auto S = phi_of(at.ad) * at.stretch;
  S.plus(1.0);
  logdet = invert(S);
}

// z_a = Im tr(T^a Z), the product <Z, i T^a>
template <class T, int N>
HEPOPS_HD void along_generators(const core::Matrix<T, N>& Z, T (&z)[N * N - 1]) {
  core::Complex<T> m[N * N - 1];
  traces(Z, m);
  for (int a = 0; a < N * N - 1; ++a) z[a] = m[a].imag;
}

// With S = 1 + Phi T and K = S^-T: d ln J = <K T^T, dPhi> + <Phi^T K, dT>. The transpose of the derivative of a
// polynomial at ad is its derivative at ad^T. d(e^X) U = dexp_X(dX) U', whose transpose at z is Phi z.
template <class T, int N>
HEPOPS_HD void residual_backward(const core::Matrix<T, N>& grad_result, const T& grad_logdet,
                                 const core::Matrix<T, N>& U, const core::Matrix<T, N>& A, core::Matrix<T, N>& grad_U,
                                 core::Matrix<T, N>& grad_A) {
  constexpr int n = N * N - 1;
  const Update<T, N> at(U * A);
  const auto E = exponential<N>(at.x);
  const auto phi = phi_of(at.ad);
  auto S = phi * at.stretch;
  S.plus(1.0);
  invert(S);
  const auto K = transposed(S);
  const auto grad_stretch = transposed(phi) * K;
  const Moving<T, n> back{transposed(at.ad), K * transposed(at.stretch)};
  const auto grad_ad = phi_of(back).change;

  T x[n], r[n], z[n], trace = T(0.0);
  for (int a = 0; a < n; ++a) x[a] = r[a] = T(0.0), trace += grad_stretch[a][a];
  for_symmetric<N>([&](int a, int b, int c, double d) { r[c] += d * grad_stretch[a][b]; });
  add_adjoint_backward<N>(grad_ad, 1.0, x);
  add_adjoint_backward<N>(grad_stretch, -0.5, x);
  along_generators(grad_result * adjoint(E * U), z);
  core::Complex<T> m[n];
  for (int a = 0; a < n; ++a) {
    T sum = grad_logdet * x[a];
    for (int b = 0; b < n; ++b) sum += phi[a][b] * z[b];
    m[a] = {grad_logdet * r[a], T(2.0) * sum};
  }
  const auto grad_M = from_traces<T, N>(grad_logdet * trace * T(1.0 / N), m);
  grad_U = grad_M * adjoint(A) + adjoint(E) * grad_result;
  grad_A = adjoint(U) * grad_M;
}

// U of U' by U <- e^-TA(UA) U', until it moves by less than `tolerance` (largest entry) or `most` times -> how far the
// last step moved. A lane that is done stays as it is.
template <class T, int N>
HEPOPS_HD T residual_inverse(const core::Matrix<T, N>& result, const core::Matrix<T, N>& A, int most, double tolerance,
                             core::Matrix<T, N>& U) {
  constexpr int n = N * N - 1;
  U = result;
  T moved = T(1.0);
  for (int step = 0; step < most; ++step) {
    const auto active = !(moved <= T(tolerance));
    if (!any(active)) break;
    core::Complex<T> m[n];
    traces(U * A, m);
    T x[n];
    for (int a = 0; a < n; ++a) x[a] = T(-2.0) * m[a].imag;
    const auto next = exponential<N>(x) * result;
    T most_moved = T(0.0);
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; ++j) {
        const auto d = next(i, j) - U(i, j);
        const T far = abs(d.real) + abs(d.imag);
        most_moved = select(far > most_moved, far, most_moved) + T(0.0) * far;  // a NaN stays one
        U(i, j).real = select(active, next(i, j).real, U(i, j).real);
        U(i, j).imag = select(active, next(i, j).imag, U(i, j).imag);
      }
    moved = select(active, most_moved, moved);
  }
  return moved;
}

// dU = e^-X dU' - [Phi w] U with w = dX, and w + T Phi w = the coordinates of TA(e^-X dU' A + U dA). The transpose
// takes z = <G U^+, i T> to v = (1 + T Phi)^-T (-Phi^T z), and (1 + T Phi)^-1 = 1 - T (1 + Phi T)^-1 Phi.
template <class T, int N>
HEPOPS_HD void residual_inverse_backward(const core::Matrix<T, N>& grad_U, const core::Matrix<T, N>& U,
                                         const core::Matrix<T, N>& A, core::Matrix<T, N>& grad_result,
                                         core::Matrix<T, N>& grad_A) {
  constexpr int n = N * N - 1;
  const Update<T, N> at(U * A);
  const auto E = exponential<N>(at.x);
  const auto phi = phi_of(at.ad);
  auto S = phi * at.stretch;
  S.plus(1.0);
  invert(S);
  const auto apply = [](const Square<T, n>& B, const T(&v)[n], T(&w)[n]) {  // w = B^T v
    for (int b = 0; b < n; ++b) {
      w[b] = B[0][b] * v[0];
      for (int a = 1; a < n; ++a) w[b] += B[a][b] * v[a];
    }
  };
  T z[n], h[n], u[n], v[n], w[n];
  along_generators(grad_U * adjoint(U), z);
  apply(phi, z, h);
  apply(at.stretch, h, u);
  apply(S, u, v);
  apply(phi, v, w);
  core::Complex<T> m[n];
  for (int a = 0; a < n; ++a) m[a] = {T(0.0), T(2.0) * (w[a] - h[a])};
  const auto grad_M = from_traces<T, N>(T(0.0), m);
  grad_A = adjoint(U) * grad_M;
  grad_result = E * (grad_M * adjoint(A) + grad_U);
}

}  // namespace hepops::lattice
