#pragma once
// What the operators on gauge fields share: checks, dispatch on dtype and N, and how they run on a device.
//
// Links are tensors (B, D, L_1, ..., L_D, N, N) of complex64 or complex128; N = 2 or 3, D = 2, 3, 4. Storage is S, T is
// computed in. On a CPU they are blocked (blocked.h), a group of configurations at a time; on a GPU a thread takes a
// site or a link (wilson.h).
#include <cmath>
#include <tuple>
#include <vector>

#include "core/check.h"
#include "core/double_double.h"
#include "core/for_each.h"
#include "core/for_each_row.h"
#include "core/huge_pages.h"
#include "lattice/blocked_wilson.h"
#include "lattice/wilson.h"

namespace hepops::lattice {

using core::Tensor, core::ScalarType;

struct Gauge {
  int64_t batch;
  int N, D;
  Lattice lattice;
  int planes() const { return D * (D - 1) / 2; }
  int64_t links() const { return batch * D * lattice.sites; }
};

inline Gauge checked_links(const char* who, const Tensor& U) {
  core::check_type(U.scalar_type() == ScalarType::ComplexFloat || U.scalar_type() == ScalarType::ComplexDouble, who,
                   ": links must be complex64 or complex128, got ", toString(U.scalar_type()));
  const int64_t D = U.dim() - 4;
  core::check_value(D >= 2 && D <= most_dims, who,
                    ": links must have shape (B, D, L_1, ..., L_D, N, N) with D = 2, 3 or 4, got ", core::Shape{U});
  const int64_t N = U.size(-1);
  core::check_value(U.size(1) == D && (N == 2 || N == 3) && U.size(-2) == N, who,
                    ": links must have shape (B, D, L_1, ..., L_D, N, N) with N = 2 or 3, got ", core::Shape{U});
  const Lattice lattice(U.sizes().data() + 2, int(D));
  core::check_value(lattice.sites > 0, who, ": links must have sites, got shape ", core::Shape{U});
  return {U.size(0), int(N), int(D), lattice};
}

inline void check_like(const char* who, const char* name, const Tensor& x, const Tensor& links) {
  core::check_type(x.scalar_type() == links.scalar_type(), who, ": ", name, " must have the dtype of the links, ",
                   toString(links.scalar_type()), ", got ", toString(x.scalar_type()));
  core::check_value(x.sizes().equals(links.sizes()), who, ": ", name, " must have the links' shape ",
                    core::Shape{links}, ", got ", core::Shape{x});
  core::check_value(x.device() == links.device(), who, ": ", name, " must be on the device of the links");
}

inline void check_couplings(const char* who, double beta, double c1) {
  core::check_value(std::isfinite(beta), who, ": beta must be a finite number, got ", beta);
  core::check_value(std::isfinite(c1), who, ": c1 must be a finite number, got ", c1);
}

// Complex tensors as the real numbers they consist of.
template <class S>
const S* reals(const Tensor& x) {
  return static_cast<const S*>(x.const_data_ptr());
}
template <class S>
S* reals_out(const Tensor& x) {
  return static_cast<S*>(x.mutable_data_ptr());
}

// f<S, T, N>(): stored in S, computed in T; complex64 in double where `wide`
template <class F>
void for_links(const Tensor& U, bool wide, const F& f) {
  const auto sized = [&]<class S, class T>() {
    if (U.size(-1) == 2)
      f.template operator()<S, T, 2>();
    else
      f.template operator()<S, T, 3>();
  };
  if (U.scalar_type() == ScalarType::ComplexDouble) return sized.template operator()<double, double>();
  if (wide) return sized.template operator()<float, double>();
  sized.template operator()<float, float>();
}

#ifndef __CUDACC__

inline void advise_huge_pages(void* memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t(2) << 20;
  const uintptr_t from = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (from + page - 1) / page * page, last = (from + bytes) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// Memory that a thread keeps from call to call where it is not too much: fresh pages would cost as much as packing.
constexpr int64_t kept_bytes = int64_t(64) << 20;

template <class T>
T* kept_memory(int64_t size) {
  static thread_local core::Buffer<std::byte> memory;
  static thread_local int64_t held = 0;
  const int64_t bytes = (size * int64_t(sizeof(T)) + (2 << 20) - 1) / (2 << 20) * (2 << 20);
  if (bytes <= held) return reinterpret_cast<T*>(memory.get());
  std::byte* const fresh = memory.reserve(bytes);
  held = bytes;
  advise_huge_pages(fresh, bytes);
  return reinterpret_cast<T*>(fresh);
}

// f(group, scratch of `numbers` for each block) for every group of configurations, with memory that is used again; what
// f runs in parallel is so where the groups are not.
template <class T, class F>
void for_groups(const Fold<T>& fold, int64_t batch, int64_t numbers, const F& f) {
  const int64_t groups = fold.groups(batch), size = fold.blocks.sites * numbers;
  const auto range = [&](int64_t first, int64_t last) {
    const bool keep = size * int64_t(sizeof(T)) <= kept_bytes;
    core::Buffer<T> fresh;
    T* scratch = keep ? kept_memory<T>(size) : fresh.reserve(size);
    if (!keep) advise_huge_pages(scratch, size * sizeof(T));
    for (int64_t group = first; group < last; ++group) f(group, scratch);
  };
  if (groups >= 8 || fold.blocks.sites <= 2 * grain)
    core::Threads{}(groups, 1, range);
  else
    range(0, groups);
}

#else

// Sums over the sites of every configuration, of f(config, site) in A (double or DoubleDouble): a block of threads
// takes a chunk of sites, another kernel a configuration's chunks; one order.
template <class A, class F>
struct SumSites {
  F f;
  int64_t sites, chunks;
  double *high, *low;

  static constexpr int64_t chunk = 2048;
  HEPOPS_HD void operator()(int64_t row, const core::Team& team) const {
    A* sums = reinterpret_cast<A*>(team.memory);
    const int64_t config = row / chunks, first = row % chunks * chunk;
    const int64_t last = first + chunk < sites ? first + chunk : sites;
    A sum(0.0);
    for (int64_t site = first + team.rank; site < last; site += team.size) sum = sum + double(f(config, site));
    sums[team.rank] = sum;
    team.sync();
    if (team.rank > 0) return;
    for (int r = 1; r < team.size; ++r) sum = sum + sums[r];
    put(row, sum);
  }
  HEPOPS_HD void put(int64_t row, double sum) const { high[row] = sum; }
  HEPOPS_HD void put(int64_t row, const core::DoubleDouble& sum) const { high[row] = sum.high, low[row] = sum.low; }
};

template <class A>
struct SumChunks {
  const double *high, *low;
  int64_t chunks;
  double scale, *total;

  HEPOPS_HD void operator()(int64_t config) const {
    A sum(0.0);
    for (int64_t c = config * chunks; c < (config + 1) * chunks; ++c) sum = sum + at(c);
    total[config] = scale * double(sum);
  }
  HEPOPS_HD A at(int64_t c) const {
    if constexpr (std::is_same_v<A, double>)
      return high[c];
    else
      return A(high[c], low[c]);
  }
};

template <class A, class F>
void sum_sites(const Tensor& on, int64_t batch, int64_t sites, double scale, const F& f, double* total) {
  constexpr int threads = 128;
  const int64_t chunks = (sites + SumSites<A, F>::chunk - 1) / SumSites<A, F>::chunk;
  const Tensor parts = torch::stable::new_empty(on, {2, batch * chunks}, ScalarType::Double);
  double *high = core::out<double>(parts), *low = high + batch * chunks;
  core::for_each_row(on, batch * chunks, threads * sizeof(A), SumSites<A, F>{f, sites, chunks, high, low}, threads);
  core::for_each(on, batch, SumChunks<A>{high, low, chunks, scale, total});
}

#endif

}  // namespace hepops::lattice
