#include "flows/affine.h"

#include "core/op.h"
#include "flows/elementwise.h"

namespace hepops::flows {
namespace {

Affine bijection(int64_t scale, double limit) {
  core::check_value(scale >= 0 && scale <= int(Scale::Sigmoid), "affine: scale must be 0 to 4, got ", scale);
  return {Scale(scale), limit};
}

std::tuple<Tensor, Tensor> affine(const Tensor& x, const Tensor& raw, int64_t scale, double limit, bool inverse) {
  return forward(bijection(scale, limit), checked("affine", x, raw, 2), inverse);
}

std::tuple<Tensor, Tensor> affine_backward(const Tensor& grad_value, const Tensor& grad_logdet, const Tensor& x,
                                           const Tensor& raw, int64_t scale, double limit, bool inverse) {
  const auto b = bijection(scale, limit);
  return backward("affine_backward", b, grad_value, grad_logdet, checked("affine_backward", x, raw, 2), inverse);
}

const core::Operators operators{
    core::op<affine>("flows_affine(Tensor x, Tensor raw, int scale, float limit, bool inverse) -> (Tensor, Tensor)"),
    core::op<affine_backward>("flows_affine_backward(Tensor grad_value, Tensor grad_logdet, Tensor x, Tensor raw, "
                              "int scale, float limit, bool inverse) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::flows
