#pragma once
// Parts of complex matrices. The algebra su(N) is the traceless anti-hermitian ones.
//
//   TA(M) = (M - M^+)/2 - tr(M - M^+)/2N
#include "core/matrix.h"
#include "core/packed.h"

namespace hepops::lattice {

using core::Complex, core::Matrix;

// A - (tr A / N)
template <class T, int N>
HEPOPS_HD Matrix<T, N> traceless(Matrix<T, N> A) {
  const Complex<T> mean = T(1.0 / N) * trace(A);
  for (int i = 0; i < N; ++i) A(i, i) -= mean;
  return A;
}

template <class T, int N>
HEPOPS_HD Matrix<T, N> traceless_antihermitian(const Matrix<T, N>& M) {
  T mean = M(0, 0).imag;
  for (int i = 1; i < N; ++i) mean += M(i, i).imag;
  mean *= T(1.0 / N);
  Matrix<T, N> A;
  for (int i = 0; i < N; ++i) {
    A(i, i) = {T(0.0), M(i, i).imag - mean};
    for (int j = i + 1; j < N; ++j) {
      A(i, j) = T(0.5) * (M(i, j) - conj(M(j, i)));
      A(j, i) = -conj(A(i, j));
    }
  }
  return A;
}

// The square of a hermitian matrix.
template <class T, int N>
HEPOPS_HD Matrix<T, N> hermitian_square(const Matrix<T, N>& Q) {
  Matrix<T, N> S;
  for (int i = 0; i < N; ++i) {
    T diagonal = norm(Q(i, 0));
    for (int k = 1; k < N; ++k) diagonal += norm(Q(i, k));
    S(i, i) = {diagonal, T(0.0)};
    for (int j = i + 1; j < N; ++j) {
      Complex<T> sum = Q(i, 0) * Q(0, j);
      for (int k = 1; k < N; ++k) sum += Q(i, k) * Q(k, j);
      S(i, j) = sum;
      S(j, i) = conj(sum);
    }
  }
  return S;
}

// tr A^+ B, and its real part: the sum of the products of the real and of the imaginary parts
template <class T, int N>
HEPOPS_HD Complex<T> inner(const Matrix<T, N>& A, const Matrix<T, N>& B) {
  Complex<T> sum = conj(A(0, 0)) * B(0, 0);
  for (int i = 0; i < N; ++i)
    for (int j = i == 0 ? 1 : 0; j < N; ++j) sum += conj(A(i, j)) * B(i, j);
  return sum;
}

template <class T, int N>
HEPOPS_HD T real_inner(const Matrix<T, N>& A, const Matrix<T, N>& B) {
  T sum = A(0, 0).real * B(0, 0).real + A(0, 0).imag * B(0, 0).imag;
  for (int i = 0; i < N; ++i)
    for (int j = i == 0 ? 1 : 0; j < N; ++j) sum += A(i, j).real * B(i, j).real + A(i, j).imag * B(i, j).imag;
  return sum;
}

// i A and -i A
template <class T, int N>
HEPOPS_HD Matrix<T, N> times_i(const Matrix<T, N>& A) {
  return Matrix<T, N>::from([&](int i, int j) { return Complex<T>{-A(i, j).imag, A(i, j).real}; });
}
template <class T, int N>
HEPOPS_HD Matrix<T, N> over_i(const Matrix<T, N>& A) {
  return Matrix<T, N>::from([&](int i, int j) { return Complex<T>{A(i, j).imag, -A(i, j).real}; });
}

}  // namespace hepops::lattice
