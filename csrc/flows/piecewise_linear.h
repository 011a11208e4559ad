#pragma once
// A distribution function of K constant densities on equal bins of [0, 1]:
//
//   y = sum_j p_j c_j,   c_j = clamp(K x - j, 0, 1),   dy/dx = K p_k in the bin k of x,   p = softmax(raw)
//
// T. Mueller et al., Neural importance sampling, arXiv:1808.03856, section 4.1. c_j is how much of bin j lies below x.
#include "flows/bijection.h"

namespace hepops::flows {

template <class T>
HEPOPS_HD T clamp(const T& x) {
  return min(max(x, T(0.0)), T(1.0));
}

struct PiecewiseLinear {
  int bins;

  HEPOPS_HD int slots() const { return bins + 1; }

  // e^(raw - largest), and their sum Z
  template <class T>
  HEPOPS_HD void prepare(const Lane<T>& p) const {
    p[bins] = exponentials(p, 0, bins);
  }

  template <class T>
  HEPOPS_HD auto contains(const T& x, bool) const {
    return (x >= T(0.0)) & (x <= T(1.0));
  }

  // whether t = K x lies in bin j: the last has its right end too
  template <class T>
  HEPOPS_HD auto in_bin(const T& t, int j) const {
    return (t >= T(double(j))) & (t < T(j + 1 < bins ? j + 1.0 : std::numeric_limits<double>::infinity()));
  }

  template <class T>
  HEPOPS_HD Image<T> forward(const T& x, const Lane<T>& p) const {
    const T t = double(bins) * x;
    T below = T(0.0), density = T(0.0);
    for (int j = 0; j < bins; ++j) {
      below += p[j] * clamp(t - T(double(j)));
      density = select(in_bin(t, j), p[j], density);
    }
    return {below / p[bins], log(double(bins) * density / p[bins])};
  }

  template <class T>
  HEPOPS_HD T inverse(const T& y, const Lane<T>& p) const {
    const T level = y * p[bins];
    T below = T(0.0), t = T(0.0);
    for (int j = 0; j < bins; ++j) {
      t += select(p[j] > T(0.0), clamp((level - below) / p[j]), select(level > below, T(1.0), T(0.0)));
      below += p[j];
    }
    return t / T(double(bins));
  }

  template <class T>
  struct At : Slopes<T> {
    T value;
  };

  template <class T>
  HEPOPS_HD At<T> slopes(const T& x, const Lane<T>& p) const {
    const auto [value, logdet] = forward(x, p);
    return {{exp(logdet), T(0.0)}, value};
  }

  // f_j = p_j (c_j - f),  l_j = [j = k] - p_j
  template <class T>
  HEPOPS_HD void gradient(const At<T>& at, const T& a, const T& b, const T& x, const Lane<T>& p) const {
    const T t = double(bins) * x, Z = p[bins];
    for (int j = 0; j < bins; ++j) {
      const T share = p[j] / Z, own = select(in_bin(t, j), T(1.0), T(0.0));
      p[j] = a * share * (clamp(t - T(double(j))) - at.value) + b * (own - share);
    }
  }
};

}  // namespace hepops::flows
