#pragma once
// The non-compact projection, a bijection of the circle (-pi, pi], and mixtures of K:
//
//   y = wrap(sum_k w_k theta_k + t),  tan(theta_k / 2) = e^s_k tan(x / 2)
//
// D. J. Rezende et al., Normalizing flows on tori and spheres, arXiv:2002.02428, section 2.1. With s_k the numbers p, q
// below are e^s sin(x/2) and cos(x/2) up to a factor, so that nothing is singular at pi:
//
//   theta = 2 atan2(q, p),  g = dtheta/dx = e / (p^2 + q^2),  e = e^-|s|
//   dtheta/ds = sin theta = 2 p q / (p^2 + q^2),  dg/ds = g cos theta,  dg/dx = -g^2 sinh(s) sin(x)
//
// Raw parameters: s_1 ... s_K, the logits of the weights where they are learned (else 1 / K), t.
#include "flows/bijection.h"

namespace hepops::flows {

// to [-pi, pi]
template <class T>
HEPOPS_HD T wrap(const T& x) {
  constexpr double high = 0x1.921fb54442d18p+2, low = 0x1.1a62633145c07p-52;  // 2 pi
  const T n = nearest(x / T(high));
  return (x - n * T(high)) - n * T(low);
}

struct Circular {
  int components;
  bool weighted;

  HEPOPS_HD int slots() const { return components * (weighted ? 2 : 1) + 1; }

  // s becomes e^-|s| with the sign of s, the logits become weights
  template <class T>
  HEPOPS_HD void prepare(const Lane<T>& p) const {
    for (int k = 0; k < components; ++k) {
      const T e = exp(-abs(p[k]));
      p[k] = select(p[k] < T(0.0), -e, e);
    }
    if (!weighted) return;
    const T sum = exponentials(p, components, components);
    for (int k = 0; k < components; ++k) p[components + k] = p[components + k] / sum;
  }

  template <class T>
  HEPOPS_HD auto contains(const T& x, bool) const {
    return x == x;
  }

  template <class T>
  HEPOPS_HD T weight(const Lane<T>& p, int k) const {
    return weighted ? p[components + k] : T(1.0 / components);
  }
  template <class T>
  HEPOPS_HD const T& shift(const Lane<T>& p) const {
    return p[slots() - 1];
  }

  // One component at the point with the half angle's sine and cosine.
  template <class T>
  struct Component {
    T p, q, e, square;
    T sign;  // of s

    HEPOPS_HD Component(const T& signed_e, const T& sine, const T& cosine) {
      const auto up = signed_e >= T(0.0);
      e = abs(signed_e);
      p = select(up, e * cosine, cosine);
      q = select(up, sine, e * sine);
      square = p * p + q * q;
      sign = select(up, T(1.0), T(-1.0));
    }
    HEPOPS_HD T theta() const { return 2.0 * atan2(q, p); }
    HEPOPS_HD T slope() const { return e / square; }
    HEPOPS_HD T sine() const { return 2.0 * p * q / square; }
    HEPOPS_HD T cosine() const { return (p * p - q * q) / square; }
    // sinh(s) = sign (1 - e^2) / 2e
    HEPOPS_HD T bend(const T& half_sine, const T& half_cosine) const {
      return -sign * (T(1.0) - e * e) * half_sine * half_cosine * slope() / square;
    }
  };

  // sum_k w_k theta_k and its slope
  template <class T>
  HEPOPS_HD Image<T> mixture(const T& x, const Lane<T>& p) const {
    T sine, cosine;
    sin_cos_half_turn(0.5 * x, sine, cosine);
    T theta = T(0.0), slope = T(0.0);
    for (int k = 0; k < components; ++k) {
      const Component<T> at(p[k], sine, cosine);
      theta += weight(p, k) * at.theta();
      slope += weight(p, k) * at.slope();
    }
    return {theta, slope};
  }

  template <class T>
  HEPOPS_HD Image<T> forward(const T& x, const Lane<T>& p) const {
    const auto [theta, slope] = mixture(wrap(x), p);
    return {wrap(theta + shift(p)), log(slope)};
  }

  // The components' own inverses, tan(x/2) = e^-s tan(y/2), are on both sides of the mixture's.
  template <class T>
  HEPOPS_HD T inverse(const T& y, const Lane<T>& p) const {
    const T theta = wrap(y - shift(p));
    T sine, cosine, low = T(0.0), high = T(0.0);
    sin_cos_half_turn(0.5 * theta, sine, cosine);
    for (int k = 0; k < components; ++k) {
      const auto up = p[k] >= T(0.0);
      const T e = abs(p[k]), x = 2.0 * atan2(select(up, e * sine, sine), select(up, cosine, e * cosine));
      low = k == 0 ? x : min(low, x);
      high = k == 0 ? x : max(high, x);
    }
    if (components == 1) return low;
    const auto f = [&](const T& x) { return mixture(x, p); };
    return solve(f, theta, low, high, 0x1p-52 * abs(theta));
  }

  template <class T>
  struct At : Slopes<T> {
    T sine, cosine;  // of x/2
    T theta;
  };

  template <class T>
  HEPOPS_HD At<T> slopes(const T& x, const Lane<T>& p) const {
    At<T> at;
    sin_cos_half_turn(0.5 * wrap(x), at.sine, at.cosine);
    at.f = at.l = at.theta = T(0.0);
    for (int k = 0; k < components; ++k) {
      const Component<T> c(p[k], at.sine, at.cosine);
      at.f += weight(p, k) * c.slope();
      at.l += weight(p, k) * c.bend(at.sine, at.cosine);
      if (weighted) at.theta += weight(p, k) * c.theta();
    }
    at.l = at.l / at.f;
    return at;
  }

  // f_s = w sin theta, l_s = w g cos theta / f_x; for a logit w (v - sum w v), v = a theta + b g / f_x; f_t = 1
  template <class T>
  HEPOPS_HD void gradient(const At<T>& at, const T& a, const T& b, const T&, const Lane<T>& p) const {
    for (int k = 0; k < components; ++k) {
      const Component<T> c(p[k], at.sine, at.cosine);
      const T w = weight(p, k), ratio = c.slope() / at.f;
      p[k] = w * (a * c.sine() + b * ratio * c.cosine());
      if (weighted) p[components + k] = w * (a * (c.theta() - at.theta) + b * (ratio - T(1.0)));
    }
    p[slots() - 1] = a;
  }
};

}  // namespace hepops::flows
