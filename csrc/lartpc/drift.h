#pragma once
// The drift of ionisation electrons to the anode in liquid argon: what survives, when it arrives, how far it spread.
//
//   t = d / v,   survival = exp(-t / lifetime),   sigma_t = sqrt(2 D_T t),   sigma_l = sqrt(2 D_L t),   v = mu(E, T) E
//   mu = (a0 + a1 E + a2 E^1.5 + a3 E^2.5) / (1 + (a1/a0) E + a4 E^2 + a5 E^3) (T/T0)^-1.5
//
// Mobility: Y. Li et al., Nucl. Instrum. Meth. A 816 (2016) 160, the global fit, T0 = 89 K. D_T and D_L are taken as
// they are given: they do not follow E here (the convention of larnd-sim).
#include <cmath>

#include "core/elementary.h"
#include "core/host_device.h"

namespace hepops::lartpc {

namespace mobility_fit {  // Li et al. 2016, E in kV/cm, mu in cm^2/V/s
constexpr double a0 = 551.6;
constexpr double a1 = 7158.3;
constexpr double a2 = 4440.43;
constexpr double a3 = 4.29;
constexpr double a4 = 43.63;
constexpr double a5 = 0.2053;
constexpr double T0 = 89.0;  // [K]
}  // namespace mobility_fit

template <class T>
struct Transport {
  T lifetime;     // electron lifetime                    [us]
  T E;            // drift field                          [kV/cm]
  T D_T;          // diffusion across the field           [cm^2/us]
  T D_L;          // diffusion along the field            [cm^2/us]
  T temperature;  // of the argon                         [K]
};

template <class T>
struct Arrival {
  T survival;  // fraction of the electrons that arrives  [1]
  T time;      // after their creation                    [us]
  T sigma_t;   // spread across the field                 [cm]
  T sigma_l;   // spread along the field                  [cm]
};

// E [kV/cm], temperature [K] -> mu [cm^2/V/s]
template <class T>
HEPOPS_HD T mobility(T E, T temperature) {
  using namespace mobility_fit;
  using std::sqrt;
  const T root = sqrt(E), r = temperature / T(T0);
  const T above = T(a0) + E * (T(a1) + root * (T(a2) + E * T(a3)));
  const T below = T(1) + E * (T(a1 / a0) + E * (T(a4) + E * T(a5)));
  return above / (below * r * sqrt(r));
}

// v [cm/us]: 1 cm^2/V/s x 1 kV/cm = 1000 cm/s = 1/1000 cm/us
template <class T>
HEPOPS_HD T velocity(T E, T temperature) {
  return mobility(E, temperature) * E / T(1000);
}

template <class T>
struct VelocityGradient {
  T E, temperature;
};

// v = E above / (below 1000 r^1.5): the quotient rule in E, and d ln v / d ln T = -3/2.
template <class T>
HEPOPS_HD VelocityGradient<T> velocity_backward(T grad, T E, T temperature) {
  using namespace mobility_fit;
  using std::sqrt;
  const T root = sqrt(E);
  const T above = T(a0) + E * (T(a1) + root * (T(a2) + E * T(a3)));
  const T above_E = T(a1) + root * (T(1.5 * a2) + E * T(2.5 * a3));
  const T below = T(1) + E * (T(a1 / a0) + E * (T(a4) + E * T(a5)));
  const T below_E = T(a1 / a0) + E * (T(2 * a4) + E * T(3 * a5));
  const T v = velocity(E, temperature);
  const T dv_dE = v * (T(1) / E + above_E / above - below_E / below);
  return {grad * dv_dE, grad * v * T(-1.5) / temperature};
}

// The spread after a time t. At exactly 0 the slope of the root is infinite; there it is taken as 0.
template <class T>
HEPOPS_HD T spread(T D, T t) {
  using std::sqrt;
  const T variance = T(2) * D * t;
  return variance == T(0) ? T(0) : sqrt(variance);
}

// distance from the anode [cm], >= 0. It may be a plain number where T carries slopes.
template <class T, class X>
HEPOPS_HD Arrival<T> drift(X distance, const Transport<T>& transport) {
  using core::series::exp;
  const T time = T(distance) / velocity(transport.E, transport.temperature);
  return {exp(-(time / transport.lifetime)), time, spread(transport.D_T, time), spread(transport.D_L, time)};
}

template <class T>
struct DriftGradient {
  T distance, lifetime, E, D_T, D_L, temperature;
};

// Everything but the constants enters through t = d / v:  dS/dt = -S / lifetime, dS/dlifetime = S t / lifetime^2,
// dsigma/dt = D / sigma, dsigma/dD = t / sigma (0 where sigma is 0), dt/dd = 1 / v, dt/dv = -t / v.
template <class T>
HEPOPS_HD DriftGradient<T> drift_backward(const Arrival<T>& grad, T distance, const Transport<T>& transport) {
  const Arrival<T> at = drift(distance, transport);
  const T v = velocity(transport.E, transport.temperature);
  const T grad_exponent = grad.survival * at.survival / transport.lifetime;
  const T per_sigma_t = at.sigma_t == T(0) ? T(0) : grad.sigma_t / at.sigma_t;
  const T per_sigma_l = at.sigma_l == T(0) ? T(0) : grad.sigma_l / at.sigma_l;
  const T grad_time = grad.time - grad_exponent + per_sigma_t * transport.D_T + per_sigma_l * transport.D_L;
  const auto grad_v = velocity_backward(-(grad_time * at.time / v), transport.E, transport.temperature);
  return {grad_time / v,
          grad_exponent * at.time / transport.lifetime,
          grad_v.E,
          per_sigma_t * at.time,
          per_sigma_l * at.time,
          grad_v.temperature};
}

}  // namespace hepops::lartpc
