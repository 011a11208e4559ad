#include "core/vec.h"

#include <gtest/gtest.h>

#include "core/dual.h"

namespace hepops::core {
namespace {

using Vec3 = Vec<double, 3>;

TEST(Vec, IsAVectorSpace) {
  const Vec3 a{1, 2, 3}, b{-4, 5, 0.5};
  const Vec3 c = 2.0 * (a + b) - a * 3.0 + -b;
  for (int i = 0; i < 3; ++i) EXPECT_DOUBLE_EQ(c[i], b[i] - a[i]);
  Vec3 d = a;
  d += b;
  d -= b;
  d *= 2;
  for (int i = 0; i < 3; ++i) EXPECT_DOUBLE_EQ(d[i], 2 * a[i]);
}

TEST(Vec, LagrangeIdentityLinksDotAndCross) {
  const Vec3 a{1, 2, 3}, b{-4, 5, 0.5};
  const Vec3 c = cross(a, b);
  EXPECT_DOUBLE_EQ(dot(c, a), 0);
  EXPECT_DOUBLE_EQ(dot(c, b), 0);
  EXPECT_DOUBLE_EQ(dot(c, c), dot(a, a) * dot(b, b) - dot(a, b) * dot(a, b));
  EXPECT_DOUBLE_EQ(dot(a, b), 7.5);
  EXPECT_DOUBLE_EQ(norm(Vec3{2, 3, 6}), 7);
}

TEST(Vec, TheSlopeOfANormIsTheDirection) {
  using D = Dual<double, 2>;
  const auto r = norm(Vec<D, 2>{D(3, 0), D(4, 1)});
  EXPECT_DOUBLE_EQ(r.value, 5);
  EXPECT_DOUBLE_EQ(r.slope[0], 0.6);
  EXPECT_DOUBLE_EQ(r.slope[1], 0.8);
}

}  // namespace
}  // namespace hepops::core
