// Trajectories of U(1), P -= kick F(theta), theta += drift P in turn (hepops/lattice/stages.py): one pass puts beta sin
// P on the planes, one gathers forces, kicks and drifts. Angles are wrapped to [-pi, pi) at the end. Where a stage has
// a bend, its force is taken at theta - bend F(theta).
#include <tuple>

#include "lattice/stencil_run.h"
#include "lattice/trajectory_plan.h"
#include "lattice/u1.h"

namespace hepops::lattice {
namespace {

constexpr int planes_of(int dims) { return dims * (dims - 1) / 2; }

template <class R, class S, class T>
struct Sines {
  R beta;
  int64_t sites;
  const S* theta;
  T* planes;
  int64_t config = 0;

  HEPOPS_HD void to(int64_t first, int64_t) { config = first; }
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    constexpr int D = At::dims;
    const S* links = theta + config * D * sites;
    T* to = planes + config * planes_of(D) * sites;
    HEPOPS_DIRECTIONS
    for (int mu = 0; mu < D; ++mu) {
      HEPOPS_DIRECTIONS
      for (int nu = mu + 1; nu < D; ++nu)
        at.put(to + plane(mu, nu, D) * sites, beta * sine(plaquette(at, links, sites, mu, nu)));
    }
  }
};

// bent = theta - by F
template <class R, class S, class T>
struct Bend {
  R by;
  int64_t sites;
  const S* theta;
  const T* planes;
  T* bent;
  int64_t config = 0;

  HEPOPS_HD void to(int64_t first, int64_t) { config = first; }
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    constexpr int D = At::dims;
    HEPOPS_DIRECTIONS
    for (int mu = 0; mu < D; ++mu) {
      const int64_t link = (config * D + mu) * sites;
      at.put(bent + link,
             at.here(theta + link) - by * around_link(at, planes + config * planes_of(D) * sites, sites, mu));
    }
  }
};

// x - 2 pi nearest(x / 2 pi)
template <class R, class N>
HEPOPS_HD N wrapped(const N& x) {
  const N turn = (x * R(0.5 * std::numbers::inv_pi) + N(R(HalfTurns<R>::round))) - N(R(HalfTurns<R>::round));
  const N half_turns = turn + turn;
  return ((x - half_turns * R(HalfTurns<R>::high)) - half_turns * R(HalfTurns<R>::middle)) -
         half_turns * R(HalfTurns<R>::low);
}

// P_after = P - kick F, theta_after = theta + drift P_after; without a drift, theta_after = theta wrapped
template <class R, class S, class T, bool drifts>
struct KickDrift {
  R kick, drift;
  int64_t sites;
  const T* planes;
  const S *theta, *p;
  T *p_after, *theta_after;
  int64_t config = 0;

  HEPOPS_HD void to(int64_t first, int64_t) { config = first; }
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    constexpr int D = At::dims;
    HEPOPS_DIRECTIONS
    for (int mu = 0; mu < D; ++mu) {
      const int64_t link = (config * D + mu) * sites;
      const auto force = around_link(at, planes + config * planes_of(D) * sites, sites, mu);
      const auto moved = at.here(p + link) - kick * force;
      at.put(p_after + link, moved);
      const auto here = at.here(theta + link);
      if constexpr (drifts)
        at.put(theta_after + link, here + drift * moved);
      else
        at.put(theta_after + link, wrapped<R>(here));
    }
  }
};

template <class R>
struct Program {
  R beta;
  int64_t sites;
  const Plan& plan;
  Components inputs, outputs, mids;

  Program(double beta, const Lattice& lattice, const Plan& plan) : beta(R(beta)), sites(lattice.sites), plan(plan) {
    const int D = lattice.dims;
    inputs = outputs = {2, {D, D}};
    mids = {plan.bends() ? 2 : 1, {planes_of(D), D}};
  }

  template <class Run, class S, class T>
  void operator()(const Run& run, const S* const* in, T* const* mid, T* const* out) const {
    const S *theta = in[0], *p = in[1];
    for (int64_t k = 0; k < plan.stages; ++k) {
      const auto [kick, bend, drift] = plan.stage(k);
      run(Sines<R, S, T>{beta, sites, theta, mid[0]});
      if (bend != 0) {
        run(Bend<R, S, T>{R(bend), sites, theta, mid[0], mid[1]});
        run(Sines<R, T, T>{beta, sites, mid[1], mid[0]});
      }
      if (k + 1 < plan.stages)
        run(KickDrift<R, S, T, true>{R(kick), R(drift), sites, mid[0], theta, p, out[1], out[0]});
      else
        run(KickDrift<R, S, T, false>{R(kick), R(drift), sites, mid[0], theta, p, out[1], out[0]});
      theta = out[0], p = out[1];
    }
  }
};

std::tuple<Tensor, Tensor> trajectory(const Tensor& theta, const Tensor& momenta, const Tensor& plan, double beta) {
  core::check_floating("theta", theta);
  core::check_same_shape("momenta", momenta, theta);
  const Grid grid = grid_of("theta", theta, true);
  core::check_value(grid.lattice.dims >= 2 && theta.size(1) == grid.lattice.dims,
                    "theta must have shape (B, D, L_1 ... L_D) with D = 2, 3, 4, got ", core::Shape{theta});
  const Plan stages = checked_plan(plan);
  const Tensor dense = core::contiguous(theta), dense_p = core::contiguous(momenta);
  Tensor after = new_field(theta), p_after = new_field(theta);
  core::for_floating("theta", theta, [&]<class R>() {
    Call<R, R> call{theta, grid};
    call.in[0] = in<R>(dense), call.in[1] = in<R>(dense_p);
    call.out[0] = out<R>(after), call.out[1] = out<R>(p_after);
    run(call, Program<R>(beta, grid.lattice, stages));
  });
  return {after, p_after};
}

const core::Operators operators{
    core::op<trajectory>("_lattice_u1_trajectory(Tensor theta, Tensor momenta, Tensor plan, float beta) -> (Tensor, "
                         "Tensor)"),
};

}  // namespace
}  // namespace hepops::lattice
