#pragma once
// Scalar phi^4, S = sum_x [hop phi sum_mu phi(x+mu) + square phi^2 + quartic phi^4]: every convention of the literature
// is one choice of the three numbers (hepops/lattice/phi4.py).
#include "core/host_device.h"

namespace hepops::lattice {

template <class R>
struct Phi4 {
  R hop, square, quartic;  // of the action
  R mass, cubic, slope;    // 2 square, 4 quartic, 12 quartic: of its derivatives
  Phi4(double hop, double square, double quartic)
      : hop(R(hop)),
        square(R(square)),
        quartic(R(quartic)),
        mass(R(2 * square)),
        cubic(R(4 * quartic)),
        slope(R(12 * quartic)) {}

  // the part of S that belongs to x: its own terms and its bonds ahead
  template <class N>
  HEPOPS_HD N density(const N& phi, const N& ahead) const {
    const N square_of_phi = phi * phi;
    return phi * (hop * ahead) + square_of_phi * (square + quartic * square_of_phi);
  }
  // dS/dphi(x); around = sum_mu [phi(x+mu) + phi(x-mu)]
  template <class N>
  HEPOPS_HD N force(const N& phi, const N& around) const {
    return hop * around + phi * (mass + cubic * (phi * phi));
  }
  // (d^2 S v)(x)
  template <class N>
  HEPOPS_HD N hessian(const N& phi, const N& v, const N& around_v) const {
    return hop * around_v + v * (mass + slope * (phi * phi));
  }
};

template <class At, class S>
HEPOPS_HD typename At::Number sum_ahead(const At& at, const S* f) {
  auto sum = at.ahead(f, 0);
  for (int mu = 1; mu < At::dims; ++mu) sum = sum + at.ahead(f, mu);
  return sum;
}
template <class At, class S>
HEPOPS_HD typename At::Number sum_behind(const At& at, const S* f) {
  auto sum = at.behind(f, 0);
  for (int mu = 1; mu < At::dims; ++mu) sum = sum + at.behind(f, mu);
  return sum;
}

}  // namespace hepops::lattice
