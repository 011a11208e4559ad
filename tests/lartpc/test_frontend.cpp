#include "lartpc/frontend.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/dual.h"
#include "lartpc/frontend_sampled.h"

namespace hepops::lartpc::larpix {
namespace {

const Chip chip{.hold = 18, .reset = 1, .busy = 9, .keep = 0};
const Chip filtered{.hold = 18, .reset = 1, .busy = 9, .keep = std::exp(-1.0)};
constexpr double tick = 0.1;

struct Alone {
  int rank = 0, size = 1;
  void sync() const {}
};

struct Event {
  double time, charge;  // [ticks], [e]
  int64_t rank;
};

using Currents = std::vector<double>;

Row<double> row(const Currents& currents) { return {currents.data(), int64_t(currents.size())}; }

std::vector<Event> continuous(const Currents& currents, double threshold, const Chip& chip) {
  std::vector<Event> events;
  Continuous<double> face{chip, row(currents), threshold / tick};
  integrate_and_read(face, [&](double t, double q, int64_t rank) { events.push_back({t, tick * q, rank}); });
  return events;
}

template <class Random = Quiet>
std::vector<Event> sampled(const Currents& currents, double threshold, const Chip& chip, Random random = {}) {
  std::vector<Event> events;
  Sampled<double, Random> face{chip, row(currents), threshold, tick, 0, 0, int64_t(currents.size()), random};
  integrate_and_read(face, [&](int64_t t, double q, int64_t rank) { events.push_back({double(t), q, rank}); });
  return events;
}

// Pulses up and down, so that there are hits, triggers delayed by the busy time, and silent resets.
Currents noisy_pulses(int seed, int ticks = 400) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Currents currents(ticks);
  for (int pulse = 0; pulse < 30; ++pulse) {
    const int start = random() % ticks, length = 5 + random() % 25;
    const double height = 2500 * normal(random);
    for (int k = start; k < std::min(start + length, ticks); ++k) currents[k] += height * (1 + 0.3 * normal(random));
  }
  return currents;
}

TEST(Sampled, KeepsItsTimesToTheTick) {
  const Currents steady(200, 1000.0);  // 100 e per tick
  const auto hits = sampled(steady, 800, chip);
  ASSERT_GE(hits.size(), 3u);
  EXPECT_EQ(hits[0].time, 8);               // crosses with tick 7
  EXPECT_NEAR(hits[0].charge, 2600, 1e-9);  // ticks 0 .. 25
  EXPECT_EQ(hits[1].time, 8 + 28);          // restarts with tick 27, has 800 e with tick 34, is busy until 34: tick 35
  EXPECT_NEAR(hits[1].charge, 2700, 1e-9);  // ticks 27 .. 53
  EXPECT_EQ(hits[2].time, hits[1].time + 28);
}

TEST(Sampled, BusyDelaysTheNextTriggerAfterAHitOnly) {
  Currents currents(200, 0.0);
  currents[5] = 60000;   // a hit at once
  currents[30] = 60000;  // charge after the restart with tick 25, while busy: until tick 33
  const auto hits = sampled(currents, 5000, chip);
  ASSERT_EQ(hits.size(), 2u);
  EXPECT_EQ(hits[1].time, 5 + 1 + 28);

  currents[6] = -20000;  // now the first reading is below threshold: no busy time
  const auto events = sampled(currents, 5000, chip);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].rank, -1);
  EXPECT_EQ(events[1].rank, 0);
  EXPECT_EQ(events[1].time, 30 + 1);
}

TEST(Sampled, LosesTheChargeOfTheResetTick) {
  Currents currents(100, 0.0);
  currents[5] = currents[5 + 19] = 60000;
  EXPECT_EQ(sampled(currents, 5000, chip).size(), 1u);
  currents[5 + 19] = 0;
  currents[5 + 18] = 60000;
  EXPECT_NEAR(sampled(currents, 5000, chip)[0].charge, 12000, 1e-9);
}

TEST(Sampled, ALateLookFollowsABusyTimeBeyondTheWindow) {
  Currents currents(30, 0.0);
  currents[5] = currents[26] = 60000;
  const auto hits = sampled(currents, 5000, chip);
  ASSERT_EQ(hits.size(), 2u);
  EXPECT_EQ(hits[1].time, 34);
  EXPECT_EQ(continuous(currents, 5000, chip).size(), 2u);
}

TEST(Sampled, TheFilterOnlyDelaysCharge) {
  Currents currents(200, 0.0);
  currents[50] = 100000;
  const auto hits = sampled(currents, 5000, filtered);
  ASSERT_EQ(hits.size(), 1u);
  EXPECT_EQ(hits[0].time, 51);                                       // 6321 e at once
  EXPECT_NEAR(hits[0].charge, 10000 * (1 - std::exp(-19.0)), 1e-8);  // ticks 50 .. 68
}

// Multiples of 1000 e per tick and a threshold of 5000 e: every crossing is the end of a tick, and so is all that
// follows. With the filter, whose charges are no multiples, at least every delayed chain is.
TEST(Faces, AgreeWhereTheCrossingIsTheEndOfATick) {
  constexpr double tick = 0.125;
  for (int seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    Currents currents(300);
    for (double& current : currents) current = random() % 3 ? 0.0 : 1000.0 / tick * (int(random() % 3) - 1);
    std::vector<Event> both[2];
    Continuous<double> smooth{chip, row(currents), 5000 / tick};
    integrate_and_read(smooth, [&](double t, double q, int64_t rank) { both[0].push_back({t, tick * q, rank}); });
    Sampled<double, Quiet> clocked{chip, row(currents), 5000, tick, 0, 0, int64_t(currents.size()), {}};
    integrate_and_read(clocked, [&](int64_t t, double q, int64_t rank) { both[1].push_back({double(t), q, rank}); });
    ASSERT_EQ(both[0].size(), both[1].size()) << "seed " << seed;
    for (size_t c = 0; c < both[0].size(); ++c) {
      EXPECT_EQ(both[0][c].time, both[1][c].time);
      EXPECT_DOUBLE_EQ(both[0][c].charge, both[1][c].charge);
      EXPECT_EQ(both[0][c].rank, both[1][c].rank);
    }
  }
}

TEST(Faces, AgreeWithTheFilterWhereTheThresholdIsMetAtTheEndOfATick) {
  for (int k = 40; k < 60; ++k) {
    const Currents steady(200, 1000.0);
    const double threshold = Window{filtered.keep, 0, double(k)}.charge(row(steady)) * tick * (1 - 1e-15);
    const auto smooth = continuous(steady, threshold, filtered), clocked = sampled(steady, threshold, filtered);
    ASSERT_GE(clocked.size(), 2u);
    EXPECT_NEAR(smooth[0].time, clocked[0].time, 1e-12);
    EXPECT_NEAR(smooth[0].charge, clocked[0].charge, 1e-9);
    EXPECT_NEAR(smooth[1].charge, clocked[1].charge,
                100.0);  // a tick of current: the restart forgets, so it crosses anew
  }
}

TEST(Continuous, ASteadyCurrentIsExact) {
  const Currents steady(100, 1234.0);
  const auto hits = continuous(steady, 1000, chip);
  EXPECT_NEAR(hits[0].time, 1000 / 123.4, 1e-12);
  EXPECT_NEAR(hits[0].charge, 1000 + 18 * 123.4, 1e-10);
  EXPECT_DOUBLE_EQ(hits[1].time, hits[0].time + 28);  // above threshold after 8.1 ticks, but busy
  EXPECT_NEAR(hits[1].charge, (28 - 19 + 18) * 123.4, 1e-10);
}

TEST(Continuous, AReadingOfTheThresholdItselfIsAHit) {
  Currents currents(100, 0.0);
  currents[7] = 50000.1;
  const auto hits = continuous(currents, 5000, chip);
  ASSERT_EQ(hits.size(), 1u);
  EXPECT_EQ(hits[0].rank, 0);
}

TEST(Charges, AreSilentOnlyWhereNothingCanTrigger) {
  for (int seed = 0; seed < 300; ++seed) {
    const Currents currents = noisy_pulses(seed, 60);
    const Charges sum = charges(row(currents), 0, 1);
    EXPECT_TRUE(sum.finite());
    if (sum.silent(5000 / tick))
      EXPECT_TRUE(continuous(currents, 5000, chip).empty() && sampled(currents, 5000, chip).empty());
  }
  Currents bad = noisy_pulses(1);
  bad[17] = std::nan("");
  EXPECT_FALSE(charges(row(bad), 0, 1).finite());
}

// ---- derivatives: the law written again on dual numbers

using D = core::Dual<double, 2>;

// Charge at `moment` since `restart`, in e/us times ticks, tick by tick; direction 0 is the tangent of the current.
D charge(const Currents& currents, const Currents& tangent, double keep, const D& restart, const D& moment) {
  D sum(0.0), inflow(0.0);
  for (int64_t k = int64_t(restart.value); double(k) < moment.value; ++k) {
    D current(0.0), start{double(k)}, end{double(k + 1)};
    if (k < int64_t(currents.size())) current = D::with(currents[k], {tangent[k], 0.0});
    if (restart.value > double(k)) start = restart;
    const D width = end - start;
    inflow = D(keep) * inflow + D(1 - keep) * width * current;
    sum = sum + (moment.value < double(k + 1) ? inflow * (moment - start) / width : inflow);
  }
  return sum;
}

// Follows the given times; direction 1 is the threshold.
struct DualEvent {
  D time, charge;
};

std::vector<DualEvent> derivatives(const Currents& currents, const Currents& tangent, double threshold,
                                   const std::vector<Event>& events, const Chip& chip) {
  std::vector<DualEvent> result;
  D restart(0.0), ready(0.0);
  for (const Event& event : events) {
    D time = ready;
    if (std::abs(event.time - ready.value) > 1e-9) {
      // Newton's step from the solution: t - (Q(t) - threshold) / Q'(t), with Q' from Q itself, linear within the tick
      const double step = 1e-3 * (event.time - std::max(std::ceil(event.time) - 1, restart.value));
      const auto at = [&](double t) { return charge(currents, tangent, chip.keep, restart, D(t)); };
      const D above = at(event.time) - D(threshold, 1) / D(tick);
      time = D(event.time) - above / D((at(event.time).value - at(event.time - step).value) / step);
    }
    result.push_back({time, D(tick) * charge(currents, tangent, chip.keep, restart, time + D(double(chip.hold)))});
    restart = time + D(double(chip.hold + chip.reset));
    ready = event.rank >= 0 ? restart + D(double(chip.busy)) : D(-1.0);
  }
  return result;
}

class Derivatives : public testing::TestWithParam<std::tuple<int, bool>> {
 protected:
  int seed = std::get<0>(GetParam());
  Chip chip = std::get<1>(GetParam()) ? filtered : larpix::chip;
  Currents currents = noisy_pulses(seed), tangent = noisy_pulses(seed + 1000);
  std::vector<Event> events = continuous(currents, 2000, chip);
  std::vector<double> time;
  std::vector<int64_t> rank;
  Triggers triggers;

  void SetUp() override {
    for (const Event& event : events) time.push_back(event.time), rank.push_back(event.rank);
    triggers = {time.data(), rank.data(), int64_t(events.size())};
  }
};

TEST_P(Derivatives, ForwardIsTheExactSlope) {
  const auto exact = derivatives(currents, tangent, 2000, events, chip);
  const Currents none(currents.size(), 0.0);
  // The oracle's slope Q' is a difference of 1e-3 ticks: its rounding allows ten digits.
  const auto check = [&](int direction) {
    return [&, direction](int64_t c, double dt, double dq) {
      const DualEvent& e = exact[c];
      EXPECT_NEAR(e.time.value, time[c], 1e-7);
      EXPECT_NEAR(e.charge.value, events[c].charge, 1e-7 * std::abs(events[c].charge));
      EXPECT_NEAR(dt, e.time.slope[direction], 1e-7 * (1e-6 + std::abs(dt)));
      EXPECT_NEAR(dq, e.charge.slope[direction], 1e-7 * (1 + std::abs(dq)) + 1e-5 * std::abs(dt));
    };
  };
  frontend_jvp(row(currents), row(tangent), 0.0, tick, chip, triggers, check(0));
  frontend_jvp(row(currents), row(none), 1.0, tick, chip, triggers, check(1));
}

// <g, J v> = <J^T g, v>
TEST_P(Derivatives, BackwardIsTheTransposeOfForward) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<TriggerGradient> grads(events.size());
  for (auto& grad : grads) grad = {1000 * normal(random), normal(random)};

  double forward = 0, size = 0;
  frontend_jvp(row(currents), row(tangent), 0.7, tick, chip, triggers, [&](int64_t c, double dt, double dq) {
    forward += grads[c].time * dt + grads[c].charge * dq;
    size += std::abs(grads[c].time * dt) + std::abs(grads[c].charge * dq);
  });
  Currents grad_current(currents.size());
  const double grad_threshold = frontend_backward(
      row(currents), tick, chip, triggers, [&](int64_t c) { return grads[c]; }, grad_current.data(), Alone{});
  double backward = 0.7 * grad_threshold;
  for (size_t k = 0; k < tangent.size(); ++k) backward += grad_current[k] * tangent[k];
  EXPECT_NEAR(backward, forward, 1e-11 * size);
}

INSTANTIATE_TEST_SUITE_P(Pulses, Derivatives, testing::Combine(testing::Range(0, 80), testing::Bool()));

TEST(Derivatives, MeetDelayedTriggersAndSilentResets) {
  for (const Chip& chip : {larpix::chip, filtered}) {
    int hits = 0, delayed = 0, silent = 0, chained = 0;
    for (int seed = 0; seed < 80; ++seed) {
      const auto events = continuous(noisy_pulses(seed), 2000, chip);
      for (size_t c = 0; c < events.size(); ++c) {
        hits += events[c].rank >= 0;
        silent += events[c].rank < 0;
        chained += c > 0;
        delayed += c > 0 && events[c].time == events[c - 1].time + 28;
      }
    }
    EXPECT_GT(hits, 50);
    EXPECT_GT(delayed, 10);
    EXPECT_GT(silent, 10);
    EXPECT_GT(chained, 50);
  }
}

// ---- noise

TEST(PixelNoise, NeverMissesALookThatCouldTrigger) {
  PixelNoise noise(1, 58, 0, 12, 34, {900, 500, 650});
  int possible = 0;
  for (int64_t k = -1000; k < 200000; ++k) {
    const float look = noise.look(k);
    if (look > 0) {
      EXPECT_TRUE(noise.may_lift(k, look));
      EXPECT_TRUE(noise.may_lift(k, 0.5 * look));
    }
    possible += noise.may_lift(k, 4000);
  }
  EXPECT_LT(possible, 200);  // 2^-17 of the ticks would do; a bound that spares nothing is no bound
}

TEST(PixelNoise, HasTheMomentsAskedFor) {
  PixelNoise noise(7, 1, 1, 2, 3, {900, 500, 650});
  const int n = 400000;
  double sums[4] = {}, squares[4] = {}, product = 0, neighbours = 0, last = 0;
  for (int64_t k = 0; k < n; ++k) {
    const auto reading = noise.reading(k);
    const double values[4] = {noise.reset(k), noise.look(k), reading[0], reading[1]};
    for (int i = 0; i < 4; ++i) sums[i] += values[i], squares[i] += values[i] * values[i];
    product += values[2] * values[3];
    neighbours += values[1] * last;
    last = values[1];
  }
  const double sigma[4] = {900, std::hypot(500, 650), 500, 650};
  for (int i = 0; i < 4; ++i) {  // five standard errors
    EXPECT_NEAR(sums[i] / n, 0, 5 * sigma[i] / std::sqrt(n));
    EXPECT_NEAR(std::sqrt(squares[i] / n) / sigma[i], 1, 5 / std::sqrt(2.0 * n));
  }
  EXPECT_NEAR(product / n / (500 * 650), 0, 5 / std::sqrt(n));
  EXPECT_NEAR(neighbours / n / (sigma[1] * sigma[1]), 0, 5 / std::sqrt(n));
}

TEST(PixelNoise, EveryPartOfTheNameMatters) {
  const Noise sigma{900, 500, 650};
  const float look = PixelNoise(1, 2, 3, 4, 5, sigma).look(6);
  EXPECT_EQ(PixelNoise(1, 2, 3, 4, 5, sigma).look(6), look);
  EXPECT_NE(PixelNoise(9, 2, 3, 4, 5, sigma).look(6), look);
  EXPECT_NE(PixelNoise(1, 9, 3, 4, 5, sigma).look(6), look);
  EXPECT_NE(PixelNoise(1, 2 + (int64_t(1) << 32), 3, 4, 5, sigma).look(6), look);
  EXPECT_NE(PixelNoise(1, 2, 9, 4, 5, sigma).look(6), look);
  EXPECT_NE(PixelNoise(1, 2, 3, 9, 5, sigma).look(6), look);
  EXPECT_NE(PixelNoise(1, 2, 3, 4, 9, sigma).look(6), look);
  EXPECT_NE(PixelNoise(1, 2, 3, 5, 4, sigma).look(6), look);
  EXPECT_NE(PixelNoise(1, 2, 3, 4, 5, sigma).look(7), look);
  EXPECT_NE(PixelNoise(1, 2, 3, 4, 5, sigma).look(6 + (int64_t(1) << 33)), look);
}

}  // namespace
}  // namespace hepops::lartpc::larpix
