#include "flows/piecewise_quadratic.h"

#include "core/op.h"
#include "flows/elementwise.h"

namespace hepops::flows {
namespace {

PiecewiseQuadratic bijection(const Tensor& raw) {
  const int64_t P = raw.dim() > 0 ? raw.size(-1) : 0, K = (P - 1) / 2;
  core::check_value(K >= 1 && K <= 64 && P == 2 * K + 1,
                    "piecewise_quadratic: raw must hold 2 K + 1 parameters for 1 to 64 bins, got ", P);
  return {int(K)};
}

std::tuple<Tensor, Tensor> piecewise_quadratic(const Tensor& x, const Tensor& raw, bool inverse) {
  return forward(bijection(raw), checked("piecewise_quadratic", x, raw, raw.size(-1)), inverse);
}

std::tuple<Tensor, Tensor> piecewise_quadratic_backward(const Tensor& grad_value, const Tensor& grad_logdet,
                                                        const Tensor& x, const Tensor& raw, bool inverse) {
  const auto b = bijection(raw);
  const auto inputs = checked("piecewise_quadratic_backward", x, raw, raw.size(-1));
  return backward("piecewise_quadratic_backward", b, grad_value, grad_logdet, inputs, inverse);
}

const core::Operators operators{
    core::op<piecewise_quadratic>("flows_piecewise_quadratic(Tensor x, Tensor raw, bool inverse) -> (Tensor, Tensor)"),
    core::op<piecewise_quadratic_backward>(
        "flows_piecewise_quadratic_backward(Tensor grad_value, Tensor grad_logdet, Tensor x, Tensor raw, bool inverse) "
        "-> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::flows
