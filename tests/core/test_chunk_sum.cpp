#include "core/chunk_sum.h"

#include <gtest/gtest.h>

#include <cmath>

#include "threads.h"

namespace hepops::core {
namespace {

const auto terms = [](int64_t i) { return Vec<float, 3>{1.0f, float(i % 1000), 0.1f / (i + 1)}; };

TEST(ChunkSum, NothingSumsToZero) {
  for (const double sum : sum_chunks_on_host<3>(0, terms).values) EXPECT_EQ(sum, 0);
}

TEST(ChunkSum, IsExactOnIntegersOfAnyCount) {
  for (const int64_t n : {int64_t(1), int64_t(15), int64_t(16), int64_t(17), chunk_length - 1, chunk_length,
                          chunk_length + 1, 10 * chunk_length + 5}) {
    const auto sums = sum_chunks_on_host<3>(n, terms);
    double exact = 0;
    for (int64_t i = 0; i < n; ++i) exact += i % 1000;
    EXPECT_EQ(sums[0], n);
    EXPECT_EQ(sums[1], exact) << n;
  }
}

// A running sum of ones in float would stop at 2^24.
TEST(ChunkSum, AccumulatesWiderThanItsTerms) {
  const int64_t n = (int64_t(1) << 24) + 1000;
  EXPECT_EQ(sum_chunks_on_host<1>(n, [](int64_t) { return Vec<float, 1>{1.0f}; })[0], double(n));
}

TEST(ChunkSum, ThreadsDoNotMatter) {
  const int64_t n = 100 * chunk_length + 77;
  const auto serial = sum_chunks_on_host<3>(n, terms);
  for (const int64_t threads : {1, 2, 7}) {
    const auto sums = sum_chunks_on_host<3>(n, terms, PlainThreads{threads});
    for (int k = 0; k < 3; ++k) EXPECT_EQ(sums[k], serial[k]) << threads;
  }
}

}  // namespace
}  // namespace hepops::core
