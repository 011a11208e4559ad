#pragma once
// How a torch-free function asks for threads: its caller hands it an object `parallel`, called as
//
//   parallel(n, grain, f)   runs f(first, last) on ranges that together are [0, n), at least `grain` long where it can
//
// Serial is the plain choice; operators hand in torch's pool (tensor.h).
#include <cstdint>

namespace hepops::core {

struct Serial {
  template <class F>
  void operator()(int64_t n, int64_t /*grain*/, const F& f) const {
    if (n > 0) f(int64_t(0), n);
  }
};

}  // namespace hepops::core
