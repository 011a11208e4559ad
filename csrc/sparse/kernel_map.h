#pragma once
// Which rows meet under which kernel offset: triples (i, o, k) of source row, target row and offset with
//
//   c_i = c_o + offset_k
//
// and the three plain ways to find them, by how many questions they ask of n_s sources, n_t targets and K offsets:
//   probe     n_t K          for every target and offset: is there a source?
//   box       n_s prod C_a   for every source: which targets can reach it? C_a = ceil(k_a / s_a) on an axis, where the
//                            offsets are a box: one for k = stride, however large the kernel
//   pairwise  n_s n_t        for every source and target: is their difference an offset?
#include <numeric>

#include "sparse/packing.h"

namespace hepops::sparse {

// offset_k = first + index step, index (i_0, i_1, ...) with k = i_0 + size_0 (i_1 + size_1 (i_2 + ...)).
// Sources c are reached from targets on a stride t where first + i step = c (mod t): i = root(c) + j period.
struct Box {
  int dimension;
  int64_t first[max_dimension], step[max_dimension], size[max_dimension];
  int64_t common[max_dimension], period[max_dimension], inverse[max_dimension];  // gcd(step, t), t / gcd, of step / gcd
  int64_t candidates[max_dimension], all_candidates;

  // The j-th target of source c (its batch first) is put into `target`; k, or -1 where there is none.
  HEPOPS_HD int64_t target(const int64_t* c, int64_t j, int64_t* target) const {
    int64_t k = 0, volume = 1;
    bool good = true;
    target[0] = c[0];
    for_axes(dimension, [&](int a) {
      const int64_t from_first = c[1 + a] - first[a];
      good &= from_first % common[a] == 0;
      const int64_t residue = from_first / common[a] % period[a];
      const int64_t root = (residue + (residue < 0 ? period[a] : 0)) * inverse[a] % period[a];
      const int64_t i = root + j % candidates[a] * period[a];
      j /= candidates[a];
      good &= i < size[a];
      target[1 + a] = from_first - i * step[a];
      k += i * volume;
      volume *= size[a];
    });
    return good ? k : -1;
  }
};

// The inverse of x modulo m, which share no factor.
inline int64_t inverse_modulo(int64_t x, int64_t m) {
  int64_t r = m, next_r = x % m, t = 0, next_t = 1;
  while (next_r > 0) {
    const int64_t q = r / next_r;
    t -= q * next_t, std::swap(t, next_t);
    r -= q * next_r, std::swap(r, next_r);
  }
  return m == 1 ? 0 : (t % m + m) % m;
}

// Whether offsets (K, D) are a box; if so, the box for targets on a stride.
inline bool make_box(int dimension, const int64_t* offsets, int64_t volume, const int64_t* stride, Box& box) {
  if (volume == 0) return false;
  box.dimension = dimension;
  const auto at = [&](int64_t k, int a) { return offsets[k * dimension + a]; };
  int64_t period = 1;
  box.all_candidates = 1;
  for (int a = 0; a < dimension; ++a) {
    box.first[a] = at(0, a);
    box.step[a] = period < volume ? at(period, a) - at(0, a) : 0;
    box.size[a] = 1;
    if (box.step[a] > 0)
      while ((box.size[a] + 1) * period <= volume &&
             at(box.size[a] * period, a) == box.first[a] + box.size[a] * box.step[a])
        ++box.size[a];
    else
      box.step[a] = 1;
    period *= box.size[a];
    const int64_t common = std::gcd(box.step[a], stride[a]);
    box.common[a] = common;
    box.period[a] = stride[a] / common;
    box.inverse[a] = inverse_modulo(box.step[a] / common, box.period[a]);
    box.candidates[a] = (box.size[a] + box.period[a] - 1) / box.period[a];
    box.all_candidates *= box.candidates[a];
  }
  if (period != volume) return false;
  for (int64_t k = 0; k < volume; ++k)
    for (int64_t a = 0, rest = k; a < dimension; rest /= box.size[a], ++a)
      if (at(k, int(a)) != box.first[a] + rest % box.size[a] * box.step[a]) return false;
  return true;
}

HEPOPS_HD bool add(int64_t a, int64_t b, int64_t& sum) {
  sum = int64_t(uint64_t(a) + uint64_t(b));
  return ((a ^ sum) & (b ^ sum)) >= 0;
}

// The place of the source at c + offset, or -1.
template <class Source>
HEPOPS_HD int64_t probe(const Source& source, const int64_t* c, const int64_t* offset) {
  int64_t moved[1 + max_dimension] = {c[0]};
  bool good = true;
  for_axes(source.packing.dimension, [&](int a) { good &= add(c[1 + a], offset[a], moved[1 + a]); });
  return good ? source.place(moved) : -1;
}

// f(target place, k) for every triple of a source place, by `box`.
template <int S, class Target>
struct ByBox {
  KeySet<S> source;
  Target target;
  Box box;
  template <class F>
  HEPOPS_HD void operator()(int64_t i, const F& f) const {
    int64_t c[1 + max_dimension], o[1 + max_dimension];
    source.row(i, c);
    for (int64_t j = 0; j < box.all_candidates; ++j) {
      const int64_t k = box.target(c, j, o);
      if (k < 0) continue;
      const int64_t place = target.place(o);
      if (place >= 0) f(place, k);
    }
  }
};

// The same, by `pairwise`: offsets are a set of their own, with batch 0 and stride 1; equal offsets stand in a row.
template <int S, int T, int O>
struct Pairwise {
  KeySet<S> source;
  KeySet<T> target;
  KeySet<O> offsets;       // sorted, with repetitions
  const int64_t* volumes;  // k at each place
  template <class F>
  HEPOPS_HD void operator()(int64_t i, const F& f) const {
    int64_t c[1 + max_dimension], o[1 + max_dimension];
    source.row(i, c);
    for (int64_t place = 0; place < target.count; ++place) {
      target.row(place, o);
      if (o[0] != c[0]) continue;
      bool good = true;
      for_axes(source.packing.dimension, [&](int axis) {
        const int a = 1 + axis;
        const int64_t difference = int64_t(uint64_t(c[a]) - uint64_t(o[a]));
        good &= ((c[a] ^ o[a]) & (c[a] ^ difference)) >= 0;
        o[a] = difference;
      });
      o[0] = 0;
      Key<O> key;
      if (!good || !offsets.key(o, key)) continue;
      int64_t at = place_of(key, offsets.keys, offsets.count);
      for (; at >= 0 && at < offsets.count && offsets.keys[at] == key; ++at) f(place, volumes[at]);
    }
  }
};

}  // namespace hepops::sparse
