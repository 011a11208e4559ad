// log P of what the chips of many rows measured, interval by interval, with every slope (likelihood_interval.h).
#include <tuple>

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"
#include "core/simd.h"
#include "lartpc/frontend_rows.h"
#include "lartpc/likelihood_interval.h"
#ifndef __CUDACC__
#include "lartpc/likelihood_quick.h"
#endif

namespace hepops::lartpc::larpix {
namespace {

// The measured hits of the rows, and the law of each row's chip.
struct Measured {
  const int64_t* tick;   // (hits), of the row
  const int64_t* first;  // (rows + 1)
  const double* edges;   // (2, hits) [e]
  int64_t hits;
  const double* threshold;  // (1 or rows) [e]
  const double* noise;      // (3) or (rows, 3) [e]
  int64_t threshold_stride, noise_stride;

  HEPOPS_HD Law law(int64_t row) const {
    const double* sigma = noise + 3 * noise_stride * row;
    return {threshold[threshold_stride * row], sigma[0], sigma[1], sigma[2],
            std::sqrt(sigma[1] * sigma[1] + sigma[2] * sigma[2])};
  }
};

// What is wrong with a row, in place of what it neglects.
constexpr double bad_current = -1, bad_ticks = -2, bad_law = -3, bad_edges = -4;

constexpr int everyday_nodes = 32, exact_nodes = 128;

template <class T, int nodes>
struct Evaluate {
  const T* values;
  const int64_t* offsets;
  Measured measured;
  double tick;
  Chip chip;
  Grid<nodes> grid;
  Approximation near;
  NormalTable table;
  double* log_p;      // (intervals)
  double* neglected;  // (intervals)
  // null, or
  T* d_values;          // (total)
  double* d_threshold;  // (intervals)
  double* d_noise;      // (intervals, 3)
  double* d_edges;      // (2, hits)

  HEPOPS_HD void operator()(int64_t r, const Scratch<nodes>& scratch) const {
    const Row<T> row{values + offsets[r], offsets[r + 1] - offsets[r]};
    const Law law = measured.law(r);
    const int64_t begin = measured.first[r], end = measured.first[r + 1];
    if (const double wrong = judge(row, law, begin, end); wrong < 0) {
      for (int64_t i = begin + r; i <= end + r; ++i) log_p[i] = NAN, neglected[i] = wrong;
      return;
    }
    const int64_t restart = chip.hold + chip.reset + 1, ready = restart + (chip.busy > 0 ? chip.busy - 1 : 0);
    int64_t start = 0;
    for (int64_t h = begin; h < end; ++h) {
      const Reading reading(measured.edges[h], measured.edges[measured.hits + h], law, scratch.reading());
      const int64_t k = measured.tick[h], first = h > begin ? ready - restart : 0;
      run(row, r, h + r, start, k + restart, {law, first, k - start, 0, &reading}, h, scratch);
      start = k + restart;
    }
    const int64_t first = begin < end ? ready - restart : 0, ends = row.ticks - start;
    const int64_t last = (begin < end && chip.busy > 0 && first + 1 > ends ? first + 1 : ends) - 1;
    run(row, r, end + r, start, row.ticks, {law, first, last, ends, nullptr}, -1, scratch);
  }

  HEPOPS_HD double judge(const Row<T>& row, const Law& law, int64_t begin, int64_t end) const {
    if (!charges(row, 0, 1).finite()) return bad_current;
    const auto positive = [](double x) { return x > 0 && x - x == 0; };
    if (!positive(law.threshold) || !positive(law.uncorrelated) || !positive(law.discriminator) ||
        !(law.reset >= 0 && law.reset - law.reset == 0))
      return bad_law;
    const int64_t dead = chip.hold + chip.reset + (chip.busy > 0 ? chip.busy : 1);
    for (int64_t h = begin; h < end; ++h) {
      const int64_t k = measured.tick[h], earliest = h > begin ? measured.tick[h - 1] + dead : 0;
      const bool due = h > begin && chip.busy > 0 && k == earliest;
      if (k < earliest || (k >= row.ticks && !due)) return bad_ticks;
      const double lo = measured.edges[h], hi = measured.edges[measured.hits + h];
      if (!(lo <= hi) || (lo == hi && !(lo - lo == 0))) return bad_edges;
    }
    return 0;
  }

  // What Interval and Quick are made from
  struct Asked {
    Law law;
    int64_t first, last, ends;
    const Reading* reading;
  };

  // One interval, which owns the ticks from start to the next one's.
  HEPOPS_HD void run(const Row<T>& row, int64_t r, int64_t i, int64_t start, int64_t next, const Asked& asked,
                     int64_t hit, const Scratch<nodes>& scratch) const {
    bool careful = false;
#ifndef __CUDACC__
    if constexpr (nodes == everyday_nodes) {
      Quick<nodes> quick(asked.law, chip, grid, near, table, scratch, asked.first, asked.last, asked.ends,
                         asked.reading);
      Slopes d;
      quick.charge(row, start, tick);
      const double value = quick.log_probability(neglected[i], d_values ? &d : nullptr);
      if (quick.sure()) return write(row, r, i, start, next, hit, quick, value, d);
      careful = true;
    }
#endif
    Interval<nodes> interval(asked.law, chip, grid, near, scratch, asked.first, asked.last, asked.ends, asked.reading);
    Slopes d;
    interval.charge(row, start, tick);
    const double value = interval.log_probability(neglected[i], d_values ? &d : nullptr, careful);
    write(row, r, i, start, next, hit, interval, value, d);
  }

  template <class Of>
  HEPOPS_HD void write(const Row<T>& row, int64_t r, int64_t i, int64_t start, int64_t next, int64_t hit,
                       const Of& interval, double value, const Slopes& d) const {
    log_p[i] = value;
    if (!d_values) return;
    d_threshold[i] = d.threshold;
    d_noise[3 * i] = d.reset, d_noise[3 * i + 1] = d.uncorrelated, d_noise[3 * i + 2] = d.discriminator;
    if (hit >= 0) d_edges[hit] = d.lo, d_edges[measured.hits + hit] = d.hi;
    T* const to = d_values + offsets[r] + start;
    const int64_t stop = (next < row.ticks ? next : row.ticks) - start;
    const int64_t own = hit >= 0 && stop > interval.ticks() ? interval.ticks() : stop;
    interval.charge_slopes(own, [&](int64_t t, double slope) { to[t] = T(tick * slope); });
    for (int64_t t = own > 0 ? own : 0; t < stop; ++t) to[t] = T(0);  // lost to the reset
  }
};

#ifdef __CUDACC__
template <class T, int nodes>
struct Worker {
  Evaluate<T, nodes> evaluate;
  int64_t rows, workers, ticks;
  double* memory;
  HEPOPS_HD void operator()(int64_t worker) const {
    const Scratch<nodes> scratch{memory + worker * Scratch<nodes>::size(ticks), ticks};
    for (int64_t r = worker; r < rows; r += workers) evaluate(r, scratch);
  }
};
#endif

template <class T, int nodes>
void for_rows(const Tensor& on, int64_t rows, int64_t ticks, const Evaluate<T, nodes>& evaluate) {
#ifdef __CUDACC__
  const int64_t workers = std::min<int64_t>(rows, 4096);
  const Tensor memory = torch::stable::new_empty(on, {workers * Scratch<nodes>::size(ticks)}, ScalarType::Double);
  core::for_each(on, workers, Worker<T, nodes>{evaluate, rows, workers, ticks, core::out<double>(memory)});
#else
  (void)on;
  constexpr int64_t at_a_time = 32;
  core::for_tasks((rows + at_a_time - 1) / at_a_time, core::Threads{}, [&](int64_t task) {
    thread_local core::Buffer<double> memory;
    const Scratch<nodes> scratch{memory.reserve(Scratch<nodes>::size(ticks)), ticks};
    const int64_t end = std::min(rows, (task + 1) * at_a_time);
    for (int64_t r = task * at_a_time; r < end; ++r) evaluate(r, scratch);
  });
#endif
}

// The longest row, and a check of the offsets.
int64_t longest_row(const char* name, const Tensor& offsets, int64_t total) {
  const Tensor host = offsets.is_cpu()
                          ? offsets
                          : torch::stable::to(offsets, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  const int64_t* at = core::in<int64_t>(host);
  const int64_t rows = host.numel() - 1;
  int64_t longest = 0;
  core::check_value(at[0] == 0 && at[rows] == total, "hit_likelihood: ", name, " must rise from 0 to ", total, ", got ",
                    at[0], " and ", at[rows]);
  for (int64_t r = 0; r < rows; ++r) {
    core::check_value(at[r] <= at[r + 1], "hit_likelihood: ", name, " must rise, got ", at[r], " and ", at[r + 1],
                      " for row ", r);
    longest = std::max(longest, at[r + 1] - at[r]);
  }
  return longest;
}

void explain(const Tensor& neglected, const Tensor& first, int64_t rows) {
  if (!neglected.is_cpu()) return;
  const double* what = core::in<double>(neglected);
  const int64_t* at = core::in<int64_t>(first);
  for (int64_t r = 0; r < rows; ++r) {
    const double wrong = what[at[r] + r];
    core::check_value(wrong != bad_current, "hit_likelihood: currents must be finite [e/us], row ", r, " is not");
    core::check_value(wrong != bad_ticks, "hit_likelihood: the ticks of row ", r,
                      " must be in its window, in order, and no nearer than the chip's dead time");
    core::check_value(wrong != bad_law, "hit_likelihood: threshold and noise must be positive [e] (reset noise may be ",
                      "0), those of row ", r, " are not");
    core::check_value(wrong != bad_edges, "hit_likelihood: edges must rise, and be finite where equal, those of row ",
                      r, " do not");
  }
}

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// -> log P, and its slopes by the currents, threshold, noise and edges (empty without derivatives), and what is
// neglected
Result forward(const Tensor& values_, const Tensor& offsets_, const Tensor& ticks_, const Tensor& first_,
               const Tensor& edges_, const Tensor& threshold_, const Tensor& noise_, double tick, int64_t hold,
               int64_t reset, int64_t busy, double rise_time, double tolerance, bool derivatives) {
  const Chip chip = chip_of(tick, hold, reset, busy, rise_time);
  const Tensor values = core::contiguous(values_), offsets = core::contiguous(offsets_),
               ticks = core::contiguous(ticks_), first = core::contiguous(first_), edges = core::contiguous(edges_),
               threshold = core::contiguous(threshold_), noise = core::contiguous(noise_);
  core::check_floating("hit_likelihood: currents", values);
  core::check_value(values.dim() == 1, "hit_likelihood: currents must be (total,), got ", core::Shape{values});
  core::check_value(tolerance >= 0, "hit_likelihood: tolerance must not be negative, got ", tolerance);
  for (const auto& [name, x] : {std::pair{"offsets", &offsets}, {"ticks", &ticks}, {"first", &first}})
    core::check_type(x->scalar_type() == ScalarType::Long, "hit_likelihood: ", name, " must be int64, got ",
                     toString(x->scalar_type()));
  for (const auto& [name, x] : {std::pair{"edges", &edges}, {"threshold", &threshold}, {"noise", &noise}})
    core::check_type(x->scalar_type() == ScalarType::Double, "hit_likelihood: ", name, " must be float64, got ",
                     toString(x->scalar_type()));
  core::check_value(offsets.dim() == 1 && offsets.numel() >= 1, "hit_likelihood: offsets must be (rows + 1,), got ",
                    core::Shape{offsets});
  const int64_t rows = offsets.numel() - 1, hits = ticks.numel();
  core::check_value(first.numel() == rows + 1, "hit_likelihood: first must be (", rows + 1, ",), got ",
                    core::Shape{first});
  core::check_value(edges.dim() == 2 && edges.size(0) == 2 && edges.size(1) == hits,
                    "hit_likelihood: edges must be (2, ", hits, "), got ", core::Shape{edges});
  core::check_value(threshold.numel() == 1 || threshold.numel() == rows,
                    "hit_likelihood: threshold must be one number or one per row, ", rows, ", got ",
                    core::Shape{threshold});
  core::check_value(noise.numel() == 3 || (noise.dim() == 2 && noise.size(0) == rows && noise.size(1) == 3),
                    "hit_likelihood: noise must be (3,) or (", rows, ", 3), got ", core::Shape{noise});
  longest_row("first", first, hits);
  const int64_t longest = longest_row("offsets", offsets, values.numel());
  const int64_t room = longest + 2 * hold + reset + 2 * busy + 8;

  const int64_t intervals = rows + hits, kept = derivatives ? intervals : 0;
  const auto empty = [&](std::initializer_list<int64_t> shape) {
    return torch::stable::new_empty(values, shape, ScalarType::Double);
  };
  Tensor log_p = empty({intervals}), neglected = empty({intervals}), d_threshold = empty({kept}),
         d_noise = empty({kept, 3}), d_edges = empty({2, derivatives ? hits : 0}),
         d_values = torch::stable::new_empty(values, {derivatives ? values.numel() : 0});
  const Approximation near{tolerance, tolerance > 0 ? 19 : 1};
  core::for_floating("hit_likelihood: currents", values, [&]<class T>() {
    const Measured measured{
        core::in<int64_t>(ticks),    core::in<int64_t>(first), core::in<double>(edges), hits,
        core::in<double>(threshold), core::in<double>(noise),  threshold.numel() > 1,   noise.dim() == 2};
    const auto run = [&]<int nodes>() {
      const Grid<nodes> grid;
      NormalTable table;
#ifndef __CUDACC__
      core::Buffer<double> memory;
      const double* sigma = core::in<double>(noise);
      const double stride =
          noise.dim() == 2 || nodes > 32 ? 0.0 : sigma[0] / std::hypot(sigma[1], sigma[2]) * grid.spacing;
      if (NormalTable::serves(stride))
        table = NormalTable(stride, nodes, memory.reserve(NormalTable::size(stride, nodes)));
#endif
      for_rows(values, rows, room,
               Evaluate<T, nodes>{core::in<T>(values), core::in<int64_t>(offsets), measured, tick, chip, grid, near,
                                  table, core::out<double>(log_p), core::out<double>(neglected),
                                  derivatives ? core::out<T>(d_values) : nullptr, core::out<double>(d_threshold),
                                  core::out<double>(d_noise), core::out<double>(d_edges)});
    };
    tolerance > 0 ? run.template operator()<everyday_nodes>() : run.template operator()<exact_nodes>();
  });
  explain(neglected, first, rows);
  return {log_p, d_values, d_threshold, d_noise, d_edges, neglected};
}

// The ticks of interval i of a row: those from the end of the one before.
struct Owners {
  const int64_t* offsets;
  const int64_t* ticks;
  const int64_t* first;
  int64_t restart;

  // f(interval, begin, end) for each of a row
  template <class F>
  HEPOPS_HD void operator()(int64_t r, const F& f) const {
    const int64_t total = offsets[r + 1] - offsets[r];
    int64_t begin = 0;
    for (int64_t h = first[r]; h <= first[r + 1]; ++h) {
      const int64_t next = h < first[r + 1] && ticks[h] + restart < total ? ticks[h] + restart : total;
      f(h + r, offsets[r] + begin, offsets[r] + next);
      begin = next;
    }
  }
};

template <class T>
struct Backward {
  Owners owners;
  const double* grad;
  const T* per_current;
  const double *per_threshold, *per_noise, *per_edge;  // (intervals), (intervals, 3), (2, hits)
  int64_t hits;
  T* of_values;
  double *of_threshold, *of_noise, *of_edges;
  HEPOPS_HD void operator()(int64_t r) const {
    owners(r, [&](int64_t i, int64_t begin, int64_t end) {
      const double g = grad[i];
      for (int64_t t = begin; t < end; ++t) of_values[t] = T(g * double(per_current[t]));
      of_threshold[i] = g * per_threshold[i];
      for (int64_t n = 3 * i; n < 3 * i + 3; ++n) of_noise[n] = g * per_noise[n];
      if (const int64_t h = i - r; h < owners.first[r + 1])
        of_edges[h] = g * per_edge[h], of_edges[hits + h] = g * per_edge[hits + h];
    });
  }
};

// grad (intervals) -> its products with the slopes: the gradient of the currents and edges, and for threshold and noise
// what each interval adds. What was differentiated is an argument, so that a second derivative is refused.
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor&, const Tensor&, const Tensor&,
                                                    const Tensor&, const Tensor& per_current_,
                                                    const Tensor& per_threshold_, const Tensor& per_noise_,
                                                    const Tensor& per_edge_, const Tensor& offsets_,
                                                    const Tensor& ticks_, const Tensor& first_, int64_t hold,
                                                    int64_t reset) {
  const Tensor g = core::contiguous(grad), per_current = core::contiguous(per_current_),
               per_threshold = core::contiguous(per_threshold_), per_noise = core::contiguous(per_noise_),
               per_edge = core::contiguous(per_edge_), offsets = core::contiguous(offsets_),
               ticks = core::contiguous(ticks_), first = core::contiguous(first_);
  Tensor of_values = core::empty_like(per_current), of_threshold = core::empty_like(per_threshold),
         of_noise = core::empty_like(per_noise), of_edges = core::empty_like(per_edge);
  core::for_floating("hit_likelihood_backward: slopes", per_current, [&]<class T>() {
    core::for_each(
        per_current, offsets.numel() - 1,
        Backward<T>{{core::in<int64_t>(offsets), core::in<int64_t>(ticks), core::in<int64_t>(first), hold + reset + 1},
                    core::in<double>(g),
                    core::in<T>(per_current),
                    core::in<double>(per_threshold),
                    core::in<double>(per_noise),
                    core::in<double>(per_edge),
                    ticks.numel(),
                    core::out<T>(of_values),
                    core::out<double>(of_threshold),
                    core::out<double>(of_noise),
                    core::out<double>(of_edges)});
  });
  return {of_values, of_edges, of_threshold, of_noise};
}

template <class T>
struct Contract {
  Owners owners;
  const T* slopes;
  const T* tangents;  // (directions, total)
  int64_t directions, total;
  double* scores;  // (intervals, directions)
  HEPOPS_HD void operator()(int64_t r) const {
    owners(r, [&](int64_t i, int64_t begin, int64_t end) {
      bool any = false;  // most rows never trigger
      for (int64_t t = begin; t < end; ++t) any |= slopes[t] != T(0);
      for (int64_t d = 0; d < directions; ++d) {
        constexpr int lanes = 8;
        double lane[lanes] = {};
        if (any) {
          const T* along = tangents + d * total;
          int64_t t = begin;
          for (; t + lanes <= end; t += lanes)
            for (int l = 0; l < lanes; ++l) lane[l] += double(slopes[t + l]) * double(along[t + l]);
          for (; t < end; ++t) lane[0] += double(slopes[t]) * double(along[t]);
        }
        scores[i * directions + d] =
            ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
      }
    });
  }
};

// Slopes and tangents of the currents -> derivative of every interval's log P along each, (intervals, directions)
Tensor scores(const Tensor& slopes_, const Tensor& tangents_, const Tensor& offsets_, const Tensor& ticks_,
              const Tensor& first_, int64_t hold, int64_t reset) {
  const Tensor slopes = core::contiguous(slopes_), tangents = core::contiguous(tangents_),
               offsets = core::contiguous(offsets_), ticks = core::contiguous(ticks_), first = core::contiguous(first_);
  core::check_same_kind("hit_scores: tangents", tangents, slopes);
  core::check_value(tangents.dim() == 2 && tangents.size(1) == slopes.numel(), "hit_scores: tangents must be (K, ",
                    slopes.numel(), "), got ", core::Shape{tangents});
  const int64_t rows = offsets.numel() - 1, directions = tangents.size(0);
  Tensor result = torch::stable::new_empty(slopes, {rows + ticks.numel(), directions}, ScalarType::Double);
  core::for_floating("hit_scores: slopes", slopes, [&]<class T>() {
    core::for_each(
        slopes, rows,
        Contract<T>{{core::in<int64_t>(offsets), core::in<int64_t>(ticks), core::in<int64_t>(first), hold + reset + 1},
                    core::in<T>(slopes),
                    core::in<T>(tangents),
                    directions,
                    slopes.numel(),
                    core::out<double>(result)});
  });
  return result;
}

const core::Operators operators{
    core::op<forward>("hit_likelihood(Tensor values, Tensor offsets, Tensor ticks, Tensor first, Tensor edges, "
                      "Tensor threshold, Tensor noise, float tick, int hold, int reset, int busy, float rise_time, "
                      "float tolerance, bool derivatives) -> (Tensor log_probability, Tensor per_current, "
                      "Tensor per_threshold, Tensor per_noise, Tensor per_edge, Tensor neglected)"),
    core::op<backward>("hit_likelihood_backward(Tensor grad, Tensor values, Tensor edges, Tensor threshold, "
                       "Tensor noise, Tensor per_current, Tensor per_threshold, Tensor per_noise, Tensor per_edge, "
                       "Tensor offsets, Tensor ticks, Tensor first, int hold, int reset) -> (Tensor of_values, "
                       "Tensor of_edges, Tensor of_threshold, Tensor of_noise)"),
    core::op<scores>("_hit_scores(Tensor slopes, Tensor tangents, Tensor offsets, Tensor ticks, Tensor first, "
                     "int hold, int reset) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lartpc::larpix
