#include "lartpc/blob.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numbers>

#include "core/dual.h"

namespace hepops::lartpc {
namespace {

using Real = long double;

// int f from a to b: Gauss-Legendre with 5 points on so many panels that the rest is below the rounding of a double.
Real integral(const std::function<Real(Real)>& f, Real a, Real b, int panels) {
  static constexpr Real x[] = {0.0L, 0.538469310105683091036314420700L, 0.906179845938663992797626878299L};
  static constexpr Real w[] = {0.568888888888888888888888888889L, 0.478628670499366468041291514836L,
                               0.236926885056189087514264040720L};
  Real sum = 0;
  for (int i = 0; i < panels; ++i) {
    const Real h = (b - a) / panels / 2, m = a + (2 * i + 1) * h;
    sum += h * (w[0] * f(m) + w[1] * (f(m - h * x[1]) + f(m + h * x[1])) + w[2] * (f(m - h * x[2]) + f(m + h * x[2])));
  }
  return sum;
}

Real Phi(Real z) { return std::erfc(-z / std::numbers::sqrt2_v<Real>) / 2; }
Real phi(Real z) { return std::exp(-z * z / 2) * std::numbers::inv_sqrtpi_v<Real> / std::numbers::sqrt2_v<Real>; }

Real quadrature_share(Real x, Real sigma, Real width) {
  return integral([&](Real s) { return Phi((x + s * width) / sigma); }, -0.5L, 0.5L, 400);
}
Real quadrature_ramp(Real x, Real sigma, Real width) {
  const auto ramp = [&](Real t) { return t * Phi(t / sigma) + sigma * phi(t / sigma); };
  return integral([&](Real s) { return ramp(x + s * width); }, -0.5L, 0.5L, 400);
}

constexpr double widths[] = {1e-6, 1e-3, 0.02, 0.0299, 0.0301, 0.1, 1.0, 3.0, 8.0};  // of sigma, on both sides of 0.03
constexpr double places[] = {-7.0, -3.0, -1.51, -0.4, 0.0, 1e-9, 0.3, 1.0, 2.5, 6.0};

// The rounding of a difference over a width: 1 / width of what is subtracted, once more for the slope along the width.
double rounding(double width) { return 2e-15 * (1 + 1 / std::max(width, blob::narrow)); }

TEST(Blob, ShareIsTheIntegralOfAGaussianOverALine) {
  for (const double width : widths)
    for (const double x : places)
      EXPECT_NEAR(share_below(x, 1.0, width).value, double(quadrature_share(x, 1, width)), rounding(width))
          << x << " " << width;
}

TEST(Blob, RampIsTheIntegralOfTheShare) {
  for (const double width : widths)
    for (const double x : places)
      EXPECT_NEAR(ramp_below(x, 1.0, width).value, double(quadrature_ramp(x, 1, width)),
                  rounding(width) * (1 + std::abs(x)))
          << x << " " << width;
}

using D = core::Dual<double, 3>;

template <class F, class G>
void expect_slopes(F exact, G ours) {
  for (const double sigma : {0.04, 1.0})
    for (const double width : widths)
      for (const double x : places) {
        if (x == 0) continue;  // there max(x, 0) and |x|, whose kinks cancel, have slopes of different sides
        const D value = exact(D(sigma * x, 0), D(sigma, 1), D(sigma * width, 2));
        const Cumulative<double> c = ours(sigma * x, sigma, sigma * width);
        const double digits = rounding(width) * 20 / std::max(width, blob::narrow);
        EXPECT_NEAR(c.x, value.slope[0], digits / sigma) << x << " " << width;
        EXPECT_NEAR(c.sigma, value.slope[1], digits / sigma) << x << " " << width;
        EXPECT_NEAR(c.width, value.slope[2], digits / sigma) << x << " " << width;
      }
}

TEST(Blob, SlopesAreThoseOfTheValue) {
  expect_slopes([](D x, D sigma, D width) { return share_below(x, sigma, width).value; }, share_below<double>);
  expect_slopes([](D x, D sigma, D width) { return ramp_below(x, sigma, width).value; }, ramp_below<double>);
}

TEST(Blob, RampRisesWithTheShare) {
  for (const double width : widths)
    for (const double x : places) {
      const auto C = share_below(x, 1.0, width), Dx = ramp_below(x, 1.0, width);
      EXPECT_NEAR(Dx.x, C.value, rounding(width));
      EXPECT_NEAR(Dx.sigma, C.x, rounding(width));  // D_sigma = sigma C_x
    }
}

// C is homogeneous of degree 0 in its lengths, D of degree 1.
TEST(Blob, IsHomogeneous) {
  for (const double sigma : {0.0, 0.04, 1.0})
    for (const double width : {0.0, 1e-4, 0.02, 0.7, 5.0})
      for (const double x : {-2.0, -0.3, 0.01, 1.3}) {
        if (sigma == 0 && width == 0) continue;
        const auto C = share_below(x, sigma, width), R = ramp_below(x, sigma, width);
        const double digits = 4e-16 * (1 + x * x) * (1 + 1 / std::max(width, blob::narrow * sigma));
        EXPECT_NEAR(x * C.x + sigma * C.sigma + width * C.width, 0.0, digits) << x << " " << sigma << " " << width;
        EXPECT_NEAR(x * R.x + sigma * R.sigma + width * R.width, R.value, digits) << x << " " << sigma << " " << width;
        for (const double s : {0.125, 8.0}) {
          EXPECT_NEAR(share_below(s * x, s * sigma, s * width).value, C.value, 1e-14);
          EXPECT_NEAR(ramp_below(s * x, s * sigma, s * width).value, s * R.value, 1e-14 * s);
        }
      }
}

// The series and the differences meet at width = 0.03 sigma: no step in the value or in any slope.
TEST(Blob, HasNoStepWhereTheSeriesEnds) {
  const double below = 0.03 * (1 - 1e-13), above = 0.03 * (1 + 1e-13);
  for (double x = -8; x < 8; x += 0.0625) {
    const auto C0 = share_below(x, 1.0, below), C1 = share_below(x, 1.0, above);
    const auto D0 = ramp_below(x, 1.0, below), D1 = ramp_below(x, 1.0, above);
    const double digits = 1e-13;
    EXPECT_NEAR(C0.value, C1.value, digits) << x;
    EXPECT_NEAR(C0.x, C1.x, digits) << x;
    EXPECT_NEAR(C0.sigma, C1.sigma, 10 * digits) << x;
    EXPECT_NEAR(C0.width, C1.width, 30 * digits) << x;
    EXPECT_NEAR(D0.value, D1.value, digits) << x;
    EXPECT_NEAR(D0.x, D1.x, digits) << x;
    EXPECT_NEAR(D0.sigma, D1.sigma, digits) << x;
    EXPECT_NEAR(D0.width, D1.width, 10 * digits) << x;
  }
}

TEST(Blob, WithoutBlurIsALine) {
  for (const double x : {-0.6, -0.5, -0.2, 0.0, 0.3, 0.5, 0.7}) {
    const double inside = std::min(1.0, std::max(0.0, x + 0.5));
    EXPECT_NEAR(share_below(x, 0.0, 1.0).value, inside, 1e-15);
    EXPECT_NEAR(share_below(x, 1e-12, 1.0).value, inside, 1e-12);
    EXPECT_NEAR(ramp_below(x, 0.0, 1.0).value, x > 0.5 ? x : inside * inside / 2, 1e-15);
  }
  EXPECT_NEAR(share_below(0.2, 0.0, 1.0).x, 1.0, 1e-15);
  EXPECT_EQ(share_below(0.6, 0.0, 1.0).x, 0.0);
}

TEST(Blob, WithoutExtentIsAGaussian) {
  for (const double x : places) {
    EXPECT_NEAR(share_below(x, 1.0, 0.0).value, double(Phi(x)), 1e-15);
    EXPECT_NEAR(share_below(x, 1.0, 0.0).x, double(phi(x)), 1e-15);
    EXPECT_EQ(share_below(x, 1.0, 0.0).width, 0.0);
    EXPECT_NEAR(ramp_below(x, 1.0, 0.0).value, double(x * Phi(x) + phi(x)), 1e-15 * (1 + std::abs(x)));
  }
}

TEST(Blob, WithNeitherIsAStep) {
  EXPECT_EQ(share_below(-0.1, 0.0, 0.0).value, 0.0);
  EXPECT_EQ(share_below(0.1, 0.0, 0.0).value, 1.0);
  EXPECT_EQ(ramp_below(-0.1, 0.0, 0.0).value, 0.0);
  EXPECT_EQ(ramp_below(0.1, 0.0, 0.0).value, 0.1);
  for (const double x : {-0.1, 0.0, 0.1})
    for (const double sigma : {0.0, 1e-100, 1e-30})
      for (const double width : {0.0, 1e-100, 1e-30})
        for (const auto& c : {share_below(x, sigma, width), ramp_below(x, sigma, width)})
          EXPECT_TRUE(std::isfinite(c.value)) << x << " " << sigma << " " << width;
}

TEST(Blob, ShareRisesFromZeroToOne) {
  for (const double width : {0.0, 0.02, 0.031, 2.0}) {
    double previous = 0;
    for (double x = -12; x < 12; x += 0.03125) {
      const double value = share_below(x, 1.0, width).value;
      EXPECT_GE(value, previous - 1e-13);
      previous = value;
    }
    EXPECT_NEAR(share_below(-12.0, 1.0, width).value, 0.0, 1e-15);
    EXPECT_NEAR(previous, 1.0, 1e-13);
  }
}

}  // namespace
}  // namespace hepops::lartpc
