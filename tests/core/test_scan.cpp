#include "core/scan.h"

#include <gtest/gtest.h>

#include <numeric>

#include "threads.h"

namespace hepops::core {
namespace {

template <class Parallel>
std::vector<int64_t> offsets(const std::vector<int64_t>& counts, Parallel parallel) {
  std::vector<int64_t> result(counts.size() + 1, -1);
  exclusive_scan(counts.data(), counts.size(), result.data(), parallel);
  return result;
}

TEST(Scan, NothingHasNoTotal) { EXPECT_EQ(offsets({}, Serial{}), std::vector<int64_t>{0}); }

TEST(Scan, OffsetsPartTheTotal) {
  for (const int64_t n : {1, 2, 1000, 65536, 65537, 300000}) {
    std::vector<int64_t> counts(n), expected(n + 1);
    for (int64_t i = 0; i < n; ++i) counts[i] = (i * 7919) % 1000 - 100 + (int64_t(1) << 40);
    std::partial_sum(counts.begin(), counts.end(), expected.begin() + 1);
    EXPECT_EQ(offsets(counts, Serial{}), expected) << n;
    for (const int64_t threads : {1, 2, 5}) EXPECT_EQ(offsets(counts, PlainThreads{threads}), expected) << n;
  }
}

}  // namespace
}  // namespace hepops::core
