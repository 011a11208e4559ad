#pragma once
// The LArPix front end: integrate the current of a pixel, compare with a threshold, hold, read, reset.
//
//   restart s    Q(s) = 0 (noise: N(0, reset noise)), then Q grows by the current
//   trigger t    the first moment, not before the chip is ready, with Q(t) >= threshold
//   reading      q = Q(t + hold);  q < threshold: a silent reset, else a hit (t, q)
//   restart      s = t + hold + reset;  ready at s + busy after a hit, at s after a silent reset
//
// All times are in ticks from the start of the row; tick k covers [k, k + 1) and its current is constant. One text,
// integrate_and_read, serves two faces, which differ in the moments at which the comparator looks:
//
//   Sampled     at the end of every tick. Charge of tick k is added, then compared: a trigger at tick k is t = k + 1,
//               reading after tick k + hold, restart with tick k + hold + reset + 1 (hold 18, reset 1: k + 20), and
//               ready with tick k + hold + reset + busy (busy 9: k + 28). Noise is fresh for every look and reading.
//   Continuous  always: t solves Q(t) = threshold on the piecewise linear Q, and is differentiable. Where t happens to
//               be the end of a tick both faces agree in every moment; else the sampled trigger is the next end.
//
// The buffer filter delays charge: of what waits and comes in a tick, the share 1 - keep is integrated and the share
// keep waits, f_k = keep f_{k-1} + (1 - keep) I_k, and a restart forgets what waits. That is larnd-sim's filter,
// without its end after ten rise times. In the continuous face a restart inside a tick lets in the rest of that tick,
// and f_k flows evenly while the tick lasts, so that Q is piecewise linear and the faces agree at the ends of ticks as
// before.
//
// Charge is summed in double whatever the type of the current. A product that meets a sum on the way to a decision is
// an explicit fma, or rounded to float first: what is counted in one pass is written by another, and no compiler may
// round them differently. So CPU levels and GPU agree on every trigger as well.
//
// The sampled face is larnd-sim's (larndsim/fee.py, get_adc_values; D. A. Dwyer et al., JINST 13 (2018) P10007 for the
// chip), the continuous face is ours.
#include <cmath>
#include <cstdint>

#include "core/host_device.h"

namespace hepops::lartpc::larpix {

struct Chip {
  int64_t hold;   // from the trigger to the end of the integration   [ticks]
  int64_t reset;  // then charge is lost for so long                  [ticks]
  int64_t busy;   // then, after a hit, no trigger for so long        [ticks]
  double keep;    // buffer filter: what waits from one tick to the next, exp(-tick / rise time); 0: none
};

// A row: the window in which the current of one pixel may differ from zero.
template <class T>
struct Row {
  const T* current;  // (ticks)  [e/us]
  int64_t ticks;

  HEPOPS_HD double operator[](int64_t k) const { return 0 <= k && k < ticks ? double(current[k]) : 0.0; }

  // The current on the left of a moment: at the end of a tick, that tick's.
  HEPOPS_HD double before(double moment) const { return (*this)[int64_t(std::ceil(moment)) - 1]; }

  // Sum of the current over [from, to], in e/us times ticks. Four lanes, so that additions need not wait for each
  // other.
  HEPOPS_HD double sum(double from, double to) const {
    from = std::fmax(from, 0.0);
    to = std::fmin(to, double(ticks));
    if (!(from < to)) return 0.0;
    const int64_t first = int64_t(from), last = int64_t(to);
    if (first == last) return (to - from) * double(current[first]);
    double lane[4] = {};
    int64_t k = first + 1;
    for (; k + 4 <= last; k += 4)
      for (int i = 0; i < 4; ++i) lane[i] += double(current[k + i]);
    for (; k < last; ++k) lane[0] += double(current[k]);
    const double whole = (lane[0] + lane[2]) + (lane[1] + lane[3]);
    const double begun = std::fma(double(first + 1) - from, double(current[first]), whole);
    return last < ticks ? std::fma(to - double(last), double(current[last]), begun) : begun;
  }
};

// Calls found(time, charge, rank) for every trigger of a row, in order of time; rank is 0, 1, ... for the hits and -1
// for a silent reset. Returns the number of triggers.
template <class Face, class Found>
HEPOPS_HD int64_t integrate_and_read(Face& face, Found&& found) {
  const Chip chip = face.chip;
  typename Face::Moment restart = face.begin(), ready = restart;
  int64_t triggers = 0, hits = 0;
  for (typename Face::Moment trigger; face.next(restart, ready, trigger); ++triggers) {
    const double charge = face.read(trigger);
    const bool accepted = face.accepts(charge);
    found(trigger, charge, accepted ? hits : int64_t(-1));
    hits += accepted;
    restart = trigger + chip.hold + chip.reset;
    ready = accepted ? restart + chip.busy : restart;
  }
  return triggers;
}

// -------------------------------------------------------------------------------------------------- continuous face

// Charges here are in units of e/us times ticks: no factor, no rounding.
template <class T>
struct Continuous {
  using Moment = double;
  Chip chip;
  Row<T> row;
  double threshold;

  int64_t k = 0;                             // the tick of the trigger
  double charge = 0, inflow = 0, slope = 0;  // at the trigger; f_k; dQ/dt

  HEPOPS_HD double begin() const { return 0.0; }

  HEPOPS_HD double flow(double waiting, double width) const {
    return std::fma(chip.keep, waiting, (1 - chip.keep) * (width * row[k]));
  }

  HEPOPS_HD bool next(double restart, double ready, double& trigger) {
    charge = inflow = 0;
    double start = restart;
    for (k = int64_t(restart); double(k) <= ready; start = double(++k)) {
      const double width = double(k + 1) - start;
      inflow = flow(inflow, width);
      const double reached = charge + inflow;
      if (ready < double(k + 1)) {
        slope = inflow / width;
        charge = std::fma(slope, ready - start, charge);
        trigger = ready;
        if (charge >= threshold) return true;  // it was busy when the charge crossed
        if (reached >= threshold) return cross(ready, trigger);
      }
      charge = reached;
    }
    for (; k < row.ticks; ++k) {
      inflow = flow(inflow, 1.0);
      const double reached = charge + inflow;
      if (reached >= threshold) {
        slope = inflow;
        return cross(double(k), trigger);
      }
      charge = reached;
    }
    return false;
  }

  // From `charge` at start the threshold is met in tick k.
  HEPOPS_HD bool cross(double start, double& trigger) {
    const double crossing = start + (threshold - charge) / slope;
    // Inside (k, k + 1] in spite of rounding, so that the tick can be told from the time: Row::before.
    trigger = std::fmin(std::fmax(crossing, double(k) + 0x1p-30), double(k + 1));
    charge = threshold;
    return true;
  }

  HEPOPS_HD double read(double trigger) {
    const double end = trigger + double(chip.hold);
    double read = std::fma(slope, std::fmin(end, double(k + 1)) - trigger, charge);
    for (++k; double(k) < end; ++k) {
      inflow = flow(inflow, 1.0);
      read = std::fma(inflow, std::fmin(end - double(k), 1.0), read);
    }
    return read;
  }

  HEPOPS_HD bool accepts(double charge) const { return charge >= threshold; }
};

// No trigger is possible where all positive charge together stays below threshold: most rows, and cheap to see. The
// margin covers the rounding of both sums. Not a number and infinity come out as such.
struct Charges {
  double positive, total;  // [e/us times ticks]

  HEPOPS_HD bool finite() const { return total - total == 0.0; }
  HEPOPS_HD bool silent(double threshold) const { return positive * (1.0 + 1e-9) < threshold; }  // false for NaN
};

// What a team member sums of a row: ticks rank, rank + size, ...
template <class T>
HEPOPS_HD Charges charges(const Row<T>& row, int64_t rank, int64_t size) {
  constexpr int lanes = 8;
  double positive[lanes] = {}, total[lanes] = {};
  int64_t k = rank;
  for (; k + (lanes - 1) * size < row.ticks; k += lanes * size)
    for (int i = 0; i < lanes; ++i) {
      const double current = double(row.current[k + i * size]);
      positive[i] += current > 0 ? current : 0.0;
      total[i] += current;
    }
  for (; k < row.ticks; k += size) {
    const double current = double(row.current[k]);
    positive[0] += current > 0 ? current : 0.0;
    total[0] += current;
  }
  Charges sum{0, 0};
  for (int i = 0; i < lanes; ++i) sum.positive += positive[i], sum.total += total[i];
  return sum;
}

// The derivatives follow the chain of triggers, silent ones included. With Q(s, u) the charge at u since a restart at
// s, linear in the current I, and ds = 0 at the first restart:
//
//   crossing   dt = (dthreshold - Q(s, t)[dI] + I(s) g(s, t) ds) / Q'(s, t)     from Q(s, t) = threshold
//   delayed    dt = dt of the hit before                                         t = ready, the charge was above
//   already reading    dq = Q(s, t + h)[dI] + Q'(s, t + h) dt - I(s) g(s, t + h) ds      the window moves with t
//   restart    ds = dt
//
// g(s, u) is the share of the charge of the tick of s that is through the filter at u; without a filter g = 1 and
// Q' = I. A delayed trigger is one at the moment `ready` after a hit, to the last bit. At the end of a tick the
// derivatives are those on its left.

// The part of tick k in [from, to].
HEPOPS_HD double overlap(int64_t k, double from, double to) {
  return std::fmax(std::fmin(double(k + 1), to) - std::fmax(double(k), from), 0.0);
}

HEPOPS_HD int64_t tick_before(double moment) { return int64_t(std::ceil(moment)) - 1; }

// The window [s, u] as the filter sees it.
struct Window {
  double keep, s, u;
  int64_t last = tick_before(u);
  double log_keep = keep > 0 ? std::log(keep) : 0.0;

  // The share of a charge of tick k < last, when all of it came in: what waits at u is missing.
  HEPOPS_HD double through(int64_t k) const {
    if (keep == 0) return 1.0;
    const double waits = std::exp(log_keep * double(last - k));
    return 1 - waits * (1 - (1 - keep) * (u - double(last)));
  }

  // dQ(s, u) / dI_k
  HEPOPS_HD double weight(int64_t k) const {
    return k == last ? (1 - keep) * overlap(k, s, u) : overlap(k, s, u) * through(k);
  }

  // g(s, u)
  HEPOPS_HD double through_restart() const {
    const int64_t k = tick_before(s);
    return k == last ? 1 - keep : through(k);
  }

  // Q(s, u)[current]
  template <class T>
  HEPOPS_HD double charge(const Row<T>& current) const {
    if (keep == 0) return current.sum(s, u);
    double sum = 0;
    for (int64_t k = int64_t(s); double(k) < u && k < current.ticks; ++k) sum += weight(k) * current[k];
    return sum;
  }

  // Q'(s, u) = I(u) + sum over the ticks before of keep^n (I_k - I_{k+1}), summed as what flows in tick `last`
  template <class T>
  HEPOPS_HD double slope(const Row<T>& current) const {
    if (keep == 0) return current.before(u);
    double inflow = 0;
    for (int64_t k = int64_t(s); k < last; ++k) inflow = keep * inflow + (1 - keep) * overlap(k, s, u) * current[k];
    return keep * inflow + (1 - keep) * current[last];
  }
};

struct Chain {
  Chip chip;
  double restart = 0, ready = 0;

  HEPOPS_HD bool delayed(double time) const { return time == ready && ready > restart; }
  HEPOPS_HD Window until(double moment) const { return {chip.keep, restart, moment}; }
  HEPOPS_HD void pass(double time, bool accepted) {
    restart = time + chip.hold + chip.reset;
    ready = accepted ? restart + chip.busy : restart;
  }
};

// The triggers of one row, as the forward pass wrote them.
struct Triggers {
  const double* time;
  const int64_t* rank;
  int64_t count;
};

// Derivatives of times [ticks] and charges [e] along one direction: that of the current, and of the threshold.
template <class T, class Found>
HEPOPS_HD void frontend_jvp(const Row<T>& row, const Row<T>& tangent, double threshold_tangent, double tick,
                            const Chip& chip, const Triggers& triggers, Found&& found) {
  Chain chain{chip};
  double ds = 0;
  for (int64_t c = 0; c < triggers.count; ++c) {
    const double t = triggers.time[c], moved = row.before(chain.restart) * ds;
    const Window rise = chain.until(t), whole = chain.until(t + double(chip.hold));
    double dt = ds;
    if (!chain.delayed(t))
      dt = (threshold_tangent / tick - rise.charge(tangent) + moved * rise.through_restart()) / rise.slope(row);
    found(c, dt, tick * (whole.charge(tangent) + whole.slope(row) * dt - moved * whole.through_restart()));
    chain.pass(t, triggers.rank[c] >= 0);
    ds = dt;
  }
}

struct TriggerGradient {
  double time, charge;
};

// The same chain backwards: grad_t collects what asks for dt, from the trigger itself and from the next one, whose
// restart (and ready) moves with it. The restarts are found again from the times, so nothing else is kept.
// The gradient of the current is added to grad_current, the members of a team each taking every size-th tick; that of
// the threshold is returned.
template <class T, class Grad, class Team>
HEPOPS_HD double frontend_backward(const Row<T>& row, double tick, const Chip& chip, const Triggers& triggers,
                                   Grad&& grad, T* grad_current, const Team& team) {
  double carried = 0, grad_threshold = 0;
  for (int64_t c = triggers.count - 1; c >= 0; --c) {
    Chain chain{chip};
    if (c > 0) chain.pass(triggers.time[c - 1], triggers.rank[c - 1] >= 0);
    const double t = triggers.time[c], end = t + double(chip.hold);
    const Window rise = chain.until(t), whole = chain.until(end);
    const TriggerGradient g = grad(c);
    const bool delayed = chain.delayed(t);
    const double held = tick * g.charge, grad_t = g.time + held * whole.slope(row) + carried;
    const double lambda = delayed ? 0.0 : grad_t / rise.slope(row);
    const double stop = std::fmin(end, double(row.ticks));
    for (int64_t k = int64_t(chain.restart) + team.rank; double(k) < stop; k += team.size)
      grad_current[k] += T(held * whole.weight(k) - lambda * (double(k) < t ? rise.weight(k) : 0.0));
    team.sync();  // the next window may begin in the tick in which this one ends
    grad_threshold += lambda / tick;
    const double grad_s = lambda * rise.through_restart() - held * whole.through_restart();
    carried = row.before(chain.restart) * grad_s + (delayed ? grad_t : 0.0);
  }
  return grad_threshold;
}

}  // namespace hepops::lartpc::larpix
