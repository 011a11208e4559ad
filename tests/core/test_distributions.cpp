#include "core/distributions.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/philox.h"

namespace hepops::core {
namespace {

constexpr uint32_t ones = 0xffffffff;

TEST(Uniform, StaysInsideTheOpenInterval) {
  EXPECT_EQ(uniform<float>(0), 0x1p-24f);
  EXPECT_EQ(uniform<float>(ones), 1 - 0x1p-24f);
  EXPECT_EQ(uniform<double>(0, 0), 0x1p-53);
  EXPECT_EQ(uniform<double>(ones, ones), 1 - 0x1p-53);
}

TEST(Uniform, FloatAndDoubleAgree) {
  for (uint32_t i = 0; i < 1000; ++i) {
    const auto b = Philox(1, i).block(0, 0);
    EXPECT_NEAR(uniform<float>(b[0]), uniform<double>(b[0], b[1]), 0x1p-23);
  }
}

TEST(Normal, IsBoxMullerOfTheStandardFunctions) {
  for (uint32_t i = 0; i < 100000; ++i) {
    const auto b = Philox(1, i).block(0, 0);
    const double u = std::fma(double(uint64_t(b[0]) << 32 | b[2]), 0x1p-64, 0x1p-65);
    const double angle = 2 * std::numbers::pi * double(uint64_t(b[1]) << 32 | b[3]) * 0x1p-64;
    const double radius = std::sqrt(-2 * std::log(u));
    const auto ours = normal2<double>(b);
    // The angle of the standard form is rounded before it is reduced: 2 pi 2^-53.
    EXPECT_NEAR(ours[0], radius * std::cos(angle), 1e-14);
    EXPECT_NEAR(ours[1], radius * std::sin(angle), 1e-14);
    const auto single = normal2<float>(b);
    // The float u is rounded by up to 2^-25, which near 1 changes the radius by that over the radius.
    const double rounding = 8e-7 * radius + 0x1p-24 / radius;
    EXPECT_NEAR(single[0], ours[0], rounding);
    EXPECT_NEAR(single[1], ours[1], rounding);
  }
}

TEST(Normal, TheSeriesAreExactToRounding) {
  for (const double x : {0x1p-65, 1e-9, 0.1, 0.5, 0.70710, 0.70711, 0.9, 0.999999, 1.0}) {
    EXPECT_NEAR(detail::log_series(x), std::log(x), 4e-16 * std::abs(std::log(x))) << x;
    EXPECT_NEAR(detail::log_series(float(x)), std::log(float(x)), 2.4e-7 * std::abs(std::log(x))) << x;
  }
  for (double x = -std::numbers::pi / 4; x <= std::numbers::pi / 4; x += 0.001) {
    EXPECT_NEAR((detail::trigonometric_series<double, 0>(x)), std::cos(x), 1.2e-16);
    EXPECT_NEAR((detail::trigonometric_series<double, 1>(x)), std::sin(x), 1.2e-16);
    EXPECT_NEAR((detail::trigonometric_series<float, 0>(float(x))), std::cos(float(x)), 6e-8);
    EXPECT_NEAR((detail::trigonometric_series<float, 1>(float(x))), std::sin(float(x)), 6e-8);
  }
}

// Words on the borders of the quarters and of the tail.
TEST(Normal, HasNoHoles) {
  for (const uint32_t a : {0u, 1u, 1u << 31, ones - 1, ones})
    for (const uint32_t b : {0u, 1u << 29, (1u << 29) - 1, 1u << 30, 3u << 29, 1u << 31, 5u << 29, 7u << 29, ones}) {
      const auto single = normal2<float>(a, b);
      const auto ours = normal2<double>(a, b, /*more_a=*/1u << 31);  // a + 1/2 + 2^-33
      const double u = (a + 0.5) / 0x1p32, above = (double(ones - a) + 0.5) / 0x1p32;
      const double radius = std::sqrt(-2 * (u < 0.5 ? std::log(u) : std::log1p(-above)));
      const double angle = 2 * std::numbers::pi * b / 0x1p32;
      EXPECT_NEAR(ours[0], radius * std::cos(angle), 1e-10) << a << ' ' << b;
      EXPECT_NEAR(ours[1], radius * std::sin(angle), 1e-10) << a << ' ' << b;
      EXPECT_NEAR(single[0], radius * std::cos(angle), 3e-4) << a << ' ' << b;  // sqrt(2 2^-24) where u is near 1
      EXPECT_NEAR(single[1], radius * std::sin(angle), 3e-4) << a << ' ' << b;
    }
}

// Every compiler and device must give these bits: they are what a seed promises.
TEST(Normal, KeepsItsBits) {
  const auto b = Philox(0, 0).block(0, 0);
  EXPECT_EQ(normal2<float>(b)[0], 0x1.fb7662p-1f);
  EXPECT_EQ(normal2<float>(b)[1], -0x1.d96d6p-1f);
  EXPECT_EQ(normal2<double>(b)[0], 0x1.fb7665e2db662p-1);
  EXPECT_EQ(normal2<double>(b)[1], -0x1.d96d5fe9cedf6p-1);
}

struct Moments {
  double mean[5] = {};
  void add(double x) {
    for (int k = 1; k <= 4; ++k) mean[k] += std::pow(x, k);
  }
};

// The k-th moment of n numbers scatters with variance (E x^2k - (E x^k)^2) / n.
void expect_moments(const Moments& sum, double n, const double (&exact)[9], const char* name) {
  for (int k = 1; k <= 4; ++k) {
    const double sigma = std::sqrt((exact[2 * k] - exact[k] * exact[k]) / n);
    EXPECT_NEAR(sum.mean[k] / n, exact[k], 4 * sigma) << name << ", moment " << k;
  }
}

constexpr uint32_t num_blocks = 1 << 20;
constexpr double uniform_moments[9] = {1, 0, 1, 0, 9. / 5, 0, 27. / 7, 0, 9};  // of sqrt(12) (u - 1/2)
constexpr double normal_moments[9] = {1, 0, 1, 0, 3, 0, 15, 0, 105};

template <class T>
void test_moments(const char* name) {
  Moments uniforms, normals, product;
  for (uint32_t i = 0; i < num_blocks; ++i) {
    const auto b = Philox(2024, i).block(0, 0);
    uniforms.add(std::sqrt(12.0) * (double(uniform<T>(b[0], b[2])) - 0.5));
    const auto z = normal2<T>(b);
    normals.add(z[0]);
    normals.add(z[1]);
    product.add(double(z[0]) * double(z[1]));
  }
  expect_moments(uniforms, num_blocks, uniform_moments, name);
  expect_moments(normals, 2.0 * num_blocks, normal_moments, name);
  EXPECT_NEAR(product.mean[1] / num_blocks, 0, 4 / std::sqrt(double(num_blocks)));
}

TEST(Distributions, HaveTheirMomentsInFloat) { test_moments<float>("float"); }
TEST(Distributions, HaveTheirMomentsInDouble) { test_moments<double>("double"); }

// Kolmogorov-Smirnov: sqrt(n) sup |F_n - F| exceeds 1.95 once in a thousand.
TEST(Normal, FollowsItsDistributionIntoTheTails) {
  std::vector<double> z;
  for (uint32_t i = 0; i < num_blocks; ++i) z.push_back(normal2<float>(Philox(5, i).block(0, 0))[0]);
  std::sort(z.begin(), z.end());
  double distance = 0;
  for (size_t i = 0; i < z.size(); ++i)
    distance = std::max(distance, std::abs((i + 0.5) / num_blocks - 0.5 * std::erfc(-z[i] / std::sqrt(2.0))));
  EXPECT_LT(std::sqrt(double(num_blocks)) * distance, 1.95);
  const double beyond = 0.5 * std::erfc(4 / std::sqrt(2.0)) * num_blocks;  // 33 above 4 sigma
  EXPECT_NEAR(z.end() - std::upper_bound(z.begin(), z.end(), 4.0), beyond, 4 * std::sqrt(beyond));
}

}  // namespace
}  // namespace hepops::core
