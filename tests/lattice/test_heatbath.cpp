// Draws of one link: their moments against quadrature, for parameters small and large.
#include "lattice/heatbath.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hepops::lattice {
namespace {

struct Moments {
  double first, second;
};

// of f(x) in the density e^{log_density(x)} on [low, high], by the midpoint rule on a fine grid
template <class F, class L>
Moments moments(double low, double high, const F& f, const L& log_density) {
  constexpr int n = 400'000;
  double norm = 0, first = 0, second = 0;
  for (int i = 0; i < n; ++i) {
    const double x = low + (high - low) * (i + 0.5) / n, w = std::exp(log_density(x));
    norm += w, first += w * f(x), second += w * f(x) * f(x);
  }
  return {first / norm, second / norm};
}

template <class Sample>
void expect_moments(const Moments& exact, double parameter, const Sample& sample) {
  constexpr int n = 200'000;
  double first = 0, second = 0, fourth = 0;
  for (int i = 0; i < n; ++i) {
    const double x = sample(i);
    ASSERT_TRUE(std::isfinite(x)) << parameter;
    first += x / n, second += x * x / n, fourth += x * x * x * x / n;
  }
  const double error = std::sqrt((second - first * first) / n) + 1e-15;
  EXPECT_NEAR(first, exact.first, 4.5 * error) << parameter;
  EXPECT_NEAR(second, exact.second, 4.5 * std::sqrt((fourth - second * second) / n) + 1e-15) << parameter;
}

TEST(Heatbath, X0HasItsDensity) {
  for (const double a : {0.0, 1e-12, 0.01, 1.0, 1.68, 1.70, 10.0, 1e3, 1e8}) {
    // 1 - x_0 = s: sqrt(s (2 - s)) e^{-a s}, which falls within 40 / a; in units of that
    const double range = std::min(2.0, 60 / std::max(a, 1e-3));
    const auto exact = moments(
        0, range, [&](double s) { return s / range; }, [&](double s) { return 0.5 * std::log(s * (2 - s)) - a * s; });
    expect_moments(exact, a, [&](int i) {
      Draws draws(3, i, 0, 18);
      return (1 - draw_x0(a, draws)) / range;
    });
  }
}

TEST(Heatbath, VonMisesHasItsDensity) {
  for (const double k : {0.0, 1e-12, 0.01, 1.0, 10.0, 1e4, 1e12, 1e300}) {
    const double range = std::min(std::numbers::pi, 9 / std::sqrt(std::max(k, 1e-3)));
    const auto exact = moments(
        0, range, [&](double t) { return t / range; },
        [&](double t) { return -2 * k * std::sin(t / 2) * std::sin(t / 2); });
    expect_moments(exact, k, [&](int i) {
      Draws draws(4, i, 0, 18);
      return std::abs(draw_von_mises(k, draws)) / range;
    });
    expect_moments({0, exact.second}, k, [&](int i) {
      Draws draws(5, i, 0, 18);
      return draw_von_mises(k, draws) / range;
    });
  }
}

TEST(Heatbath, DirectionsAreUniform) {
  for (int component = 1; component < 4; ++component)
    expect_moments({0, 0.25}, component, [&](int i) {
      Draws draws(6, i, 0, 18);
      return draw_su2(0, draws).q[component];
    });
}

TEST(Heatbath, QuaternionsMultiplyAsTheirMatrices) {
  const Quaternion a{{0.1, 0.7, -0.3, 0.5}}, b{{-0.4, 0.2, 0.9, 0.3}};
  Matrix<double, 2> A = Matrix<double, 2>::identity(), B = A;
  multiply_subgroup(a, A, 0, 1);
  multiply_subgroup(b, B, 0, 1);
  const Quaternion ab = subgroup_part(A * B, 0, 1), expected = a * b;
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(ab.q[i], expected.q[i], 1e-15);
}

TEST(Heatbath, AnglesAreWrapped) {
  for (int i = -50; i < 50; ++i) {
    const double theta = 0.37 * i, w = wrapped(theta);
    EXPECT_GT(w, -std::numbers::pi);
    EXPECT_LE(w, std::numbers::pi);
    EXPECT_NEAR(std::sin(w), std::sin(theta), 1e-14);
    EXPECT_NEAR(std::cos(w), std::cos(theta), 1e-14);
  }
}

}  // namespace
}  // namespace hepops::lattice
