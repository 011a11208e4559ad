#pragma once
// What this hepops is and what it runs on, for C++, C and, through ctypes, Python. Link hepops::ops.
#ifdef __cplusplus
extern "C" {
#define HEPOPS_ABOUT [[gnu::visibility("default")]]
#else
#define HEPOPS_ABOUT
#endif

// One fact, as text that lives as long as the process; null where the name is unknown. Of the build: "version",
// "compiler", "build_type", "cpu_levels" ("v2 v3 v4"), "cuda_version" (of nvcc; empty where the CUDA library was not
// built), "cuda_architectures" ("75 80 90"), "torch_built_with", "torch_oldest". Of this processor: "cpu_level" (the
// best x86-64 level: v2, v3 or v4; elsewhere generic), "cpu_features" ("sse4.2=1 avx=1 ...": what the levels are made
// of).
HEPOPS_ABOUT const char* hepops_about(const char* name);

// Drift velocity [cm/us] in liquid argon, of a field [kV/cm] and a temperature [K].
HEPOPS_ABOUT double hepops_drift_velocity(double field, double temperature);

#undef HEPOPS_ABOUT
#ifdef __cplusplus
}
#endif
