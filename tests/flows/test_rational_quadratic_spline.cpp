#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "core/dual.h"
#include "core/parallel.h"
#include "flows/spline_cpu.h"

namespace hepops::core {

template <class T, int N>
Dual<T, N> fmod(const Dual<T, N>& a, const Dual<T, N>& b) {
  const T y = std::fmod(a.value, b.value);
  return Dual<T, N>::chain(y, T(1), a, -(a.value - y) / b.value, b);
}

}  // namespace hepops::core

namespace hepops::flows {
namespace {

constexpr Tails all_tails[] = {Tails::linear, Tails::circular, Tails::none};
constexpr Convention conventions[] = {Convention::nflows, Convention::zuko};

template <class F>
void for_kinds(const F& f) {
  for (const Tails tails : all_tails)
    for (const Convention convention : conventions) f(tails, convention);
}

// Elements whose parameters are packed, [widths | heights | slopes], in rows.
template <class X, class P>
struct Sample {
  int bins, size;
  std::vector<X> x;
  std::vector<P> raw;
  Spline<X, P> spline{};

  Sample(int64_t count, int bins_, Tails tails, Convention convention, double spread = 2, unsigned seed = 1)
      : bins(bins_), size(2 * bins + int(slope_count(bins, tails))) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < count; ++i)
      x.push_back(X(tails == Tails::none ? std::tanh(normal(generator)) : normal(generator) * 1.5));
    for (int64_t i = 0; i < count * size; ++i) raw.push_back(P(spread * normal(generator)));
    spline.layout.dims = 1;
    spline.layout.sizes[0] = count;
    for (int o = 0; o < num_operands; ++o) {
      spline.layout.strides[o][0] = o == x_ ? 1 : o < low_ ? size : 0;
      spline.layout.steps[o] = 1;
    }
    spline.lower = -1.5, spline.upper = 1.5;
    spline.bins = bins, spline.tails = tails, spline.convention = convention;
    point();
  }
  void point() {
    spline.x = x.data();
    spline.widths = raw.data(), spline.heights = raw.data() + bins, spline.slopes = raw.data() + 2 * bins;
  }
  int64_t count() const { return int64_t(x.size()); }
};

template <class X, class P>
struct Gradients {
  std::vector<X> x;
  std::vector<P> raw;
  Gradients(int64_t count, int size) : x(count, X(99)), raw(count * size, P(99.f)) {}
  Rows<P> rows(int bins, int size) { return {raw.data(), raw.data() + bins, raw.data() + 2 * bins, size, size, size}; }
};

// The parameters of one element as numbers T, and the softmax as the formula has it.
template <class T>
struct FormulaSource {
  int K;
  Tails tails;
  Convention convention;
  std::vector<T> w, h, d;

  std::vector<T> fractions(const std::vector<T>& raw) const {
    std::vector<T> e;
    T sum = 0;
    for (const T& r : raw) e.push_back(exp(convention == Convention::zuko ? soft_clip(r, 2) : r)), sum += e.back();
    const double floor = floor_of(convention);
    for (T& r : e) r = floor + (1 - floor * K) * (r / sum);
    return e;
  }
  FormulaSource(const T* raw, int bins, Tails tails_, Convention convention_)
      : K(bins), tails(tails_), convention(convention_) {
    w = fractions({raw, raw + K}), h = fractions({raw + K, raw + 2 * K});
    d = {raw + 2 * K, raw + 2 * K + slope_count(K, tails)};
  }
  int bins() const { return K; }
  T width(int k) const { return w[k]; }
  T height(int k) const { return h[k]; }
  void raw_slopes(const T& index, T& raw0, T& raw1) const {
    const int j = int(core::value_of(index));
    raw0 = raw1 = T(0);
    if (tails == Tails::linear) {
      if (j > 0) raw0 = d[j - 1];
      if (j < K - 1) raw1 = d[j];
    } else {
      raw0 = d[j];
      raw1 = d[(j + 1) % int(d.size())];
    }
  }
};

template <bool inverse, int K>
void check_backward(Tails tails, Convention convention) {
  using D = core::Dual<double, 3 * K + 2>;
  Sample<double, double> sample(60, K, tails, convention);
  Gradients<double, double> grad(60, sample.size);
  const std::vector<double> seeds_value(60, 0.7), seeds_logdet(60, -1.3);
  const MapEachBackward<inverse, double, double> backward{sample.spline, seeds_value.data(), seeds_logdet.data(),
                                                          grad.x.data(), grad.rows(K, sample.size)};
  for (int i = 0; i < 60; ++i) {
    backward(i);
    std::vector<D> raw;
    for (int k = 0; k < sample.size; ++k) raw.push_back(D(sample.raw[i * sample.size + k], k + 1));
    const FormulaSource<D> source(raw.data(), K, tails, convention);
    const Domain<D> domain{D(-1.5), D(1.5)};
    const auto image = map<inverse, double>(D(sample.x[i], 0), domain, source);
    for (int k = 0; k <= sample.size; ++k) {
      const double a = 0.7 * image.value.slope[k], b = -1.3 * image.logdet.slope[k];
      const double ours = k == 0 ? grad.x[i] : grad.raw[i * sample.size + k - 1];
      EXPECT_NEAR(ours, a + b, 1e-11 * (1 + std::abs(a) + std::abs(b)))
          << "element " << i << ", argument " << k << ", tails " << int(tails) << ", convention " << int(convention);
    }
  }
}

TEST(Spline, BackwardIsTheExactSlope) {
  for_kinds([](Tails tails, Convention convention) {
    check_backward<false, 5>(tails, convention);
    check_backward<true, 5>(tails, convention);
    check_backward<false, 1>(tails, convention);
    check_backward<true, 1>(tails, convention);
  });
}

TEST(Spline, InverseUndoesIt) {
  for_kinds([](Tails tails, Convention convention) {
    Sample<double, double> sample(500, 6, tails, convention);
    std::vector<double> y(500), there(500), x(500), back(500);
    const MapEach<false, double, double> forward{sample.spline, y.data(), there.data()};
    for (int i = 0; i < 500; ++i) forward(i);
    auto turned = sample.spline;
    turned.x = y.data();
    const MapEach<true, double, double> inverse{turned, x.data(), back.data()};
    for (int i = 0; i < 500; ++i) {
      inverse(i);
      if (tails != Tails::circular || std::abs(sample.x[i]) <= 1.5) {
        EXPECT_NEAR(x[i], sample.x[i], 1e-14 * std::max(1.0, std::exp(-there[i])));
      }
      EXPECT_NEAR(back[i], -there[i], 1e-10);
    }
  });
}

// The form for SIMD against the plain one, wherever the numbers lie.
template <bool inverse, class X, class P>
void check_simd(Sample<X, P>& sample, double tolerance) {
  const int64_t n = sample.count();
  std::vector<X> value(n), logdet(n), plain_value(n), plain_logdet(n);
  map_all(MapEach<inverse, X, P>{sample.spline, value.data(), logdet.data()}, n, core::Serial());
  const MapEach<inverse, X, P> plain{sample.spline, plain_value.data(), plain_logdet.data()};
  std::vector<X> seeds_value(n), seeds_logdet(n);
  for (int64_t i = 0; i < n; ++i) seeds_value[i] = X(1 + i % 3), seeds_logdet[i] = X(i % 5 - 2);
  Gradients<X, P> ours(n, sample.size), theirs(n, sample.size);
  map_all_backward(MapEachBackward<inverse, X, P>{sample.spline, seeds_value.data(), seeds_logdet.data(), ours.x.data(),
                                                  ours.rows(sample.bins, sample.size)},
                   n, core::Serial());
  const MapEachBackward<inverse, X, P> plain_backward{sample.spline, seeds_value.data(), seeds_logdet.data(),
                                                      theirs.x.data(), theirs.rows(sample.bins, sample.size)};
  for (int64_t i = 0; i < n; ++i) {
    plain(i);
    plain_backward(i);
    // x follows y as 1 / (dy/dx)
    const double stretch = inverse ? std::max(1.0, std::exp(double(plain_logdet[i]))) : 1;
    EXPECT_NEAR(value[i], plain_value[i], tolerance * stretch) << i;
    EXPECT_NEAR(logdet[i], plain_logdet[i], 20 * tolerance * stretch) << i;
    double size = 1 + std::abs(double(theirs.x[i]));
    for (int k = 0; k < sample.size; ++k) size += std::abs(double(theirs.raw[i * sample.size + k]));
    EXPECT_NEAR(ours.x[i], theirs.x[i], 50 * tolerance * size) << i;
    for (int k = 0; k < sample.size; ++k)
      EXPECT_NEAR(double(ours.raw[i * sample.size + k]), double(theirs.raw[i * sample.size + k]), 50 * tolerance * size)
          << i << ", parameter " << k;
  }
}

template <class X, class P>
void check_simd_forms(double tolerance) {
  for (const int K : {1, 2, 4, 7, 8, 13, 16, 32})
    for (const int64_t n : {1, 3, 8, 21})
      for_kinds([&](Tails tails, Convention convention) {
        Sample<X, P> sample(n, K, tails, convention, 1);
        check_simd<false>(sample, tolerance);
        check_simd<true>(sample, tolerance);
      });
}

TEST(SplineSimd, AgreesWithThePlainForm) {
  check_simd_forms<double, double>(1e-13);
  check_simd_forms<float, float>(1e-6);
  check_simd_forms<double, float>(1e-6);  // gradients are rounded to float
}

// (N, C, H) whose parameters lie channels first, domains of each element, and parameters that all elements share.
TEST(SplineSimd, ReadsAnyLayout) {
  constexpr int K = 8, N = 3, C = 2, H = 19, count = N * C * H;
  for_kinds([&](Tails tails, Convention convention) {
    Sample<float, float> sample(count, K, tails, convention, 1);
    std::vector<float> low(count), high(count);
    for (int i = 0; i < count; ++i) low[i] = -1.5f - 0.01f * float(i % 7), high[i] = 1.6f + 0.01f * float(i % 5);
    Layout& layout = sample.spline.layout;
    layout.dims = 3;
    const int64_t sizes[] = {N, C, H}, size = sample.size;
    for (int d = 0; d < 3; ++d) layout.sizes[d] = sizes[d];
    const auto set = [&](int o, int64_t a, int64_t b, int64_t c, int64_t step) {
      layout.strides[o][0] = a, layout.strides[o][1] = b, layout.strides[o][2] = c, layout.steps[o] = step;
    };
    sample.spline.low = low.data(), sample.spline.high = high.data();
    set(low_, C * H, H, 1, 0);
    set(high_, 1, N, N * C, 0);
    set(x_, C * H, H, 1, 0);
    for (const int o : {widths_, heights_, slopes_}) set(o, C * size * H, size * H, 1, H);
    sample.spline.widths = sample.raw.data(), sample.spline.heights = sample.raw.data() + K * H;
    sample.spline.slopes = sample.raw.data() + 2 * K * H;
    check_simd<false>(sample, 1e-6);
    check_simd<true>(sample, 1e-6);

    set(x_, 1, N, N * C, 0);  // x the other way round
    for (const int o : {widths_, heights_, slopes_}) set(o, 0, size, 0, 1);
    sample.point();
    check_simd<false>(sample, 1e-6);
    check_simd<true>(sample, 1e-6);
  });
}

TEST(SplineSimd, WhatIsNoNumberStaysSo) {
  for_kinds([](Tails tails, Convention convention) {
    Sample<float, float> sample(24, 4, tails, convention);
    for (int i = 0; i < 24; ++i) sample.x[i] = 0.1f;
    sample.raw[3 * sample.size + 2] = NAN;   // a width
    sample.raw[7 * sample.size + 5] = -NAN;  // a height
    sample.raw[9 * sample.size + 1] = float(INFINITY);
    sample.x[12] = NAN;
    sample.x[13] = float(INFINITY);
    std::vector<float> value(24), logdet(24);
    map_all(MapEach<false, float, float>{sample.spline, value.data(), logdet.data()}, 24, core::Serial());
    for (int i = 0; i < 24; ++i) {
      const bool beyond = i == 13;
      const bool lost = i == 3 || i == 7 || i == 9 || i == 12 || (beyond && tails != Tails::linear);
      EXPECT_EQ(std::isnan(value[i]), lost) << i;
      EXPECT_EQ(std::isnan(logdet[i]), lost) << i;
      if (beyond && tails == Tails::linear) {
        EXPECT_EQ(value[i], float(INFINITY));
        EXPECT_EQ(logdet[i], 0);
      }
    }
  });
}

}  // namespace
}  // namespace hepops::flows
