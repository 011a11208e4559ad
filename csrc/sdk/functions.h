#pragma once
// The functions of c_api.h that are compiled once for each x86-64 level. A level's library exports their table; the
// library that programs link picks one (select.cpp).
#include "c_api.h"

namespace hepops::sdk {

struct Functions {
  decltype(&hepops_context_create) context_create;
  decltype(&hepops_context_destroy) context_destroy;
  decltype(&hepops_error) error;
  decltype(&hepops_simulator_create) simulator_create;
  decltype(&hepops_simulator_destroy) simulator_destroy;
  decltype(&hepops_simulate) simulate;
  decltype(&hepops_hits_destroy) hits_destroy;
  decltype(&hepops_recombine) recombine;
  decltype(&hepops_drift) drift;
  decltype(&hepops_map_create) map_create;
  decltype(&hepops_map_destroy) map_destroy;
  decltype(&hepops_convolve) convolve;
  decltype(&hepops_convolve_backward) convolve_backward;
  decltype(&hepops_spline_f32) spline_f32;
  decltype(&hepops_spline_f64) spline_f64;
  decltype(&hepops_spline_backward_f32) spline_backward_f32;
  decltype(&hepops_spline_backward_f64) spline_backward_f64;
  decltype(&hepops_su3_exp) su3_exp;
  decltype(&hepops_su3_exp_backward) su3_exp_backward;
  decltype(&hepops_su3_project) su3_project;
  decltype(&hepops_su3_project_backward) su3_project_backward;
  decltype(&hepops_su3_staples) su3_staples;
};

void fill_simulate(Functions& functions);
void fill_argon(Functions& functions);
void fill_sparse(Functions& functions);
void fill_spline(Functions& functions);
void fill_su3(Functions& functions);
void fill_staples(Functions& functions);

}  // namespace hepops::sdk

// What a level's library exports. `size` is that of Functions: a library of another version is refused.
extern "C" HEPOPS_API const hepops::sdk::Functions* hepops_functions(size_t size);
