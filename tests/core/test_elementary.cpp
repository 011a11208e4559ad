#include "core/elementary.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hepops::core::series {
namespace {

// The distance from the value in long double, in units of the last place of T.
template <class T>
double ulps(T ours, long double exact) {
  const T nearest = T(exact);
  if (std::isinf(nearest) || nearest == 0) return ours == nearest ? 0 : INFINITY;
  const T place = std::nextafter(std::abs(nearest), T(INFINITY)) - std::abs(nearest);
  return double(std::abs((long double)ours - exact) / place);
}

template <class T>
class Elementary : public testing::Test {};
using Kinds = testing::Types<float, double>;
TYPED_TEST_SUITE(Elementary, Kinds);

TYPED_TEST(Elementary, ExpIsWithinTwoUlp) {
  using T = TypeParam;
  const T most = std::log(std::numeric_limits<T>::max()), least = std::log(std::numeric_limits<T>::min());
  double worst = 0;
  for (int i = 0; i <= 200'000; ++i) {
    const T x = least + (most - least) * T(i) / T(200'000), small = x / 300;
    worst = std::max({worst, ulps(exp(x), std::exp((long double)x)), ulps(exp(small), std::exp((long double)small))});
  }
  EXPECT_LT(worst, 2);
}

TYPED_TEST(Elementary, Log1pIsWithinTwoUlp) {
  using T = TypeParam;
  double worst = 0;
  for (int i = 0; i <= 200'000; ++i) {
    const long double t = i / 200'000.0L;
    for (const long double u : {std::pow(10.L, 60 * t - 30), -std::pow(10.L, -30 * t) * (1 - 1e-6L), 4 * t - 1 + 1e-6L})
      worst = std::max(worst, ulps(log1p(T(u)), std::log1p((long double)T(u))));
  }
  EXPECT_LT(worst, 2);
}

TYPED_TEST(Elementary, TheEndsAreThoseOfTheStandard) {
  using T = TypeParam;
  const T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  for (const T x : {T(0), T(-0.0), infinity, -infinity, T(1e30), T(-1e30), T(-100), T(-740), T(88.7), T(709.7)})
    EXPECT_LE(ulps(exp(x), std::exp((long double)x)), 1) << x;  // subnormal results too
  EXPECT_TRUE(std::isnan(exp(nan)));
  for (const T u : {T(0), T(-1), infinity, std::numeric_limits<T>::max(), std::numeric_limits<T>::denorm_min()})
    EXPECT_EQ(log1p(u), std::log1p(u)) << u;
  for (const T u : {nan, T(-1.5), -infinity}) EXPECT_TRUE(std::isnan(log1p(u))) << u;
}

}  // namespace
}  // namespace hepops::core::series
