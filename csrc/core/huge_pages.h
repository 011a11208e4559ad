#pragma once
// in_huge_pages(x) asks the kernel for pages of 2 MiB under a new, untouched and large tensor x on a CPU, and gives it
// back. Its first touch would otherwise fault every 4 KiB: 45 ms for the 92 MB of a million splines' gradients, more
// than the pass that fills them. A hint alone: where it is not granted (or not Linux), nothing changes.
#include <cstdint>

#include "core/tensor.h"
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace hepops::core {

inline Tensor in_huge_pages(Tensor x) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t(2) << 20;
  if (!x.is_cpu()) return x;
  const uintptr_t from = reinterpret_cast<uintptr_t>(x.mutable_data_ptr());
  const uintptr_t first = (from + page - 1) / page * page, last = (from + x.numel() * x.element_size()) / page * page;
  // below some pages malloc hands out memory that was touched before
  if (last > first + page) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  return x;
}

}  // namespace hepops::core
