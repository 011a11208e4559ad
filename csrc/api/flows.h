#pragma once
// Monotone rational-quadratic splines, both ways, with the logarithm of the slope, and their gradients.
#include <type_traits>

#include "api/execution.h"

namespace hepops {

// How many slopes an element has.
inline int64_t slopes_of(const hepops_spline& s) {
  return s.bins + (s.tails == HEPOPS_LINEAR ? -1 : s.tails == HEPOPS_CIRCULAR ? 0 : 1);
}

template <class T>
struct SplineNumbers {                      // of n elements
  std::span<T> x, widths, heights, slopes;  // (n), (n, bins), (n, bins), (n, slopes)

  void check(const hepops_spline& s, size_t n) const {
    check_size("x", x.size(), n);
    check_size("widths", widths.size(), product("widths", {int64_t(n), s.bins}));
    check_size("heights", heights.size(), product("heights", {int64_t(n), s.bins}));
    if (s.bins > 0) check_size("slopes", slopes.size(), product("slopes", {int64_t(n), slopes_of(s)}));
  }
};

// T is float or double.
template <class T>
void spline(const Context& context, const hepops_spline& s, const SplineNumbers<const T>& at, std::span<T> value,
            std::span<T> logdet) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
  const size_t n = at.x.size();
  at.check(s, n);
  check_size("value", value.size(), n);
  check_size("logdet", logdet.size(), n);
  const auto call = [&](auto f) {
    context.check(f(context.get(), &s, int64_t(n), at.x.data(), at.widths.data(), at.heights.data(), at.slopes.data(),
                    value.data(), logdet.data()));
  };
  if constexpr (std::is_same_v<T, float>)
    call(&hepops_spline_f32);
  else
    call(&hepops_spline_f64);
}

template <class T>
void spline_backward(const Context& context, const hepops_spline& s, std::span<const T> grad_value,
                     std::span<const T> grad_logdet, const SplineNumbers<const T>& at, const SplineNumbers<T>& grad) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
  const size_t n = at.x.size();
  at.check(s, n);
  grad.check(s, n);
  check_size("grad_value", grad_value.size(), n);
  check_size("grad_logdet", grad_logdet.size(), n);
  const auto call = [&](auto f) {
    context.check(f(context.get(), &s, int64_t(n), grad_value.data(), grad_logdet.data(), at.x.data(), at.widths.data(),
                    at.heights.data(), at.slopes.data(), grad.x.data(), grad.widths.data(), grad.heights.data(),
                    grad.slopes.data()));
  };
  if constexpr (std::is_same_v<T, float>)
    call(&hepops_spline_backward_f32);
  else
    call(&hepops_spline_backward_f64);
}

}  // namespace hepops
