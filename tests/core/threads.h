#pragma once
// Plain threads behind the interface of core/parallel.h, to test that their number does not matter.
#include <cstdint>
#include <thread>
#include <vector>

namespace hepops::core {

struct PlainThreads {
  int64_t number;

  template <class F>
  void operator()(int64_t n, int64_t /*grain*/, const F& f) const {
    std::vector<std::thread> threads;
    for (int64_t t = 0; t < number; ++t)
      if (const int64_t first = n * t / number, last = n * (t + 1) / number; first < last)
        threads.emplace_back([&f, first, last] { f(first, last); });
    for (auto& thread : threads) thread.join();
  }
};

}  // namespace hepops::core
