#pragma once
// The x86-64 level whose every instruction this processor has: v2, v3 (AVX2) or v4 (AVX-512); elsewhere: generic.
#include <string>

namespace hepops::core {

inline std::string cpu_level() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return "v4";
  if (__builtin_cpu_supports("x86-64-v3")) return "v3";
  return "v2";
#else
  return "generic";
#endif
}

}  // namespace hepops::core
