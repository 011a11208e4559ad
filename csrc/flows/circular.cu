#include "flows/circular.h"

#include "core/op.h"
#include "flows/elementwise.h"

namespace hepops::flows {
namespace {

// raw holds K shifts, K logits where they are learned, and the phase
Circular bijection(const Tensor& raw, bool weighted) {
  const int64_t P = raw.dim() > 0 ? raw.size(-1) : 0, K = weighted ? (P - 1) / 2 : P - 1;
  core::check_value(K >= 1 && K <= 64 && P == (weighted ? 2 : 1) * K + 1,
                    "circular: raw must hold K + 1 parameters, or 2 K + 1 with weights, for 1 to 64 components, got ",
                    P);
  return {int(K), weighted};
}

std::tuple<Tensor, Tensor> circular(const Tensor& x, const Tensor& raw, bool weights, bool inverse) {
  const auto b = bijection(raw, weights);
  return forward(b, checked("circular", x, raw, b.slots()), inverse);
}

std::tuple<Tensor, Tensor> circular_backward(const Tensor& grad_value, const Tensor& grad_logdet, const Tensor& x,
                                             const Tensor& raw, bool weights, bool inverse) {
  const auto b = bijection(raw, weights);
  const auto inputs = checked("circular_backward", x, raw, b.slots());
  return backward("circular_backward", b, grad_value, grad_logdet, inputs, inverse);
}

const core::Operators operators{
    core::op<circular>("flows_circular(Tensor x, Tensor raw, bool weights, bool inverse) -> (Tensor, Tensor)"),
    core::op<circular_backward>("flows_circular_backward(Tensor grad_value, Tensor grad_logdet, Tensor x, Tensor raw, "
                                "bool weights, bool inverse) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::flows
