#pragma once
// A producer as LArSoft's frameworks have them: configured once, then asked for many events, by many threads at once.
// It needs hepops::core and nothing else: no torch, no Python.
#include <hepops/hepops.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

// Energy deposits of one event, column by column: what a framework's data product is unpacked into.
struct Deposits {
  std::vector<int64_t> event;
  std::vector<double> start, end;  // x y z, x y z ... [cm]
  std::vector<double> dE, dEdx, t0;

  hepops::Segments segments() const { return {event, start, end, dE, dEdx, t0}; }
};

// A framework's parameter set: numbers by name. Here from a file of lines "name value".
class ParameterSet {
 public:
  explicit ParameterSet(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("no file " + path);
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string name;
      if (!(words >> name) || name[0] == '#') continue;
      for (double value; words >> value;) values_[name].push_back(value);
    }
  }
  double get(const std::string& name, double otherwise) const {
    const auto found = values_.find(name);
    return found == values_.end() || found->second.empty() ? otherwise : found->second.front();
  }

 private:
  std::map<std::string, std::vector<double>> values_;
};

class HitProducer {
 public:
  // Throws std::invalid_argument, which names what is wrong, before any event is seen.
  explicit HitProducer(const ParameterSet& parameters, hepops::Execution execution = {})
      : seed_(int64_t(parameters.get("seed", -1))), simulator_(configure(parameters), std::move(execution)) {}

  // Const and without shared state: events may be produced on as many threads as the framework has.
  hepops::Hits produce(const Deposits& event) const {
    if (seed_ < 0) return simulator_(event.segments());
    return simulator_(event.segments(), seed_);
  }

 private:
  static hepops::Config configure(const ParameterSet& p) {
    hepops::Config config = hepops::Config::module0();
    config.parameters.lifetime = p.get("lifetime", config.parameters.lifetime);
    config.parameters.efield = p.get("efield", config.parameters.efield);
    config.parameters.transverse_diffusion = p.get("transverse_diffusion", config.parameters.transverse_diffusion);
    config.parameters.longitudinal_diffusion =
        p.get("longitudinal_diffusion", config.parameters.longitudinal_diffusion);
    config.frontend.threshold = p.get("threshold", config.frontend.threshold);
    return config;
  }

  int64_t seed_;
  hepops::Simulator simulator_;
};
