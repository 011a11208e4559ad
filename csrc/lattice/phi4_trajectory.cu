// Trajectories of phi^4, P -= kick F(phi), phi += drift P in turn (hepops/lattice/stages.py): one pass over the sites
// does a kick and the drift behind it. Where a stage has a bend, its force is taken at phi - bend F(phi).
#include <tuple>

#include "lattice/phi4.h"
#include "lattice/stencil_run.h"
#include "lattice/trajectory_plan.h"

namespace hepops::lattice {
namespace {

// phi_after = phi - by F(phi)
template <class R, class S, class T>
struct Bend {
  Phi4<R> law;
  R by;
  const S* phi;
  T* bent;

  HEPOPS_HD void to(int64_t config, int64_t sites) { phi += config * sites, bent += config * sites; }
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    const auto here = at.here(phi);
    at.put(bent, here - by * law.force(here, sum_ahead(at, phi) + sum_behind(at, phi)));
  }
};

// P_after = P - kick F(bent), phi_after = phi + drift P_after; without a drift phi stays
template <class R, class S, class T, bool drifts>
struct KickDrift {
  Phi4<R> law;
  R kick, drift;
  const S *bent, *phi, *p;
  T *p_after, *phi_after;

  HEPOPS_HD void to(int64_t config, int64_t sites) {
    const int64_t by = config * sites;
    bent += by, phi += by, p += by, p_after += by, phi_after += by;
  }
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    const auto force = law.force(at.here(bent), sum_ahead(at, bent) + sum_behind(at, bent));
    const auto moved = at.here(p) - kick * force;
    at.put(p_after, moved);
    if constexpr (drifts) at.put(phi_after, at.here(phi) + drift * moved);
  }
};

template <class R>
struct Program {
  Phi4<R> law;
  const Plan& plan;
  Components inputs{2, {1, 1}}, outputs{2, {1, 1}}, mids;

  Program(const Phi4<R>& law, const Plan& plan) : law(law), plan(plan), mids{plan.bends() ? 2 : 1, {1, 1}} {}

  template <class Run, class S, class T>
  void operator()(const Run& run, const S* const* in, T* const* mid, T* const* out) const {
    const S *phi = in[0], *p = in[1];
    for (int64_t k = 0; k < plan.stages; ++k) {
      const auto [kick, bend, drift] = plan.stage(k);
      const S* bent = phi;
      if (bend != 0) {
        run(Bend<R, S, T>{law, R(bend), phi, mid[1]});
        bent = mid[1];
      }
      // the last drift is the one before the last kick, and leaves phi in the output
      T* after = (plan.stages - k) % 2 == 0 ? out[0] : mid[0];
      if (k + 1 < plan.stages)
        run(KickDrift<R, S, T, true>{law, R(kick), R(drift), bent, phi, p, out[1], after}), phi = after;
      else
        run(KickDrift<R, S, T, false>{law, R(kick), R(drift), bent, phi, p, out[1], out[0]});
      p = out[1];
    }
  }
};

std::tuple<Tensor, Tensor> trajectory(const Tensor& phi, const Tensor& momenta, const Tensor& plan, double hop,
                                      double square, double quartic) {
  core::check_floating("phi", phi);
  core::check_same_shape("momenta", momenta, phi);
  const Grid grid = grid_of("phi", phi, false);
  const Plan stages = checked_plan(plan);
  const Tensor dense = core::contiguous(phi), dense_p = core::contiguous(momenta);
  Tensor after = new_field(phi), p_after = new_field(phi);
  core::for_floating("phi", phi, [&]<class R>() {
    Call<R, R> call{phi, grid};
    call.in[0] = in<R>(dense), call.in[1] = in<R>(dense_p);
    call.out[0] = out<R>(after), call.out[1] = out<R>(p_after);
    run(call, Program<R>(Phi4<R>(hop, square, quartic), stages));
  });
  return {after, p_after};
}

const core::Operators operators{
    core::op<trajectory>("_lattice_phi4_trajectory(Tensor phi, Tensor momenta, Tensor plan, float hop, float square, "
                         "float quartic) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lattice
