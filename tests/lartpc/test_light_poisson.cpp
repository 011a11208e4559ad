#include "lartpc/light_poisson.h"

#include <gtest/gtest.h>

using namespace hepops;

TEST(LightPoisson, LogFactorial) {
  for (const double k : {0.0, 1.0, 2.0, 5.0, 8.0, 9.0, 10.0, 50.0, 1e3, 1e7})
    EXPECT_NEAR(lartpc::log_factorial(k), std::lgamma(k + 1), 4e-14 + 4e-16 * std::lgamma(k + 1));
}

TEST(LightPoisson, InversionCountsTheSteps) {
  for (const double mean : {0.01, 0.7, 3.0, 9.99})
    for (double u = 5e-4; u < 1; u += 1e-3) {
      double sum = 0, p = std::exp(-mean);
      int n = 0;
      while (u >= sum + p) sum += p, p *= mean / ++n;
      EXPECT_EQ(lartpc::poisson_by_inversion(mean, u), n) << mean << ' ' << u;
    }
}

TEST(LightPoisson, EndsForTheLastUniformNumber) {
  EXPECT_LT(lartpc::poisson_by_inversion(9.99, std::nextafter(1.0, 0.0)), 80);
  EXPECT_EQ(lartpc::poisson(0, core::Philox(1, 2), 3, 4), 0);
  EXPECT_EQ(lartpc::poisson(std::nan(""), core::Philox(1, 2), 3, 4), 0);
}

TEST(LightPoisson, AMeanOfMillionsIsRejectedRightly) {
  const double mean = 3e6;
  double sum = 0, square = 0;
  const int n = 20000;
  for (int i = 0; i < n; ++i) {
    const double x = (lartpc::poisson(mean, core::Philox(9, i), 0, 0) - mean) / std::sqrt(mean);
    sum += x, square += x * x;
  }
  EXPECT_LT(std::abs(sum / n), 5 / std::sqrt(n));
  EXPECT_LT(std::abs(square / n - 1), 5 * std::sqrt(2.0 / n));
}
