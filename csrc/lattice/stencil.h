#pragma once
// A formula of a site and its nearest neighbours, run over all sites of a batch of periodic lattices.
//
// A body is a struct of pointers with one operator()(at), where `at` gives numbers of the arrays that it points to:
//
//   at.here(f)   at.ahead(f, mu)   at.behind(f, mu)   f at x, x + mu, x - mu     (f: sites numbers, the last dimension
//   at.put(f, value)   at.whole(f)                    store at x; one number for the configuration     fastest)
//
// and body.to(config, sites) moves its pointers to a configuration. What it returns, a summing body's term, is added up
// in double or double-double. at stands for
//
//   one site (Site)                 a GPU's thread; what is left over of a row; and, where numbers are packs, one site
//                                   of as many configurations as a register holds: small or narrow lattices
//   part of a row (Chunk)           a register full of sites; at the ends of a row it is filled by a shuffle
//
// so that no index is computed inside a row. Which of the two a CPU takes follows from the shape alone, and so does the
// order of every sum: bits do not depend on the batch or on the number of threads.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "core/double_double.h"
#include "core/packed.h"
#include "core/simd.h"
#include "lattice/geometry.h"

namespace hepops::lattice {

using core::DoubleDouble;

struct Grid {
  Lattice lattice;
  int64_t batch = 0;
};

template <class N, class S>
HEPOPS_HD N number(const S& x) {
  if constexpr (std::is_same_v<N, S> || std::is_arithmetic_v<N>)
    return N(x);
  else
    return N(double(x));
}

// The sites around one row, the last dimension's: the places of its first site, and of the rows ahead and behind.
template <int D>
struct Row {
  int64_t start, ahead[D], behind[D];  // D - 1 of them are used
  int64_t x[D];

  HEPOPS_HD Row(const Lattice& lattice, int64_t row) : start(row * lattice.extent[D - 1]) {
    for (int mu = D - 2; mu >= 0; --mu) {
      x[mu] = row % lattice.extent[mu];
      row /= lattice.extent[mu];
    }
    place(lattice);
  }

  HEPOPS_HD void next(const Lattice& lattice) {
    constexpr int inner = D > 1 ? D - 2 : 0;  // of the rows
    const int64_t length = lattice.extent[D - 1];
    start += length;
    if (D == 1) return;
    // away from the ends of the innermost dimension all neighbours move alike
    if (++x[inner] > 1 && x[inner] + 1 < lattice.extent[inner]) {
      for (int mu = 0; mu < D - 1; ++mu) ahead[mu] += length, behind[mu] += length;
      return;
    }
    for (int mu = inner; mu >= 0 && x[mu] == lattice.extent[mu]; --mu) {
      x[mu] = 0;
      if (mu > 0) ++x[mu - 1];
    }
    place(lattice);
  }

 private:
  HEPOPS_HD void place(const Lattice& lattice) {
    for (int mu = 0; mu < D - 1; ++mu) {
      const int64_t step = lattice.stride[mu], turn = step * (lattice.extent[mu] - 1);
      ahead[mu] = x[mu] + 1 == lattice.extent[mu] ? start - turn : start + step;
      behind[mu] = x[mu] == 0 ? start + turn : start - step;
    }
  }
};

// One site, a number N at each: N may be a pack of configurations.
template <class N, int D>
struct Site {
  using Number = N;
  static constexpr int dims = D;
  int64_t i, after[D], before[D];

  HEPOPS_HD Site(const Row<D>& row, int64_t x, int64_t length) : i(row.start + x) {
    for (int mu = 0; mu < D - 1; ++mu) {
      after[mu] = row.ahead[mu] + x;
      before[mu] = row.behind[mu] + x;
    }
    after[D - 1] = x + 1 == length ? row.start : i + 1;
    before[D - 1] = x == 0 ? row.start + length - 1 : i - 1;
  }

  template <class S>
  HEPOPS_HD N here(const S* f) const {
    return number<N>(f[i]);
  }
  template <class S>
  HEPOPS_HD N ahead(const S* f, int mu) const {
    return number<N>(f[after[mu]]);
  }
  template <class S>
  HEPOPS_HD N behind(const S* f, int mu) const {
    return number<N>(f[before[mu]]);
  }
  template <class S>
  HEPOPS_HD N whole(const S* f) const {
    return number<N>(*f);
  }
  template <class S>
  HEPOPS_HD void put(S* f, const N& value) const {
    f[i] = S(value);
  }
};

// Site number `site` of a lattice.
template <class N, int D>
HEPOPS_HD Site<N, D> site_at(const Lattice& lattice, int64_t site) {
  const int64_t length = lattice.extent[D - 1];
  return Site<N, D>(Row<D>(lattice, site / length), site % length, length);
}

// Sites are summed in segments of whole rows, about this long: a segment is what a thread takes.
constexpr int64_t segment_sites = 4096;

struct Segments {
  int64_t rows, rows_each, count;
  explicit Segments(const Lattice& lattice) {
    const int64_t length = lattice.extent[lattice.dims - 1];
    rows = lattice.sites / length;
    rows_each = std::max<int64_t>(1, segment_sites / length);
    count = (rows + rows_each - 1) / rows_each;
  }
};

#ifndef __CUDACC__

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // every function here is inlined: nothing is passed

// P::size sites of a row from x on; at its first and last ones neighbours are brought around.
template <class P, int D, bool first, bool last>
struct Chunk {
  using Number = P;
  static constexpr int dims = D;
  const Row<D>& row;
  int64_t x, length;

  template <class S>
  HEPOPS_HD P here(const S* f) const {
    return P::load(f + row.start + x);
  }
  template <class S>
  HEPOPS_HD P ahead(const S* f, int mu) const {
    if (mu < D - 1) return P::load(f + row.ahead[mu] + x);
    if constexpr (last) return turned_ahead(here(f), f[row.start], std::make_integer_sequence<int, P::size>{});
    return P::load(f + row.start + x + 1);
  }
  template <class S>
  HEPOPS_HD P behind(const S* f, int mu) const {
    if (mu < D - 1) return P::load(f + row.behind[mu] + x);
    if constexpr (first)
      return turned_behind(here(f), f[row.start + length - 1], std::make_integer_sequence<int, P::size>{});
    return P::load(f + row.start + x - 1);
  }
  template <class S>
  HEPOPS_HD P whole(const S* f) const {
    return P(double(*f));
  }
  template <class S>
  HEPOPS_HD void put(S* f, const P& value) const {
    value.store(f + row.start + x);
  }

 private:
  template <int... lane>
  HEPOPS_HD static P turned_ahead(P here, double next, std::integer_sequence<int, lane...>) {
    return P(__builtin_shufflevector(here.v, P(next).v, (lane + 1)...));
  }
  template <int... lane>
  HEPOPS_HD static P turned_behind(P here, double previous, std::integer_sequence<int, lane...>) {
    return P(__builtin_shufflevector(P(previous).v, here.v, (P::size - 1 + lane)...));
  }
};

// A pack of sums in double or, where accurate, in double-double (core/double_double.h; two_sum and algorithm 4).
template <bool accurate>
struct PackSum {
  using P = core::PackedOf<double>;
  P high{0.0}, low{0.0};

  HEPOPS_HD void add(P x) {
    if constexpr (accurate) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_assoc_barrier)
      x.v = __builtin_assoc_barrier(x.v);  // a product is not fused with the sum whose error is computed
#endif
#endif
      const P s = high + x, seen = s - high, error = (high - (s - seen)) + (x - seen);
      high = s;
      low += error;
    } else {
      high += x;
    }
  }
  HEPOPS_HD DoubleDouble lane(int i) const { return core::two_sum(high.v[i], low.v[i]); }
};

// The sums of packs of R, lane by lane.
template <class R, bool accurate>
struct PackSums {
  using P = core::PackedOf<R>;
  static constexpr int wide = core::PackedOf<double>::size, parts = P::size / wide;
  PackSum<accurate> part[parts];

  HEPOPS_HD void add(const P& x) {
    if constexpr (parts == 1)
      part[0].add(core::PackedOf<double>(x.v));
    else {
      R numbers[P::size];
      x.store(numbers);
      for (int p = 0; p < parts; ++p) part[p].add(core::PackedOf<double>::load(numbers + p * wide));
    }
  }
  HEPOPS_HD DoubleDouble lane(int i) const { return part[i / wide].lane(i % wide); }
  HEPOPS_HD DoubleDouble total() const {
    DoubleDouble sum = lane(0);
    for (int i = 1; i < P::size; ++i) sum = sum + lane(i);
    return sum;
  }
};

struct NoSum {
  template <class N>
  HEPOPS_HD void add(const N&) {}
};

template <class Body, class At, class Sum>
HEPOPS_HD void visit(const Body& body, const At& at, Sum& sum) {
  if constexpr (std::is_same_v<Sum, NoSum>)
    body(at);
  else
    sum.add(body(at));
}

// Rows first ... last - 1 in chunks of packs; what is left over of a row, site by site.
template <class R, int D, class Body, class Sum, class Rest>
void visit_rows(const Body& body, const Lattice& lattice, int64_t first, int64_t last, Sum& sum, Rest& rest) {
  using P = core::PackedOf<R>;
  const int64_t length = lattice.extent[D - 1], full = length / P::size * P::size;
  Row<D> row(lattice, first);
  for (int64_t r = first; r < last; ++r, row.next(lattice)) {
    if (full == length) {
      const int64_t end = length - P::size;
      if (end == 0) {
        visit(body, Chunk<P, D, true, true>{row, 0, length}, sum);
        continue;
      }
      visit(body, Chunk<P, D, true, false>{row, 0, length}, sum);
      for (int64_t x = P::size; x < end; x += P::size) visit(body, Chunk<P, D, false, false>{row, x, length}, sum);
      visit(body, Chunk<P, D, false, true>{row, end, length}, sum);
      continue;
    }
    if (full > 0) visit(body, Chunk<P, D, true, false>{row, 0, length}, sum);
    for (int64_t x = P::size; x < full; x += P::size) visit(body, Chunk<P, D, false, false>{row, x, length}, sum);
    for (int64_t x = full; x < length; ++x) visit(body, Site<R, D>(row, x, length), rest);
  }
}

struct ScalarSum {
  DoubleDouble sum;
  HEPOPS_HD void add(double x) { sum = sum + x; }
};

// Runs bodies over the whole batch, in the memory where fields lie.
template <class R, int D, class Parallel>
struct RowsRun {
  const Grid& grid;
  Parallel parallel;
  double* sums;
  bool accurate;

  template <class Body>
  void operator()(const Body& body) const {
    const Segments segments(grid.lattice);
    each(segments, [&](int64_t config, int64_t, int64_t first, int64_t last) {
      Body local = body;
      local.to(config, grid.lattice.sites);
      NoSum none;
      visit_rows<R, D>(local, grid.lattice, first, last, none, none);
    });
  }

  template <class Body>
  void sum(const Body& body) const {
    return accurate ? sum_as<true>(body) : sum_as<false>(body);
  }

 private:
  template <bool exact, class Body>
  void sum_as(const Body& body) const {
    const Segments segments(grid.lattice);
    std::vector<DoubleDouble> partial(grid.batch * segments.count);
    each(segments, [&](int64_t config, int64_t segment, int64_t first, int64_t last) {
      Body local = body;
      local.to(config, grid.lattice.sites);
      PackSums<R, exact> packs;
      ScalarSum rest;
      visit_rows<R, D>(local, grid.lattice, first, last, packs, rest);
      partial[config * segments.count + segment] = packs.total() + rest.sum;
    });
    for (int64_t config = 0; config < grid.batch; ++config) {
      DoubleDouble total = partial[config * segments.count];
      for (int64_t s = 1; s < segments.count; ++s) total = total + partial[config * segments.count + s];
      sums[config] = total.high;
    }
  }

  template <class F>
  void each(const Segments& segments, const F& f) const {
    const int64_t sites = std::min(grid.lattice.sites, segment_sites);
    parallel(grid.batch * segments.count, 1 + 8192 / sites, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t segment = task % segments.count, first = segment * segments.rows_each;
        f(task / segments.count, segment, first, std::min(first + segments.rows_each, segments.rows));
      }
    });
  }
};

// Runs bodies over as many configurations as a pack has lanes, in scratch where a pack stands at every site.
template <class R, int D>
struct LanesRun {
  using P = core::PackedOf<R>;
  const Lattice lattice;
  double* sums;
  int count;  // of the lanes, those that hold configurations
  bool accurate;

  template <class Body>
  void operator()(const Body& body) const {
    NoSum none;
    all(body, none);
  }
  template <class Body>
  void sum(const Body& body) const {
    return accurate ? sum_as<true>(body) : sum_as<false>(body);
  }

 private:
  template <bool exact, class Body>
  void sum_as(const Body& body) const {
    PackSums<R, exact> total;
    all(body, total);
    for (int lane = 0; lane < count; ++lane) sums[lane] = total.lane(lane).high;
  }

  template <class Body, class Sum>
  void all(const Body& body, Sum& sum) const {
    const Body local = body;
    const int64_t length = lattice.extent[D - 1], rows = lattice.sites / length;
    Row<D> row(lattice, 0);
    for (int64_t r = 0; r < rows; ++r, row.next(lattice))
      for (int64_t x = 0; x < length; ++x) visit(local, Site<P, D>(row, x, length), sum);
  }
};

// `numbers` numbers of each of `count` configurations, side by side in packs; idle lanes repeat the last configuration.
template <class P, class S>
void gather_lanes(const S* from, int64_t numbers, int count, P* to) {
  const auto of = [&](int lane) { return from + std::min(lane, count - 1) * numbers; };
  int64_t i = 0;
  for (; i + P::size <= numbers; i += P::size)
    core::transpose<P>([&](int lane) { return P::load(of(lane) + i); }, [&](int k, P pack) { to[i + k] = pack; });
  for (; i < numbers; ++i)
    for (int lane = 0; lane < P::size; ++lane) to[i].v[lane] = of(lane)[i];
}

template <class P, class S>
void scatter_lanes(const P* from, int64_t numbers, int count, S* to) {
  int64_t i = 0;
  for (; i + P::size <= numbers; i += P::size)
    core::transpose<P>([&](int k) { return from[i + k]; },
                       [&](int lane, P pack) {
                         if (lane < count) pack.store(to + lane * numbers + i);
                       });
  for (; i < numbers; ++i)
    for (int lane = 0; lane < count; ++lane) to[lane * numbers + i] = S(from[i].v[lane]);
}

#pragma GCC diagnostic pop

#endif

}  // namespace hepops::lattice
