#pragma once
// One interval on a CPU where something may be left out (tolerance > 0): the law and the letters of
// likelihood_interval.h, with looks taken together in stretches (likelihood_stretches.h) and Phi from a table.
//
//   T[s, g] = sum_z w S (1 - (1 - h)^n) (1 - A)       a silent reset in stretch g, which restarts at its mean + d
//   V[s] = H[s] + sum_g T[s, g] V[mean of g + d]      F[r] += F[s] T[s, g]
//
// S is held from the rising pass to the falling one where there is room, else made again.
//
// The table is good to 1e-11 of one, and so are S and all sums: where P is not far above that, as a share of the best
// reading that any restart has, `sure` is false and nothing here counts: likelihood_interval.h says what P is.
#include "lartpc/likelihood_interval.h"
#include "lartpc/likelihood_stretches.h"

namespace hepops::lartpc::larpix {

template <int nodes>
class Quick {
 public:
  static constexpr int groups = nodes / lanes;
  static constexpr double nothing = -1e300;
  static constexpr int64_t per_stretch = nodes + 8;  // S, T, and the groups that matter
  static constexpr int64_t columns = 28, held = 4;
  static_assert(columns + held * per_stretch <= Scratch<nodes>::per_tick && 1 + lanes <= Scratch<nodes>::beyond);

  Quick(const Law& law, const Chip& chip, const Grid<nodes>& grid, const Approximation& near, const NormalTable& table,
        const Scratch<nodes>& scratch, int64_t first, int64_t last, int64_t ends, const Reading* reading)
      : law_(law),
        chip_(chip),
        grid_(grid),
        near_(near),
        table_(table),
        first_(first),
        last_(last),
        ends_(ends),
        reading_(reading),
        step_(chip.hold + chip.reset + 1),
        ticks_(last + chip.hold + 1),
        slope_(law.reset / law.look),
        memory_(scratch.at),
        room_(scratch.ticks + 1 + lanes),
        stretches_(column(23), column(24), column(25), column(26), column(27)) {
    double** all[] = {&before_, &waits_,     &reached_,  &power_,   &most_,       &trigger_,   &largest_, &raw_,
                      &share_,  &upper_,     &node_,     &flow_,    &value_,      &hit_,       &slot_,    &stop_,
                      &d_mean_, &d_reached_, &d_before_, &d_waits_, &d_variance_, &d_reading_, &after_};
    for (int i = 0; i < 23; ++i) *all[i] = column(i);
  }

  template <class T>
  void charge(const Row<T>& row, int64_t start, double tick) {
    before_[0] = waits_[0] = 0, power_[0] = 1;
    for (int64_t t = 0; t < ticks_; ++t) {
      const double charge = tick * row[start + t];
      before_[t + 1] = before_[t] + charge;
      waits_[t + 1] = chip_.keep * (waits_[t] + charge);
      reached_[t] = before_[t + 1] - waits_[t + 1];
      power_[t + 1] = chip_.keep * power_[t];
    }
    q_ = {before_, waits_, reached_, power_};
  }

  int64_t ticks() const { return ticks_; }
  bool sure() const { return sure_; }

  // as Interval's
  double log_probability(double& neglected, Slopes* slopes) {
    neglected = 0, quiet_ = true, sure_ = true;
    if (first_ > last_) return 0;
    bound();
    if (!reading_ && most_[0] <= near_.tolerance) return neglected = most_[0], 0.0;
    quiet_ = false;
    divide();
    rise();
    scale_ = reading_ ? best_ : 0.0;
    if (scale_ == nothing) return sure_ = false, nothing;
    for (int64_t t = 0; t <= ticks_; ++t) d_reached_[t] = d_before_[t] = d_waits_[t] = 0;
    for (int64_t g = 0; g < stretches_.count(); ++g) d_mean_[g] = d_variance_[g] = d_reading_[g] = 0;
    for (int64_t m = count_ - 1; m >= 0; --m)
      if (flow_[m] > 0) slopes ? fall<true>(m) : fall<false>(m);
    const double log_p = std::log(value_[0]) + scale_;
    sure_ = value_[0] > 0 && log_p > std::log(wrong / near_.tolerance) + (reading_ ? most_[0] : 0.0);
    if (!sure_) return nothing;
    neglected = reading_ ? neglected_ * std::exp(-log_p) : neglected_;
    if (slopes) finish(*slopes);
    return log_p;
  }

  template <class Write>
  void charge_slopes(int64_t stop, const Write& write) const {
    if (quiet_) {
      for (int64_t t = 0; t < stop; ++t) write(t, 0.0);
      return;
    }
    const double scale = 1 / value_[0];
    double before = 0, waits = 0;
    for (int64_t t = ticks_ - 1; t >= 0; --t) {
      before += d_before_[t + 1] + d_reached_[t];
      waits = chip_.keep * waits + d_waits_[t + 1] - d_reached_[t];
      if (t < stop) write(t, scale * (before + chip_.keep * waits));
    }
  }

 private:
  static constexpr double wrong = 1e-10;   // of all sums
  static constexpr double nobody = 1e-13;  // of a group of nodes: no more is asked of it

  double* column(int i) const { return memory_ + i * room_; }
  Lane z(int g) const { return load(grid_.z + g * lanes); }
  Lane weight(int g) const { return load(grid_.weight + g * lanes); }

  // ------------------------------------------------------------------------------------------------------- bounds

  // largest_[t]: the charge at t after any restart; trigger_[t], after_[t]: bounds of the probabilities of a trigger at
  // t and of what it changes. most_[s]: with a hit, log of a bound of its probability from any restart at s or later;
  // else a bound of the probability of any hit.
  [[gnu::noinline]] void bound() {
    double lowest = 1e300;
    for (int64_t t = 0; t < ticks_; ++t) {
      lowest = std::fmin(lowest, before_[t] - std::fabs(waits_[t]));
      largest_[t] = reached_[t] - lowest;
    }
    const double spread = std::sqrt(law_.reset * law_.reset + law_.look * law_.look);
    for (int64_t t = 0; t <= last_; t += lanes) {
      Lane any, above, density;
      normal((load(largest_ + t) - law_.threshold) / spread, any, above, density);
      store(any, trigger_ + t);
    }
    reading_ ? bound_hit(spread) : bound_silence();
  }

  // P(look and reading are both above), at this charge: U = (look + reading) / 2 above by |D|, half their difference,
  //   E_D[Phi(-(c + |D|) / u)] <= Phi(-c / u) E[exp(-c |D| / u^2)],  c = threshold - charge >= 0
  Lane accepted(const Lane& charge) const {
    using core::max;
    const double u2 = law_.reset * law_.reset + 0.5 * law_.look * law_.look;
    const Lane c = law_.threshold - charge;
    Lane below, above, density;
    normal(c / std::sqrt(u2), below, above, density);
    return above * (2 * inverse_root_2pi) * mills(max(c, Lane(0.0)) * (law_.look * std::sqrt(0.5) / u2));
  }

  // Sums over the looks from s on, with the largest charge at each; or their number times that at the largest charge
  // after s.
  void bound_silence() {
    double* const largest_from = raw_;
    double highest = nothing, largest = nothing;
    for (int64_t t = ticks_ - 1; t >= 0; --t) {
      highest = std::fmax(highest, reached_[t]);
      largest = std::fmax(largest, highest - before_[t] + std::fabs(waits_[t]));
      largest_from[t] = largest;
    }
    for (int64_t t = 0; t <= last_; t += lanes) {  // beyond the end: of no use
      using core::max, core::min;
      store(min(load(trigger_ + t), accepted(max(load(largest_ + t), load(largest_ + t + chip_.hold)))), after_ + t);
      store(accepted(load(largest_from + t)), most_ + t);
    }
    double hits = 0;
    for (int64_t t = last_; t >= 0; --t) {
      const bool looks = t < ends_ || t == first_;
      if (looks) hits += after_[t];
      most_[t] = looks || t == 0 ? std::fmin(std::fmin(hits, 1.0), most_[t] * double(last_ - t + 1)) : 0.0;
    }
    for (int64_t t = last_ + 1; t <= ticks_; ++t) most_[t] = 0;
    if (first_ > 0) most_[0] = std::fmin(hits, 1.0);
    for (int64_t t = 0; t <= last_; ++t) after_[t] += trigger_[t] * most_[t + step_ < ticks_ ? t + step_ : ticks_];
  }

  void bound_hit(double spread) {
    const double variance = law_.reset * law_.reset + law_.uncorrelated * law_.uncorrelated;
    double* const charge = raw_;
    for (int64_t s = 0; s <= last_; ++s) charge[s] = q_(s, last_);
    for (int64_t s = 0; s <= last_; s += lanes) {
      Lane triggers, unused;
      log_normal((load(charge + s) - law_.threshold) / spread, triggers, unused);
      store(triggers, most_ + s);
    }
    double most = nothing;
    for (int64_t s = last_; s >= 0; --s) {
      const double read = reading_->log_bound(q_(s, last_ + chip_.hold), variance);
      most_[s] = most = std::fmax(most, std::fmin(most_[s], read));
    }
  }

  void divide() {
    const double two_looks = std::sqrt(1 + 2 * slope_ * slope_);
    const Stretches::Budget budget{
        near_.tolerance * 0.2,        two_looks,  law_.look, law_.threshold, largest_, trigger_,
        reading_ ? trigger_ : after_, chip_.hold, ticks_};
    stretches_.clear(first_);
    const auto part = [&](int64_t from, int64_t to) { stretches_.divide(from, to, chip_.keep == 0, reached_, budget); };
    if (!reading_) return part(first_, last_ + 1);
    const int64_t dead = std::max(first_, last_ - step_ + 1);  // from there on no restart comes before the hit
    part(first_, dead), part(dead, last_), part(last_, last_ + 1);
  }

  // -------------------------------------------------------------------------------------------------------- nodes

  // As in likelihood_interval.h: where restarts are followed, and how those in between count.
  int64_t next_node(int64_t m) {
    const int64_t a = int64_t(node_[m]);
    int64_t longest = std::min(near_.longest, step_ - 1);
    if (reading_ && (end_ - a) / 4 < longest) longest = (end_ - a) / 4;
    int64_t next = a + 1;
    double moved = flowing(a), between = 0;
    while (next < end_ && next - a < longest) {
      moved += flowing(next);
      if (raw_[next] > 0) between += raw_[next] * weight_of(next);
      if (between * moved * moved > near_.tolerance * (8 * 500.0 * 500.0)) break;
      ++next;
    }
    return next;
  }
  double weight_of(int64_t r) const { return reading_ ? std::exp(std::fmin(most_[r] - best_, 0.0)) : most_[r]; }
  void add_node(int64_t m, int64_t tick) {
    node_[m] = double(tick), flow_[m] = 0, hit_[m] = nothing, slot_[m] = -1, count_ = m + 1;
  }
  double flowing(int64_t r) const {
    return std::fabs(before_[r + 1] - before_[r]) + std::fabs(waits_[r + 1] - waits_[r]);
  }
  double value_at(int64_t r) const {  // V[r]
    if (r > end_) return reading_ ? 0.0 : 1.0;
    const int64_t m = int64_t(upper_[r]);
    return share_[r] * value_[m] + (1 - share_[r]) * value_[m - 1];
  }
  // after a trigger in the ticks t ... t + n - 1: in their middle
  double value_after(int64_t t, int64_t n) const {
    const int64_t r = t + step_ + (n - 1) / 2;
    return n % 2 ? value_at(r) : 0.5 * (value_at(r) + value_at(r + 1));
  }

  // -------------------------------------------------------------------------------------------------------- looks

  // Phi and phi at x + slope z of the nodes
  struct Bells {
    NormalTable::Place place;
    bool tabled;
    double x;
  };
  Bells bells(double x) const {
    const double low = x + slope_ * grid_.z[0], high = x + slope_ * grid_.z[nodes - 1];
    const bool tabled = !table_.empty() && low < NormalTable::reach && high > -NormalTable::reach;
    return {tabled ? table_.place(low) : NormalTable::Place{}, tabled, x};
  }
  void at(const Bells& b, int g, Lane& y, Lane& h, Lane& phi) const {
    Lane above;
    y = b.x + slope_ * z(g);
    if (b.tabled)
      b.place.at(g * lanes, y, h, phi);
    else
      normal(y, h, above, phi);
  }
  static Lane power(const Lane& x, int64_t n) {
    Lane result = 1.0, square = x;
    for (;; n /= 2) {
      if (n % 2) result = result * square;
      if (n < 2) return result;
      square = square * square;
    }
  }
  int lowest(double x) const {                                   // the first group that may trigger
    const double least = near_.tolerance >= 1e-5 ? -6.0 : -7.2;  // Phi below 1e-9, 3e-13
    int low = 0;
    while (low < groups && x + slope_ * grid_.z[low * lanes + lanes - 1] < least) ++low;
    return low;
  }
  // Whether a trigger may be rejected, and what follows then may matter
  bool restarts(const Stretch& at) const {
    return (!reading_ || at.t + step_ <= last_) && at.reading + slope_ * grid_.z[0] < 7.2;
  }

  struct Slot {
    double* at;
    int64_t first;  // its first stretch
    double* survival(int64_t g) const { return at + (g - first) * per_stretch; }
    double& flow(int64_t g) const { return survival(g)[nodes]; }
    double& range(int64_t g) const { return survival(g)[nodes + 1]; }
  };

  // Follows a restart at s: S, T and H (or log H) of node m; `last`: the stretch after which nobody is left.
  [[gnu::noinline]] double look(int64_t s, int64_t begin, const Slot& slot, int64_t& last) const {
    Lane S[groups];
    for (int g = 0; g < groups; ++g) S[g] = 1.0;
    int high = groups;
    const int64_t end = stretches_.count();
    for (int64_t k = slot.first; k < end; ++k) {
      const Stretch now = stretches_.seen(k, s, std::max(begin, stretches_.begin(k)), q_, chip_.hold, law_);
      last = k;
      if (reading_ && k == end - 1) return read(s, now, S, high, slot, k);
      const int low = std::min(lowest(now.x), high);
      const bool flows = restarts(now);
      double* const to = slot.survival(k);
      slot.flow(k) = now.n > 1
                         ? flows ? pass<true, true>(now, low, high, S, to) : pass<true, false>(now, low, high, S, to)
                     : flows ? pass<false, true>(now, low, high, S, to)
                             : pass<false, false>(now, low, high, S, to);
      slot.range(k) = double(1024 * high + low);
      if (k % 4 == 3 && left(S, high) < nobody) return 0.0;
    }
    return left(S, high);
  }

  // A stretch of looks: writes S, goes on to what it leaves, and returns T.
  template <bool many, bool flows>
  [[gnu::always_inline]] double pass(const Stretch& now, int low, int high, Lane* S, double* to) const {
    const Bells looked = bells(now.x), read = flows ? bells(now.reading) : looked;
    Lane total = 0.0;
    for (int g = low; g < high; ++g) {
      Lane y, h, phi;
      at(looked, g, y, h, phi);
      if constexpr (many) h = h - (0.5 * now.variance) * y * phi;
      const Lane stay = many ? power(1.0 - h, now.n) : 1.0 - h;
      store(S[g], to + g * lanes);
      if constexpr (flows) {
        Lane A, unused;
        at(read, g, y, A, unused);
        total += weight(g) * S[g] * (1.0 - stay) * (1.0 - A);
      }
      S[g] = S[g] * stay;
    }
    return flows ? sum(total) : 0.0;
  }

  double left(const Lane* S, int& high) const {
    Lane total = 0.0;
    const int before = high;
    for (int g = 0; g < before; ++g) {
      const Lane part = weight(g) * S[g];
      total += part;
      if (g == before - 1 && sum(part) < nobody) high = g;
    }
    return sum(total);
  }

  // The hit: E of S h O, in units of exp(top)
  double read(int64_t s, const Stretch& now, const Lane* S, int high, const Slot& slot, int64_t k) const {
    const Bells looked = bells(now.x);
    const double mean = q_(s, last_ + chip_.hold);
    Lane total = 0.0;
    int low = 0;  // Phi below 3e-13
    while (low < high && now.x + slope_ * grid_.z[low * lanes + lanes - 1] < -7.2) ++low;
    for (int g = low; g < high; ++g) {
      Lane y, h, phi, shift;
      at(looked, g, y, h, phi);
      store(S[g], slot.survival(k) + g * lanes);
      total += weight(g) * S[g] * h * reading_->value(mean + law_.reset * z(g), false, shift);
    }
    slot.flow(k) = 0, slot.range(k) = double(1024 * high + low);
    return sum(total);
  }

  // --------------------------------------------------------------------------------------------------------- rise

  [[gnu::noinline]] void rise() {
    const int64_t begin = first_ + step_;
    end_ = reading_ ? last_ : ends_, neglected_ = 0, best_ = nothing, used_ = 0;
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
      if (followed(m, a)) follow(m, a, a);
      if (a == next) return;
      a = next;
    }
  }

  // Where not, V is 1 (no hit) or 0 (a hit), and what that may cost is counted.
  bool followed(int64_t m, int64_t s) {
    value_[m] = reading_ ? 0 : 1;
    if (!reading_ && s >= ends_) return flow_[m] = 0, false;
    if (flow_[m] == 0) return false;
    const double bound = flow_[m] * (reading_ ? std::exp(most_[s]) : most_[s]);
    if (bound > near_.tolerance * (reading_ ? std::exp(best_) : 1.0)) return true;
    neglected_ += bound;
    return flow_[m] = 0, false;
  }

  bool held_back(int64_t m) const { return slot_[m] >= 0; }
  Slot slot_of(int64_t m, int64_t begin) {
    const int64_t first = stretches_.of(begin), size = (stretches_.count() - first) * per_stretch;
    const int64_t spare = (held - 1) * room_ * per_stretch;
    if (slot_[m] < 0 && used_ + size <= spare) slot_[m] = double(used_), used_ += size;
    return {memory_ + columns * room_ + (slot_[m] < 0 ? spare : int64_t(slot_[m])), first};
  }

  void follow(int64_t m, int64_t s, int64_t begin) {
    const Slot slot = slot_of(m, begin);
    int64_t last;
    const double H = look(s, begin, slot, last);
    stop_[m] = double(last);
    hit_[m] = H;
    if (reading_) {
      hit_[m] = H > 0 && last == stretches_.count() - 1 ? std::log(H) + reading_->top() : nothing;
      best_ = std::fmax(best_, std::log(flow_[m]) + hit_[m]);
    }
    for (int64_t k = slot.first; k <= last; ++k) {
      const double flow = flow_[m] * slot.flow(k);
      if (flow == 0) continue;
      const int64_t t = std::max(begin, stretches_.begin(k)), n = stretches_.end(k) - t, r = t + step_ + (n - 1) / 2;
      if (r <= end_) raw_[r] += n % 2 ? flow : 0.5 * flow;
      if (n % 2 == 0 && r < end_) raw_[r + 1] += 0.5 * flow;
    }
  }

  // --------------------------------------------------------------------------------------------------------- fall

  // V[s] of node m, once all later ones are there, and what it adds to the slopes of V[0]
  template <bool slopes>
  void fall(int64_t m) {
    const int64_t s = int64_t(node_[m]), begin = m == 0 ? first_ : s;
    const bool here = held_back(m);
    const Slot slot = slot_of(m, begin);
    int64_t last = int64_t(stop_[m]);
    if (!here) look(s, begin, slot, last);
    double value = reading_ ? (hit_[m] > nothing ? std::exp(hit_[m] - scale_) : 0.0) : hit_[m];
    for (int64_t k = slot.first; k <= last; ++k)
      if (slot.flow(k) != 0) {
        const int64_t t = std::max(begin, stretches_.begin(k));
        value += slot.flow(k) * value_after(t, stretches_.end(k) - t);
      }
    value_[m] = value;
    if constexpr (slopes) back(m, s, begin, slot, last);
  }

  [[gnu::noinline]] void back(int64_t m, int64_t s, int64_t begin, const Slot& slot, int64_t last) {
    const double per_x = flow_[m] / law_.look;
    Lane U[groups], along_z = 0.0, along_x = 0.0;
    for (int g = 0; g < groups; ++g) U[g] = reading_ ? 0.0 : 1.0;
    double moved = 0, kept = 0;
    for (int64_t k = last; k >= slot.first; --k) {
      const int both = int(slot.range(k)), low = both % 1024, high = both / 1024;
      if (low >= high) continue;
      const Stretch now = stretches_.seen(k, s, std::max(begin, stretches_.begin(k)), q_, chip_.hold, law_);
      const bool own = reading_ && k == stretches_.count() - 1;
      const double V = !own && restarts(now) ? value_after(now.t, now.n) : 0.0;
      Gains to{0.0, 0.0, 0.0, along_z, along_x};
      if (own)
        read_back(m, s, now, low, high, slot.survival(k), U, to);
      else if (now.n > 1)
        V > 0 ? pass_back<true, true>(now, V, low, high, slot.survival(k), U, to)
              : pass_back<true, false>(now, V, low, high, slot.survival(k), U, to);
      else
        V > 0 ? pass_back<false, true>(now, V, low, high, slot.survival(k), U, to)
              : pass_back<false, false>(now, V, low, high, slot.survival(k), U, to);
      along_z = to.along_z, along_x = to.along_x;
      const double mean = per_x * sum(to.look), reading = V > 0 ? per_x * sum(to.reading) : 0.0;
      moved += mean + reading;
      if (chip_.keep > 0) kept += mean * power_[now.t - s + 1] + reading * power_[now.t + chip_.hold - s + 1];
      keep(k, now, mean, now.n > 1 ? per_x / law_.look * sum(to.variance) : 0.0, reading);
    }
    d_before_[s] -= moved + of_reading_.mean, d_waits_[s] += kept + of_reading_.kept, of_reading_ = {};
    sums_.threshold -= moved;
    sums_.reset += per_x * sum(along_z);
    sums_.look -= per_x * sum(along_x);
  }

  // d V[s] with respect to x at the looks, its variance, x at the readings; and times z and y
  struct Gains {
    Lane look, variance, reading, along_z, along_x;
  };

  template <bool many, bool after>
  [[gnu::always_inline]] void pass_back(const Stretch& now, double V, int low, int high, const double* S, Lane* U,
                                        Gains& to) const {
    const Bells looked = bells(now.x), read = after ? bells(now.reading) : looked;
    for (int g = low; g < high; ++g) {
      Lane y, h, phi, term = 0.0, A, y_read, phi_read, before = 1.0;  // (1 - h)^(n - 1)
      at(looked, g, y, h, phi);
      Lane by_mean = phi, by_variance = 0.0;
      if constexpr (many) {
        by_variance = -0.5 * (y * phi), by_mean = phi * (1.0 - (0.5 * now.variance) * (1.0 - y * y));
        h += now.variance * by_variance;
        before = power(1.0 - h, now.n - 1);
      }
      const Lane triggered = many ? 1.0 - before * (1.0 - h) : h, wS = weight(g) * load(S + g * lanes);
      if constexpr (after) {
        at(read, g, y_read, A, phi_read);
        term = V * (1.0 - A);
      }
      const Lane gain = term - U[g], a = many ? wS * gain * before * double(now.n) : wS * gain, b = a * by_mean;
      to.look += b;
      to.along_z += z(g) * b;
      to.along_x += y * b;
      if constexpr (many) {
        to.variance += a * by_variance;
        to.along_x += (2 * now.variance) * (a * by_variance);
      }
      if constexpr (after) {
        const Lane r = -V * wS * triggered * phi_read;
        to.reading += r;
        to.along_z += z(g) * r;
        to.along_x += y_read * r;
      }
      U[g] += triggered * gain;
    }
  }

  // The hit's own look: U = h O
  [[gnu::noinline]] void read_back(int64_t m, int64_t s, const Stretch& now, int low, int high, const double* S,
                                   Lane* U, Gains& to) {
    const Bells looked = bells(now.x);
    for (int g = low; g < high; ++g) {
      Lane y, h, phi;
      at(looked, g, y, h, phi);
      const Lane wS = weight(g) * load(S + g * lanes), O = outcome(m, s, g, wS * h), b = wS * O * phi;
      to.look += b;
      to.along_z += z(g) * b;
      to.along_x += y * b;
      U[g] = h * O;
    }
  }

  // Slopes with respect to a stretch's mean charge, its variance, and the mean charge of its readings
  void keep(int64_t k, const Stretch& now, double mean, double variance, double reading) {
    if (now.t == stretches_.begin(k)) {
      d_mean_[k] += mean, d_variance_[k] += variance, d_reading_[k] += reading;
    } else {
      spread(now.t, now.n, mean, variance, reading);
    }
  }
  void spread(int64_t t, int64_t n, double mean, double variance, double reading) {
    const double share = 1 / double(n);
    double middle = 0;
    if (n > 1)
      for (int64_t i = t; i < t + n; ++i) middle += share * reached_[i];
    for (int64_t i = t; i < t + n; ++i) {
      d_reached_[i] += share * (mean + (n > 1 ? 2 * variance * (reached_[i] - middle) : 0.0));
      d_reached_[i + chip_.hold] += share * reading;
    }
  }

  // O at the nodes of group g, scaled; its slopes are added where it has the weight w S h.
  Lane outcome(int64_t m, int64_t s, int g, const Lane& weight) {
    const int64_t t = last_ + chip_.hold;
    const Lane mean = q_(s, t) + law_.reset * z(g);
    const double scale = std::exp(reading_->top() - scale_);
    Lane O = 0.0;
    const ReadingSlopes d = reading_->slopes(mean, Lane(0.0), &O);
    const Lane share = weight * (scale * flow_[m]);
    const double along = sum(share * d.mean);
    d_reached_[t] += along;
    of_reading_.mean += along;
    if (chip_.keep > 0) of_reading_.kept += along * power_[t - s + 1];
    sums_.reset += sum(share * d.mean * z(g));
    sums_.threshold += sum(share * d.threshold);
    sums_.uncorrelated += sum(share * d.uncorrelated);
    sums_.discriminator += sum(share * d.discriminator);
    sums_.lo += sum(share * d.lo);
    sums_.hi += sum(share * d.hi);
    return scale * O;
  }

  void finish(Slopes& total) {
    for (int64_t k = 0; k < stretches_.count(); ++k)
      spread(stretches_.begin(k), stretches_.end(k) - stretches_.begin(k), d_mean_[k], d_variance_[k], d_reading_[k]);
    const double scale = 1 / value_[0];
    total.threshold = scale * sums_.threshold;
    total.reset = scale * sums_.reset;
    total.uncorrelated = scale * (sums_.uncorrelated + sums_.look * law_.uncorrelated / law_.look);
    total.discriminator = scale * (sums_.discriminator + sums_.look * law_.discriminator / law_.look);
    total.lo = scale * sums_.lo, total.hi = scale * sums_.hi;
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
  const NormalTable& table_;
  int64_t first_, last_, ends_;
  const Reading* reading_;
  int64_t step_, ticks_;
  double slope_;  // of x with z
  double* memory_;
  int64_t room_;
  Stretches stretches_;
  Gathered q_;

  double *before_, *waits_, *reached_, *power_;  // of each tick: Gathered
  double *most_, *trigger_, *largest_, *after_;  // of each tick: bounds
  double *raw_, *share_, *upper_;                // of each tick: restarts, and between which nodes it lies
  double *node_, *flow_, *value_, *hit_, *slot_,
      *stop_;                                  // of each node: its tick, F, V, H (log H), memory, last stretch
  double *d_reached_, *d_before_, *d_waits_;   // slopes
  double *d_mean_, *d_variance_, *d_reading_;  // of each stretch
  int64_t count_ = 0, end_ = 0, used_ = 0;
  double scale_ = 0, neglected_ = 0, best_ = 0;
  bool quiet_ = true, sure_ = true;
  Sums sums_;
  OfReading of_reading_;
};

}  // namespace hepops::lartpc::larpix
