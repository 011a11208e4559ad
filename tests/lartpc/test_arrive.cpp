#include "lartpc/arrive.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hepops::lartpc {
namespace {

using F = ArrivalField;

// dE, dE/dx, cos2, depth, width, t0; then the parameters, in their order
constexpr double inputs[arrive_inputs] = {1.7,    2.9,    0.3,  12.0, 0.08,  3.5,  2200, 0.5,   0.8,
                                          0.0486, 8.8e-6, 4e-6, 0.93, 0.207, 1.25, 1.38, 87.17, 23.6e-6};

auto arrive_at(const double* x, int model) { return arrive<double>(x, x + int(DepositField::count), model); }

TEST(Arrive, FollowsRecombinationAndDrift) {
  const auto at = arrive_at(inputs, birks);
  const double v = velocity(0.5, 87.17), t = 12.0 / v;
  EXPECT_DOUBLE_EQ(at[F::charge], 0.8 / (1 + 0.0486 * 2.9 / (0.5 * 1.38)) * 1.7 / 23.6e-6 * std::exp(-t / 2200));
  EXPECT_DOUBLE_EQ(at[F::time], 3.5 + t);
  EXPECT_DOUBLE_EQ(at[F::sigma], std::sqrt(2 * 8.8e-6 * t));
  EXPECT_DOUBLE_EQ(at[F::sigma_time], std::sqrt(2 * 4e-6 * t) / v);
  EXPECT_DOUBLE_EQ(at[F::width_time], 0.08 / v);
}

TEST(Arrive, KnowsThreeModels) {
  const double box_xi = 0.207 * 2.9 / (0.5 * 1.38), survival = std::exp(-12.0 / velocity(0.5, 87.17) / 2200);
  const double xi = box_xi / std::sqrt(1 - 0.3 + 0.3 / (1.25 * 1.25));
  const double scale = 1.7 / 23.6e-6 * survival;
  EXPECT_NEAR(arrive_at(inputs, box)[F::charge], std::log(0.93 + box_xi) / box_xi * scale, 1e-10);
  EXPECT_NEAR(arrive_at(inputs, ellipsoid)[F::charge], std::log(0.93 + xi) / xi * scale, 1e-10);
}

TEST(Arrive, SlopesAgreeWithDifferences) {
  for (int model = 0; model < 3; ++model)
    for (int k = 0; k < arrive_inputs; ++k) {
      double up[arrive_inputs], down[arrive_inputs];
      std::copy(inputs, inputs + arrive_inputs, up);
      std::copy(inputs, inputs + arrive_inputs, down);
      const double h = 1e-5 * inputs[k];
      up[k] += h, down[k] -= h;
      const auto high = arrive_at(up, model), low = arrive_at(down, model);
      const auto slopes = arrive_slopes(inputs, k / 6, model);
      for (int f = 0; f < int(F::count); ++f) {
        const double size = std::abs(arrive_at(inputs, model)[f] / inputs[k]);
        EXPECT_NEAR(slopes[f].slope[k % 6], (high[f] - low[f]) / (2 * h), 1e-9 * size)
            << "model " << model << ", input " << k << ", output " << f;
      }
    }
}

TEST(Arrive, SlopesAreFiniteAtTheAnode) {
  double x[arrive_inputs];
  std::copy(inputs, inputs + arrive_inputs, x);
  x[DepositField::depth] = 0;
  for (int g = 0; g < arrive_inputs / 6; ++g)
    for (int f = 0; f < int(F::count); ++f)
      for (int s = 0; s < 6; ++s) EXPECT_TRUE(std::isfinite(arrive_slopes(x, g, birks)[f].slope[s])) << g << f << s;
  EXPECT_EQ(arrive_at(x, birks)[F::sigma], 0.0);
}

// With a field map: recombination in the local field, drift in the mean one, and the slope between the two.
TEST(Arrive, RecombinesInTheLocalField) {
  for (int model = 0; model < 3; ++model) {
    const double* p = inputs + int(DepositField::count);
    const auto at = [&](double ratio) { return arrive<double>(inputs, p, model, ratio); };
    double other[arrive_inputs];
    std::copy(inputs, inputs + arrive_inputs, other);
    other[int(DepositField::count) + ParameterField::efield] *= 1.2;
    const auto everywhere = arrive_at(other, model), here = at(1.2), plain = at(1);
    const double survival = std::exp((everywhere[F::time] - plain[F::time]) / 2200);
    EXPECT_NEAR(here[F::charge], everywhere[F::charge] * survival, 1e-12 * here[F::charge]);
    for (int f = 1; f < int(F::count); ++f) EXPECT_EQ(here[f], plain[f]) << f;
    const double h = 1e-5, slope = (at(1.2 + h)[F::charge] - at(1.2 - h)[F::charge]) / (2 * h);
    EXPECT_NEAR(charge_per_ratio(inputs, model, 1.2), slope / here[F::charge], 1e-9);
    for (int k = 0; k < arrive_inputs; ++k) {
      std::copy(inputs, inputs + arrive_inputs, other);
      const double step = 1e-5 * inputs[k];
      double charge[2];
      for (int side : {0, 1}) {
        other[k] = inputs[k] + (side ? step : -step);
        charge[side] = arrive<double>(other, other + int(DepositField::count), model, 1.2)[F::charge];
      }
      EXPECT_NEAR(arrive_slopes(inputs, k / 6, model, 1.2)[F::charge].slope[k % 6],
                  (charge[1] - charge[0]) / (2 * step), 1e-9 * std::abs(here[F::charge] / inputs[k]))
          << "model " << model << ", input " << k;
    }
  }
}

// A deposit that loses all its charge to recombination keeps finite slopes.
TEST(Arrive, SlopesAreFiniteWhereNothingSurvives) {
  double x[arrive_inputs];
  std::copy(inputs, inputs + arrive_inputs, x);
  x[DepositField::dEdx] = 1e-3;  // the box needs xi > 1 - alpha
  EXPECT_EQ(arrive_at(x, box)[F::charge], 0.0);
  for (int g = 0; g < arrive_inputs / 6; ++g)
    for (int s = 0; s < 6; ++s) EXPECT_TRUE(std::isfinite(arrive_slopes(x, g, box)[F::charge].slope[s]));
}

}  // namespace
}  // namespace hepops::lartpc
