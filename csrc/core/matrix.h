#pragma once
// Complex N x N matrices small enough for registers: links of U(1), SU(2), SU(3), their staples and forces.
#include "core/complex.h"

namespace hepops::core {

template <class T, int N>
struct Matrix {
  Complex<T> entries[N][N];  // row by row, as torch lays out (..., N, N)

  HEPOPS_HD Complex<T>& operator()(int i, int j) { return entries[i][j]; }
  HEPOPS_HD const Complex<T>& operator()(int i, int j) const { return entries[i][j]; }

  HEPOPS_HD static Matrix identity() {
    Matrix one{};
    for (int i = 0; i < N; ++i) one(i, i).real = T(1);
    return one;
  }

  // f(i, j) for every entry
  template <class F>
  HEPOPS_HD static Matrix from(const F& f) {
    Matrix result;
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; ++j) result(i, j) = f(i, j);
    return result;
  }

  HEPOPS_HD friend Matrix operator+(const Matrix& A, const Matrix& B) {
    return from([&](int i, int j) { return A(i, j) + B(i, j); });
  }
  HEPOPS_HD friend Matrix operator-(const Matrix& A, const Matrix& B) {
    return from([&](int i, int j) { return A(i, j) - B(i, j); });
  }
  HEPOPS_HD friend Matrix operator-(const Matrix& A) {
    return from([&](int i, int j) { return -A(i, j); });
  }
  HEPOPS_HD friend Matrix operator*(const T& a, const Matrix& B) {
    return from([&](int i, int j) { return a * B(i, j); });
  }
  HEPOPS_HD friend Matrix operator*(const Complex<T>& a, const Matrix& B) {
    return from([&](int i, int j) { return a * B(i, j); });
  }
  HEPOPS_HD friend Matrix operator*(const Matrix& A, const Matrix& B) {
    return from([&](int i, int j) {
      Complex<T> sum = A(i, 0) * B(0, j);
      for (int k = 1; k < N; ++k) sum += A(i, k) * B(k, j);
      return sum;
    });
  }
  HEPOPS_HD Matrix& operator+=(const Matrix& B) { return *this = *this + B; }
  HEPOPS_HD Matrix& operator-=(const Matrix& B) { return *this = *this - B; }

  HEPOPS_HD friend Matrix adjoint(const Matrix& A) {
    return from([&](int i, int j) { return conj(A(j, i)); });
  }
  HEPOPS_HD friend Complex<T> trace(const Matrix& A) {
    Complex<T> sum = A(0, 0);
    for (int i = 1; i < N; ++i) sum += A(i, i);
    return sum;
  }
  HEPOPS_HD friend T real_trace(const Matrix& A) { return trace(A).real; }
};

// det A = sum_j (-1)^j A_0j det(A without row 0 and column j)
template <class T, int N>
HEPOPS_HD Complex<T> determinant(const Matrix<T, N>& A) {
  if constexpr (N == 1) {
    return A(0, 0);
  } else {
    Complex<T> sum{};
    for (int j = 0; j < N; ++j) {
      const auto minor = Matrix<T, N - 1>::from([&](int i, int k) { return A(i + 1, k < j ? k : k + 1); });
      const Complex<T> term = A(0, j) * determinant(minor);
      sum += j % 2 ? -term : term;
    }
    return sum;
  }
}

}  // namespace hepops::core
