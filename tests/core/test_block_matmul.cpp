// The matrix product of a block, and the book that an emulated block keeps of its shared memory.
#include "core/block_matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace hepops::core {
namespace {

// What fits in few bits, so that products and their sums are exact in every kind.
template <class Kind, int M, int N, bool a_by_k, bool b_by_n>
void check_product() {
  using Product = BlockMatmul<Kind, M, N, a_by_k, b_by_n>;
  using Stored = typename Product::Stored;
  struct Shared {
    alignas(16) Stored a[Product::a_size];
    alignas(16) Stored b[Product::b_size];
  };
  constexpr int K = Product::depth;
  std::mt19937 random(7);
  std::uniform_int_distribution<int> number(-15, 15);
  std::vector<float> a(M * K), b(K * N);
  for (float& x : a) x = float(number(random)) / 4;
  for (float& x : b) x = float(number(random)) / 8;

  HostBlock<Product::threads, typename Product::Registers> block(sizeof(Shared), {});
  Shared& shared = *reinterpret_cast<Shared*>(block.memory);
  block.each([&](int thread, auto& r) {
    Product::clear(r);
    for (int i = thread; i < M * K; i += Product::threads) {
      const int m = i / K, k = i % K;
      Stored x;
      from_float(Kind{}, a[i], x);
      block.store(thread, shared.a + (a_by_k ? k * Product::a_stride + m : m * Product::a_stride + k), x);
    }
    for (int i = thread; i < K * N; i += Product::threads) {
      const int k = i / N, n = i % N;
      Stored x;
      from_float(Kind{}, b[i], x);
      block.store(thread, shared.b + (b_by_n ? n * Product::b_stride + k : k * Product::b_stride + n), x);
    }
  });
  block.sync();
  for (int twice = 0; twice < 2; ++twice)
    block.each_warp([&](const auto& warp) { Product::accumulate(warp, shared.a, shared.b); });
  std::vector<int> seen(M * N);
  block.each([&](int thread, auto& r) {
    Product::for_elements(thread, r, [&](int m, int n, float d) {
      float sum = 0;
      for (int k = 0; k < K; ++k) sum += a[m * K + k] * b[k * N + n];
      EXPECT_EQ(d, 2 * sum) << m << ' ' << n;
      ++seen[m * N + n];
    });
  });
  EXPECT_EQ(seen, std::vector<int>(M * N, 1));
  EXPECT_EQ(block.fault(), "");
}

template <class Kind>
void check_products() {
  check_product<Kind, 64, 64, false, false>();
  check_product<Kind, 64, 32, false, true>();
  check_product<Kind, 64, 64, false, true>();
  check_product<Kind, 64, 32, true, false>();
  check_product<Kind, 32, 32, true, false>();
  check_product<Kind, 64, 64, true, false>();
  check_product<Kind, 32, 64, true, true>();
}

TEST(BlockMatmul, Bf16) { check_products<Bf16>(); }
TEST(BlockMatmul, Fp16) { check_products<Fp16>(); }
TEST(BlockMatmul, Tf32) { check_products<Tf32>(); }
TEST(BlockMatmul, Fp32) { check_products<Fp32>(); }

TEST(Kinds, HalvesAreRoundedToTheNearest) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {  // every half, and the middle to its neighbour
    const float x = to_float(Fp16{}, uint16_t(bits)), above = to_float(Fp16{}, uint16_t(bits + 1));
    uint16_t y;
    from_float(Fp16{}, x, y);
    if (x != x) {
      EXPECT_NE(to_float(Fp16{}, y), to_float(Fp16{}, y));
      continue;
    }
    EXPECT_EQ(y, bits);
    if ((bits & 0x7fff) >= 0x7bff) continue;
    const float middle = 0.5f * (x + above);
    from_float(Fp16{}, middle, y);
    EXPECT_EQ(y, bits + (bits & 1)) << bits;
    from_float(Fp16{}, std::nextafter(middle, x), y);
    EXPECT_EQ(y, bits);
    from_float(Fp16{}, std::nextafter(middle, above), y);
    EXPECT_EQ(y, bits + 1);
  }
  uint16_t y;
  from_float(Fp16{}, 65519.0f, y);
  EXPECT_EQ(y, 0x7bff);
  from_float(Fp16{}, -65520.0f, y);
  EXPECT_EQ(y, 0xfc00);
}

TEST(Kinds, Bfloat16IsRoundedToTheNearest) {
  const auto round = [](float x) {
    uint16_t y;
    from_float(Bf16{}, x, y);
    return to_float(Bf16{}, y);
  };
  EXPECT_EQ(round(1.0f + 0x1p-8f), 1.0f);
  EXPECT_EQ(round(1.0f + 0x1.8p-7f), 1.0f + 0x1p-6f);
  EXPECT_EQ(round(-(1.0f + 0x1.0002p-8f)), -(1.0f + 0x1p-7f));
  EXPECT_EQ(round(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(round(std::numeric_limits<float>::quiet_NaN())));
}

struct Nothing {};
using Watched = HostBlock<64, Nothing>;

TEST(HostBlock, SeesAReadWithoutABarrier) {
  for (const bool with : {false, true}) {
    Watched block(64 * sizeof(int), {});
    int* shared = reinterpret_cast<int*>(block.memory);
    block.each([&](int thread, auto&) { block.store(thread, shared + thread, thread); });
    if (with) block.sync();
    block.each([&](int thread, auto&) { EXPECT_EQ(block.load(thread, shared + (thread ^ 1)), thread ^ 1); });
    EXPECT_EQ(block.fault().empty(), with);
  }
}

TEST(HostBlock, SeesAWriteWithoutABarrier) {
  for (const bool with : {false, true}) {
    Watched block(64 * sizeof(int), {});
    int* shared = reinterpret_cast<int*>(block.memory);
    block.each([&](int thread, auto&) { block.store(thread, shared + thread, thread); });
    block.sync();
    block.each([&](int thread, auto&) { block.load(thread, shared + (thread ^ 1)); });
    if (with) block.sync();
    block.each([&](int thread, auto&) { block.store(thread, shared + thread, 0); });
    EXPECT_EQ(block.fault().empty(), with);
  }
}

TEST(HostBlock, SeesWhatNobodyWrote) {
  Watched block(64, {});
  block.each([&](int thread, auto&) { block.load(thread, block.memory + thread); });
  EXPECT_NE(block.fault(), "");
}

TEST(HostBlock, SeesACopyThatNobodyWaitedFor) {
  alignas(16) const float from[4] = {1, 2, 3, 4};
  for (const bool late : {false, true})
    for (const int groups : {0, 1, 2}) {
      Watched block(64, {.late = late});
      float* shared = reinterpret_cast<float*>(block.memory);
      block.copy_async(0, shared, from, 8);
      for (int i = 0; i < groups; ++i) block.commit();
      block.wait<1>();
      block.sync();
      const float second = block.load(1, shared + 1);
      EXPECT_EQ(block.fault().empty(), groups == 2);
      if (groups < 2) continue;
      EXPECT_EQ(second, 2);
      EXPECT_EQ(block.load(1, shared + 2), 0);
    }
}

}  // namespace
}  // namespace hepops::core
