// SU(3) matrices, as many side by side as a register has lanes.
#include <cstdint>

#include "core/packed.h"
#include "lattice/exponential.h"
#include "lattice/project.h"
#include "sdk/context.h"
#include "sdk/functions.h"

namespace hepops::sdk {
namespace {

using core::Packed;
using Matrices = lattice::Matrix<Packed, 3>;
constexpr int lanes = Packed::size, numbers = 18;

// Matrices [first, first + valid); where they are fewer than the lanes the first stands in for the rest.
Matrices load(const double* from, int64_t first, int valid) {
  Matrices A;
  double lane[lanes];
  for (int k = 0; k < 9; ++k) {
    for (int part = 0; part < 2; ++part) {
      for (int l = 0; l < lanes; ++l) lane[l] = from[(first + (l < valid ? l : 0)) * numbers + 2 * k + part];
      (part ? A(k / 3, k % 3).imag : A(k / 3, k % 3).real) = Packed::load(lane);
    }
  }
  return A;
}

void store(const Matrices& A, int64_t first, int valid, double* to) {
  double lane[lanes];
  for (int k = 0; k < 9; ++k)
    for (int part = 0; part < 2; ++part) {
      (part ? A(k / 3, k % 3).imag : A(k / 3, k % 3).real).store(lane);
      for (int l = 0; l < valid; ++l) to[(first + l) * numbers + 2 * k + part] = lane[l];
    }
}

// to = law(from...), matrix by matrix
template <class Law, class... From>
hepops_status map_matrices(const char* name, hepops_context* context, int64_t count, const Law& law, double* to,
                           const From*... from) {
  return guarded(context, [&] {
    constexpr int64_t most = PTRDIFF_MAX / int64_t(sizeof(double)) / numbers;
    check(count >= 0 && count <= most, name, ": count must be 0 to ", most, ", got ", count);
    check(count == 0 || (to && (from && ...)), name, ": an array is NULL");
    context->parallel()((count + lanes - 1) / lanes, 64, [&](int64_t begin, int64_t end) {
      for (int64_t pack = begin; pack < end; ++pack) {
        const int64_t first = pack * lanes;
        const int valid = int(count - first < lanes ? count - first : lanes);
        store(law(load(from, first, valid)...), first, valid, to);
      }
    });
  });
}

hepops_status exp(hepops_context* context, int64_t count, const double* X, double* U) {
  return map_matrices("su3_exp", context, count, [](const Matrices& A) { return lattice::exp_of(A); }, U, X);
}

hepops_status exp_backward(hepops_context* context, int64_t count, const double* grad_U, const double* X,
                           double* grad_X) {
  return map_matrices(
      "su3_exp_backward", context, count,
      [](const Matrices& G, const Matrices& A) { return lattice::exp_of_backward(G, A); }, grad_X, grad_U, X);
}

hepops_status project(hepops_context* context, int64_t count, const double* M, double* U) {
  return map_matrices("su3_project", context, count, [](const Matrices& A) { return lattice::project_of(A); }, U, M);
}

hepops_status project_backward(hepops_context* context, int64_t count, const double* grad_U, const double* M,
                               double* grad_M) {
  return map_matrices(
      "su3_project_backward", context, count,
      [](const Matrices& G, const Matrices& A) { return lattice::project_of_backward(G, A); }, grad_M, grad_U, M);
}

}  // namespace

void fill_su3(Functions& f) {
  f.su3_exp = exp;
  f.su3_exp_backward = exp_backward;
  f.su3_project = project;
  f.su3_project_backward = project_backward;
}

}  // namespace hepops::sdk
