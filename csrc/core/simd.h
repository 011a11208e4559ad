#pragma once
// Vectors of the compiler, as wide as the level that a file is compiled for, and loops that leave them in registers.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>

namespace hepops::core {

#if defined(__AVX512F__)
constexpr int simd_bytes = 64, simd_registers = 32;
#elif defined(__AVX__)
constexpr int simd_bytes = 32, simd_registers = 16;
#elif defined(__aarch64__)
constexpr int simd_bytes = 16, simd_registers = 32;
#else
constexpr int simd_bytes = 16, simd_registers = 16;
#endif

template <class T>
constexpr int full_lanes = simd_bytes / int(sizeof(T));

// V numbers of type T
template <class T, int V>
struct Simd {
  typedef T type __attribute__((vector_size(V * sizeof(T))));
  typedef T unaligned __attribute__((vector_size(V * sizeof(T)), aligned(alignof(T)), may_alias));
  [[gnu::always_inline]] static type load(const T* p) { return *reinterpret_cast<const unaligned*>(p); }
  [[gnu::always_inline]] static void store(T* p, type x) { *reinterpret_cast<unaligned*>(p) = x; }
};

// f(0), f(1) ... f(N - 1) with constants for arguments, so that small arrays of vectors stay in registers.
template <int N, class F>
[[gnu::always_inline]] inline void unroll(const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}
#define HEPOPS_UNROLLED(i) [&](auto i) __attribute__((always_inline))

// Memory on a line of the cache, not initialised.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size) { reserve(size); }

  // At least this much; what it held is lost.
  T* reserve(int64_t size) {
    if (size > size_) {
      memory_.reset();  // before the new one, so that they need not both fit
      memory_.reset(static_cast<T*>(std::aligned_alloc(64, (size * sizeof(T) + 63) / 64 * 64)));
      size_ = memory_ ? size : 0;
      if (!memory_) throw std::bad_alloc();
    }
    return memory_.get();
  }
  T* get() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> memory_;
  int64_t size_ = 0;
};

// f(0) ... f(n - 1), each by whichever thread is free: for tasks that own their results.
template <class Parallel, class F>
void for_tasks(int64_t n, const Parallel& parallel, const F& f) {
  constexpr int64_t most = 256;  // threads; each takes a share of these, and the first to run takes what there is
  std::atomic<int64_t> next{0};
  parallel(std::min(n, most), 1, [&](int64_t, int64_t) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) f(i);
  });
}

}  // namespace hepops::core
