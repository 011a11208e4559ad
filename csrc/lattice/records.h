#pragma once
// n records of some numbers each (matrices, rows of parameters), as torch lays them out, one behind the other; and a
// formula that takes the numbers of a record apart. for_each_record(on, n, f) calls f(at) with an `at` that loads and
// stores a record's numbers:
//
//   T x[18];  at.load(from, x);  at.store(x, to);        T is At::Number
//
// On a CPU T is a core::Packed, as many records side by side as a register has lanes (transposed in registers); on a
// GPU a double, a thread a record. Whatever the numbers are stored in, they are computed in double.
#include <algorithm>

#include "core/for_each.h"
#include "core/matrix.h"
#include "core/packed.h"

namespace hepops::lattice {

struct OneRecord {
  using Number = double;
  int64_t index;

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

struct PackOfRecords {
  using Number = core::Packed;
  static constexpr int size = Number::size;
  int64_t first;
  int valid;  // the last ones may be fewer; then the first of them stands in for the rest

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
void for_each_record(const core::Tensor&, int64_t n, const F& f) {
  constexpr int size = PackOfRecords::size;
  core::Threads{}((n + size - 1) / size, 64, [&](int64_t begin, int64_t end) {
    const F local = f;
    for (int64_t pack = begin; pack < end; ++pack)
      local(PackOfRecords{pack * size, int(std::min<int64_t>(size, n - pack * size))});
  });
}

#else

template <class F>
struct EachRecord {
  F f;
  HEPOPS_HD void operator()(int64_t i) const { f(OneRecord{i}); }
};

template <class F>
void for_each_record(const core::Tensor& on, int64_t n, const F& f) {
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
