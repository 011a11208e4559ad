#include "lartpc/dipole.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hepops::lartpc {
namespace {

constexpr double pitch = 0.4434, L = 5.0;

// The weighting potential of a square pad in a grounded plane, exactly (see response.h).
double pad(double x, double y, double z) {
  double sum = 0;
  for (int s : {-1, 1})
    for (int t : {-1, 1}) {
      const double a = x + s * pitch / 2, b = y + t * pitch / 2;
      sum += s * t * std::atan2(a * b, z * std::sqrt(a * a + b * b + z * z));
    }
  return sum / (2 * M_PI);
}

TEST(Dipole, IsThePadFromAfar) {
  const Dipole dipole(pitch, L, 0);
  double largest = 0;  // along a line of drift: what the header's 0.05 % refers to
  for (double z = 0.05; z < L; z += 0.05) largest = std::max(largest, pad(2.5 * pitch, 0, z));
  for (double z = 0.05; z < L; z += 0.05)
    EXPECT_NEAR(dipole.term(6.25 * pitch * pitch, z), pad(2.5 * pitch, 0, z), 6e-4 * largest) << z;
}

// Few images and the polynomial for the rest, against many images, as far from the pad as far_plan lets it be.
TEST(Dipole, ImagesBeyondAreThePolynomial) {
  for (int m : {1, 2, 4}) {
    const Dipole few(pitch, L, m);
    const Dipole none(pitch, L, 0);
    const double rho = (m + 1) * L / 2;
    for (double z : {0.3, 2.5, 4.9}) {
      double rest = 0;
      for (int n = 20000; n > m; --n) rest += none.term(rho * rho, z + 2 * n * L) + none.term(rho * rho, z - 2 * n * L);
      // of the sum of images n > m itself: a hundredth, as the header says, but where the plane and cathode cancel it
      EXPECT_NEAR(few.rest(rho * rho, z), rest, 0.15 * std::abs(rest)) << m << " " << z;
    }
  }
}

TEST(Dipole, VanishesOnTheAnodeAndOnTheCathode) {
  const Dipole dipole(pitch, L, 3);
  const double rho2 = 4.0, largest = dipole.potential(rho2, 1.2);
  EXPECT_NEAR(dipole.potential(rho2, 0.0), 0, 1e-12 * largest);
  EXPECT_NEAR(dipole.potential(rho2, L), 0, 2e-3 * largest);  // of the polynomial
}

TEST(Dipole, SlopesAgreeWithDifferences) {
  const Dipole dipole(pitch, L, 2);
  const double h = 1e-5;
  for (double rho2 : {1.3, 4.0, 30.0})
    for (double z : {-9.0, -0.7, 0.0, 0.4, 3.0, 11.0}) {
      const auto term = dipole.slopes(rho2, z), rest = dipole.rest_slopes(rho2, z);
      const double size = dipole.scale / rho2;  // of a slope, at most
      EXPECT_EQ(rest.value, dipole.rest(rho2, z));
      EXPECT_NEAR(term.value, dipole.term(rho2, z), 1e-15);
      EXPECT_NEAR(term.z, (dipole.term(rho2, z + h) - dipole.term(rho2, z - h)) / (2 * h), 1e-9 * size);
      EXPECT_NEAR(term.rho2, (dipole.term(rho2 + h, z) - dipole.term(rho2 - h, z)) / (2 * h), 1e-9 * size);
      EXPECT_NEAR(rest.z, (dipole.rest(rho2, z + h) - dipole.rest(rho2, z - h)) / (2 * h), 1e-9 * size);
      EXPECT_NEAR(rest.rho2, (dipole.rest(rho2 + h, z) - dipole.rest(rho2 - h, z)) / (2 * h), 1e-9 * size);
    }
}

TEST(Dipole, PlaneSeesWhatLiesBetweenReachAndFar) {
  const FarPlane plane{pitch, 0.1, 2, 5, 10, 3};
  EXPECT_FALSE(plane.sees(0, 0));
  EXPECT_FALSE(plane.sees(2, -2));
  EXPECT_TRUE(plane.sees(3, 0));
  EXPECT_TRUE(plane.sees(-1, 3));
  EXPECT_TRUE(plane.sees(5, -5));
  EXPECT_FALSE(plane.sees(5, 6));
}

}  // namespace
}  // namespace hepops::lartpc
