// Rational-quadratic splines of contiguous arrays: the kernels of the operator (flows/spline_cpu.h).
#include "flows/spline_cpu.h"

#include <cmath>
#include <cstdint>

#include "sdk/context.h"
#include "sdk/functions.h"

namespace hepops::sdk {
namespace {

using flows::Convention, flows::Tails;

// What hepops.flows.rational_quadratic_spline says of its bound. In float32 both ends are rounded first.
template <class X>
void check_domain(double low, double high) {
  const X a = X(low), b = X(high);
  const char* type = sizeof(X) == 4 ? "float32" : "float64";
  check(std::isfinite(low), "spline: low must be finite, got ", low);
  check(std::isfinite(high), "spline: high must be finite, got ", high);
  check(low < high, "spline: low must be below high, got ", low, " and ", high);
  check(a < b && std::isfinite(b - a), "spline: low and high must be a domain of ", type, " numbers, got ", low,
        " and ", high);
}

template <class X>
int64_t checked(const hepops_spline* s, int64_t count) {
  check(s, "spline: the spline is NULL");
  check(count >= 0, "spline: count must not be negative, got ", count);
  check(s->bins >= 1 && s->bins < 1 << 20, "spline: bins must be 1 to 2^20 - 1, got ", s->bins);
  check(s->tails >= 0 && s->tails <= 2, "spline: tails must be 0, 1 or 2, got ", s->tails);
  check(s->convention == 0 || s->convention == 1, "spline: convention must be 0 or 1, got ", s->convention);
  check(flows::floor_of(Convention(s->convention)) * double(s->bins) < 1, "spline: ", s->bins,
        " bins of a width of at least 1/1000 do not fit the domain");
  check_domain<X>(s->low, s->high);
  const int64_t most = PTRDIFF_MAX / int64_t(sizeof(X)) / (s->bins + 1);
  check(count <= most, "spline: count must be ", most, " at most for ", s->bins, " bins, got ", count);
  return flows::slope_count(s->bins, Tails(s->tails));
}

template <class X>
flows::Spline<X, X> spline_of(const hepops_spline& s, int64_t count, int64_t slopes, const X* x, const X* widths,
                              const X* heights, const X* slope) {
  flows::Layout layout{};
  layout.dims = 1;
  layout.sizes[0] = count;
  const int64_t strides[flows::num_operands] = {1, s.bins, s.bins, slopes, 0, 0};
  const int64_t steps[flows::num_operands] = {0, 1, 1, 1, 0, 0};
  for (int o = 0; o < flows::num_operands; ++o) layout.strides[o][0] = strides[o], layout.steps[o] = steps[o];
  return {layout,
          x,
          widths,
          heights,
          slope,
          nullptr,
          nullptr,
          double(X(s.low)),
          double(X(s.high)),
          int(s.bins),
          Tails(s.tails),
          Convention(s.convention)};
}

template <class X>
hepops_status spline(hepops_context* context, const hepops_spline* s, int64_t count, const X* x, const X* widths,
                     const X* heights, const X* slopes, X* value, X* logdet) {
  return guarded(context, [&] {
    const int64_t S = checked<X>(s, count);
    if (count == 0) return;
    check(x && widths && heights && (slopes || S == 0) && value && logdet, "spline: an array is NULL");
    const auto f = spline_of(*s, count, S, x, widths, heights, slopes);
    if (s->inverse)
      flows::map_all(flows::MapEach<true, X, X>{f, value, logdet}, count, context->parallel());
    else
      flows::map_all(flows::MapEach<false, X, X>{f, value, logdet}, count, context->parallel());
  });
}

template <class X>
hepops_status spline_backward(hepops_context* context, const hepops_spline* s, int64_t count, const X* grad_value,
                              const X* grad_logdet, const X* x, const X* widths, const X* heights, const X* slopes,
                              X* grad_x, X* grad_widths, X* grad_heights, X* grad_slopes) {
  return guarded(context, [&] {
    const int64_t S = checked<X>(s, count);
    if (count == 0) return;
    check(grad_value && grad_logdet && x && widths && heights && (slopes || S == 0),
          "spline_backward: an array is NULL");
    check(grad_x && grad_widths && grad_heights && (grad_slopes || S == 0), "spline_backward: a gradient is NULL");
    const auto f = spline_of(*s, count, S, x, widths, heights, slopes);
    const flows::Rows<X> to{grad_widths, grad_heights, grad_slopes, s->bins, s->bins, S};
    if (s->inverse)
      flows::map_all_backward(flows::MapEachBackward<true, X, X>{f, grad_value, grad_logdet, grad_x, to}, count,
                              context->parallel());
    else
      flows::map_all_backward(flows::MapEachBackward<false, X, X>{f, grad_value, grad_logdet, grad_x, to}, count,
                              context->parallel());
  });
}

}  // namespace

void fill_spline(Functions& f) {
  f.spline_f32 = spline<float>;
  f.spline_f64 = spline<double>;
  f.spline_backward_f32 = spline_backward<float>;
  f.spline_backward_f64 = spline_backward<double>;
}

}  // namespace hepops::sdk
