// The spline as an operator: its checks, the layout of what it is given, and the gradients.
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/for_each.h"
#include "core/huge_pages.h"
#include "core/op.h"
#include "flows/spline_call.h"
#ifndef __CUDACC__
#include "flows/spline_cpu.h"
#endif

namespace hepops::flows {
namespace {

using core::check_type, core::check_value, core::ScalarType, core::Shape, core::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The arguments as the schema has them. Without heights and slopes, `widths` holds all three behind each other.
struct Arguments {
  Tensor x, widths;
  OptionalTensor heights, slopes, low, high;
  double lower, upper;
  int64_t bins;
  Tails tails;
  Convention convention;
  bool inverse;

  bool packed() const { return !heights; }
  int64_t num_slopes() const { return slope_count(bins, tails); }
};

#define HEPOPS_SPLINE_ARGUMENTS                                                                                       \
  const Tensor &x, const Tensor &widths, const OptionalTensor &heights, const OptionalTensor &slopes,                 \
      const OptionalTensor &low, const OptionalTensor &high, double lower, double upper, int64_t bins, int64_t tails, \
      int64_t convention, bool inverse
#define HEPOPS_SPLINE_SCHEMA                                                                                        \
  "Tensor x, Tensor widths, Tensor? heights, Tensor? slopes, Tensor? low, Tensor? high, float lower, float upper, " \
  "int bins, int tails, int convention, bool inverse"

// (*shape of x, count)
void check_parameters(const char* name, const Tensor& p, const Arguments& a, int64_t count, const char* counted) {
  const ScalarType kind = p.scalar_type(), of_x = a.x.scalar_type();
  const bool half = kind == ScalarType::Half || kind == ScalarType::BFloat16;
  check_type(kind == of_x || kind == ScalarType::Float || (half && of_x == ScalarType::Float),
             "rational_quadratic_spline: ", name, " has dtype ", toString(kind), " where x has ", toString(of_x));
  check_type(kind == a.widths.scalar_type(), "rational_quadratic_spline: ", name, " has dtype ", toString(kind),
             " where widths has ", toString(a.widths.scalar_type()));
  check_value(p.device() == a.x.device(), "rational_quadratic_spline: ", name, " must be on the device of x");
  check_value(p.dim() == a.x.dim() + 1 && p.sizes().slice(0, a.x.dim()).equals(a.x.sizes()),
              "rational_quadratic_spline: ", name, " has shape ", Shape{p}, " where x has ", Shape{a.x});
  check_value(p.size(a.x.dim()) == count, "rational_quadratic_spline: ", name, " has shape ", Shape{p}, ", expected ",
              count, " numbers for an element (", counted, ") of ", a.bins, " bins");
}

void check_domain(const char* name, const OptionalTensor& bound, const Tensor& x) {
  if (bound) core::check_same_shape(name, *bound, x);
}

Arguments checked(HEPOPS_SPLINE_ARGUMENTS) {
  core::check_floating("rational_quadratic_spline: x", x);
  check_value(bins >= 1, "rational_quadratic_spline: bins must be at least 1, got ", bins);
  check_value(bins < 1 << 20, "rational_quadratic_spline: bins must be below 2^20, got ", bins);
  check_value(tails >= 0 && tails <= 2, "rational_quadratic_spline: tails must be 0, 1 or 2, got ", tails);
  check_value(convention == 0 || convention == 1, "rational_quadratic_spline: convention must be 0 or 1, got ",
              convention);
  const Arguments a{
      x, widths, heights, slopes, low, high, lower, upper, bins, Tails(tails), Convention(convention), inverse};
  check_value(floor_of(a.convention) * double(bins) < 1, "rational_quadratic_spline: ", bins,
              " bins of a width of at least 1/1000 do not fit the domain: bins must be below 1000");
  const char* counted[] = {"K - 1 with linear tails", "K with circular tails", "K + 1 without tails"};
  check_value(heights.has_value() == slopes.has_value(),
              "rational_quadratic_spline: heights and slopes must both be given, or neither");
  if (a.packed()) {
    check_parameters("raw", widths, a, 2 * bins + a.num_slopes(), "K widths, K heights and the slopes");
  } else {
    check_parameters("widths", widths, a, bins, "K");
    check_parameters("heights", *heights, a, bins, "K");
    check_parameters("slopes", *slopes, a, a.num_slopes(), counted[tails]);
  }
  check_domain("rational_quadratic_spline: low", low, x);
  check_domain("rational_quadratic_spline: high", high, x);
  check_value(low.has_value() == high.has_value(), "rational_quadratic_spline: low and high must both be tensors");
  check_value(low || lower < upper, "rational_quadratic_spline: bound must leave a domain, got ", lower, " to ", upper);
  return a;
}

// The elements' dimensions, those of size 1 left out and neighbours merged where every operand allows.
bool lay_out(const Arguments& a, Layout& layout) {
  const Tensor* operands[num_operands] = {&a.x,
                                          &a.widths,
                                          a.packed() ? &a.widths : &*a.heights,
                                          a.packed() ? &a.widths : &*a.slopes,
                                          a.low ? &*a.low : nullptr,
                                          a.high ? &*a.high : nullptr};
  layout.dims = 0;
  for (int64_t d = 0; d < a.x.dim(); ++d) {
    if (a.x.size(d) == 1) continue;
    int64_t strides[num_operands];
    for (int o = 0; o < num_operands; ++o) strides[o] = operands[o] ? operands[o]->stride(d) : 0;
    bool merges = layout.dims > 0;
    for (int o = 0; merges && o < num_operands; ++o)
      merges = layout.strides[o][layout.dims - 1] == a.x.size(d) * strides[o];
    if (!merges && layout.dims == max_dims) return false;
    const int at = merges ? layout.dims - 1 : layout.dims++;
    layout.sizes[at] = (merges ? layout.sizes[at] : 1) * a.x.size(d);
    for (int o = 0; o < num_operands; ++o) layout.strides[o][at] = strides[o];
  }
  if (layout.dims == 0) {  // one element
    layout.dims = 1, layout.sizes[0] = 1;
    for (int o = 0; o < num_operands; ++o) layout.strides[o][0] = 0;
  }
  for (int o = 0; o < num_operands; ++o) layout.steps[o] = o == x_ || o >= low_ ? 0 : operands[o]->stride(a.x.dim());
  return true;
}

// With copies, should the operands' strides follow more than max_dims dimensions.
Layout laid_out(Arguments& a) {
  Layout layout;
  if (lay_out(a, layout)) return layout;
  a.x = core::contiguous(a.x);
  a.widths = core::contiguous(a.widths);
  for (OptionalTensor* t : {&a.heights, &a.slopes, &a.low, &a.high})
    if (*t) *t = core::contiguous(**t);
  lay_out(a, layout);
  return layout;
}

// f(Spline<X, P>), after the dtypes of x and of the parameters
template <class F>
void for_spline(Arguments a, const F& f) {
  const Layout layout = laid_out(a);
  const auto with = [&]<class X, class P>() {
    const P* from = core::in<P>(a.widths);
    Spline<X, P> s{layout, core::in<X>(a.x), from, from + a.bins * layout.steps[widths_],
                   from + 2 * a.bins * layout.steps[widths_], a.low ? core::in<X>(*a.low) : nullptr,
                   a.high ? core::in<X>(*a.high) : nullptr,
                   // in the dtype of x, whose own ends lie within
                   double(X(a.lower)), double(X(a.upper)), int(a.bins), a.tails, a.convention};
    if (!a.packed()) s.heights = core::in<P>(*a.heights), s.slopes = core::in<P>(*a.slopes);
    f(s);
  };
  const ScalarType kind = a.widths.scalar_type();
  if (a.x.scalar_type() == ScalarType::Double)
    return kind == ScalarType::Double ? with.template operator()<double, double>()
                                      : with.template operator()<double, float>();
  if (kind == ScalarType::Half) return with.template operator()<float, torch::headeronly::Half>();
  if (kind == ScalarType::BFloat16) return with.template operator()<float, torch::headeronly::BFloat16>();
  return with.template operator()<float, float>();
}

template <bool inverse, class X, class P>
void run([[maybe_unused]] const Tensor& on, int64_t count, const MapEach<inverse, X, P>& f) {
#ifdef __CUDACC__
  core::for_each(on, count, f);
#else
  map_all(f, count, core::Threads{});
#endif
}

template <bool inverse, class X, class P>
void run([[maybe_unused]] const Tensor& on, int64_t count, const MapEachBackward<inverse, X, P>& f) {
#ifdef __CUDACC__
  core::for_each(on, count, f);
#else
  map_all_backward(f, count, core::Threads{});
#endif
}

std::tuple<Tensor, Tensor> forward(HEPOPS_SPLINE_ARGUMENTS) {
  const Arguments a = checked(x, widths, heights, slopes, low, high, lower, upper, bins, tails, convention, inverse);
  const Tensor value = core::in_huge_pages(core::empty_like(x)), logdet = core::in_huge_pages(core::empty_like(x));
  const int64_t count = x.numel();
  if (count == 0) return {value, logdet};
  for_spline(a, [&]<class X, class P>(const Spline<X, P>& s) {
    X *v = core::out<X>(value), *l = core::out<X>(logdet);
    if (inverse)
      run(x, count, MapEach<true, X, P>{s, v, l});
    else
      run(x, count, MapEach<false, X, P>{s, v, l});
  });
  return {value, logdet};
}

// -> the gradients of x, of the widths (or all parameters), of the heights and slopes (or nothing)
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_value, const Tensor& grad_logdet,
                                                    HEPOPS_SPLINE_ARGUMENTS) {
  const Arguments a = checked(x, widths, heights, slopes, low, high, lower, upper, bins, tails, convention, inverse);
  core::check_same_shape("rational_quadratic_spline_backward: grad_value", grad_value, x);
  core::check_same_shape("rational_quadratic_spline_backward: grad_logdet", grad_logdet, x);
  const auto gradient_of = [&](const OptionalTensor& t) {
    return t ? core::in_huge_pages(core::empty_like(*t)) : torch::stable::new_empty(widths, {0});
  };
  const Tensor grad_x = core::in_huge_pages(core::empty_like(x)),
               grad_widths = core::in_huge_pages(core::empty_like(widths)), grad_heights = gradient_of(heights),
               grad_slopes = gradient_of(slopes);
  const int64_t count = x.numel();
  if (count == 0) return {grad_x, grad_widths, grad_heights, grad_slopes};
  const Tensor gv = core::contiguous(grad_value), gl = core::contiguous(grad_logdet);
  for_spline(a, [&]<class X, class P>(const Spline<X, P>& s) {
    const int64_t row = widths.size(x.dim());
    P* all = core::out<P>(grad_widths);
    Rows<P> to{all, all + bins, all + 2 * bins, row, row, row};
    if (!a.packed()) to = {all, core::out<P>(grad_heights), core::out<P>(grad_slopes), row, bins, a.num_slopes()};
    const X *v = core::in<X>(gv), *l = core::in<X>(gl);
    if (inverse)
      run(x, count, MapEachBackward<true, X, P>{s, v, l, core::out<X>(grad_x), to});
    else
      run(x, count, MapEachBackward<false, X, P>{s, v, l, core::out<X>(grad_x), to});
  });
  return {grad_x, grad_widths, grad_heights, grad_slopes};
}

const core::Operators operators{
    core::op<forward>("flows_rational_quadratic_spline(" HEPOPS_SPLINE_SCHEMA ") -> (Tensor, Tensor)"),
    core::op<backward>(
        "_flows_rational_quadratic_spline_backward(Tensor grad_value, Tensor grad_logdet, " HEPOPS_SPLINE_SCHEMA
        ") -> (Tensor, Tensor, Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::flows
