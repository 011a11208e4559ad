// The hand-written slopes of every bijection against dual numbers, and packs against single numbers.
#include "flows/bijection.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "flows/affine.h"
#include "flows/circular.h"
#include "flows/piecewise_quadratic.h"
#include "flows/sigmoid_mixture.h"
#include "flows/squash.h"

namespace hepops::flows {
namespace {

constexpr int most = 8;  // raw parameters
using D = core::Dual<double, most + 1>;

template <class T>
struct Numbers {
  std::vector<T> values;
  Lane<T> lane() { return {values.data(), 1}; }
};

template <class B>
Numbers<D> duals(const B& bijection, const std::vector<double>& raw) {
  Numbers<D> numbers{std::vector<D>(bijection.slots() + 1, D(0.0))};
  for (size_t k = 0; k < raw.size(); ++k) numbers.values[k] = D(raw[k], int(k) + 1);
  return numbers;
}

template <class B>
Numbers<double> plain(const B& bijection, const std::vector<double>& raw) {
  Numbers<double> numbers{raw};
  numbers.values.resize(bijection.slots() + 1);
  return numbers;
}

template <class B>
void check(const B& bijection, int parameters, double low, double high, double size = 1) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(low, high);
  std::normal_distribution<double> normal(0, size);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<double> raw(parameters);
    for (double& r : raw) r = normal(random);
    const double x = uniform(random), a = normal(random), b = normal(random);

    auto dual = duals(bijection, raw);
    const Image<D> exact = apply(bijection, D(x, 0), dual.lane(), false);
    EXPECT_NEAR(exact.logdet.value, std::log(exact.value.slope[0]), 1e-12) << trial;  // l is the logarithm of f_x

    auto forward = plain(bijection, raw), backward = plain(bijection, raw);
    const Image<double> image = apply(bijection, x, forward.lane(), false);
    EXPECT_DOUBLE_EQ(image.value, exact.value.value);
    const double grad_x = apply_backward(bijection, Image<double>{a, b}, x, backward.lane(), false);
    const auto slope = [&](int n) { return a * exact.value.slope[n] + b * exact.logdet.slope[n]; };
    const auto near = [&](int n) {
      return 1e-12 * (1 + std::abs(a * exact.value.slope[n]) + std::abs(b * exact.logdet.slope[n]));
    };
    EXPECT_NEAR(grad_x, slope(0), near(0));
    for (int k = 0; k < parameters; ++k) EXPECT_NEAR(backward.values[k], slope(k + 1), near(k + 1)) << k;

    // the inverse: x = f^-1(y) moves by -f_k / f_x and 1 / f_x, l along with it
    auto inverse = plain(bijection, raw), solution = plain(bijection, raw);
    const Image<double> back = apply(bijection, image.value, solution.lane(), true);
    EXPECT_NEAR(back.value, x, 1e-13 * (1 + std::abs(x) + (1 + std::abs(image.value)) / exact.value.slope[0]));
    EXPECT_NEAR(back.logdet, -image.logdet, 1e-9);
    const double A = apply_backward(bijection, Image<double>{a, b}, x, inverse.lane(), true);
    const double f_x = exact.value.slope[0], expected = (a - b * exact.logdet.slope[0]) / f_x;
    EXPECT_NEAR(A, expected, 1e-11 * (1 + std::abs(a / f_x) + std::abs(b * exact.logdet.slope[0] / f_x)));
    for (int k = 0; k < parameters; ++k) {
      const double f_k = exact.value.slope[k + 1], l_k = exact.logdet.slope[k + 1];
      const double scale = std::abs(expected * f_k) + std::abs(b * l_k);
      EXPECT_NEAR(inverse.values[k], -expected * f_k - b * l_k, 1e-11 * (1 + scale)) << k;
    }
  }
}

TEST(Bijection, AffineInAllForms) {
  for (int scale = 0; scale <= int(Scale::Sigmoid); ++scale) {
    const double limit[] = {0, 6.9, 5, 1e-3, 1e-3};
    check(Affine{Scale(scale), limit[scale]}, 2, -3, 3);
  }
}

TEST(Bijection, Circular) {
  check(Circular{1, false}, 2, -2, 2, 0.5);
  check(Circular{3, false}, 4, -2, 2, 0.5);
  check(Circular{3, true}, 7, -2, 2, 0.5);
}

TEST(Bijection, SigmoidMixture) {
  check(SigmoidMixture{1}, 3, -3, 3);
  check(SigmoidMixture{2}, 6, -3, 3, 2);
}

TEST(Bijection, SigmoidMixtureFarOut) {
  const SigmoidMixture mixture{2};
  const std::vector<double> raw{0.5, 3.0, 0.3, -1.0, 0.0, 0.7};
  for (const double x : {-1e5, -900.0, 900.0, 1e5}) {
    auto dual = duals(mixture, raw);
    const auto image = apply(mixture, D(x, 0), dual.lane(), false);
    EXPECT_NEAR(image.value.slope[0], softplus(0.5) + 1e-3, 1e-12);
    auto back = plain(mixture, raw);
    EXPECT_NEAR(apply(mixture, image.value.value, back.lane(), true).value, x, 1e-12 * std::abs(x));
  }
}

TEST(Bijection, Piecewise) {
  check(PiecewiseLinear{4}, 4, 0, 1);
  check(PiecewiseQuadratic{1}, 3, 0, 1);
  check(PiecewiseQuadratic{3}, 7, 0, 1, 2);
}

TEST(Bijection, Squash) {
  for (int kind = 0; kind <= int(Kind::Sigmoid); ++kind) check(Squash{Kind(kind)}, 0, -3, 3);
}

// A lane of a pack is a number of its own.
template <class B>
void check_packs(const B& bijection, int parameters, double low, double high) {
  using core::Packed;
  std::mt19937 random(2);
  std::uniform_real_distribution<double> uniform(low, high);
  std::normal_distribution<double> normal(0, 2);
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<Packed> raw(bijection.slots() + 1, Packed(0.0));
    Packed x;
    for (int lane = 0; lane < Packed::size; ++lane) {
      x.v[lane] = uniform(random);
      for (int k = 0; k < parameters; ++k) raw[k].v[lane] = normal(random);
    }
    for (const bool inverse : {false, true}) {
      auto working = raw;
      const auto image = apply(bijection, x, Lane<Packed>{working.data(), 1}, inverse);
      for (int lane = 0; lane < Packed::size; ++lane) {
        std::vector<double> own(bijection.slots() + 1);
        for (int k = 0; k < parameters; ++k) own[k] = raw[k].v[lane];
        const auto one = apply(bijection, double(x.v[lane]), Lane<double>{own.data(), 1}, inverse);
        const double steep = 1 + std::exp(one.logdet);
        EXPECT_NEAR(image.value.v[lane], one.value, 4e-14 * steep * (1 + std::abs(one.value)));
        EXPECT_NEAR(image.logdet.v[lane], one.logdet, 1e-10);
      }
    }
  }
}

TEST(Bijection, PacksAreNumbers) {
  check_packs(Circular{3, true}, 7, -2, 2);
  check_packs(SigmoidMixture{3}, 9, -3, 3);
  check_packs(PiecewiseQuadratic{3}, 7, 0, 1);
  check_packs(Affine{Scale::Tanh, 5}, 2, -3, 3);
}

TEST(Bijection, SolveNeedsNoGoodSlope) {
  // flat but for a step: Newton's steps leave the bracket, halvings find it
  const auto step = [](double x) { return Image<double>{std::tanh(1e6 * (x - 0.123)), 1e-30}; };
  EXPECT_NEAR(solve(step, 0.5, 0.0, 1.0, 1e-16), 0.123 + std::atanh(0.5) * 1e-6, 1e-15);
  const auto nothing = [](double) { return Image<double>{std::nan(""), 1.0}; };
  EXPECT_TRUE(std::isfinite(solve(nothing, 0.5, 0.0, 1.0, 1e-16)));  // and ends
}

}  // namespace
}  // namespace hepops::flows
