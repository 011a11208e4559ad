#pragma once
// What the operators of both faces share: ragged rows with their checks, and two passes over them, one that counts the
// triggers and one that writes each to its place.
#include <array>
#include <optional>
#include <tuple>

#include "core/check.h"
#include "core/for_each_row.h"
#include "lartpc/frontend.h"

namespace hepops::lartpc::larpix {

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

inline Chip chip_of(double tick, int64_t hold, int64_t reset, int64_t busy, double rise_time) {
  core::check_value(tick > 0, "frontend: tick must be positive [us], got ", tick);
  core::check_value(rise_time >= 0, "frontend: rise_time must not be negative [us], got ", rise_time);
  core::check_value(hold >= 0, "frontend: hold must not be negative [ticks], got ", hold);
  core::check_value(reset >= 0, "frontend: reset must not be negative [ticks], got ", reset);
  core::check_value(busy >= 0, "frontend: busy must not be negative [ticks], got ", busy);
  core::check_value(hold + reset > 0, "frontend: hold + reset must be positive [ticks], got 0");
  return {hold, reset, busy, rise_time > 0 ? std::exp(-tick / rise_time) : 0.0};
}

// ----------------------------------------------------------------------------------------------- count, then write

// first[r] is the first trigger of row r, first[rows] their number.
struct Counted {
  Tensor first;
  int64_t triggers;
};

inline int64_t read_back(const Tensor& x, int64_t i) {
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
  Table<typename Make::Time, typename Make::Value> table;

  HEPOPS_HD void operator()(int64_t row) const {
    int64_t at = table.first[row];
    if (at == table.first[row + 1]) return;
    auto face = make(row);
    integrate_and_read(face, [&](auto time, double charge, int64_t rank) {
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
Result write(const Input& input, const Make& make, const Counted& counted, ScalarType time_type) {
  const auto empty = [&](ScalarType type) { return torch::stable::new_empty(input.values, {counted.triggers}, type); };
  Tensor row = empty(ScalarType::Long), rank = empty(ScalarType::Long), time = empty(time_type);
  Tensor charge = empty(input.values.scalar_type());
  for_each_by_thread(input.values, input.rows,
                     Write<Make>{make,
                                 {core::in<int64_t>(counted.first), core::out<int64_t>(row), core::out<int64_t>(rank),
                                  core::out<typename Make::Time>(time), core::out<typename Make::Value>(charge)}});
  return {time, charge, row, rank, counted.first};
}

}  // namespace hepops::lartpc::larpix
