#pragma once
// The stages of a trajectory as hepops/lattice/stages.py makes them: a float64 tensor (stages, 3) on the CPU that holds
// kick, bend and drift of each; the last drift is not used.
#include <tuple>

#include "core/check.h"

namespace hepops::lattice {

struct Plan {
  core::Tensor tensor;
  int64_t stages;

  std::tuple<double, double, double> stage(int64_t k) const {
    const double* x = core::in<double>(tensor) + 3 * k;
    return {x[0], x[1], x[2]};
  }
  bool bends() const {
    for (int64_t k = 0; k < stages; ++k)
      if (std::get<1>(stage(k)) != 0) return true;
    return false;
  }
};

inline Plan checked_plan(const core::Tensor& plan) {
  core::check_value(plan.is_cpu() && plan.scalar_type() == core::ScalarType::Double && plan.dim() == 2 &&
                        plan.size(0) >= 2 && plan.size(1) == 3,
                    "plan must be a float64 tensor (stages, 3) on the CPU, got shape ", core::Shape{plan});
  return {core::contiguous(plan), plan.size(0)};
}

}  // namespace hepops::lattice
