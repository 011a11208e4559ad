#include "core/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

namespace hepops::core {
namespace {

using Block = Vec<uint32_t, 4>;

Block encrypt(const Block& counter, uint32_t key0, uint32_t key1) {
  const Philox philox(uint64_t(key1) << 32 | key0, uint64_t(counter[1]) << 32 | counter[0]);
  return philox.block(counter[2], counter[3]);
}

void expect_words(const Block& ours, const Block& published) {
  for (int i = 0; i < 4; ++i) EXPECT_EQ(ours[i], published[i]) << "word " << i;
}

// Random123 1.14.0, tests/kat_vectors, the three lines "philox4x32 10".
TEST(Philox, MatchesThePublishedVectors) {
  expect_words(encrypt({0, 0, 0, 0}, 0, 0), {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr uint32_t ones = 0xffffffff;
  expect_words(encrypt({ones, ones, ones, ones}, ones, ones), {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect_words(encrypt({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0),
               {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

constexpr int num_numbers = 1 << 20;

using Name = std::function<Block(uint32_t)>;  // the i-th block of a sequence

// Sequences that count in one part of the name only, and that differ from the first in one part only.
const std::vector<std::pair<const char*, Name>>& sequences() {
  static const std::vector<std::pair<const char*, Name>> all{
      {"index", [](uint32_t i) { return Philox(7, i).block(0, 0); }},
      {"other seed", [](uint32_t i) { return Philox(8, i).block(0, 0); }},
      {"other high seed", [](uint32_t i) { return Philox(7 | uint64_t(1) << 32, i).block(0, 0); }},
      {"other high index", [](uint32_t i) { return Philox(7, i | uint64_t(1) << 32).block(0, 0); }},
      {"other step", [](uint32_t i) { return Philox(7, i).block(1, 0); }},
      {"other purpose", [](uint32_t i) { return Philox(7, i).block(0, 1); }},
      {"counting seed", [](uint32_t i) { return Philox(i, 7).block(0, 0); }},
      {"counting step", [](uint32_t i) { return Philox(7, 7).block(i, 0); }},
      {"counting purpose", [](uint32_t i) { return Philox(7, 7).block(0, i); }},
  };
  return all;
}

// Correlation of two standardised samples: of variance 1/n where they are independent.
TEST(Philox, NamesThatDifferInOnePartAreIndependent) {
  const auto level = [](const Block& block, int word) {
    return std::sqrt(12.0) * (uniform<double>(block[word]) - 0.5);
  };
  for (const auto& [name, sequence] : sequences()) {
    double with_first = 0, with_next = 0, words = 0, bit_count[32] = {};
    for (uint32_t i = 0; i < num_numbers; ++i) {
      const Block block = sequence(i);
      with_first += level(block, 0) * level(sequences()[0].second(i), name == sequences()[0].first ? 1 : 0);
      with_next += level(block, 0) * level(sequence(i + 1), 0);
      words += level(block, 2) * level(block, 3);
      for (int bit = 0; bit < 32; ++bit) bit_count[bit] += block[1] >> bit & 1;
    }
    const double four_sigma = 4 / std::sqrt(double(num_numbers));
    EXPECT_LT(std::abs(with_first / num_numbers), four_sigma) << name;
    EXPECT_LT(std::abs(with_next / num_numbers), four_sigma) << name;
    EXPECT_LT(std::abs(words / num_numbers), four_sigma) << name;
    for (const double count : bit_count) EXPECT_LT(std::abs(count / num_numbers - 0.5), four_sigma / 2) << name;
  }
}

}  // namespace
}  // namespace hepops::core
