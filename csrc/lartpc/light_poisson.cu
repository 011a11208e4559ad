#include "lartpc/light_poisson.h"

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"

namespace hepops::lartpc {
namespace {

using core::ScalarType;
using core::Tensor;

struct Draw {
  const double* mean;
  const int64_t* index;  // (rows)
  double* out;
  int64_t columns, seed, first;
  uint32_t purpose;
  HEPOPS_HD void operator()(int64_t i) const {
    const core::Philox random{uint64_t(seed), uint64_t(index[i / columns])};
    out[i] = poisson(mean[i], random, uint32_t(first + i % columns), purpose);
  }
};

Tensor draw(const Tensor& mean, const Tensor& index, int64_t seed, int64_t first, int64_t purpose) {
  core::check_type(mean.scalar_type() == ScalarType::Double, "light_poisson: mean must be float64, got ",
                   toString(mean.scalar_type()));
  core::check_int64("light_poisson: index", index);
  core::check_value(mean.dim() == 2 && index.dim() == 1 && index.size(0) == mean.size(0),
                    "light_poisson: mean must be (rows, columns) and index (rows), got ", core::Shape{mean}, " and ",
                    core::Shape{index});
  core::check_value(mean.device() == index.device(), "light_poisson: index must be on the device of mean");
  core::check_value(first >= 0 && first + mean.size(1) <= int64_t(UINT32_MAX),
                    "light_poisson: steps must be in [0, 2^32), got a first one of ", first);
  core::check_value(purpose >= 0 && purpose + poisson_attempts <= int64_t(UINT32_MAX),
                    "light_poisson: purpose must be in [0, 2^32), got ", purpose);
  const Tensor m = core::contiguous(mean), i = core::contiguous(index);
  Tensor out = core::empty_like(m);
  core::for_each(m, m.numel(),
                 Draw{core::in<double>(m), core::in<int64_t>(i), core::out<double>(out), m.size(1), seed, first,
                      uint32_t(purpose)});
  return out;
}

const core::Operators operators{
    core::op<draw>("_light_poisson(Tensor mean, Tensor index, int seed, int first, int purpose) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lartpc
