#pragma once
// The caller's memory and threads (c_api.h) as the library's own code asks for them.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <memory_resource>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "c_api.h"

namespace hepops::sdk {

class Resource final : public std::pmr::memory_resource {
 public:
  explicit Resource(const hepops_execution& execution) : execution_(execution) {}
  const hepops_execution& execution() const { return execution_; }

 private:
  void* do_allocate(size_t bytes, size_t alignment) override {
    if (!execution_.allocate) return ::operator new(bytes, std::align_val_t(alignment));
    void* memory = execution_.allocate(execution_.user, bytes, alignment);
    if (!memory) throw std::bad_alloc();
    return memory;
  }
  void do_deallocate(void* memory, size_t bytes, size_t alignment) override {
    if (!execution_.allocate)
      ::operator delete(memory, std::align_val_t(alignment));
    else if (execution_.deallocate)
      execution_.deallocate(execution_.user, memory, bytes, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  hepops_execution execution_;
};

// Numbers on a line of the cache, not initialised; grows, and forgets what it held.
template <class T>
class Array {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit Array(std::pmr::memory_resource& resource, int64_t size = 0) : resource_(resource) { resize(size); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { release(); }

  T* resize(int64_t size) {
    const size_t bytes = bytes_of(size);
    if (size > capacity_) {
      release();
      data_ = static_cast<T*>(resource_.allocate(bytes, 64));
      capacity_ = size;
    }
    size_ = size;
    return data_;
  }
  // Keeps the first `kept` numbers.
  T* grow(int64_t size, int64_t kept) {
    bytes_of(size);
    if (size > capacity_) {
      const int64_t wanted = size + size / 2;
      T* more = static_cast<T*>(resource_.allocate(bytes_of(wanted), 64));
      if (kept) std::memcpy(static_cast<void*>(more), data_, size_t(kept) * sizeof(T));
      release();
      data_ = more;
      capacity_ = wanted;
    }
    size_ = size;
    return data_;
  }
  void fill(const T& value) { std::uninitialized_fill_n(data_, size_, value); }

  int64_t size() const { return size_; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  // What no memory holds is refused as memory that is not there, before the product of sizes wraps around.
  static size_t bytes_of(int64_t size) {
    constexpr int64_t most = PTRDIFF_MAX / (2 * int64_t(sizeof(T)));  // `grow` asks for half as much again
    if (size < 0 || size > most + most / 2) throw std::bad_array_new_length();
    return size_t(size) * sizeof(T);
  }
  void release() {
    if (data_) resource_.deallocate(data_, size_t(capacity_) * sizeof(T), 64);
    data_ = nullptr;
    capacity_ = 0;
  }
  std::pmr::memory_resource& resource_;
  T* data_ = nullptr;
  int64_t size_ = 0, capacity_ = 0;
};

// The caller's parallel_for as core/parallel.h has it. What a range throws is kept, and thrown again when all are done.
class Parallel {
 public:
  explicit Parallel(const hepops_execution& execution) : execution_(&execution) {}

  template <class F>
  void operator()(int64_t n, int64_t grain, const F& f) const {
    if (n <= 0) return;
    if (!execution_->parallel_for) return f(int64_t(0), n);
    Ranges<F> ranges{f};
    const int status = execution_->parallel_for(execution_->user, n, grain, &Ranges<F>::run, &ranges);
    if (ranges.error) std::rethrow_exception(ranges.error);
    if (status != 0) throw std::runtime_error("parallel_for returned " + std::to_string(status));
    if (ranges.done != n)
      throw std::runtime_error("parallel_for ran " + std::to_string(ranges.done) + " of " + std::to_string(n));
  }

 private:
  template <class F>
  struct Ranges {
    const F& f;
    std::atomic<int64_t> done{0};
    std::atomic_flag failed{};
    std::exception_ptr error{};

    static void run(void* data, int64_t first, int64_t last) {
      auto& self = *static_cast<Ranges*>(data);
      try {
        self.f(first, last);
        self.done.fetch_add(last - first, std::memory_order_relaxed);
      } catch (...) {
        if (!self.failed.test_and_set()) self.error = std::current_exception();
      }
    }
  };

  const hepops_execution* execution_;
};

// A handle lies in the caller's memory, behind the resource that it came from.
template <class Handle, class... Arguments>
Handle* make(const hepops_execution& execution, Arguments&&... arguments) {
  Resource resource(execution);
  std::pmr::polymorphic_allocator<> allocator(&resource);
  void* memory = resource.allocate(sizeof(Handle), alignof(Handle));
  try {
    return new (memory) Handle(execution, std::forward<Arguments>(arguments)...);
  } catch (...) {
    resource.deallocate(memory, sizeof(Handle), alignof(Handle));
    throw;
  }
}

template <class Handle>
void destroy(Handle* handle) {
  if (!handle) return;
  Resource resource(handle->resource.execution());
  handle->~Handle();
  resource.deallocate(handle, sizeof(Handle), alignof(Handle));
}

}  // namespace hepops::sdk
