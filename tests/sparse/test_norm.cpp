#include "sparse/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "core/dual.h"
#include "sparse/norm_cpu.h"

namespace hepops::sparse {
namespace {

constexpr int64_t tile = 256;

std::vector<double> random_numbers(int64_t n, double mean = 0) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal(mean, 1);
  std::vector<double> x(n);
  for (double& v : x) v = normal(random);
  return x;
}

// A team of one works through the plain form, as it would on a GPU with many.
template <class F>
void run_plain(const F& f, int64_t items) {
  core::for_each_row_on_host(items, norm_scratch(1), f);
}

struct Case {
  int64_t rows, channels;
};
const Case cases[] = {{1, 1}, {255, 3}, {256, 8}, {257, 31}, {1000, 32}, {700, 33}, {513, 47}, {300, 100}};

TEST(Norm, FastMomentsOfTilesAreThePlainOnes) {
  for (const auto& [rows, channels] : cases) {
    const auto x = random_numbers(rows * channels, 5);
    const int64_t tiles = (rows + tile - 1) / tile;
    std::vector<double> plain(tiles * 2 * channels), fast(plain.size());
    run_plain(TileMoments<double>{x.data(), plain.data(), rows, tile, channels}, NormTile::count(rows, tile, channels));
    moments_on_host<double, double>(TileMoments<double>{x.data(), fast.data(), rows, tile, channels});
    for (size_t i = 0; i < plain.size(); ++i) EXPECT_NEAR(fast[i], plain[i], 1e-12 * (1 + std::abs(plain[i])));
  }
}

TEST(Norm, FastSumsOfTilesAreThePlainOnes) {
  for (const auto& [rows, channels] : cases) {
    const auto x = random_numbers(rows * channels), grad = random_numbers(rows * channels, 0.3);
    const auto constants = random_numbers(3 * channels, 1);
    const int64_t tiles = (rows + tile - 1) / tile;
    std::vector<double> plain(tiles * 2 * channels), fast(plain.size());
    const double* c = constants.data();
    TileSums<double, double> f{x.data(),     grad.data(), c,    c + channels, c + 2 * channels,
                               plain.data(), rows,        tile, channels,     0.2};
    run_plain(f, NormTile::count(rows, tile, channels));
    f.partial = fast.data();
    sums_on_host(f);
    for (size_t i = 0; i < plain.size(); ++i) EXPECT_NEAR(fast[i], plain[i], 1e-12 * (rows + std::abs(plain[i])));
  }
}

TEST(Norm, TilesCombineToTheMomentsOfTheWhole) {
  const int64_t rows = 1000, channels = 40, tiles = (rows + tile - 1) / tile;
  const auto x = random_numbers(rows * channels, 1e6);
  std::vector<double> partial(tiles * 2 * channels), mean(channels), variance(channels);
  moments_on_host<double, double>(TileMoments<double>{x.data(), partial.data(), rows, tile, channels});
  run_plain(CombineMoments{{partial.data(), rows, tile, channels}, mean.data(), variance.data()}, 2);
  for (int64_t c = 0; c < channels; ++c) {
    long double m = 0, v = 0;
    for (int64_t i = 0; i < rows; ++i) m += x[i * channels + c];
    m /= rows;
    for (int64_t i = 0; i < rows; ++i) v += (x[i * channels + c] - m) * (x[i * channels + c] - m);
    EXPECT_NEAR(mean[c], double(m), 1e-9);
    EXPECT_NEAR(variance[c], double(v / rows), 1e-9);
  }
}

TEST(Norm, TheRectifiersBackwardIsItsSlope) {
  for (const double slope : {0.0, 0.3, 1.0})
    for (const double z : {-2.0, -0.1, 0.1, 3.0}) {
      using D = core::Dual<double, 1>;
      EXPECT_EQ(rectify_backward(2.5, z, slope), 2.5 * rectify(D::with(z, {1.0}), D(slope)).slope[0]);
    }
}

TEST(Norm, TheCentreIsWhatTheScalarHolds) {
  const Column column{1e6 + 0.01, 2, 3, 0.5};
  const Affine<float> a = column.affine<float>();
  EXPECT_EQ(a.centre, 1e6f);
  EXPECT_NEAR(normalise(1e6f, a.centre, a.scale, a.shift), (1e6 - column.mean) * 6 + 0.5, 1e-6);
}

}  // namespace
}  // namespace hepops::sparse
