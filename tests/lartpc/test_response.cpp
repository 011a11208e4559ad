#include "lartpc/response.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>

#include "core/dual.h"

namespace hepops::lartpc {
namespace {

constexpr double a = 0.2217;  // half a pitch [cm]

TEST(WeightingPotential, IsOneOnThePadAndZeroBesideIt) {
  for (const double z : {0.0, -1.0})  // behind the plane counts as on it
    for (const double x : {-0.9 * a, 0.0, 0.5 * a, 1.1 * a, 3.0 * a}) {
      const bool on = std::abs(x) < a;
      EXPECT_NEAR(weighting_potential(x, 0.3 * a, z, a), on ? 1.0 : 0.0, 1e-15) << x;
      EXPECT_NEAR(weighting_potential(0.3 * a, x, z, a), on ? 1.0 : 0.0, 1e-15) << x;
    }
  EXPECT_NEAR(weighting_potential(a, 0.0, 0.0, a), 0.5, 1e-15);   // half on an edge,
  EXPECT_NEAR(weighting_potential(a, a, 1e-12, a), 0.25, 1e-11);  // a quarter at a corner
}

// phi_w is the potential of the pad at 1 V in a grounded plane: int_pad z / (2 pi r^3).
TEST(WeightingPotential, IsThePotentialOfAPad) {
  const int n = 400;  // midpoints: an error of second order in 1 / n
  for (const double z : {0.1, 0.4, 2.4})
    for (const double x : {0.0, 0.3, 1.0}) {
      double sum = 0;
      for (int i = 0; i < n; ++i)
        for (int k = 0; k < n; ++k) {
          const double X = x - a * (2 * (i + 0.5) / n - 1), Y = 0.1 - a * (2 * (k + 0.5) / n - 1);
          sum += z / std::pow(X * X + Y * Y + z * z, 1.5);
        }
      sum *= 4 * a * a / n / n / (2 * std::numbers::pi);
      EXPECT_NEAR(weighting_potential(x, 0.1, z, a), sum, 1e-5 * sum) << x << " " << z;
    }
  // on the axis, the solid angle of a square over 2 pi
  for (const double z : {1e-3, 0.2, 1.0, 30.0})
    EXPECT_NEAR(weighting_potential(0.0, 0.0, z, a),
                2 / std::numbers::pi * std::atan(a * a / (z * std::sqrt(2 * a * a + z * z))), 1e-15);
}

// The pads of a square are one large pad; those of the whole plane leave nothing over.
TEST(WeightingPotential, OfAllPadsIsOne) {
  for (const int n : {5, 60, 250}) {
    double sum = 0;
    for (int i = -n; i <= n; ++i)
      for (int k = -n; k <= n; ++k) sum += weighting_potential(0.1 + 2 * a * i, -0.05 + 2 * a * k, 2.4, a);
    EXPECT_NEAR(sum, weighting_potential(0.1, -0.05, 2.4, (2 * n + 1) * a), 1e-13 * n);
    const double half = (2 * n + 1) * a;
    if (half > 10 * 2.4)
      EXPECT_NEAR(1 - sum, 2 * std::numbers::sqrt2 / std::numbers::pi * 2.4 / half, 0.01 * 2.4 / half);
  }
}

TEST(WeightingPotential, HasTheSymmetriesOfASquare) {
  const double phi = weighting_potential(0.31, 0.17, 0.4, a);
  for (const double x : {0.31, -0.31})
    for (const double y : {0.17, -0.17}) {
      EXPECT_DOUBLE_EQ(weighting_potential(x, y, 0.4, a), phi);
      EXPECT_DOUBLE_EQ(weighting_potential(y, x, 0.4, a), phi);
    }
}

using D = core::Dual<double, 3>;

TEST(WeightingPotential, SlopeIsExact) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> place(-1.2, 1.2), depth(-4, 1);
  for (int n = 0; n < 2000; ++n) {
    const double x = place(random), y = place(random), z = std::pow(10, depth(random));
    const D phi = weighting_potential(D(x, 0), D(y, 1), D(z, 2), D(a));
    const auto slope = weighting_potential_slope(x, y, z, a);
    EXPECT_NEAR(phi.value, weighting_potential(x, y, z, a), 1e-15);
    double size = 0;  // of the terms, which cancel
    for (int i = 0; i < 3; ++i) size = std::max(size, std::abs(slope[i]));
    for (int i = 0; i < 3; ++i)
      EXPECT_NEAR(slope[i], phi.slope[i], 1e-13 * (size + 1)) << i << ": " << x << " " << y << " " << z;
  }
}

TEST(WeightingPotential, SlopeAgreesWithDifferences) {
  const double at[3] = {0.3, -0.13, 0.21}, h = 1e-5;
  const auto slope = weighting_potential_slope(at[0], at[1], at[2], a);
  for (int i = 0; i < 3; ++i) {
    double up[3] = {at[0], at[1], at[2]}, down[3] = {at[0], at[1], at[2]};
    up[i] += h, down[i] -= h;
    const double difference =
        (weighting_potential(up[0], up[1], up[2], a) - weighting_potential(down[0], down[1], down[2], a)) / (2 * h);
    EXPECT_NEAR(slope[i], difference, 1e-8 * (1 + std::abs(difference)));
  }
}

// Laplace: the slopes of the slopes add up to 0.
TEST(WeightingPotential, IsHarmonic) {
  for (const double z : {0.02, 0.2, 2.0})
    for (const double x : {0.0, 0.21, 0.6}) {
      const auto slope = weighting_potential_slope(D(x, 0), D(0.11, 1), D(z, 2), D(a));
      const double parts[] = {slope[0].slope[0], slope[1].slope[1], slope[2].slope[2]};
      const double size = std::abs(parts[0]) + std::abs(parts[1]) + std::abs(parts[2]);
      EXPECT_NEAR(parts[0] + parts[1] + parts[2], 0.0, 1e-11 * (size + 1)) << x << " " << z;
    }
}

TEST(WeightingPotential, SlopeIsFiniteOnEdgeAndCorner) {
  for (const double x : {0.0, a, -a})
    for (const double y : {0.0, a})
      for (const double z : {0.0, 1e-300, -1.0}) {
        const auto slope = weighting_potential_slope(x, y, z, a);
        for (int i = 0; i < 3; ++i) EXPECT_FALSE(std::isnan(slope[i])) << x << " " << y << " " << z;
      }
}

}  // namespace
}  // namespace hepops::lartpc
