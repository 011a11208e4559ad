#include "lartpc/trilinear.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace hepops::lartpc {
namespace {

Grid grid() {
  Grid g{{4, 3, 5}, {-1.0, 2.0, 10.0}, {0.5, 0.25, 2.0}, {}, {}};
  for (int a = 0; a < 3; ++a) g.inverse[a] = 1 / g.spacing[a], g.slack[a] = 1e-12;
  return g;
}

// One coefficient for each of the 8 products of powers 0 and 1: what trilinear interpolation must give back exactly.
double polynomial(double x, double y, double z) {
  return 1 + 2 * x - 3 * y + 0.5 * z + 0.7 * x * y - 0.2 * x * z + 0.4 * y * z + 0.3 * x * y * z;
}

std::vector<double> nodes(const Grid& g) {
  std::vector<double> f;
  for (int64_t i = 0; i < g.n[0]; ++i)
    for (int64_t j = 0; j < g.n[1]; ++j)
      for (int64_t k = 0; k < g.n[2]; ++k)
        f.push_back(polynomial(g.origin[0] + g.spacing[0] * double(i), g.origin[1] + g.spacing[1] * double(j),
                               g.origin[2] + g.spacing[2] * double(k)));
  return f;
}

TEST(Trilinear, GivesBackWhatIsLinearAlongEachAxis) {
  const Grid g = grid();
  const auto f = nodes(g);
  for (const auto& p : {std::array{-0.8, 2.1, 11.0}, std::array{0.1, 2.45, 17.9}, std::array{-1.0, 2.0, 10.0}}) {
    const auto cell = locate(g, p.data());
    EXPECT_FALSE(cell.outside);
    EXPECT_NEAR(interpolate(g, cell, f.data() + cell.corner), polynomial(p[0], p[1], p[2]), 1e-13);
    const auto slope = interpolate_slope(g, cell, f.data() + cell.corner);
    EXPECT_NEAR(slope[0], 2 + 0.7 * p[1] - 0.2 * p[2] + 0.3 * p[1] * p[2], 1e-12);
    EXPECT_NEAR(slope[1], -3 + 0.7 * p[0] + 0.4 * p[2] + 0.3 * p[0] * p[2], 1e-12);
    EXPECT_NEAR(slope[2], 0.5 - 0.2 * p[0] + 0.4 * p[1] + 0.3 * p[0] * p[1], 1e-12);
  }
}

TEST(Trilinear, WeightsOfTheCornersAreTheInterpolation) {
  const Grid g = grid();
  const auto f = nodes(g);
  const double p[3] = {0.3, 2.2, 15.0};
  const auto cell = locate(g, p);
  double sum = 0, weights = 0;
  for (int c = 0; c < 8; ++c) {
    sum += corner_weight(cell, c) * f[cell.corner + corner_offset(g, c)];
    weights += corner_weight(cell, c);
  }
  EXPECT_NEAR(weights, 1, 1e-15);
  EXPECT_NEAR(sum, interpolate(g, cell, f.data() + cell.corner), 1e-13);
}

TEST(Trilinear, LastNodesBelongToTheLastCell) {
  const Grid g = grid();
  const double last[3] = {0.5, 2.5, 18.0};
  const auto cell = locate(g, last);
  EXPECT_FALSE(cell.outside);
  EXPECT_EQ(cell.corner, (2 * g.n[1] + 1) * g.n[2] + 3);
  for (double s : cell.s) EXPECT_EQ(s, 1.0);
}

TEST(Trilinear, OutsideIsClampedWithoutSlope) {
  const Grid g = grid();
  const auto f = nodes(g);
  const double inf = std::numeric_limits<double>::infinity();
  for (double x : {-7.0, 7.0, 1e300, -inf, inf}) {
    const double p[3] = {x, 2.2, 15.0};
    const auto cell = locate(g, p);
    EXPECT_TRUE(cell.outside);
    EXPECT_NEAR(interpolate(g, cell, f.data() + cell.corner), polynomial(x < 0 ? -1 : 0.5, 2.2, 15), 1e-13) << x;
    EXPECT_EQ(interpolate_slope(g, cell, f.data() + cell.corner)[0], 0.0);
  }
}

TEST(Trilinear, WhatIsNoNumberStaysNone) {
  const Grid g = grid();
  const auto f = nodes(g);
  const double p[3] = {0.1, std::nan(""), 15.0};
  const auto cell = locate(g, p);
  EXPECT_TRUE(cell.outside);
  EXPECT_GE(cell.corner, 0);
  EXPECT_TRUE(std::isnan(interpolate(g, cell, f.data() + cell.corner)));
}

// A coordinate beyond an end by rounding is inside, keeps its slope, and is not extrapolated.
TEST(Trilinear, RoundingBeyondAnEndIsInside) {
  const Grid g = grid();
  const double p[3] = {0.5 + 1e-13, 2.2, 15.0};
  const auto cell = locate(g, p);
  EXPECT_FALSE(cell.outside);
  EXPECT_EQ(cell.s[0], 1.0);
  EXPECT_EQ(cell.per[0], 2.0);
}

}  // namespace
}  // namespace hepops::lartpc
