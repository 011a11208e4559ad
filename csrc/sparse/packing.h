#pragma once
// A row of coordinates [batch, x, y, ...] as one unsigned number, whose order is the canonical order of rows: batch
// ascending, then the Morton order of q = floor(c / stride), negative before positive.
//
//   key = batch - batch_base | bit planes of q, from the sign to the lowest; in a plane the first axis comes first
//
// G. M. Morton, A computer oriented geodetic data base, IBM Ottawa (1966).
//
// A key keeps the planes that say something about the data, and three at least. q in [B - 2^b, B + 2^b), where B has
// more than b zeros at its end, is told by its lowest b planes and by one more, as high as the lowest one of B (or the
// sign, for B = 0): whether q < B. Together they are u = q - (B - 2^b). What q has in common is left out. So extents
// decide which planes are kept, never the order. Keys have one word of 64 bits or two.
#include <algorithm>
#include <bit>
#include <cstdint>

#include "core/host_device.h"

#if defined(__BMI2__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

namespace hepops::sparse {

constexpr int max_dimension = 6;
constexpr int max_words = 2;

template <int W>
struct Key {
  uint64_t word[W];  // the highest first

  HEPOPS_HD bool operator==(const Key& other) const {
    bool same = true;
    for (int w = 0; w < W; ++w) same &= word[w] == other.word[w];
    return same;
  }
  HEPOPS_HD bool operator<(const Key& other) const {
    for (int w = 0; w + 1 < W; ++w)
      if (word[w] != other.word[w]) return word[w] < other.word[w];
    return word[W - 1] < other.word[W - 1];
  }
};

// f(a) for every axis. A GPU is given each by a number that the compiler knows, so that rows of coordinates stay in
// registers.
template <class F>
HEPOPS_HD void for_axes(int dimension, const F& f) {
#ifdef __CUDA_ARCH__
#pragma unroll
  for (int a = 0; a < max_dimension; ++a)
    if (a < dimension) f(a);
#else
  for (int a = 0; a < dimension; ++a) f(a);
#endif
}

// The low bits of x, spread over the set bits of the mask, and back.
HEPOPS_HD uint64_t deposit(uint64_t x, uint64_t mask) {
#if defined(__BMI2__) && !defined(__CUDACC__)
  return _pdep_u64(x, mask);
#else
  uint64_t spread = 0;
  for (; mask; mask &= mask - 1, x >>= 1) spread |= x & 1 ? mask & (~mask + 1) : 0;
  return spread;
#endif
}

HEPOPS_HD uint64_t extract(uint64_t x, uint64_t mask) {
#if defined(__BMI2__) && !defined(__CUDACC__)
  return _pext_u64(x, mask);
#else
  uint64_t gathered = 0;
  for (uint64_t bit = 1; mask; mask &= mask - 1, bit <<= 1) gathered |= x & mask & (~mask + 1) ? bit : 0;
  return gathered;
#endif
}

HEPOPS_HD int64_t floor_divide(int64_t x, int64_t by) { return x / by - (x % by < 0); }

// The smallest and largest batch and q of a set.
struct Extent {
  int64_t low[1 + max_dimension], high[1 + max_dimension];
};

// One field of the key: the batch, or an axis.
struct Field {
  int64_t base;
  uint64_t last;             // largest u
  uint64_t mask[max_words];  // where its planes are, in each word
  int bits, low_bits;        // planes in all, and in the last word
  int top;                   // where in q its highest plane is

  HEPOPS_HD bool has(int plane) const { return plane == top || plane < bits - 1; }
  HEPOPS_HD int low_planes() const { return top == bits - 1 ? bits : bits - 1; }  // without a gap, from 0
};

struct Packing {
  int dimension, words, bits;
  Field field[1 + max_dimension];  // batch, axes
  int64_t stride[max_dimension];
  int shift[max_dimension];  // log2 of the stride, or -1

  HEPOPS_HD int64_t quotient(int axis, int64_t c) const {
    return shift[axis] >= 0 ? c >> shift[axis] : floor_divide(c, stride[axis]);
  }
  HEPOPS_HD bool on_stride(int axis, int64_t c) const {
    return shift[axis] >= 0 ? (c & (stride[axis] - 1)) == 0 : c % stride[axis] == 0;
  }
};

// q is given as row[0] = batch, row[1 ...] = q. False where it is out of range: then the key means nothing.
template <int W>
HEPOPS_HD bool encode(const Packing& p, const int64_t* row, Key<W>& key) {
  bool good = true;
  for (int w = 0; w < W; ++w) key.word[w] = 0;
  const auto put = [&](int f) {
    const Field& field = p.field[f];
    const uint64_t u = uint64_t(row[f]) - uint64_t(field.base);  // wraps to a large number below the base
    good &= u <= field.last;
    key.word[W - 1] |= deposit(u, field.mask[W - 1]);
    if (W == 2) key.word[0] |= field.low_bits < 64 ? deposit(u >> field.low_bits, field.mask[0]) : 0;
  };
  put(0);
  for_axes(p.dimension, [&](int a) { put(1 + a); });
  return good;
}

template <int W>
HEPOPS_HD void decode(const Packing& p, const Key<W>& key, int64_t* row) {
  const auto take = [&](int f) {
    const Field& field = p.field[f];
    uint64_t u = extract(key.word[W - 1], field.mask[W - 1]);
    if (W == 2 && field.low_bits < 64) u |= extract(key.word[0], field.mask[0]) << field.low_bits;
    row[f] = int64_t(uint64_t(field.base) + u);
  };
  take(0);
  for_axes(p.dimension, [&](int a) { take(1 + a); });
}

// The place of a key among n ascending ones, or -1.
template <int W>
HEPOPS_HD int64_t place_of(const Key<W>& key, const Key<W>* keys, int64_t n) {
  int64_t first = 0, count = n;
  while (count > 0) {
    const int64_t half = count / 2;
    const bool below = keys[first + half] < key;
    first += below ? half + 1 : 0;
    count = below ? count - half - 1 : half;
  }
  return first < n && keys[first] == key ? first : -1;
}

// A set that can be searched: keys, ascending.
template <int W>
struct KeySet {
  Packing packing;
  const Key<W>* keys;
  int64_t count;

  // Coordinates [batch, x, ...] at a place.
  HEPOPS_HD void row(int64_t place, int64_t* c) const {
    decode(packing, keys[place], c);
    for_axes(packing.dimension, [&](int a) { c[1 + a] *= packing.stride[a]; });
  }
  // The key of coordinates, which are changed to q; false where no member can be there.
  HEPOPS_HD bool key(int64_t* c, Key<W>& key) const {
    bool good = true;
    for_axes(packing.dimension, [&](int a) {
      good &= packing.on_stride(a, c[1 + a]);
      c[1 + a] = packing.quotient(a, c[1 + a]);
    });
    return encode(packing, c, key) && good;
  }
  // The place of coordinates, which are changed to q, or -1.
  HEPOPS_HD int64_t place(int64_t* c) const {
    Key<W> wanted;
    return key(c, wanted) ? place_of(wanted, keys, count) : -1;
  }
};

// What the rest follows from: words and masks.
inline void lay_out(Packing& p) {
  p.bits = p.field[0].bits;
  for (int f = 1; f <= p.dimension; ++f) {
    Field& field = p.field[f];
    const uint64_t middle = uint64_t(field.base) + (uint64_t(1) << (field.bits - 1));
    field.top = middle == 0 ? 63 : std::countr_zero(middle);
    p.bits += field.bits;
  }
  p.words = 1 + (p.bits > 64);
  for (int f = 0; f <= p.dimension; ++f) {
    Field& field = p.field[f];
    field.last = field.bits == 64 ? ~uint64_t(0) : (uint64_t(1) << field.bits) - 1;
    field.mask[0] = field.mask[1] = 0;
  }
  if (p.bits > 64 * max_words) return;  // the caller refuses
  int place = 0;
  const auto put = [&](Field& field) {
    field.mask[p.words - 1 - place / 64] |= uint64_t(1) << place % 64;
    ++place;
  };
  for (int plane = 0; plane < 64; ++plane)
    for (int f = p.dimension; f > 0; --f)
      if (p.field[f].has(plane)) put(p.field[f]);
  for (int plane = 0; plane < p.field[0].bits; ++plane) put(p.field[0]);
  for (int f = 0; f <= p.dimension; ++f) p.field[f].low_bits = std::popcount(p.field[f].mask[p.words - 1]);
  for (int a = 0; a < p.dimension; ++a)
    p.shift[a] = std::has_single_bit(uint64_t(p.stride[a])) ? std::countr_zero(uint64_t(p.stride[a])) : -1;
}

// More than 128 bits are the caller's to refuse.
inline Packing make_packing(int dimension, const Extent& extent, const int64_t* stride) {
  Packing p{};
  p.dimension = dimension;
  p.field[0].base = extent.low[0];
  p.field[0].bits = std::bit_width(uint64_t(extent.high[0]) - uint64_t(extent.low[0]));
  for (int f = 1; f <= dimension; ++f) {
    const int64_t low = extent.low[f], high = extent.high[f];
    Field& field = p.field[f];
    field.bits = std::bit_width(uint64_t(low ^ high));
    if (field.bits <= 3) {
      field.bits = 3;
      field.base = low >> 3 << 3;
    } else {
      const uint64_t middle = uint64_t(high) >> (field.bits - 1) << (field.bits - 1);
      field.bits = 1 + std::max<int>(std::bit_width((uint64_t(high) - middle) | (middle - 1 - uint64_t(low))), 2);
      field.base = int64_t(middle - (uint64_t(1) << (field.bits - 1)));
    }
    p.stride[f - 1] = stride[f - 1];
  }
  lay_out(p);
  return p;
}

// The same planes, whatever the strides.
inline bool same_planes(const Packing& a, const Packing& b) {
  if (a.dimension != b.dimension) return false;
  for (int f = 0; f <= a.dimension; ++f)
    if (a.field[f].base != b.field[f].base || a.field[f].bits != b.field[f].bits) return false;
  return true;
}

}  // namespace hepops::sparse
