#pragma once
// The probability of a reading, given its mean m = q + r without the reading's own noise:
//
//   O(m) = int_lo^hi N(Q; m, sigma_u) Phi((Q - threshold) / sigma_d) dQ
//
// by Gauss-Legendre, eight points on pieces no wider than either sigma; above threshold + 8.5 sigma_d an endless bin is
// Phi((m - b) / sigma_u). Where lo = hi the charge is known and O is the integrand. All is scaled by exp(-top).
#include <cmath>

#include "lartpc/likelihood_normal.h"

namespace hepops::lartpc::larpix {

// What a row's chip is.
struct Law {
  double threshold, reset, uncorrelated, discriminator;  // [e]
  double look;                                           // sqrt(uncorrelated^2 + discriminator^2)
};

constexpr int points_per_piece = 8, most_pieces = 64, most_points = points_per_piece * most_pieces;

// Derivatives of O, or of log O, at each node.
struct ReadingSlopes {
  Lane mean, uncorrelated, discriminator, threshold, lo, hi;
};

class Reading {
 public:
  static constexpr int64_t memory = 3 * most_points;

  HEPOPS_HD Reading(double lo, double hi, const Law& law, double* memory)
      : lo_(lo), hi_(hi), law_(law), Q_(memory), weight_(memory + most_points), rise_(memory + 2 * most_points) {
    if (lo == hi) {
      Q_[0] = lo, weight_[0] = -std::log(law.uncorrelated) - log_root_2pi;
      points_ = 1;
    } else {
      divide();
    }
    top_ = endless_ ? 0.0 : -1e308;
    for (int m = 0; m < points_; ++m) {
      double log_accepted;
      log_normal((Q_[m] - law.threshold) / law.discriminator, log_accepted, rise_[m]);
      weight_[m] += log_accepted;
      top_ = std::fmax(top_, weight_[m]);
    }
    for (int m = 0; m < points_; ++m) weight_[m] = std::exp(weight_[m] - top_);
  }

  HEPOPS_HD double top() const { return top_; }
  HEPOPS_HD bool density() const { return lo_ == hi_; }

  // An upper bound of log P(reading in the bin), for a mean normal with this variance in all.
  HEPOPS_HD double log_bound(double mean, double variance) const {
    const double away = std::fmax(std::fmax(lo_ - mean, mean - hi_), 0.0);
    return -0.5 * away * away / variance - (density() ? 0.5 * std::log(variance) + log_root_2pi : 0.0);
  }

  // The reading with the largest probability given a mean, roughly.
  HEPOPS_HD double nearest(double mean) const { return std::fmin(std::fmax(mean, lo_), hi_); }

  // O / exp(top + shift) at the nodes, where shift = -(distance of m from the bin)^2 / 2 sigma_u^2 if `far`, else 0
  HEPOPS_HD Lane value(const Lane& mean, bool far, Lane& shift) const {
    using core::exp;
    shift = far ? log_distance(mean) : Lane(0.0);
    Lane O = 0.0;
    for (int m = 0; m < points_; ++m) O += weight_[m] * exp(exponent(m, mean) - shift);
    if (endless_) {
      Lane below, slope;
      log_normal((mean - bound_) / law_.uncorrelated, below, slope);
      O += exp(below - top_ - shift);
    }
    return O;
  }

  // The derivatives of O / exp(top + shift), with shift held; itself is added to `value`, if asked
  HEPOPS_HD ReadingSlopes slopes(const Lane& mean, const Lane& shift, Lane* value = nullptr) const {
    using core::exp;
    const double u = 1 / law_.uncorrelated, d = 1 / law_.discriminator;
    ReadingSlopes s{0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
    for (int m = 0; m < points_; ++m) {
      const Lane bell = weight_[m] * exp(exponent(m, mean) - shift), y = (Q_[m] - mean) * u;
      if (value) *value += bell;
      s.mean += bell * y * u;
      s.uncorrelated += bell * (y * y - 1.0) * u;
      const Lane climb = bell * (rise_[m] * d);
      s.threshold -= climb;
      s.discriminator -= climb * ((Q_[m] - law_.threshold) * d);
      if (density()) s.lo += climb - bell * y * u;
    }
    if (endless_) {
      const Lane y = (mean - bound_) * u, bell = exp(-0.5 * (y * y) - log_root_2pi - top_ - shift) * u;
      s.mean += bell;
      s.uncorrelated -= bell * y;
      if (value) {
        Lane below, slope;
        log_normal((mean - bound_) / law_.uncorrelated, below, slope);
        *value += exp(below - top_ - shift);
      }
    }
    if (!density()) {
      if (lo_ > -1e300) s.lo = -end(lo_, mean, shift);
      if (hi_ < 1e300) s.hi = end(hi_, mean, shift);
    }
    return s;
  }

 private:
  HEPOPS_HD Lane exponent(int m, const Lane& mean) const {
    const Lane y = (Q_[m] - mean) * (1 / law_.uncorrelated);
    return -0.5 * (y * y);
  }

  HEPOPS_HD Lane log_distance(const Lane& mean) const {
    using core::max;
    const Lane away = max(max(lo_ - mean, mean - hi_), Lane(0.0)) * (1 / law_.uncorrelated);
    return -0.5 * (away * away);
  }

  // The integrand at an end of the bin
  HEPOPS_HD Lane end(double Q, const Lane& mean, const Lane& shift) const {
    using core::exp;
    double accepted, slope;
    log_normal((Q - law_.threshold) / law_.discriminator, accepted, slope);
    const Lane y = (Q - mean) * (1 / law_.uncorrelated);
    return exp(-0.5 * (y * y) + (accepted - std::log(law_.uncorrelated) - log_root_2pi - top_) - shift);
  }

  HEPOPS_HD void divide() {
    constexpr double at[4] = {0.1834346424956498, 0.5255324099163290, 0.7966664774136267, 0.9602898564975362};
    constexpr double share[4] = {0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763};
    const double wide = 10 * std::fmax(law_.uncorrelated, law_.discriminator);
    const double from = lo_ > -1e300 ? lo_ : std::fmin(law_.threshold, hi_) - wide;
    endless_ = hi_ > 1e300;
    bound_ = endless_ ? std::fmax(from, law_.threshold + 8.5 * law_.discriminator) : hi_;
    const double width = bound_ - from, narrow = std::fmin(law_.uncorrelated, law_.discriminator);
    const int pieces = int(std::fmin(std::ceil(width / narrow), double(most_pieces)));
    for (int p = 0; p < pieces; ++p)
      for (int i = 0; i < points_per_piece; ++i) {
        const int m = p * points_per_piece + i, half = i / 2;
        double x = 0, w = 0;
        for (int j = 0; j < 4; ++j)
          if (j == half) x = at[j], w = share[j];
        Q_[m] = from + width / pieces * (p + 0.5 + (i % 2 ? 0.5 : -0.5) * x);
        weight_[m] = std::log(0.5 * width / pieces * w) - std::log(law_.uncorrelated) - log_root_2pi;
      }
    points_ = pieces * points_per_piece;
  }

  double lo_, hi_;
  Law law_;
  double *Q_, *weight_, *rise_;
  double top_, bound_ = 0;
  int points_ = 0;
  bool endless_ = false;
};

}  // namespace hepops::lartpc::larpix
