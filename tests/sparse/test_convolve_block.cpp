// The GPU's convolution and weight gradient, run on the host thread by thread (core/block.h), against the plain form.
//
// Numbers have few bits, so that every product and sum is exact whatever its order: equal means equal.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "sparse/convolve_block.h"
#include "sparse/gpu_table.h"
#include "sparse/weight_gradient_block.h"

namespace hepops::sparse {
namespace {

template <class Kind>
struct Number {
  using Stored = typename Kind::Stored;
  Stored bits;
  Number() = default;
  explicit Number(float x) { core::from_float(Kind{}, x, bits); }
  explicit operator float() const { return core::to_float(Kind{}, bits); }
  explicit operator double() const { return float(*this); }
};

template <class I>
struct List {
  std::vector<Pair<I>> pairs;
  std::vector<Entry<I>> entries;
  std::vector<I> tiles{0}, schedule;
  PairList<I> view() const {
    return {pairs.data(),
            entries.data(),
            tiles.data(),
            schedule.data(),
            int64_t(pairs.size()),
            int64_t(entries.size()) - 1,
            int64_t(tiles.size()) - 1,
            int64_t(schedule.size()),
            tile_on_gpu};
  }
};

std::mt19937 seeded;

int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(seeded); }

// Pairs at random: an entry has one in `every` places; some tiles have no entry at all.
template <class I>
List<I> random_list(int read, int written, int volume, int every) {
  List<I> list;
  for (int i = 0; i < written; ++i) list.schedule.push_back(I(i));
  std::shuffle(list.schedule.begin(), list.schedule.end(), seeded);
  for (int first = 0; first < written; first += int(tile_on_gpu)) {
    for (int k = 0; k < volume && first / tile_on_gpu % 4 != 3; ++k) {
      const auto before = I(list.pairs.size());
      for (int place = first; place < std::min(first + int(tile_on_gpu), written); ++place)
        if (pick(1, every) == 1) list.pairs.push_back({I(pick(0, read - 1)), I(place)});
      if (I(list.pairs.size()) > before) list.entries.push_back({before, I(k)});
    }
    list.tiles.push_back(I(list.entries.size()));
  }
  list.entries.push_back({I(list.pairs.size()), I(-1)});
  return list;
}

// 16-byte aligned, as torch's memory is.
template <class T>
struct Array {
  std::vector<core::Scratch> memory;
  size_t size;
  explicit Array(size_t n) : memory(n * sizeof(T) / 16 + 1), size(n) {}
  T* data() { return reinterpret_cast<T*>(memory.data()); }
  T& operator[](size_t i) { return data()[i]; }
};

template <class T>
Array<T> random_array(size_t n, float unit) {
  Array<T> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = T(unit * float(pick(-3, 3)));
  return x;
}

struct Case {
  int read, written, volume, every, in, out, groups, splits;
  bool flip;
};

template <class S>
void expect_equal(Array<S>& a, Array<S>& b) {
  int wrong = 0;
  for (size_t i = 0; i < a.size; ++i) wrong += float(a[i]) != float(b[i]);
  EXPECT_EQ(wrong, 0) << " of " << a.size;
}

constexpr core::Manner manners[] = {{false, false}, {true, true}};

template <class Body, class Task>
void run_block(const Body& body, int64_t blocks, core::Manner manner, Task) {
  for (int64_t b = 0; b < blocks; ++b) {
    core::HostBlock<Body::threads, typename Body::Registers> block(sizeof(typename Body::Shared), manner);
    body(block, b);
    ASSERT_EQ(block.fault(), "") << "block " << b;
  }
}

template <class Kind, class I, int N, bool transposed>
void check_convolution(const Case& p, core::Manner manner) {
  using S = Number<Kind>;
  using C = Convolution<S, S, I>;
  SCOPED_TRACE(testing::Message() << "in " << p.in << " out " << p.out << " groups " << p.groups << " N " << N
                                  << " splits " << p.splits << " transposed " << transposed << " flip " << p.flip);
  seeded.seed(unsigned(p.in * 1000 + p.out));
  const List<I> list = random_list<I>(p.read, p.written, p.volume, p.every);
  auto x = random_array<S>(size_t(p.read) * p.in, 0.5f);
  auto weight = random_array<S>(size_t(p.volume) * p.in * p.out / p.groups, 0.25f);
  auto bias = random_array<float>(p.out, 1), scale = random_array<float>(p.out, 1),
       shift = random_array<float>(p.out, 1);
  auto residual = random_array<S>(size_t(p.written) * p.out, 1);
  Array<S> raw(residual.size), plain_raw(residual.size), act(residual.size), plain_act(residual.size);
  Array<double> moments(2 * list.view().num_tiles * p.out), plain_moments(moments.size);
  C c{x.data(),
      weight.data(),
      list.view(),
      p.volume,
      p.read,
      p.in,
      p.out,
      p.groups,
      p.flip,
      transposed,
      {bias.data(), residual.data(), scale.data(), shift.data(), 0.5f, plain_raw.data(), plain_act.data(),
       plain_moments.data()}};
  for (int64_t n = 0; n < c.list.num_rows * c.out; ++n) ConvolveAt<C>{c}(n);
  for (int64_t n = 0; n < c.list.num_tiles * c.out; ++n) MomentsAt<C>{c}(n);

  c.epilogue.raw = raw.data(), c.epilogue.activated = act.data(), c.epilogue.moments = moments.data();
  using Body = ConvolveBlock<Kind, C, N, transposed>;
  Array<float> partial(p.splits * residual.size);
  const auto whole = [](int64_t channels) { return channels * sizeof(S) % 16 == 0; };
  const int64_t group_in = p.in / p.groups, group_out = p.out / p.groups;
  const Body body{c, p.splits, p.splits > 1 ? partial.data() : nullptr, whole(group_in),
                  whole(transposed ? group_in : group_out)};
  run_block(body, c.list.num_tiles * c.groups * TileTask<C>::blocks_of_channels(c, N) * p.splits, manner, 0);
  if (p.splits > 1) {
    using Sums = ConvolveSums<C>;
    run_block(Sums{c, p.splits, partial.data()},
              c.list.num_tiles * c.groups * TileTask<C>::blocks_of_channels(c, Sums::N), manner, 0);
  }
  expect_equal(raw, plain_raw);
  expect_equal(act, plain_act);
  for (size_t i = 0; i < moments.size; ++i)
    EXPECT_NEAR(moments[i], plain_moments[i], 1e-14 * (1 + std::abs(plain_moments[i])));  // another order of the sum
}

template <class Kind>
void check_convolutions() {
  //                        read written K every in out groups splits flip
  for (const Case& p : {Case{130, 150, 11, 2, 32, 32, 1, 1, false}, Case{100, 330, 8, 3, 40, 72, 1, 2, true},
                        Case{50, 70, 3, 1, 1, 40, 1, 1, false}, Case{90, 64, 40, 20, 5, 3, 1, 3, true},
                        Case{7, 1, 2, 1, 160, 8, 1, 1, false}}) {
    check_convolution<Kind, int32_t, 32, false>(p, manners[0]);
    check_convolution<Kind, int32_t, 64, true>(p, manners[1]);
  }
  for (const Case& p : {Case{130, 129, 5, 2, 80, 48, 2, 1, false}, Case{60, 200, 5, 4, 24, 16, 4, 2, true}}) {
    check_convolution<Kind, int64_t, 64, false>(p, manners[1]);
    check_convolution<Kind, int32_t, 32, true>(p, manners[0]);
  }
}

TEST(ConvolveBlock, Bf16) { check_convolutions<core::Bf16>(); }
TEST(ConvolveBlock, Fp16) { check_convolutions<core::Fp16>(); }
TEST(ConvolveBlock, Tf32) { check_convolutions<core::Tf32>(); }
TEST(ConvolveBlock, Fp32) { check_convolutions<core::Fp32>(); }

TEST(ConvolveBlock, ALinearLayerReadsEachRowItself) {
  for (const int rows : {1, 64, 150}) {
    List<int32_t> list;
    list.pairs.resize(rows), list.schedule.resize(rows);
    const int tiles = int(divided(rows, tile_on_gpu));
    list.entries.resize(tiles + 1), list.tiles.resize(tiles + 1);
    for (int n = 0; n <= rows; ++n)
      Itself{list.pairs.data(), list.entries.data(), list.tiles.data(), list.schedule.data(), rows, tiles}(n);
    using C = Convolution<float, float, int32_t>;
    auto x = random_array<float>(size_t(rows) * 40, 0.5f), weight = random_array<float>(40 * 36, 0.25f);
    Array<float> y(size_t(rows) * 36), exact(y.size);
    const C c{x.data(),
              weight.data(),
              list.view(),
              1,
              rows,
              40,
              36,
              1,
              false,
              false,
              {nullptr, nullptr, nullptr, nullptr, 1, y.data(), nullptr, nullptr}};
    run_block(ConvolveBlock<core::Fp32, C, 32, false>{c, 1, nullptr, true, true}, 2 * tiles, {}, 0);
    for (int row = 0; row < rows; ++row)
      for (int o = 0; o < 36; ++o) {
        exact[row * 36 + o] = 0;
        for (int i = 0; i < 40; ++i) exact[row * 36 + o] += x[row * 40 + i] * weight[i * 36 + o];
      }
    expect_equal(y, exact);
  }
}

template <class Kind, class I, int M, int N>
void check_weight_gradient(const Case& p, bool transposed, bool sorted, core::Manner manner) {
  using S = Number<Kind>;
  using G = WeightGradient<S, I>;
  SCOPED_TRACE(testing::Message() << "in " << p.in << " out " << p.out << " groups " << p.groups << " M " << M << " N "
                                  << N << " splits " << p.splits << " transposed " << transposed << " sorted "
                                  << sorted);
  seeded.seed(unsigned(p.in * 1000 + p.out));
  const List<I> list = random_list<I>(p.read, p.written, p.volume, p.every);
  auto x = random_array<S>(size_t(p.read) * p.in, 0.5f), grad = random_array<S>(size_t(p.written) * p.out, 0.25f);
  Array<float> plain(size_t(p.volume) * p.in * p.out / p.groups), gradient(plain.size), partial(plain.size * p.splits);
  G f{x.data(), grad.data(), list.view(), plain.data(), p.volume, p.read, p.in, p.out, p.groups, p.flip, transposed};
  for (int64_t n = 0; n < int64_t(plain.size); ++n) WeightGradientAt<G>{f}(n);

  std::vector<int64_t> keys, order;
  if (sorted) {
    std::multimap<int64_t, int64_t> by_offset;
    for (int64_t e = 0; e < f.list.num_entries; ++e) by_offset.emplace(list.entries[e].offset, e);
    for (const auto& [k, e] : by_offset) keys.push_back(k), order.push_back(e);
  }
  for (size_t i = 0; i < plain.size; ++i) gradient[i] = sorted ? 0 : NAN;
  for (size_t i = 0; i < partial.size; ++i) partial[i] = NAN;
  const bool split = p.splits > 1 && !sorted;
  const auto whole = [&](int64_t channels) { return channels / p.groups * sizeof(S) % 16 == 0; };
  f.gradient = gradient.data();
  const WeightGradientBlock<Kind, G, M, N> body{f,
                                                split ? partial.data() : gradient.data(),
                                                sorted ? 1 : p.splits,
                                                sorted ? keys.data() : nullptr,
                                                sorted ? order.data() : nullptr,
                                                whole(p.in),
                                                whole(p.out)};
  run_block(body, body.blocks(), manner, 0);
  if (split)
    for (size_t i = 0; i < plain.size; ++i)
      AddPartials{partial.data(), gradient.data(), int64_t(plain.size), p.splits}(int64_t(i));
  expect_equal(gradient, plain);
}

template <class Kind>
void check_weight_gradients() {
  for (const Case& p : {Case{300, 1300, 2, 2, 32, 32, 1, 1, false}, Case{100, 330, 8, 3, 40, 72, 1, 2, true},
                        Case{50, 70, 3, 1, 1, 40, 1, 1, false}, Case{90, 64, 40, 20, 5, 3, 1, 1, true}})
    for (const bool sorted : {false, true})
      check_weight_gradient<Kind, int32_t, 32, 32>(p, !sorted, sorted, manners[sorted]);
  for (const Case& p : {Case{130, 129, 5, 2, 80, 48, 2, 1, false}, Case{60, 300, 9, 4, 24, 16, 4, 3, true}})
    for (const bool transposed : {false, true})
      check_weight_gradient<Kind, int64_t, 64, 64>(p, transposed, !transposed, manners[transposed]);
}

TEST(WeightGradientBlock, Bf16) { check_weight_gradients<core::Bf16>(); }
TEST(WeightGradientBlock, Fp16) { check_weight_gradients<core::Fp16>(); }
TEST(WeightGradientBlock, Tf32) { check_weight_gradients<core::Tf32>(); }
TEST(WeightGradientBlock, Fp32) { check_weight_gradients<core::Fp32>(); }

TEST(GpuTable, FillsTheCardWhereItCan) {
  for (const int64_t rows : {1, 64, 300, 5000, 20'000, 1'000'000})
    for (const int64_t volume : {1, 8, 27, 125})
      for (const int64_t channels : {1, 3, 32, 33, 96, 160}) {
        const auto forward = choose_convolve(rows, volume, channels, channels, 1);
        EXPECT_TRUE(forward.tiles);
        EXPECT_TRUE(forward.channels == 32 || forward.channels == 64);
        EXPECT_GE(forward.splits, 1);
        EXPECT_LE(forward.splits, divided(volume, 3));  // a split that gets no entries would only cost
        const int64_t blocks = divided(rows, 64) * divided(channels, forward.channels) * forward.splits;
        EXPECT_TRUE(forward.splits == 1 || blocks <= wave);
        EXPECT_LE(forward.splits == 1 ? 0 : forward.splits * rows, 64 * wave);  // so that partial sums stay small
        const auto backward = choose_weight_gradient(rows, volume, channels, channels, 1);
        EXPECT_FALSE(backward.sorted);
        EXPECT_GE(backward.splits, divided(divided(rows, 64), 512));
        EXPECT_LE(backward.splits, divided(rows, 64));
      }
  EXPECT_TRUE(choose_weight_gradient(20'000, 110'592, 32, 32, 1).sorted);
  EXPECT_FALSE(choose_convolve(20'000, 27, 1, 1, 32).tiles);
}

}  // namespace
}  // namespace hepops::sparse
