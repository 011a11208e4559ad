#pragma once
// The alcove of SU(N): the gaps s_k of sorted eigenphases, in units of 2 pi, which add up to 1, and the sines that the
// Haar measure is made of, |e^{i th_i} - e^{i th_j}| = 2 sin(pi s):
//
//   sin(pi s) = pi s (1 - s) g((s - 1/2)^2)
//
// with an entire g that has no zero on [0, 1] (Chebyshev's fit, error 4e-23). A gap s and what it leaves, c = 1 - s,
// are kept both: either may be tiny, and then its digits count.
#include "lattice/eigen.h"

namespace hepops::lattice {

constexpr double pi = 3.14159265358979323846;
constexpr double least_gap = 1e-16;  // below the rounding of phases: keeps ratios of gaps finite

template <class T>
struct Gap {
  T s, c;
};

// g and dg/dt, t = (s - 1/2)^2
template <class T>
struct SineFactor {
  T value, slope;
};

template <class T>
HEPOPS_HD SineFactor<T> sine_factor(const T& t) {
  constexpr double g[] = {1.2732395447351626862,    -1.1902271282389357323,    0.40680426709422709538,
                          -0.072892291541321661286, 0.0080630984951023481139,  -0.00060596066392624345334,
                          3.2967658338202856933e-5, -1.3587317279269334563e-6, 4.387681711222319256e-8,
                          -1.1112060594941554836e-9};
  T value = T(g[9]), slope = T(0.0);
  for (int n = 8; n >= 0; --n) {
    slope = slope * t + value;
    value = value * t + T(g[n]);
  }
  return {value, slope};
}

template <class T>
HEPOPS_HD SineFactor<T> sine_factor(const Gap<T>& gap) {
  const T x = gap.s - T(0.5);
  return sine_factor(x * x);
}

template <class T>
HEPOPS_HD T sine(const Gap<T>& gap) {
  return T(pi) * gap.s * gap.c * sine_factor(gap).value;
}

// The gaps of phases in the alcove.
template <class T>
HEPOPS_HD void gaps_of(const T (&phases)[3], Gap<T> (&gaps)[3]) {
  const T least = T(least_gap);
  const T s1 = max((phases[1] - phases[0]) * T(0.5 / pi), least),
          s2 = max((phases[2] - phases[1]) * T(0.5 / pi), least);
  const T s3 = max((phases[0] - phases[2]) * T(0.5 / pi) + T(1.0), least);
  gaps[0] = {s1, s2 + s3};
  gaps[1] = {s2, s1 + s3};
  gaps[2] = {s3, s1 + s2};
}

}  // namespace hepops::lattice
