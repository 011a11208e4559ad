#pragma once
// What operators on complex matrices share: checks, and calls that are chosen by N and the dtype.
#include <string>

#include "core/check.h"
#include "core/huge_pages.h"
#include "core/tensor.h"
#include "lattice/records.h"

namespace hepops::lattice {

using core::ScalarType, core::Tensor;

// The real and imaginary parts, in turn.
template <class S>
const S* in_parts(const Tensor& x) {
  return static_cast<const S*>(x.const_data_ptr());
}
template <class S>
S* out_parts(const Tensor& x) {
  return static_cast<S*>(x.mutable_data_ptr());
}

inline void check_complex(const std::string& name, const Tensor& x) {
  core::check_type(x.scalar_type() == ScalarType::ComplexFloat || x.scalar_type() == ScalarType::ComplexDouble, name,
                   " must be complex64 or complex128, got ", toString(x.scalar_type()));
}

inline void check_matrices(const std::string& name, const Tensor& x) {
  check_complex(name, x);
  const int64_t d = x.dim(), n = d < 2 ? 0 : x.size(d - 1);
  core::check_value((n == 2 || n == 3) && x.size(d - 2) == n, name, " must have shape (..., N, N), N = 2 or 3, got ",
                    core::Shape{x});
}

// Calls f<S, N>() with the dtype of the parts and the size of the matrices.
template <class F>
void for_matrices(const Tensor& x, const F& f) {
  const bool two = x.size(x.dim() - 1) == 2;
  if (x.scalar_type() == ScalarType::ComplexDouble)
    two ? f.template operator()<double, 2>() : f.template operator()<double, 3>();
  else
    two ? f.template operator()<float, 2>() : f.template operator()<float, 3>();
}

inline int64_t matrix_count(const Tensor& x) {
  int64_t n = 1;
  for (int64_t d = 0; d < x.dim() - 2; ++d) n *= x.size(d);
  return n;
}

inline Tensor fresh(const Tensor& x) { return core::in_huge_pages(core::empty_like(x)); }

// Law::apply(A): a matrix for a matrix.
template <class Law, class S, int N>
struct MapMatrices {
  const S* A;
  S* B;
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    store_matrix(at, Law::apply(load_matrix<N>(at, A)), B);
  }
};

// Law::apply_backward(G, A): the gradient of A.
template <class Law, class S, int N>
struct MapMatricesBackward {
  const S *G, *A;
  S* grad_A;
  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    const auto M = load_matrix<N>(at, A);
    store_matrix(at, Law::apply_backward(load_matrix<N>(at, G), M), grad_A);
  }
};

template <class Law>
Tensor map_matrices(const char* name, const Tensor& A) {
  check_matrices(std::string(name) + ": " + Law::argument, A);
  const Tensor from = core::contiguous(A), to = fresh(A);
  const int64_t n = matrix_count(A);
  for_matrices(A, [&]<class S, int N>() {
    for_each_record(from, n, MapMatrices<Law, S, N>{in_parts<S>(from), out_parts<S>(to)});
  });
  return to;
}

template <class Law>
Tensor map_matrices_backward(const char* name, const Tensor& G, const Tensor& A) {
  check_matrices(std::string(name) + ": " + Law::argument, A);
  core::check_same_shape((std::string(name) + ": grad").c_str(), G, A);
  const Tensor seed = core::contiguous(G), from = core::contiguous(A), to = fresh(A);
  const int64_t n = matrix_count(A);
  for_matrices(A, [&]<class S, int N>() {
    for_each_record(from, n, MapMatricesBackward<Law, S, N>{in_parts<S>(seed), in_parts<S>(from), out_parts<S>(to)});
  });
  return to;
}

}  // namespace hepops::lattice
