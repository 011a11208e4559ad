#pragma once
// The gradients of an eigen-decomposition. A unitary W moves on the group, dW = i K W with a hermitian K, and in the
// basis of its eigenvectors, k = V^+ K V:
//
//   dth_i = k_ii,   (V^+ dV)_ij = k_ij e^{i(th_j - th_i)/2} / (2 sin((th_j - th_i)/2)),  i != j
//
// and a hermitian H: dth_i = (V^+ dH V)_ii, (V^+ dV)_ij = (V^+ dH V)_ij / (th_j - th_i). The phases of the vectors are
// free: what depends on them has no gradient. With dL = tr(E dK) the gradient of W is i E W, tangent to the group.
#include "lattice/eigen.h"

namespace hepops::lattice {

// Of coinciding eigenvalues the vectors have no derivative: they are taken as they are.
constexpr double same_eigenvalue = 1e-14;

// dV / dK in the eigenbasis: (V^+ dV)_ij = k_ij factor
struct OfPhases {
  template <class T>
  HEPOPS_HD static Complex<T> factor(const T& from, const T& to) {
    T s, c;
    sin_cos_turn(0.5 * (to - from), s, c);
    const auto apart = abs(s) > T(same_eigenvalue);
    const T half = 0.5 / select(apart, s, T(1.0));
    return {select(apart, half * c, T(0.0)), select(apart, half * s, T(0.0))};
  }
};
struct OfValues {
  template <class T>
  HEPOPS_HD static Complex<T> factor(const T& from, const T& to) {
    const T gap = to - from;
    const auto apart = abs(gap) > T(same_eigenvalue) * (abs(to) + abs(from));
    return {select(apart, T(1.0) / select(apart, gap, T(1.0)), T(0.0)), T(0.0)};
  }
};

// V E V^+
template <class T, int N>
HEPOPS_HD Matrix<T, N> turned_back(const Matrix<T, N>& V, const Matrix<T, N>& E) {
  return V * E * adjoint(V);
}

// E in the eigenbasis, from C with dL = Re sum_ij C_ij k_ij beside the diagonal
template <class T, int N>
HEPOPS_HD void hermitian_gradient(Matrix<T, N>& E, const Matrix<T, N>& C) {
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j)
      if (i != j) E(j, i) = T(0.5) * (C(i, j) + conj(C(j, i)));
}

// E = dL/dK (dL/dH) from the gradients of values and vectors
template <class Of, class T, int N>
HEPOPS_HD Matrix<T, N> eigen_gradient(const Spectrum<T, N>& s, const T (&grad_values)[N],
                                      const Matrix<T, N>& grad_vectors) {
  const Matrix<T, N> M = adjoint(s.vectors) * grad_vectors;
  Matrix<T, N> C, E;
  for (int i = 0; i < N; ++i) {
    E(i, i) = {grad_values[i], T(0.0)};
    for (int j = 0; j < N; ++j)
      if (i != j) C(i, j) = conj(M(i, j)) * Of::factor(s.values[i], s.values[j]);
  }
  hermitian_gradient(E, C);
  return E;
}

// i E W, of the traceless part of E
template <class T, int N>
HEPOPS_HD Matrix<T, N> tangent_gradient(const Matrix<T, N>& V, const Matrix<T, N>& E, const Matrix<T, N>& W) {
  return times_i(turned_back(V, traceless(E)) * W);
}

}  // namespace hepops::lattice
