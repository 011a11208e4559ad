#include "sparse/pool.h"

#include <gtest/gtest.h>

#include <limits>

namespace hepops::sparse {
namespace {

TEST(Pool, OnlyTheGreaterOrTheFirstNanTakesOver) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(takes_over(2.0, 1.0));
  EXPECT_FALSE(takes_over(1.0, 1.0));
  EXPECT_FALSE(takes_over(1.0, 2.0));
  EXPECT_TRUE(takes_over(nan, inf));
  EXPECT_FALSE(takes_over(nan, nan));
  EXPECT_FALSE(takes_over(inf, nan));
}

}  // namespace
}  // namespace hepops::sparse
