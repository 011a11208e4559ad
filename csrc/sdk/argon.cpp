// Recombination and drift alone, element by element.
#include <cmath>

#include "lartpc/drift.h"
#include "lartpc/recombine.h"
#include "sdk/context.h"
#include "sdk/functions.h"

namespace hepops::sdk {
namespace {

// The operators' own refusals (lartpc/recombine.cu, drift.cu): NaN is neither.
void positive(const char* of, const char* name, double x) {
  check(x > 0, of, ": ", name, " must be positive, got ", x);
}
void not_negative(const char* of, const char* name, double x) {
  check(x >= 0, of, ": ", name, " must not be negative, got ", x);
}

// The model is a constant of the compiler, so that the loop has no branch and becomes SIMD.
template <lartpc::RecombinationModel model>
void recombine_all(const hepops_parameters& p, int64_t first, int64_t last, const double* dedx, const double* cos2,
                   double* fraction) {
  const lartpc::Recombination<double> law{model,      p.birks_a,         p.birks_k, p.box_alpha,
                                          p.box_beta, p.ellipsoid_ratio, p.efield,  p.density};
#pragma GCC ivdep
  for (int64_t i = first; i < last; ++i)
    fraction[i] = lartpc::recombine(dedx[i], model == lartpc::ellipsoid ? cos2[i] : 0.0, law);
}

hepops_status recombine(hepops_context* context, const hepops_parameters* parameters, int64_t model, int64_t count,
                        const double* dedx, const double* cos2, double* fraction) {
  return guarded(context, [&] {
    check(parameters, "recombine: parameters is NULL");
    check(model >= 0 && model <= 2, "recombine: model must be 0, 1 or 2, got ", model);
    check(count >= 0, "recombine: count must not be negative, got ", count);
    check(count == 0 || (dedx && fraction), "recombine: dedx or fraction is NULL");
    check(count == 0 || model != HEPOPS_ELLIPSOID || cos2, "recombine: the ellipsoid needs cos2");
    const hepops_parameters& p = *parameters;
    not_negative("recombine", "birks_a", p.birks_a);
    not_negative("recombine", "birks_k", p.birks_k);
    check(p.box_alpha > 0 && p.box_alpha <= 1, "recombine: box_alpha must lie in (0, 1], got ", p.box_alpha);
    not_negative("recombine", "box_beta", p.box_beta);
    positive("recombine", "ellipsoid_ratio", p.ellipsoid_ratio);
    positive("recombine", "efield", p.efield);
    positive("recombine", "density", p.density);
    context->parallel()(count, 8192, [&](int64_t first, int64_t last) {
      if (model == HEPOPS_BIRKS) recombine_all<lartpc::birks>(p, first, last, dedx, cos2, fraction);
      if (model == HEPOPS_BOX) recombine_all<lartpc::box>(p, first, last, dedx, cos2, fraction);
      if (model == HEPOPS_ELLIPSOID) recombine_all<lartpc::ellipsoid>(p, first, last, dedx, cos2, fraction);
    });
  });
}

hepops_status drift(hepops_context* context, const hepops_parameters* parameters, int64_t count, const double* distance,
                    double* survival, double* time, double* sigma_t, double* sigma_l) {
  return guarded(context, [&] {
    check(parameters, "drift: parameters is NULL");
    check(count >= 0, "drift: count must not be negative, got ", count);
    check(count == 0 || distance, "drift: distance is NULL");
    const hepops_parameters& p = *parameters;
    positive("drift", "lifetime", p.lifetime);
    positive("drift", "efield", p.efield);
    not_negative("drift", "transverse_diffusion", p.transverse_diffusion);
    not_negative("drift", "longitudinal_diffusion", p.longitudinal_diffusion);
    positive("drift", "temperature", p.temperature);
    const lartpc::Transport<double> transport{p.lifetime, p.efield, p.transverse_diffusion, p.longitudinal_diffusion,
                                              p.temperature};
    context->parallel()(count, 8192, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const auto at = lartpc::drift(distance[i], transport);
        if (survival) survival[i] = at.survival;
        if (time) time[i] = at.time;
        if (sigma_t) sigma_t[i] = at.sigma_t;
        if (sigma_l) sigma_l[i] = at.sigma_l;
      }
    });
  });
}

}  // namespace

void fill_argon(Functions& f) {
  f.recombine = recombine;
  f.drift = drift;
}

}  // namespace hepops::sdk
