#pragma once
// What a drifting charge induces on pads far from it: the pad as a dipole in the anode's plane, with its images.
//
//   phi(x, y, z) = sum_n f(x, y, z + 2 n L),   f = (p^2 / 2 pi) (1 + p^2/24 (d_x^2 + d_y^2)) z / R^3
//
// f is the weighting potential of a square pad of pitch p in a grounded plane, to the second moment of the square (the
// dipole alone is 3.2 % off at a distance of 2.5 p, this 0.05 %); n runs over the images in the cathode at z = L: those
// up to +-m as they are, the others as a polynomial in z and rho, good to 1e-2 of itself where rho < (m + 1) L / 2.
//
// W. Shockley, J. Appl. Phys. 9 (1938) 635; S. Ramo, Proc. IRE 27 (1939) 584; J. D. Jackson, Classical Electrodynamics,
// 3rd ed., sections 2.2 and 4.1.
//
// An electron made at (z0, t0) that moves towards the pad's plane has induced phi(z(t)) - phi(z0) by the time t, and
// -phi(z0) when it has arrived on another pad. Time is in coarse bins of several ticks; the charge of each is exact, so
// that nothing is lost between them. Diffusion is left out: it smears the charge by less than a tenth of the distance.
#include <cmath>
#include <cstdint>

#include "core/host_device.h"
#include "core/vec.h"
#include "lartpc/waveforms.h"

namespace hepops::lartpc {

struct Dipole {
  double scale;         // p^2 / 2 pi                               [cm^2]
  double second;        // p^2 / 24                                 [cm^2]
  double drift_length;  // L                                        [cm]
  int images;           // m; 0: no cathode
  double c1, c3, c1r;   // of the images beyond m: c1 z + c3 z^3 + c1r rho^2 z

  // Pairs of images at +-Z, Z = 2 n L: 2 z f'(Z) + z^3/3 f'''(Z) with f = Z^-2 - 3/2 rho^2 Z^-4, summed over n > m.
  HEPOPS_HD Dipole(double pitch, double L, int m)
      : scale(pitch * pitch * 0.15915494309189535),
        second(pitch * pitch / 24),
        drift_length(L),
        images(m),
        c1(0),
        c3(0),
        c1r(0) {
    if (m == 0) return;
    double sum3 = 1.2020569031595942, sum5 = 1.0369277551433699;  // zeta(3), zeta(5)
    for (int n = 1; n <= m; ++n) {
      const double i = 1.0 / n, i3 = i * i * i;
      sum3 -= i3, sum5 -= i3 * i * i;
    }
    const double L3 = L * L * L, L5 = L3 * L * L;
    c1 = -scale * sum3 / (2 * L3), c3 = -scale * sum5 / (4 * L5), c1r = scale * sum5 * 0.375 / L5;
  }

  // f, without images. rho2 = x^2 + y^2; not at the pad itself.
  HEPOPS_HD double term(double rho2, double z) const {
    using std::sqrt;
    const double i1 = 1 / sqrt(rho2 + z * z), i2 = i1 * i1;
    return scale * (z * i1 * i2 * (1 + second * i2 * (9 - 15 * z * z * i2)));
  }
  HEPOPS_HD double rest(double rho2, double z) const { return z * (c1 + c1r * rho2 + c3 * z * z); }

  struct Slopes {
    double value, rho2, z;
  };

  // d R^-k / d rho2 = -k/2 R^-(k+2), and d / dz = 2 z d / d rho2 besides what z does itself.
  HEPOPS_HD Slopes slopes(double rho2, double z) const {
    using std::sqrt;
    const double i1 = 1 / sqrt(rho2 + z * z), i2 = i1 * i1, i3 = scale * i1 * i2, w = z * z * i2;
    const double by_rho2 = z * i3 * i2 * (-1.5 + second * i2 * (-22.5 + 52.5 * w));
    return {z * i3 * (1 + second * i2 * (9 - 15 * w)), by_rho2,
            i3 * (1 + second * i2 * (9 - 45 * w)) + 2 * z * by_rho2};
  }

  HEPOPS_HD Slopes rest_slopes(double rho2, double z) const {
    return {rest(rho2, z), c1r * z, c1 + c1r * rho2 + 3 * c3 * z * z};
  }

  HEPOPS_HD double potential(double rho2, double z) const {
    double sum = rest(rho2, z);
    for (int n = -images; n <= images; ++n) sum += term(rho2, z + 2 * n * drift_length);
    return sum;
  }
};

// Nodes and rows of every group (an event, a plane, a stretch of time), each in one order.
struct FarGroups {
  const int64_t *node_offset, *node;  // (groups + 1), (N): the nodes of a group
  const int64_t *node_u, *node_v;     // (N) the pixel under each node
  const int64_t* row_offset;          // (groups + 1): its rows stand together
  const int64_t *pixel_u, *pixel_v;   // (rows)
  const int64_t* first;               // (groups) first tick of the window
  const int64_t* bins;                // (groups) coarse bins of every row
  const int64_t* offset;              // (groups) where the bins of the group's first row stand
  const double* drift_length;         // (groups) [cm]
};

// Which pads count as far: more than `reach` pixels away along an axis, and at most `far` along both.
struct FarPlane {
  double pitch, dt;
  int reach, far, ticks, images;

  HEPOPS_HD Dipole dipole(double drift_length) const { return {pitch, drift_length, images}; }
  HEPOPS_HD bool sees(int64_t du, int64_t dv) const {
    const int64_t a = du < 0 ? -du : du, b = dv < 0 ? -dv : dv, most = a > b ? a : b;
    return most > reach && most <= far;
  }
};

// A node seen from a row: where, and between which edges of bins it drifts. Edge k stands at tick first + k ticks.
struct FarPair {
  double x, y, rho2, arrival;  // [cm], [cm], [cm^2], in bins from the window's begin
  double per_bin;              // drift per bin [cm]
  int64_t created, last;       // bins in which it is made, and in which it arrives
  HEPOPS_HD double z(int64_t edge) const { return per_bin * (arrival - double(edge)); }
};

HEPOPS_HD FarPair far_pair(const Nodes& nodes, int64_t i, int64_t pu, int64_t pv, int64_t first, const FarPlane& plane,
                           double v) {
  FarPair pair;
  pair.x = nodes(u, i) - (double(pu) + 0.5) * plane.pitch;
  pair.y = nodes(Field::v, i) - (double(pv) + 0.5) * plane.pitch;
  pair.rho2 = pair.x * pair.x + pair.y * pair.y;
  pair.arrival = (nodes(time, i) / plane.dt - double(first)) / plane.ticks;
  pair.per_bin = v * plane.dt * plane.ticks;
  pair.created = max_int(0, floor_int(pair.arrival - nodes(depth, i) / pair.per_bin));
  pair.last = max_int(pair.created, floor_int(pair.arrival));
  return pair;
}

}  // namespace hepops::lartpc
