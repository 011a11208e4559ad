#include "lartpc/response.h"

#include <tuple>

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"

namespace hepops::lartpc {
namespace {

using core::Scalar;
using core::ScalarType;
using core::Tensor;

// phi_w of one bin's centre at depths v dt m, m = 0 .. M, and its slope with v.
struct Potential {
  double pitch, dt;
  int bins;
  int64_t B, points;
  Scalar<double> velocity;
  double *phi, *slope;

  HEPOPS_HD void operator()(int64_t n) const {
    const int64_t m = n % points, bin = n / points;
    const double x = (double(bin / B) + 0.5) * pitch / bins, y = (double(bin % B) + 0.5) * pitch / bins;
    const double z = velocity * dt * double(m);
    phi[n] = weighting_potential(x, y, z, 0.5 * pitch);
    slope[n] = m == 0 ? 0.0 : weighting_potential_slope(x, y, z, 0.5 * pitch)[2] * dt * double(m);
  }
};

std::tuple<Tensor, Tensor> potential(const Tensor& velocity, double pitch, double dt, int64_t bins, int64_t B,
                                     int64_t M) {
  core::check_type(velocity.scalar_type() == ScalarType::Double, "weighting_potential: velocity must be float64, got ",
                   toString(velocity.scalar_type()));
  core::check_scalar("weighting_potential: velocity", velocity, velocity);
  core::check_value(pitch > 0, "weighting_potential: pitch must be positive [cm], got ", pitch);
  core::check_value(dt > 0, "weighting_potential: tick must be positive [us], got ", dt);
  core::check_value(bins > 0 && bins % 2 == 0, "weighting_potential: bins per pixel must be even and positive, got ",
                    bins);
  core::check_value(B > 0 && M > 0, "weighting_potential: the table needs bins and ticks, got ", B, " and ", M);
  Tensor phi = torch::stable::new_empty(velocity, {B, B, M + 1}), slope = core::empty_like(phi);
  core::for_each(velocity, phi.numel(),
                 Potential{pitch, dt, int(bins), B, M + 1, velocity, core::out<double>(phi), core::out<double>(slope)});
  return {phi, slope};
}

const core::Operators operators{
    core::op<potential>("weighting_potential(Tensor velocity, float pitch, float tick, int bins, int size, int length) "
                        "-> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lartpc
