#include "lattice/exponential.h"

#include "core/op.h"
#include "lattice/matrices.h"

namespace hepops::lattice {
namespace {

struct Exp {
  static constexpr const char* argument = "X";
  template <class M>
  HEPOPS_HD static M apply(const M& X) {
    return exp_of(X);
  }
  template <class M>
  HEPOPS_HD static M apply_backward(const M& G, const M& X) {
    return exp_of_backward(G, X);
  }
};

Tensor forward(const Tensor& X) { return map_matrices<Exp>("exp", X); }
Tensor backward(const Tensor& grad, const Tensor& X) { return map_matrices_backward<Exp>("exp_backward", grad, X); }

const core::Operators operators{
    core::op<forward>("_lattice_exp(Tensor X) -> Tensor"),
    core::op<backward>("_lattice_exp_backward(Tensor grad, Tensor X) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lattice
