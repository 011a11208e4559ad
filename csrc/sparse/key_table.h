#pragma once
// A hash table over ascending keys, on the host: open addresses with linear probing, a third of the slots in use at
// most.
//
// D. E. Knuth, The Art of Computer Programming 3, 2nd ed. (1998), 6.4, algorithm L.
#include <algorithm>
#include <bit>
#include <cstdint>

#include "sparse/packing.h"
#include "sparse/workspace.h"

namespace hepops::sparse::cpu {

template <int W>
class KeyTable {
 public:
  KeyTable(const Key<W>* keys, int64_t count, Workspace& workspace)
      : keys_(keys), bits_(std::max<int>(4, std::bit_width(uint64_t(3 * count)))) {
    slots_ = workspace.get<uint32_t>(int64_t(1) << bits_);
    std::fill_n(slots_, int64_t(1) << bits_, 0);
    for (int64_t place = 0; place < count; ++place) {
      uint64_t slot = first_slot(keys[place]);
      while (slots_[slot]) slot = next(slot);
      slots_[slot] = uint32_t(place + 1);
    }
  }

  // The place of a key, or -1. Counts below 2^32 - 1.
  int64_t find(const Key<W>& key) const {
    for (uint64_t slot = first_slot(key); slots_[slot]; slot = next(slot))
      if (keys_[slots_[slot] - 1] == key) return slots_[slot] - 1;
    return -1;
  }

 private:
  uint64_t first_slot(const Key<W>& key) const {
    uint64_t mixed = key.word[W - 1];
    if (W == 2) mixed ^= std::rotl(key.word[0] * 0xD6E8FEB86659FD93u, 32);
    return mixed * 0x9E3779B97F4A7C15u >> (64 - bits_);
  }
  uint64_t next(uint64_t slot) const { return (slot + 1) & ((uint64_t(1) << bits_) - 1); }

  const Key<W>* keys_;
  int bits_;
  uint32_t* slots_;
};

// A set whose places are found by a table.
template <int W>
struct HashedSet : KeySet<W> {
  const KeyTable<W>* table;
  int64_t place(int64_t* c) const {
    Key<W> key;
    return this->key(c, key) ? table->find(key) : -1;
  }
};

}  // namespace hepops::sparse::cpu
