#include "core/doubles.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hepops::core {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();

double ulps(double ours, long double exact) {
  const double nearest = double(exact);
  if (std::isnan(nearest)) return std::isnan(ours) ? 0 : infinity;
  if (std::isinf(nearest) || nearest == 0) return ours == nearest ? 0 : infinity;
  const double place = std::nextafter(std::abs(nearest), infinity) - std::abs(nearest);
  return double(std::abs((long double)ours - exact) / place);
}

// f on a pack whose first number is x, and the others something else
template <class F>
double first(const F& f, double x) {
  Doubles p(0.3);
  p.v[0] = x;
  return f(p).v[0];
}

template <class F, class G>
double worst(const F& f, const G& exact, double low, double high, int steps = 100'000) {
  double most = 0;
  for (int i = 0; i <= steps; ++i) {
    const double x = low + (high - low) * i / steps;
    most = std::max(most, ulps(first(f, x), exact((long double)x)));
  }
  return most;
}

#define PACKED(f) [](auto x) { return f(x); }

TEST(Doubles, FunctionsAreWithinTwoUlp) {
  for (const double size : {1e-3, 1.0, 30.0, 700.0}) {
    EXPECT_LT(worst(PACKED(exp), PACKED(std::exp), -size, size), 2);
    EXPECT_LT(worst(PACKED(expm1), PACKED(std::expm1), -size, size), 5) << size;  // above 0.35 it is exp - 1
    EXPECT_LT(worst(PACKED(log1p), PACKED(std::log1p), std::max(-size, -1 + 1e-9), size), 2);
    EXPECT_LT(worst(PACKED(log), PACKED(std::log), size * 1e-9, size), 2);
  }
}

TEST(Doubles, LogarithmsOfAllSizes) {
  double most = 0;
  for (int i = -1074 * 4; i < 1023 * 4; ++i) {
    const double x = double(std::exp2((long double)i / 4));
    most = std::max(most, ulps(first(PACKED(log), x), std::log((long double)x)));
    most = std::max(most, ulps(first(PACKED(log1p), x), std::log1p((long double)x)));
  }
  EXPECT_LT(most, 2);
}

TEST(Doubles, AnglesInEveryDirection) {
  double most = 0;
  for (int i = -2000; i <= 2000; ++i)
    for (const double length : {1e-200, 0.3, 1e200}) {
      const double angle = std::numbers::pi * i / 2000, x = length * std::cos(angle), y = length * std::sin(angle);
      Doubles px(1.0), py(-1.0);
      px.v[0] = x, py.v[0] = y;
      most = std::max(most, ulps(atan2(py, px).v[0], std::atan2((long double)y, (long double)x)));
    }
  EXPECT_LT(most, 2);
  EXPECT_EQ(atan2(Doubles(0.0), Doubles(0.0)).v[0], 0);
  EXPECT_EQ(atan2(Doubles(-1.0), Doubles(0.0)).v[0], -std::numbers::pi / 2);
}

TEST(Doubles, SineAndCosine) {
  for (const bool sine : {true, false}) {
    const auto ours = [sine](Doubles x) {
      Doubles s, c;
      sin_cos_half_turn(x, s, c);
      return sine ? s : c;
    };
    double most = 0;  // in units of the last place of 1: near a zero the number itself is rounded
    for (int i = -100'000; i <= 100'000; ++i) {
      const double x = 0.75 * std::numbers::pi * i / 100'000;
      const long double exact = sine ? std::sin((long double)x) : std::cos((long double)x);
      most = std::max(most, std::abs(double(first(ours, x) - exact)) * 0x1p52);
    }
    EXPECT_LT(most, 1);
    double s, c;
    sin_cos_half_turn(std::numbers::pi / 2, s, c);
    EXPECT_LT(ulps(c, std::cos((long double)(std::numbers::pi / 2))), 2);
  }
}

TEST(Doubles, EndsAreThoseOfTheStandard) {
  for (const double x : {0.0, -0.0, infinity, -infinity, nan, 1e300, -1e300, 5e-324, -745.0, 709.78}) {
    EXPECT_LT(ulps(first(PACKED(exp), x), std::exp((long double)x)), 2) << x;
    EXPECT_LT(ulps(first(PACKED(log), x), std::log((long double)x)), 2) << x;
    EXPECT_LT(ulps(first(PACKED(log1p), x), std::log1p((long double)x)), 2) << x;
    EXPECT_LT(ulps(first(PACKED(expm1), x), std::expm1((long double)x)), 2) << x;
  }
}

TEST(Doubles, ChoosesByNumber) {
  Doubles a(1.0), b(2.0);
  a.v[0] = 3, a.v[1] = nan;
  const Doubles least = min(b, a), most = max(b, a), chosen = select(a > b, Doubles(10.0), Doubles(20.0));
  EXPECT_EQ(least.v[0], 2);
  EXPECT_EQ(most.v[0], 3);
  EXPECT_EQ(chosen.v[0], 10);
  EXPECT_EQ(chosen.v[1], 20);
  EXPECT_EQ(min(b, a).v[1], 2);  // a NaN in the second place loses, as in core::min
  EXPECT_TRUE(any(a > b));
  EXPECT_FALSE(any(a > 5.0));
  EXPECT_EQ(abs(Doubles(-0.5)).v[0], 0.5);
}

}  // namespace
}  // namespace hepops::core
