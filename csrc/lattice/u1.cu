#include "lattice/u1.h"

#include <tuple>

#include "lattice/stencil_run.h"

namespace hepops::lattice {
namespace {

constexpr int planes_of(int dims) { return dims * (dims - 1) / 2; }

// Calls f(mu, nu, number of the plane) for every plane.
template <int D, class F>
HEPOPS_HD void for_planes(const F& f) {
  HEPOPS_DIRECTIONS
  for (int mu = 0; mu < D; ++mu) {
    HEPOPS_DIRECTIONS
    for (int nu = mu + 1; nu < D; ++nu) f(mu, nu, plane(mu, nu, D));
  }
}

// S: - beta cos P of the planes at x
template <class R, class S>
struct Density {
  R beta;
  int dims;
  int64_t sites;
  const S* theta;

  HEPOPS_HD void to(int64_t config, int64_t) { theta += config * dims * sites; }
  template <class At>
  HEPOPS_HD typename At::Number operator()(const At& at) const {
    typename At::Number sum(0);
    for_planes<At::dims>([&](int mu, int nu, int) { sum = sum + cosine(plaquette(at, theta, sites, mu, nu)); });
    return -beta * sum;
  }
};

template <class R, class S, class T>
struct PutDensity {
  Density<R, S> law;
  T* density;

  HEPOPS_HD void to(int64_t config, int64_t sites) { law.to(config, sites), density += config * sites; }
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    at.put(density, law(at));
  }
};

enum class Planes { angle, sine, sine_and_density, curvature, third };

// What stands at each plane: P, beta sin P, beta cos P P[v], - beta sin P P[v] P[g]
template <class R, class S, class T, Planes what>
struct PutPlanes {
  R beta;
  int64_t sites;
  const S *theta, *v, *g;
  T* planes;
  int64_t first = 0;  // the configuration; how far it lies follows from the dimensions, which `at` knows

  HEPOPS_HD void to(int64_t config, int64_t) { first = config; }
  template <class At>
  HEPOPS_HD auto operator()(const At& at) const {
    constexpr int D = At::dims;
    const S *links = theta + first * D * sites, *direction = v + first * D * sites, *other = g + first * D * sites;
    T* to = planes + first * planes_of(D) * sites;
    typename At::Number sum(0);
    for_planes<D>([&](int mu, int nu, int k) {
      const auto P = plaquette(at, links, sites, mu, nu);
      const auto of = [&](const S* f) { return plaquette(at, f, sites, mu, nu); };
      if constexpr (what == Planes::angle) at.put(to + k * sites, P);
      if constexpr (what == Planes::sine || what == Planes::sine_and_density) at.put(to + k * sites, beta * sine(P));
      if constexpr (what == Planes::sine_and_density) sum = sum + cosine(P);
      if constexpr (what == Planes::curvature) at.put(to + k * sites, beta * cosine(P) * of(direction));
      if constexpr (what == Planes::third) at.put(to + k * sites, -beta * sine(P) * of(direction) * of(other));
    });
    if constexpr (what == Planes::sine_and_density) return -beta * sum;
  }
};

// links = the transposed map of planes
template <class S, class T>
struct Gather {
  int64_t sites;
  const S* planes;
  T* links;
  int64_t config = 0;

  HEPOPS_HD void to(int64_t first, int64_t) { config = first; }
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    constexpr int D = At::dims;
    const S* from = planes + config * planes_of(D) * sites;
    T* to = links + config * D * sites;
    HEPOPS_DIRECTIONS
    for (int mu = 0; mu < D; ++mu) at.put(to + mu * sites, around_link(at, from, sites, mu));
  }
};

enum class Wanted { action, density, force, both, hessian, third, angles, gather };

template <class R, Wanted wanted>
struct Program {
  R beta;
  int dims;
  int64_t sites;
  Components inputs, outputs, mids{};

  Program(double beta, const Lattice& lattice) : beta(R(beta)), dims(lattice.dims), sites(lattice.sites) {
    const int planes = planes_of(dims);
    inputs = {1, {wanted == Wanted::gather ? planes : dims}};
    if (wanted == Wanted::hessian) inputs = {2, {dims, dims}};
    if (wanted == Wanted::third) inputs = {3, {dims, dims, dims}};
    if (wanted != Wanted::action)
      outputs = {1, {wanted == Wanted::density ? 1 : wanted == Wanted::angles ? planes : dims}};
    if (wanted == Wanted::force || wanted == Wanted::both || wanted == Wanted::hessian || wanted == Wanted::third)
      mids = {1, {planes}};
  }

  template <class Run, class S, class M, class T>
  void operator()(const Run& run, const S* const* in, M* const* mid, T* const* out) const {
    const Density<R, S> density{beta, dims, sites, in[0]};
    if constexpr (wanted == Wanted::action) run.sum(density);
    if constexpr (wanted == Wanted::density) run(PutDensity<R, S, T>{density, out[0]});
    if constexpr (wanted == Wanted::angles)
      run(PutPlanes<R, S, T, Planes::angle>{beta, sites, in[0], in[0], in[0], out[0]});
    if constexpr (wanted == Wanted::force)
      run(PutPlanes<R, S, M, Planes::sine>{beta, sites, in[0], in[0], in[0], mid[0]});
    if constexpr (wanted == Wanted::both)
      run.sum(PutPlanes<R, S, M, Planes::sine_and_density>{beta, sites, in[0], in[0], in[0], mid[0]});
    if constexpr (wanted == Wanted::hessian)
      run(PutPlanes<R, S, M, Planes::curvature>{beta, sites, in[0], in[1], in[1], mid[0]});
    if constexpr (wanted == Wanted::third)
      run(PutPlanes<R, S, M, Planes::third>{beta, sites, in[0], in[1], in[2], mid[0]});
    if constexpr (wanted == Wanted::gather)
      run(Gather<S, T>{sites, in[0], out[0]});
    else if constexpr (wanted != Wanted::action && wanted != Wanted::density && wanted != Wanted::angles)
      run(Gather<M, T>{sites, mid[0], out[0]});
  }
};

Grid checked_grid(const char* name, const Tensor& x, bool planes) {
  core::check_floating(name, x);
  const Grid grid = grid_of(name, x, true);
  const int D = grid.lattice.dims, wanted = planes ? planes_of(D) : D;
  core::check_value(D >= 2 && x.size(1) == wanted, name, " must have shape (B, ", wanted,
                    ", L_1 ... L_D) with D = 2, 3, 4, got ", core::Shape{x});
  return grid;
}

template <Wanted wanted>
void compute(const Grid& grid, std::initializer_list<const Tensor*> inputs, Tensor* result, Tensor* sums, double beta,
             bool wide, bool accurate = false) {
  const Tensor& on = **inputs.begin();
  Tensor dense[most_arrays];
  int count = 0;
  for (const Tensor* x : inputs) dense[count++] = core::contiguous(*x);
  for_precision("theta", on, wide, [&]<class S, class R>() {
    Call<S, R> call{on, grid};
    for (int a = 0; a < count; ++a) call.in[a] = in<S>(dense[a]);
    if (result) call.out[0] = out<S>(*result);
    if (sums) call.sums = out<double>(*sums);
    call.accurate = accurate;
    run(call, Program<R, wanted>(beta, grid.lattice));
  });
}

// A new array with other components than x has.
Tensor with_components(const Tensor& x, int64_t components) {
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  if (components > 0)
    sizes[1] = components;
  else
    sizes.erase(sizes.begin() + 1);
  return torch::stable::new_empty(x, sizes);
}

Tensor action(const Tensor& theta, double beta, bool wide, bool accurate) {
  const Grid grid = checked_grid("theta", theta, false);
  Tensor sums = new_sums(theta);
  compute<Wanted::action>(grid, {&theta}, nullptr, &sums, beta, wide, accurate);
  return sums;
}

Tensor density(const Tensor& theta, double beta) {
  const Grid grid = checked_grid("theta", theta, false);
  Tensor result = with_components(theta, 0);
  compute<Wanted::density>(grid, {&theta}, &result, nullptr, beta, false);
  return result;
}

Tensor force(const Tensor& theta, double beta, bool wide) {
  const Grid grid = checked_grid("theta", theta, false);
  Tensor result = new_field(theta);
  compute<Wanted::force>(grid, {&theta}, &result, nullptr, beta, wide);
  return result;
}

std::tuple<Tensor, Tensor> action_and_force(const Tensor& theta, double beta, bool wide, bool accurate) {
  const Grid grid = checked_grid("theta", theta, false);
  Tensor sums = new_sums(theta), result = new_field(theta);
  compute<Wanted::both>(grid, {&theta}, &result, &sums, beta, wide, accurate);
  return {sums, result};
}

Tensor hessian(const Tensor& theta, const Tensor& v, double beta, bool wide) {
  const Grid grid = checked_grid("theta", theta, false);
  core::check_same_shape("v", v, theta);
  Tensor result = new_field(theta);
  compute<Wanted::hessian>(grid, {&theta, &v}, &result, nullptr, beta, wide);
  return result;
}

Tensor third(const Tensor& theta, const Tensor& v, const Tensor& w, double beta, bool wide) {
  const Grid grid = checked_grid("theta", theta, false);
  core::check_same_shape("v", v, theta);
  core::check_same_shape("w", w, theta);
  Tensor result = new_field(theta);
  compute<Wanted::third>(grid, {&theta, &v, &w}, &result, nullptr, beta, wide);
  return result;
}

Tensor angles(const Tensor& theta) {
  const Grid grid = checked_grid("theta", theta, false);
  Tensor result = core::in_huge_pages(with_components(theta, planes_of(grid.lattice.dims)));
  compute<Wanted::angles>(grid, {&theta}, &result, nullptr, 0, false);
  return result;
}

Tensor gather(const Tensor& planes) {
  const Grid grid = checked_grid("planes", planes, true);
  Tensor result = core::in_huge_pages(with_components(planes, grid.lattice.dims));
  compute<Wanted::gather>(grid, {&planes}, &result, nullptr, 0, false);
  return result;
}

const core::Operators operators{
    core::op<action>("_lattice_u1_action(Tensor theta, float beta, bool wide, bool accurate) -> Tensor"),
    core::op<density>("_lattice_u1_density(Tensor theta, float beta) -> Tensor"),
    core::op<force>("_lattice_u1_force(Tensor theta, float beta, bool wide) -> Tensor"),
    core::op<action_and_force>("_lattice_u1_action_and_force(Tensor theta, float beta, bool wide, bool accurate) -> "
                               "(Tensor, Tensor)"),
    core::op<hessian>("_lattice_u1_hessian(Tensor theta, Tensor v, float beta, bool wide) -> Tensor"),
    core::op<third>("_lattice_u1_third(Tensor theta, Tensor v, Tensor w, float beta, bool wide) -> Tensor"),
    core::op<angles>("_lattice_u1_angles(Tensor theta) -> Tensor"),
    core::op<gather>("_lattice_u1_angles_backward(Tensor planes) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lattice
