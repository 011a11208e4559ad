#include "lartpc/drift.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/dual.h"

namespace hepops::lartpc {
namespace {

constexpr Transport<double> nominal{.lifetime = 2200, .E = 0.5, .D_T = 8.8e-6, .D_L = 4.0e-6, .temperature = 87.17};

TEST(Drift, VelocityAtTheNominalField) {
  EXPECT_NEAR(velocity(0.5, 87.17), 0.1596452, 5e-8);
  EXPECT_NEAR(velocity_backward(1.0, 0.5, 87.17).E * 0.5 / velocity(0.5, 87.17), 0.5005, 5e-5);
}

// At T0 and without a field the mobility is a0.
TEST(Drift, MobilityOfAFaintField) { EXPECT_DOUBLE_EQ(mobility(0.0, 89.0), 551.6); }

TEST(Drift, FollowsItsLaws) {
  const double v = velocity(0.5, 87.17);
  const auto at = drift(30.0, nominal);
  EXPECT_DOUBLE_EQ(at.time, 30.0 / v);
  EXPECT_DOUBLE_EQ(at.survival, std::exp(-30.0 / v / 2200));
  EXPECT_DOUBLE_EQ(at.sigma_t * at.sigma_t, 2 * 8.8e-6 * at.time);
  EXPECT_DOUBLE_EQ(at.sigma_l * at.sigma_l, 2 * 4.0e-6 * at.time);
}

TEST(Drift, NothingChangesAtTheAnode) {
  const auto at = drift(0.0, nominal);
  EXPECT_EQ(at.survival, 1.0);
  EXPECT_EQ(at.time, 0.0);
  EXPECT_EQ(at.sigma_t, 0.0);
  EXPECT_EQ(at.sigma_l, 0.0);
}

using D = core::Dual<double, 6>;

Transport<D> with_slopes(const Transport<double>& t) {
  return {D(t.lifetime, 1), D(t.E, 2), D(t.D_T, 3), D(t.D_L, 4), D(t.temperature, 5)};
}

TEST(Drift, BackwardIsTheExactSlope) {
  const Arrival<double> grad{.survival = 0.7, .time = -0.01, .sigma_t = 3, .sigma_l = -5};
  for (const double distance : {0.0, 1e-9, 0.1, 1.0, 30.0, 350.0})
    for (const double E : {0.05, 0.5, 2.0}) {
      auto transport = nominal;
      transport.E = E;
      const auto at = drift(D(distance, 0), with_slopes(transport));
      const auto g = drift_backward(grad, distance, transport);
      const double ours[] = {g.distance, g.lifetime, g.E, g.D_T, g.D_L, g.temperature};
      for (int i = 0; i < 6; ++i) {
        const double terms[] = {grad.survival * at.survival.slope[i], grad.time * at.time.slope[i],
                                grad.sigma_t * at.sigma_t.slope[i], grad.sigma_l * at.sigma_l.slope[i]};
        double exact = 0, size = 0;
        for (const double term : terms) exact += term, size += std::abs(term);
        EXPECT_NEAR(ours[i], exact, 4e-15 * size) << "distance " << distance << ", E " << E << ", argument " << i;
      }
    }
}

TEST(Drift, BackwardIsFiniteAtTheAnode) {
  const auto g = drift_backward({1.0, 1.0, 1.0, 1.0}, 0.0, nominal);
  const double v = velocity(0.5, 87.17);
  EXPECT_DOUBLE_EQ(g.distance, (1 - 1 / 2200.0) / v);  // of survival and time; the infinite slopes of the spreads are 0
  EXPECT_EQ(g.D_T, 0.0);
  EXPECT_EQ(g.D_L, 0.0);
}

TEST(Drift, NoDiffusionHasNoSpreadAndNoInfinity) {
  auto still = nominal;
  still.D_T = still.D_L = 0;
  const auto g = drift_backward({1.0, 1.0, 1.0, 1.0}, 10.0, still);
  EXPECT_EQ(drift(10.0, still).sigma_t, 0.0);
  EXPECT_TRUE(std::isfinite(g.distance) && std::isfinite(g.D_T));
}

}  // namespace
}  // namespace hepops::lartpc
