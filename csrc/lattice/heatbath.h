#pragma once
// Exact draws of one link in the field of its staples, and the reflections that keep its action.
//
//   SU(2)  X = x_0 + i x.sigma,  density sqrt(1 - x_0^2) e^{a x_0} dx_0 d(direction)      M. Creutz, PRD 21 (1980) 2308
//          A. D. Kennedy, B. J. Pendleton, Phys. Lett. B 156 (1985) 393
//   U(1)   density e^{k cos t} dt        D. J. Best, N. I. Fisher, Appl. Statist. 28 (1979) 152
//   SU(N)  one SU(2) subgroup after the other    N. Cabibbo, E. Marinari, Phys. Lett. B 119 (1982) 387
//   Over-relaxation   S. L. Adler, PRD 23 (1981) 2901; M. Creutz, PRD 36 (1987) 515
//
// Everything is computed in double.
#include <numbers>

#include "core/matrix.h"
#include "core/philox.h"

namespace hepops::lattice {

using core::abs, core::cos, core::sin, core::exp, core::expm1, core::log, core::log1p, core::sqrt, core::atan2;
using core::Complex, core::Matrix, core::Vec;

// The numbers of one link in one sweep, two after two. Their names: (seed, chain and link, sweep, purpose and draw).
class Draws {
 public:
  HEPOPS_HD Draws(uint64_t seed, uint64_t index, uint32_t sweep, uint32_t purpose)
      : philox_(seed, index), sweep_(sweep), purpose_(purpose) {}

  // two uniform numbers in (0, 1)
  HEPOPS_HD Vec<double, 2> uniform2() {
    const auto block = philox_.block(sweep_, purpose_);
    purpose_ += 1 << 8;  // the lowest byte says what for, the others count
    return {core::uniform<double>(block[0], block[2]), core::uniform<double>(block[1], block[3])};
  }

 private:
  core::Philox philox_;
  uint32_t sweep_, purpose_;
};

// q_0 + i (q_1 sigma_1 + q_2 sigma_2 + q_3 sigma_3)
struct Quaternion {
  double q[4];

  HEPOPS_HD friend Quaternion operator*(const Quaternion& a, const Quaternion& b) {
    const double *p = a.q, *r = b.q;  // sigma_i sigma_j = delta_ij + i eps_ijk sigma_k: the vector part has -(p x r)
    return {{p[0] * r[0] - p[1] * r[1] - p[2] * r[2] - p[3] * r[3],
             p[0] * r[1] + p[1] * r[0] - (p[2] * r[3] - p[3] * r[2]),
             p[0] * r[2] + p[2] * r[0] - (p[3] * r[1] - p[1] * r[3]),
             p[0] * r[3] + p[3] * r[0] - (p[1] * r[2] - p[2] * r[1])}};
  }
  HEPOPS_HD friend Quaternion adjoint(const Quaternion& a) { return {{a.q[0], -a.q[1], -a.q[2], -a.q[3]}}; }
};

// |q|, and q of norm 1 in its place; 1 where q is 0
HEPOPS_HD double normalise(Quaternion& a) {
  const double size = sqrt(a.q[0] * a.q[0] + a.q[1] * a.q[1] + a.q[2] * a.q[2] + a.q[3] * a.q[3]);
  if (size > 0)
    for (double& q : a.q) q /= size;
  else
    a = {{1, 0, 0, 0}};
  return size;
}

// x_0 in the density sqrt(1 - x_0^2) e^{a x_0}, a >= 0
HEPOPS_HD double draw_x0(double a, Draws& draws) {
  // Kennedy and Pendleton accept sqrt(2 pi a) I_1(a) e^-a, Creutz pi I_1(a) / (2 sinh a): they cross at a = 1.69.
  if (a > 1.69) {
    while (true) {
      const auto r = draws.uniform2(), s = draws.uniform2();
      const double c = cos(2 * std::numbers::pi * r[1]);
      const double delta = -(log(r[0]) + log(s[0]) * c * c) / a;
      if (s[1] * s[1] <= 1 - delta / 2) return 1 - delta;
    }
  }
  while (true) {
    const auto r = draws.uniform2();
    // e^{a x_0} is uniform in (e^-a, e^a): x_0 = 1 + ln(1 - (1 - u)(1 - e^-2a)) / a
    const double x = a < 1e-9 ? 2 * r[0] - 1 : 1 + log1p((1 - r[0]) * expm1(-2 * a)) / a;
    if (r[1] * r[1] <= 1 - x * x) return x;
  }
}

// X in SU(2) with the density e^{a tr X / 2}
HEPOPS_HD Quaternion draw_su2(double a, Draws& draws) {
  const double x0 = draw_x0(a, draws), size = sqrt((1 - x0) * (1 + x0));
  const auto r = draws.uniform2();
  const double z = 2 * r[0] - 1, across = size * sqrt(1 - z * z), phi = 2 * std::numbers::pi * r[1];
  return {{x0, across * cos(phi), across * sin(phi), size * z}};
}

// t in (-pi, pi] with the density e^{k cos t}, k >= 0. With q = 2k / (1 + sqrt(1 + 4k^2)), the wrapped Cauchy density
// that bounds it, all is written in 1 - q and 1 - cos t: no k is too small or too large.
HEPOPS_HD double draw_von_mises(double k, Draws& draws) {
  const double root = k < 1e100 ? sqrt(1 + 4 * k * k) : 2 * k;  // 4k^2 must not overflow
  const double q = 2 * k / (1 + root);
  const double rest = (1 + 1 / (root + 2 * k)) / (1 + root);  // 1 - q
  while (true) {
    const auto r = draws.uniform2(), s = draws.uniform2();
    const double half_angle = std::numbers::pi / 2 * r[0], sine = sin(half_angle), cosine = cos(half_angle);
    const double versine = 2 * rest * sine * sine / (rest + 2 * q * cosine * cosine);  // 1 - cos t
    const double c = rest * (1 + root) / 2 + k * versine;
    if (log(c / r[1]) + 1 - c < 0) continue;
    const double t = 2 * std::atan2(sqrt(versine / 2), sqrt(1 - versine / 2));
    return s[0] < 0.5 ? -t : t;
  }
}

// theta in (-pi, pi], a turn or more away
HEPOPS_HD double wrapped(double theta) {
  const double turns = std::floor(theta / (2 * std::numbers::pi) + 0.5);
  const double rest = theta - 2 * std::numbers::pi * turns;
  return rest <= -std::numbers::pi ? rest + 2 * std::numbers::pi : rest;
}

// The part of rows and columns i, j of W that a trace with SU(2) sees: Re tr(g w) = 2 <q of g*, q of w>
template <int N>
HEPOPS_HD Quaternion subgroup_part(const Matrix<double, N>& W, int i, int j) {
  return {{(W(i, i).real + W(j, j).real) / 2, (W(i, j).imag + W(j, i).imag) / 2, (W(i, j).real - W(j, i).real) / 2,
           (W(i, i).imag - W(j, j).imag) / 2}};
}

// g U with g in the subgroup of rows i, j
template <int N>
HEPOPS_HD void multiply_subgroup(const Quaternion& g, Matrix<double, N>& U, int i, int j) {
  const Complex<double> a{g.q[0], g.q[3]}, b{g.q[2], g.q[1]}, c{-g.q[2], g.q[1]}, d{g.q[0], -g.q[3]};
  for (int k = 0; k < N; ++k) {
    const Complex<double> upper = U(i, k), lower = U(j, k);
    U(i, k) = a * upper + b * lower;
    U(j, k) = c * upper + d * lower;
  }
}

// For each SU(2) subgroup: U -> g U. W = U A is carried along. f(w, k) chooses g, k w the part of W with |w| = 1.
template <int N, class F>
HEPOPS_HD void each_subgroup(Matrix<double, N>& U, Matrix<double, N>& W, const F& f) {
  for (int i = 0; i < N; ++i)
    for (int j = i + 1; j < N; ++j) {
      Quaternion w = subgroup_part(W, i, j);
      const double size = normalise(w);
      const Quaternion g = f(w, size);
      multiply_subgroup(g, U, i, j);
      multiply_subgroup(g, W, i, j);
    }
}

// U in the density e^{beta/N Re tr(U A)}, subgroup by subgroup: g w has the density e^{k beta/N tr(g w)}
template <int N>
HEPOPS_HD void heatbath(Matrix<double, N>& U, const Matrix<double, N>& A, double beta, Draws& draws) {
  Matrix<double, N> W = U * A;
  each_subgroup(U, W, [&](Quaternion w, double size) {
    if (beta < 0)
      for (double& q : w.q) q = -q;
    return draw_su2(2 * abs(beta) / N * size, draws) * adjoint(w);
  });
}

// g = w^+ w^+: Re tr(g w) = Re tr w
template <int N>
HEPOPS_HD void overrelax(Matrix<double, N>& U, const Matrix<double, N>& A) {
  Matrix<double, N> W = U * A;
  each_subgroup(U, W, [](const Quaternion& w, double) { return adjoint(w) * adjoint(w); });
}

// One Metropolis proposal for each subgroup: g = cos r + i n.sigma sin r, r uniform within `width`, n uniform; g and
// g^+ are as likely. Returns how many were taken.
template <int N>
HEPOPS_HD int metropolis(Matrix<double, N>& U, const Matrix<double, N>& A, double beta, double width, Draws& draws) {
  Matrix<double, N> W = U * A;
  int taken = 0;
  each_subgroup(U, W, [&](const Quaternion& w, double size) -> Quaternion {
    const auto r = draws.uniform2(), s = draws.uniform2();
    const double angle = width * r[0], z = 2 * r[1] - 1, across = sqrt(1 - z * z), phi = 2 * std::numbers::pi * s[0];
    const Quaternion g{{cos(angle), sin(angle) * across * cos(phi), sin(angle) * across * sin(phi), sin(angle) * z}};
    const double gain = 2 * beta / N * size * ((g * w).q[0] - w.q[0]);  // -dS
    if (log(s[1]) >= gain) return {{1, 0, 0, 0}};
    ++taken;
    return g;
  });
  return taken;
}

}  // namespace hepops::lattice
