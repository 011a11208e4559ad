#pragma once
// Bijections without parameters from the real line to a part of it, right to rounding in the tails:
//
//   Softplus  y = ln(1 + e^x) in (0, inf)    l = -softplus(-x)                     l_x = sigmoid(-x)
//   Tanh      y = tanh x      in (-1, 1)     l = 2 (ln 2 - |x| - ln(1 + e^-2|x|))  l_x = -2 y
//   Sigmoid   y = 1/(1+e^-x)  in (0, 1)      l = -|x| - 2 ln(1 + e^-|x|)           l_x = 1 - 2 y
//
// At an end of the range, where rounding puts what is far out, the inverse is infinite; beyond it is NaN.
#include "flows/bijection.h"

namespace hepops::flows {

enum class Kind : int { Softplus, Tanh, Sigmoid };

struct Squash {
  Kind kind;

  HEPOPS_HD int slots() const { return 0; }

  template <class T>
  HEPOPS_HD void prepare(const Lane<T>&) const {}

  template <class T>
  HEPOPS_HD auto contains(const T& x, bool inverse) const {
    const double infinity = std::numeric_limits<double>::infinity();
    const double low = !inverse ? -infinity : kind == Kind::Tanh ? -1 : 0;
    const double high = !inverse || kind == Kind::Softplus ? infinity : 1;
    return (x >= T(low)) & (x <= T(high));
  }

  template <class T>
  HEPOPS_HD Image<T> forward(const T& x, const Lane<T>&) const {
    const T size = abs(x);
    if (kind == Kind::Softplus) return {softplus(x), -softplus(-x)};
    if (kind == Kind::Tanh) {
      const T y = tanh_of(x), far = 2.0 * (std::numbers::ln2 - size - log1p(exp(-2.0 * size)));
      return {y, select(size < T(0.5), log1p(-y * y), far)};
    }
    const T e = exp(-size), large = T(1.0) / (T(1.0) + e);
    return {select(x < T(0.0), e * large, large), -size - 2.0 * log1p(e)};
  }

  template <class T>
  HEPOPS_HD T inverse(const T& y, const Lane<T>&) const {
    if (kind == Kind::Softplus) return select(y < T(0.5), log(expm1(y)), y + log1p(-exp(-y)));  // ln(e^y - 1)
    if (kind == Kind::Tanh) {
      const T size = abs(y), x = 0.5 * log1p(2.0 * size / (T(1.0) - size));
      return select(y < T(0.0), -x, x);
    }
    const auto middle = (y > T(0.25)) & (y < T(0.75));  // where both logarithms nearly cancel
    return select(middle, log1p((2.0 * y - T(1.0)) / (T(1.0) - y)), log(y) - log1p(-y));
  }

  template <class T>
  HEPOPS_HD Slopes<T> slopes(const T& x, const Lane<T>& p) const {
    if (kind == Kind::Softplus) return {sigmoid(x), sigmoid(-x)};
    const auto [y, logdet] = forward(x, p);
    if (kind == Kind::Tanh) return {exp(logdet), -2.0 * y};
    return {exp(logdet), -tanh_of(0.5 * x)};
  }

  template <class T>
  HEPOPS_HD void gradient(const Slopes<T>&, const T&, const T&, const T&, const Lane<T>&) const {}
};

}  // namespace hepops::flows
