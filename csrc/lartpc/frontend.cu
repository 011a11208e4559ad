#include "lartpc/frontend.h"

#include <optional>
#include <tuple>

#include "core/check.h"
#include "core/for_each_row.h"
#include "core/op.h"
#include "core/reduce.h"

namespace hepops::lartpc {
namespace {

using core::ScalarType;
using core::Team;
using core::Tensor;

// What a count adds where a row is refused: far above any number of triggers, so that one number read back tells both.
constexpr int64_t refused = int64_t(1) << 40;

// ---------------------------------------------------------------------------------------------------------- arguments

template <class T>
struct Rows {
  const T* values;
  const int64_t* offsets;
  const T* thresholds;
  int64_t threshold_stride, total;

  HEPOPS_HD bool inside(int64_t row) const {
    return 0 <= offsets[row] && offsets[row] <= offsets[row + 1] && offsets[row + 1] <= total;
  }
  HEPOPS_HD Row<T> operator[](int64_t row) const { return {values + offsets[row], offsets[row + 1] - offsets[row]}; }
  HEPOPS_HD double threshold(int64_t row) const { return double(thresholds[row * threshold_stride]); }
};

// The tensors that every direction shares, checked and contiguous.
struct Input {
  Tensor values, offsets, threshold;
  int64_t rows;

  Input(const Tensor& values_, const Tensor& offsets_, const Tensor& threshold_)
      : values(core::contiguous(values_)),
        offsets(core::contiguous(offsets_)),
        threshold(core::contiguous(threshold_)) {
    core::check_value(values.dim() == 1, "frontend: currents must be (total,), got ", core::Shape{values});
    check_int64("offsets", offsets);
    core::check_value(offsets.dim() == 1 && offsets.numel() >= 1, "frontend: offsets must be (rows + 1,), got ",
                      core::Shape{offsets});
    rows = offsets.numel() - 1;
    core::check_same_kind("frontend: threshold", threshold, values);
    core::check_value(threshold.numel() == 1 || (threshold.dim() == 1 && threshold.numel() == rows),
                      "frontend: threshold must be one number or one per row, ", rows, ", got shape ",
                      core::Shape{threshold});
  }

  void check_int64(const char* name, const Tensor& x) const {
    core::check_type(x.scalar_type() == ScalarType::Long, "frontend: ", name, " must be int64, got ",
                     toString(x.scalar_type()));
    core::check_value(x.device() == values.device(), "frontend: ", name, " must be on the device of the currents");
  }

  template <class T>
  Rows<T> as() const {
    return {core::in<T>(values), core::in<int64_t>(offsets), core::in<T>(threshold), threshold.numel() > 1,
            values.numel()};
  }
};

Clock clock_of(int64_t hold, int64_t reset, int64_t busy) {
  core::check_value(hold >= 0, "frontend: hold must not be negative [ticks], got ", hold);
  core::check_value(reset >= 0, "frontend: reset must not be negative [ticks], got ", reset);
  core::check_value(busy >= 0, "frontend: busy must not be negative [ticks], got ", busy);
  core::check_value(hold + reset > 0, "frontend: hold + reset must be positive [ticks], got 0");
  return {hold, reset, busy};
}

void check_tick(double tick) { core::check_value(tick > 0, "frontend: tick must be positive [us], got ", tick); }

// ------------------------------------------------------------------------------- two passes: count, then write in
// place

// first[r] is the first trigger of row r, first[rows] their number.
struct Counted {
  Tensor first;
  int64_t triggers;
};

int64_t read_back(const Tensor& x, int64_t i) {
  const Tensor one = torch::stable::narrow(const_cast<Tensor&>(x), 0, i, 1);
  return *core::in<int64_t>(
      x.is_cpu() ? one : torch::stable::to(one, torch::stable::Device(torch::headeronly::DeviceType::CPU)));
}

template <class T>
[[noreturn]] void explain(const Input& input, const Tensor& counts) {
  int64_t row = 0;
  while (read_back(counts, row + 1) < refused) ++row;
  const int64_t begin = read_back(input.offsets, row), end = read_back(input.offsets, row + 1);
  core::check_value(0 <= begin && begin <= end && end <= input.values.numel(), "frontend: offsets must rise from 0 to ",
                    input.values.numel(), ", got ", begin, " and ", end, " for row ", row);
  const Tensor thresholds =
      torch::stable::to(input.threshold, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  const double threshold = core::in<T>(thresholds)[thresholds.numel() > 1 ? row : 0];
  core::check_value(threshold > 0 && threshold - threshold == 0, "frontend: threshold must be positive [e], got ",
                    threshold, " for row ", row);
  core::refuse("ValueError: frontend: currents must be finite [e/us], row ", row, " is not");
}

// counts (rows + 1): 0, then those of the rows
template <class T>
Counted scan(const Input& input, const Tensor& counts) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(counts), torch::stable::detail::from(int64_t(0)),
                                    torch::stable::detail::from(std::optional<ScalarType>())};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::cumsum", "", stack.data(), TORCH_ABI_VERSION));
  const Tensor first = torch::stable::detail::to<Tensor>(stack[0]);
  const int64_t triggers = read_back(first, input.rows);
  if (triggers >= refused) explain<T>(input, counts);
  return {first, triggers};
}

HEPOPS_HD bool good(const Charges& sum, double threshold) {
  return sum.finite() && threshold > 0 && threshold - threshold == 0;
}

// Where the triggers of a row go.
template <class Time, class T>
struct Table {
  const int64_t* first;
  int64_t* row;
  int64_t* rank;
  Time* time;
  T* charge;
};

// Each row by one thread, and a warp works on 32 rows.
constexpr int64_t rows_per_team = 32;

template <class F>
struct ByThread {
  F f;
  int64_t rows;
  HEPOPS_HD void operator()(int64_t group, const Team& team) const {
    for (int64_t i = team.rank; i < rows_per_team; i += team.size)
      if (const int64_t row = group * rows_per_team + i; row < rows) f(row);
  }
};

template <class F>
void for_each_by_thread(const Tensor& on, int64_t rows, const F& f) {
  core::for_each_row(on, (rows + rows_per_team - 1) / rows_per_team, 0, ByThread<F>{f, rows}, rows_per_team);
}

template <class Make>
struct Write {
  Make make;
  Clock clock;
  Table<typename Make::Time, typename Make::Value> table;

  HEPOPS_HD void operator()(int64_t row) const {
    int64_t at = table.first[row];
    if (at == table.first[row + 1]) return;
    auto face = make(row);
    integrate_and_read(face, clock, [&](auto time, double charge, int64_t rank) {
      table.row[at] = row;
      table.rank[at] = rank;
      table.time[at] = make.time(time, row);
      table.charge[at] = typename Make::Value(make.charge(charge));
      ++at;
    });
  }
};

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class Make>
Result write(const Input& input, const Make& make, const Clock& clock, const Counted& counted, ScalarType time_type) {
  const auto empty = [&](ScalarType type) { return torch::stable::new_empty(input.values, {counted.triggers}, type); };
  Tensor row = empty(ScalarType::Long), rank = empty(ScalarType::Long), time = empty(time_type);
  Tensor charge = empty(input.values.scalar_type());
  for_each_by_thread(input.values, input.rows,
                     Write<Make>{make,
                                 clock,
                                 {core::in<int64_t>(counted.first), core::out<int64_t>(row), core::out<int64_t>(rank),
                                  core::out<typename Make::Time>(time), core::out<typename Make::Value>(charge)}});
  return {time, charge, row, rank, counted.first};
}

// ---------------------------------------------------------------------------------------------------- continuous face

template <class T>
struct MakeContinuous {
  using Time = double;
  using Value = T;
  Rows<T> rows;
  double tick;

  HEPOPS_HD Continuous<T> operator()(int64_t row) const { return {rows[row], rows.threshold(row) / tick}; }
  HEPOPS_HD double time(double moment, int64_t) const { return moment; }
  HEPOPS_HD double charge(double sum) const { return tick * sum; }
};

// The team sums the row together; one of them follows the chip where that may trigger.
template <class T>
struct CountContinuous {
  MakeContinuous<T> make;
  Clock clock;
  int64_t* counts;

  HEPOPS_HD void operator()(int64_t row, const Team& team) const {
    auto* part = reinterpret_cast<Charges*>(team.memory);
    const bool inside = make.rows.inside(row);
    part[team.rank] = inside ? charges(make.rows[row], team.rank, team.size) : Charges{0, 0};
    team.sync();
    if (team.rank == 0) {
      Charges sum{0, 0};
      for (int i = 0; i < team.size; ++i) sum.positive += part[i].positive, sum.total += part[i].total;
      counts[row + 1] = inside ? count(row, sum) : refused;
    }
  }

  HEPOPS_HD int64_t count(int64_t row, const Charges& sum) const {
    auto face = make(row);
    if (!good(sum, face.threshold)) return refused;
    if (sum.silent(face.threshold)) return 0;
    return integrate_and_read(face, clock, [](double, double, int64_t) {});
  }
};

Result forward(const Tensor& values, const Tensor& offsets, const Tensor& threshold, double tick, int64_t hold,
               int64_t reset, int64_t busy) {
  const Clock clock = clock_of(hold, reset, busy);
  check_tick(tick);
  std::optional<Result> result;
  core::for_floating("frontend: currents", values, [&]<class T>() {
    const Input input(values, offsets, threshold);
    const MakeContinuous<T> make{input.as<T>(), tick};
    Tensor counts = torch::stable::new_zeros(input.values, {input.rows + 1}, ScalarType::Long);
    core::for_each_row(input.values, input.rows, rows_per_team * sizeof(Charges),
                       CountContinuous<T>{make, clock, core::out<int64_t>(counts)}, rows_per_team);
    result = write(input, make, clock, scan<T>(input, counts), ScalarType::Double);
  });
  return *result;
}

// --------------------------------------------------------------------------------------------------------- derivatives

// The table of triggers as a backward finds it.
struct Found {
  Tensor rank, time, first;
  int64_t triggers;

  Found(const Input& input, const Tensor& rank_, const Tensor& time_, const Tensor& first_)
      : rank(core::contiguous(rank_)),
        time(core::contiguous(time_)),
        first(core::contiguous(first_)),
        triggers(time.numel()) {
    input.check_int64("rank", rank);
    input.check_int64("first", first);
    core::check_type(time.scalar_type() == ScalarType::Double, "frontend: time must be float64, got ",
                     toString(time.scalar_type()));
    core::check_value(time.device() == input.values.device(), "frontend: time must be on the device of the currents");
    core::check_value(rank.numel() == triggers && first.numel() == input.rows + 1,
                      "frontend: rank, time and first must be those of the forward call");
  }
};

struct FoundView {
  const int64_t* rank;
  const double* time;
  const int64_t* first;

  FoundView(const Found& found)
      : rank(core::in<int64_t>(found.rank)),
        time(core::in<double>(found.time)),
        first(core::in<int64_t>(found.first)) {}
  HEPOPS_HD Triggers operator[](int64_t row) const {
    return {time + first[row], rank + first[row], first[row + 1] - first[row]};
  }
};

template <class T>
struct Backward {
  Rows<T> rows;
  double tick;
  Clock clock;
  FoundView found;
  const double* grad_time;
  const T* grad_charge;
  T* grad_values;
  double* grad_threshold;  // (rows)

  HEPOPS_HD void operator()(int64_t row, const Team& team) const {
    const Triggers triggers = found[row];
    const int64_t at = found.first[row];
    double sum = 0;
    if (triggers.count > 0) {
      const auto grad = [&](int64_t c) { return TriggerGradient{grad_time[at + c], double(grad_charge[at + c])}; };
      sum = frontend_backward(rows[row], tick, clock, triggers, grad, grad_values + rows.offsets[row], team);
    }
    if (team.rank == 0) grad_threshold[row] = sum;
  }
};

template <class T>
struct ThresholdGradient {
  const double* of_row;
  HEPOPS_HD core::Vec<double, 1> operator()(int64_t row) const { return {of_row[row]}; }
};

// -> gradients of values and threshold
std::tuple<Tensor, Tensor> backward(const Tensor& grad_time, const Tensor& grad_charge, const Tensor& values,
                                    const Tensor& offsets, const Tensor& threshold, const Tensor& rank,
                                    const Tensor& time, const Tensor& first, double tick, int64_t hold, int64_t reset,
                                    int64_t busy) {
  const Clock clock = clock_of(hold, reset, busy);
  check_tick(tick);
  const Input input(values, offsets, threshold);
  const Found found(input, rank, time, first);
  core::check_same_shape("frontend_backward: grad_time", grad_time, found.time);
  core::check_same_kind("frontend_backward: grad_charge", grad_charge, input.values);
  core::check_value(grad_charge.numel() == found.triggers, "frontend_backward: grad_charge has shape ",
                    core::Shape{grad_charge}, ", expected (", found.triggers, ")");
  const Tensor g_time = core::contiguous(grad_time), g_charge = core::contiguous(grad_charge);
  Tensor grad_values = torch::stable::new_zeros(input.values, input.values.sizes()), grad_threshold;
  core::for_floating("frontend: currents", input.values, [&]<class T>() {
    Tensor of_row = torch::stable::new_empty(input.values, {input.rows}, ScalarType::Double);
    core::for_each_row(input.values, input.rows, 0,
                       Backward<T>{input.as<T>(), tick, clock, found, core::in<double>(g_time), core::in<T>(g_charge),
                                   core::out<T>(grad_values), core::out<double>(of_row)},
                       rows_per_team);
    if (input.threshold.numel() == 1 && input.rows != 1) {
      grad_threshold = core::reduce<T, 1>(input.values, input.rows, ThresholdGradient<T>{core::in<double>(of_row)});
    } else {
      grad_threshold = torch::stable::to(of_row, input.values.scalar_type());
    }
  });
  return {grad_values, grad_threshold};
}

// Each member of a team takes every size-th direction.
template <class T>
struct Tangents {
  Rows<T> rows;
  double tick;
  Clock clock;
  FoundView found;
  int64_t directions, triggers;
  const T* tangents;            // (directions, total)
  const T* threshold_tangents;  // (directions, thresholds), or null: the threshold is fixed
  int64_t thresholds;
  double* time_tangents;  // (directions, triggers)
  T* charge_tangents;     // the same

  HEPOPS_HD void operator()(int64_t row, const Team& team) const {
    const Triggers of_row = found[row];
    if (of_row.count == 0) return;
    const Row<T> current = rows[row];
    for (int64_t d = team.rank; d < directions; d += team.size) {
      const Row<T> tangent{tangents + d * rows.total + rows.offsets[row], current.ticks};
      const double dthreshold =
          threshold_tangents ? double(threshold_tangents[d * thresholds + row * rows.threshold_stride]) : 0.0;
      const int64_t at = d * triggers + found.first[row];
      frontend_jvp(current, tangent, dthreshold, tick, clock, of_row, [&](int64_t c, double dt, double dq) {
        time_tangents[at + c] = dt;
        charge_tangents[at + c] = T(dq);
      });
    }
  }
};

// -> tangents of time [ticks] and charge [e] along each direction, (directions, triggers)
std::tuple<Tensor, Tensor> jvp(const Tensor& tangents, const std::optional<Tensor>& threshold_tangents,
                               const Tensor& values, const Tensor& offsets, const Tensor& threshold, const Tensor& rank,
                               const Tensor& time, const Tensor& first, double tick, int64_t hold, int64_t reset,
                               int64_t busy) {
  const Clock clock = clock_of(hold, reset, busy);
  check_tick(tick);
  const Input input(values, offsets, threshold);
  const Found found(input, rank, time, first);
  core::check_same_kind("frontend_jvp: tangents", tangents, input.values);
  core::check_value(tangents.dim() == 2 && tangents.size(1) == input.values.numel(),
                    "frontend_jvp: tangents must be (directions, ", input.values.numel(), "), got ",
                    core::Shape{tangents});
  const int64_t directions = tangents.size(0);
  const Tensor v = core::contiguous(tangents);
  std::optional<Tensor> w;
  if (threshold_tangents) {
    core::check_same_kind("frontend_jvp: threshold_tangents", *threshold_tangents, input.values);
    core::check_value(threshold_tangents->dim() == 2 && threshold_tangents->size(0) == directions &&
                          threshold_tangents->size(1) == input.threshold.numel(),
                      "frontend_jvp: threshold_tangents must be (", directions, ", ", input.threshold.numel(),
                      "), got ", core::Shape{*threshold_tangents});
    w = core::contiguous(*threshold_tangents);
  }
  Tensor of_time = torch::stable::new_empty(input.values, {directions, found.triggers}, ScalarType::Double);
  Tensor of_charge = torch::stable::new_empty(input.values, {directions, found.triggers});
  core::for_floating("frontend: currents", input.values, [&]<class T>() {
    core::for_each_row(input.values, input.rows, 0,
                       Tangents<T>{input.as<T>(), tick, clock, found, directions, found.triggers, core::in<T>(v),
                                   w ? core::in<T>(*w) : nullptr, input.threshold.numel(), core::out<double>(of_time),
                                   core::out<T>(of_charge)},
                       rows_per_team);
  });
  return {of_time, of_charge};
}

// ------------------------------------------------------------------------------------------------------- sampled face

template <class T, class Random>
struct MakeSampled {
  using Time = int64_t;
  using Value = T;
  Rows<T> rows;
  const int64_t* first_tick;
  const int64_t* pixel;  // (rows, 4): event, tpc, ix, iy
  double tick;
  Filter filter;
  uint64_t seed;
  Noise noise;
  bool within;  // it looks in [from, to), else in the row's window
  int64_t from, to;

  HEPOPS_HD Sampled<T, Random> operator()(int64_t row) const {
    const Row<T> current = rows[row];
    const int64_t offset = first_tick[row];
    return {current,    rows.threshold(row),        filter,
            offset,     within ? from - offset : 0, within ? to - offset : current.ticks,
            random(row)};
  }

  HEPOPS_HD Random random(int64_t row) const {
    if constexpr (std::is_same_v<Random, PixelNoise>) {
      const int64_t* p = pixel + 4 * row;
      return PixelNoise(seed, p[0], p[1], p[2], p[3], noise);
    } else {
      return {};
    }
  }

  // The tick at whose end it crossed.
  HEPOPS_HD int64_t time(int64_t moment, int64_t row) const { return first_tick[row] + moment - 1; }
  HEPOPS_HD double charge(double read) const { return read; }
};

template <class T, class Random>
struct CountSampled {
  MakeSampled<T, Random> make;
  Clock clock;
  int64_t* counts;

  HEPOPS_HD void operator()(int64_t row) const {
    if (!make.rows.inside(row)) {
      counts[row + 1] = refused;
      return;
    }
    auto face = make(row);
    const Charges sum = charges(face.row, 0, 1);
    if (!good(sum, face.threshold)) {
      counts[row + 1] = refused;
    } else if (std::is_same_v<Random, Quiet> && sum.silent(face.threshold / make.tick)) {
      counts[row + 1] = 0;
    } else {
      counts[row + 1] = integrate_and_read(face, clock, [](int64_t, double, int64_t) {});
    }
  }
};

// rise_time 0: no filter. interval: none, or the first tick and the one after the last.
Result sampled(const Tensor& values, const Tensor& offsets, const Tensor& first_tick, const Tensor& pixel,
               const Tensor& threshold, int64_t seed, double tick, int64_t hold, int64_t reset, int64_t busy,
               double reset_noise, double uncorrelated_noise, double discriminator_noise, double rise_time,
               std::optional<int64_t> from, std::optional<int64_t> to) {
  const Clock clock = clock_of(hold, reset, busy);
  check_tick(tick);
  core::check_value(rise_time >= 0, "frontend: rise_time must not be negative [us], got ", rise_time);
  core::check_value(from.has_value() == to.has_value() && (!from || *from <= *to),
                    "frontend: an interval needs a first tick and a last one that is not before it");
  const Noise noise{float(reset_noise), float(uncorrelated_noise), float(discriminator_noise)};
  const double keep = rise_time > 0 ? std::exp(-tick / rise_time) : 0.0;
  for (const double sigma : {reset_noise, uncorrelated_noise, discriminator_noise})
    core::check_value(sigma >= 0 && sigma - sigma == 0, "frontend: noise must not be negative [e], got ", sigma);

  std::optional<Result> result;
  core::for_floating("frontend: currents", values, [&]<class T>() {
    const Input input(values, offsets, threshold);
    const Tensor start = core::contiguous(first_tick), name = core::contiguous(pixel);
    input.check_int64("first_tick", start);
    input.check_int64("pixel", name);
    core::check_value(start.numel() == input.rows, "frontend: first_tick must be (", input.rows, ",), got ",
                      core::Shape{start});
    core::check_value(name.dim() == 2 && name.size(0) == input.rows && name.size(1) == 4, "frontend: pixel must be (",
                      input.rows, ", 4), got ", core::Shape{name});
    const auto run = [&]<class Random>() {
      const MakeSampled<T, Random> make{input.as<T>(), core::in<int64_t>(start),  core::in<int64_t>(name),
                                        tick,          {keep, (1 - keep) * tick}, uint64_t(seed),
                                        noise,         from.has_value(),          from.value_or(0),
                                        to.value_or(0)};
      Tensor counts = torch::stable::new_zeros(input.values, {input.rows + 1}, ScalarType::Long);
      for_each_by_thread(input.values, input.rows, CountSampled<T, Random>{make, clock, core::out<int64_t>(counts)});
      result = write(input, make, clock, scan<T>(input, counts), ScalarType::Long);
    };
    if (noise.none()) {
      run.template operator()<Quiet>();
    } else {
      run.template operator()<PixelNoise>();
    }
  });
  return *result;
}

const core::Operators operators{
    core::op<forward>("frontend(Tensor values, Tensor offsets, Tensor threshold, float tick, int hold, int reset, "
                      "int busy) -> (Tensor time, Tensor charge, Tensor row, Tensor rank, Tensor first)"),
    core::op<backward>("frontend_backward(Tensor grad_time, Tensor grad_charge, Tensor values, Tensor offsets, "
                       "Tensor threshold, Tensor rank, Tensor time, Tensor first, float tick, int hold, int reset, "
                       "int busy) -> (Tensor, Tensor)"),
    core::op<jvp>("frontend_jvp(Tensor tangents, Tensor? threshold_tangents, Tensor values, Tensor offsets, "
                  "Tensor threshold, Tensor rank, Tensor time, Tensor first, float tick, int hold, int reset, "
                  "int busy) -> (Tensor, Tensor)"),
    core::op<sampled>("_frontend_sampled(Tensor values, Tensor offsets, Tensor first_tick, Tensor pixel, "
                      "Tensor threshold, int seed, float tick, int hold, int reset, int busy, float reset_noise, "
                      "float uncorrelated_noise, float discriminator_noise, float rise_time, int? from, int? to) "
                      "-> (Tensor tick, Tensor charge, Tensor row, Tensor rank, Tensor first)"),
};

}  // namespace
}  // namespace hepops::lartpc
