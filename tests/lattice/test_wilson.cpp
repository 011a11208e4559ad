// The blocked form against the plain one, a matrix at a time, and exponentials against their series.
#include <gtest/gtest.h>

#include <random>

#include "core/parallel.h"
#include "lattice/blocked_wilson.h"
#include "lattice/trajectory.h"

namespace hepops::lattice {
namespace {

constexpr int N = 2, M = 2 * N * N;

struct Sample {
  Lattice lattice;
  int64_t batch;
  std::vector<double> U, V;

  Sample(std::vector<int64_t> extents, int64_t batch) : lattice(extents, int(extents.size())), batch(batch) {
    std::mt19937 bits(1);
    std::normal_distribution<double> normal;
    for (auto* field : {&U, &V}) {
      field->resize(batch * lattice.dims * lattice.sites * M);
      for (double& x : *field) x = normal(bits);
    }
  }
  int64_t size() const { return lattice.dims * lattice.sites * M; }
};

class Blocked : public testing::TestWithParam<std::vector<int64_t>> {};

TEST_P(Blocked, AgreesWithThePlainForm) {
  const Sample sample(GetParam(), 3);
  const auto& lattice = sample.lattice;
  const Fold<double> fold(lattice);
  const int D = lattice.dims;
  const StapleWords words;
  for (int64_t group = 0; group < fold.groups(sample.batch); ++group) {
    const int64_t numbers = fold.blocks.sites * D * M * fold.V;
    const core::Buffer<double> u(numbers), v(numbers);
    pack<M>(fold, sample.U.data(), group, sample.batch, D, u.get(), core::Serial{});
    pack<M>(fold, sample.V.data(), group, sample.batch, D, v.get(), core::Serial{});
    const Field<N, double> field{fold, u.get(), v.get()}, still{fold, u.get(), nullptr};
    const Coefficients c{0.7, 0.2};
    const Weights<double> weights(c), plain(Coefficients{1, 0});
    const auto check = [&](const Weights<double>& w, int64_t block, int mu, const double* A, const double* DA) {
      for (int lane = 0; lane < fold.V; ++lane) {
        const int64_t config = group * fold.configs + fold.config_of_lane(lane);
        if (config >= sample.batch) continue;
        const int64_t site = fold.site(block) + fold.site_of_lane[lane];
        const Links<double, double, N> U{sample.U.data() + config * sample.size(), lattice};
        const MovingLinks<double, double, N> moving{U, {sample.V.data() + config * sample.size(), lattice}, lattice};
        const auto exact = staple_sum(moving, site, mu, words, w.words(),
                                      [&](const Word& word, int) { return w.rectangles ? c.of(word) : 1.0; });
        for (int k = 0; k < N * N; ++k) {
          const auto& z = exact(k / N, k % N);
          EXPECT_NEAR(A[2 * k * fold.V + lane], z.real.value, 1e-11);
          EXPECT_NEAR(A[(2 * k + 1) * fold.V + lane], z.imag.value, 1e-11);
          if (DA) EXPECT_NEAR(DA[2 * k * fold.V + lane], z.real.slope[0], 1e-10);
        }
      }
    };
    for_staples<true>(
        field, weights, 0, fold.blocks.sites,
        [&](int64_t block, int mu, const double* A, const double* DA) { check(weights, block, mu, A, DA); });
    for_staples<false>(still, plain, 0, fold.blocks.sites, [&](int64_t block, int mu, const double* A, const double*) {
      check(plain, block, mu, A, nullptr);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Extents, Blocked,
                         testing::Values(std::vector<int64_t>{4, 4}, std::vector<int64_t>{3, 1},
                                         std::vector<int64_t>{2, 3, 4}, std::vector<int64_t>{2, 1, 2, 6}));

// e^X of a matrix that is halved and of a small one, against 60 terms of the series
TEST(Exponential, IsItsSeries) {
  for (const double size : {0.1, 2.0}) {
    Matrix<double, 3> X{};
    std::mt19937 bits(2);
    std::normal_distribution<double> normal;
    for (auto& row : X.entries)
      for (auto& z : row) z = {normal(bits), normal(bits)};
    X = size * traceless_antihermitian(X);
    auto term = Matrix<double, 3>::identity(), sum = term;
    for (int k = 1; k < 60; ++k) sum += term = (1.0 / k) * (term * X);
    const auto ours = exponential(X);
    const auto one = ours * adjoint(ours);
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) {
        EXPECT_NEAR(ours(i, j).real, sum(i, j).real, size > 1 ? 1e-12 : 2e-16 * 8);  // the series cancels
        EXPECT_NEAR(ours(i, j).imag, sum(i, j).imag, size > 1 ? 1e-12 : 2e-16 * 8);
        EXPECT_NEAR(one(i, j).real, i == j, 1e-13);
      }
  }
}

}  // namespace
}  // namespace hepops::lattice
