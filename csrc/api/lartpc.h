#pragma once
// The liquid-argon TPC: segments in, hits out.
#include <optional>
#include <vector>

#include "api/execution.h"

namespace hepops {

// Geometry, front end, parameters and settings, by the names of c_api.h; it owns what they point to.
struct Config : hepops_simulator_config {
  std::vector<hepops_tpc> volumes;      // tpcs
  std::vector<double> pixel_threshold;  // thresholds; empty: frontend.threshold
  std::vector<double> response;         // table->current; empty: a square pad in a grounded plane
  hepops_response_table response_shape{};

  Config() { hepops_simulator_config_init(this); }

  // The first ArgonCube module of DUNE's near detector
  static Config module0() {
    Config config;
    hepops_simulator_config_module0(&config);
    config.volumes.assign(config.tpcs, config.tpcs + config.num_tpcs);
    return config;
  }

  // As the C functions take it; valid while *this is not changed.
  hepops_simulator_config view(hepops_response_table& table) const {
    hepops_simulator_config c = *this;
    c.tpcs = volumes.data();
    c.num_tpcs = int64_t(volumes.size());
    c.table = nullptr;
    if (!response.empty()) {
      check_size("response", response.size(),
                 product("response", {response_shape.bins_x, response_shape.bins_y, response_shape.ticks}));
      table = response_shape;
      table.current = response.data();
      c.table = &table;
    }
    if (!pixel_threshold.empty()) {
      size_t pixels = 0;
      for (const hepops_tpc& tpc : volumes) pixels += product("pixel_threshold", {tpc.nx, tpc.ny});
      check_size("pixel_threshold", pixel_threshold.size(), pixels);
    }
    c.thresholds = pixel_threshold.empty() ? nullptr : pixel_threshold.data();
    return c;
  }
};

struct Segments {
  std::span<const int64_t> event;      // (n)
  std::span<const double> start, end;  // (n, 3) x y z [cm]
  std::span<const double> dE, dEdx;    // (n) [MeV], [MeV/cm]
  std::span<const double> t0;          // (n) [us]

  hepops_segments view() const {
    const size_t n = event.size();
    check_size("start", start.size(), 3 * n);
    check_size("end", end.size(), 3 * n);
    check_size("dE", dE.size(), n);
    check_size("dEdx", dEdx.size(), n);
    check_size("t0", t0.size(), n);
    return {int64_t(n), event.data(), start.data(), end.data(), dE.data(), dEdx.data(), t0.data()};
  }
};

// Columns of hits, sorted by (event, tpc, iy, ix, time), and what was counted on the way.
class Hits : public hepops_hits_view {
 public:
  explicit Hits(hepops_hits* made, std::shared_ptr<const Context> context) : context_(std::move(context)), hits_(made) {
    hepops_hits_read(made, this);
  }
  size_t size() const { return size_t(count); }
  template <class T>
  std::span<const T> column(const T* from) const {
    return {from, size()};
  }

 private:
  struct Destroy {
    void operator()(hepops_hits* hits) const { hepops_hits_destroy(hits); }
  };
  std::shared_ptr<const Context> context_;  // whose memory it is
  std::unique_ptr<hepops_hits, Destroy> hits_;
};

// Immutable; any number of threads may call one simulator at once.
class Simulator {
 public:
  explicit Simulator(const Config& config, Execution execution = {})
      : execution_(std::move(execution)), context_(std::make_shared<Context>(execution_)) {
    hepops_response_table table{};
    const hepops_simulator_config c = config.view(table);
    hepops_simulator* made = nullptr;
    context_->check(hepops_simulator_create(context_->get(), &c, &made));
    simulator_.reset(made);
  }

  // A seed: the clocked chip with its noise. None: noise-free and continuous.
  Hits operator()(const Segments& segments, std::optional<int64_t> seed = {}) const {
    if (seed && *seed < 0)
      throw std::invalid_argument("hepops: seed must not be negative, got " + std::to_string(*seed));
    const hepops_segments s = segments.view();
    const hepops_simulate_options options{seed.value_or(-1)};
    auto context = std::make_shared<Context>(execution_);
    hepops_hits* made = nullptr;
    context->check(hepops_simulate(context->get(), simulator_.get(), &s, &options, &made));
    return Hits(made, std::move(context));
  }

 private:
  struct Destroy {
    void operator()(hepops_simulator* simulator) const { hepops_simulator_destroy(simulator); }
  };
  Execution execution_;
  std::shared_ptr<Context> context_;
  std::unique_ptr<hepops_simulator, Destroy> simulator_;
};

// The fraction of the charge that survives recombination; cos2 is read by the ellipsoid alone.
inline void recombine(const Context& context, const hepops_parameters& parameters, hepops_recombination model,
                      std::span<const double> dedx, std::span<const double> cos2, std::span<double> fraction) {
  check_size("fraction", fraction.size(), dedx.size());
  if (model == HEPOPS_ELLIPSOID) check_size("cos2", cos2.size(), dedx.size());
  context.check(hepops_recombine(context.get(), &parameters, model, int64_t(dedx.size()), dedx.data(), cos2.data(),
                                 fraction.data()));
}

// What a drift over some distances [cm] leaves. An empty span: not wanted.
struct Arrivals {
  std::span<double> survival, time, sigma_t, sigma_l;  // [1], [us], [cm], [cm]
};
inline void drift(const Context& context, const hepops_parameters& parameters, std::span<const double> distance,
                  const Arrivals& to) {
  const auto place = [&](const char* name, std::span<double> x) -> double* {
    if (x.empty()) return nullptr;
    check_size(name, x.size(), distance.size());
    return x.data();
  };
  context.check(hepops_drift(context.get(), &parameters, int64_t(distance.size()), distance.data(),
                             place("survival", to.survival), place("time", to.time), place("sigma_t", to.sigma_t),
                             place("sigma_l", to.sigma_l)));
}

}  // namespace hepops
