#pragma once
// One call of the spline: where its numbers lie, and the plain form, an element at a time: the body on a GPU, and what
// the form for SIMD (spline_cpu.h) is tested against.
#include <cstdint>

#include "flows/spline.h"

namespace hepops::flows {

constexpr int max_dims = 6;
enum Operand : int { x_, widths_, heights_, slopes_, low_, high_, num_operands };

// The shape of the elements and every operand's strides, in numbers; 0 where it is broadcast.
struct Layout {
  int dims;
  int64_t sizes[max_dims], strides[num_operands][max_dims];
  int64_t steps[num_operands];  // along the parameters of one element

  HEPOPS_HD void locate(int64_t i, int64_t (&at)[num_operands]) const {
    for (int o = 0; o < num_operands; ++o) at[o] = 0;
    for (int d = dims - 1; d >= 0; --d) {
      const int64_t rest = i / sizes[d], index = i - rest * sizes[d];
      for (int o = 0; o < num_operands; ++o) at[o] += index * strides[o][d];
      i = rest;
    }
  }
};

template <class X, class P>
struct Spline {
  Layout layout;
  const X* x;
  const P *widths, *heights, *slopes;
  const X *low, *high;  // of each element, or null:
  double lower, upper;  // of all
  int bins;
  Tails tails;
  Convention convention;

  HEPOPS_HD double floor() const { return floor_of(convention); }
  HEPOPS_HD double c() const { return 1 - floor() * bins; }
  HEPOPS_HD int num_slopes() const { return int(slope_count(bins, tails)); }
  HEPOPS_HD Domain<double> domain(const int64_t (&at)[num_operands]) const {
    return {low ? double(low[at[low_]]) : lower, high ? double(high[at[high_]]) : upper};
  }
  // which of the given slopes stand at the ends of a bin; what is named for an end that has none is not used
  template <class T>
  HEPOPS_HD T first_slope(const T& bin) const {
    return tails == Tails::linear ? max(bin - T(1), T(0)) : bin;
  }
  template <class T>
  HEPOPS_HD T second_slope(const T& bin) const {
    if (tails == Tails::linear) return min(bin, T(bins - 2));
    return tails == Tails::circular ? select(bin == T(bins - 1), T(0), bin + T(1)) : bin + T(1);
  }
};

// Where gradients of the parameters go: one row for an element, in the order of the parameters.
template <class P>
struct Rows {
  P *widths, *heights, *slopes;
  int64_t width_row, height_row, slope_row;
};

// The logits of one element, of which the exponentials are taken anew whenever they are needed: no array.
template <class P>
struct Softmax {
  const P* logits;
  int64_t step;
  Convention convention;
  double most = 0, scale, floor;

  HEPOPS_HD Softmax(const P* from, int64_t step_, int bins, Convention convention_)
      : logits(from), step(step_), convention(convention_), floor(floor_of(convention_)) {
    if (convention == Convention::nflows) {
      most = raw(0);
      for (int k = 1; k < bins; ++k) most = max(most, raw(k));
    }
    double sum = 0;
    for (int k = 0; k < bins; ++k) sum += weight(k);
    scale = (1 - floor * bins) / sum;
  }
  HEPOPS_HD double raw(int k) const { return double(logits[k * step]); }
  HEPOPS_HD double weight(int k) const {
    return exp(convention == Convention::nflows ? raw(k) - most : soft_clip(raw(k), 2));
  }
  HEPOPS_HD double operator()(int k) const { return floor + scale * weight(k); }
};

template <class X, class P>
struct PlainSource {
  const Spline<X, P>& spline;
  Softmax<P> widths, heights;
  const P* slopes;
  Tails tails;
  Convention convention;

  HEPOPS_HD PlainSource(const Spline<X, P>& s, const int64_t (&at)[num_operands])
      : spline(s),
        widths(s.widths + at[widths_], s.layout.steps[widths_], s.bins, s.convention),
        heights(s.heights + at[heights_], s.layout.steps[heights_], s.bins, s.convention),
        slopes(s.slopes + at[slopes_]),
        tails(s.tails),
        convention(s.convention) {}
  HEPOPS_HD int bins() const { return spline.bins; }
  HEPOPS_HD double width(int k) const { return widths(k); }
  HEPOPS_HD double height(int k) const { return heights(k); }
  HEPOPS_HD void raw_slopes(double index, double& raw0, double& raw1) const {
    const int j = int(index);
    raw0 = raw1 = 0;
    if (spline.num_slopes() == 0) return;
    raw0 = double(slopes[spline.first_slope(j) * spline.layout.steps[slopes_]]);
    raw1 = double(slopes[spline.second_slope(j) * spline.layout.steps[slopes_]]);
  }
};

template <bool inverse, class X, class P>
struct MapEach {
  Spline<X, P> spline;
  X *value, *logdet;

  HEPOPS_HD void operator()(int64_t i) const {
    int64_t at[num_operands];
    spline.layout.locate(i, at);
    const auto image = map<inverse, X>(double(spline.x[at[x_]]), spline.domain(at), PlainSource<X, P>(spline, at));
    value[i] = X(image.value);
    logdet[i] = X(image.logdet);
  }
};

template <bool inverse, class X, class P>
struct MapEachBackward {
  Spline<X, P> spline;
  const X *grad_value, *grad_logdet;
  X* grad_x;
  Rows<P> grad;

  HEPOPS_HD void operator()(int64_t i) const {
    int64_t at[num_operands];
    spline.layout.locate(i, at);
    const PlainSource<X, P> source(spline, at);
    const auto back = map_backward<inverse, X>(double(grad_value[i]), double(grad_logdet[i]), double(spline.x[at[x_]]),
                                               spline.domain(at), source);
    const auto& [g, bin, ends] = back;
    grad_x[i] = X(g.x);
    logits(source.widths, g.X, g.w, bin.index, bin.X, bin.w, grad.widths + i * grad.width_row);
    logits(source.heights, g.Y, g.h, bin.index, bin.Y, bin.h, grad.heights + i * grad.height_row);
    slopes(g, int(bin.index), ends, grad.slopes + i * grad.slope_row);
  }

 private:
  HEPOPS_HD void logits(const Softmax<P>& fractions, double before, double here, double index, double begin,
                        double size, P* to) const {
    const double floor = spline.floor(), mean = mean_gradient(before, here, index, begin, size, floor, spline.c());
    for (int k = 0; k < spline.bins; ++k) {
      const double g = logit_gradient(k, fractions(k), before, here, index, mean, floor);
      to[k] = P(spline.convention == Convention::zuko ? g * soft_clip_slope(fractions.raw(k), 2) : g);
    }
  }
  HEPOPS_HD void slopes(const Gradient<double>& g, int j, const Ends<double>& ends, P* to) const {
    const bool linear = spline.tails == Tails::linear;
    const int first = linear && j == 0 ? -1 : spline.first_slope(j);
    const int second = linear && j == spline.bins - 1 ? -1 : spline.second_slope(j);
    const double g0 = slope_of_backward(g.d0, ends.raw0, spline.convention);
    const double g1 = slope_of_backward(g.d1, ends.raw1, spline.convention);
    for (int k = 0; k < spline.num_slopes(); ++k) to[k] = P((k == first ? g0 : 0.0) + (k == second ? g1 : 0.0));
  }
};

}  // namespace hepops::flows
