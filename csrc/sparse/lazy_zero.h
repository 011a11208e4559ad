#pragma once
// Zeros that cost memory only where something is written: of a kernel of 48^3 offsets few are used, and its gradient
// has gigabytes.
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace hepops::sparse {

// Fills with zeros. Whole pages of a large allocation are handed back to the system, which maps them anew, as zeros,
// when they are next touched. That holds for private anonymous memory, which is what malloc gives: a mark in the first
// page says whether it was so.
inline void zero_lazily(void* memory, size_t bytes) {
#ifdef __linux__
  constexpr size_t worth_it = size_t(1) << 23;
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  if (bytes >= worth_it) {
    char* const begin = static_cast<char*>(memory);
    char* const first = begin + (page - reinterpret_cast<uintptr_t>(begin) % page) % page;
    char* const last = first + (begin + bytes - first) / page * page;
    volatile char* const mark = first;
    *mark = 1;
    if (madvise(first, last - first, MADV_DONTNEED) == 0 && *mark == 0) {
      std::memset(begin, 0, first - begin);
      std::memset(last, 0, begin + bytes - last);
      return;
    }
  }
#endif
  std::memset(memory, 0, bytes);
}

}  // namespace hepops::sparse
