#pragma once
// Compact U(1): P_mu nu(x) = theta_mu(x) + theta_nu(x+mu) - theta_mu(x+nu) - theta_nu(x), S = -beta sum cos P.
//
// Planes stand in the order 01, 02, ... 12, ... . A force is the transposed linear map of P, applied to beta sin P.
#include <numbers>
#include <type_traits>

#include "core/math.h"
#include "core/packed.h"
#include "lattice/geometry.h"

// nvcc unrolls what follows: neighbours stay in registers only where directions are numbers that the compiler knows
#ifdef __CUDACC__
#define HEPOPS_DIRECTIONS _Pragma("unroll")
#else
#define HEPOPS_DIRECTIONS
#endif

namespace hepops::lattice {

// sin x = (-1)^n sin(x - n pi), with n pi in three parts of few bits, so that n times the first two is exact; then
// Taylor's series for |r| <= pi / 2, whose first term left out is below 2^-53 of the first one in double.
template <class R>
struct HalfTurns;
template <>
struct HalfTurns<double> {
  static constexpr double round = 0x1.8p52, high = 0x1.921fb54p+1, middle = 0x1.10b46118p-29,
                          low = 0x1.313198a2e037p-60;
};
template <>
struct HalfTurns<float> {
  static constexpr double round = 0x1.8p23, high = 0x1.92p+1, middle = 0x1.fbp-11, low = 0x1.5110b4p-21;
};

// sin r for |r| <= pi / 2
template <class R, class N>
HEPOPS_HD N sine_series(const N& r) {
  const N z = r * r;
  N tail;
  if constexpr (std::is_same_v<R, float>)
    tail = R(-1. / 39916800) + z * R(1. / 6227020800);
  else
    tail = R(-1. / 39916800) +
           z * (R(1. / 6227020800) +
                z * (R(-1. / 1307674368000) + z * (R(1. / 355687428096000) + z * (R(-1. / 121645100408832000) +
                                                                                  z * R(1. / 51090942171709440000.)))));
  return r + r * z * (R(-1. / 6) + z * (R(1. / 120) + z * (R(-1. / 5040) + z * (R(1. / 362880) + z * tail))));
}

// sin x where shift = 0, cos x = (-1)^(n+1) sin(x - (n + 1/2) pi) where shift = 1/2
template <class R, class N>
HEPOPS_HD N wave(const N& x, R shift) {
  using H = HalfTurns<R>;
  const auto nearest_to = [](const N& a) { return (a + N(R(H::round))) - N(R(H::round)); };
  const N n = nearest_to(x * R(std::numbers::inv_pi) - shift), turns = n + shift;
  const N r = ((x - turns * R(H::high)) - turns * R(H::middle)) - turns * R(H::low);
  const N half = n * R(0.5), s = sine_series<R>(r);
  const auto even = nearest_to(half) == half;
  using core::select;
  return shift == R(0) ? select(even, s, -s) : select(even, -s, s);
}

template <class N>
struct RealOf {
  using type = N;
};
#ifndef __CUDACC__
template <class R>
struct RealOf<core::PackedOf<R>> {
  using type = R;
};
#endif

template <class N>
HEPOPS_HD N sine(const N& x) {
#ifdef __CUDA_ARCH__
  return core::sin(x);
#else
  return wave<typename RealOf<N>::type>(x, typename RealOf<N>::type(0));
#endif
}
template <class N>
HEPOPS_HD N cosine(const N& x) {
#ifdef __CUDA_ARCH__
  return core::cos(x);
#else
  return wave<typename RealOf<N>::type>(x, typename RealOf<N>::type(0.5));
#endif
}

// P of one plane; theta_mu lies at theta + mu * sites
template <class At, class S>
HEPOPS_HD typename At::Number plaquette(const At& at, const S* theta, int64_t sites, int mu, int nu) {
  const S *a = theta + mu * sites, *b = theta + nu * sites;
  return (at.here(a) + at.ahead(b, mu)) - (at.ahead(a, nu) + at.here(b));
}

// The transposed map, of planes to the link mu at x: + s(x) - s(x - nu) for nu > mu, - s(x) + s(x - nu) for nu < mu
template <class At, class S>
HEPOPS_HD typename At::Number around_link(const At& at, const S* planes, int64_t sites, int mu) {
  typename At::Number sum(0);
  HEPOPS_DIRECTIONS
  for (int nu = 0; nu < At::dims; ++nu) {
    if (nu == mu) continue;
    const S* s = planes + plane(nu < mu ? nu : mu, nu < mu ? mu : nu, At::dims) * sites;
    const auto curl = at.here(s) - at.behind(s, nu);
    sum = nu > mu ? sum + curl : sum - curl;
  }
  return sum;
}

}  // namespace hepops::lattice
