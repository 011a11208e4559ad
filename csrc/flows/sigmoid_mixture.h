#pragma once
// y = logit(sum_k w_k sigmoid(a_k x + b_k)), a bijection of the real line.
//
//   J. Ho et al., Flow++, arXiv:1902.00275, section 3.1;  C.-W. Huang et al., Neural autoregressive flows,
//   arXiv:1804.00779, section 3.1
//
// Raw parameters: those of a = softplus(raw) + 1e-3, the b, and the logits of w. The floor keeps both tails steep, so
// that the inverse is bounded. Nothing underflows, since three sums are taken relative to their largest term,
//
//   S  = sum w sigmoid(z) = e^M+ A+ / Z,   1 - S = sum w sigmoid(-z) = e^M- A- / Z,   S_x = sum w a s s' = e^M' A' / Z,
//   z = a x + b,  s = sigmoid(z),  s' = sigmoid(-z),  w = e^c / Z
//
// and y = ln S - ln(1 - S), l = ln S_x - ln S - ln(1 - S). With the terms' shares p+, p-, p' of their sums:
//
//   y_z = p+ s' + p- s,     l_z = p' (s' - s) - p+ s' + p- s
//   y_a = x y_z,  l_a = x l_z + p'/a,  y_b = y_z,  l_b = l_z,  y_c = p+ - p-,  l_c = p' - p+ - p- + w
#include "flows/bijection.h"

namespace hepops::flows {

struct SigmoidMixture {
  int components;

  static constexpr double floor = 1e-3;

  HEPOPS_HD int slots() const { return 3 * components + 1; }

  // a, b, c = logit - the largest, Z
  template <class T>
  HEPOPS_HD void prepare(const Lane<T>& p) const {
    const int K = components;
    T most = p[2 * K], sum = T(0.0);
    for (int k = 0; k < K; ++k) most = max(most, p[2 * K + k]);
    for (int k = 0; k < K; ++k) {
      p[k] = softplus(p[k]) + T(floor);
      p[2 * K + k] = p[2 * K + k] - most;
      sum += exp(p[2 * K + k]);
    }
    p[3 * K] = sum;
  }

  template <class T>
  HEPOPS_HD auto contains(const T& x, bool) const {
    return x == x;
  }

  template <class T>
  struct At : Slopes<T> {
    T most[3];  // M+, M-, M'
    T sum[3];   // A+, A-, A'

    HEPOPS_HD T value() const { return (most[0] - most[1]) + log(sum[0] / sum[1]); }
    HEPOPS_HD T log_slope(const T& Z) const { return shift() + log(ratio(Z)); }
    HEPOPS_HD T slope(const T& Z) const { return exp(shift()) * ratio(Z); }

   private:
    HEPOPS_HD T shift() const { return most[2] - (most[0] + most[1]); }
    HEPOPS_HD T ratio(const T& Z) const { return sum[2] * Z / (sum[0] * sum[1]); }
  };

  template <class T>
  struct Component {
    T s, other;  // s, s'
    T term[3];   // relative to the largest of each sum

    HEPOPS_HD Component(const T& x, int k, int K, const Lane<T>& p, const T (&most)[3]) {
      const T z = p[k] * x + p[K + k], c = p[2 * K + k], e = exp(-abs(z)), large = T(1.0) / (T(1.0) + e);
      const auto up = z >= T(0.0);
      s = select(up, large, e * large);
      other = select(up, e * large, large);
      term[0] = exp(c + min(z, T(0.0)) - most[0]) * large;
      term[1] = exp(c + min(-z, T(0.0)) - most[1]) * large;
      term[2] = p[k] * exp(c - abs(z) - most[2]) * (large * large);
    }
  };

  template <class T>
  HEPOPS_HD At<T> sums(const T& x, const Lane<T>& p) const {
    const int K = components;
    At<T> at;
    for (int n = 0; n < 3; ++n) at.sum[n] = T(0.0);
    for (int k = 0; k < K; ++k) {
      const T z = p[k] * x + p[K + k], c = p[2 * K + k];
      const T large[3] = {c + min(z, T(0.0)), c + min(-z, T(0.0)), c - abs(z)};
      for (int n = 0; n < 3; ++n) at.most[n] = k == 0 ? large[n] : max(at.most[n], large[n]);
    }
    for (int k = 0; k < K; ++k) {
      const Component<T> component(x, k, K, p, at.most);
      for (int n = 0; n < 3; ++n) at.sum[n] += component.term[n];
    }
    return at;
  }

  template <class T>
  HEPOPS_HD Image<T> forward(const T& x, const Lane<T>& p) const {
    const auto at = sums(x, p);
    return {at.value(), at.log_slope(p[3 * components])};
  }

  // Each component alone would be at y where a x + b = y: the mixture is there between the first and the last.
  template <class T>
  HEPOPS_HD T inverse(const T& y, const Lane<T>& p) const {
    T low = T(0.0), high = T(0.0);
    for (int k = 0; k < components; ++k) {
      const T x = (y - p[components + k]) / p[k];
      low = k == 0 ? x : min(low, x);
      high = k == 0 ? x : max(high, x);
    }
    if (components == 1) return low;
    const T Z = p[3 * components];
    const auto f = [&](const T& x) {
      const auto at = sums(x, p);
      return Image<T>{at.value(), at.slope(Z)};
    };
    return solve(f, y, low, high, 0x1p-53 * (T(1.0) + abs(y)));
  }

  // y_z and l_z of a component, and the shares of its terms
  template <class T>
  struct Part {
    T share[3], y, l;

    HEPOPS_HD Part(const Component<T>& c, const T (&sum)[3]) {
      for (int n = 0; n < 3; ++n) share[n] = c.term[n] / sum[n];
      y = share[0] * c.other + share[1] * c.s;
      l = share[2] * (c.other - c.s) - share[0] * c.other + share[1] * c.s;
    }
  };

  template <class T>
  HEPOPS_HD At<T> slopes(const T& x, const Lane<T>& p) const {
    At<T> at = sums(x, p);
    at.f = at.l = T(0.0);
    for (int k = 0; k < components; ++k) {
      const Part<T> part(Component<T>(x, k, components, p, at.most), at.sum);
      at.f += p[k] * part.y;
      at.l += p[k] * part.l;
    }
    return at;
  }

  template <class T>
  HEPOPS_HD void gradient(const At<T>& at, const T& a, const T& b, const T& x, const Lane<T>& p) const {
    const int K = components;
    const T Z = p[3 * K];
    for (int k = 0; k < K; ++k) {
      const Part<T> part(Component<T>(x, k, K, p, at.most), at.sum);
      const T along_z = a * part.y + b * part.l, weight = exp(p[2 * K + k]) / Z;
      p[2 * K + k] = a * (part.share[0] - part.share[1]) + b * (part.share[2] - part.share[0] - part.share[1] + weight);
      p[K + k] = along_z;
      p[k] = (x * along_z + b * part.share[2] / p[k]) * softplus_slope(p[k] - T(floor));
    }
  }
};

}  // namespace hepops::flows
