#include "core/scatter_add.h"

#include <bit>

#include "core/check.h"
#include "core/exclusive_scan.h"
#include "core/for_each.h"
#include "core/op.h"
#include "core/sort_pairs.h"

namespace hepops::core {
namespace {

// index (n), values (n, channels), out (rows, channels), all contiguous
struct Problem {
  Tensor index, values, out;
  int64_t n, channels, rows;
};

#ifdef __CUDACC__

constexpr int64_t run_length = 1024;

// An index on a GPU is not read back; one that is out of range stops the kernel instead of the neighbouring memory.
__device__ void check_row(int64_t row, int64_t rows) {
  if (row < 0 || row >= rows) __trap();
}

struct CheckRows {
  const int64_t* index;
  int64_t rows;
  __device__ void operator()(int64_t i) const { check_row(index[i], rows); }
};

// starts[r] = entries of rows before r in the sorted index, and how many runs row r has
struct Partition {
  const int64_t* index;
  int64_t n, rows;
  int64_t* starts;
  int64_t* runs;
  __device__ void operator()(int64_t row) const {
    const int64_t first = lower_bound(index, n, row);
    starts[row] = first;
    if (row < rows) runs[row] = (lower_bound(index, n, row + 1) - first + run_length - 1) / run_length;
  }
};

// One run's sum, in the order of the index: partial[run, c]. Runs beyond the last have no row, and nothing to do.
template <class T>
struct SumRun {
  const int64_t* starts;
  const int64_t* offsets;  // of the runs of each row
  const int64_t* entries;  // in the order of their rows
  const T* values;
  double* partial;
  int64_t rows, channels;
  __device__ void operator()(int64_t k) const {
    const int64_t run = k / channels, c = k % channels;
    if (run >= offsets[rows]) return;
    const int64_t row = lower_bound(offsets, rows + 1, run + 1) - 1;
    const int64_t first = starts[row] + (run - offsets[row]) * run_length;
    const int64_t last = min(first + run_length, starts[row + 1]);
    double sum = 0;
    for (int64_t i = first; i < last; ++i) sum += double(values[entries[i] * channels + c]);
    partial[k] = sum;
  }
};

template <class T>
struct SumRow {
  const int64_t* offsets;
  const double* partial;
  T* out;
  int64_t channels;
  __device__ void operator()(int64_t k) const {
    const int64_t row = k / channels, c = k % channels;
    double sum = 0;
    for (int64_t run = offsets[row]; run < offsets[row + 1]; ++run) sum += partial[run * channels + c];
    out[k] = T(sum);
  }
};

template <class T>
void deterministic(const Problem& p) {
  for_each(p.index, p.n, CheckRows{in<int64_t>(p.index), p.rows});
  const auto [sorted, entries] = sort_pairs(p.index, {}, std::bit_width(uint64_t(p.rows)));
  const Tensor starts = torch::stable::new_empty(p.index, {p.rows + 1});
  const Tensor runs = torch::stable::new_empty(p.index, {p.rows});
  for_each(p.index, p.rows + 1, Partition{in<int64_t>(sorted), p.n, p.rows, out<int64_t>(starts), out<int64_t>(runs)});
  const Tensor offsets = exclusive_scan(runs);
  const int64_t max_runs = std::min(p.n, p.rows) + p.n / run_length;
  const Tensor partial = torch::stable::new_empty(p.index, {max_runs, p.channels}, ScalarType::Double);
  for_each(p.index, max_runs * p.channels,
           SumRun<T>{in<int64_t>(starts), in<int64_t>(offsets), in<int64_t>(entries), in<T>(p.values),
                     out<double>(partial), p.rows, p.channels});
  for_each(p.index, p.rows * p.channels,
           SumRow<T>{in<int64_t>(offsets), in<double>(partial), out<T>(p.out), p.channels});
}

template <class T>
struct AddAtomically {
  const int64_t* index;
  const T* values;
  T* out;
  int64_t rows, channels;
  __device__ void operator()(int64_t k) const {
    const int64_t row = index[k / channels];
    check_row(row, rows);
    atomicAdd(out + row * channels + k % channels, values[k]);
  }
};

template <class T>
void atomic(const Problem& p) {
  on_stream(p.out, [&](cudaStream_t stream) {
    STD_CUDA_CHECK(cudaMemsetAsync(out<T>(p.out), 0, p.rows * p.channels * sizeof(T), stream));
  });
  for_each(p.index, p.n * p.channels,
           AddAtomically<T>{in<int64_t>(p.index), in<T>(p.values), out<T>(p.out), p.rows, p.channels});
}

void check_range(const Problem&) {}

#else

template <class T>
void deterministic(const Problem& p) {
  scatter_add_on_host<double>(in<int64_t>(p.index), in<T>(p.values), p.n, p.channels, out<T>(p.out), p.rows, Threads{});
}

template <class T>
void atomic(const Problem& p) {
  scatter_add_on_host<T>(in<int64_t>(p.index), in<T>(p.values), p.n, p.channels, out<T>(p.out), p.rows, Threads{});
}

void check_range(const Problem& p) {
  const int64_t* index = in<int64_t>(p.index);
  for (int64_t i = 0; i < p.n; ++i)
    check_value(0 <= index[i] && index[i] < p.rows, "scatter_add: index must be in [0, ", p.rows, "), got ", index[i],
                " at ", i);
}

#endif

Problem problem(const Tensor& index, const Tensor& values, int64_t rows) {
  check_int64("scatter_add: index", index);
  check_value(index.dim() == 1, "scatter_add: index must be (N), got shape ", Shape{index});
  check_value(values.dim() >= 1 && values.size(0) == index.size(0),
              "scatter_add: values must be (N, ...) with N = ", index.size(0), " of the index, got shape ",
              Shape{values});
  check_value(values.device() == index.device(), "scatter_add: values must be on the device of the index");
  check_value(rows >= 0, "scatter_add: rows must not be negative, got ", rows);
  std::vector<int64_t> shape{rows};
  int64_t channels = 1;
  for (int64_t d = 1; d < values.dim(); ++d) shape.push_back(values.size(d)), channels *= values.size(d);
  return {core::contiguous(index),
          core::contiguous(values),
          torch::stable::new_empty(values, shape),
          index.size(0),
          channels,
          rows};
}

Tensor forward(const Tensor& index, const Tensor& values, int64_t rows, bool is_deterministic) {
  const auto run = [&](const auto& sum) {
    const Problem p = problem(index, values, rows);
    check_range(p);
    if (p.out.numel() > 0) sum(p);
    return p.out;
  };
  Tensor result;
  if (is_deterministic) {
    for_floating_or_half("scatter_add: values", values, [&]<class T, class>() { result = run(deterministic<T>); });
  } else {
    for_floating("scatter_add: values, added atomically,", values, [&]<class T>() { result = run(atomic<T>); });
  }
  return result;
}

const Operators operators{
    op<forward>("scatter_add(Tensor index, Tensor values, int rows, bool deterministic) -> Tensor")};

}  // namespace
}  // namespace hepops::core
