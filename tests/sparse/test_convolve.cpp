#include "sparse/convolve_cpu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "../core/threads.h"
#include "sparse/weight_gradient_cpu.h"

namespace hepops::sparse {

// A bfloat16 of our own, since torch's is not for tests without torch.
struct TestBrain {
  uint16_t bits;
  TestBrain(float x = 0) : bits(to_brain(x).bits) {}
  operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};
template <>
inline constexpr Half half_of<TestBrain> = Half::brain;
#ifdef __FLT16_MANT_DIG__
template <>
inline constexpr Half half_of<_Float16> = Half::ieee;
#endif

namespace {

// Some tiles of rows, each offset meeting about half of them; rows are read at random.
struct List {
  std::vector<Pair<int64_t>> pairs;
  std::vector<Entry<int64_t>> entries;
  std::vector<int64_t> tiles{0}, schedule;
  int64_t tile;

  List(int64_t read, int64_t written, int64_t volume, int64_t tile_) : tile(tile_) {
    std::mt19937 random(3);
    for (int64_t n = 0; n < written; ++n) schedule.push_back(n);
    std::shuffle(schedule.begin(), schedule.end(), random);
    for (int64_t first = 0; first < written; first += tile) {
      for (int64_t k = 0; k < volume; ++k) {
        if (random() % 4 == 0) continue;
        const int64_t start = pairs.size();
        for (int64_t place = first; place < std::min(first + tile, written); ++place)
          if (random() % 2) pairs.push_back({int64_t(random() % read), place});
        if (int64_t(pairs.size()) > start) entries.push_back({start, k});
      }
      tiles.push_back(entries.size());
    }
    entries.push_back({int64_t(pairs.size()), -1});
  }

  PairList<int64_t> list() const {
    return {pairs.data(),
            entries.data(),
            tiles.data(),
            schedule.data(),
            int64_t(pairs.size()),
            int64_t(entries.size()) - 1,
            int64_t(tiles.size()) - 1,
            int64_t(schedule.size()),
            tile};
  }
};

std::vector<double> numbers(int64_t size, int seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<double> x(size);
  for (double& a : x) a = uniform(random);
  return x;
}

constexpr int64_t read = 200, written = 600, volume = 5;

struct Layer {
  int64_t in, out, groups;
  bool flip, transposed;
};

std::vector<Layer> layers() {
  std::vector<Layer> all;
  for (const bool transposed : {false, true}) {
    for (const int64_t out : {1, 2, 3, 5, 8, 15, 16, 17, 40, 64, 96, 161})
      all.push_back({7, out, 1, false, transposed});
    for (const int64_t in : {1, 4, 32, 33}) all.push_back({in, 20, 1, true, transposed});
    all.push_back({6, 4, 2, false, transposed});
    all.push_back({9, 51, 3, true, transposed});
  }
  return all;
}

TEST(Convolve, TunedIsPlain) {
  const List list(read, written, volume, 256);
  for (const auto& [in, out, groups, flip, transposed] : layers()) {
    const auto x = numbers(read * in, 1), w = numbers(volume * in * out / groups, 2), bias = numbers(out, 3),
               residual = numbers(written * out, 4), scale = numbers(out, 5), shift = numbers(out, 6);
    const int64_t tiles = list.list().num_tiles;
    std::vector<double> raw[2], activated[2], moments[2];
    for (const int tuned : {0, 1}) {
      raw[tuned].resize(written * out), activated[tuned].resize(written * out), moments[tuned].resize(2 * tiles * out);
      const Convolution<double, double, int64_t> c{x.data(),
                                                   w.data(),
                                                   list.list(),
                                                   volume,
                                                   read,
                                                   in,
                                                   out,
                                                   groups,
                                                   flip,
                                                   transposed,
                                                   {bias.data(), residual.data(), scale.data(), shift.data(), 0.33,
                                                    raw[tuned].data(), activated[tuned].data(), moments[tuned].data()}};
      if (tuned) {
        convolve_on_host(c, core::PlainThreads{3});
      } else {
        for (int64_t n = 0; n < written * out; ++n) ConvolveAt<Convolution<double, double, int64_t>>{c}(n);
        for (int64_t n = 0; n < tiles * out; ++n) MomentsAt<Convolution<double, double, int64_t>>{c}(n);
      }
    }
    for (int64_t n = 0; n < written * out; ++n) {
      ASSERT_NEAR(raw[0][n], raw[1][n], 1e-13) << in << " to " << out;
      ASSERT_NEAR(activated[0][n], activated[1][n], 1e-13) << in << " to " << out;
    }
    for (int64_t n = 0; n < 2 * tiles * out; ++n)
      ASSERT_NEAR(moments[0][n], moments[1][n], 1e-11) << in << " to " << out;
  }
}

TEST(Convolve, TunedGradientIsPlain) {
  const List list(read, written, volume, 256);
  for (const auto& [in, out, groups, flip, transposed] : layers()) {
    const auto x = numbers(read * in, 1), grad = numbers(written * out, 2);
    std::vector<double> gradient[2];
    for (const int tuned : {0, 1}) {
      gradient[tuned].assign(volume * in * out / groups, 77);
      const WeightGradient<double, int64_t> f{
          x.data(), grad.data(), list.list(), gradient[tuned].data(), volume, read, in, out, groups, flip, transposed};
      if (tuned)
        weight_gradient_on_host(f, core::PlainThreads{3});
      else
        for (size_t n = 0; n < gradient[0].size(); ++n) WeightGradientAt<WeightGradient<double, int64_t>>{f}(n);
    }
    for (size_t n = 0; n < gradient[0].size(); ++n)
      ASSERT_NEAR(gradient[0][n], gradient[1][n], 1e-11) << in << " to " << out;
  }
}

TEST(Convolve, ThreadsDoNotMatter) {
  const int64_t in = 33, out = 70, rows = 20000;
  const List list(read, rows, volume, 256);
  const auto x = numbers(read * in, 1), w = numbers(volume * in * out, 2), grad = numbers(rows * out, 3);
  std::vector<float> xf(x.begin(), x.end()), wf(w.begin(), w.end()), gf(grad.begin(), grad.end());
  std::vector<float> y(rows * out), gradient(volume * in * out), first_y, first_gradient;
  for (const int64_t threads : {1, 2, 7}) {
    convolve_on_host(
        Convolution<float, float, int64_t>{xf.data(),
                                           wf.data(),
                                           list.list(),
                                           volume,
                                           read,
                                           in,
                                           out,
                                           1,
                                           false,
                                           false,
                                           {nullptr, nullptr, nullptr, nullptr, 1, y.data(), nullptr, nullptr}},
        core::PlainThreads{threads});
    weight_gradient_on_host(WeightGradient<float, int64_t>{xf.data(), gf.data(), list.list(), gradient.data(), volume,
                                                           read, in, out, 1, false, false},
                            core::PlainThreads{threads});
    if (threads == 1) first_y = y, first_gradient = gradient;
    EXPECT_EQ(first_y, y) << threads;
    EXPECT_EQ(first_gradient, gradient) << threads;
  }
}

// Rounded once: a unit of the last place where the sums in float fall on its edge.
template <class S>
void halves(float eps) {
  const List list(read, written, volume, 256);
  for (const auto& [in, out, groups, flip, transposed] : layers()) {
    const auto xd = numbers(read * in, 1), wd = numbers(volume * in * out / groups, 2);
    std::vector<S> x, w, y[2];
    for (const double a : xd) x.push_back(S(float(a)));
    for (const double a : wd) w.push_back(S(float(a)));
    for (const int tuned : {0, 1}) {
      y[tuned].resize(written * out);
      const Convolution<S, S, int64_t> c{x.data(),
                                         w.data(),
                                         list.list(),
                                         volume,
                                         read,
                                         in,
                                         out,
                                         groups,
                                         flip,
                                         transposed,
                                         {nullptr, nullptr, nullptr, nullptr, 1, y[tuned].data(), nullptr, nullptr}};
      if (tuned)
        convolve_on_host(c, core::PlainThreads{2});
      else
        for (int64_t n = 0; n < written * out; ++n) ConvolveAt<Convolution<S, S, int64_t>>{c}(n);
    }
    for (int64_t n = 0; n < written * out; ++n)
      ASSERT_NEAR(float(y[0][n]), float(y[1][n]), eps * std::abs(float(y[0][n])) + 1e-5f) << in << " to " << out;
  }
}

TEST(Convolve, TunedIsPlainInBrainFloat) { halves<TestBrain>(1.0f / 128); }
#ifdef __FLT16_MANT_DIG__
TEST(Convolve, TunedIsPlainInHalf) { halves<_Float16>(1.0f / 1024); }
#endif

TEST(Convolve, HalvesKeepNanAndInfinity) {
  constexpr int V = full_lanes<float>;
  float from[V], back[V];
  TestBrain to[V];
  for (const float x : {NAN, -NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 3e38f, 1.0f, 1.00390625f, 1.01171875f}) {
    std::fill_n(from, V, x);
    store_narrow<TestBrain, V>(to, Simd<float, V>::load(from));
    Simd<float, V>::store(back, load_wide<TestBrain, V>(to));
    for (int n = 0; n < V; ++n) {
      EXPECT_EQ(to[n].bits, TestBrain(x).bits);
      EXPECT_EQ(std::isnan(back[n]), std::isnan(x));
      if (std::isfinite(x)) {
        EXPECT_NEAR(back[n], x, std::abs(x) / 256);
      } else if (!std::isnan(x)) {
        EXPECT_EQ(back[n], x);
      }
    }
  }
}

TEST(Convolve, ZerosThatAreNotTouched) {
  for (const size_t bytes : {size_t(0), size_t(1), size_t(100), size_t(5) << 20, (size_t(20) << 20) + 12345}) {
    std::vector<char> memory(bytes + 3, 1);
    zero_lazily(memory.data() + 1, bytes);
    EXPECT_EQ(memory[0], 1);
    EXPECT_EQ(memory[bytes + 1], 1);
    EXPECT_EQ(std::count(memory.begin() + 1, memory.begin() + 1 + bytes, 0), int64_t(bytes));
  }
}

}  // namespace
}  // namespace hepops::sparse
