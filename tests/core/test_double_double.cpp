#include "core/double_double.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace hepops::core {
namespace {

using Exact = __float128;  // 113 bits: holds a product of two doubles, and any double-double of ours to 2^-113

Exact exact(const DoubleDouble& a) { return Exact(a.high) + Exact(a.low); }

// |ours - theirs| / |theirs| in units of 2^-106
double error(const DoubleDouble& ours, Exact theirs) {
  const Exact difference = exact(ours) - theirs, size = theirs < 0 ? -theirs : theirs;
  return std::abs(double(difference / size)) * 0x1p106;
}

struct Numbers {
  std::mt19937_64 random{1};
  double operator()() { return std::ldexp(std::uniform_real_distribution<>(-1, 1)(random), int(random() % 40) - 20); }
  DoubleDouble pair() {
    const double high = (*this)();
    return quick_two_sum(high, high * std::uniform_real_distribution<>(-0x1p-54, 0x1p-54)(random));
  }
};

TEST(DoubleDouble, TwoSumAndTwoProdLoseNothing) {
  Numbers number;
  for (int i = 0; i < 100000; ++i) {
    const double a = number(), b = number();
    const auto s = two_sum(a, b), p = two_prod(a, b);
    EXPECT_EQ(s.high, a + b);
    EXPECT_TRUE(exact(s) == Exact(a) + Exact(b));
    EXPECT_EQ(p.high, a * b);
    EXPECT_TRUE(exact(p) == Exact(a) * Exact(b));
  }
}

#ifdef __x86_64__
[[gnu::noinline, gnu::target("fma")]]  // where the compiler could fuse
#endif
DoubleDouble sum_of_product(double a, double b, double c) {
  return two_sum(a * b, c);
}

// A product that the caller makes must be rounded before its sum's error is taken; fused, the error would be wrong.
TEST(DoubleDouble, TwoSumIsNotFusedWithItsArguments) {
#ifdef __x86_64__
  if (!__builtin_cpu_supports("fma")) GTEST_SKIP() << "this processor has no fma";
#endif
  Numbers number;
  for (int i = 0; i < 1000; ++i) {
    const double a = number(), b = number(), c = number();
    volatile double product = a * b;
    EXPECT_TRUE(exact(sum_of_product(a, b, c)) == Exact(product) + Exact(c));
  }
}

// The bounds of Joldes, Muller, Popescu: 2, 3, 2 and 4 (a little more is allowed for our 113 bits).
TEST(DoubleDouble, KeepsTheProvedBounds) {
  Numbers number;
  for (int i = 0; i < 100000; ++i) {
    const DoubleDouble a = number.pair(), b = number.pair();
    const double c = number();
    EXPECT_LT(error(a + c, exact(a) + Exact(c)), 2.1);
    EXPECT_LT(error(a + b, exact(a) + exact(b)), 3.1);
    EXPECT_LT(error(a - b, exact(a) - exact(b)), 3.1);
    EXPECT_LT(error(a * c, exact(a) * Exact(c)), 2.1);
    EXPECT_LT(error(a * b, exact(a) * exact(b)), 4.1);
  }
}

TEST(DoubleDouble, SumsThatCancelKeepTheirDigits) {
  const std::vector<double> x{1e16, 1.0, -1e16, 1e-30};
  const DoubleDouble sum = accurate_sum(x.data(), x.size());
  EXPECT_EQ(sum.high, 1.0);
  EXPECT_EQ(sum.low, 1e-30);
  EXPECT_EQ(((x[0] + x[1]) + x[2]) + x[3], 1e-30);  // what double makes of it

  std::vector<double> y;  // the harmonic series and its mirror image, shuffled: nothing remains
  for (int i = 1; i <= 10000; ++i) y.insert(y.end(), {1.0 / i, -1.0 / (10001 - i)});
  EXPECT_LT(std::abs(double(accurate_sum(y.data(), y.size()))), 1e-26);
}

TEST(DoubleDouble, SumsNothingAndFloats) {
  EXPECT_EQ(double(accurate_sum<double>(nullptr, 0)), 0);
  const std::vector<float> x(10, 0.1f);
  EXPECT_EQ(double(accurate_sum(x.data(), 10)), 10 * double(0.1f));
}

}  // namespace
}  // namespace hepops::core
