#include "sparse/segment.h"

#include <tuple>

#include "core/check.h"
#include "core/exclusive_scan.h"
#include "core/for_each.h"
#include "core/for_each_row.h"
#include "core/op.h"
#include "sparse/lanes.h"
#include "sparse/pool.h"

namespace hepops::sparse {
namespace {

using core::Team;
using core::Tensor;

// Channels that a team holds at once.
#ifdef __CUDACC__
constexpr int64_t channel_block = 32;
#else
constexpr int64_t channel_block = 256;
#endif

struct Part {
  int64_t block, first, width;
  HEPOPS_HD Part(int64_t item, int64_t channels) {
    const int64_t parts = (channels + channel_block - 1) / channel_block;
    block = item / parts;
    first = item % parts * channel_block;
    width = core::min(channel_block, channels - first);
  }
  static int64_t count(int64_t blocks, int64_t channels) {
    return blocks * ((channels + channel_block - 1) / channel_block);
  }
};

// A row that is read later is asked for ahead: batches interleave in memory.
template <class S, class I>
HEPOPS_HD void ask_ahead([[maybe_unused]] const S* x, [[maybe_unused]] const I* order, [[maybe_unused]] int64_t j,
                         [[maybe_unused]] int64_t last, [[maybe_unused]] const Part& part,
                         [[maybe_unused]] int64_t channels) {
#ifndef __CUDACC__
  constexpr int64_t ahead = 12;
  if (j + ahead >= last) return;
  const char* row = reinterpret_cast<const char*>(x + int64_t(order[j + ahead]) * channels + part.first);
  for (int64_t byte = 0; byte < part.width * int64_t(sizeof(S)); byte += 64) __builtin_prefetch(row + byte);
#endif
}

struct CountBlocks {
  const int64_t* starts;
  int64_t* blocks;
  HEPOPS_HD void operator()(int64_t s) const { blocks[s] = blocks_of(starts[s + 1] - starts[s]); }
};

// partial[block, c] = sum of x over the rows of a block, in double
template <class S, class I>
struct SumBlock {
  Segments<I> segments;
  const S* x;
  double* partial;
  int64_t channels;

  static size_t scratch(int64_t groups) { return groups * channel_block * sizeof(double); }

  HEPOPS_HD void operator()(int64_t item, const Team& team) const {
    const Part part(item, channels);
    if (part.block >= segments.num_blocks()) return;
    const SegmentBlock rows(segments, part.block);
    const Lanes on(team);
    double* all = reinterpret_cast<double*>(team.memory);
    double* sum = all + on.group * part.width;
    for (int64_t c = on.lane; c < part.width; c += on.lanes) sum[c] = 0;
    for (int64_t j = rows.first + on.group; j < rows.last; j += on.groups) {
      ask_ahead(x, segments.order, j, rows.last, part, channels);
      const S* row = x + int64_t(segments.order[j]) * channels + part.first;
#pragma GCC ivdep
      for (int64_t c = on.lane; c < part.width; c += on.lanes) sum[c] += double(row[c]);
    }
    team.sync();
    for (int64_t c = team.rank; c < part.width; c += team.size) {
      double total = 0;
      for (int g = 0; g < on.groups; ++g) total += all[g * part.width + c];
      partial[part.block * channels + part.first + c] = total;
    }
  }
};

// out[s, c] = the sum of the partial sums of a segment, one after the other
template <class S>
struct SumSegment {
  const int64_t *starts, *offsets;
  const double* partial;
  S* out;
  int64_t channels;
  bool mean;
  HEPOPS_HD void operator()(int64_t k) const {
    const int64_t s = k / channels, c = k % channels, rows = starts[s + 1] - starts[s];
    double sum = 0;
    for (int64_t b = offsets[s]; b < offsets[s + 1]; ++b) sum += partial[b * channels + c];
    out[k] = S(mean && rows > 0 ? sum / double(rows) : sum);
  }
};

// A maximum that knows its place in the order: of equals the earlier one.
template <class T>
HEPOPS_HD void keep_greater(T& best, int64_t& place, T candidate, int64_t at) {
  const bool equal = candidate == best || (candidate != candidate && best != best);
  const bool take = place < 0 || (equal ? at < place : takes_over(candidate, best));
  best = take ? candidate : best;
  place = take ? at : place;
}

// best[block, c] and its place in the order
template <class S, class T, class I>
struct MaxBlock {
  Segments<I> segments;
  const S* x;
  T* best;
  int64_t* places;
  int64_t channels;

  static size_t scratch(int64_t groups) { return groups * channel_block * (sizeof(T) + sizeof(int64_t)); }

  HEPOPS_HD void operator()(int64_t item, const Team& team) const {
    const Part part(item, channels);
    if (part.block >= segments.num_blocks()) return;
    const SegmentBlock rows(segments, part.block);
    const Lanes on(team);
    int64_t* all_places = reinterpret_cast<int64_t*>(team.memory);
    T* all_best = reinterpret_cast<T*>(all_places + on.groups * part.width);
    int64_t* place = all_places + on.group * part.width;
    T* mine = all_best + on.group * part.width;
    for (int64_t c = on.lane; c < part.width; c += on.lanes) mine[c] = 0, place[c] = -1;
    for (int64_t j = rows.first + on.group; j < rows.last; j += on.groups) {
      ask_ahead(x, segments.order, j, rows.last, part, channels);
      const S* row = x + int64_t(segments.order[j]) * channels + part.first;
#pragma GCC ivdep
      for (int64_t c = on.lane; c < part.width; c += on.lanes) {
        const T candidate = T(row[c]), holder = mine[c];
        const bool take = (place[c] < 0) | takes_over(candidate, holder);
        mine[c] = take ? candidate : holder;
        place[c] = take ? j : place[c];
      }
    }
    team.sync();
    for (int64_t c = team.rank; c < part.width; c += team.size) {
      T greatest = 0;
      int64_t at = -1;
      for (int g = 0; g < on.groups; ++g)
        if (all_places[g * part.width + c] >= 0)
          keep_greater(greatest, at, all_best[g * part.width + c], all_places[g * part.width + c]);
      best[part.block * channels + part.first + c] = greatest;
      places[part.block * channels + part.first + c] = at;
    }
  }
};

template <class S, class T, class I>
struct MaxSegment {
  Segments<I> segments;
  const T* best;
  const int64_t* places;
  S* out;
  I* argmax;
  int64_t channels;
  HEPOPS_HD void operator()(int64_t k) const {
    const int64_t s = k / channels, c = k % channels;
    T greatest = 0;
    int64_t at = -1;
    for (int64_t b = segments.offsets[s]; b < segments.offsets[s + 1]; ++b)
      keep_greater(greatest, at, best[b * channels + c], places[b * channels + c]);
    out[k] = S(greatest);
    argmax[k] = at < 0 ? I(-1) : segments.order[at];
  }
};

// What a row takes from its segment's v.
template <class S>
struct Copy {
  const S* v;
  HEPOPS_HD S operator()(int64_t from, int64_t /*size*/, int64_t /*row*/) const { return v[from]; }
};

template <class S, class T>
struct Fraction {
  const S* v;
  HEPOPS_HD S operator()(int64_t from, int64_t size, int64_t /*row*/) const { return S(T(v[from]) / T(size)); }
};

template <class S, class I>
struct Chosen {
  const S* v;
  const I* argmax;
  HEPOPS_HD S operator()(int64_t from, int64_t /*size*/, int64_t row) const {
    return argmax[from] == row ? v[from] : S(0.0f);
  }
};

template <class S, class I, class Take>
struct Broadcast {
  Segments<I> segments;
  Take take;
  S* out;
  int64_t channels;

  HEPOPS_HD void operator()(int64_t item, const Team& team) const {
    const Part part(item, channels);
    if (part.block >= segments.num_blocks()) return;
    const SegmentBlock rows(segments, part.block);
    const Lanes on(team);
    const Take get = take;
    const int64_t size = segments.size(rows.segment), from = rows.segment * channels + part.first;
    for (int64_t j = rows.first + on.group; j < rows.last; j += on.groups) {
      const int64_t row = segments.order[j];
      S* to = out + row * channels + part.first;
#pragma GCC ivdep
      for (int64_t c = on.lane; c < part.width; c += on.lanes) to[c] = get(from + c, size, row);
    }
  }
};

constexpr int threads = 128;
constexpr int groups_at_most = threads / 32;

// The tensors behind Segments: order (N), starts (B + 1) int64.
struct SegmentTensors {
  Tensor order, starts, offsets;

  int64_t rows() const { return order.size(0); }
  int64_t number() const { return starts.size(0) - 1; }
  int64_t max_blocks() const { return rows() / segment_block + number(); }

  template <class I>
  Segments<I> segments() const {
    return {core::in<I>(order), core::in<int64_t>(starts), core::in<int64_t>(offsets), rows(), number()};
  }
};

template <class F>
void for_order(const Tensor& order, const F& f) {
  order.scalar_type() == core::ScalarType::Int ? f.template operator()<int32_t>() : f.template operator()<int64_t>();
}

// On a GPU the numbers are not read back to check them.
void check_numbers(const char* name, const Tensor& order, const Tensor& starts) {
  if (!starts.is_cpu()) return;
  const int64_t *start = core::in<int64_t>(starts), number = starts.size(0) - 1, rows = order.size(0);
  core::check_value(start[0] == 0 && start[number] == rows, name, ": starts must go from 0 to the ", rows,
                    " rows of order, got ", start[0], " to ", start[number]);
  for (int64_t s = 0; s < number; ++s)
    core::check_value(start[s] <= start[s + 1], name, ": starts must not descend, got ", start[s], " before ",
                      start[s + 1]);
  for_order(order, [&]<class I>() {
    const I* row = core::in<I>(order);
    I least = 0, greatest = -1;
    for (int64_t j = 0; j < rows; ++j) {
      least = row[j] < least ? row[j] : least;
      greatest = row[j] > greatest ? row[j] : greatest;
    }
    core::check_value(least >= 0 && greatest < rows, name, ": order must name each of the ", rows,
                      " rows once, got row ", least < 0 ? least : greatest);
  });
}

SegmentTensors segment_tensors(const char* name, const Tensor& order, const Tensor& starts, const Tensor& on) {
  core::check_type(order.scalar_type() == core::ScalarType::Int || order.scalar_type() == core::ScalarType::Long, name,
                   ": order must be int32 or int64, got ", toString(order.scalar_type()));
  core::check_type(starts.scalar_type() == core::ScalarType::Long, name, ": starts must be int64, got ",
                   toString(starts.scalar_type()));
  core::check_value(order.dim() == 1, name, ": order must be (N), got shape ", core::Shape{order});
  core::check_value(starts.dim() == 1 && starts.size(0) >= 1, name, ": starts must be (B + 1), got shape ",
                    core::Shape{starts});
  core::check_value(order.device() == on.device() && starts.device() == on.device(), name,
                    ": order and starts must be on the device of the features");
  SegmentTensors t{core::contiguous(order), core::contiguous(starts), {}};
  check_numbers(name, t.order, t.starts);
  const Tensor blocks = torch::stable::new_empty(t.starts, {t.number()});
  core::for_each(t.starts, t.number(), CountBlocks{core::in<int64_t>(t.starts), core::out<int64_t>(blocks)});
  t.offsets = core::exclusive_scan(blocks);
  return t;
}

template <class S, class I>
void sum(const Tensor& x, const SegmentTensors& t, const Tensor& out, bool mean) {
  const int64_t channels = x.size(1);
  const Tensor partial = torch::stable::new_empty(x, {t.max_blocks(), channels}, core::ScalarType::Double);
  core::for_each_row(x, Part::count(t.max_blocks(), channels), SumBlock<S, I>::scratch(groups_at_most),
                     SumBlock<S, I>{t.segments<I>(), core::in<S>(x), core::out<double>(partial), channels}, threads);
  core::for_each(x, out.numel(),
                 SumSegment<S>{core::in<int64_t>(t.starts), core::in<int64_t>(t.offsets), core::in<double>(partial),
                               core::out<S>(out), channels, mean});
}

template <class S, class T, class I>
void maximum(const Tensor& x, const SegmentTensors& t, const Tensor& out, const Tensor& argmax) {
  const int64_t channels = x.size(1);
  const auto kind = sizeof(T) == sizeof(double) ? core::ScalarType::Double : core::ScalarType::Float;
  const Tensor best = torch::stable::new_empty(x, {t.max_blocks(), channels}, kind);
  const Tensor places = torch::stable::new_empty(x, {t.max_blocks(), channels}, core::ScalarType::Long);
  const MaxBlock<S, T, I> step{t.segments<I>(), core::in<S>(x), core::out<T>(best), core::out<int64_t>(places),
                               channels};
  core::for_each_row(x, Part::count(t.max_blocks(), channels), step.scratch(groups_at_most), step, threads);
  core::for_each(x, out.numel(),
                 MaxSegment<S, T, I>{t.segments<I>(), core::in<T>(best), core::in<int64_t>(places), core::out<S>(out),
                                     core::out<I>(argmax), channels});
}

// -> (B, C), and for max the row that each came from, -1 where there is none, else (0)
std::tuple<Tensor, Tensor> reduce(const Tensor& x, const Tensor& order, const Tensor& starts, int64_t mode_number) {
  core::check_floating_or_half("segment_reduce: features", x);
  core::check_value(x.dim() == 2, "segment_reduce: features must be (N, C), got shape ", core::Shape{x});
  const SegmentTensors t = segment_tensors("segment_reduce", order, starts, x);
  core::check_value(x.size(0) == t.rows(), "segment_reduce: order has ", t.rows(), " rows, features have shape ",
                    core::Shape{x});
  core::check_value(0 <= mode_number && mode_number <= 2, "segment_reduce: mode must be 0 to 2, got ", mode_number);
  const Reduce mode{mode_number};
  const Tensor from = core::contiguous(x);
  const Tensor out = torch::stable::new_empty(x, {t.number(), x.size(1)});
  const Tensor argmax = mode == Reduce::max ? torch::stable::new_empty(order, {t.number(), x.size(1)})
                                            : torch::stable::new_empty(order, {0});
  if (out.numel() == 0) return {out, argmax};
  core::for_floating_or_half("segment_reduce: features", x, [&]<class S, class T>() {
    for_order(order, [&]<class I>() {
      mode == Reduce::max ? maximum<S, T, I>(from, t, out, argmax) : sum<S, I>(from, t, out, mode == Reduce::mean);
    });
  });
  return {out, argmax};
}

template <class S, class I, class Take>
void spread(const Take& take, const SegmentTensors& t, const Tensor& out) {
  core::for_each_row(out, Part::count(t.max_blocks(), out.size(1)), 0,
                     Broadcast<S, I, Take>{t.segments<I>(), take, core::out<S>(out), out.size(1)}, threads);
}

void check_of_segments(const char* name, const Tensor& v, const SegmentTensors& t) {
  core::check_value(v.dim() == 2 && v.size(0) == t.number(), name, ": values must be (B, C) with B = ", t.number(),
                    " segments, got shape ", core::Shape{v});
}

Tensor broadcast(const Tensor& v, const Tensor& order, const Tensor& starts, bool mean) {
  core::check_floating_or_half("segment_broadcast: values", v);
  const SegmentTensors t = segment_tensors("segment_broadcast", order, starts, v);
  check_of_segments("segment_broadcast", v, t);
  const Tensor from = core::contiguous(v), out = torch::stable::new_empty(v, {t.rows(), v.size(1)});
  if (out.numel() == 0) return out;
  core::for_floating_or_half("segment_broadcast: values", v, [&]<class S, class T>() {
    for_order(order, [&]<class I>() {
      mean ? spread<S, I>(Fraction<S, T>{core::in<S>(from)}, t, out) : spread<S, I>(Copy<S>{core::in<S>(from)}, t, out);
    });
  });
  return out;
}

// The adjoint of a maximum: each segment's number goes to the row that gave it, 0 to the others.
Tensor max_scatter(const Tensor& grad, const Tensor& argmax, const Tensor& order, const Tensor& starts) {
  const SegmentTensors t = segment_tensors("segment_max_scatter", order, starts, grad);
  check_of_segments("segment_max_scatter", grad, t);
  core::check_value(argmax.sizes().equals(grad.sizes()) && argmax.scalar_type() == order.scalar_type(),
                    "segment_max_scatter: argmax does not match");
  const Tensor g = core::contiguous(grad), by = core::contiguous(argmax),
               out = torch::stable::new_empty(g, {t.rows(), g.size(1)});
  if (out.numel() == 0) return out;
  core::for_floating_or_half("segment_max_scatter: grad", g, [&]<class S, class T>() {
    for_order(order, [&]<class I>() { spread<S, I>(Chosen<S, I>{core::in<S>(g), core::in<I>(by)}, t, out); });
  });
  return out;
}

// Its own adjoint, which hands on order and starts.
Tensor max_gather(const Tensor& x, const Tensor& argmax, const Tensor&, const Tensor&) {
  core::check_value(x.dim() == 2 && argmax.dim() == 2 && x.size(1) == argmax.size(1),
                    "segment_max_gather: argmax has shape ", core::Shape{argmax}, ", features ", core::Shape{x});
  const Tensor from = core::contiguous(x), by = core::contiguous(argmax);
  const Tensor out = torch::stable::new_empty(x, by.sizes());
  core::for_floating_or_half("segment_max_gather: features", from, [&]<class S, class T>() {
    for_order(by, [&]<class I>() {
      core::for_each(out, out.numel(), Pick<S, I>{core::in<S>(from), core::in<I>(by), core::out<S>(out), x.size(1)});
    });
  });
  return out;
}

const core::Operators operators{
    core::op<reduce>("sparse_segment_reduce(Tensor x, Tensor order, Tensor starts, int mode) -> (Tensor, Tensor)"),
    core::op<broadcast>("sparse_segment_broadcast(Tensor v, Tensor order, Tensor starts, bool mean) -> Tensor"),
    core::op<max_scatter>(
        "_sparse_segment_max_scatter(Tensor grad, Tensor argmax, Tensor order, Tensor starts) -> Tensor"),
    core::op<max_gather>("_sparse_segment_max_gather(Tensor x, Tensor argmax, Tensor order, Tensor starts) -> Tensor"),
};

}  // namespace
}  // namespace hepops::sparse
