#pragma once
// One operation, rounded once, whatever stands around it. A compiler may fuse a * b + c into one rounding (gcc and nvcc
// do by default); where bits are promised, or an error is computed from them, these say no.
#include "core/host_device.h"

#if defined(__has_builtin) && !defined(__CUDACC__)  // nvcc knows neither, and compiles its host code without fma
#if __has_builtin(__builtin_assoc_barrier)
#define HEPOPS_ROUNDED(x) __builtin_assoc_barrier(x)  // gcc 12: what is inside is not fused with what is outside
#elif __has_builtin(__arithmetic_fence)
#define HEPOPS_ROUNDED(x) __arithmetic_fence(x)  // clang
#endif
#endif
#ifndef HEPOPS_ROUNDED
#define HEPOPS_ROUNDED(x) (x)
#endif

namespace hepops::core {

HEPOPS_HD float rounded_product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return HEPOPS_ROUNDED(a * b);
#endif
}

HEPOPS_HD double rounded_product(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return HEPOPS_ROUNDED(a * b);
#endif
}

HEPOPS_HD float rounded_sum(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(a, b);
#else
  return HEPOPS_ROUNDED(HEPOPS_ROUNDED(a) + HEPOPS_ROUNDED(b));
#endif
}

HEPOPS_HD double rounded_sum(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(a, b);
#else
  return HEPOPS_ROUNDED(HEPOPS_ROUNDED(a) + HEPOPS_ROUNDED(b));
#endif
}

}  // namespace hepops::core
#undef HEPOPS_ROUNDED
