#include "sparse/coordinates.h"

#include <array>
#include <limits>
#include <tuple>

#include "core/check.h"
#include "core/exclusive_scan.h"
#include "core/for_each.h"
#include "core/op.h"
#include "core/sort_pairs.h"
#include "sparse/packing_tensor.h"
#ifndef __CUDACC__
#include "sparse/coordinates_cpu.h"
#endif

namespace hepops::sparse {
namespace {

using core::check_value;
using core::for_each;
using core::in;
using core::out;
using core::ScalarType;
using torch::stable::new_empty;

constexpr uint64_t sign = uint64_t(1) << 63;

// Calls f<C>() with the integer type of coordinates.
template <class F>
void for_coordinates(const Tensor& x, const F& f) {
  if (x.scalar_type() == ScalarType::Int)
    f.template operator()<int32_t>();
  else
    f.template operator()<int64_t>();
}

#ifndef __CUDACC__
// Calls f<D>() with the dimension.
template <class F>
void for_dimension(int dimension, const F& f) {
  switch (dimension) {
    case 1: return f.template operator()<1>();
    case 2: return f.template operator()<2>();
    case 3: return f.template operator()<3>();
    case 4: return f.template operator()<4>();
    case 5: return f.template operator()<5>();
    default: return f.template operator()<6>();
  }
}
#endif

void check_coordinates(const char* name, const Tensor& x) {
  core::check_type(x.scalar_type() == ScalarType::Int || x.scalar_type() == ScalarType::Long, name,
                   " must be int32 or int64, got ", toString(x.scalar_type()));
  check_value(x.dim() == 2 && 2 <= x.size(1) && x.size(1) <= 1 + max_dimension, name,
              " must be (N, 1 + D) [batch, x, ...] with D from 1 to 6, got shape ", core::Shape{x});
}

struct Span {
  const std::vector<int64_t>& numbers;
  friend std::ostream& operator<<(std::ostream& text, const Span& span) {
    text << '(';
    for (const char* comma = ""; const int64_t x : span.numbers) text << comma << x, comma = ", ";
    return text << ')';
  }
};

void check_stride(const char* name, const std::vector<int64_t>& stride, int64_t dimension) {
  bool good = int64_t(stride.size()) == dimension;
  for (const int64_t s : stride) good &= s > 0;
  check_value(good, name, " must be ", dimension, " positive numbers, got ", Span{stride});
}

// --- extents ---------------------------------------------------------------------------------------------------------

struct Strides {
  int64_t stride[max_dimension];
};

constexpr int64_t rows_a_range = 64;

// Of 64 rows: low and high of each column, and whether any is off the stride: 2 (1 + D) + 1 numbers.
template <class C>
struct RangeOfRows {
  const C* rows;
  int64_t n;
  int columns;
  Strides strides;
  int64_t* ranges;
  HEPOPS_HD void operator()(int64_t r) const {
    int64_t* range = ranges + r * (2 * columns + 1);
    const int64_t end = (r + 1) * rows_a_range < n ? (r + 1) * rows_a_range : n;
    bool off = false;
    const auto look = [&](int f, int64_t stride) {
      int64_t low = INT64_MAX, high = INT64_MIN;
      for (int64_t i = r * rows_a_range; i < end; ++i) {
        const int64_t c = rows[i * columns + f];
        low = c < low ? c : low;
        high = c > high ? c : high;
        off |= c % stride != 0;
      }
      range[f] = low, range[columns + f] = high;
    };
    look(0, 1);
    for_axes(columns - 1, [&](int a) { look(1 + a, strides.stride[a]); });
    range[2 * columns] = off;
  }
};

// Of 64 ranges, one.
struct RangeOfRanges {
  const int64_t* parts;
  int64_t n;
  int columns;
  int64_t* ranges;
  HEPOPS_HD void operator()(int64_t r) const {
    const int width = 2 * columns + 1;
    const int64_t end = (r + 1) * rows_a_range < n ? (r + 1) * rows_a_range : n;
    for (int f = 0; f < width; ++f) {
      int64_t best = parts[r * rows_a_range * width + f];
      for (int64_t i = r * rows_a_range + 1; i < end; ++i) {
        const int64_t x = parts[i * width + f];
        best = (f < columns ? x < best : x > best) ? x : best;
      }
      ranges[r * width + f] = best;
    }
  }
};

struct Range {
  Extent extent;  // of c
  bool off_stride;
};

Range plain_range(const Tensor& c, const std::vector<int64_t>& stride) {
  const int columns = int(c.size(1)), width = 2 * columns + 1;
  Strides strides{};
  std::copy(stride.begin(), stride.end(), strides.stride);
  int64_t n = c.size(0), m = (n + rows_a_range - 1) / rows_a_range;
  Tensor ranges = new_empty(c, {m, width}, ScalarType::Long);
  for_coordinates(
      c, [&]<class C>() { for_each(c, m, RangeOfRows<C>{in<C>(c), n, columns, strides, out<int64_t>(ranges)}); });
  while (m > 1) {
    const Tensor parts = ranges;
    n = m, m = (n + rows_a_range - 1) / rows_a_range;
    ranges = new_empty(c, {m, 2 * max_dimension + 3}, ScalarType::Long);
    for_each(c, m, RangeOfRanges{in<int64_t>(parts), n, columns, out<int64_t>(ranges)});
  }
  std::array<int64_t, 2 * max_dimension + 3> numbers{};
#ifdef __CUDACC__
  core::on_stream(c, [&](cudaStream_t stream) {
    STD_CUDA_CHECK(
        cudaMemcpyAsync(numbers.data(), in<int64_t>(ranges), width * sizeof(int64_t), cudaMemcpyDeviceToHost, stream));
    STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  });
#else
  std::copy_n(in<int64_t>(ranges), width, numbers.data());
#endif
  Range range{{}, numbers[2 * columns] != 0};
  std::copy_n(numbers.data(), columns, range.extent.low);
  std::copy_n(numbers.data() + columns, columns, range.extent.high);
  return range;
}

// The packing of q = floor(c / stride) for what is in c, after its checks.
Packing packing_of(const char* name, const Tensor& c, const std::vector<int64_t>& stride, bool on_stride, bool plain) {
  const int D = int(c.size(1)) - 1;
  Range range{};
  if (c.size(0) > 0) {
#ifdef __CUDACC__
    plain = true;
#else
    if (!plain)
      for_dimension(D, [&]<int d>() {
        for_coordinates(c, [&]<class C>() {
          C low[d + 1], high[d + 1];
          cpu::extent_of<d>(in<C>(c), c.size(0), low, high);
          std::copy_n(low, d + 1, range.extent.low);
          std::copy_n(high, d + 1, range.extent.high);
          if (on_stride) range.off_stride = !cpu::all_on_stride<d>(stride.data(), in<C>(c), c.size(0));
        });
      });
#endif
    if (plain) range = plain_range(c, stride);
  }
  check_value(!on_stride || !range.off_stride, name, ": coordinates must be multiples of the stride ", Span{stride});
  const int64_t least = c.scalar_type() == ScalarType::Int ? std::numeric_limits<int32_t>::min() : INT64_MIN;
  Extent q = range.extent;
  for (int a = 0; a < D; ++a) {
    q.low[1 + a] = floor_divide(q.low[1 + a], stride[a]);
    q.high[1 + a] = floor_divide(q.high[1 + a], stride[a]);
    check_value(q.low[1 + a] >= least / stride[a], name, ": coordinate ", range.extent.low[1 + a],
                " rounded down to a ", "multiple of ", stride[a], " leaves ", toString(c.scalar_type()));
  }
  const Packing packing = make_packing(D, q, stride.data());
  if (packing.bits > 64 * max_words) {
    std::ostringstream text;
    text << "batch " << q.low[0] << " to " << q.high[0];
    for (int a = 0; a < D; ++a)
      text << ", axis " << a << ' ' << range.extent.low[1 + a] << " to " << range.extent.high[1 + a];
    check_value(false, name, ": coordinates need ", packing.bits, " bits, of which there are 128: ", text.str());
  }
  return packing;
}

// --- plain forms -----------------------------------------------------------------------------------------------------

template <int W, class C>
struct Encode {
  Packing packing;
  const C* rows;
  int64_t*
      word[2];  // the lower first, its sign flipped where all 64 bits are sorted, since that sort is of signed keys
  HEPOPS_HD void operator()(int64_t i) const {
    const C* row = rows + i * (1 + packing.dimension);
    int64_t q[1 + max_dimension] = {int64_t(row[0])};
    for_axes(packing.dimension, [&](int a) { q[1 + a] = packing.quotient(a, row[1 + a]); });
    Key<W> key;
    encode(packing, q, key);
    for (int w = 0; w < W; ++w) word[w][i] = int64_t(key.word[W - 1 - w] ^ (packing.bits >= 64 * (w + 1) ? sign : 0));
  }
};

struct Gather {
  const int64_t* from;
  const int64_t* order;
  int64_t* to;
  HEPOPS_HD void operator()(int64_t i) const { to[i] = from[order[i]]; }
};

// The key of sorted row i, from the two words as they were encoded.
template <int W>
struct SortedWords {
  const int64_t* word[2];  // sorted
  int bits;
  HEPOPS_HD Key<W> operator()(int64_t i) const {
    Key<W> key;
    for (int w = 0; w < W; ++w) key.word[W - 1 - w] = uint64_t(word[w][i]) ^ (bits >= 64 * (w + 1) ? sign : 0);
    return key;
  }
};

template <class KeyAt>
struct Head {
  KeyAt key;
  int64_t* head;
  HEPOPS_HD void operator()(int64_t i) const { head[i] = i == 0 || !(key(i) == key(i - 1)); }
};

template <int W, class KeyAt>
struct EmitKeys {
  KeyAt key;
  const int64_t* places;  // exclusive scan of heads
  const int64_t* order;
  Key<W>* keys;
  int64_t* leader;  // first row of each key
  HEPOPS_HD void operator()(int64_t i) const {
    if (places[i + 1] == places[i]) return;
    keys[places[i]] = key(i);
    leader[places[i]] = order[i];
  }
};

struct PlainSort {
  Tensor keys, order, places, leader;  // (m, W), (n), (n + 1), (m)
  int64_t unique;
};

PlainSort plain_sort(const Packing& p, const Tensor& c) {
  const int64_t n = c.size(0);
  PlainSort s;
  for_words(p.words, [&]<int W>() {
    Tensor words[2] = {new_empty(c, {n}, ScalarType::Long), {}};
    if (W == 2) words[1] = new_empty(c, {n}, ScalarType::Long);
    for_coordinates(c, [&]<class C>() {
      Encode<W, C> encode{p, in<C>(c), {out<int64_t>(words[0]), W == 2 ? out<int64_t>(words[1]) : nullptr}};
      for_each(c, n, encode);
    });
    std::tie(words[0], s.order) = core::sort_pairs(words[0], {}, std::min(p.bits, 64));
    if (W == 2) {
      const Tensor high = core::empty_like(words[1]), low = core::empty_like(words[0]);
      for_each(c, n, Gather{in<int64_t>(words[1]), in<int64_t>(s.order), out<int64_t>(high)});
      Tensor sorted, move;
      std::tie(sorted, move) = core::sort_pairs(high, {}, p.bits - 64);
      const Tensor order = core::empty_like(s.order);
      for_each(c, n, Gather{in<int64_t>(s.order), in<int64_t>(move), out<int64_t>(order)});
      for_each(c, n, Gather{in<int64_t>(words[0]), in<int64_t>(move), out<int64_t>(low)});
      words[0] = low, words[1] = sorted, s.order = order;
    }
    const SortedWords<W> key{{in<int64_t>(words[0]), W == 2 ? in<int64_t>(words[1]) : nullptr}, p.bits};
    const Tensor heads = new_empty(c, {n}, ScalarType::Long);
    for_each(c, n, Head<SortedWords<W>>{key, out<int64_t>(heads)});
    s.places = core::exclusive_scan(heads);
    s.unique = read<1>(s.places, in<int64_t>(s.places) + n)[0];
    s.keys = new_empty(c, {s.unique, W}, ScalarType::Long);
    s.leader = new_empty(c, {s.unique}, ScalarType::Long);
    for_each(c, n,
             EmitKeys<W, SortedWords<W>>{key, in<int64_t>(s.places), in<int64_t>(s.order),
                                         reinterpret_cast<Key<W>*>(out<int64_t>(s.keys)), out<int64_t>(s.leader)});
  });
  return s;
}

template <class I>
struct Convert {
  const int64_t* from;
  I* to;
  HEPOPS_HD void operator()(int64_t i) const { to[i] = I(from[i]); }
};

struct Fill {
  int64_t value;
  int64_t* to;
  HEPOPS_HD void operator()(int64_t i) const { to[i] = value; }
};

struct Mark {
  const int64_t* at;
  int64_t* to;
  HEPOPS_HD void operator()(int64_t i) const { to[at[i]] = 1; }
};

// Merged rows are numbered by their first occurrence.
template <class I>
struct Number {
  const int64_t* leader;
  const int64_t* number;
  I* schedule;
  int64_t* first;
  HEPOPS_HD void operator()(int64_t place) const {
    const int64_t row = number[leader[place]];
    schedule[place] = I(row);
    first[row] = leader[place];
  }
};

struct Invert {
  const int64_t* places;
  const int64_t* order;
  const int64_t* leader;
  const int64_t* number;
  int64_t* inverse;
  HEPOPS_HD void operator()(int64_t i) const { inverse[order[i]] = number[leader[places[i + 1] - 1]]; }
};

struct PlaceOfRow {
  const int64_t* places;
  const int64_t* order;
  int64_t* place;
  HEPOPS_HD void operator()(int64_t i) const { place[order[i]] = places[i + 1] - 1; }
};

template <int W, class C>
struct DecodeRow {
  Packing packing;
  const Key<W>* keys;
  C* rows;
  HEPOPS_HD void operator()(int64_t i) const {
    int64_t row[1 + max_dimension] = {};
    decode(packing, keys[i], row);
    C* to = rows + i * (1 + packing.dimension);
    to[0] = C(row[0]);
    for_axes(packing.dimension, [&](int a) { to[1 + a] = C(row[1 + a] * packing.stride[a]); });
  }
};

Tensor decoded(const Packing& p, const Tensor& keys, ScalarType kind) {
  Tensor rows = new_empty(keys, {keys.size(0), 1 + p.dimension}, kind);
  for_words(p.words, [&]<int W>() {
    for_coordinates(
        rows, [&]<class C>() { for_each(keys, keys.size(0), DecodeRow<W, C>{p, keys_of<W>(keys), out<C>(rows)}); });
  });
  return rows;
}

Indexed plain_index(const Packing& p, const Tensor& c, ScalarType kind) {
  const int64_t n = c.size(0);
  const PlainSort s = plain_sort(p, c);
  Indexed result{to_tensor(p), s.keys, new_empty(c, {s.unique}, kind), new_empty(c, {0}, ScalarType::Long),
                 new_empty(c, {0}, ScalarType::Long)};
  for_coordinates(result.schedule, [&]<class I>() {
    I* schedule = out<I>(result.schedule);
    if (s.unique == n) return for_each(c, n, Convert<I>{in<int64_t>(s.order), schedule});
    const Tensor marks = new_empty(c, {n}, ScalarType::Long);
    for_each(c, n, Fill{0, out<int64_t>(marks)});
    for_each(c, s.unique, Mark{in<int64_t>(s.leader), out<int64_t>(marks)});
    const Tensor number = core::exclusive_scan(marks);
    result.first = new_empty(c, {s.unique}, ScalarType::Long);
    result.inverse = new_empty(c, {n}, ScalarType::Long);
    for_each(c, s.unique, Number<I>{in<int64_t>(s.leader), in<int64_t>(number), schedule, out<int64_t>(result.first)});
    for_each(c, n,
             Invert{in<int64_t>(s.places), in<int64_t>(s.order), in<int64_t>(s.leader), in<int64_t>(number),
                    out<int64_t>(result.inverse)});
  });
  return result;
}

// --- tuned forms for the CPU -----------------------------------------------------------------------------------------

#ifndef __CUDACC__

template <int D, int W, class C>
Indexed tuned_index(const Packing& p, const Tensor& c, ScalarType kind) {
  const int64_t n = c.size(0);
  Indexed result{to_tensor(p), {}, {}, {}, {}};
  cpu::with_sorted<D, W>(p, in<C>(c), n, [&](const auto& key, const auto& row) {
    int64_t unique = n > 0;
    for (int64_t i = 1; i < n; ++i) unique += !(key(i) == key(i - 1));
    result.keys = new_empty(c, {unique, W}, ScalarType::Long);
    result.schedule = new_empty(c, {unique}, kind);
    result.first = new_empty(c, {unique == n ? 0 : unique}, ScalarType::Long);
    result.inverse = new_empty(c, {unique == n ? 0 : n}, ScalarType::Long);
    auto* const keys = reinterpret_cast<Key<W>*>(out<int64_t>(result.keys));
    for_coordinates(result.schedule, [&]<class I>() {
      I* const schedule = out<I>(result.schedule);
      if (unique == n) {
        for (int64_t i = 0; i < n; ++i) keys[i] = key(i), schedule[i] = I(row(i));
        return;
      }
      int64_t* const first = out<int64_t>(result.first);
      int64_t* const inverse = out<int64_t>(result.inverse);
      // inverse holds the first row of each key, then, from the first row on, numbers
      for (int64_t i = 0, leader = 0, place = -1; i < n; ++i) {
        if (i == 0 || !(key(i) == key(i - 1))) leader = row(i), keys[++place] = key(i), schedule[place] = I(leader);
        inverse[row(i)] = leader;
      }
      for (int64_t i = 0, number = 0; i < n; ++i) {
        if (inverse[i] == i)
          first[number] = i, inverse[i] = number++;
        else
          inverse[i] = inverse[inverse[i]];  // a leader comes first, so it has its number
      }
      for (int64_t place = 0; place < unique; ++place) schedule[place] = I(inverse[schedule[place]]);
    });
  });
  return result;
}

template <int D, int W, class C>
Canonical tuned_canonical(const Packing& p, const Tensor& c) {
  const int64_t n = c.size(0);
  Canonical result{to_tensor(p), {}, {}, new_empty(c, {n}, ScalarType::Long)};
  int64_t* const place = out<int64_t>(result.place);
  cpu::with_sorted<D, W>(p, in<C>(c), n, [&](const auto& key, const auto& row) {
    int64_t unique = n > 0;
    for (int64_t i = 1; i < n; ++i) unique += !(key(i) == key(i - 1));
    result.keys = new_empty(c, {unique, W}, ScalarType::Long);
    auto* const keys = reinterpret_cast<Key<W>*>(out<int64_t>(result.keys));
    for (int64_t i = 0, last = -1; i < n; ++i) {
      if (i == 0 || !(key(i) == key(i - 1))) keys[++last] = key(i);
      place[row(i)] = last;
    }
  });
  result.coordinates = decoded(p, result.keys, c.scalar_type());
  return result;
}

#endif

}  // namespace

Indexed index(const Tensor& coordinates, const std::vector<int64_t>& stride, bool wide, bool plain) {
  check_coordinates("index: coordinates", coordinates);
  check_stride("index: stride", stride, coordinates.size(1) - 1);
  const Tensor c = core::contiguous(coordinates);
  const Packing p = packing_of("index", c, stride, /*on_stride=*/true, plain);
  const ScalarType kind = wide || c.size(0) > INT32_MAX ? ScalarType::Long : ScalarType::Int;
#ifndef __CUDACC__
  if (!plain) {
    Indexed result;
    for_dimension(p.dimension, [&]<int D>() {
      for_coordinates(
          c, [&]<class C>() { for_words(p.words, [&]<int W>() { result = tuned_index<D, W, C>(p, c, kind); }); });
    });
    return result;
  }
#endif
  return plain_index(p, c, kind);
}

Canonical canonical(const Tensor& coordinates, const std::vector<int64_t>& stride, bool on_stride, bool plain) {
  check_coordinates("canonical: coordinates", coordinates);
  check_stride("canonical: stride", stride, coordinates.size(1) - 1);
  const Tensor c = core::contiguous(coordinates);
  const Packing p = packing_of("canonical", c, stride, on_stride, plain);
#ifndef __CUDACC__
  if (!plain) {
    Canonical result;
    for_dimension(p.dimension, [&]<int D>() {
      for_coordinates(
          c, [&]<class C>() { for_words(p.words, [&]<int W>() { result = tuned_canonical<D, W, C>(p, c); }); });
    });
    return result;
  }
#endif
  const int64_t n = c.size(0);
  const PlainSort s = plain_sort(p, c);
  Canonical result{to_tensor(p), s.keys, decoded(p, s.keys, c.scalar_type()), new_empty(c, {n}, ScalarType::Long)};
  for_each(c, n, PlaceOfRow{in<int64_t>(s.places), in<int64_t>(s.order), out<int64_t>(result.place)});
  return result;
}

namespace {

// --- coarser cells ---------------------------------------------------------------------------------------------------

// The key of the cell that is 2^power wide on every axis: the children of a cell are neighbours in the order, so theirs
// is the parents' order, and cells differ where the planes above the lowest `power` do.
template <int W>
struct CellHead {
  const Key<W>* keys;
  int low_bits;  // planes below a cell's: power x D
  int64_t* head;
  HEPOPS_HD static bool differ(const Key<W>& a, const Key<W>& b, int low_bits) {
    uint64_t above = 0;
    for (int w = 0; w < W; ++w) {
      const uint64_t x = a.word[w] ^ b.word[w];
      above |= w + 1 < W ? x : (low_bits < 64 ? x >> low_bits : 0);
    }
    return above != 0;
  }
  HEPOPS_HD void operator()(int64_t i) const { head[i] = i == 0 || differ(keys[i], keys[i - 1], low_bits); }
};

template <int W, int V>
HEPOPS_HD Key<V> cell_key(const Packing& fine, const Packing& coarse, int power, const Key<W>& key) {
  int64_t row[1 + max_dimension] = {};
  decode(fine, key, row);
  for_axes(fine.dimension, [&](int a) { row[1 + a] >>= power; });
  Key<V> cell;
  encode(coarse, row, cell);
  return cell;
}

template <int W, int V>
struct EmitCells {
  Packing fine, coarse;
  int power;
  const Key<W>* keys;
  const int64_t* places;
  Key<V>* cells;
  HEPOPS_HD void operator()(int64_t i) const {
    if (places[i + 1] != places[i]) cells[places[i]] = cell_key<W, V>(fine, coarse, power, keys[i]);
  }
};

// What the planes of a packing leave possible, 2^power cells on.
Packing coarse_packing(const Packing& fine, int power) {
  Extent extent{};
  int64_t stride[max_dimension];
  extent.low[0] = fine.field[0].base, extent.high[0] = int64_t(uint64_t(fine.field[0].base) + fine.field[0].last);
  for (int f = 1; f <= fine.dimension; ++f) {
    extent.low[f] = fine.field[f].base >> power;
    extent.high[f] = int64_t(uint64_t(fine.field[f].base) + fine.field[f].last) >> power;
    stride[f - 1] = fine.stride[f - 1] << power;
  }
  return make_packing(fine.dimension, extent, stride);
}

// packing, keys of a set -> packing, keys and coordinates of its cells. Needs `power` low planes.
std::tuple<Tensor, Tensor, Tensor> coarsen(const Tensor& packing, const Tensor& keys, int64_t power, bool wide_rows,
                                           bool plain) {
  const Packing fine = from_tensor("coarsen", packing);
  core::check_int64("coarsen: keys", keys);
  check_value(keys.dim() == 2 && keys.size(1) == fine.words, "coarsen: keys do not suit the packing");
  for (int f = 1; f <= fine.dimension; ++f)
    check_value(0 <= power && power <= fine.field[f].low_planes() && fine.stride[f - 1] <= INT64_MAX >> power,
                "coarsen: power ", power, " leaves the planes of the packing");
  const Packing coarse = coarse_packing(fine, int(power));
  const int64_t n = keys.size(0);
  const Tensor k = core::contiguous(keys);
  const int low_bits = int(power) * fine.dimension;
  Tensor cells;
  for_words(fine.words, [&]<int W>() {
    for_words(coarse.words, [&]<int V>() {
      const Key<W>* from = keys_of<W>(k);
#ifndef __CUDACC__
      if (!plain) {
        int64_t unique = n > 0;
        for (int64_t i = 1; i < n; ++i) unique += CellHead<W>::differ(from[i], from[i - 1], low_bits);
        cells = new_empty(k, {unique, V});
        auto* to = reinterpret_cast<Key<V>*>(out<int64_t>(cells));
        bool shifts = W == 1 && low_bits < 64;  // the same planes, but for the lowest
        for (int f = 0; f <= fine.dimension; ++f)
          shifts &= coarse.field[f].mask[0] == fine.field[f].mask[0] >> low_bits &&
                    coarse.field[f].base == (f > 0 ? fine.field[f].base >> power : fine.field[f].base);
        if (shifts) {
          uint64_t last = 0;
          for (int64_t i = 0; i < n; ++i) {
            const uint64_t cell = from[i].word[0] >> low_bits;
            if (i == 0 || cell != last) (to++)->word[0] = cell;
            last = cell;
          }
          return;
        }
        for (int64_t i = 0; i < n; ++i)
          if (i == 0 || CellHead<W>::differ(from[i], from[i - 1], low_bits))
            *to++ = cell_key<W, V>(fine, coarse, int(power), from[i]);
        return;
      }
#endif
      const Tensor heads = new_empty(k, {n});
      for_each(k, n, CellHead<W>{from, low_bits, out<int64_t>(heads)});
      const Tensor places = core::exclusive_scan(heads);
      const int64_t unique = read<1>(places, in<int64_t>(places) + n)[0];
      cells = new_empty(k, {unique, V});
      for_each(k, n,
               EmitCells<W, V>{fine, coarse, int(power), from, in<int64_t>(places),
                               reinterpret_cast<Key<V>*>(out<int64_t>(cells))});
    });
  });
  const Tensor rows = decoded(coarse, cells, wide_rows ? ScalarType::Long : ScalarType::Int);
  return {to_tensor(coarse), cells, rows};
}

// --- search ----------------------------------------------------------------------------------------------------------

template <int W, class C, class I>
struct Find {
  KeySet<W> set;
  const I* schedule;
  const C* queries;
  int64_t* rows;
  HEPOPS_HD void operator()(int64_t i) const {
    const C* from = queries + i * (1 + set.packing.dimension);
    int64_t c[1 + max_dimension] = {int64_t(from[0])};
    for_axes(set.packing.dimension, [&](int a) { c[1 + a] = from[1 + a]; });
    const int64_t place = set.place(c);
    rows[i] = place < 0 ? -1 : int64_t(schedule[place]);
  }
};

Tensor find(const Tensor& packing, const Tensor& keys, const Tensor& schedule, const Tensor& queries) {
  const Packing p = from_tensor("find", packing);
  check_coordinates("find: queries", queries);
  check_value(queries.size(1) == 1 + p.dimension, "find: queries must have ", 1 + p.dimension, " columns, got shape ",
              core::Shape{queries});
  check_value(queries.device() == keys.device(), "find: queries must be on the device of the index");
  const Tensor k = core::contiguous(keys), s = core::contiguous(schedule), c = core::contiguous(queries);
  Tensor rows = new_empty(c, {c.size(0)}, ScalarType::Long);
  for_words(p.words, [&]<int W>() {
    for_coordinates(c, [&]<class C>() {
      for_coordinates(s, [&]<class I>() {
        for_each(c, c.size(0), Find<W, C, I>{{p, keys_of<W>(k), k.size(0)}, in<I>(s), in<C>(c), out<int64_t>(rows)});
      });
    });
  });
  return rows;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> index_op(const Tensor& coordinates, std::vector<int64_t> stride,
                                                            bool wide, bool plain) {
  const Indexed x = index(coordinates, stride, wide, plain);
  return {x.packing, x.keys, x.schedule, x.first, x.inverse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> canonical_op(const Tensor& coordinates, std::vector<int64_t> stride,
                                                        bool on_stride, bool plain) {
  const Canonical x = canonical(coordinates, stride, on_stride, plain);
  return {x.packing, x.keys, x.coordinates, x.place};
}

const core::Operators operators{
    core::op<index_op>("_sparse_index(Tensor coordinates, int[] stride, bool wide, bool plain)"
                       " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"),
    core::op<canonical_op>("_sparse_canonical(Tensor coordinates, int[] stride, bool on_stride, bool plain)"
                           " -> (Tensor, Tensor, Tensor, Tensor)"),
    core::op<coarsen>("_sparse_coarsen(Tensor packing, Tensor keys, int power, bool wide, bool plain)"
                      " -> (Tensor, Tensor, Tensor)"),
    core::op<find>("_sparse_find(Tensor packing, Tensor keys, Tensor schedule, Tensor queries) -> Tensor"),
};

}  // namespace
}  // namespace hepops::sparse
