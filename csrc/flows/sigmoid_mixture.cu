#include "flows/sigmoid_mixture.h"

#include "core/op.h"
#include "flows/elementwise.h"

namespace hepops::flows {
namespace {

SigmoidMixture bijection(const Tensor& raw) {
  const int64_t P = raw.dim() > 0 ? raw.size(-1) : 0, K = P / 3;
  core::check_value(K >= 1 && K <= 64 && P == 3 * K,
                    "sigmoid_mixture: raw must hold 3 K parameters for 1 to 64 components, got ", P);
  return {int(K)};
}

std::tuple<Tensor, Tensor> sigmoid_mixture(const Tensor& x, const Tensor& raw, bool inverse) {
  return forward(bijection(raw), checked("sigmoid_mixture", x, raw, raw.size(-1)), inverse);
}

std::tuple<Tensor, Tensor> sigmoid_mixture_backward(const Tensor& grad_value, const Tensor& grad_logdet,
                                                    const Tensor& x, const Tensor& raw, bool inverse) {
  const auto b = bijection(raw);
  const auto inputs = checked("sigmoid_mixture_backward", x, raw, raw.size(-1));
  return backward("sigmoid_mixture_backward", b, grad_value, grad_logdet, inputs, inverse);
}

const core::Operators operators{
    core::op<sigmoid_mixture>("flows_sigmoid_mixture(Tensor x, Tensor raw, bool inverse) -> (Tensor, Tensor)"),
    core::op<sigmoid_mixture_backward>(
        "flows_sigmoid_mixture_backward(Tensor grad_value, Tensor grad_logdet, Tensor x, Tensor raw, bool inverse) "
        "-> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::flows
