#pragma once
// Who computes, and where memory comes from; and the wall between C and C++.
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <memory>
#include <memory_resource>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "c_api.h"

namespace hepops {

// What a program hands over. Empty: one thread, malloc. Both must bear to be used from several threads at once where
// objects are.
struct Execution {
  // Runs body(first, last) on ranges that together are [0, n); `grain` is the least that is worth a thread. It may
  // throw.
  std::function<void(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body)> parallel_for;
  std::pmr::memory_resource* memory = nullptr;  // must outlive all that is made with it
};

// A call's context. One belongs to one thread at a time; it is cheap, and the classes below make their own.
class Context {
 public:
  explicit Context(Execution execution = {}) : inner_(std::make_unique<Inner>(Inner{std::move(execution), {}})) {
    const hepops_execution e{inner_.get(), inner_->execution.parallel_for ? &run : nullptr,
                             inner_->execution.memory ? &allocate : nullptr,
                             inner_->execution.memory ? &deallocate : nullptr};
    hepops_context* made = nullptr;
    const hepops_status status = hepops_context_create(&e, &made);
    if (status == HEPOPS_OUT_OF_MEMORY) throw std::bad_alloc();
    if (status != HEPOPS_OK) throw std::runtime_error(hepops_load_error());
    context_.reset(made);
  }

  hepops_context* get() const { return context_.get(); }

  // Throws what a status says.
  void check(hepops_status status) const {
    if (std::exception_ptr error = std::exchange(inner_->error, nullptr)) std::rethrow_exception(error);
    if (status == HEPOPS_OK) return;
    if (status == HEPOPS_OUT_OF_MEMORY) throw std::bad_alloc();
    const std::string message = std::string("hepops: ") + hepops_error(get());
    if (status == HEPOPS_INVALID_ARGUMENT) throw std::invalid_argument(message);
    throw std::runtime_error(message);
  }

 private:
  struct Inner {
    Execution execution;
    std::exception_ptr error;  // what the program's parallel_for threw
  };
  struct Destroy {
    void operator()(hepops_context* context) const { hepops_context_destroy(context); }
  };

  static int run(void* user, int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* data) {
    auto& inner = *static_cast<Inner*>(user);
    try {
      inner.execution.parallel_for(n, grain, [&](int64_t first, int64_t last) { body(data, first, last); });
      return 0;
    } catch (...) {
      inner.error = std::current_exception();
      return 1;
    }
  }
  static void* allocate(void* user, size_t bytes, size_t alignment) {
    try {
      return static_cast<Inner*>(user)->execution.memory->allocate(bytes, alignment);
    } catch (...) {
      return nullptr;
    }
  }
  static void deallocate(void* user, void* memory, size_t bytes, size_t alignment) {
    static_cast<Inner*>(user)->execution.memory->deallocate(memory, bytes, alignment);
  }

  std::unique_ptr<Inner> inner_;  // before the context, which uses it as it goes
  std::unique_ptr<hepops_context, Destroy> context_;
};

// The product of sizes that a caller named. One that is negative, or more than memory holds, is refused before it
// wraps.
inline size_t product(const char* name, std::initializer_list<int64_t> sizes) {
  constexpr int64_t most = PTRDIFF_MAX / int64_t(sizeof(double));
  int64_t made = 1;
  bool good = true, empty = false;
  for (const int64_t n : sizes) {
    good = good && n >= 0 && (n == 0 || made <= most / n);
    empty = empty || n == 0;
    if (good && n > 0) made *= n;
  }
  if (good) return empty ? 0 : size_t(made);
  std::string text = std::string("hepops: ") + name + " cannot have ";
  for (const int64_t* n = sizes.begin(); n != sizes.end(); ++n)
    text += (n == sizes.begin() ? "" : " x ") + std::to_string(*n);
  throw std::invalid_argument(text + " numbers");
}

inline void check_size(const char* name, size_t size, size_t expected) {
  if (size != expected)
    throw std::invalid_argument(std::string("hepops: ") + name + " has " + std::to_string(size) +
                                " numbers, expected " + std::to_string(expected));
}

}  // namespace hepops
