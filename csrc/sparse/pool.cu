#include "sparse/pool.h"

#include <optional>
#include <tuple>

#include "core/for_each.h"
#include "core/for_each_row.h"
#include "core/op.h"
#include "sparse/lanes.h"
#include "sparse/pair_tensors.h"

namespace hepops::sparse {
namespace {

using core::Team;
using core::Tensor;

// Channels that a team holds at once. On the CPU the sums of a tile then lie in the L2, on a GPU in shared memory.
#ifdef __CUDACC__
constexpr int64_t block = 32;
#else
constexpr int64_t block = 64;
#endif

// One block of channels of one tile.
struct Part {
  int64_t tile, first, width;
  HEPOPS_HD Part(int64_t item, int64_t channels) {
    const int64_t blocks = (channels + block - 1) / block;
    tile = item / blocks;
    first = item % blocks * block;
    width = core::min(block, channels - first);
  }
  static int64_t count(int64_t tiles, int64_t channels) { return tiles * ((channels + block - 1) / block); }
};

// On a CPU the rows of later pairs are asked for ahead, since a map reads them in no order that the processor foresees.
template <class S, class I>
HEPOPS_HD void ask_ahead([[maybe_unused]] const S* x, [[maybe_unused]] const PairList<I>& list,
                         [[maybe_unused]] int64_t p, [[maybe_unused]] const Part& part,
                         [[maybe_unused]] int64_t channels) {
#ifndef __CUDACC__
  constexpr int64_t ahead = 12;  // pairs; 6 to 24 measure alike
  if (p + ahead >= list.num_pairs) return;
  const char* row = reinterpret_cast<const char*>(x + int64_t(list.pairs[p + ahead].row) * channels + part.first);
  for (int64_t byte = 0; byte < part.width * int64_t(sizeof(S)); byte += 64) __builtin_prefetch(row + byte);
#endif
}

// How many rows each row of the list's target meets.
template <class I>
struct Count {
  PairList<I> list;
  I* counts;  // (num_rows), of rows

  static size_t scratch(const PairList<I>& list) { return list.tile * sizeof(I); }

  HEPOPS_HD void operator()(int64_t t, const Team& team) const {
    I* count = reinterpret_cast<I*>(team.memory);
    const int64_t first = list.first_place(t), rows = list.last_place(t) - first;
    for (int64_t r = team.rank; r < rows; r += team.size) count[r] = 0;
    team.sync();
    for (I e = list.tiles[t]; e < list.tiles[t + 1]; ++e) {
      for (int64_t p = int64_t(list.entries[e].first) + team.rank; p < list.entries[e + 1].first; p += team.size)
        ++count[list.pairs[p].place - first];
      team.sync();
    }
    for (int64_t r = team.rank; r < rows; r += team.size) counts[list.schedule[first + r]] = count[r];
  }
};

// What a sum takes from row i for row o.
template <class S>
struct Value {
  const S* x;
  HEPOPS_HD double operator()(int64_t at, int64_t /*row*/, int64_t /*target*/) const { return double(x[at]); }
};

template <class S, class I>
struct Share {
  const S* x;
  const I* counts;
  HEPOPS_HD double operator()(int64_t at, int64_t row, int64_t /*target*/) const {
    return double(x[at]) / double(counts[row]);
  }
};

template <class S, class I>
struct Chosen {
  const S* x;
  const I* argmax;
  HEPOPS_HD double operator()(int64_t at, int64_t /*row*/, int64_t target) const {
    return argmax[at] == target ? double(x[at]) : 0.0;
  }
};

// out[o, c] = sum over k of take(x[i, c]), in double; divided by the number of terms where `average` says so.
template <class S, class I, class Take>
struct Sum {
  Take take;
  PairList<I> list;
  S* out;
  int64_t channels;
  bool average;

  static size_t scratch(const PairList<I>& list, int64_t channels) {
    return list.tile * (std::min(block, channels) * sizeof(double) + sizeof(I));
  }

  HEPOPS_HD void operator()(int64_t item, const Team& team) const {
    const Part part(item, channels);
    const Lanes on(team);
    const int64_t first = list.first_place(part.tile), rows = list.last_place(part.tile) - first;
    double* sums = reinterpret_cast<double*>(team.memory);
    I* counts = reinterpret_cast<I*>(sums + list.tile * part.width);
    for (int64_t j = team.rank; j < rows * part.width; j += team.size) sums[j] = 0;
    for (int64_t r = team.rank; r < rows; r += team.size) counts[r] = 0;
    team.sync();
    const Take get = take;
    for (I e = list.tiles[part.tile]; e < list.tiles[part.tile + 1]; ++e) {
      const int64_t last = list.entries[e + 1].first;
      for (int64_t p = int64_t(list.entries[e].first) + on.group; p < last; p += on.groups) {
        ask_ahead(get.x, list, p, part, channels);
        const Pair<I> pair = list.pairs[p];
        const int64_t local = pair.place - first, from = int64_t(pair.row) * channels + part.first;
        const int64_t target = list.schedule[pair.place];
        double* sum = sums + local * part.width;
#pragma GCC ivdep
        for (int64_t c = on.lane; c < part.width; c += on.lanes) sum[c] += get(from + c, pair.row, target);
        if (on.lane == 0) ++counts[local];
      }
      team.sync();
    }
    for (int64_t r = on.group; r < rows; r += on.groups) {
      const double divisor = average && counts[r] > 0 ? double(counts[r]) : 1.0;
      S* to = out + int64_t(list.schedule[first + r]) * channels + part.first;
      const double* sum = sums + r * part.width;
#pragma GCC ivdep
      for (int64_t c = on.lane; c < part.width; c += on.lanes) to[c] = S(sum[c] / divisor);
    }
  }
};

// out[o, c] = max over k of x[i, c], and the row i that gave it; -1 where there is none.
template <class S, class T, class I>
struct Max {
  const S* x;
  PairList<I> list;
  S* out;
  I* argmax;
  int64_t channels;

  static size_t scratch(const PairList<I>& list, int64_t channels) {
    return list.tile * std::min(block, channels) * (sizeof(T) + sizeof(I));
  }

  HEPOPS_HD void operator()(int64_t item, const Team& team) const {
    const Part part(item, channels);
    const Lanes on(team);
    const int64_t first = list.first_place(part.tile), rows = list.last_place(part.tile) - first;
    // the wider type first, so that both are aligned
    constexpr bool values_first = sizeof(T) >= sizeof(I);
    std::byte* second = team.memory + list.tile * part.width * (values_first ? sizeof(T) : sizeof(I));
    T* best = reinterpret_cast<T*>(values_first ? team.memory : second);
    I* from_row = reinterpret_cast<I*>(values_first ? second : team.memory);
    for (int64_t j = team.rank; j < rows * part.width; j += team.size) best[j] = 0, from_row[j] = -1;
    team.sync();
    for (I e = list.tiles[part.tile]; e < list.tiles[part.tile + 1]; ++e) {
      const int64_t last = list.entries[e + 1].first;
      for (int64_t p = int64_t(list.entries[e].first) + on.group; p < last; p += on.groups) {
        ask_ahead(x, list, p, part, channels);
        const Pair<I> pair = list.pairs[p];
        const S* from = x + int64_t(pair.row) * channels + part.first;
        T* held = best + (pair.place - first) * part.width;
        I* by = from_row + (pair.place - first) * part.width;
#pragma GCC ivdep
        for (int64_t c = on.lane; c < part.width; c += on.lanes) {
          const T candidate = T(from[c]), holder = held[c];
          const bool take = (by[c] < 0) | takes_over(candidate, holder);
          held[c] = take ? candidate : holder;
          by[c] = take ? pair.row : by[c];
        }
      }
      team.sync();
    }
    for (int64_t r = on.group; r < rows; r += on.groups) {
      const int64_t to = int64_t(list.schedule[first + r]) * channels + part.first;
#pragma GCC ivdep
      for (int64_t c = on.lane; c < part.width; c += on.lanes) {
        out[to + c] = S(best[r * part.width + c]);
        argmax[to + c] = from_row[r * part.width + c];
      }
    }
  }
};

PairTensors checked(const char* name, const Tensor& x, const Tensor& pairs, const Tensor& entries, const Tensor& tiles,
                    const Tensor& schedule) {
  core::check_value(x.dim() == 2, name, ": features must be (N, C), got shape ", core::Shape{x});
  return pair_tensors(name, pairs, entries, tiles, schedule, x);
}

template <class I>
Tensor counts_of(const PairTensors& tensors) {
  const auto list = tensors.list<I>();
  const Tensor counts = core::empty_like(tensors.schedule);
  core::for_each_row(counts, list.num_tiles, Count<I>::scratch(list), Count<I>{list, core::out<I>(counts)});
  return counts;
}

template <class S, class I, class Take>
void sum(const Take& take, const PairTensors& tensors, const Tensor& out, bool average) {
  const auto list = tensors.list<I>();
  const int64_t channels = out.size(1);
  core::for_each_row(out, Part::count(list.num_tiles, channels), Sum<S, I, Take>::scratch(list, channels),
                     Sum<S, I, Take>{take, list, core::out<S>(out), channels, average});
}

// -> out (num_rows of the list, C), and for max the row that each came from, in the list's integers, else (0)
std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& pairs, const Tensor& entries, const Tensor& tiles,
                                   const Tensor& schedule, const std::optional<Tensor>& back_pairs,
                                   const std::optional<Tensor>& back_entries, const std::optional<Tensor>& back_tiles,
                                   const std::optional<Tensor>& back_schedule, int64_t mode_number) {
  core::check_floating_or_half("pool: features", x);
  const PairTensors list = checked("pool", x, pairs, entries, tiles, schedule);
  core::check_value(0 <= mode_number && mode_number <= 3, "pool: mode must be 0 to 3, got ", mode_number);
  const Pool mode{mode_number};
  core::check_value(mode != Pool::spread || back_schedule, "pool: mode 'spread' needs the backward list");
  std::optional<PairTensors> back;
  if (back_schedule) {
    core::check_value(back_pairs && back_entries && back_tiles, "pool: the backward list must be given whole or not");
    back = checked("pool, backward list", x, *back_pairs, *back_entries, *back_tiles, *back_schedule);
    core::check_value(back->schedule.size(0) == x.size(0), "pool: the kernel map reads ", back->schedule.size(0),
                      " rows, features have shape ", core::Shape{x});
    core::check_type(back->pairs.scalar_type() == pairs.scalar_type(), "pool: both lists must be of one integer type");
  }
  const Tensor from = core::contiguous(x);
  const int64_t rows = schedule.size(0), channels = x.size(1);
  const Tensor out = torch::stable::new_empty(x, {rows, channels});
  const Tensor argmax =
      mode == Pool::max ? torch::stable::new_empty(list.pairs, {rows, channels}) : torch::stable::new_empty(pairs, {0});
  if (out.numel() == 0) return {out, argmax};
  core::for_floating_or_half("pool: features", x, [&]<class S, class T>() {
    for_index(list, [&]<class I>() {
      if (mode == Pool::max) {
        const auto whole = list.list<I>();
        core::for_each_row(out, Part::count(whole.num_tiles, channels), Max<S, T, I>::scratch(whole, channels),
                           Max<S, T, I>{core::in<S>(from), whole, core::out<S>(out), core::out<I>(argmax), channels});
      } else if (mode == Pool::spread) {
        const Tensor counts = counts_of<I>(*back);
        sum<S, I>(Share<S, I>{core::in<S>(from), core::in<I>(counts)}, list, out, false);
      } else {
        sum<S, I>(Value<S>{core::in<S>(from)}, list, out, mode == Pool::avg);
      }
    });
  });
  return {out, argmax};
}

// argmax (M, C) of the pooled rows; the list writes the rows that were pooled and reads the pooled ones
Tensor max_scatter(const Tensor& grad, const Tensor& argmax, const Tensor& pairs, const Tensor& entries,
                   const Tensor& tiles, const Tensor& schedule) {
  const PairTensors list = checked("pool_max_scatter", grad, pairs, entries, tiles, schedule);
  core::check_value(argmax.sizes().equals(grad.sizes()), "pool_max_scatter: argmax has shape ", core::Shape{argmax},
                    ", expected ", core::Shape{grad});
  core::check_type(argmax.scalar_type() == pairs.scalar_type(), "pool_max_scatter: argmax has another integer type");
  const Tensor g = core::contiguous(grad), by = core::contiguous(argmax);
  const Tensor out = torch::stable::new_empty(g, {schedule.size(0), g.size(1)});
  if (out.numel() == 0) return out;
  core::for_floating_or_half("pool_max_scatter: grad", g, [&]<class S, class T>() {
    for_index(list, [&]<class I>() { sum<S, I>(Chosen<S, I>{core::in<S>(g), core::in<I>(by)}, list, out, false); });
  });
  return out;
}

// Its adjoint, which needs no list but hands it on to its own.
Tensor max_gather(const Tensor& x, const Tensor& argmax, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  core::check_value(x.dim() == 2 && argmax.dim() == 2 && x.size(1) == argmax.size(1),
                    "pool_max_gather: argmax has shape ", core::Shape{argmax}, ", features ", core::Shape{x});
  const Tensor from = core::contiguous(x), by = core::contiguous(argmax);
  const Tensor out = torch::stable::new_empty(x, by.sizes());
  core::for_floating_or_half("pool_max_gather: features", from, [&]<class S, class T>() {
    const auto pick = [&]<class I>() {
      core::for_each(out, out.numel(), Pick<S, I>{core::in<S>(from), core::in<I>(by), core::out<S>(out), x.size(1)});
    };
    by.scalar_type() == core::ScalarType::Int ? pick.template operator()<int32_t>()
                                              : pick.template operator()<int64_t>();
  });
  return out;
}

const core::Operators operators{
    core::op<forward>("sparse_pool(Tensor x, Tensor pairs, Tensor entries, Tensor tiles, Tensor schedule, "
                      "Tensor? back_pairs, Tensor? back_entries, Tensor? back_tiles, Tensor? back_schedule, "
                      "int mode) -> (Tensor, Tensor)"),
    core::op<max_scatter>("_sparse_pool_max_scatter(Tensor grad, Tensor argmax, Tensor pairs, Tensor entries, "
                          "Tensor tiles, Tensor schedule) -> Tensor"),
    core::op<max_gather>("_sparse_pool_max_gather(Tensor x, Tensor argmax, Tensor pairs, Tensor entries, "
                         "Tensor tiles, Tensor schedule) -> Tensor"),
};

}  // namespace
}  // namespace hepops::sparse
