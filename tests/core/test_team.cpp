#include "core/team.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "threads.h"

namespace hepops::core {
namespace {

// Row r sums 1 / (r + i) in its scratch, as a kernel would: staged, then added by one member.
struct Harmonic {
  double* sums;
  static constexpr int length = 777;
  void operator()(int64_t row, const Team& team) const {
    double* staged = reinterpret_cast<double*>(team.memory);
    for (int i = team.rank; i < length; i += team.size) staged[i] = 1 / (row + i + 1.0);
    team.sync();
    if (team.rank == 0) {
      double sum = 0;
      for (int i = 0; i < length; ++i) sum += staged[i];
      sums[row] = sum;
    }
  }
};

TEST(Team, ThreadsDoNotMatter) {
  std::vector<double> serial(100), threaded(100);
  for_each_row_on_host(100, Harmonic::length * sizeof(double), Harmonic{serial.data()});
  EXPECT_NEAR(serial[0], 7.2333, 1e-4);  // ln 777 + 0.5772 + 1/1554
  for (const int64_t threads : {1, 2, 7}) {
    for_each_row_on_host(100, Harmonic::length * sizeof(double), Harmonic{threaded.data()}, PlainThreads{threads});
    EXPECT_EQ(serial, threaded) << threads;
  }
}

TEST(Team, NoRowsIsNoWork) {
  for_each_row_on_host(0, 8, [](int64_t, const Team&) { FAIL(); });
}

TEST(Team, ScratchIsAlignedAndLargeEnough) {
  for (const size_t bytes : {0, 1, 16, 17, 1000})
    for_each_row_on_host(3, bytes, [=](int64_t, const Team& team) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(team.memory) % 16, 0u);
      for (size_t i = 0; i < bytes; ++i) team.memory[i] = std::byte(i);
    });
}

}  // namespace
}  // namespace hepops::core
