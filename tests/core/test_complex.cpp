#include "core/complex.h"

#include <gtest/gtest.h>

#include <complex>

#include "core/dual.h"

namespace hepops::core {
namespace {

using C = Complex<double>;
const C a{1.5, -0.7}, b{-0.3, 2.2};
const std::complex<double> std_a(1.5, -0.7), std_b(-0.3, 2.2);

void expect_near(const C& ours, std::complex<double> theirs) {
  EXPECT_NEAR(ours.real, theirs.real(), 1e-15 * std::abs(theirs));
  EXPECT_NEAR(ours.imag, theirs.imag(), 1e-15 * std::abs(theirs));
}

TEST(Complex, AgreesWithTheStandard) {
  expect_near(a + b, std_a + std_b);
  expect_near(a - b, std_a - std_b);
  expect_near(-a, -std_a);
  expect_near(a * b, std_a * std_b);
  expect_near(a / b, std_a / std_b);
  expect_near(2.0 * a, 2.0 * std_a);
  expect_near(a * 2.0, 2.0 * std_a);
  expect_near(a / 3.0, std_a / 3.0);
  expect_near(conj(a), std::conj(std_a));
  expect_near(exp(a), std::exp(std_a));
  EXPECT_DOUBLE_EQ(norm(a), std::norm(std_a));
  EXPECT_DOUBLE_EQ(abs(a), std::abs(std_a));
  EXPECT_DOUBLE_EQ(arg(b), std::arg(std_b));
  C c = a;
  c += b;
  c -= a;
  c *= a;
  expect_near(c, std_b * std_a);
  EXPECT_TRUE(a == a && !(a == b));
}

TEST(Complex, HasTheLayoutOfTorch) {
  static_assert(sizeof(C) == 2 * sizeof(double));
  EXPECT_EQ(reinterpret_cast<const double*>(&a)[1], a.imag);
}

// exp' = exp, along both axes (Cauchy and Riemann)
TEST(Complex, DualNumbersPassThrough) {
  using D = Dual<double, 2>;
  const auto e = exp(Complex<D>{D(1.5, 0), D(-0.7, 1)});
  EXPECT_DOUBLE_EQ(e.real.slope[0], e.real.value);
  EXPECT_DOUBLE_EQ(e.imag.slope[1], e.real.value);
  EXPECT_DOUBLE_EQ(e.imag.slope[0], e.imag.value);
  EXPECT_DOUBLE_EQ(e.real.slope[1], -e.imag.value);
}

}  // namespace
}  // namespace hepops::core
