#pragma once
// Stretches of looks: where the charge hardly changes, n looks are one with the mean charge and its variance,
//
//   h = Phi(y) - (v / 2) y phi(y),  y = mean of x + slope z,  v = variance of x        prod (1 - h_t) = (1 - h)^n
//
// which is right to the second order in what the charge moves; a reading after them has the mean charge of its ticks.
// Stretches have 1, 2, 4, 8 or 16 ticks, at multiples of their length, so that a small change of the charge seldom
// changes them. With a buffer filter each tick is a stretch.
#include <algorithm>
#include <cmath>

#include "lartpc/frontend.h"
#include "lartpc/likelihood_normal.h"
#include "lartpc/likelihood_reading.h"

namespace hepops::lartpc::larpix {

// What an interval's looks see of the charge; ticks count from the interval's restart.
struct Gathered {
  const double *before, *waits, *reached;  // before each tick, what waits then, what has come through after it   [e]
  const double* power;                     // keep^n

  double operator()(int64_t s, int64_t t) const { return reached[t] - before[s] + waits[s] * power[t - s + 1]; }
};

constexpr int64_t longest_stretch = 16;

// Looks t ... t + n - 1 after a restart: in units of sigma_l from the threshold.
struct Stretch {
  int64_t t, n;
  double x, variance, reading;  // the means of x at the looks and at their readings
};

class Stretches {
 public:
  // What a stretch may cost, and what it is reckoned from.
  struct Budget {
    double share;            // of P
    double two_looks, look;  // sqrt(2 slope^2 + 1), the width of phi^2 over all r; sigma_l and threshold [e]
    double threshold;
    const double *largest, *triggers, *after;  // of each tick: the largest charge, P(trigger), that of what it changes
    int64_t hold, ticks;
  };

  Stretches(double* begin, double* mean, double* variance, double* reading, double* of_tick)
      : begin_(begin), mean_(mean), variance_(variance), reading_(reading), of_tick_(of_tick) {}

  int64_t count() const { return count_; }
  int64_t begin(int64_t g) const { return int64_t(begin_[g]); }
  int64_t end(int64_t g) const { return int64_t(begin_[g + 1]); }
  int64_t of(int64_t tick) const { return int64_t(of_tick_[tick]); }
  double mean(int64_t g) const { return mean_[g]; }

  void clear(int64_t first) { count_ = 0, begin_[0] = double(first); }

  // Divides the ticks from `from` to below `to`.
  void divide(int64_t from, int64_t to, bool together, const double* reached, const Budget& budget) {
    for (int64_t t = from; t < to;) {
      int64_t n = together ? longest_stretch : 1;
      while (n > 1 && ((t - from) % n != 0 || t + n > to || !fits(t, n, reached, budget))) n /= 2;
      add(t, n, reached, budget.hold);
      t += n;
    }
  }

  // Stretch g as a restart at s sees it, from tick t on.
  Stretch seen(int64_t g, int64_t s, int64_t t, const Gathered& q, int64_t hold, const Law& law) const {
    const int64_t n = end(g) - t;
    const double per = 1 / law.look, away = q.before[s] + law.threshold;
    if (n == 1) return {t, 1, per * (q(s, t) - law.threshold), 0.0, per * (q(s, t + hold) - law.threshold)};
    if (t == begin(g)) return {t, n, per * (mean_[g] - away), per * per * variance_[g], per * (reading_[g] - away)};
    double mean, variance, reading;
    moments(t, n, q.reached, hold, mean, variance, reading);
    return {t, n, per * (mean - away), per * per * variance, per * (reading - away)};
  }

 private:
  static void moments(int64_t t, int64_t n, const double* reached, int64_t hold, double& mean, double& variance,
                      double& reading) {
    double sum = 0, squares = 0, read = 0;
    for (int64_t i = t; i < t + n; ++i) sum += reached[i], read += reached[i + hold];
    mean = sum / double(n), reading = read / double(n);
    for (int64_t i = t; i < t + n; ++i) squares += (reached[i] - mean) * (reached[i] - mean);
    variance = squares / double(n);
  }

  void add(int64_t t, int64_t n, const double* reached, int64_t hold) {
    begin_[count_] = double(t), begin_[count_ + 1] = double(t + n);
    if (n > 1) moments(t, n, reached, hold, mean_[count_], variance_[count_], reading_[count_]);
    for (int64_t i = t; i < t + n; ++i) of_tick_[i] = double(count_);
    ++count_;
  }

  // Left out, over all r: d^2 phi^2 / 24 of each look, as many looks are a power and not a product; the next order in
  // d, d^4 / 1920 times what Phi's fourth derivative is of Phi, about 40; and where a trigger leads, which the
  // curvature of V in time sets, as for the nodes of restarts.
  static bool fits(int64_t t, int64_t n, const double* reached, const Budget& b) {
    const auto range = [&](int64_t from, int64_t to) {
      const auto [low, high] = std::minmax_element(reached + from, reached + std::min(to, b.ticks));
      return *high - *low;
    };
    const auto most = [&](const double* x) { return *std::max_element(x + t, x + t + n); };
    const double d = range(t, t + n) / b.look;
    if (d > 0.4) return false;
    const double X = std::fmin(most(b.largest) - b.threshold, 0.0) / (b.look * b.two_looks);
    const double moved = range(t + b.hold, t + b.hold + 2 + n) / 500;
    const double wrong = d * d / 24 * std::exp(-X * X) / (6.3 * b.two_looks) + d * d * d * d / 48 * most(b.triggers) +
                         moved * moved / 24 * most(b.after);
    return double(n) * wrong <= b.share;
  }

  double *begin_, *mean_, *variance_, *reading_, *of_tick_;
  int64_t count_ = 0;
};

}  // namespace hepops::lartpc::larpix
