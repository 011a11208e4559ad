#include "sparse/kernel_map.h"

#include <cstdlib>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/exclusive_scan.h"
#include "core/for_each.h"
#include "core/op.h"
#include "core/scatter_add.h"
#include "core/sort_pairs.h"
#include "sparse/packing_tensor.h"
#include "sparse/pair_tensors.h"
#ifndef __CUDACC__
#include "sparse/kernel_map_cpu.h"
#include "sparse/key_table.h"
#endif

namespace hepops::sparse {
namespace {

using core::check_value;
using core::for_each;
using core::in;
using core::out;
using core::ScalarType;
using torch::stable::new_empty;

// An index as operators receive it.
struct Set {
  Packing packing;
  Tensor keys, schedule;
  int64_t count;
  template <int W>
  KeySet<W> of() const {
    return {packing, keys_of<W>(keys), count};
  }
};

Set make_set(const char* name, const Tensor& packing, const Tensor& keys, const Tensor& schedule) {
  Set set{from_tensor(name, packing), core::contiguous(keys), core::contiguous(schedule), keys.size(0)};
  core::check_int64(name, keys);
  check_value(keys.dim() == 2 && keys.size(1) == set.packing.words && schedule.dim() == 1 &&
                  schedule.size(0) == set.count && schedule.device() == keys.device(),
              name, ": keys ", core::Shape{keys}, " and schedule ", core::Shape{schedule}, " are of no index");
  core::check_type(schedule.scalar_type() == ScalarType::Int || schedule.scalar_type() == ScalarType::Long, name,
                   ": the schedule must be int32 or int64, got ", toString(schedule.scalar_type()));
  return set;
}

template <class F>
void for_schedule(const Tensor& schedule, const F& f) {
  if (schedule.scalar_type() == ScalarType::Int)
    f.template operator()<int32_t>();
  else
    f.template operator()<int64_t>();
}

// A list's tensors, of one integer type.
struct Made {
  Tensor pairs, entries, tiles;
  Made(const Tensor& on, ScalarType kind, int64_t num_pairs, int64_t num_entries, int64_t num_tiles)
      : Made(on, num_pairs, num_entries, num_tiles, num_pairs > INT32_MAX ? ScalarType::Long : kind) {}

 private:
  Made(const Tensor& on, int64_t num_pairs, int64_t num_entries, int64_t num_tiles, ScalarType kind)
      : pairs(new_empty(on, {num_pairs, 2}, kind)),
        entries(new_empty(on, {num_entries + 1, 2}, kind)),
        tiles(new_empty(on, {num_tiles + 1}, kind)) {}

 public:
  template <class I>
  Pair<I>* pair() const {
    return reinterpret_cast<Pair<I>*>(out<I>(pairs));
  }
  template <class I>
  Entry<I>* entry() const {
    return reinterpret_cast<Entry<I>*>(out<I>(entries));
  }
};

int64_t tiles_of(int64_t rows, int64_t tile) { return (rows + tile - 1) / tile; }

// --- from triples in any order ---------------------------------------------------------------------------------------

// A triple as a key whose order is that of the list, (tile, k, place in the tile), with the row that is read.
struct Order {
  int64_t tile, volume;
  HEPOPS_HD int64_t key(int64_t place, int64_t k) const { return (place / tile * volume + k) * tile + place % tile; }
  HEPOPS_HD int64_t group(int64_t key) const { return key / tile; }
  HEPOPS_HD int64_t offset(int64_t key) const { return key / tile % volume; }
  HEPOPS_HD int64_t place(int64_t key) const { return key / tile / volume * tile + key % tile; }
};

struct GroupHead {
  const int64_t* keys;
  Order order;
  int64_t* head;
  HEPOPS_HD void operator()(int64_t i) const { head[i] = i == 0 || order.group(keys[i]) != order.group(keys[i - 1]); }
};

template <class I>
struct EmitSorted {
  const int64_t* keys;
  const int64_t* rows;
  const int64_t* entry_of;  // exclusive scan of heads
  Order order;
  Pair<I>* pairs;
  Entry<I>* entries;
  int64_t* groups;
  HEPOPS_HD void operator()(int64_t i) const {
    pairs[i] = {I(rows[i]), I(order.place(keys[i]))};
    if (entry_of[i + 1] == entry_of[i]) return;
    entries[entry_of[i]] = {I(i), I(order.offset(keys[i]))};
    groups[entry_of[i]] = order.group(keys[i]);
  }
};

template <class I>
struct EmitTiles {
  const int64_t* groups;
  int64_t num_entries, num_pairs, num_tiles, volume;
  Entry<I>* entries;
  I* tiles;
  HEPOPS_HD void operator()(int64_t t) const {
    tiles[t] = I(core::lower_bound(groups, num_entries, t * volume));
    if (t == num_tiles) entries[num_entries] = {I(num_pairs), I(-1)};
  }
};

Made from_triples(const Tensor& keys, const Tensor& rows, const Order& order, int64_t num_rows, ScalarType kind) {
  const int64_t n = keys.numel(), num_tiles = tiles_of(num_rows, order.tile);
  check_value(num_tiles == 0 || order.volume <= INT64_MAX / order.tile / num_tiles,
              "kernel map: more than 2^63 rows times offsets");
  const int bits = std::bit_width(uint64_t(num_tiles * order.volume * order.tile));
  const auto [sorted, read_rows] = core::sort_pairs(keys, rows, bits);
  const Tensor heads = core::empty_like(sorted);
  for_each(keys, n, GroupHead{in<int64_t>(sorted), order, out<int64_t>(heads)});
  const Tensor entry_of = core::exclusive_scan(heads);
  const int64_t num_entries = read<1>(entry_of, in<int64_t>(entry_of) + n)[0];
  const Tensor groups = new_empty(keys, {num_entries});
  Made made(keys, kind, n, num_entries, num_tiles);
  for_schedule(made.tiles, [&]<class I>() {
    for_each(keys, n,
             EmitSorted<I>{in<int64_t>(sorted), in<int64_t>(read_rows), in<int64_t>(entry_of), order, made.pair<I>(),
                           made.entry<I>(), out<int64_t>(groups)});
    for_each(keys, num_tiles + 1,
             EmitTiles<I>{in<int64_t>(groups), num_entries, n, num_tiles, order.volume, made.entry<I>(),
                          out<I>(made.tiles)});
  });
  return made;
}

template <class Visit>
struct CountTriples {
  Visit visit;
  int64_t* counts;
  HEPOPS_HD void operator()(int64_t i) const {
    int64_t count = 0;
    visit(i, [&](int64_t, int64_t) { ++count; });
    counts[i] = count;
  }
};

template <class Visit, class I>
struct EmitTriples {
  Visit visit;
  Order order;
  const int64_t* first;
  const I* schedule;
  int64_t* keys;
  int64_t* rows;
  HEPOPS_HD void operator()(int64_t i) const {
    int64_t at = first[i];
    visit(i, [&](int64_t place, int64_t k) {
      keys[at] = order.key(place, k);
      rows[at++] = schedule[i];
    });
  }
};

template <class Visit>
Made by_source(const Set& source, const Set& target, const Order& order, ScalarType kind, const Visit& visit) {
  const Tensor& on = source.keys;
  const Tensor counts = new_empty(on, {source.count});
  for_each(on, source.count, CountTriples<Visit>{visit, out<int64_t>(counts)});
  const Tensor first = core::exclusive_scan(counts);
  const int64_t n = read<1>(first, in<int64_t>(first) + source.count)[0];
  const Tensor keys = new_empty(on, {n}), rows = new_empty(on, {n});
  for_schedule(source.schedule, [&]<class I>() {
    for_each(on, source.count,
             EmitTriples<Visit, I>{visit, order, in<int64_t>(first), in<I>(source.schedule), out<int64_t>(keys),
                                   out<int64_t>(rows)});
  });
  return from_triples(keys, rows, order, target.count, kind);
}

// --- probe -----------------------------------------------------------------------------------------------------------

// The place of the source of (target place, k): looked up, or read where it was noted.
template <class Source, int T>
struct Probe {
  Source source;
  KeySet<T> target;
  const int64_t* offsets;
  HEPOPS_HD int64_t operator()(int64_t place, int64_t k) const {
    int64_t c[1 + max_dimension];
    target.row(place, c);
    return probe(source, c, offsets + k * source.packing.dimension);
  }
};

template <class I, class Lookup>
struct Note {
  Lookup lookup;
  int64_t count;
  I* noted;
  HEPOPS_HD void operator()(int64_t j) const { noted[j] = I(lookup(j % count, j / count)); }
};

template <class I>
struct Noted {
  const I* noted;
  int64_t count;
  HEPOPS_HD int64_t operator()(int64_t place, int64_t k) const { return noted[k * count + place]; }
};

template <class Lookup>
struct CountGroup {
  Lookup lookup;
  int64_t tile, volume, num_rows;
  int64_t* counts;
  int64_t* exists;
  HEPOPS_HD void operator()(int64_t group) const {
    const int64_t t = group / volume, k = group % volume;
    int64_t count = 0;
    for (int64_t place = t * tile; place < (t + 1) * tile && place < num_rows; ++place) count += lookup(place, k) >= 0;
    counts[group] = count;
    exists[group] = count > 0;
  }
};

template <class Lookup, class I, class J>
struct EmitGroup {
  Lookup lookup;
  int64_t tile, volume, num_rows, num_groups;
  const int64_t* first;
  const int64_t* entry_of;
  const J* schedule;
  Pair<I>* pairs;
  Entry<I>* entries;
  I* tiles;
  HEPOPS_HD void operator()(int64_t group) const {
    const int64_t t = group / volume, k = group % volume;
    if (k == 0) tiles[t] = I(entry_of[group]);
    if (group == num_groups) entries[entry_of[group]] = {I(first[group]), I(-1)};
    if (group == num_groups || first[group + 1] == first[group]) return;
    entries[entry_of[group]] = {I(first[group]), I(k)};
    int64_t at = first[group];
    for (int64_t place = t * tile; place < (t + 1) * tile && place < num_rows; ++place) {
      const int64_t found = lookup(place, k);
      if (found >= 0) pairs[at++] = {I(schedule[found]), I(place)};
    }
  }
};

struct Totals {
  const int64_t* first;
  const int64_t* entry_of;
  int64_t n;
  int64_t* totals;
  HEPOPS_HD void operator()(int64_t) const { totals[0] = first[n], totals[1] = entry_of[n]; }
};

template <class Lookup>
Made by_groups(const Set& source, const Set& target, int64_t tile, int64_t volume, ScalarType kind,
               const Lookup& lookup) {
  const Tensor& on = source.keys;
  const int64_t num_tiles = tiles_of(target.count, tile), num_groups = num_tiles * volume;
  const Tensor counts = new_empty(on, {num_groups}), exists = new_empty(on, {num_groups});
  for_each(on, num_groups,
           CountGroup<Lookup>{lookup, tile, volume, target.count, out<int64_t>(counts), out<int64_t>(exists)});
  const Tensor first = core::exclusive_scan(counts), entry_of = core::exclusive_scan(exists);
  const Tensor totals = new_empty(on, {2});
  for_each(on, 1, Totals{in<int64_t>(first), in<int64_t>(entry_of), num_groups, out<int64_t>(totals)});
  const auto [num_pairs, num_entries] = read<2>(totals, in<int64_t>(totals));
  Made made(on, kind, num_pairs, num_entries, num_tiles);
  for_schedule(made.tiles, [&]<class I>() {
    for_schedule(source.schedule, [&]<class J>() {
      for_each(on, num_groups + 1,
               EmitGroup<Lookup, I, J>{lookup, tile, volume, target.count, num_groups, in<int64_t>(first),
                                       in<int64_t>(entry_of), in<J>(source.schedule), made.pair<I>(), made.entry<I>(),
                                       out<I>(made.tiles)});
    });
  });
  return made;
}

// Numbers of the host, on the device of a tensor.
Tensor on_device(const Tensor& on, const int64_t* numbers, int64_t n) {
  Tensor copy = new_empty(on, {n}, ScalarType::Long);
#ifdef __CUDACC__
  core::on_stream(on, [&](cudaStream_t stream) {  // from pageable memory: it is staged before the call returns
    STD_CUDA_CHECK(cudaMemcpyAsync(out<int64_t>(copy), numbers, n * sizeof(int64_t), cudaMemcpyHostToDevice, stream));
  });
#else
  std::copy_n(numbers, n, out<int64_t>(copy));
#endif
  return copy;
}

constexpr int64_t most_noted = int64_t(1) << 26;  // probes whose answers are kept, rather than asked for twice

// f(set) with what finds places in a set: a table on the CPU, unless the plain form is asked for; else binary search.
template <int W, class F>
void searchable(const Set& set, bool plain, const F& f) {
#ifndef __CUDACC__
  if (!plain && set.count < UINT32_MAX) {
    Workspace workspace;
    const cpu::KeyTable<W> table(keys_of<W>(set.keys), set.count, workspace);
    return f(cpu::HashedSet<W>{set.of<W>(), &table});
  }
#endif
  (void)plain;
  f(set.of<W>());
}

Made by_probe(const Set& source, const Set& target, const int64_t* offsets, int64_t volume, int64_t tile,
              ScalarType kind, bool plain) {
  const Tensor at = on_device(source.keys, offsets, volume * source.packing.dimension);
  Made made(source.keys, kind, 0, 0, 0);
  for_words(source.packing.words, [&]<int S>() {
    for_words(target.packing.words, [&]<int T>() {
      searchable<S>(source, plain, [&]<class Source>(const Source& from) {
        const Probe<Source, T> lookup{from, target.of<T>(), in<int64_t>(at)};
        if (target.count > most_noted / std::max<int64_t>(volume, 1) || source.count > INT32_MAX) {
          made = by_groups(source, target, tile, volume, kind, lookup);
          return;
        }
        const Tensor noted = new_empty(source.keys, {volume, target.count}, ScalarType::Int);
        for_each(source.keys, volume * target.count,
                 Note<int32_t, Probe<Source, T>>{lookup, target.count, out<int32_t>(noted)});
        made = by_groups(source, target, tile, volume, kind, Noted<int32_t>{in<int32_t>(noted), target.count});
      });
    });
  });
  return made;
}

Made by_box(const Set& source, const Set& target, const Box& box, const Order& order, ScalarType kind, bool plain) {
  Made made(source.keys, kind, 0, 0, 0);
  for_words(source.packing.words, [&]<int S>() {
    for_words(target.packing.words, [&]<int T>() {
      searchable<T>(target, plain, [&]<class Target>(const Target& to) {
        made = by_source(source, target, order, kind, ByBox<S, Target>{source.of<S>(), to, box});
      });
    });
  });
  return made;
}

// Offsets sorted by their keys, on the host: few beside the pairs that they are looked up for.
Made by_pairs(const Set& source, const Set& target, const int64_t* offsets, int64_t volume, const Order& order,
              ScalarType kind) {
  const int D = source.packing.dimension;
  Extent extent{};
  for (int a = 0; a < D; ++a)
    for (int64_t k = 0; k < volume; ++k) {
      const int64_t x = offsets[k * D + a];
      extent.low[1 + a] = k == 0 ? x : std::min(extent.low[1 + a], x);
      extent.high[1 + a] = k == 0 ? x : std::max(extent.high[1 + a], x);
    }
  const int64_t ones[max_dimension] = {1, 1, 1, 1, 1, 1};
  const Packing packing = make_packing(D, extent, ones);
  check_value(packing.bits <= 64 * max_words, "kernel map: offsets need ", packing.bits,
              " bits, of which there are 128");
  Made made(source.keys, kind, 0, 0, 0);
  for_words(packing.words, [&]<int O>() {
    std::vector<std::pair<Key<O>, int64_t>> sorted(volume);
    for (int64_t k = 0; k < volume; ++k) {
      int64_t row[1 + max_dimension] = {};
      std::copy_n(offsets + k * D, D, row + 1);
      encode(packing, row, sorted[k].first);
      sorted[k].second = k;
    }
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<int64_t> words, volumes;
    for (const auto& [key, k] : sorted) words.insert(words.end(), key.word, key.word + O), volumes.push_back(k);
    const Tensor keys = on_device(source.keys, words.data(), volume * O);
    const Tensor at = on_device(source.keys, volumes.data(), volume);
    for_words(source.packing.words, [&]<int S>() {
      for_words(target.packing.words, [&]<int T>() {
        made = by_source(
            source, target, order, kind,
            Pairwise<S, T, O>{source.of<S>(), target.of<T>(), {packing, keys_of<O>(keys), volume}, in<int64_t>(at)});
      });
    });
  });
  return made;
}

// --- the operators ---------------------------------------------------------------------------------------------------

// Whether c + offset can leave int64 by as much as a bit: then only `probe`, which looks at every sum, will do.
bool is_near_the_end(const Packing& p, const int64_t* offsets, int64_t volume) {
  constexpr int64_t far = int64_t(1) << 61;
  for (int64_t j = 0; j < volume * p.dimension; ++j)
    if (offsets[j] < -far || offsets[j] > far) return true;
  for (int a = 0; a < p.dimension; ++a) {
    const Field& field = p.field[1 + a];
    const int64_t low = field.base, high = int64_t(uint64_t(low) + field.last), most = far / p.stride[a];
    if (low < -most || high > most) return true;
  }
  return false;
}

enum Way : int64_t { automatic, probing, boxed, pairwise };

#ifndef __CUDACC__

// Rows of a schedule in the integer type of a list.
template <class I>
const I* schedule_as(const Tensor& schedule, Workspace& workspace) {
  const I* rows = nullptr;
  for_schedule(schedule, [&]<class J>() {
    if constexpr (std::is_same_v<I, J>) {
      rows = in<I>(schedule);
    } else {
      I* copy = workspace.get<I>(schedule.size(0));
      std::copy_n(in<J>(schedule), schedule.size(0), copy);
      rows = copy;
    }
  });
  return rows;
}

// Calls f<I>(allocate) with int32 and, where that does not hold the number of pairs, with int64.
template <class F>
bool allocating(const Tensor& on, int64_t num_tiles, ScalarType kind, Made& made, const F& f) {
  const auto run = [&]<class I>() {
    return f.template operator()<I>([&](int64_t num_pairs, int64_t num_entries) {
      if (num_pairs > std::numeric_limits<I>::max())
        return std::tuple<Pair<I>*, Entry<I>*, I*>(nullptr, nullptr, nullptr);
      made = Made(on, sizeof(I) == 8 ? ScalarType::Long : ScalarType::Int, num_pairs, num_entries, num_tiles);
      return std::tuple<Pair<I>*, Entry<I>*, I*>(made.pair<I>(), made.entry<I>(), out<I>(made.tiles));
    });
  };
  return (kind == ScalarType::Int && run.template operator()<int32_t>()) || run.template operator()<int64_t>();
}

// Offsets in cells of the source; false where they reach too far, or one occurs twice.
bool make_stencil(const Packing& source, const int64_t* offsets, int64_t volume, cpu::Stencil& stencil) {
  constexpr int reach = cpu::max_reach, width = 2 * reach + 1;
  if (volume > width * width * width) return false;
  std::array<bool, width * width * width> seen{};
  stencil.volume = volume;
  for (int64_t k = 0; k < volume; ++k) {
    std::array<int, 3> cell{};
    bool on = true;
    for (int a = 0; a < 3; ++a) {
      const int64_t x = offsets[3 * k + a];
      if (x / source.stride[a] > reach || x / source.stride[a] < -reach) return false;
      on &= source.on_stride(a, x);
      cell[a] = int(x / source.stride[a]);
    }
    stencil.offsets.push_back(on ? cell : std::array<int, 3>{99, 0, 0});
    if (!on) continue;
    bool& there = seen[cell[0] + reach + width * (cell[1] + reach + width * (cell[2] + reach))];
    if (std::exchange(there, true)) return false;
    for (const int x : cell) stencil.reach = std::max(stencil.reach, std::abs(x));
  }
  return true;
}

// The keys of a set in another packing, for coordinates in multiples of `factor` of its cells; nullptr where they do
// not ascend there.
const uint64_t* keys_in(const Set& set, const Packing& frame, const int64_t* factor, Workspace& workspace) {
  uint64_t* keys = workspace.get<uint64_t>(set.count + 1);
  bool ascending = true;
  for_words(set.packing.words, [&]<int W>() {
    for (int64_t i = 0; i < set.count; ++i) {
      int64_t row[1 + max_dimension];
      decode(set.packing, keys_of<W>(set.keys)[i], row);
      for (int a = 0; a < frame.dimension; ++a) row[1 + a] *= factor[a];
      Key<1> key;
      encode(frame, row, key);
      keys[i] = key.word[0];
      ascending &= i == 0 || keys[i] > keys[i - 1];
    }
  });
  return ascending ? keys : nullptr;
}

// Three axes, offsets of a few cells, keys of one word: by blocks. False where this is another case.
bool by_blocks(const Set& source, const Set& target, const int64_t* offsets, int64_t volume, int64_t tile,
               ScalarType kind, Made& made) {
  cpu::Stencil stencil{};
  if (source.packing.dimension != 3 || volume == 0 || source.count >= UINT32_MAX ||
      !make_stencil(source.packing, offsets, volume, stencil))
    return false;
  Workspace workspace;
  Packing frame = source.packing;
  int64_t factor[3] = {1, 1, 1};
  const int64_t ones[3] = {1, 1, 1};
  bool same = same_planes(source.packing, target.packing);
  for (int a = 0; a < 3; ++a) {
    if (target.packing.stride[a] % source.packing.stride[a] != 0) return false;
    factor[a] = target.packing.stride[a] / source.packing.stride[a];
    same &= factor[a] == 1;
  }
  if (!same) {  // a frame for both, in cells of the source
    Extent extent{};
    for (int f = 0; f <= 3; ++f) {
      const Field &s = source.packing.field[f], &t = target.packing.field[f];
      const int64_t by = f > 0 ? factor[f - 1] : 1;
      extent.low[f] = std::min(s.base, t.base * by);
      extent.high[f] = std::max(int64_t(uint64_t(s.base) + s.last), int64_t(uint64_t(t.base) + t.last) * by);
    }
    frame = make_packing(3, extent, source.packing.stride);
  }
  if (frame.bits > 64) return false;
  const auto* source_keys = same ? keys_of<1>(source.keys)->word : keys_in(source, frame, ones, workspace);
  const auto* target_keys = same ? keys_of<1>(target.keys)->word : keys_in(target, frame, factor, workspace);
  if (!source_keys || !target_keys) return false;
  return allocating(source.keys, tiles_of(target.count, tile), kind, made, [&]<class I>(const auto& allocate) {
    const auto make = [&](const auto& way) {
      return way(frame, target_keys, target.count, source_keys, source.count,
                 schedule_as<I>(source.schedule, workspace), stencil, core::Threads{}, allocate);
    };
    if (stencil.reach <= 1) return make([](const auto&... x) { return cpu::pairs_around<I>(x...); });
    return make([](const auto&... x) { return cpu::pairs_within<I>(x...); });
  });
}

// The kernel is the cell: offsets 0 ... f - 1 on every axis with f = 2^power the ratio of the strides. False elsewhere.
bool by_children(const Set& source, const Set& target, const int64_t* offsets, int64_t volume, int64_t tile,
                 ScalarType kind, Made& made) {
  const int D = source.packing.dimension;
  const bool up = source.packing.stride[0] > target.packing.stride[0];  // reads parents
  const Set &fine = up ? target : source, &coarse = up ? source : target;
  const int64_t factor = coarse.packing.stride[0] / fine.packing.stride[0];
  const int power = std::countr_zero(uint64_t(factor));
  if (factor < 2 || factor != int64_t(1) << power || power * D > 6 || volume != int64_t(1) << power * D ||
      fine.packing.words != 1 || coarse.packing.words != 1 || fine.count >= INT32_MAX)
    return false;
  for (int f = 0; f <= D; ++f) {
    const Field &x = fine.packing.field[f], &y = coarse.packing.field[f];
    if (f > 0 && (coarse.packing.stride[f - 1] != factor * fine.packing.stride[f - 1] || x.low_planes() < power))
      return false;
    if (y.mask[0] != x.mask[0] >> power * D || y.base != (f > 0 ? x.base >> power : x.base)) return false;
  }
  for (int64_t k = 0; k < volume; ++k)
    for (int a = 0; a < D; ++a)
      if (offsets[k * D + a] != (up ? -1 : 1) * (k >> a * power & (factor - 1)) * fine.packing.stride[a]) return false;
  uint8_t offset[64];
  for (int64_t low = 0; low < volume; ++low) {
    int64_t k = 0;
    for (int a = 0; a < D; ++a)
      k |= int64_t(extract(low, fine.packing.field[1 + a].mask[0] & (volume - 1))) << a * power;
    offset[low] = uint8_t(k);
  }
  Workspace workspace;
  return allocating(source.keys, tiles_of(target.count, tile), kind, made, [&]<class I>(const auto& allocate) {
    const auto make = [&](const auto& way) {
      return way(keys_of<1>(fine.keys)->word, fine.count, keys_of<1>(coarse.keys)->word, coarse.count, power * D,
                 offset, volume, schedule_as<I>(source.schedule, workspace), allocate);
    };
    if (up) return make([](const auto&... x) { return cpu::pairs_of_children<true, I>(x...); });
    return make([](const auto&... x) { return cpu::pairs_of_children<false, I>(x...); });
  });
}

#endif

std::tuple<Tensor, Tensor, Tensor> pairs(const Tensor& source_packing, const Tensor& source_keys,
                                         const Tensor& source_schedule, const Tensor& target_packing,
                                         const Tensor& target_keys, const Tensor& target_schedule,
                                         const Tensor& offsets, int64_t way, bool wide, bool plain) {
  const Set source = make_set("kernel map: source", source_packing, source_keys, source_schedule);
  const Set target = make_set("kernel map: target", target_packing, target_keys, target_schedule);
  const int D = source.packing.dimension;
  check_value(target.packing.dimension == D, "kernel map: source has ", D, " dimensions, target ",
              target.packing.dimension);
  check_value(target.keys.device() == source.keys.device(), "kernel map: source and target must be on one device");
  core::check_int64("kernel map: offsets", offsets);
  check_value(offsets.is_cpu() && offsets.dim() == 2 && offsets.size(1) == D, "kernel map: offsets must be (K, ", D,
              ") on the CPU, got shape ", core::Shape{offsets});
  const Tensor o = core::contiguous(offsets);
  const int64_t* at = in<int64_t>(o);
  const int64_t volume = o.size(0), tile = tile_rows(source.keys);
  const ScalarType kind =
      wide || source.schedule.scalar_type() == ScalarType::Long || target.schedule.scalar_type() == ScalarType::Long
          ? ScalarType::Long
          : ScalarType::Int;
  const Order order{tile, std::max<int64_t>(volume, 1)};

  const bool checked = is_near_the_end(source.packing, at, volume) || is_near_the_end(target.packing, at, volume);
  Box box{};
  const bool is_box = !checked && make_box(D, at, volume, target.packing.stride, box);
  check_value(automatic <= way && way <= pairwise, "kernel map: no way ", way);
  check_value(way != boxed || is_box, "kernel map: the offsets are no box, or coordinates are near the end of int64");
#ifndef __CUDACC__
  if (Made made(source.keys, kind, 0, 0, 0); way == automatic && !plain && !checked &&
                                             (by_children(source, target, at, volume, tile, kind, made) ||
                                              by_blocks(source, target, at, volume, tile, kind, made)))
    return {made.pairs, made.entries, made.tiles};
#endif
  if (way == automatic) {
    const double n = double(source.count), m = double(target.count);
    const double probes = m * double(volume), boxes = is_box ? n * double(box.all_candidates) : probes + 1;
    way = n * m < std::min(probes, boxes) ? pairwise : boxes < probes / 4 ? boxed : probing;
  }
  if (volume == 0) {
    const Made none = from_triples(new_empty(source.keys, {0}), new_empty(source.keys, {0}), order, target.count, kind);
    return {none.pairs, none.entries, none.tiles};
  }
  Made made = way == probing ? by_probe(source, target, at, volume, tile, kind, plain)
              : way == boxed ? by_box(source, target, box, order, kind, plain)
                             : by_pairs(source, target, at, volume, order, kind);
  return {made.pairs, made.entries, made.tiles};
}

// A pair of one list as a triple of the other.
template <class I>
struct Turn {
  const Pair<I>* pairs;
  const Entry<I>* entries;
  int64_t num_entries;
  const I* schedule;      // of the rows that were written
  const int64_t* places;  // of the rows that were read
  Order order;
  int64_t* keys;
  int64_t* rows;
  HEPOPS_HD void operator()(int64_t i) const {
    int64_t first = 0, count = num_entries;  // the last entry that begins at i or before
    while (count > 1) {
      const int64_t half = count / 2;
      const bool before = int64_t(entries[first + half].first) <= i;
      first += before ? half : 0;
      count = before ? count - half : half;
    }
    keys[i] = order.key(places[pairs[i].row], entries[first].offset);
    rows[i] = schedule[pairs[i].place];
  }
};

template <class I>
struct PlaceOf {
  const I* schedule;
  int64_t* places;
  HEPOPS_HD void operator()(int64_t i) const { places[schedule[i]] = i; }
};

std::tuple<Tensor, Tensor, Tensor> regroup(const Tensor& pairs, const Tensor& entries, const Tensor& tiles,
                                           const Tensor& schedule, const Tensor& source_schedule, int64_t volume) {
  const PairTensors list = pair_tensors("regroup", pairs, entries, tiles, schedule, pairs);
  core::check_type(source_schedule.scalar_type() == pairs.scalar_type(), "regroup: the schedule has dtype ",
                   toString(source_schedule.scalar_type()), ", expected ", toString(pairs.scalar_type()));
  check_value(source_schedule.dim() == 1, "regroup: the schedule must be (n), got ", core::Shape{source_schedule});
  check_value(volume > 0, "regroup: volume must be positive, got ", volume);
  const Tensor to = core::contiguous(source_schedule);
  const int64_t n = to.size(0), count = pairs.size(0);
  const Order order{tile_rows(pairs), volume};
  const Tensor places = new_empty(to, {n}, ScalarType::Long);
  const Tensor keys = new_empty(to, {count}, ScalarType::Long), rows = new_empty(to, {count}, ScalarType::Long);
  for_index(list, [&]<class I>() {
    const PairList<I> from = list.list<I>();
    for_each(to, n, PlaceOf<I>{in<I>(to), out<int64_t>(places)});
    for_each(to, count,
             Turn<I>{from.pairs, from.entries, from.num_entries, from.schedule, in<int64_t>(places), order,
                     out<int64_t>(keys), out<int64_t>(rows)});
  });
  Made made = from_triples(keys, rows, order, n, pairs.scalar_type());
  return {made.pairs, made.entries, made.tiles};
}

const core::Operators operators{
    core::op<pairs>("_sparse_pairs(Tensor source_packing, Tensor source_keys, Tensor source_schedule,"
                    " Tensor target_packing, Tensor target_keys, Tensor target_schedule, Tensor offsets, int way,"
                    " bool wide, bool plain) -> (Tensor, Tensor, Tensor)"),
    core::op<regroup>("_sparse_regroup(Tensor pairs, Tensor entries, Tensor tiles, Tensor schedule,"
                      " Tensor source_schedule, int volume) -> (Tensor, Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::sparse
