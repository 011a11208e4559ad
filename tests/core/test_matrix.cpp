#include "core/matrix.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/dual.h"

namespace hepops::core {
namespace {

using C = Complex<double>;

template <int N>
Matrix<double, N> sample(double phase) {
  return Matrix<double, N>::from(
      [=](int i, int j) { return C{std::sin(1 + phase + 3 * i + 7 * j), std::cos(2 * phase + 5 * i - 2 * j * j)}; });
}

void expect_near(const C& a, const C& b) {
  EXPECT_NEAR(a.real, b.real, 1e-13);
  EXPECT_NEAR(a.imag, b.imag, 1e-13);
}

template <int N>
void expect_near(const Matrix<double, N>& A, const Matrix<double, N>& B) {
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) expect_near(A(i, j), B(i, j));
}

template <int N>
void test_algebra() {
  const auto A = sample<N>(0.3), B = sample<N>(1.1), D = sample<N>(2.7);
  const auto one = Matrix<double, N>::identity();
  expect_near(A * one, A);
  expect_near(one * A, A);
  expect_near((A * B) * D, A * (B * D));
  expect_near(A * (B + D), A * B + A * D);
  expect_near(A - B, A + -1.0 * B);
  expect_near(-A, C{-1, 0} * A);
  expect_near(adjoint(A * B), adjoint(B) * adjoint(A));
  expect_near(adjoint(C{0, 1} * A), C{0, -1} * adjoint(A));
  expect_near(trace(A * B), trace(B * A));
  expect_near(trace(adjoint(A)), conj(trace(A)));
  EXPECT_EQ(real_trace(A), trace(A).real);
  EXPECT_NEAR(trace(one).real, N, 0);
  expect_near(determinant(one), {1, 0});
  expect_near(determinant(A * B), determinant(A) * determinant(B));
  expect_near(determinant(adjoint(A)), conj(determinant(A)));
  auto E = A;
  E += B;
  E -= A;
  expect_near(E, B);
}

TEST(Matrix, IsAnAlgebraWithAnInvolution) {
  test_algebra<1>();
  test_algebra<2>();
  test_algebra<3>();
  test_algebra<4>();
}

TEST(Matrix, MultipliesRowsByColumns) {
  using M = Matrix<double, 2>;
  const M A{{{{1, 0}, {0, 2}}, {{3, 0}, {4, 0}}}}, B{{{{0, 1}, {1, 0}}, {{2, 0}, {0, 0}}}};
  expect_near(A * B, M{{{{0, 5}, {1, 0}}, {{8, 3}, {3, 0}}}});
  expect_near(determinant(A), {4, -6});
}

TEST(Matrix, ARotationIsInSU3) {
  const double c = std::cos(0.4), s = std::sin(0.4);
  const Matrix<double, 3> U{{{{c, 0}, {0, s}, {0, 0}}, {{0, s}, {c, 0}, {0, 0}}, {{0, 0}, {0, 0}, {1, 0}}}};
  expect_near(U * adjoint(U), Matrix<double, 3>::identity());
  expect_near(determinant(U), {1, 0});
}

// d det A = det A tr(A^-1 dA); for A = 1 + t B at t = 0 that is tr B.
TEST(Matrix, TheSlopeOfADeterminantIsATrace) {
  using D = Dual<double, 1>;
  const auto B = sample<3>(0.9);
  const auto A = Matrix<D, 3>::from([&](int i, int j) {
    const D t(0.0, 0);
    return Complex<D>{t * B(i, j).real + double(i == j), t * B(i, j).imag};
  });
  EXPECT_NEAR(determinant(A).real.slope[0], trace(B).real, 1e-14);
  EXPECT_NEAR(determinant(A).imag.slope[0], trace(B).imag, 1e-14);
}

}  // namespace
}  // namespace hepops::core
