#pragma once
// Scintillation photons on the ticks of a light detector's clock.
//
// A deposit at time t (of arrival at the detector) sends n photons, the share s of them by the singlet:
//
//   rate(t') = n [s e^{-(t'-t)/tau_s} / tau_s + (1 - s) e^{-(t'-t)/tau_t} / tau_t],   t' > t
//
// and a tick gets the rate's integral. Of an exponential the tick of arrival keeps 1 - e^{-r/tau}, r the time that is
// left of it; what leaves it, e^{-r/tau}, decays from tick to tick by q = e^{-tick/tau}. So a row costs one visit per
// deposit and one pass over its ticks, whatever the length of the triplet's tail:
//
//   S_k = a_k + q S_{k-1},   out_k = d_k + (1 - q) S_k       a: what enters at the beginning of k, d: kept at once
//
// Two more columns, before and after the window, hold the rest: a row's sum is its photons. Singlet and triplet:
// A. Hitachi et al., Phys. Rev. B 27 (1983) 5279.
#include <cmath>
#include <cstdint>

#include "core/elementary.h"
#include "core/host_device.h"

namespace hepops::lartpc {

enum Component : int { singlet, triplet, num_components };

// The column of an arrival, 0 before the window and ticks + 1 behind it, and the time to the end of that column [us].
struct LightPlace {
  int64_t column;
  double rest;
};

HEPOPS_HD LightPlace light_place(double time, int64_t begin, double tick, int64_t ticks) {
  const double x = time / tick - double(begin);  // in ticks from the window's begin
  const double column = std::floor(x) + 1, last = double(ticks) + 1;
  const double inside = column >= 0 ? (column > last ? last : column) : 0;  // 0 for a time that is no number, too
  return {int64_t(inside), (inside - x) * tick};
}

// One exponential on the ticks.
struct Decay {
  double tau, q, loss, slope;  // q = e^{-tick/tau}, 1 - q, dq/dtau
  HEPOPS_HD Decay(double tau, double tick)
      : tau(tau), q(std::exp(-tick / tau)), loss(-std::expm1(-tick / tau)), slope(q * tick / (tau * tau)) {}

  // What is left of the light when the column of arrival ends.
  HEPOPS_HD double left(double rest) const { return core::series::exp(-rest / tau); }

  // Adds to the columns 1 ... ticks + 1 of `out` what `enter` brings; leaves in `enter` the light alive at each.
  HEPOPS_HD void spread(double* enter, double* out, int64_t ticks) const {
    double alive = 0;
    for (int64_t k = 1; k <= ticks; ++k) {
      alive = enter[k] + q * alive;
      enter[k] = alive;
      out[k] += loss * alive;
    }
    out[ticks + 1] += enter[ticks + 1] + q * alive;
  }

  // The adjoint: worth[k] is the slope of the result with what enters at k; grad that with the columns.
  HEPOPS_HD void gather(const double* grad, double* worth, int64_t ticks) const {
    double next = grad[ticks + 1];
    worth[ticks + 1] = next;
    for (int64_t k = ticks; k >= 1; --k) {
      next = loss * grad[k] + q * next;
      worth[k] = next;
    }
  }

  // Slope with tau by way of q: dS_{k+1} and dout_k of each S_k.
  HEPOPS_HD double slope_by_tau(const double* alive, const double* grad, const double* worth, int64_t ticks) const {
    double sum = 0;
    for (int64_t k = 1; k <= ticks; ++k) sum += alive[k] * (worth[k + 1] - grad[k]);
    return sum * slope;
  }
};

}  // namespace hepops::lartpc
