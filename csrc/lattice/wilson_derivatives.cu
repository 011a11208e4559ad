// Backward of the action, the force and the traces, and the action's second derivative (the laws: wilson.h).
#include "core/op.h"
#include "lattice/wilson_rules.h"
#include "lattice/wilson_staples.h"

namespace hepops::lattice {
namespace {

// -(beta/N) grad A^+ with grad of each configuration
Tensor wilson_action_backward(const Tensor& grad, const Tensor& links, double beta, double c1, bool wide) {
  const Gauge g = checked_links("wilson_action_backward", links);
  core::check_value(grad.dim() == 1 && grad.size(0) == g.batch && grad.scalar_type() == ScalarType::Double,
                    "wilson_action_backward: grad must be float64 of shape (B), got ", core::Shape{grad});
  const Tensor U = core::contiguous(links), per_config = core::contiguous(grad);
  const Tensor out = core::in_huge_pages(core::empty_like(U));
  if (g.batch == 0) return out;
  for_links(U, wide, [&]<class S, class T, int N>() {
    Beside<S> beside;
    beside.factor = -beta / N;
    beside.of_config = core::in<double>(per_config);
    for_all_staples<S, T, N>(U, g, Coefficients::improved(c1), beside, StapleRule<N, true>{}, reals_out<S>(out));
  });
  return out;
}

// The second derivative of c0 sum P + c1 sum R along V: DA[V]^+
Tensor wilson_hessian(const Tensor& V, const Tensor& links, double c0, double c1, bool wide) {
  const Gauge g = checked_links("wilson_hessian", links);
  check_like("wilson_hessian", "the direction", V, links);
  const Tensor U = core::contiguous(links), along = core::contiguous(V);
  const Tensor out = core::in_huge_pages(core::empty_like(U));
  if (g.batch == 0) return out;
  for_links(U, wide, [&]<class S, class T, int N>() {
    Beside<S> beside;
    beside.V = reals<S>(along);
    for_all_staples<S, T, N>(U, g, {c0, c1}, beside, HessianRule<N>{}, reals_out<S>(out));
  });
  return out;
}

Tensor wilson_force_backward(const Tensor& grad, const Tensor& links, double beta, double c1, bool wide) {
  const Gauge g = checked_links("wilson_force_backward", links);
  check_like("wilson_force_backward", "grad", grad, links);
  const Tensor U = core::contiguous(links), G = core::contiguous(grad);
  const Tensor X = core::in_huge_pages(core::empty_like(U)), W = core::in_huge_pages(core::empty_like(U));
  const Tensor out = core::in_huge_pages(core::empty_like(U));
  if (g.batch == 0) return out;
  for_links(U, wide, [&]<class S, class T, int N>() {
    core::for_each(U, g.links(),
                   ForceSeeds<S, T, N>{reals<S>(G), reals<S>(U), reals_out<S>(X), reals_out<S>(W), beta / (2 * N)});
    Beside<S> beside;
    beside.V = reals<S>(W), beside.X = reals<S>(X);
    for_all_staples<S, T, N>(U, g, Coefficients::improved(c1), beside, ForceBackwardRule<N>{}, reals_out<S>(out));
  });
  return out;
}

// Each loop times the gradient of its trace.
Tensor loop_traces_backward(const Tensor& grad, const Tensor& links, bool wide) {
  const Gauge g = checked_links("loop_traces_backward", links);
  const Tensor U = core::contiguous(links), weights = core::contiguous(grad);
  const Tensor out = core::in_huge_pages(core::empty_like(U));
  if (g.batch == 0) return out;
  for_links(U, wide, [&]<class S, class T, int N>() {
    Beside<S> beside;
    beside.weights = core::in<S>(weights);
    beside.loops = int(weights.size(1));
    for_all_staples<S, T, N>(U, g, {1, 1}, beside, StapleRule<N, true>{}, reals_out<S>(out));
  });
  return out;
}

const core::Operators operators{
    core::op<wilson_action_backward>("lattice_wilson_action_backward(Tensor grad, Tensor links, float beta, float c1, "
                                     "bool wide) -> Tensor"),
    core::op<wilson_hessian>("_lattice_wilson_hessian(Tensor direction, Tensor links, float c0, float c1, bool wide) "
                             "-> Tensor"),
    core::op<wilson_force_backward>("lattice_wilson_force_backward(Tensor grad, Tensor links, float beta, float c1, "
                                    "bool wide) -> Tensor"),
    core::op<loop_traces_backward>("lattice_loop_traces_backward(Tensor grad, Tensor links, bool wide) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lattice
