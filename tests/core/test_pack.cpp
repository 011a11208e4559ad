#include "core/pack.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace hepops::core {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();

// The largest relative error of `ours` on n numbers that `draw` makes.
template <class T, class Ours, class Exact, class Draw>
double error(const Ours& ours, const Exact& exact, const Draw& draw, int n = 20000) {
  double worst = 0;
  for (int i = 0; i < n; ++i) {
    const double x = draw(), y = exact(x);
    const T result = ours(T(x));
    for (int l = 0; l < T::lanes; ++l) {
      if (!(std::abs(result.v[l] - y) <= worst * std::abs(y))) worst = std::abs(result.v[l] - y) / std::abs(y);
    }
  }
  return worst;
}

template <class T>
void check_elementary(double tolerance) {
  std::mt19937 generator(1);
  const auto between = [&](double low, double high) {
    return [&generator, low, high] { return std::uniform_real_distribution<double>(low, high)(generator); };
  };
  EXPECT_LE(error<T>([](T x) { return exp(x); }, [](double x) { return std::exp(x); }, between(-708, 709)), tolerance);
  EXPECT_LE(error<T>([](T x) { return exp(x); }, [](double x) { return std::exp(x); }, between(-1, 1)), tolerance);
  EXPECT_LE(error<T>([](T x) { return log1p_of_fraction(x); }, [](double x) { return std::log1p(x); }, between(0, 1)),
            tolerance);
  EXPECT_LE(error<T>([](T x) { return log1p_of_fraction(x); }, [](double x) { return std::log1p(x); },
                     [&, draw = between(-700, 0)] { return std::exp(draw()); }),
            tolerance);
  EXPECT_LE(error<T>([](T x) { return log(x); }, [](double x) { return std::log(x); },
                     [&, draw = between(-700, 700)] { return std::exp(draw()); }),
            tolerance);
  EXPECT_LE(error<T>([](T x) { return log(x); }, [](double x) { return std::log(x); },
                     [&, draw = between(-1e-3, 1e-3)] { return 1 + draw(); }),
            2 * tolerance);
}

TEST(Pack, ElementaryFunctions) { check_elementary<Pack<full_lanes<double>>>(2 * 0x1p-52); }

TEST(Pack, BriefElementaryFunctions) { check_elementary<Pack<full_lanes<double>, true>>(1.1e-10); }

template <class T>
void check_ends() {
  EXPECT_EQ(exp(T(0.0)).v[0] > 0.9999999999, true);
  EXPECT_LE(exp(T(-infinity)).v[0], 1e-307);
  EXPECT_TRUE(std::isnan(exp(T(nan)).v[1]));
  EXPECT_EQ(log(T(0.0)).v[0], -infinity);
  EXPECT_EQ(log(T(infinity)).v[0], infinity);
  EXPECT_TRUE(std::isnan(log(T(-1.0)).v[0]));
  EXPECT_TRUE(std::isnan(log(T(nan)).v[0]));
  EXPECT_EQ(log(T(1.0)).v[0], 0.0);
}

TEST(Pack, EndsOfTheRange) {
  check_ends<Pack<full_lanes<double>>>();
  check_ends<Pack<full_lanes<double>, true>>();
}

TEST(Pack, ComparesAndSelectsLaneByLane) {
  using T = Pack<4>;
  const double numbers[] = {-1, 0, 2, nan};
  const T x = T::load(numbers);
  const T y = select(x >= T(0.0), x, T(7.0));
  EXPECT_EQ(y.v[0], 7);
  EXPECT_EQ(y.v[1], 0);
  EXPECT_EQ(y.v[2], 2);
  EXPECT_EQ(y.v[3], 7);
  EXPECT_TRUE(any(x > T(1.0)));
  EXPECT_FALSE(any(x > T(2.0)));
  EXPECT_TRUE(any(!(x == x)));
  EXPECT_TRUE(std::isnan(max(x, T(0.0)).v[3]));
  EXPECT_TRUE(std::isnan(min(x, T(0.0)).v[3]));
  EXPECT_EQ(round_to(float(), T(0.1)).v[2], double(0.1f));
}

}  // namespace
}  // namespace hepops::core
