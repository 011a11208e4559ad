#include "sparse/kernel_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "../core/threads.h"
#include "core/parallel.h"
#include "sparse/kernel_map_cpu.h"
#include "sparse/key_table.h"

namespace hepops::sparse {
namespace {

// Offsets of a box, the first axis fastest.
std::vector<int64_t> box_offsets(std::vector<int64_t> first, std::vector<int64_t> step, std::vector<int64_t> size) {
  int64_t volume = 1;
  for (const int64_t s : size) volume *= s;
  std::vector<int64_t> offsets;
  for (int64_t k = 0; k < volume; ++k)
    for (int64_t a = 0, rest = k; a < int64_t(size.size()); rest /= size[a], ++a)
      offsets.push_back(first[a] + rest % size[a] * step[a]);
  return offsets;
}

TEST(Box, IsRecognised) {
  Box box{};
  const int64_t stride[] = {1, 1, 1};
  const auto is_box = [&](const std::vector<int64_t>& offsets) {
    return make_box(3, offsets.data(), int64_t(offsets.size()) / 3, stride, box);
  };
  EXPECT_TRUE(is_box(box_offsets({-1, 0, -4}, {1, 2, 4}, {3, 4, 1})));
  EXPECT_EQ(box.size[0], 3);
  EXPECT_EQ(box.size[1], 4);
  EXPECT_EQ(box.size[2], 1);
  EXPECT_EQ(box.step[1], 2);
  EXPECT_TRUE(is_box({5, 6, 7}));
  auto bent = box_offsets({0, 0, 0}, {1, 1, 1}, {2, 2, 2});
  bent[23] = 2;
  EXPECT_FALSE(is_box(bent));
  EXPECT_FALSE(is_box({0, 0, 0, 0, 0, 0}));                // the same offset twice
  EXPECT_FALSE(is_box({0, 0, 0, 1, 0, 0, 0, 1, 0}));       // no product
  EXPECT_FALSE(is_box({1, 0, 0, 0, 0, 0}));                // descending
  EXPECT_FALSE(make_box(3, bent.data(), 0, stride, box));  // nothing
}

// From every source the targets that a search over all offsets finds, each once.
TEST(Box, ReachesEveryTarget) {
  for (const int64_t t : {1, 2, 3, 4, 6, 48})
    for (const int64_t step : {1, 2, 3, 4})
      for (const int64_t size : {1, 2, 3, 5, 48})
        for (const int64_t first : {-7, 0, 3}) {
          const int64_t stride[] = {t, 2};
          const auto offsets = box_offsets({first, -1}, {step, 1}, {size, 3});
          Box box{};
          ASSERT_TRUE(make_box(2, offsets.data(), size * 3, stride, box));
          for (int64_t x = -50; x < 50; x += 7) {
            const int64_t c[] = {3, x, x / 2};
            std::set<std::tuple<int64_t, int64_t, int64_t>> expected, found;
            for (int64_t k = 0; k < size * 3; ++k) {
              const int64_t o[] = {c[1] - offsets[2 * k], c[2] - offsets[2 * k + 1]};
              if (o[0] % t == 0 && o[1] % 2 == 0) expected.emplace(o[0], o[1], k);
            }
            for (int64_t j = 0; j < box.all_candidates; ++j) {
              int64_t o[3];
              const int64_t k = box.target(c, j, o);
              if (k < 0 || o[1] % t || o[2] % 2) {
                EXPECT_LT(k, 0);
                continue;
              }
              EXPECT_EQ(o[0], 3);
              EXPECT_TRUE(found.emplace(o[1], o[2], k).second);
            }
            EXPECT_EQ(found, expected) << t << ' ' << step << ' ' << size << ' ' << first << ' ' << x;
          }
        }
}

TEST(KernelMap, SumsKnowTheirEnds) {
  int64_t sum;
  EXPECT_TRUE(add(INT64_MAX, INT64_MIN, sum));
  EXPECT_EQ(sum, -1);
  EXPECT_FALSE(add(INT64_MAX, 1, sum));
  EXPECT_FALSE(add(INT64_MIN, -1, sum));
}

TEST(KeyTable, FindsWhatIsThere) {
  std::mt19937_64 random(3);
  Workspace workspace;
  std::set<std::pair<uint64_t, uint64_t>> all;
  while (all.size() < 3000) all.emplace(random() % 5, random() % 4000);
  std::vector<Key<2>> keys;
  for (const auto& [high, low] : all) keys.push_back({{high, low}});
  const cpu::KeyTable<2> table(keys.data(), int64_t(keys.size()), workspace);
  for (uint64_t high = 0; high < 6; ++high)
    for (uint64_t low = 0; low < 4000; ++low) {
      const Key<2> key{{high, low}};
      EXPECT_EQ(table.find(key), place_of(key, keys.data(), int64_t(keys.size())));
    }
}

TEST(Workspace, GivesBackAndGrows) {
  for (int round = 0; round < 3; ++round) {
    Workspace outer;
    int64_t* a = outer.get<int64_t>(1000);
    std::fill_n(a, 1000, round);
    for (int i = 0; i < 3; ++i) {
      Workspace inner;
      uint8_t* b = inner.get<uint8_t>(3 << 20);  // beyond the first chunk
      std::fill_n(b, 3 << 20, 0xff);
      EXPECT_EQ(uintptr_t(b) % 64, 0u);
    }
    int64_t* c = outer.get<int64_t>(1000);
    std::fill_n(c, 1000, -1);
    for (int i = 0; i < 1000; ++i) ASSERT_EQ(a[i], round);
  }
}

// Voxels in a small box with holes, as keys in order and by their coordinates.
struct Voxels {
  Packing packing;
  std::vector<uint64_t> keys;
  std::vector<std::array<int64_t, 4>> rows;  // at each place
  std::map<std::array<int64_t, 4>, int64_t> place;
  std::vector<int32_t> schedule;
};

Voxels make_voxels(int64_t side, int64_t origin, double share, int seed) {
  std::mt19937_64 random(seed);
  Voxels v;
  Extent extent{};
  extent.high[0] = 1;
  for (int f = 1; f < 4; ++f) extent.low[f] = origin, extent.high[f] = origin + side - 1;
  const int64_t ones[] = {1, 1, 1};
  v.packing = make_packing(3, extent, ones);
  std::map<uint64_t, std::array<int64_t, 4>> by_key;
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t x = 0; x < side; ++x)
      for (int64_t y = 0; y < side; ++y)
        for (int64_t z = 0; z < side; ++z) {
          if (double(random() % 1000) >= 1000 * share) continue;
          const std::array<int64_t, 4> row{b, origin + x, origin + y, origin + z};
          Key<1> key;
          EXPECT_TRUE(encode(v.packing, row.data(), key));
          by_key[key.word[0]] = row;
        }
  for (const auto& [key, row] : by_key) {
    v.place[row] = int64_t(v.rows.size());
    v.keys.push_back(key), v.rows.push_back(row);
    v.schedule.push_back(int32_t(by_key.size() - v.schedule.size() - 1));
  }
  return v;
}

template <class Parallel>
std::vector<int32_t> flat_list(const Voxels& v, const cpu::Stencil& stencil, bool around, const Parallel& parallel) {
  std::vector<Pair<int32_t>> pairs;
  std::vector<Entry<int32_t>> entries;
  std::vector<int32_t> tiles((v.keys.size() + tile_on_cpu - 1) / tile_on_cpu + 1);
  const auto allocate = [&](int64_t num_pairs, int64_t num_entries) {
    pairs.resize(num_pairs), entries.resize(num_entries + 1);
    return std::tuple(pairs.data(), entries.data(), tiles.data());
  };
  const int64_t n = int64_t(v.keys.size());
  EXPECT_TRUE((around ? cpu::pairs_around<int32_t>(v.packing, v.keys.data(), n, v.keys.data(), n, v.schedule.data(),
                                                   stencil, parallel, allocate)
                      : cpu::pairs_within<int32_t>(v.packing, v.keys.data(), n, v.keys.data(), n, v.schedule.data(),
                                                   stencil, parallel, allocate)));
  std::vector<int32_t> flat;
  for (const auto& [row, place] : pairs) flat.push_back(row), flat.push_back(place);
  for (const auto& [first, k] : entries) flat.push_back(first), flat.push_back(k);
  flat.insert(flat.end(), tiles.begin(), tiles.end());
  return flat;
}

// The list by its definition: tile, then k, then place.
std::vector<int32_t> expected_list(const Voxels& v, const cpu::Stencil& stencil) {
  std::vector<int32_t> pairs, entries, tiles;
  const int64_t n = int64_t(v.rows.size());
  for (int64_t t = 0; t * tile_on_cpu < n; ++t) {
    tiles.push_back(int32_t(entries.size() / 2));
    for (int64_t k = 0; k < stencil.volume; ++k) {
      const size_t first = pairs.size();
      for (int64_t p = t * tile_on_cpu; p < std::min((t + 1) * tile_on_cpu, n); ++p) {
        auto row = v.rows[p];
        for (int a = 0; a < 3; ++a) row[1 + a] += stencil.offsets[k][a];
        if (const auto found = v.place.find(row); found != v.place.end())
          pairs.insert(pairs.end(), {v.schedule[found->second], int32_t(p)});
      }
      if (pairs.size() > first) entries.insert(entries.end(), {int32_t(first / 2), int32_t(k)});
    }
  }
  tiles.push_back(int32_t(entries.size() / 2));
  entries.insert(entries.end(), {int32_t(pairs.size() / 2), -1});
  pairs.insert(pairs.end(), entries.begin(), entries.end());
  pairs.insert(pairs.end(), tiles.begin(), tiles.end());
  return pairs;
}

cpu::Stencil cube(int reach, int step) {
  cpu::Stencil stencil{0, {}, reach * step};
  for (int z = -reach; z <= reach; ++z)
    for (int y = -reach; y <= reach; ++y)
      for (int x = -reach; x <= reach; ++x, ++stencil.volume) stencil.offsets.push_back({x * step, y * step, z * step});
  return stencil;
}

TEST(KernelMap, BlocksFindWhatADictionaryFinds) {
  for (const int64_t origin : {0, -7, 1 << 20, (1 << 20) - 5})
    for (const double share : {0.03, 0.4, 1.0}) {
      const Voxels v = make_voxels(share == 1 ? 7 : 13, origin, share, int(origin + 7));
      const auto nine = expected_list(v, cube(1, 1));
      EXPECT_EQ(flat_list(v, cube(1, 1), true, core::Serial{}), nine);
      EXPECT_EQ(flat_list(v, cube(1, 1), false, core::Serial{}), nine);
      EXPECT_EQ(flat_list(v, cube(1, 3), false, core::Serial{}), expected_list(v, cube(1, 3)));
      EXPECT_EQ(flat_list(v, cube(2, 2), false, core::Serial{}), expected_list(v, cube(2, 2)));
    }
}

TEST(KernelMap, NothingIsCheap) {
  Workspace workspace;
  const cpu::Blocks none = cpu::make_blocks(nullptr, 0, workspace);
  const cpu::BlockTable table(none, workspace);
  for (const uint64_t key : {uint64_t(0), uint64_t(77), cpu::nowhere}) EXPECT_EQ(table.find(key), 0u);
}

TEST(KernelMap, ThreadsDoNotMatter) {
  const Voxels v = make_voxels(20, -9, 0.4, 1);
  for (const bool around : {true, false}) {
    const auto serial = flat_list(v, cube(1, 1), around, core::Serial{});
    for (const int64_t threads : {1, 2, 5})
      EXPECT_EQ(flat_list(v, cube(1, 1), around, core::PlainThreads{threads}), serial);
  }
}

TEST(KernelMap, ALineThatIsFullTakesTheWiderInteger) {
  const Voxels v = make_voxels(7, 0, 1, 1);
  const auto refuse = [](int64_t, int64_t) {
    return std::tuple<Pair<int32_t>*, Entry<int32_t>*, int32_t*>(nullptr, nullptr, nullptr);
  };
  const int64_t n = int64_t(v.keys.size());
  EXPECT_FALSE(cpu::pairs_around<int32_t>(v.packing, v.keys.data(), n, v.keys.data(), n, v.schedule.data(), cube(1, 1),
                                          core::Serial{}, refuse));
}

}  // namespace
}  // namespace hepops::sparse
