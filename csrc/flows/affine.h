#pragma once
// y = x e^g(s) + t, raw parameters (s, t), in the forms that the field's libraries give to the scale e^g:
//
//   Exp       g = s                              L. Dinh et al., Density estimation using Real NVP, arXiv:1605.08803
//   SoftClip  g = s / (1 + |s| / limit)          zuko: limit = ln 1000
//   Tanh      g = limit tanh(s / limit)
//   Softplus  e^g = softplus(s) + limit          nflows, masked autoregressive: limit = 1e-3
//   Sigmoid   e^g = sigmoid(s + 2) + limit       nflows, couplings: limit = 1e-3; D. P. Kingma, P. Dhariwal, Glow: 0
#include "flows/bijection.h"

namespace hepops::flows {

enum class Scale : int { Exp, SoftClip, Tanh, Softplus, Sigmoid };

// g, e^g and dg/ds
template <class T>
struct Stretch {
  T log, factor, slope;
};

template <class T>
HEPOPS_HD Stretch<T> stretch(const T& s, Scale scale, double limit) {
  if (scale == Scale::Exp) return {s, exp(s), T(1.0)};
  if (scale == Scale::SoftClip) {
    const T d = T(1.0) + abs(s) / T(limit), g = s / d;
    return {g, exp(g), T(1.0) / (d * d)};
  }
  if (scale == Scale::Tanh) {
    const T h = tanh_of(s / T(limit)), g = limit * h;
    return {g, exp(g), T(1.0) - h * h};
  }
  if (scale == Scale::Softplus) {
    const T factor = softplus(s) + T(limit);
    return {log(factor), factor, sigmoid(s) / factor};
  }
  const T rise = sigmoid(s + T(2.0)), factor = rise + T(limit);
  return {log(factor), factor, rise * sigmoid(-2.0 - s) / factor};
}

struct Affine {
  Scale scale;
  double limit;

  HEPOPS_HD int slots() const { return 2; }

  template <class T>
  HEPOPS_HD void prepare(const Lane<T>&) const {}

  template <class T>
  HEPOPS_HD auto contains(const T& x, bool) const {
    return x == x;
  }

  template <class T>
  HEPOPS_HD Image<T> forward(const T& x, const Lane<T>& p) const {
    const auto g = stretch(p[0], scale, limit);
    return {x * g.factor + p[1], g.log};
  }

  template <class T>
  HEPOPS_HD T inverse(const T& y, const Lane<T>& p) const {
    return (y - p[1]) / stretch(p[0], scale, limit).factor;
  }

  template <class T>
  struct At : Slopes<T> {
    T slope;
  };

  template <class T>
  HEPOPS_HD At<T> slopes(const T&, const Lane<T>& p) const {
    const auto g = stretch(p[0], scale, limit);
    return {{g.factor, T(0.0)}, g.slope};
  }

  // f_s = x e^g g', f_t = 1; l_s = g'
  template <class T>
  HEPOPS_HD void gradient(const At<T>& at, const T& a, const T& b, const T& x, const Lane<T>& p) const {
    p[0] = (a * x * at.f + b) * at.slope;
    p[1] = a;
  }
};

}  // namespace hepops::flows
