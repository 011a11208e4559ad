#pragma once
// From energy deposits to charge at the anode: recombination, then drift.
//
//   q = R(dE/dx) dE / W exp(-t_d / lifetime),   t = t0 + t_d,   sigma_time = sigma_l / v,   width_time = width / v
//
// recombine.h and drift.h hold the laws and their sources. Recombination happens where the charge is made: in the local
// field `ratio` E (1 without a field map); the drift's detours are in the depth, which is that of the time of drift.
// All 18 slopes come from the same text on dual numbers, six at a time: as many as a GPU thread keeps in registers;
// that of the ratio, which the charge alone has, is a nineteenth.
#include "core/dual.h"
#include "core/vec.h"
#include "lartpc/drift.h"
#include "lartpc/recombine.h"

namespace hepops::lartpc {

struct DepositField {  // of one deposit: [MeV], [MeV/cm], [1], [cm], [cm], [us]
  enum : int { dE, dEdx, cos2, depth, width, t0, count };
};

struct ParameterField {  // the order of hepops.lartpc.Parameters
  enum : int {
    lifetime,
    efield,
    birks_a,
    birks_k,
    transverse_diffusion,
    longitudinal_diffusion,
    box_alpha,
    box_beta,
    ellipsoid_ratio,
    density,
    temperature,
    w_ion,
    count
  };
};

struct ArrivalField {  // [e], [us], [cm], [us], [us]
  enum : int { charge, time, sigma, sigma_time, width_time, count };
};

constexpr int arrive_inputs = int(DepositField::count) + int(ParameterField::count);

template <class T, class R>
HEPOPS_HD Recombination<T> recombination(const T* p, int model, const R& ratio) {
  using P = ParameterField;
  return {model,          p[P::birks_a],         p[P::birks_k],        p[P::box_alpha],
          p[P::box_beta], p[P::ellipsoid_ratio], p[P::efield] * ratio, p[P::density]};
}

template <class T>
HEPOPS_HD core::Vec<T, ArrivalField::count> arrive(const T* d, const T* p, int model, double ratio = 1) {
  using D = DepositField;
  using P = ParameterField;
  const Recombination<T> law = recombination(p, model, ratio);
  const Transport<T> transport{p[P::lifetime], p[P::efield], p[P::transverse_diffusion], p[P::longitudinal_diffusion],
                               p[P::temperature]};
  const T v = velocity(p[P::efield], p[P::temperature]);
  const Arrival<T> at = drift(d[D::depth], transport);
  core::Vec<T, ArrivalField::count> result;
  result[ArrivalField::charge] = recombine(d[D::dEdx], d[D::cos2], law) * d[D::dE] / p[P::w_ion] * at.survival;
  result[ArrivalField::time] = d[D::t0] + at.time;
  result[ArrivalField::sigma] = at.sigma_t;
  result[ArrivalField::sigma_time] = at.sigma_l / v;
  result[ArrivalField::width_time] = d[D::width] / v;
  return result;
}

// Slopes with the inputs 6 g ... 6 g + 5, deposits before parameters.
HEPOPS_HD core::Vec<core::Dual<double, 6>, ArrivalField::count> arrive_slopes(const double* inputs, int g, int model,
                                                                              double ratio = 1) {
  core::Dual<double, 6> x[arrive_inputs];
  for (int k = 0; k < arrive_inputs; ++k) {
    x[k] = core::Dual<double, 6>(inputs[k]);
    if (k / 6 == g) x[k].slope[k % 6] = 1;
  }
  return arrive(x, x + DepositField::count, model, ratio);
}

// The relative slope of the charge with the ratio, d ln q / d ratio: that of recombination, which depends on E ratio.
// Where nothing survives (the box at a large dE/dx) it is 0.
HEPOPS_HD double charge_per_ratio(const double* inputs, int model, double ratio) {
  const double* p = inputs + DepositField::count;
  core::Dual<double, 1> parameters[ParameterField::count];
  for (int k = 0; k < ParameterField::count; ++k) parameters[k] = core::Dual<double, 1>(p[k]);
  const auto law = recombination(parameters, model, core::Dual<double, 1>(ratio, 0));
  const auto fraction = recombine(inputs[DepositField::dEdx], inputs[DepositField::cos2], law);
  return fraction.value > 0 ? fraction.slope[0] / fraction.value : 0;
}

}  // namespace hepops::lartpc
