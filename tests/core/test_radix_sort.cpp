#include "core/radix_sort.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "threads.h"

namespace hepops::core {
namespace {

constexpr int64_t chunk = detail::sort_chunk;

template <class Key>
struct Sorted {
  std::vector<Key> keys;
  std::vector<int64_t> payload;
  bool operator==(const Sorted&) const = default;
};

template <class Key>
std::vector<Key> random_keys(int64_t n, int bits) {
  std::mt19937_64 random(n + bits);
  std::vector<Key> keys(n);
  for (Key& key : keys) key = Key(bits == 0 ? 0 : random() >> (64 - bits));
  return keys;
}

template <class Key, class Parallel = Serial>
Sorted<Key> sorted(const std::vector<Key>& keys, int bits, const int64_t* payload = nullptr, Parallel parallel = {}) {
  const size_t n = keys.size();
  Sorted<Key> result{std::vector<Key>(n), std::vector<int64_t>(n)}, scratch = result;
  radix_sort_pairs<Key>({keys.data(), payload}, n, bits, {result.keys.data(), result.payload.data()},
                        {scratch.keys.data(), scratch.payload.data()}, parallel);
  return result;
}

template <class Key>
Sorted<Key> reference(const std::vector<Key>& keys, int bits) {
  const uint64_t mask = bits == 64 ? ~uint64_t(0) : (uint64_t(1) << bits) - 1;
  Sorted<Key> result{{}, std::vector<int64_t>(keys.size())};
  std::iota(result.payload.begin(), result.payload.end(), 0);
  std::stable_sort(result.payload.begin(), result.payload.end(), [&](int64_t a, int64_t b) {
    return bits == 64 ? keys[a] < keys[b] : (uint64_t(keys[a]) & mask) < (uint64_t(keys[b]) & mask);
  });
  for (const int64_t i : result.payload) result.keys.push_back(keys[i]);
  return result;
}

TEST(RadixSort, IsTheStableSort) {
  for (const int64_t n : {int64_t(0), int64_t(1), int64_t(2), int64_t(1000), chunk, chunk + 1, 3 * chunk - 1})
    for (const int bits : {0, 1, 7, 8, 9, 16, 17, 33, 63, 64}) {
      const auto keys = random_keys<uint64_t>(n, bits);
      EXPECT_TRUE(sorted(keys, bits) == reference(keys, bits)) << n << " keys of " << bits << " bits";
    }
}

TEST(RadixSort, LooksAtTheLowestBitsOnly) {
  const auto keys = random_keys<uint64_t>(1000, 64);
  EXPECT_TRUE(sorted(keys, 12) == reference(keys, 12));
}

TEST(RadixSort, OrdersSignedKeys) {
  auto keys = random_keys<int64_t>(1000, 64);
  keys.insert(keys.end(), {-1, 0, 1, INT64_MIN, INT64_MAX});
  EXPECT_TRUE(sorted(keys, 64) == reference(keys, 64));
}

TEST(RadixSort, CarriesAPayloadAndSparesItsInput) {
  const std::vector<uint64_t> keys{3, 1, 3, 0}, before = keys;
  const std::vector<int64_t> payload{-10, 11, 12, INT64_MAX};
  const auto result = sorted(keys, 2, payload.data());
  EXPECT_EQ(result.keys, (std::vector<uint64_t>{0, 1, 3, 3}));
  EXPECT_EQ(result.payload, (std::vector<int64_t>{INT64_MAX, 11, -10, 12}));
  EXPECT_EQ(keys, before);
}

TEST(RadixSort, WorksInPlace) {
  for (const int bits : {1, 8, 9, 17, 64}) {
    auto keys = random_keys<uint64_t>(5000, bits);
    const auto expected = reference(keys, bits);
    std::vector<int64_t> payload(keys.size()), other(keys.size());
    std::iota(payload.begin(), payload.end(), 0);
    std::vector<uint64_t> scratch(keys.size());
    radix_sort_pairs<uint64_t>({keys.data(), payload.data()}, keys.size(), bits, {keys.data(), payload.data()},
                               {scratch.data(), other.data()});
    EXPECT_EQ(keys, expected.keys) << bits;
    EXPECT_EQ(payload, expected.payload) << bits;
  }
}

TEST(RadixSort, ThreadsDoNotMatter) {
  const auto keys = random_keys<uint64_t>(5 * chunk + 17, 20);
  const auto serial = sorted(keys, 20);
  for (const int64_t threads : {1, 2, 5}) EXPECT_TRUE(sorted(keys, 20, nullptr, PlainThreads{threads}) == serial);
}

}  // namespace
}  // namespace hepops::core
