#pragma once
// Records that are asked for while those before them are computed. A pack of a hundred numbers each comes from memory
// in hundreds of cycles, takes thousands to compute, and a core by itself looks ahead for some hundred instructions
// alone; more lines than two dozen at a time it does not ask for either. So a formula that reads a row calls
// row.fetch_ahead() every now and then, and each call asks for a few lines of what the next pack will read.
#include "lattice/records.h"

namespace hepops::lattice {

template <class At>
struct Ahead {
  template <class S>
  HEPOPS_HD void add(const At&, const S*, int) {}
};

// at.row(from, count) of a formula that calls fetch_ahead
template <class S>
HEPOPS_HD OneRow<const S> row_ahead(const OneRecord& at, const S* from, int count, Ahead<OneRecord>&) {
  return at.row(from, count);
}

#ifndef __CUDACC__

template <>
struct Ahead<PackOfRecords> {
  static constexpr int most = 3, line = 64;
  struct Lines {
    const char *next, *end;
  } inputs[most];
  int count = 0;

  // that records of n numbers are read: at most three times
  template <class S>
  [[gnu::always_inline]] void add(const PackOfRecords& at, const S* from, int n) {
    const char* next = reinterpret_cast<const char*>(from + (at.first + at.size) * n);
    inputs[count++] = {
        next, next + at.size * n * int(sizeof(S))};  // behind the last one nothing is read: asking does no harm
  }
  [[gnu::always_inline]] void fetch() {
    for (int k = 0; k < count; ++k)
      if (inputs[k].next < inputs[k].end) {
        __builtin_prefetch(inputs[k].next);
        __builtin_prefetch(inputs[k].next + line);
        inputs[k].next += 2 * line;
      }
  }
};

struct PackedRowAhead : PackedRow {
  Ahead<PackOfRecords>* ahead;
  [[gnu::always_inline]] void fetch_ahead() const { ahead->fetch(); }
};

template <class S>
[[gnu::always_inline]] inline PackedRowAhead row_ahead(const PackOfRecords& at, const S* from, int count,
                                                       Ahead<PackOfRecords>& ahead) {
  return {at.row(from, count), &ahead};
}

#endif

}  // namespace hepops::lattice
