#pragma once
// Bijections of one number with P raw parameters, and what is made of any of them. A bijection is a struct
//
//   slots()             P, and what it keeps beside: how many numbers a lane has
//   prepare(p)          raw parameters -> what the formulas use, in place
//   forward(x, p)       f(x) and l = ln |df/dx|
//   inverse(y, p)       f^-1(y)
//   slopes(x, p)        f_x, l_x, and what the next one can use
//   gradient(at, a, b, x, p)   raw parameter k's place takes a f_k + b l_k
//   contains(x, inverse)       whether x (or y) lies in the domain; elsewhere all results are NaN
//
// Backward of y = f(x), ld = l(x):          grad_x = gy f_x + gl l_x,      grad_k = gy f_k + gl l_k
// Backward of x = f^-1(y), ld = -l(x), by the implicit function rule:
//                                           grad_y = A = (gx - gl l_x) / f_x,  grad_k = -A f_k - gl l_k
// Both need x alone, so that the inverse keeps its result and not its argument.
#include <limits>

#include "core/doubles.h"

namespace hepops::flows {

using core::abs, core::exp, core::expm1, core::log, core::log1p, core::max, core::min, core::sqrt, core::atan2;
using core::any, core::nearest, core::select, core::sin_cos_half_turn;

// The numbers of one element, `stride` apart: the elements of a block lie side by side.
template <class T>
struct Lane {
  T* at;
  int64_t stride;
  HEPOPS_HD T& operator[](int p) const { return at[p * stride]; }
};

template <class T>
struct Image {
  T value, logdet;
};

template <class T>
struct Slopes {
  T f, l;  // f_x, l_x
};

template <class T>
HEPOPS_HD T nan() {
  return T(std::numeric_limits<double>::quiet_NaN());
}

template <class B, class T>
HEPOPS_HD Image<T> apply(const B& bijection, const T& x, const Lane<T>& p, bool inverse) {
  bijection.prepare(p);
  Image<T> image;
  if (inverse) {
    const T solution = bijection.inverse(x, p);
    const T l = bijection.forward(solution, p).logdet;
    image = {select(l == l, solution, l), -l};
  } else {
    image = bijection.forward(x, p);
  }
  const auto inside = bijection.contains(x, inverse);
  return {select(inside, image.value, nan<T>()), select(inside, image.logdet, nan<T>())};
}

// -> the gradient of x, or of y; those of the raw parameters stand in p
template <class B, class T>
HEPOPS_HD T apply_backward(const B& bijection, const Image<T>& grad, const T& x, const Lane<T>& p, bool inverse) {
  bijection.prepare(p);
  const auto at = bijection.slopes(x, p);
  const auto inside = bijection.contains(x, false);
  const T a = select(inside, grad.value, nan<T>()), b = select(inside, grad.logdet, nan<T>());
  if (!inverse) {
    bijection.gradient(at, a, b, x, p);
    return a * at.f + b * at.l;
  }
  const T A = (a - b * at.l) / at.f;
  bijection.gradient(at, -A, -b, x, p);
  return A;
}

// e^(p - max) in the places first ... first + n - 1 -> their sum
template <class T>
HEPOPS_HD T exponentials(const Lane<T>& p, int first, int n) {
  T most = p[first], sum = T(0.0);
  for (int k = 1; k < n; ++k) most = max(most, p[first + k]);
  for (int k = 0; k < n; ++k) sum += p[first + k] = exp(p[first + k] - most);
  return sum;
}

// ln(1 + e^x), written so that neither end overflows, and its slope
template <class T>
HEPOPS_HD T softplus(const T& x) {
  return max(x, T(0.0)) + log1p(exp(-abs(x)));
}
template <class T>
HEPOPS_HD T sigmoid(const T& x) {
  return T(1.0) / (T(1.0) + exp(-x));
}
// the same slope, from y = softplus(x): 1 - e^-y
template <class T>
HEPOPS_HD T softplus_slope(const T& y) {
  return -expm1(-y);
}

// (1 - e^-2x) / (1 + e^-2x)
template <class T>
HEPOPS_HD T tanh_of(const T& x) {
  const T m = expm1(-2.0 * abs(x)), t = -m / (T(2.0) + m);
  return select(x < T(0.0), -t, t);
}

// Where the increasing f is `target`, between low and high: Newton's steps, and halvings where one leaves the bracket
// or shrinks less than by half. f(x) gives {value, slope}, the value right to `noise`. At most 100 evaluations:
// halvings alone need 52. A lane that is done stays as it is, so that what its neighbours need does not change it.
template <class T, class F>
HEPOPS_HD T solve(const F& f, const T& target, T low, T high, const T& noise) {
  T x = 0.5 * (low + high), best = x, last = high - low, least = T(std::numeric_limits<double>::infinity());
  auto active = low < high;
  for (int n = 0; n < 100 && any(active); ++n) {
    const auto [value, slope] = f(x);
    const T rest = value - target, size = abs(rest);
    const auto better = active & (size < least);
    best = select(better, x, best);
    least = select(better, size, least);
    low = select(active & (rest < T(0.0)), x, low);
    high = select(active & (rest > T(0.0)), x, high);
    const T step = -rest / slope, next = x + step;
    const auto newton = (next > low) & (next < high) & (2.0 * abs(step) < abs(last));
    const T chosen = select(newton, next, 0.5 * (low + high));
    active = active & (size > noise) & (chosen != x);  // a NaN ends here
    last = select(active, chosen - x, last);
    x = select(active, chosen, x);
  }
  return best;
}

}  // namespace hepops::flows
