#include "lartpc/light_arrivals.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

using namespace hepops::lartpc;

namespace {

constexpr double tick = 0.1;
constexpr int64_t ticks = 12;

// One deposit of the unit at `time`, spread over the columns.
std::vector<double> unit(double time, int64_t begin, double tau) {
  const Decay decay(tau, tick);
  const LightPlace place = light_place(time, begin, tick, ticks);
  std::vector<double> out(ticks + 2), enter(ticks + 2);
  const double left = place.column > ticks ? 0 : decay.left(place.rest);
  out[place.column] += 1 - left;
  if (place.column <= ticks) enter[place.column + 1] += left;
  decay.spread(enter.data(), out.data(), ticks);
  return out;
}

}  // namespace

TEST(LightArrivals, FindsTheColumn) {
  EXPECT_EQ(light_place(0.05, 0, tick, ticks).column, 1);
  EXPECT_NEAR(light_place(0.05, 0, tick, ticks).rest, 0.05, 1e-15);
  EXPECT_EQ(light_place(-3.0, 0, tick, ticks).column, 0);
  EXPECT_NEAR(light_place(-3.0, 0, tick, ticks).rest, 3.0, 1e-14);
  EXPECT_EQ(light_place(0.05, -7, tick, ticks).column, 8);
  EXPECT_EQ(light_place(99.0, 0, tick, ticks).column, ticks + 1);
  EXPECT_EQ(light_place(1e300, 0, tick, ticks).column, ticks + 1);
  EXPECT_EQ(light_place(-1e300, 0, tick, ticks).column, 0);
}

TEST(LightArrivals, SpreadsTheIntegralsOfTheExponential) {
  for (const double tau : {0.01, 0.3, 5.0})
    for (const double time : {-0.73, 0.0, 0.04, 0.97, 1.13}) {
      const std::vector<double> out = unit(time, 0, tau);
      EXPECT_NEAR(std::accumulate(out.begin(), out.end(), 0.0), 1, 1e-15);
      const auto below = [&](double edge) { return edge > time ? -std::expm1(-(edge - time) / tau) : 0.0; };
      EXPECT_NEAR(out[0], below(0), 1e-14);
      for (int64_t k = 1; k <= ticks; ++k) EXPECT_NEAR(out[k], below(k * tick) - below((k - 1) * tick), 1e-14);
    }
}

TEST(LightArrivals, GatherIsTheAdjointOfSpread) {
  const Decay decay(0.37, tick);
  std::vector<double> enter(ticks + 2), grad(ticks + 2), worth(ticks + 2), out(ticks + 2);
  for (int64_t k = 1; k < ticks + 2; ++k) enter[k] = std::sin(3 * k), grad[k] = std::cos(5 * k);
  const std::vector<double> entered = enter;
  decay.spread(enter.data(), out.data(), ticks);
  decay.gather(grad.data(), worth.data(), ticks);
  const double there = std::inner_product(out.begin() + 1, out.end(), grad.begin() + 1, 0.0);
  const double back = std::inner_product(entered.begin() + 1, entered.end(), worth.begin() + 1, 0.0);
  EXPECT_NEAR(there, back, 1e-14);
}

TEST(LightArrivals, TheSlopeWithTheTimeConstantIsThatOfDifferences) {
  const double tau = 0.37, h = 1e-6;
  std::vector<double> grad(ticks + 2), source(ticks + 2);
  for (int64_t k = 1; k < ticks + 2; ++k) source[k] = 1 + std::sin(3 * k), grad[k] = std::cos(5 * k);
  const auto value = [&](double t) {
    std::vector<double> enter = source, out(ticks + 2);
    Decay(t, tick).spread(enter.data(), out.data(), ticks);
    return std::inner_product(out.begin() + 1, out.end(), grad.begin() + 1, 0.0);
  };
  std::vector<double> alive = source, out(ticks + 2), worth(ticks + 2);
  const Decay decay(tau, tick);
  decay.spread(alive.data(), out.data(), ticks);
  decay.gather(grad.data(), worth.data(), ticks);
  EXPECT_NEAR(decay.slope_by_tau(alive.data(), grad.data(), worth.data(), ticks),
              (value(tau + h) - value(tau - h)) / (2 * h), 1e-8);
}
