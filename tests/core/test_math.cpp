#include "core/math.h"

#include <gtest/gtest.h>

namespace hepops::core {
namespace {

TEST(Math, KeepsTheTypeOfItsArgument) {
  static_assert(std::is_same_v<decltype(exp(1.0f)), float>);
  static_assert(std::is_same_v<decltype(erfc(1.0f)), float>);
  static_assert(std::is_same_v<decltype(abs(-1.0f)), float>);
  static_assert(std::is_same_v<decltype(pow(1.0f, 1.0f)), float>);
  static_assert(std::is_same_v<decltype(max(1.0f, 2.0f)), float>);
  EXPECT_EQ(abs(-1.5f), 1.5f);  // and not the int of ::abs
}

TEST(Math, MinAndMaxAreThoseOfTheStandard) {
  EXPECT_EQ(min(1, 2), 1);
  EXPECT_EQ(max(int64_t(1) << 40, int64_t(2)), int64_t(1) << 40);
  EXPECT_EQ(min(1.0, double(NAN)), 1.0);
  EXPECT_TRUE(std::isnan(max(double(NAN), 1.0)));
}

}  // namespace
}  // namespace hepops::core
