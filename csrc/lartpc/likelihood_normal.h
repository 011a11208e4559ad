#pragma once
// The normal distribution on the nodes of a quadrature: as many at a time as a register holds on a CPU, one on a GPU.
#include <cmath>
#include <cstdint>
#include <utility>

#include "core/host_device.h"
#include "core/math.h"
#include "core/packed.h"

namespace hepops::lartpc::larpix {

#ifdef __CUDACC__
using Lane = double;
constexpr int lanes = 1;
HEPOPS_HD Lane load(const double* from) { return *from; }
HEPOPS_HD void store(Lane x, double* to) { *to = x; }
HEPOPS_HD double sum(Lane x) { return x; }
#else
using Lane = core::Packed;
constexpr int lanes = Lane::size;
HEPOPS_HD Lane load(const double* from) { return Lane::load(from); }
HEPOPS_HD void store(const Lane& x, double* to) { x.store(to); }
// In pairs, whatever the width, so that the lanes of a register are added in one order.
template <class Values, int... lane>
HEPOPS_HD double sum_of(const Values& v, std::integer_sequence<int, lane...>) {
  constexpr int half = sizeof...(lane);
  if constexpr (half == 0) {
    return v[0];
  } else {
    const auto folded = __builtin_shufflevector(v, v, lane...) + __builtin_shufflevector(v, v, (half + lane)...);
    return sum_of(folded, std::make_integer_sequence<int, half / 2>{});
  }
}
HEPOPS_HD double sum(const Lane& x) { return sum_of(x.v, std::make_integer_sequence<int, lanes / 2>{}); }
#endif

constexpr double inverse_root_2pi = 0.39894228040143267794, log_root_2pi = 0.91893853320467274178;

// Mills' ratio Phi(-a) / phi(a) for a >= 0, times 1 + a a polynomial in (a - 4) / (a + 4): the Chebyshev series to
// degree 18, relative error 5e-14 (M. M. Shepherd, J. G. Laframboise, Math. Comp. 36 (1981) 249, for the form).
template <class V>
HEPOPS_HD V mills(const V& a) {
  constexpr double c[] = {
      1.1832619145677588,     -0.242399670521876,      0.035091880243760504,    0.07169048120683254,
      -0.08070800997981982,   0.04495912895189182,     -0.012539099716200338,   -0.0007159495785855266,
      0.0017418229349723208,  -0.00023670949120353145, -0.00022011676990312266, 5.329419774220185e-05,
      3.3926626920443144e-05, -8.666951404029296e-06,  -6.210159234601176e-06,  1.1069354252105546e-06,
      1.0745237383287822e-06, -8.340657732780486e-08,  -1.1361428325421794e-07};
  const V t = (a - 4.0) / (a + 4.0);
  V p = c[18];
#ifdef __CUDACC__
#pragma unroll
#else
#pragma GCC unroll 18
#endif
  for (int i = 17; i >= 0; --i) p = p * t + c[i];
  return p / (1.0 + a);
}

// Phi(x), 1 - Phi(x) and phi(x), each to its own relative precision
template <class V>
HEPOPS_HD void normal(const V& x, V& below, V& above, V& density) {
  using core::abs, core::exp, core::select;
  const V a = abs(x);
  density = exp(-0.5 * (a * a)) * inverse_root_2pi;
  const V tail = density * mills(a), body = 1.0 - tail;
  const auto positive = x > V(0.0);
  below = select(positive, body, tail);
  above = select(positive, tail, body);
}

// log Phi(x), and its slope phi(x) / Phi(x), however small
template <class V>
HEPOPS_HD void log_normal(const V& x, V& value, V& slope) {
  using core::abs, core::exp, core::log, core::log1p, core::select;
  const V a = abs(x), ratio = mills(a), half = 0.5 * (a * a), density = exp(-half) * inverse_root_2pi;
  const auto positive = x > V(0.0);
  const V body = 1.0 - density * ratio;
  value = select(positive, log1p(-(density * ratio)), log(ratio) - half - log_root_2pi);
  slope = select(positive, density / body, 1.0 / ratio);
}

// The quadrature in z = r / sigma_r, equidistant: 32 nodes for everyday use, 128 for the rounding level. What many
// looks leave of the normal distribution is a step about sigma_l / sqrt(2 ln n) wide, which sets the spacing.
template <int nodes>
struct Grid {
  static constexpr double spacing = nodes >= 128 ? 0.11 : 0.36;
  static constexpr int groups = nodes / lanes;
  double z[nodes], weight[nodes];  // weights add up to 1

  Grid() {
    double total = 0;
    for (int i = 0; i < nodes; ++i) {
      z[i] = (i - 0.5 * (nodes - 1)) * spacing;
      total += weight[i] = std::exp(-0.5 * z[i] * z[i]);
    }
    for (double& w : weight) w /= total;
  }
};

// Phi and phi at equidistant nodes x + i stride, from a table and a Taylor series: where all chips have the same noise,
// nodes are always `stride` apart, and side by side in a table of `fine` rows. Error below 1e-11.
class NormalTable {
 public:
  static constexpr int fine = 64;
  static constexpr double reach = 9;  // beyond, Phi is 0 or 1 to 1e-19

  NormalTable() = default;

#ifndef __CUDACC__
  // Whether it pays, and is exact enough
  static bool serves(double stride) { return stride > 0.1 && stride < 0.8; }

  static int64_t size(double stride, int nodes) { return 2 * fine * columns(stride, nodes); }

  NormalTable(double stride, int nodes, double* memory)
      : step_(stride / fine),
        first_(-reach - nodes * stride),
        columns_(columns(stride, nodes)),
        h_(memory),
        phi_(memory + fine * columns_) {
    for (int row = 0; row < fine; ++row)
      for (int64_t k = 0; k < columns_; ++k) {
        double above;
        normal(first_ + step_ * double(k * fine + row), h_[row * columns_ + k], above, phi_[row * columns_ + k]);
      }
  }
#endif

  HEPOPS_HD bool empty() const { return h_ == nullptr; }

  // Where the nodes from x on are; at(i, x + i stride) for those of them
  struct Place {
    const double *h, *phi;
    double off;
    HEPOPS_HD void at(int i, const Lane& x, Lane& below, Lane& density) const {
      const Lane f = load(phi + i), y = x - off;
      below = load(h + i) + f * (off - (0.5 * off * off) * y + (off * off * off / 6) * (y * y - 1.0));
      density = f * (1.0 - off * y + (0.5 * off * off) * (y * y - 1.0));
    }
  };
  // x from -reach - nodes stride to reach
  HEPOPS_HD Place place(double x) const {
    const double u = (x - first_) / step_;
    const int64_t n = int64_t(u + 0.5);
    return {h_ + n % fine * columns_ + n / fine, phi_ + n % fine * columns_ + n / fine, (u - double(n)) * step_};
  }

 private:
  static int64_t columns(double stride, int nodes) { return int64_t(2 * reach / stride) + 2 * nodes + 16; }

  double step_ = 0, first_ = 0;
  int64_t columns_ = 0;
  double *h_ = nullptr, *phi_ = nullptr;
};

}  // namespace hepops::lartpc::larpix
