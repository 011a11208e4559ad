#include "flows/piecewise_linear.h"

#include "core/op.h"
#include "flows/elementwise.h"

namespace hepops::flows {
namespace {

PiecewiseLinear bijection(const Tensor& raw) {
  const int64_t P = raw.dim() > 0 ? raw.size(-1) : 0, K = P;
  core::check_value(K >= 1 && K <= 128, "piecewise_linear: raw must hold 1 to 128 parameters, one for each bin, got ",
                    P);
  return {int(K)};
}

std::tuple<Tensor, Tensor> piecewise_linear(const Tensor& x, const Tensor& raw, bool inverse) {
  return forward(bijection(raw), checked("piecewise_linear", x, raw, raw.size(-1)), inverse);
}

std::tuple<Tensor, Tensor> piecewise_linear_backward(const Tensor& grad_value, const Tensor& grad_logdet,
                                                     const Tensor& x, const Tensor& raw, bool inverse) {
  const auto b = bijection(raw);
  const auto inputs = checked("piecewise_linear_backward", x, raw, raw.size(-1));
  return backward("piecewise_linear_backward", b, grad_value, grad_logdet, inputs, inverse);
}

const core::Operators operators{
    core::op<piecewise_linear>("flows_piecewise_linear(Tensor x, Tensor raw, bool inverse) -> (Tensor, Tensor)"),
    core::op<piecewise_linear_backward>(
        "flows_piecewise_linear_backward(Tensor grad_value, Tensor grad_logdet, Tensor x, Tensor raw, bool inverse) "
        "-> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::flows
