// Nominal values, as hepops.lartpc.Parameters, FrontEnd and Detector.module0 have them (tests/core/test_cpp_core.py
// holds them together), and the reading of hits, which needs no level.
#include "c_api.h"
#include "sdk/hits.h"

namespace {

// Layout 2.4.16: anodes at x = -+30.431 cm, drift 30.27225 cm, 140 x 280 pixels of 4.434 mm on each
constexpr double anode = 30.431, drift = 30.27225, half_y = 62.076, half_z = 31.038;
constexpr hepops_tpc module0[2] = {
    {-anode, -0.15875, {-half_y, half_y}, {-half_z, half_z}, 140, 280},
    {anode, 0.15875, {-half_y, half_y}, {-half_z, half_z}, 140, 280},
};
static_assert(anode - drift > 0.1587499 && anode - drift < 0.1587501);

}  // namespace

void hepops_simulator_config_init(hepops_simulator_config* config) {
  if (!config) return;
  *config = {};
  config->size = sizeof(*config);
  config->pixel_pitch = 0.4434;
  config->tick = 0.1;
  config->frontend = {7000.0, 15, 3, 9, 1, 900.0, 500.0, 650.0, 0.0, 4e-3, 580.0, 288.0, 1300.0, 8};
  config->parameters = {2200.0, 0.50, 0.800, 0.0486, 8.8e-6, 4.0e-6, 0.93, 0.207, 1.25, 1.38, 87.17, 23.6e-6};
  config->step = 0.1;
  config->recombination = HEPOPS_BIRKS;
  config->precision = 32;
  config->reach = 2;
  config->length = 150;
  config->lead = 1;
  config->chunk = 30000;
}

void hepops_simulator_config_module0(hepops_simulator_config* config) {
  if (!config) return;
  hepops_simulator_config_init(config);
  config->tpcs = module0;
  config->num_tpcs = 2;
  config->frontend.threshold = 5000.0;
  config->frontend.v_cm = 284.27734375;
  config->frontend.v_ref = 1282.71484375;
}

void hepops_hits_read(const hepops_hits* hits, hepops_hits_view* view) {
  if (view) *view = hits ? hits->view : hepops_hits_view{};
}
