#include "core/scatter_add.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "threads.h"

namespace hepops::core {
namespace {

TEST(ScatterAdd, AddsRowsWhereTheIndexSendsThem) {
  const int64_t index[] = {2, 0, 2};
  const float values[] = {1, 10, 2, 20, 4, 40};
  float out[8];
  scatter_add_on_host<double>(index, values, 3, 2, out, 4);
  const float expected[] = {2, 20, 0, 0, 5, 50, 0, 0};
  for (int k = 0; k < 8; ++k) EXPECT_EQ(out[k], expected[k]);
}

TEST(ScatterAdd, AccumulatesWider) {
  const std::vector<int64_t> index(3, 0);
  const std::vector<float> values{1e8f, 1, -1e8f};
  float wide, narrow;
  scatter_add_on_host<double>(index.data(), values.data(), 3, 1, &wide, 1);
  scatter_add_on_host<float>(index.data(), values.data(), 3, 1, &narrow, 1);
  EXPECT_EQ(wide, 1);
  EXPECT_EQ(narrow, 0);
}

TEST(ScatterAdd, ThreadsDoNotMatter) {
  const int64_t n = 10000, rows = 37;
  std::vector<int64_t> index;
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i) index.push_back(i * i % rows), values.push_back(1.0f / (i + 1));
  std::vector<float> serial(rows), threaded(rows);
  scatter_add_on_host<float>(index.data(), values.data(), n, 1, serial.data(), rows);
  for (const int64_t threads : {1, 2, 7}) {
    scatter_add_on_host<float>(index.data(), values.data(), n, 1, threaded.data(), rows, PlainThreads{threads});
    EXPECT_EQ(serial, threaded) << threads;
  }
}

TEST(ScatterAdd, LowerBoundIsThatOfTheStandard) {
  const std::vector<int64_t> ascending{-5, 0, 0, 3, 3, 3, 8};
  for (size_t n = 0; n <= ascending.size(); ++n)
    for (int64_t x = -6; x < 10; ++x) {
      const auto end = ascending.begin() + n;
      EXPECT_EQ(lower_bound(ascending.data(), n, x), std::lower_bound(ascending.begin(), end, x) - ascending.begin());
    }
}

}  // namespace
}  // namespace hepops::core
