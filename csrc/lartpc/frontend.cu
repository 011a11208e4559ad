#include "lartpc/frontend.h"

#include "core/op.h"
#include "core/reduce.h"
#include "lartpc/frontend_rows.h"

namespace hepops::lartpc::larpix {
namespace {

template <class T>
struct MakeContinuous {
  using Time = double;
  using Value = T;
  Rows<T> rows;
  double tick;
  Chip chip;

  HEPOPS_HD Continuous<T> operator()(int64_t row) const { return {chip, rows[row], rows.threshold(row) / tick}; }
  HEPOPS_HD double time(double moment, int64_t) const { return moment; }
  HEPOPS_HD double charge(double sum) const { return tick * sum; }
};

// The team sums the row together; one of them follows the chip where that may trigger.
template <class T>
struct CountContinuous {
  MakeContinuous<T> make;
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
    return integrate_and_read(face, [](double, double, int64_t) {});
  }
};

Result forward(const Tensor& values, const Tensor& offsets, const Tensor& threshold, double tick, int64_t hold,
               int64_t reset, int64_t busy, double rise_time) {
  const Chip chip = chip_of(tick, hold, reset, busy, rise_time);
  std::optional<Result> result;
  core::for_floating("frontend: currents", values, [&]<class T>() {
    const Input input(values, offsets, threshold);
    const MakeContinuous<T> make{input.as<T>(), tick, chip};
    Tensor counts = torch::stable::new_zeros(input.values, {input.rows + 1}, ScalarType::Long);
    core::for_each_row(input.values, input.rows, rows_per_team * sizeof(Charges),
                       CountContinuous<T>{make, core::out<int64_t>(counts)}, rows_per_team);
    result = write(input, make, scan<T>(input, counts), ScalarType::Double);
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
  Chip chip;
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
      sum = frontend_backward(rows[row], tick, chip, triggers, grad, grad_values + rows.offsets[row], team);
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
                                    int64_t busy, double rise_time) {
  const Chip chip = chip_of(tick, hold, reset, busy, rise_time);
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
                       Backward<T>{input.as<T>(), tick, chip, found, core::in<double>(g_time), core::in<T>(g_charge),
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
  Chip chip;
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
      frontend_jvp(current, tangent, dthreshold, tick, chip, of_row, [&](int64_t c, double dt, double dq) {
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
                               int64_t busy, double rise_time) {
  const Chip chip = chip_of(tick, hold, reset, busy, rise_time);
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
                       Tangents<T>{input.as<T>(), tick, chip, found, directions, found.triggers, core::in<T>(v),
                                   w ? core::in<T>(*w) : nullptr, input.threshold.numel(), core::out<double>(of_time),
                                   core::out<T>(of_charge)},
                       rows_per_team);
  });
  return {of_time, of_charge};
}

const core::Operators operators{
    core::op<forward>(
        "frontend(Tensor values, Tensor offsets, Tensor threshold, float tick, int hold, int reset, "
        "int busy, float rise_time) -> (Tensor time, Tensor charge, Tensor row, Tensor rank, Tensor first)"),
    core::op<backward>("frontend_backward(Tensor grad_time, Tensor grad_charge, Tensor values, Tensor offsets, "
                       "Tensor threshold, Tensor rank, Tensor time, Tensor first, float tick, int hold, int reset, "
                       "int busy, float rise_time) -> (Tensor, Tensor)"),
    core::op<jvp>("frontend_jvp(Tensor tangents, Tensor? threshold_tangents, Tensor values, Tensor offsets, "
                  "Tensor threshold, Tensor rank, Tensor time, Tensor first, float tick, int hold, int reset, "
                  "int busy, float rise_time) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lartpc::larpix
