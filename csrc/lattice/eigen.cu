#include "lattice/eigen.h"

#include <tuple>
#include <vector>

#include "core/op.h"
#include "lattice/eigen_backward.h"
#include "lattice/matrices.h"

namespace hepops::lattice {
namespace {

struct Unitary {
  static constexpr const char* name = "eig: U";
  template <class T, int N>
  HEPOPS_HD static Spectrum<T, N> of(const Matrix<T, N>& U) {
    return eigen_unitary(U);
  }
  template <class T, int N>
  HEPOPS_HD static Matrix<T, N> gradient(const Spectrum<T, N>& s, const T (&values)[N], const Matrix<T, N>& vectors,
                                         const Matrix<T, N>& U) {
    return tangent_gradient(s.vectors, eigen_gradient<OfPhases>(s, values, vectors), U);
  }
};

struct Hermitian {
  static constexpr const char* name = "eigh: H";
  template <class T, int N>
  HEPOPS_HD static Spectrum<T, N> of(const Matrix<T, N>& H) {
    return eigen_hermitian(H);
  }
  template <class T, int N>
  HEPOPS_HD static Matrix<T, N> gradient(const Spectrum<T, N>& s, const T (&values)[N], const Matrix<T, N>& vectors,
                                         const Matrix<T, N>&) {
    return turned_back(s.vectors, eigen_gradient<OfValues>(s, values, vectors));
  }
};

template <class Kind, class S, int N>
struct Decompose {
  const S* A;
  S *values, *vectors;
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    const auto s = Kind::of(load_matrix<N>(at, A));
    at.store(s.values, N, values);
    store_matrix(at, s.vectors, vectors);
  }
};

template <class Kind, class S, int N>
struct DecomposeBackward {
  const S *grad_values, *grad_vectors, *A;
  S* grad_A;
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    const auto M = load_matrix<N>(at, A);
    const auto s = Kind::of(M);
    typename At::Number seeds[N] = {};
    at.load(grad_values, N, seeds);
    store_matrix(at, Kind::gradient(s, seeds, load_matrix<N>(at, grad_vectors), M), grad_A);
  }
};

Tensor values_of(const Tensor& A) {
  const auto sizes = A.sizes();
  const auto kind = A.scalar_type() == ScalarType::ComplexDouble ? ScalarType::Double : ScalarType::Float;
  return core::in_huge_pages(torch::stable::new_empty(A, {sizes.data(), sizes.size() - 1}, kind));
}

template <class Kind>
std::tuple<Tensor, Tensor> forward(const Tensor& A) {
  check_matrices(Kind::name, A);
  const Tensor from = core::contiguous(A), values = values_of(A), vectors = fresh(A);
  const int64_t n = matrix_count(A);
  for_matrices(A, [&]<class S, int N>() {
    for_each_record(from, n, Decompose<Kind, S, N>{in_parts<S>(from), out_parts<S>(values), out_parts<S>(vectors)});
  });
  return {values, vectors};
}

template <class Kind>
Tensor backward(const Tensor& grad_values, const Tensor& grad_vectors, const Tensor& A) {
  check_matrices(Kind::name, A);
  core::check_same_shape("eig_backward: grad_vectors", grad_vectors, A);
  core::check_value(grad_values.numel() * A.size(A.dim() - 1) == A.numel(), "eig_backward: grad_values has shape ",
                    core::Shape{grad_values});
  const Tensor from = core::contiguous(A), values = core::contiguous(grad_values),
               vectors = core::contiguous(grad_vectors), to = fresh(A);
  const int64_t n = matrix_count(A);
  for_matrices(A, [&]<class S, int N>() {
    for_each_record(
        from, n,
        DecomposeBackward<Kind, S, N>{in_parts<S>(values), in_parts<S>(vectors), in_parts<S>(from), out_parts<S>(to)});
  });
  return to;
}

const core::Operators operators{
    core::op<forward<Unitary>>("_lattice_eig(Tensor U) -> (Tensor, Tensor)"),
    core::op<backward<Unitary>>("_lattice_eig_backward(Tensor grad_phases, Tensor grad_vectors, Tensor U) -> Tensor"),
    core::op<forward<Hermitian>>("_lattice_eigh(Tensor H) -> (Tensor, Tensor)"),
    core::op<backward<Hermitian>>(
        "_lattice_eigh_backward(Tensor grad_values, Tensor grad_vectors, Tensor H) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lattice
