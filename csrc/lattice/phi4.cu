#include "lattice/phi4.h"

#include <tuple>

#include "lattice/stencil_run.h"

namespace hepops::lattice {
namespace {

template <class R, class S>
struct Density {
  Phi4<R> law;
  const S* phi;

  HEPOPS_HD void to(int64_t config, int64_t sites) { phi += config * sites; }
  template <class At>
  HEPOPS_HD typename At::Number operator()(const At& at) const {
    return law.density(at.here(phi), sum_ahead(at, phi));
  }
};

template <class R, class S, class T>
struct PutDensity {
  Phi4<R> law;
  const S* phi;
  T* density;

  HEPOPS_HD void to(int64_t config, int64_t sites) { phi += config * sites, density += config * sites; }
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    at.put(density, law.density(at.here(phi), sum_ahead(at, phi)));
  }
};

// Stores the force; a summing run takes the density beside it.
template <class R, class S, class T, bool both>
struct Force {
  Phi4<R> law;
  const S* phi;
  T* force;

  HEPOPS_HD void to(int64_t config, int64_t sites) { phi += config * sites, force += config * sites; }
  template <class At>
  HEPOPS_HD auto operator()(const At& at) const {
    const auto here = at.here(phi), ahead = sum_ahead(at, phi);
    at.put(force, law.force(here, ahead + sum_behind(at, phi)));
    if constexpr (both) return law.density(here, ahead);
  }
};

template <class R, class S, class T>
struct Hessian {
  Phi4<R> law;
  const S *phi, *v;
  T* product;

  HEPOPS_HD void to(int64_t config, int64_t sites) {
    phi += config * sites, v += config * sites, product += config * sites;
  }
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    at.put(product, law.hessian(at.here(phi), at.here(v), sum_ahead(at, v) + sum_behind(at, v)));
  }
};

enum class Wanted { action, density, force, both, hessian };

template <class R, Wanted wanted>
struct Program {
  Phi4<R> law;
  Components inputs, outputs, mids{};

  explicit Program(const Phi4<R>& law) : law(law) {
    inputs = wanted == Wanted::hessian ? Components{2, {1, 1}} : Components{1, {1}};
    if (wanted != Wanted::action) outputs = {1, {1}};
  }

  template <class Run, class S, class M, class T>
  void operator()(const Run& run, const S* const* in, M* const*, T* const* out) const {
    if constexpr (wanted == Wanted::action) run.sum(Density<R, S>{law, in[0]});
    if constexpr (wanted == Wanted::density) run(PutDensity<R, S, T>{law, in[0], out[0]});
    if constexpr (wanted == Wanted::force) run(Force<R, S, T, false>{law, in[0], out[0]});
    if constexpr (wanted == Wanted::both) run.sum(Force<R, S, T, true>{law, in[0], out[0]});
    if constexpr (wanted == Wanted::hessian) run(Hessian<R, S, T>{law, in[0], in[1], out[0]});
  }
};

struct Options {
  double hop, square, quartic;
  bool wide, accurate;
};

template <Wanted wanted>
void compute(const Tensor& phi, const Tensor* v, Tensor* result, Tensor* sums, const Options& o) {
  const Grid grid = grid_of("phi", phi, false);
  const Tensor dense = core::contiguous(phi), dense_v = v ? core::contiguous(*v) : dense;
  for_precision("phi", phi, o.wide, [&]<class S, class R>() {
    Call<S, R> call{phi, grid};
    call.in[0] = in<S>(dense), call.in[1] = in<S>(dense_v);
    if (result) call.out[0] = out<S>(*result);
    if (sums) call.sums = out<double>(*sums);
    call.accurate = o.accurate;
    run(call, Program<R, wanted>(Phi4<R>(o.hop, o.square, o.quartic)));
  });
}

Tensor action(const Tensor& phi, double hop, double square, double quartic, bool wide, bool accurate) {
  core::check_floating("phi", phi);
  Tensor sums = new_sums(phi);
  compute<Wanted::action>(phi, nullptr, nullptr, &sums, {hop, square, quartic, wide, accurate});
  return sums;
}

Tensor density(const Tensor& phi, double hop, double square, double quartic) {
  core::check_floating("phi", phi);
  Tensor result = new_field(phi);
  compute<Wanted::density>(phi, nullptr, &result, nullptr, {hop, square, quartic, false, false});
  return result;
}

Tensor force(const Tensor& phi, double hop, double square, double quartic, bool wide) {
  core::check_floating("phi", phi);
  Tensor result = new_field(phi);
  compute<Wanted::force>(phi, nullptr, &result, nullptr, {hop, square, quartic, wide, false});
  return result;
}

std::tuple<Tensor, Tensor> action_and_force(const Tensor& phi, double hop, double square, double quartic, bool wide,
                                            bool accurate) {
  core::check_floating("phi", phi);
  Tensor sums = new_sums(phi), result = new_field(phi);
  compute<Wanted::both>(phi, nullptr, &result, &sums, {hop, square, quartic, wide, accurate});
  return {sums, result};
}

Tensor hessian(const Tensor& phi, const Tensor& v, double hop, double square, double quartic, bool wide) {
  core::check_floating("phi", phi);
  core::check_same_shape("v", v, phi);
  Tensor result = new_field(phi);
  compute<Wanted::hessian>(phi, &v, &result, nullptr, {hop, square, quartic, wide, false});
  return result;
}

const core::Operators operators{
    core::op<action>("_lattice_phi4_action(Tensor phi, float hop, float square, float quartic, bool wide, "
                     "bool accurate) -> Tensor"),
    core::op<density>("_lattice_phi4_density(Tensor phi, float hop, float square, float quartic) -> Tensor"),
    core::op<force>("_lattice_phi4_force(Tensor phi, float hop, float square, float quartic, bool wide) -> Tensor"),
    core::op<action_and_force>("_lattice_phi4_action_and_force(Tensor phi, float hop, float square, float quartic, "
                               "bool wide, bool accurate) -> (Tensor, Tensor)"),
    core::op<hessian>("_lattice_phi4_hessian(Tensor phi, Tensor v, float hop, float square, float quartic, bool wide) "
                      "-> Tensor"),
};

}  // namespace
}  // namespace hepops::lattice
