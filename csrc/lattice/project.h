#pragma once
// To the group from any complex matrix M.
//
// SU(2): the nearest element is the quaternion part of M, normalised: Re tr U^+ M is twice its product with U's.
// SU(3): M = Q P with Q unitary and P >= 0 (of M = V S W^+, Q = V W^+, the nearest unitary matrix), and the phase of
// the determinant taken away evenly, U = Q (det Q)^{-1/3}. Q by Newton's iteration X <- (c X + (c X)^{-+}) / 2, scaled
// by c = sqrt(|X^-1| / |X|) while it is far [N. J. Higham, SIAM J. Sci. Stat. Comput. 7 (1986) 1160].
//
// Backward: dU = U O, O the traceless part of the W that solves P W + W P = Q^+ dM - dM^+ Q; in the eigenbasis of P
// that divides by p_i + p_j > 0. The map from right to left is its own adjoint.
//
// Gram and Schmidt: the first row normalised, the second made orthogonal to it, the third the conjugate of their
// cross product: what lattice programs call reunitarisation, for links that are off by rounding.
#include "lattice/eigen.h"
#include "lattice/spectral.h"

namespace hepops::lattice {

// The transposed cofactors: A adj(A) = det A, and det A
template <class T>
HEPOPS_HD Matrix<T, 3> adjugate(const Matrix<T, 3>& A, Complex<T>& determinant) {
  const auto cofactors = Matrix<T, 3>::from([&](int i, int j) {
    const int a = (j + 1) % 3, b = (j + 2) % 3, c = (i + 1) % 3, d = (i + 2) % 3;
    return A(a, c) * A(b, d) - A(a, d) * A(b, c);
  });
  determinant = A(0, 0) * cofactors(0, 0) + A(0, 1) * cofactors(1, 0) + A(0, 2) * cofactors(2, 0);
  return cofactors;
}

constexpr int polar_steps = 40;  // 9 are enough for a condition of 1e16; a singular matrix ends here

template <class T>
HEPOPS_HD Matrix<T, 3> polar_factor(const Matrix<T, 3>& M) {
  Matrix<T, 3> X = M;
  auto active = T(0.0) < T(1.0);
  for (int n = 0; n < polar_steps && any(active); ++n) {
    Complex<T> determinant;
    const Matrix<T, 3> cofactors = adjugate(X, determinant);
    const Complex<T> per = conj(determinant) / norm(determinant);
    const Matrix<T, 3> inverse = adjoint(per * cofactors);
    const T size = real_inner(X, X), size_of_inverse = real_inner(inverse, inverse);
    const T c = sqrt(sqrt(size_of_inverse / size)), half = 0.5 * c, rest = T(0.5) / c;
    const Matrix<T, 3> next = half * X + rest * inverse, step = next - X;
    const T moved = real_inner(step, step);
    X = select(active, next, X);
    active = active & (moved > T(1e-28)) & (moved == moved);
  }
  return X;
}

// e^{-i arg(det) / 3}
template <class T>
HEPOPS_HD Complex<T> cube_root_of_phase(const Complex<T>& determinant) {
  T s, c;
  sin_cos_half_turn(atan2(determinant.imag, determinant.real) * T(-1.0 / 3), s, c);
  return {c, s};
}

template <class T>
HEPOPS_HD Matrix<T, 2> project_of(const Matrix<T, 2>& M) {
  Quaternion<T> q = quaternion_of(M);
  const T length = T(1.0) / sqrt(q.x[0] * q.x[0] + q.x[1] * q.x[1] + q.x[2] * q.x[2] + q.x[3] * q.x[3]);
  for (T& x : q.x) x *= length;
  return q.matrix();
}

template <class T>
HEPOPS_HD Matrix<T, 3> project_of(const Matrix<T, 3>& M) {
  const Matrix<T, 3> Q = polar_factor(M);
  return cube_root_of_phase(determinant(Q)) * Q;
}

template <class T>
HEPOPS_HD Matrix<T, 2> project_of_backward(const Matrix<T, 2>& G, const Matrix<T, 2>& M) {
  Quaternion<T> q = quaternion_of(M), g = quaternion_of(G);
  T square = T(0.0), along = T(0.0);
  for (int k = 0; k < 4; ++k) square += q.x[k] * q.x[k];
  const T length = T(1.0) / sqrt(square);
  for (int k = 0; k < 4; ++k) along += q.x[k] * length * g.x[k];
  for (int k = 0; k < 4; ++k) g.x[k] = length * (g.x[k] - along * q.x[k] * length);
  return g.matrix();
}

template <class T>
HEPOPS_HD Matrix<T, 3> project_of_backward(const Matrix<T, 3>& G, const Matrix<T, 3>& M) {
  const Matrix<T, 3> Q = polar_factor(M);
  const Complex<T> phase = cube_root_of_phase(determinant(Q));
  const Spectrum<T, 3> p = eigen_hermitian(adjoint(Q) * M);
  const Matrix<T, 3> Y = traceless_antihermitian(adjoint(phase * Q) * G);
  Matrix<T, 3> K = adjoint(p.vectors) * (Y * p.vectors);
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) K(i, j) = (T(2.0) / (p.values[i] + p.values[j])) * K(i, j);
  return Q * (p.vectors * K * adjoint(p.vectors));
}

template <class T>
HEPOPS_HD Matrix<T, 2> gram_schmidt(const Matrix<T, 2>& M) {
  const T length = T(1.0) / sqrt(norm(M(0, 0)) + norm(M(0, 1)));
  const Complex<T> a = length * M(0, 0), b = length * M(0, 1);
  return {{{a, b}, {-conj(b), conj(a)}}};
}

// The third row of a special unitary matrix from its first two: (a x b)*
template <class T>
HEPOPS_HD void third_row(Matrix<T, 3>& U) {
  for (int j = 0; j < 3; ++j) {
    const int k = (j + 1) % 3, l = (j + 2) % 3;
    U(2, j) = conj(U(0, k) * U(1, l) - U(0, l) * U(1, k));
  }
}

template <class T>
HEPOPS_HD Matrix<T, 3> gram_schmidt(const Matrix<T, 3>& M) {
  Matrix<T, 3> U = M;
  for (int i = 0; i < 2; ++i) {
    if (i == 1) {
      const Complex<T> overlap = conj(U(0, 0)) * U(1, 0) + conj(U(0, 1)) * U(1, 1) + conj(U(0, 2)) * U(1, 2);
      for (int j = 0; j < 3; ++j) U(1, j) -= overlap * U(0, j);
    }
    const T length = T(1.0) / sqrt(norm(U(i, 0)) + norm(U(i, 1)) + norm(U(i, 2)));
    for (int j = 0; j < 3; ++j) U(i, j) = length * U(i, j);
  }
  third_row(U);
  return U;
}

}  // namespace hepops::lattice
