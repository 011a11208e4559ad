#include "lattice/paths.h"

#include "core/check.h"
#include "core/for_each.h"
#include "core/huge_pages.h"
#include "core/op.h"

namespace hepops::lattice {
namespace {

using core::check_value, core::ScalarType, core::Tensor;

// f.run<kind>(b, o, site) for every configuration, output and group of sites
template <class F, int kind>
struct EachSite {
  F f;
  int64_t outputs, groups;

  HEPOPS_HD void operator()(int64_t i) const {
    f.template run<kind>(i / groups / outputs, i / groups % outputs, i % groups * lanes);
  }
};

template <int kind, class F>
void for_sites(const Tensor& on, int64_t batch, int64_t outputs, int64_t sites, const F& f) {
  const int64_t groups = (sites + lanes - 1) / lanes, n = batch * outputs * groups;
  const EachSite<F, kind> each{f, outputs, groups};
#ifdef __CUDACC__
  core::for_each(on, n, each);
#else
  (void)on;
  core::Threads{}(n, 64, [&](int64_t first, int64_t last) {
    const EachSite<F, kind> local = each;
    for (int64_t i = first; i < last; ++i) local(i);
  });
#endif
}

// The program is made by hepops/lattice/observables/paths.py; the host reads it over before it trusts it.
void check_program(const Tensor& program, const Lattice& lattice, int64_t fields, int64_t outputs) {
  core::check_int64("lattice_paths: program", program);
  if (!program.is_cpu()) return;
  const Program p{core::in<int64_t>(program)};
  bool good = program.numel() >= 4 && p.outputs() == outputs && p.fields() == fields && p.size() == program.numel();
  for (int64_t s = 0; good && s < p.steps(); ++s) {
    good = p.step(s)[0] >= 0 && p.step(s)[0] < fields;
    for (int mu = 0; mu < lattice.dims; ++mu)
      good = good && p.step(s)[2 + mu] >= 0 && p.step(s)[2 + mu] < lattice.extent[mu];
  }
  for (int64_t q = 0; good && q < p.paths(); ++q) good = p.steps_of()[q] < p.steps_of()[q + 1];
  check_value(good, "lattice_paths: the program is not one of this field's");
}

// Calls f<S, N>(): S the real type of a complex field of N x N matrices.
template <class F>
void for_matrices(const Tensor& U, const F& f) {
  const ScalarType kind = U.scalar_type();
  core::check_type(kind == ScalarType::ComplexFloat || kind == ScalarType::ComplexDouble,
                   "lattice_paths: U must be complex64 or complex128, for float32 or float64, got ", toString(kind));
  const bool single = kind == ScalarType::ComplexFloat, two = U.size(-1) == 2;
  if (two)
    single ? f.template operator()<float, 2>() : f.template operator()<double, 2>();
  else
    single ? f.template operator()<float, 3>() : f.template operator()<double, 3>();
}

Lattice checked_lattice(const Tensor& U) {
  const int64_t dims = U.dim() - 4, N = U.dim() > 0 ? U.size(-1) : 0;
  check_value(dims >= 1 && dims <= most_dims && (N == 2 || N == 3) && U.size(-2) == N,
              "lattice_paths: U must have shape (B, fields, L_1, ..., L_D, N, N), D = 1 ... 4, N = 2 or 3, got ",
              core::Shape{U});
  return Lattice(U.sizes().slice(2, dims), int(dims));
}

template <class S, int N>
PathProducts<S, N> products(const Tensor& U, const Tensor& program, const Lattice& lattice, double scale) {
  return {{core::in<int64_t>(program)},
          {static_cast<const S*>(U.const_data_ptr()), U.size(1), lattice.sites},
          {nullptr, 0, lattice.sites},
          nullptr,
          lattice,
          scale};
}

Tensor paths(const Tensor& U, const Tensor& row, int64_t outputs, int64_t kind, double scale) {
  const Lattice lattice = checked_lattice(U);
  const Tensor program = core::contiguous(row);
  check_program(program, lattice, U.size(1), outputs);
  std::vector<int64_t> shape(U.sizes().begin(), U.sizes().end());
  shape[1] = outputs;
  if (kind == traces) shape.resize(shape.size() - 2);
  const Tensor result = core::in_huge_pages(
      torch::stable::new_empty(U, shape, kind == traces ? ScalarType::ComplexDouble : U.scalar_type()));
  for_matrices(U, [&]<class S, int N>() {
    if (result.numel() == 0) return;
    const Tensor field = core::contiguous(U);
    auto f = products<S, N>(field, program, lattice, scale);
    f.result = {static_cast<S*>(result.mutable_data_ptr()), outputs, lattice.sites};
    f.trace_of = static_cast<double*>(result.mutable_data_ptr());
    const auto run = [&]<int k>() { for_sites<k>(U, U.size(0), outputs, lattice.sites, f); };
    if (kind == traces) run.template operator()<traces>();
    if (kind == antihermitian) run.template operator()<antihermitian>();
    if (kind == matrices) run.template operator()<matrices>();
  });
  return result;
}

Tensor paths_backward(const Tensor& grad, const Tensor& U, const Tensor& row, int64_t outputs, int64_t kind,
                      double scale) {
  const Lattice lattice = checked_lattice(U);
  const Tensor program = core::contiguous(row);
  check_program(program, lattice, U.size(1), outputs);
  const Tensor result = core::in_huge_pages(core::empty_like(U)), g = core::contiguous(grad);
  for_matrices(U, [&]<class S, int N>() {
    if (result.numel() == 0) return;
    const Tensor field = core::contiguous(U);
    const PathProductsBackward<S, N> f{products<S, N>(field, program, lattice, scale),
                                       {static_cast<const S*>(g.const_data_ptr()), outputs, lattice.sites},
                                       static_cast<const double*>(g.const_data_ptr()),
                                       {static_cast<S*>(result.mutable_data_ptr()), U.size(1), lattice.sites}};
    const auto run = [&]<int k>() { for_sites<k>(U, U.size(0), U.size(1), lattice.sites, f); };
    if (kind == traces) run.template operator()<traces>();
    if (kind == antihermitian) run.template operator()<antihermitian>();
    if (kind == matrices) run.template operator()<matrices>();
  });
  return result;
}

const core::Operators operators{
    core::op<paths>("_lattice_paths(Tensor U, Tensor program, int outputs, int kind, float scale) -> Tensor"),
    core::op<paths_backward>("_lattice_paths_backward(Tensor grad, Tensor U, Tensor program, int outputs, int kind, "
                             "float scale) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lattice
