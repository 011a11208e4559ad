#pragma once
// One interval of a row: from a restart to the next measured hit at tick k, or to the end of the window (docs/
// likelihood.md). Ticks here count from the interval's restart; q(s, t) is the charge of ticks s ... t.
//
//   h_t = Phi(x_t), x_t = (q(s, t) + sigma_r z - threshold) / sigma_l      a trigger at t; A_j = h_{j+hold}: accepted
//   V[s] = sum_z w U_s,  U_j = h_j ((1 - A_j) V[j + d] + [j = k] O) + (1 - h_j) U_{j+1}          d = hold + reset + 1
//   F[s]: the probability of a silent restart at s,  F[j + d] += F[s] sum_z w S_j h_j (1 - A_j),  S_j = prod (1 - h_i)
//
// Two passes. Restarts s in rising order give F, and H[s], the part of V[s] without a further silent reset. In falling
// order they give V, and with F the slopes in closed form,
//
//   d V[0] / d x_j = F[s] sum_z w S_j phi_j ((1 - A_j) V[j + d] + [j = k] O - U_{j+1})
//                  - F[s] sum_z w S_i h_i phi_j V[i + d],  i = j - hold
//
// Restarts are not followed from every tick: where little charge flows V is nearly linear in s, and a restart between
// two nodes counts in part as one at each. The slopes are those of what is computed.
//
// H may be as small as it likes: where its integrand lies off the prior's nodes, it is summed in logarithms on nodes
// about its maximum (it is log-concave in z, with a curvature of at least one).
#include "lartpc/frontend.h"
#include "lartpc/likelihood_reading.h"

// A function of its own, not one copy for each caller: these are long.
#ifdef __CUDACC__
#define HEPOPS_LONG __host__ __device__ __noinline__
#define HEPOPS_ROLLED _Pragma("unroll 1")  // else a thread's loops over the nodes become minutes of compilation
#else
#define HEPOPS_LONG [[gnu::noinline]]
#define HEPOPS_ROLLED
#endif

namespace hepops::lartpc::larpix {

// What may be left out or approximated.
struct Approximation {
  double tolerance;  // of the probability of an interval, for each restart that is not followed
  int64_t longest;   // ticks between two nodes of restarts
};

// Memory for one row at a time, in doubles.
template <int nodes>
struct Scratch {
  double* at;
  int64_t ticks;  // more than any interval has

  static constexpr int64_t columns = 19, per_look = 3 * nodes, per_tick = columns + 2 * per_look, beyond = 16;
  HEPOPS_HD static int64_t size(int64_t ticks) { return per_tick * (ticks + beyond) + Reading::memory; }
  HEPOPS_HD double* column(int i) const { return at + i * ticks; }
  HEPOPS_HD double* looks(int i) const { return at + (columns + i * per_look) * ticks; }
  HEPOPS_HD double* reading() const { return at + per_tick * (ticks + beyond); }
};

// Of log P of an interval; those with respect to the charge are kept by the interval.
struct Slopes {
  double threshold = 0, reset = 0, uncorrelated = 0, discriminator = 0, lo = 0, hi = 0;
};

template <int nodes>
class Interval {
 public:
  static constexpr int groups = nodes / lanes;
  static constexpr double nothing = -1e300;   // the logarithm of zero
  static constexpr double improbable = 1e-6;  // below, the prior's nodes may not hold what happened
  static constexpr double triggered = 1e-15;  // of a group of nodes: no more is asked of it
  static constexpr double skipped = 1e-10;    // a bound of all that is skipped where not `careful`
  static constexpr double likely = -9;        // log P with tolerance 0, where only what 1e-16 are left of is skipped

  // first, last: the looks after the interval's own restart. reading: of the hit at the last look; without one, a
  // restart at `ends` or later finds no look.
  HEPOPS_HD Interval(const Law& law, const Chip& chip, const Grid<nodes>& grid, const Approximation& near,
                     const Scratch<nodes>& scratch, int64_t first, int64_t last, int64_t ends, const Reading* reading)
      : law_(law),
        chip_(chip),
        grid_(grid),
        near_(near),
        first_(first),
        last_(last),
        ends_(ends),
        reading_(reading),
        step_(chip.hold + chip.reset + 1),
        ticks_(last + chip.hold + 1),
        slope_(law.reset / law.look) {
    double** columns[] = {&before_, &waits_, &reached_,  &most_,     &share_,     &upper_,    &node_,
                          &flow_,   &value_, &hit_,      &centre_,   &d_reached_, &d_before_, &d_waits_,
                          &x_[0],   &x_[1],  &triggers_, &range_[0], &range_[1]};
    for (int i = 0; i < Scratch<nodes>::columns; ++i) *columns[i] = scratch.column(i);
    raw_ = d_waits_;  // which is used after it
    looks_[0] = scratch.looks(0), looks_[1] = scratch.looks(1);
  }

  template <class T>
  HEPOPS_HD void charge(const Row<T>& row, int64_t start, double tick) {
    before_[0] = waits_[0] = 0;
    for (int64_t t = 0; t < ticks_; ++t) {
      const double charge = tick * row[start + t];
      before_[t + 1] = before_[t] + charge;
      waits_[t + 1] = chip_.keep * (waits_[t] + charge);
      reached_[t] = before_[t + 1] - waits_[t + 1];
    }
  }

  // log P; neglected: a bound of its relative error by restarts that were not followed. Looks and nodes of which
  // next to nothing is left are skipped only where P is far above that, as a share of the best that was possible:
  // else all is done again, `careful`.
  HEPOPS_HD double log_probability(double& neglected, Slopes* slopes, bool careful = false) {
    neglected = 0;
    quiet_ = true;
    if (first_ > last_) return 0;
    bound_hits();
    if (!reading_ && most_[0] <= near_.tolerance) return neglected = most_[0], 0.0;
    const double possible = reading_ ? most_[0] : 0.0;
    double log_p = careful ? nothing : attempt(false, slopes);
    if (!(log_p > possible + (near_.tolerance > 0 ? std::log(skipped / near_.tolerance) : likely)))
      log_p = attempt(true, slopes);
    if (!(value_[0] > 0)) {
      quiet_ = true;
      if (slopes) *slopes = {};
      return -INFINITY;
    }
    neglected = neglected_ * (reading_ ? std::exp(std::fmin(possible - log_p, 600.0)) : 1.0);
    return log_p;
  }

  HEPOPS_HD int64_t ticks() const { return ticks_; }

  // d log P / d charge of ticks 0 ... stop - 1, after log_probability with slopes: write(t, slope)
  template <class Write>
  HEPOPS_HD void charge_slopes(int64_t stop, const Write& write) const {
    if (quiet_) {
      for (int64_t t = 0; t < stop; ++t) write(t, 0.0);
      return;
    }
    // before_{t+1} = before_t + c_t, waits_{t+1} = keep (waits_t + c_t), reached_t = before_{t+1} - waits_{t+1}
    const double scale = 1 / value_[0];
    double before = 0, waits = 0;
    for (int64_t t = ticks_ - 1; t >= 0; --t) {
      before += d_before_[t + 1] + d_reached_[t];
      waits = chip_.keep * waits + d_waits_[t + 1] - d_reached_[t];
      if (t < stop) write(t, scale * (before + chip_.keep * waits));
    }
  }

 private:
  HEPOPS_HD double attempt(bool careful, Slopes* slopes) {
    careful_ = careful, quiet_ = false;
    rise();
    scale_ = reading_ ? nothing : 0.0;
    if (reading_)
      for (int64_t m = 0; m < count_; ++m) scale_ = std::fmax(scale_, hit_[m]);
    if (slopes) {
      for (int64_t t = 0; t <= ticks_; ++t) d_reached_[t] = d_before_[t] = d_waits_[t] = 0;
      this->template fall<true>();
      if (value_[0] > 0) finish(*slopes);
    } else {
      this->template fall<false>();
    }
    return value_[0] > 0 ? std::log(value_[0]) + scale_ : nothing;
  }

  // q(s, t) = reached_t - before_s + keep^{t-s+1} waits_s, tick after tick
  struct Charge {
    const double* reached;
    double before, waits, keep;
    HEPOPS_HD double operator()(int64_t t) {
      waits *= keep;
      return reached[t] - before + waits;
    }
  };
  HEPOPS_HD Charge charge_from(int64_t s, int64_t begin) const {
    Charge q{reached_, before_[s], waits_[s], chip_.keep};
    if (q.waits != 0)
      for (int64_t t = s; t < begin; ++t) q.waits *= q.keep;
    return q;
  }
  HEPOPS_HD double charge_at(int64_t s, int64_t t) const {
    const double waits = waits_[s] == 0 ? 0.0 : waits_[s] * std::pow(chip_.keep, double(t - s + 1));
    return reached_[t] - before_[s] + waits;
  }
  HEPOPS_HD double scaled(double charge) const { return (charge - law_.threshold) / law_.look; }
  HEPOPS_HD Lane z(int g) const { return load(grid_.z + g * lanes); }
  HEPOPS_HD Lane weight(int g) const { return load(grid_.weight + g * lanes); }

  // ------------------------------------------------------------------------------------------------------- bounds

  // most_[s]: with a hit, log of a bound of its probability from any restart at s or later; else a bound of the
  // probability of any hit. P(accepted at j) <= E[h A] at the largest charge, since r given no trigger is smaller.
  HEPOPS_LONG void bound_hits() {
    if (reading_) {
      const double variance = law_.reset * law_.reset + law_.uncorrelated * law_.uncorrelated;
      const double spread = std::sqrt(law_.reset * law_.reset + law_.look * law_.look);
      double most = nothing;
      for (int64_t s = last_; s >= 0; --s) {
        double triggers, unused;
        log_normal((charge_at(s, last_) - law_.threshold) / spread, triggers, unused);
        most = std::fmax(most, std::fmin(triggers, reading_->log_bound(charge_at(s, last_ + chip_.hold), variance)));
        most_[s] = most;
      }
      return;
    }
    double highest = nothing, largest = nothing, seen = nothing, bound = 0, any = 0;
    for (int64_t t = ticks_ - 1; t > last_; --t) highest = std::fmax(highest, reached_[t]);
    for (int64_t s = last_; s >= 0; --s) {
      highest = std::fmax(highest, reached_[s]);
      largest = std::fmax(largest, highest - before_[s] + std::fabs(waits_[s]));
      if (largest > seen) seen = largest + 20, bound = accepted(seen), any = triggers(seen);  // asked rarely
      const double looks = s == 0 ? double(last_ - first_ + 1) : double(ends_ > s ? ends_ - s : 0);
      most_[s] = std::fmin(looks * bound, 1.0), triggers_[s] = std::fmin(looks * any, 1.0);
    }
    most_[0] = std::fmax(most_[0], std::fmin(double(last_ - first_ + 1) * bound, 1.0));
  }

  // E[h] with this charge
  HEPOPS_HD double triggers(double charge) const {
    double below, above, density;
    normal(scaled(charge) / std::sqrt(1 + slope_ * slope_), below, above, density);
    return below;
  }

  // E[h A] with the same charge at the look and at the reading
  HEPOPS_HD double accepted(double charge) const {
    Lane total = 0.0;
    HEPOPS_ROLLED
    for (int g = 0; g < groups; ++g) {
      Lane below, above, density;
      normal(scaled(charge) + slope_ * z(g), below, above, density);
      total += weight(g) * below * below;
    }
    return sum(total);
  }

  // -------------------------------------------------------------------------------------------------------- nodes

  // node_[m], m < count_: the ticks from which restarts are followed, 0 first. A restart at r counts as share_[r] at
  // node upper_[r] and the rest at the one before. The node after m is chosen when all that restarts in between is
  // known, raw_[r]: with so much charge moved over the stretch, V is linear up to about (moved / 500 e)^2 / 8.
  HEPOPS_HD int64_t next_node(int64_t m) {
    const int64_t a = int64_t(node_[m]);
    int64_t longest = near_.longest < step_ - 1 ? near_.longest : step_ - 1;
    // Before a hit V falls with every look that is added, the more so the fewer there are.
    if (reading_ && (end_ - a) / 4 < longest) longest = (end_ - a) / 4;
    int64_t next = a + 1;
    double moved = flowing(a), between = 0;
    while (next < end_ && next - a < longest) {
      moved += flowing(next), between += raw_[next] * weight_of(next);
      if (between * moved * moved > near_.tolerance * (8 * 500.0 * 500.0)) break;
      ++next;
    }
    return next;
  }
  // A bound of what V[r] can contribute, as a share of P
  HEPOPS_HD double weight_of(int64_t r) const {
    return reading_ ? std::exp(std::fmin(most_[r] - best_, 0.0)) : most_[r];
  }
  HEPOPS_HD void add_node(int64_t m, int64_t tick) {
    node_[m] = double(tick), flow_[m] = 0, hit_[m] = nothing, centre_[m] = 0, count_ = m + 1;
  }
  HEPOPS_HD double flowing(int64_t r) const {
    return std::fabs(before_[r + 1] - before_[r]) + std::fabs(waits_[r + 1] - waits_[r]);
  }
  HEPOPS_HD double value_at(int64_t r) const {  // V[r]
    if (r > end_) return reading_ ? 0.0 : 1.0;
    const int64_t m = int64_t(upper_[r]);
    return share_[r] * value_[m] + (1 - share_[r]) * value_[m - 1];
  }

  // -------------------------------------------------------------------------------------------------------- looks

  // h, phi and S at tick t of a restart's memory
  struct Looks {
    double* at;
    HEPOPS_HD double* h(int64_t t) const { return at + t * Scratch<nodes>::per_look; }
    HEPOPS_HD double* phi(int64_t t) const { return h(t) + nodes; }
    HEPOPS_HD double* survival(int64_t t) const { return h(t) + 2 * nodes; }
  };

  // The groups of nodes that matter at a look, from `low` to below `high`: those below cannot trigger, those above
  // have.
  struct Range {
    int low, high;
  };
  HEPOPS_HD Range range(int memory, int64_t t) const {
    const int both = int(range_[memory][t]);
    return {both % 1024, both / 1024};
  }

  // Fills the looks of the restart s from `begin` on; returns the last one that may trigger.
  HEPOPS_LONG int64_t look(int64_t s, int64_t begin, int memory) {
    const Looks looks{looks_[memory]};
    double* const x = x_[memory];
    Charge q = charge_from(s, begin);
    Lane survival[groups], h[groups], stay[groups], phi[groups];
    HEPOPS_ROLLED
    for (int g = 0; g < groups; ++g) survival[g] = 1.0, h[g] = 0.0, stay[g] = 1.0, phi[g] = 0.0;
    double known = 1e300;
    int64_t stop = last_, t = begin;
    int low = 0, high = groups, ready = 0;  // ready: the groups that were evaluated at `known`
    for (; t <= stop; ++t) {
      x[t] = scaled(q(t));
      const int needed = t - chip_.hold >= begin ? range(memory, t - chip_.hold).high : high;
      const bool all = careful_ || near_.tolerance == 0 || (reading_ && t == last_);
      if (x[t] != known || needed > ready || all) low = evaluate(known = x[t], all, ready = needed, h, stay, phi);
      HEPOPS_ROLLED
      for (int g = 0; g < groups; ++g) {
        if (g >= needed) break;
        store(h[g], looks.h(t) + g * lanes);
        store(phi[g], looks.phi(t) + g * lanes);
      }
      HEPOPS_ROLLED
      for (int g = 0; g < groups; ++g) {
        if (g < low || g >= high) continue;
        store(survival[g], looks.survival(t) + g * lanes);
        survival[g] = survival[g] * stay[g];
      }
      range_[memory][t] = double(1024 * high + low);
      if (t % 4 == 0 && left(survival, high) < (careful_ ? 1e-300 : 1e-16)) stop = t;
    }
    survived_ = left(survival, high);
    const int64_t readings = reading_ ? last_ : ticks_ - 1;
    for (; t <= stop + chip_.hold && t <= readings; ++t) {
      x[t] = scaled(q(t));
      const int needed = t - chip_.hold >= begin ? range(memory, t - chip_.hold).high : 0;
      if (x[t] != known || needed > ready) evaluate(known = x[t], false, ready = needed, h, stay, phi);
      HEPOPS_ROLLED
      for (int g = 0; g < groups; ++g) {
        if (g >= needed) break;
        store(h[g], looks.h(t) + g * lanes);
        store(phi[g], looks.phi(t) + g * lanes);
      }
    }
    return stop;
  }

  // h, 1 - h and phi of the groups below `high`; returns the first that may trigger, which is 0 where `all` are asked.
  HEPOPS_HD int evaluate(double x, bool all, int high, Lane* h, Lane* stay, Lane* phi) const {
    constexpr double least = -7.2;  // Phi below 3e-13
    int low = 0;
    while (!all && low < groups && x + slope_ * grid_.z[low * lanes + lanes - 1] < least) ++low;
    HEPOPS_ROLLED
    for (int g = 0; g < groups; ++g) {
      if (g >= high) break;
      if (g < low) {
        h[g] = 0.0, stay[g] = 1.0, phi[g] = 0.0;
      } else {
        normal(x + slope_ * z(g), h[g], stay[g], phi[g]);
      }
    }
    return low;
  }

  // E of what the groups below `high` still hold; lowers it to those that hold something.
  HEPOPS_HD double left(const Lane* survival, int& high) const {
    Lane total = 0.0;
    HEPOPS_ROLLED
    for (int g = 0; g < groups; ++g) {
      if (g >= high) break;
      const Lane part = weight(g) * survival[g];
      total += part;
      if (g == high - 1 && near_.tolerance > 0 && !careful_ && sum(part) < triggered) high = g;
    }
    return sum(total);
  }
  HEPOPS_HD double mean(const Lane* values) const {
    Lane total = 0.0;
    HEPOPS_ROLLED
    for (int g = 0; g < groups; ++g) total += weight(g) * values[g];
    return sum(total);
  }

  // --------------------------------------------------------------------------------------------------------- rise

  HEPOPS_LONG void rise() {
    const int64_t begin = first_ + step_;
    end_ = reading_ ? last_ : ends_, neglected_ = 0, best_ = nothing, held_ = 0;
    for (int64_t t = 0; t <= ticks_; ++t) raw_[t] = 0;
    add_node(0, 0);
    flow_[0] = 1;
    follow(0, 0, first_);
    if (begin > end_) return;
    add_node(1, begin);
    upper_[begin] = 1, share_[begin] = 1, flow_[1] = raw_[begin];
    for (int64_t m = 1, a = begin;; ++m) {
      int64_t next = a;
      if (a < end_) {
        next = next_node(m);
        add_node(m + 1, next);
        for (int64_t r = a + 1; r <= next; ++r) {
          upper_[r] = double(m + 1), share_[r] = double(r - a) / double(next - a);
          flow_[m] += (1 - share_[r]) * raw_[r], flow_[m + 1] += share_[r] * raw_[r];
        }
      }
      if (followed(m, a) && restarts_matter(m, a)) follow(m, a, a);
      if (a == next) return;
      a = next;
    }
  }

  // Whether silent resets after this one may change P; without a hit, nothing else is asked of the rising pass.
  HEPOPS_HD bool restarts_matter(int64_t m, int64_t s) {
    if (reading_) return true;
    const double bound = flow_[m] * triggers_[s] * most_[s];
    if (bound > near_.tolerance || near_.tolerance == 0) return true;
    neglected_ += bound;
    return false;
  }

  HEPOPS_HD void follow(int64_t m, int64_t s, int64_t begin) {
    const int64_t stop = look(s, begin, m > 0);
    if (m == 0)
      stop_ = stop, first_survived_ = survived_;
    else
      held_ = m, held_stop_ = stop, held_survived_ = survived_;
    const Looks looks{looks_[m > 0]};
    if (reading_) hit_[m] = hit(m, s, begin, stop, looks), best_ = std::fmax(best_, std::log(flow_[m]) + hit_[m]);
    for (int64_t j = begin; j <= stop && j + step_ <= (reading_ ? last_ : ends_ - 1); ++j) {
      Lane total = 0.0;
      const auto [low, high] = range(m > 0, j);
      if (low >= high) continue;
      HEPOPS_ROLLED
      for (int g = 0; g < groups; ++g) {
        if (g < low || g >= high) continue;
        const int i = g * lanes;
        total +=
            weight(g) * load(looks.survival(j) + i) * load(looks.h(j) + i) * (1.0 - load(looks.h(j + chip_.hold) + i));
      }
      raw_[j + step_] += flow_[m] * sum(total);
    }
  }

  // Whether a restart matters; where not, V is 1 (no hit), or 0 (a hit), and what that may cost is counted.
  HEPOPS_HD bool followed(int64_t m, int64_t s) {
    if (!reading_ && s >= ends_) return flow_[m] = 0, value_[m] = 1, false;
    if (flow_[m] == 0) return value_[m] = reading_ ? 0 : 1, false;
    const double bound = std::log(flow_[m]) + (reading_ ? most_[s] : std::log(most_[s]));
    if (bound > std::log(near_.tolerance) + (reading_ ? best_ : 0.0)) return true;
    if (near_.tolerance == 0 && !reading_) return true;
    neglected_ += std::exp(bound - (reading_ ? most_[0] : 0.0));
    return flow_[m] = 0, value_[m] = reading_ ? 0 : 1, false;
  }

  // log H[s]; centre_[m]: of the nodes it is summed on, 0 where they are the prior's
  HEPOPS_LONG double hit(int64_t m, int64_t s, int64_t begin, int64_t stop, const Looks& looks) {
    centre_[m] = 0;
    if (begin > last_) return nothing;
    if (stop == last_) {
      Lane total = 0.0;
      double edge = 0;
      const double mean = charge_at(s, last_ + chip_.hold);
      const int high = range(m > 0, last_).high;
      HEPOPS_ROLLED
      for (int g = 0; g < groups; ++g) {
        if (g >= high) break;
        Lane shift;
        const Lane part = weight(g) * load(looks.survival(last_) + g * lanes) * load(looks.h(last_) + g * lanes) *
                          reading_->value(mean + law_.reset * z(g), false, shift);
        total += part;
        if (g == 0 || g == groups - 1) {
          double at[lanes];
          store(part, at);
          edge += g == 0 ? at[0] : 0.0;
          edge += g == groups - 1 ? at[lanes - 1] : 0.0;
        }
      }
      const double H = sum(total);
      // The falling pass rounds 1 - h to 1e-16: where P is a small share of what was possible, it sees nothing of it.
      const double sound = most_[s] + std::log(1e-16 / std::fmax(1e-12, 1e-2 * near_.tolerance));
      const double kept = high == groups ? sound : std::fmax(sound, std::log(triggered) + 15);  // of what was left out
      if (edge <= std::fmax(1e-10, 1e-2 * near_.tolerance) * H && H > 0 && std::log(H) + reading_->top() > kept)
        return std::log(H) + reading_->top();
    }
    if (std::log(flow_[m]) + most_[s] < best_ - 37) return nothing;  // below the rounding of the others
    return far_hit(m, s, begin);
  }

  // --------------------------------------------------------------------------------------------------------- fall

  // V, and the slopes of V[0], from the last restart to the first
  template <bool slopes>
  HEPOPS_HD void fall() {
    sums_ = {};
    for (int64_t m = count_ - 1; m >= 0; --m) {
      if (flow_[m] == 0) continue;
      const int64_t s = int64_t(node_[m]), begin = m == 0 ? first_ : s;
      if (m > 0 && held_ != m) held_stop_ = look(s, begin, 1), held_survived_ = survived_;
      const int64_t stop = m == 0 ? stop_ : held_stop_;
      const Looks looks{looks_[m > 0]};
      if (!reading_) {  // an improbable silence, as an improbable hit
        const bool quiet = (m == 0 ? first_survived_ : held_survived_) > improbable ||
                           (m > 0 && flow_[m] * improbable <= 1e-2 * near_.tolerance * first_survived_);
        centre_[m] = 0;
        if (!quiet && this->template back<false>(m, s, begin, stop, looks, x_[m > 0]) < improbable)
          hit_[m] = far_hit(m, s, begin);
      }
      value_[m] = this->template back<slopes>(m, s, begin, stop, looks, x_[m > 0]);
      if (centre_[m] != 0 && hit_[m] > nothing) {
        value_[m] += std::exp(hit_[m] - scale_);
        if constexpr (slopes) far_slopes(m, s, begin);
      }
    }
  }

  template <bool slopes>
  HEPOPS_LONG double back(int64_t m, int64_t s, int64_t begin, int64_t stop, const Looks& looks, const double* x) {
    const bool own = reading_ && centre_[m] == 0 && stop == last_ && hit_[m] > nothing;
    const double per_x = flow_[m] / law_.look;
    Lane U[groups], along_z = 0.0, along_x = 0.0;
    HEPOPS_ROLLED
    for (int g = 0; g < groups; ++g) U[g] = reading_ || centre_[m] != 0 ? 0.0 : 1.0;
    double moved = 0, kept = 0;
    for (int64_t j = stop; j >= begin; --j) {
      const auto [low, high] = range(m > 0, j);
      if (low >= high) continue;
      const double V = value_at(j + step_);
      Lane at_look = 0.0, at_reading = 0.0;
      HEPOPS_ROLLED
      for (int g = 0; g < groups; ++g) {
        if (g < low || g >= high) continue;
        const int i = g * lanes;
        const Lane h = load(looks.h(j) + i), wS = weight(g) * load(looks.survival(j) + i);
        Lane term = 0.0;
        if (V > 0) term = V * (1.0 - load(looks.h(j + chip_.hold) + i));
        if (own && j == last_) term += this->template outcome<slopes>(m, s, g, wS * h);
        const Lane gain = term - U[g];
        if constexpr (slopes) {
          const Lane a = wS * load(looks.phi(j) + i) * gain;
          at_look += a;
          along_z += z(g) * a;
          along_x += (x[j] + slope_ * z(g)) * a;
          if (V > 0) {
            const Lane b = -V * wS * h * load(looks.phi(j + chip_.hold) + i);
            at_reading += b;
            along_z += z(g) * b;
            along_x += (x[j + chip_.hold] + slope_ * z(g)) * b;
          }
        }
        U[g] += h * gain;
      }
      if constexpr (slopes) {
        move(s, j, per_x * sum(at_look), moved, kept);
        if (V > 0) move(s, j + chip_.hold, per_x * sum(at_reading), moved, kept);
      }
    }
    if constexpr (slopes) {
      d_before_[s] -= moved, d_waits_[s] += kept;
      if (own) d_before_[s] -= of_reading_.mean, d_waits_[s] += of_reading_.kept, of_reading_ = {};
      sums_.threshold -= moved;
      sums_.reset += per_x * sum(along_z);
      sums_.look -= per_x * sum(along_x);
    }
    return mean(U);
  }

  // A slope with respect to q(s, t)
  HEPOPS_HD void move(int64_t s, int64_t t, double slope, double& moved, double& kept) {
    d_reached_[t] += slope;
    moved += slope;
    if (waits_[s] != 0 || chip_.keep > 0) kept += slope * std::pow(chip_.keep, double(t - s + 1));
  }

  // O at the nodes of group g, scaled; its slopes are added where it has the weight w S h.
  template <bool slopes>
  HEPOPS_HD Lane outcome(int64_t m, int64_t s, int g, const Lane& weight) {
    const Lane mean = charge_at(s, last_ + chip_.hold) + law_.reset * z(g);
    const double scale = std::exp(reading_->top() - scale_);
    Lane shift;
    const Lane O = reading_->value(mean, false, shift);
    if constexpr (slopes) add_reading(s, reading_->slopes(mean, shift), weight * (scale * flow_[m]), z(g));
    return scale * O;
  }

  HEPOPS_HD void add_reading(int64_t s, const ReadingSlopes& d, const Lane& weight, const Lane& z) {
    const double along = sum(weight * d.mean);
    const int64_t t = last_ + chip_.hold;
    d_reached_[t] += along;
    of_reading_.mean += along;
    if (chip_.keep > 0) of_reading_.kept += along * std::pow(chip_.keep, double(t - s + 1));
    sums_.reset += sum(weight * d.mean * z);
    sums_.threshold += sum(weight * d.threshold);
    sums_.uncorrelated += sum(weight * d.uncorrelated);
    sums_.discriminator += sum(weight * d.discriminator);
    sums_.lo += sum(weight * d.lo);
    sums_.hi += sum(weight * d.hi);
  }

  HEPOPS_HD void finish(Slopes& total) const {
    const double scale = 1 / value_[0];
    total.threshold = scale * sums_.threshold;
    total.reset = scale * sums_.reset;
    total.uncorrelated = scale * (sums_.uncorrelated + sums_.look * law_.uncorrelated / law_.look);
    total.discriminator = scale * (sums_.discriminator + sums_.look * law_.discriminator / law_.look);
    total.lo = scale * sums_.lo, total.hi = scale * sums_.hi;
  }

  // ---------------------------------------------------------------------------------------------- improbable hits

  // log of the hit's integrand at nodes about `centre`, and its largest
  HEPOPS_LONG double integrand(int64_t s, int64_t begin, double centre, Lane* log_p, int& top) const {
    HEPOPS_ROLLED
    for (int g = 0; g < groups; ++g) {
      const Lane at = z(g) + centre;
      log_p[g] = -0.5 * (at * at) - log_root_2pi;
    }
    Charge q = charge_from(s, begin);
    for (int64_t t = begin; t <= last_; ++t) {
      const double x = scaled(q(t));
      HEPOPS_ROLLED
      for (int g = 0; g < groups; ++g) {
        Lane log_phi, unused;
        const Lane at = x + slope_ * (z(g) + centre);
        log_normal(stays(t) ? -at : at, log_phi, unused);
        log_p[g] += log_phi;
      }
    }
    const double mean = charge_at(s, last_ + chip_.hold);
    double most = -1e308;
    HEPOPS_ROLLED
    for (int g = 0; g < groups; ++g) {
      using core::log;
      if (reading_) {
        Lane shift;
        const Lane O = reading_->value(mean + law_.reset * (z(g) + centre), true, shift);
        log_p[g] += log(O) + shift;
      }
      double at[lanes];
      store(log_p[g], at);
      for (int i = 0; i < lanes; ++i)
        if (at[i] > most) most = at[i], top = g * lanes + i;
    }
    return most;
  }

  HEPOPS_HD bool stays(int64_t t) const { return !reading_ || t < last_; }

  HEPOPS_LONG double far_hit(int64_t m, int64_t s, int64_t begin) {
    const double mean = charge_at(s, last_ + chip_.hold), u = law_.uncorrelated, r = law_.reset;
    double centre = reading_ ? (reading_->nearest(mean) - mean) * r / (r * r + u * u) : 0.0, most = nothing;
    Lane log_p[groups];
    for (int turn = 0; turn < 200; ++turn) {
      int top = 0;
      most = integrand(s, begin, centre, log_p, top);
      if (!(most > nothing)) return nothing;
      if (std::fabs(grid_.z[top]) < 0.6) break;
      centre += grid_.z[top];
    }
    centre_[m] = centre == 0 ? 1e-300 : centre;  // not 0, which stands for the prior's nodes
    return most + std::log(Grid<nodes>::spacing * mass(log_p, most)) + (reading_ ? reading_->top() : 0.0);
  }

  HEPOPS_HD double mass(const Lane* log_p, double most) const {
    using core::exp;
    Lane total = 0.0;
    HEPOPS_ROLLED
    for (int g = 0; g < groups; ++g) total += exp(log_p[g] - most);
    return sum(total);
  }

  HEPOPS_LONG void far_slopes(int64_t m, int64_t s, int64_t begin) {
    using core::exp;
    Lane p[groups];
    int top;
    const double centre = centre_[m], most = integrand(s, begin, centre, p, top);
    const double scale = flow_[m] * std::exp(hit_[m] - scale_) / mass(p, most);
    HEPOPS_ROLLED
    for (int g = 0; g < groups; ++g) p[g] = scale * exp(p[g] - most);
    double moved = 0, kept = 0;
    Lane along_z = 0.0, along_x = 0.0;
    Charge q = charge_from(s, begin);
    for (int64_t t = begin; t <= last_; ++t) {
      const double x = scaled(q(t));
      Lane total = 0.0;
      HEPOPS_ROLLED
      for (int g = 0; g < groups; ++g) {
        Lane log_phi, slope;
        const Lane at = x + slope_ * (z(g) + centre);
        log_normal(stays(t) ? -at : at, log_phi, slope);
        const Lane a = p[g] * (stays(t) ? -slope : slope);
        total += a;
        along_z += (z(g) + centre) * a;
        along_x += at * a;
      }
      move(s, t, sum(total) / law_.look, moved, kept);
    }
    sums_.threshold -= moved;
    sums_.reset += sum(along_z) / law_.look;
    sums_.look -= sum(along_x) / law_.look;
    const double mean = charge_at(s, last_ + chip_.hold);
    for (int g = 0; reading_ && g < groups; ++g) {
      const Lane at = mean + law_.reset * (z(g) + centre);
      Lane shift;
      const Lane O = reading_->value(at, true, shift);
      add_reading(s, reading_->slopes(at, shift), p[g] / O, z(g) + centre);
    }
    d_before_[s] -= moved + of_reading_.mean, d_waits_[s] += kept + of_reading_.kept;
    of_reading_ = {};
  }

  struct Sums {
    double threshold = 0, reset = 0, look = 0, uncorrelated = 0, discriminator = 0, lo = 0, hi = 0;
  };
  struct OfReading {
    double mean = 0, kept = 0;
  };

  Law law_;
  Chip chip_;
  const Grid<nodes>& grid_;
  Approximation near_;
  int64_t first_, last_, ends_;
  const Reading* reading_;
  int64_t step_, ticks_;
  double slope_;  // of x with z

  double* triggers_;                    // of each tick
  double *before_, *waits_, *reached_;  // charge before each tick, what waits then, and what has come through after it
  double *most_, *share_, *upper_;      // of each tick
  double *node_, *flow_, *value_, *hit_, *centre_;  // of each node: its tick, F, V, log H, centre
  double *d_reached_, *d_before_, *d_waits_;
  double *raw_, *x_[2], *range_[2], *looks_[2];
  int64_t count_ = 0, end_ = 0, stop_ = 0;
  int64_t held_ = 0, held_stop_ = 0;  // the restart whose looks are in the second memory
  double scale_ = 0, neglected_ = 0, best_ = 0, survived_ = 0, first_survived_ = 0, held_survived_ = 0;
  bool quiet_ = true, careful_ = false;
  Sums sums_;
  OfReading of_reading_;
};

}  // namespace hepops::lartpc::larpix

#undef HEPOPS_ROLLED
#undef HEPOPS_LONG
