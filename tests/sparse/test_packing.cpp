#include "sparse/packing.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

namespace hepops::sparse {
namespace {

using Row = std::array<int64_t, 1 + max_dimension>;

// Batch, then planes of q from the sign (flipped) to the lowest, the first axis first: the order as it is defined.
bool before(const Row& a, const Row& b, int D) {
  if (a[0] != b[0]) return a[0] < b[0];
  for (int plane = 63; plane >= 0; --plane)
    for (int f = 1; f <= D; ++f) {
      const bool x = (uint64_t(a[f]) >> plane & 1) != (plane == 63), y = (uint64_t(b[f]) >> plane & 1) != (plane == 63);
      if (x != y) return y;
    }
  return false;
}

Extent extent_of(const std::vector<Row>& rows, int D) {
  Extent extent{};
  for (int f = 0; f <= D; ++f) {
    extent.low[f] = extent.high[f] = rows[0][f];
    for (const Row& row : rows) {
      extent.low[f] = std::min(extent.low[f], row[f]);
      extent.high[f] = std::max(extent.high[f], row[f]);
    }
  }
  return extent;
}

template <int W>
void check(const Packing& p, const std::vector<Row>& rows) {
  std::vector<Key<W>> keys(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSERT_TRUE(encode(p, rows[i].data(), keys[i]));
    Row back{};
    decode(p, keys[i], back.data());
    for (int f = 0; f <= p.dimension; ++f) EXPECT_EQ(back[f], rows[i][f]);
  }
  for (size_t i = 0; i < rows.size(); ++i)
    for (size_t j = 0; j < rows.size(); ++j) EXPECT_EQ(keys[i] < keys[j], before(rows[i], rows[j], p.dimension));
}

constexpr int64_t ones[max_dimension] = {1, 1, 1, 1, 1, 1};

TEST(Packing, KeepsTheCanonicalOrder) {
  std::mt19937_64 random(1);
  int words[1 + max_words] = {};
  for (int trial = 0; trial < 600; ++trial) {
    const int D = 1 + trial % max_dimension;
    std::vector<Row> rows(20);
    Row origin{}, span{};
    for (int f = 0; f <= D; ++f) {
      constexpr int64_t origins[] = {0, -1, -5, 1 << 20, (1 << 30) - 2, -(1 << 30) - 3, INT64_MAX - 40, INT64_MIN};
      constexpr int64_t spans[] = {1, 2, 7, 40};
      origin[f] = origins[random() % 8], span[f] = spans[random() % 4];
      if (trial % 2) span[f] = int64_t(1) << random() % 40, origin[f] = -span[f] / 3;
    }
    for (Row& row : rows)
      for (int f = 0; f <= D; ++f) row[f] = origin[f] + int64_t(random() % uint64_t(span[f]));
    const Packing p = make_packing(D, extent_of(rows, D), ones);
    if (p.bits > 64 * max_words) continue;
    ++words[p.words];
    if (p.words == 1) check<1>(p, rows);
    if (p.words == 2) check<2>(p, rows);
  }
  EXPECT_GT(words[1], 100);
  EXPECT_GT(words[2], 30);
}

TEST(Packing, KnowsWhatIsOutside) {
  for (const int64_t low : {int64_t(0), int64_t(-9), int64_t(509), INT64_MIN, INT64_MAX - 10}) {
    Extent extent{};
    extent.low[1] = low, extent.high[1] = low + 10;
    const Packing p = make_packing(1, extent, ones);
    const Field& field = p.field[1];
    for (const uint64_t u : {uint64_t(0), field.last}) {
      Key<1> key;
      const int64_t row[2] = {0, int64_t(uint64_t(field.base) + u)};
      EXPECT_TRUE(encode(p, row, key));
      const int64_t beyond[2] = {0, int64_t(uint64_t(row[1]) + (u ? 1 : -1))}, other_batch[2] = {1, row[1]};
      EXPECT_FALSE(encode(p, beyond, key));
      EXPECT_FALSE(encode(p, other_batch, key));
    }
  }
}

TEST(Packing, LeavesOutWhatAllHaveInCommon) {
  Extent extent{};
  for (int f = 1; f <= 3; ++f) extent.low[f] = (int64_t(1) << 40) - 3, extent.high[f] = (int64_t(1) << 40) + 3;
  EXPECT_EQ(make_packing(3, extent, ones).bits, 9);  // two planes and the side of 2^40, on each axis
  extent = {};
  EXPECT_EQ(make_packing(3, extent, ones).bits, 9);  // three planes at least
}

TEST(Packing, HasTheLargestBatchAndAllOfInt64) {
  Extent extent{};
  extent.low[0] = 0, extent.high[0] = INT64_MAX;
  extent.low[1] = INT64_MIN, extent.high[1] = INT64_MAX;
  const Packing p = make_packing(1, extent, ones);
  EXPECT_EQ(p.bits, 127);
  check<2>(p, {{0, INT64_MIN}, {0, -1}, {0, 0}, {0, INT64_MAX}, {INT64_MAX, INT64_MIN}, {INT64_MAX, 1}});
  extent.low[2] = -1;
  EXPECT_GT(make_packing(2, extent, ones).bits, 128);  // refused by whoever asks
}

TEST(Packing, DepositsAndExtracts) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 1000; ++i) {
    const uint64_t mask = random() & random(), x = random();
    const int count = std::popcount(mask);
    const uint64_t low = count == 64 ? x : x & ((uint64_t(1) << count) - 1);
    EXPECT_EQ(extract(deposit(x, mask), mask), low);
    EXPECT_EQ(deposit(x, mask) & ~mask, 0u);
  }
}

TEST(Packing, FloorsTowardMinusInfinity) {
  Extent extent{};
  const int64_t stride[] = {3, 4};
  const Packing p = make_packing(2, extent, stride);
  for (int64_t c = -30; c < 30; ++c)
    for (int a = 0; a < 2; ++a) {
      const int64_t q = p.quotient(a, c);
      EXPECT_TRUE(q * stride[a] <= c && c < (q + 1) * stride[a]);
      EXPECT_EQ(p.on_stride(a, c), c == q * stride[a]);
    }
}

}  // namespace
}  // namespace hepops::sparse
