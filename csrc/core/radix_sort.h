#pragma once
// A stable sort of integer keys, each with a 64-bit payload, on the host: least significant digit first.
//
//   place of key i = keys with a smaller digit + keys with the same digit before i,   one digit after the other
//
// D. E. Knuth, The Art of Computer Programming 3, 2nd ed. (1998), 5.2.5, algorithm R.
//
// Counts and moves go by chunks of fixed length, in parallel; a stable sort has one result, whatever the threads.
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/parallel.h"

namespace hepops::core {

// Keys and payloads (n). No payload stands for 0, 1, ... n - 1.
template <class Key, class Payload = int64_t>
struct Pairs {
  Key* keys;
  Payload* payload;
};

namespace detail {

constexpr int max_digit = 8;                      // 256 open streams of writes still fit the first cache and its TLB
constexpr int64_t sort_chunk = int64_t(1) << 16;  // 1 MiB of pairs: the counts are few beside it

// One digit: `from` to `to`, by (key ^ flip) >> shift & (2^width - 1).
template <class Key, class Parallel>
void sort_digit(Pairs<const Key, const int64_t> from, Pairs<Key> to, int64_t n, int shift, int width, uint64_t flip,
                std::vector<int64_t>& places, const Parallel& parallel) {
  const int64_t chunks = (n + sort_chunk - 1) / sort_chunk, digits = int64_t(1) << width;
  const auto digit = [=](Key key) { return int64_t((uint64_t(key) ^ flip) >> shift) & (digits - 1); };

  places.assign(chunks * digits, 0);
  parallel(chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      int64_t* count = places.data() + c * digits;
      for (int64_t i = c * sort_chunk; i < std::min((c + 1) * sort_chunk, n); ++i) ++count[digit(from.keys[i])];
    }
  });

  int64_t place = 0;  // counts become places: by digit, then by chunk
  for (int64_t d = 0; d < digits; ++d)
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t count = places[c * digits + d];
      places[c * digits + d] = place;
      place += count;
    }

  parallel(chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      int64_t* next = places.data() + c * digits;
      for (int64_t i = c * sort_chunk; i < std::min((c + 1) * sort_chunk, n); ++i) {
        const int64_t where = next[digit(from.keys[i])]++;
        to.keys[where] = from.keys[i];
        to.payload[where] = from.payload ? from.payload[i] : i;
      }
    }
  });
}

}  // namespace detail

// Sorts by the lowest `bits` bits, 0 to 64; signed keys by their value where bits is 64. `sorted` and `scratch` hold n
// pairs each. `unsorted` is left as it was, or may be `sorted` itself.
template <class Key, class Parallel = Serial>
void radix_sort_pairs(Pairs<const Key, const int64_t> unsorted, int64_t n, int bits, Pairs<Key> sorted,
                      Pairs<Key> scratch, const Parallel& parallel = {}) {
  static_assert(std::is_integral_v<Key> && sizeof(Key) == 8);
  const uint64_t flip = std::is_signed_v<Key> ? uint64_t(1) << 63 : 0;
  int passes = std::max(1, (bits + detail::max_digit - 1) / detail::max_digit);
  passes += unsorted.keys == sorted.keys && passes % 2;  // in place, the pairs must come back
  std::vector<int64_t> places;
  for (int pass = 0, shift = 0; pass < passes; ++pass) {
    const int width = (bits - shift) / (passes - pass);
    const Pairs<Key> to = (passes - pass) % 2 ? sorted : scratch;
    detail::sort_digit(unsorted, to, n, shift, width, flip, places, parallel);
    unsorted = {to.keys, to.payload};
    shift += width;
  }
}

}  // namespace hepops::core
