// What a simulator is made of, checked once.
#include "sdk/simulator.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>

namespace hepops::sdk {
namespace {

void check_parameters(const hepops_parameters& p) {
  const auto within = [](const char* name, double value, double low, double high) {  // hepops.lartpc.Parameters.SPEC
    check(value >= low && value <= high, "parameters: ", name, " must lie in [", low, ", ", high, "], got ", value);
  };
  within("lifetime", p.lifetime, 1.0, 1e9);
  within("efield", p.efield, 1e-3, 10.0);
  within("birks_a", p.birks_a, 1e-3, 1.0);
  within("birks_k", p.birks_k, 0.0, 1.0);
  within("transverse_diffusion", p.transverse_diffusion, 0.0, 1e-3);
  within("longitudinal_diffusion", p.longitudinal_diffusion, 0.0, 1e-3);
  within("box_alpha", p.box_alpha, 1e-3, 2.0);
  within("box_beta", p.box_beta, 1e-6, 2.0);
  within("ellipsoid_ratio", p.ellipsoid_ratio, 0.1, 10.0);
  within("density", p.density, 0.5, 2.0);
  within("temperature", p.temperature, 83.8, 150.7);
  within("w_ion", p.w_ion, 1e-6, 1e-4);
}

constexpr int64_t most_ticks = int64_t(1) << 31;  // sums of a few stay far from overflow
constexpr double least_threshold = 1e-3;          // [e]; far below, a continuous chip would never stop to trigger

void check_threshold(const char* of, int64_t pixel, double threshold) {
  check(threshold >= least_threshold && std::isfinite(threshold), of, ": threshold", pixel < 0 ? "" : " of pixel ",
        pixel < 0 ? std::string() : std::to_string(pixel), " must be ", least_threshold, " e or more, got ", threshold);
}

void check_frontend(const hepops_frontend& f) {
  check_threshold("frontend", -1, f.threshold);
  using Ticks = std::pair<const char*, int64_t>;
  for (const auto& [name, ticks] :
       {Ticks("hold", f.hold), Ticks("latency", f.latency), Ticks("busy", f.busy), Ticks("reset", f.reset)})
    check(ticks >= 0 && ticks <= most_ticks, "frontend: ", name, " must lie in [0, ", most_ticks, "] ticks, got ",
          ticks);
  check(f.hold + f.latency + f.reset > 0, "frontend: hold + latency + reset must be positive [ticks], got 0");
  for (const double sigma : {f.reset_noise, f.uncorrelated_noise, f.discriminator_noise})
    check(sigma >= 0 && sigma <= 1e9, "frontend: noise must lie in [0, 1e9] e, got ", sigma);
  check(f.buffer_risetime >= 0 && std::isfinite(f.buffer_risetime),
        "frontend: buffer_risetime must not be negative [us], got ", f.buffer_risetime);
  check(f.gain > 0 && std::isfinite(f.gain), "frontend: gain must be positive [mV/e], got ", f.gain);
  using Voltage = std::pair<const char*, double>;
  for (const auto& [name, volts] : {Voltage("v_ref", f.v_ref), Voltage("v_cm", f.v_cm), Voltage("v_ped", f.v_ped)})
    check(std::isfinite(volts), "frontend: ", name, " must be finite [mV], got ", volts);
  check(f.v_ref > f.v_cm, "frontend: v_ref must exceed v_cm [mV], got ", f.v_ref, " and ", f.v_cm);
  check(f.adc_bits >= 1 && f.adc_bits <= 24, "frontend: adc_bits must be 1 to 24, got ", f.adc_bits);
}

constexpr double farthest = 1e6;                   // [cm]; with the least step a track has some 10^12 nodes at most
constexpr int64_t most_across = int64_t(1) << 24;  // pixels along one side of a plane

void check_tpc(const hepops_tpc& t, int64_t i, double pitch) {
  using Edge = std::pair<const char*, double>;
  for (const auto& [name, x] : {Edge("anode", t.anode), Edge("cathode", t.cathode), Edge("y[0]", t.y[0]),
                                Edge("y[1]", t.y[1]), Edge("z[0]", t.z[0]), Edge("z[1]", t.z[1])})
    check(std::abs(x) <= farthest, "tpcs: ", name, " of TPC ", i, " must lie in [-1e6, 1e6] cm, got ", x);
  using Count = std::pair<const char*, int64_t>;
  for (const auto& [name, n] : {Count("nx", t.nx), Count("ny", t.ny)})
    check(n >= 1 && n <= most_across, "tpcs: ", name, " of TPC ", i, " must be 1 to 2^24, got ", n);
  check(t.anode != t.cathode, "tpcs: anode and cathode of TPC ", i, " must differ, got ", t.anode, " and ", t.cathode);
  using Axis = std::tuple<const char*, int64_t, const double*>;
  for (const auto& [axis, n, edges] : {Axis("z", t.nx, t.z), Axis("y", t.ny, t.y)})
    check(edges[0] < edges[1] && std::abs((edges[1] - edges[0]) / pitch - double(n)) <= 0.5, "tpcs: ", n, " pixels of ",
          pitch, " cm do not make ", edges[1] - edges[0], " cm along ", axis, " of TPC ", i);
}

constexpr int64_t most_tpcs = 1 << 14;  // their pixels are counted in 64 bits

const hepops_simulator_config& checked(const hepops_simulator_config& c) {
  check(c.size == sizeof(c), "config: size is ", c.size, ", expected ", sizeof(c),
        ": was hepops_simulator_config_init called, and that of this version?");
  check(c.tpcs && c.num_tpcs > 0, "config: needs a TPC, got ", c.num_tpcs);
  check(c.num_tpcs <= most_tpcs, "config: num_tpcs must be 1 to ", most_tpcs, ", got ", c.num_tpcs);
  check(c.pixel_pitch > 0 && std::isfinite(c.pixel_pitch), "config: pixel_pitch must be positive [cm], got ",
        c.pixel_pitch);
  check(c.tick >= 1e-6 && c.tick <= 1e6, "config: tick must lie in [1e-6, 1e6] us, got ", c.tick);
  for (int64_t i = 0; i < c.num_tpcs; ++i) check_tpc(c.tpcs[i], i, c.pixel_pitch);
  check_frontend(c.frontend);
  check_parameters(c.parameters);
  check(c.step >= 1e-6 && c.step <= c.pixel_pitch, "config: step must be in [1e-6, ", c.pixel_pitch,
        "] cm (one pixel), got ", c.step);
  check(c.recombination >= 0 && c.recombination <= 2, "config: recombination must be 0, 1 or 2, got ", c.recombination);
  check(c.precision == 32 || c.precision == 64, "config: precision must be 32 or 64, got ", c.precision);
  check(c.reach >= 1 && c.reach <= 16, "config: reach must be 1 to 16 pixels, got ", c.reach);
  check(c.length >= 1 && c.length <= 100000, "config: length must be 1 to 100000 ticks, got ", c.length);
  check(c.chunk >= 1, "config: chunk must be positive, got ", c.chunk);
  return c;
}

}  // namespace
}  // namespace hepops::sdk

hepops_simulator::hepops_simulator(const hepops_execution& execution, const hepops_simulator_config& given,
                                   const hepops::sdk::Parallel& parallel)
    : resource(execution),
      config(hepops::sdk::checked(given)),
      tpcs(given.tpcs, given.tpcs + given.num_tpcs, &resource),
      boxes(hepops::sdk::boxes_of(tpcs, resource), &resource),
      first_pixel(&resource),
      thresholds(&resource),
      single(resource),
      wide(resource) {
  int64_t pixels = 0;
  for (const hepops_tpc& tpc : tpcs) {
    first_pixel.push_back(pixels);
    pixels += tpc.nx * tpc.ny;
  }
  if (given.thresholds) {
    thresholds.assign(given.thresholds, given.thresholds + pixels);
    for (size_t i = 0; i < thresholds.size(); ++i) hepops::sdk::check_threshold("config", int64_t(i), thresholds[i]);
  }
  const hepops_frontend& f = config.frontend;
  chip = {f.hold + f.latency, f.reset, f.busy,
          f.buffer_risetime > 0 ? std::exp(-config.tick / f.buffer_risetime) : 0.0};
  const auto& p = config.parameters;
  // as the Python package has it: 1 cm over its drift time
  velocity = 1 / (1 / hepops::lartpc::velocity(p.efield, p.temperature));
  if (config.precision == 32)
    hepops::sdk::make_tables(*this, single, parallel);
  else
    hepops::sdk::make_tables(*this, wide, parallel);
  config.tpcs = tpcs.data();
  config.table = nullptr;
  config.thresholds = thresholds.empty() ? nullptr : thresholds.data();
}
