#pragma once
// The charge that a drifting electron induces on a square pad, by the Shockley-Ramo theorem.
//
//   phi_w(x, y, z) = 1/(2 pi) sum_{s,t=+-1} s t atan2(X Y, z R),   X = x + s a, Y = y + t a, R^2 = X^2 + Y^2 + z^2
//
// is the weighting potential of a pad |x|, |y| < a in a grounded plane z = 0 (the solid angle of the pad over 2 pi). An
// electron that moves from z1 to z2 induces phi_w(z2) - phi_w(z1). W. Shockley, J. Appl. Phys. 9 (1938) 635;
// S. Ramo, Proc. IRE 27 (1939) 584.
#include <cmath>

#include "core/host_device.h"
#include "core/vec.h"

namespace hepops::lartpc {

// phi_w at (x, y, z) from the centre of a pad of half-width a; z below 0 counts as 0.       [cm] -> [1]
template <class T>
HEPOPS_HD T weighting_potential(T x, T y, T z, T a) {
  using std::atan2, std::sqrt;
  z = z > T(0) ? z : T(0);
  T sum = 0;
  for (int s = -1; s <= 1; s += 2)
    for (int t = -1; t <= 1; t += 2) {
      const T X = x + s * a, Y = y + t * a;
      sum += T(s * t) * atan2(X * Y, z * sqrt(X * X + Y * Y + z * z));
    }
  return sum * T(0.15915494309189535);
}

// Its gradient. d atan(XY/(zR)): along x  zY / (R (X^2 + z^2)), along y likewise, along z
// -XY (R^2 + z^2) / (R (X^2 + z^2) (Y^2 + z^2)); where z is clamped the slope along z is that of z = 0+.
template <class T>
HEPOPS_HD core::Vec<T, 3> weighting_potential_slope(T x, T y, T z, T a) {
  using std::sqrt;
  z = z > T(0) ? z : T(0);
  core::Vec<T, 3> sum{};
  for (int s = -1; s <= 1; s += 2)
    for (int t = -1; t <= 1; t += 2) {
      const T X = x + s * a, Y = y + t * a, RR = X * X + Y * Y + z * z, R = sqrt(RR);
      const T XX = X * X + z * z, YY = Y * Y + z * z;
      if (!(XX > T(0)) || !(YY > T(0))) continue;  // on the pad's edge at the plane itself: no slope is defined
      sum[0] += T(s * t) * z * Y / (R * XX);
      sum[1] += T(s * t) * z * X / (R * YY);
      sum[2] -= T(s * t) * X * Y * (RR + z * z) / (R * XX * YY);
    }
  for (int i = 0; i < 3; ++i) sum[i] *= T(0.15915494309189535);
  return sum;
}

}  // namespace hepops::lartpc
