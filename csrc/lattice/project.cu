#include "lattice/project.h"

#include "core/op.h"
#include "lattice/logarithm.h"
#include "lattice/matrices.h"

namespace hepops::lattice {
namespace {

struct Project {
  static constexpr const char* argument = "M";
  template <class M>
  HEPOPS_HD static M apply(const M& A) {
    return project_of(A);
  }
  template <class M>
  HEPOPS_HD static M apply_backward(const M& G, const M& A) {
    return project_of_backward(G, A);
  }
};

struct Log {
  static constexpr const char* argument = "U";
  template <class M>
  HEPOPS_HD static M apply(const M& U) {
    return log_of(U);
  }
  template <class M>
  HEPOPS_HD static M apply_backward(const M& G, const M& U) {
    return log_of_backward(G, U);
  }
};

struct GramSchmidt {
  static constexpr const char* argument = "M";
  template <class M>
  HEPOPS_HD static M apply(const M& A) {
    return gram_schmidt(A);
  }
};

Tensor project(const Tensor& M) { return map_matrices<Project>("project", M); }
Tensor project_backward(const Tensor& grad, const Tensor& M) {
  return map_matrices_backward<Project>("project_backward", grad, M);
}
Tensor log(const Tensor& U) { return map_matrices<Log>("log", U); }
Tensor log_backward(const Tensor& grad, const Tensor& U) { return map_matrices_backward<Log>("log_backward", grad, U); }
Tensor reunitarise(const Tensor& M) { return map_matrices<GramSchmidt>("project", M); }

const core::Operators operators{
    core::op<project>("_lattice_project(Tensor M) -> Tensor"),
    core::op<project_backward>("_lattice_project_backward(Tensor grad, Tensor M) -> Tensor"),
    core::op<log>("_lattice_log(Tensor U) -> Tensor"),
    core::op<log_backward>("_lattice_log_backward(Tensor grad, Tensor U) -> Tensor"),
    core::op<reunitarise>("_lattice_reunitarise(Tensor M) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lattice
