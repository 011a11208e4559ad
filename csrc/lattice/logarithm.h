#pragma once
// The logarithm of SU(N) into su(N): X = V diag(i th_k) V^+ with the phases th in the canonical alcove (eigen.h), whose
// sum is 0. It is the principal one (|th_k| <= pi) where the principal phases add up to 0, as always in SU(2).
//
//   beside the diagonal (V^+ dX V)_ij = R_ij (V^+ dU V)_ij,
//   R_ij = i (th_i - th_j) / (e^{i th_i} - e^{i th_j}) = e^{-i(th_i + th_j)/2} d / sin d,  d = (th_i - th_j)/2
//
// which is singular only where th_3 - th_1 = 2 pi: on the cut, where two eigenvalues (-1 in SU(2)) meet from both ends.
#include "lattice/eigen_backward.h"

namespace hepops::lattice {

template <class T, int N>
HEPOPS_HD Matrix<T, N> log_of(const Matrix<T, N>& U) {
  const Spectrum<T, N> s = eigen_unitary(U);
  Matrix<T, N> scaled;
  for (int i = 0; i < N; ++i)
    for (int k = 0; k < N; ++k)
      scaled(i, k) = {-s.values[k] * s.vectors(i, k).imag, s.values[k] * s.vectors(i, k).real};
  return traceless_antihermitian(scaled * adjoint(s.vectors));
}

// dX = V (R o V^+ dU V) V^+ with dU = i K U: k_ij is multiplied by i R_ij e^{i th_j} = i e^{-i d} d / sin d
template <class T, int N>
HEPOPS_HD Matrix<T, N> log_of_backward(const Matrix<T, N>& G, const Matrix<T, N>& U) {
  const Spectrum<T, N> s = eigen_unitary(U);
  const Matrix<T, N> M = adjoint(s.vectors) * (traceless_antihermitian(G) * s.vectors);
  Matrix<T, N> C, E;
  for (int i = 0; i < N; ++i) {
    E(i, i) = {M(i, i).imag, T(0.0)};
    for (int j = 0; j < N; ++j) {
      if (i == j) continue;
      const T d = T(0.5) * (s.values[i] - s.values[j]);
      T sine, cosine;
      sin_cos_turn(d, sine, cosine);
      const auto apart = abs(sine) > T(1e-30);
      const T ratio = select(apart, d / select(apart, sine, T(1.0)), T(1.0));
      C(i, j) = conj(M(i, j)) * Complex<T>{ratio * sine, ratio * cosine};
    }
  }
  hermitian_gradient(E, C);
  return tangent_gradient(s.vectors, E, U);
}

}  // namespace hepops::lattice
