#include "load/about.h"

#include <map>
#include <string>
#include <string_view>

#include "core/cpu_level.h"
#include "hepops/version.h"
#include "lartpc/drift.h"

namespace {

// The first missing one tells why a level is not reached.
std::string cpu_features() {
  std::string text;
#ifdef __x86_64__
  __builtin_cpu_init();
#define HEPOPS_FEATURE(name) text += __builtin_cpu_supports(name) ? name "=1 " : name "=0 "
  HEPOPS_FEATURE("sse4.2"), HEPOPS_FEATURE("avx"), HEPOPS_FEATURE("avx2"), HEPOPS_FEATURE("fma");
  HEPOPS_FEATURE("bmi2"), HEPOPS_FEATURE("avx512f"), HEPOPS_FEATURE("avx512bw"), HEPOPS_FEATURE("avx512cd");
  HEPOPS_FEATURE("avx512dq"), HEPOPS_FEATURE("avx512vl");
#undef HEPOPS_FEATURE
#endif
  return text;
}

const std::map<std::string_view, std::string>& facts() {
  static const std::map<std::string_view, std::string> known{
      {"version", HEPOPS_VERSION},
      {"compiler", HEPOPS_COMPILER},
      {"build_type", HEPOPS_BUILD_TYPE},
      {"cpu_levels", HEPOPS_CPU_LEVELS},
      {"cuda_version", HEPOPS_CUDA_VERSION},
      {"cuda_architectures", HEPOPS_CUDA_ARCHITECTURES},
      {"torch_built_with", HEPOPS_BUILT_WITH_TORCH},
      {"torch_oldest", HEPOPS_OLDEST_TORCH},
      {"cpu_level", hepops::core::cpu_level()},
      {"cpu_features", cpu_features()},
  };
  return known;
}

}  // namespace

const char* hepops_about(const char* name) {
  const auto found = facts().find(name ? name : "");
  return found == facts().end() ? nullptr : found->second.c_str();
}

double hepops_drift_velocity(double field, double temperature) { return hepops::lartpc::velocity(field, temperature); }
