#pragma once
// Programs of bodies (stencil.h) over tensors. A program is a struct with
//
//   inputs, outputs, mids          components of each array (a phi^4 field: 1; links of U(1): D), most_arrays at most
//   program(run, in, mid, out)     calls run(body) and run.sum(body) one after the other; mid is scratch
//
// On a CPU a small or narrow lattice is taken a pack of configurations at a time, through the whole program in the
// cache; a larger one in the memory where it lies, body after body. On a GPU each body is a kernel.
#include "core/check.h"
#include "core/for_each.h"
#include "core/for_each_row.h"
#include "core/huge_pages.h"
#include "core/op.h"
#include "lattice/stencil.h"

namespace hepops::lattice {

using core::in, core::out, core::ScalarType, core::Tensor;

constexpr int most_arrays = 3;

struct Components {
  int count = 0, of[most_arrays] = {};
  int total() const {
    int sum = 0;
    for (int a = 0; a < count; ++a) sum += of[a];
    return sum;
  }
};

// Inputs and outputs are stored in S, computed in R.
template <class S, class R>
struct Call {
  const Tensor& on;
  Grid grid;
  const S* in[most_arrays] = {};
  S* out[most_arrays] = {};
  double* sums = nullptr;
  bool accurate = false;
};

#ifdef __CUDACC__

template <class Body, class R, int D>
struct BodyAt {
  Body body;
  Lattice lattice;

  HEPOPS_HD void operator()(int64_t i) const {
    Body local = body;
    local.to(i / lattice.sites, lattice.sites);
    local(site_at<R, D>(lattice, i % lattice.sites));
  }
};

// The sum of a segment of a configuration, by a block of threads: each from its first site to its last, then in order.
template <class Body, class R, int D>
struct SumSegment {
  Body body;
  Lattice lattice;
  int64_t segments;
  DoubleDouble* partial;

  HEPOPS_HD void operator()(int64_t task, const core::Team& team) const {
    DoubleDouble* sums = reinterpret_cast<DoubleDouble*>(team.memory);
    Body local = body;
    local.to(task / segments, lattice.sites);
    const int64_t first = task % segments * segment_sites, end = first + segment_sites;
    DoubleDouble sum;
    for (int64_t i = first + team.rank; i < end && i < lattice.sites; i += team.size)
      sum = sum + double(local(site_at<R, D>(lattice, i)));
    sums[team.rank] = sum;
    team.sync();
    if (team.rank > 0) return;
    for (int t = 1; t < team.size; ++t) sum = sum + sums[t];
    partial[task] = sum;
  }
};

struct AddSegments {
  const DoubleDouble* partial;
  int64_t segments;
  double* sums;

  HEPOPS_HD void operator()(int64_t config) const {
    DoubleDouble sum = partial[config * segments];
    for (int64_t s = 1; s < segments; ++s) sum = sum + partial[config * segments + s];
    sums[config] = sum.high;
  }
};

// Sums are double-double on a GPU, asked or not: the kernels wait for memory.
template <class R, int D>
struct DeviceRun {
  const Tensor& on;
  const Grid& grid;
  double* sums;

  template <class Body>
  void operator()(const Body& body) const {
    core::for_each(on, grid.batch * grid.lattice.sites, BodyAt<Body, R, D>{body, grid.lattice});
  }
  template <class Body>
  void sum(const Body& body) const {
    constexpr int threads = 128;
    const int64_t segments = (grid.lattice.sites + segment_sites - 1) / segment_sites;
    const Tensor memory = torch::stable::new_empty(on, {2 * grid.batch * segments}, ScalarType::Double);
    auto* partial = reinterpret_cast<DoubleDouble*>(memory.mutable_data_ptr<double>());
    core::for_each_row(on, grid.batch * segments, threads * sizeof(DoubleDouble),
                       SumSegment<Body, R, D>{body, grid.lattice, segments, partial}, threads);
    core::for_each(on, grid.batch, AddSegments{partial, segments, sums});
  }
};

template <int D, class S, class R, class Program>
void run_in(const Call<S, R>& call, const Program& program) {
  Tensor memory[most_arrays];
  R* mid[most_arrays] = {};
  for (int a = 0; a < program.mids.count; ++a) {
    const int64_t numbers = call.grid.batch * call.grid.lattice.sites * program.mids.of[a];
    memory[a] = torch::stable::new_empty(call.on, {numbers * int64_t(sizeof(R))}, ScalarType::Byte);
    mid[a] = static_cast<R*>(memory[a].mutable_data_ptr());
  }
  program(DeviceRun<R, D>{call.on, call.grid, call.sums}, call.in, mid, call.out);
}

#else

// Whether configurations are taken a pack at a time.
template <class R>
bool in_lanes(const Lattice& lattice) {
  constexpr int size = core::PackedOf<R>::size;
  const int64_t length = lattice.extent[lattice.dims - 1];
  return lattice.sites <= 256 || (lattice.sites <= 4096 && length % size != 0);
}

template <int D, class S, class R, class Program>
void run_lanes(const Call<S, R>& call, const Program& program) {
  using P = core::PackedOf<R>;
  const int64_t sites = call.grid.lattice.sites, groups = (call.grid.batch + P::size - 1) / P::size;
  const int packs = program.inputs.total() + program.mids.total() + program.outputs.total();
  core::Threads{}(groups, 1 + 8192 / (sites * P::size), [&](int64_t begin, int64_t end) {
    const core::Buffer<P> scratch(packs * sites);
    P *next = scratch.get(), *ins[most_arrays] = {}, *mid[most_arrays] = {}, *outs[most_arrays] = {};
    const auto lay = [&](const Components& components, P** arrays) {
      for (int a = 0; a < components.count; next += components.of[a++] * sites) arrays[a] = next;
    };
    lay(program.inputs, ins), lay(program.mids, mid), lay(program.outputs, outs);
    const P* const* from = ins;
    for (int64_t group = begin; group < end; ++group) {
      const int64_t config = group * P::size;
      const int count = int(std::min<int64_t>(P::size, call.grid.batch - config));
      for (int a = 0; a < program.inputs.count; ++a) {
        const int64_t numbers = program.inputs.of[a] * sites;
        gather_lanes(call.in[a] + config * numbers, numbers, count, ins[a]);
      }
      program(LanesRun<R, D>{call.grid.lattice, call.sums + config, count, call.accurate}, from, mid, outs);
      for (int a = 0; a < program.outputs.count; ++a) {
        const int64_t numbers = program.outputs.of[a] * sites;
        scatter_lanes(outs[a], numbers, count, call.out[a] + config * numbers);
      }
    }
  });
}

template <int D, class S, class R, class Program, class Parallel>
void run_rows(const Call<S, R>& call, const Program& program, int64_t first, int64_t last, const Parallel& parallel) {
  const Grid grid{call.grid.lattice, last - first};
  const int64_t sites = grid.lattice.sites;
  const S* ins[most_arrays] = {};
  S* outs[most_arrays] = {};
  R* mid[most_arrays] = {};
  core::Buffer<R> memory[most_arrays];
  for (int a = 0; a < program.inputs.count; ++a) ins[a] = call.in[a] + first * program.inputs.of[a] * sites;
  for (int a = 0; a < program.outputs.count; ++a) outs[a] = call.out[a] + first * program.outputs.of[a] * sites;
  for (int a = 0; a < program.mids.count; ++a) mid[a] = memory[a].reserve(grid.batch * program.mids.of[a] * sites);
  const S* const* from = ins;
  program(RowsRun<R, D, Parallel>{grid, parallel, call.sums + first, call.accurate}, from, mid, outs);
}

template <int D, class S, class R, class Program>
void run_in(const Call<S, R>& call, const Program& program) {
  if (in_lanes<R>(call.grid.lattice)) return run_lanes<D>(call, program);
  constexpr int64_t enough = 8;  // configurations for the threads to share; below, they share segments of rows
  if (call.grid.batch < enough) return run_rows<D>(call, program, 0, call.grid.batch, core::Threads{});
  const int64_t grain = 1 + 8192 / call.grid.lattice.sites;
  core::Threads{}(call.grid.batch, grain, [&](int64_t begin, int64_t end) {
    for (int64_t config = begin; config < end; ++config) run_rows<D>(call, program, config, config + 1, core::Serial{});
  });
}

#endif

template <class S, class R, class Program>
void run(const Call<S, R>& call, const Program& program) {
  if (call.grid.batch == 0) return;
  switch (call.grid.lattice.dims) {
    case 1: return run_in<1>(call, program);
    case 2: return run_in<2>(call, program);
    case 3: return run_in<3>(call, program);
    default: return run_in<4>(call, program);
  }
}

// Calls f<S, R>(): storage and number to compute in; `wide` computes float32 in double.
template <class F>
void for_precision(const char* name, const Tensor& x, bool wide, const F& f) {
  core::for_floating(name, x, [&]<class T>() {
    if (wide)
      f.template operator()<T, double>();
    else
      f.template operator()<T, T>();
  });
}

// A batch of fields of `components` (0: no such dimension) on a lattice: (B, components, L_1 ... L_D).
inline Grid grid_of(const char* name, const Tensor& x, bool components) {
  const int64_t lead = components ? 2 : 1, dims = x.dim() - lead;
  core::check_value(dims >= 1 && dims <= most_dims, name, " must have 1 to 4 lattice dimensions, got shape ",
                    core::Shape{x});
  int64_t extents[most_dims];
  for (int64_t d = 0; d < dims; ++d) {
    extents[d] = x.size(lead + d);
    core::check_value(extents[d] > 0, name, " has an empty lattice, shape ", core::Shape{x});
  }
  return {Lattice(extents, int(dims)), x.size(0)};
}

inline Tensor new_sums(const Tensor& on) { return torch::stable::new_empty(on, {on.size(0)}, ScalarType::Double); }
inline Tensor new_field(const Tensor& on) { return core::in_huge_pages(core::empty_like(on)); }

}  // namespace hepops::lattice
