#pragma once
// n records of some numbers each (matrices, rows of parameters), as torch lays them out, one behind the other; and a
// formula that takes the numbers of a record apart. for_each_record(on, n, f) calls f(at) with an `at` that loads and
// stores a record's numbers:
//
//   T x[18];  at.load(from, 18, x);  at.store(x, 18, to);        T is At::Number
//
// A record whose length is known to the caller alone is a row: at.row(from, count) reads numbers by their index,
// at.row_to(to) takes them, and at.flush(to, count) comes last. On a CPU both are one buffer, `scratch` numbers long.
//
// On a CPU T is a core::Packed, as many records side by side as a register has lanes (transposed in registers); on a
// GPU a double, a thread a record. Whatever the numbers are stored in, they are computed in double.
#include <algorithm>

#include "core/for_each.h"
#include "core/matrix.h"
#include "core/packed.h"
#include "core/simd.h"

namespace hepops::lattice {

template <class S>
struct OneRow {
  static constexpr bool keeps = false;
  S* x;
  HEPOPS_HD double operator()(int k) const { return double(x[k]); }
  HEPOPS_HD void put(int k, double value) const { x[k] = S(value); }
};

struct OneRecord {
  using Number = double;
  int64_t index;

  template <class S>
  HEPOPS_HD OneRow<const S> row(const S* from, int count) const {
    return {from + index * count};
  }
  template <class S>
  HEPOPS_HD OneRow<S> row_to(S* to, int count) const {
    return {to + index * count};
  }
  template <class S>
  HEPOPS_HD void flush(S*, int) const {}

  template <class S>
  HEPOPS_HD void load(const S* from, int count, double* x) const {
    for (int k = 0; k < count; ++k) x[k] = double(from[index * count + k]);
  }
  template <class S>
  HEPOPS_HD void store(const double* x, int count, S* to) const {
    for (int k = 0; k < count; ++k) to[index * count + k] = S(x[k]);
  }
};

#ifndef __CUDACC__

struct PackedRow {
  static constexpr bool keeps = true;
  core::Packed* x;
  [[gnu::always_inline]] core::Packed operator()(int k) const { return x[k]; }
  [[gnu::always_inline]] void put(int k, core::Packed value) const { x[k] = value; }
};

struct PackOfRecords {
  using Number = core::Packed;
  static constexpr int size = Number::size;
  int64_t first;
  int valid;  // the last ones may be fewer; then the first of them stands in for the rest
  Number* scratch;

  template <class S>
  [[gnu::always_inline]] PackedRow row(const S* from, int count) const {
    load(from, count, scratch);
    return {scratch};
  }
  template <class S>
  [[gnu::always_inline]] PackedRow row_to(S*, int) const {
    return {scratch};
  }
  template <class S>
  [[gnu::always_inline]] void flush(S* to, int count) const {
    store(scratch, count, to);
  }

  template <class S>
  [[gnu::always_inline]] void load(const S* from, int count, Number* x) const {
    from += first * count;
    if (valid == size) return read(from, count, x);
    for (int k = 0; k < count; ++k)
      for (int lane = 0; lane < size; ++lane) x[k].v[lane] = double(from[(lane < valid ? lane : 0) * count + k]);
  }
  template <class S>
  [[gnu::always_inline]] void store(const Number* x, int count, S* to) const {
    to += first * count;
    if (valid == size) return write(x, count, to);
    for (int k = 0; k < count; ++k)
      for (int lane = 0; lane < valid; ++lane) to[lane * count + k] = S(x[k].v[lane]);
  }

 private:
  // Squares of size x size numbers, transposed; the last one begins early enough to end with the record.
  template <class S>
  [[gnu::always_inline]] static void read(const S* from, int count, Number* x) {
    if (count == 1) {
      x[0] = Number::load(from);
    } else if (count >= size) {
      for (int k = 0; k < count; k += size) {
        const int begin = std::min(k, count - size);
        core::transpose<Number>([&](int n) { return Number::load(from + n * count + begin); },
                                [&](int n, Number v) { x[begin + n] = v; });
      }
    } else {
      for (int k = 0; k < count; ++k)
        for (int lane = 0; lane < size; ++lane) x[k].v[lane] = double(from[lane * count + k]);
    }
  }
  template <class S>
  [[gnu::always_inline]] static void write(const Number* x, int count, S* to) {
    if (count == 1) {
      x[0].store(to);
    } else if (count >= size) {
      for (int k = 0; k < count; k += size) {
        const int begin = std::min(k, count - size);
        core::transpose<Number>([&](int n) { return x[begin + n]; },
                                [&](int n, Number v) { v.store(to + n * count + begin); });
      }
    } else {
      for (int k = 0; k < count; ++k)
        for (int lane = 0; lane < size; ++lane) to[lane * count + k] = S(x[k].v[lane]);
    }
  }
};

template <class F>
void for_each_record(const core::Tensor&, int64_t n, const F& f, int scratch = 0) {
  constexpr int size = PackOfRecords::size;
  core::Threads{}((n + size - 1) / size, 64, [&](int64_t begin, int64_t end) {
    const F local = f;
    const core::Buffer<core::Packed> memory(scratch);
    for (int64_t pack = begin; pack < end; ++pack)
      local(PackOfRecords{pack * size, int(std::min<int64_t>(size, n - pack * size)), memory.get()});
  });
}

#else

template <class F>
struct EachRecord {
  F f;
  HEPOPS_HD void operator()(int64_t i) const { f(OneRecord{i}); }
};

template <class F>
void for_each_record(const core::Tensor& on, int64_t n, const F& f, int /*scratch*/ = 0) {
  core::for_each(on, n, EachRecord<F>{f});
}

#endif

// A matrix is a record of 2 N^2 numbers.
template <int N, class At, class S>
HEPOPS_HD core::Matrix<typename At::Number, N> load_matrix(const At& at, const S* from) {
  typename At::Number x[2 * N * N];
  at.load(from, 2 * N * N, x);
  core::Matrix<typename At::Number, N> A;
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) A(i, j) = {x[2 * (N * i + j)], x[2 * (N * i + j) + 1]};
  return A;
}

template <int N, class At, class T, class S>
HEPOPS_HD void store_matrix(const At& at, const core::Matrix<T, N>& A, S* to) {
  T x[2 * N * N];
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) x[2 * (N * i + j)] = A(i, j).real, x[2 * (N * i + j) + 1] = A(i, j).imag;
  at.store(x, 2 * N * N, to);
}

}  // namespace hepops::lattice
