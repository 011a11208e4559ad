// The arrays of the torch-free library ask for no memory whose size has wrapped around.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

#include "sdk/memory.h"

namespace {

using hepops::sdk::Array;

struct Row {
  double x[4];
};

// Takes any request, and says what it was; nothing may come here that wrapped.
struct Asked : std::pmr::memory_resource {
  size_t bytes = 0;
  void* do_allocate(size_t n, size_t) override {
    bytes = n;
    throw std::bad_alloc();
  }
  void do_deallocate(void*, size_t, size_t) override {}
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

TEST(Memory, SizesThatWrapAreRefusedBeforeTheyAreAskedFor) {
  Asked memory;
  Array<Row> rows(memory);
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  // 2^59 rows of 32 bytes are 0 bytes in 64 bits
  for (const int64_t size : {int64_t(1) << 59, (int64_t(1) << 59) + 1, most / 32 + 1, most, int64_t(-1), -most}) {
    EXPECT_THROW(rows.resize(size), std::bad_array_new_length) << size;
    EXPECT_THROW(rows.grow(size, 0), std::bad_array_new_length) << size;
  }
  EXPECT_EQ(memory.bytes, 0u);
  EXPECT_EQ(rows.size(), 0);
}

TEST(Memory, LargeSizesThatDoNotWrapAreAskedFor) {
  Asked memory;
  Array<Row> rows(memory);
  EXPECT_THROW(rows.resize(int64_t(1) << 50), std::bad_alloc);
  EXPECT_EQ(memory.bytes, size_t(1) << 55);
  EXPECT_THROW(rows.grow(int64_t(1) << 50, 0), std::bad_alloc);
  EXPECT_EQ(memory.bytes, size_t(3) << 54);  // half as much again
}

}  // namespace
