#pragma once
// SU(3): matrices are 18 numbers, row by row, real and imaginary parts in turn.
#include "api/execution.h"

namespace hepops::su3 {

constexpr size_t numbers = 18;

inline int64_t count_of(const char* name, size_t size) {
  if (size % numbers)
    throw std::invalid_argument(std::string("hepops: ") + name + " has " + std::to_string(size) +
                                " numbers, expected 18 for each matrix");
  return int64_t(size / numbers);
}

// exp(TA(X)), TA the traceless anti-hermitian part
inline void exp(const Context& context, std::span<const double> X, std::span<double> U) {
  check_size("U", U.size(), X.size());
  context.check(hepops_su3_exp(context.get(), count_of("X", X.size()), X.data(), U.data()));
}

inline void exp_backward(const Context& context, std::span<const double> grad_U, std::span<const double> X,
                         std::span<double> grad_X) {
  check_size("grad_U", grad_U.size(), X.size());
  check_size("grad_X", grad_X.size(), X.size());
  context.check(
      hepops_su3_exp_backward(context.get(), count_of("X", X.size()), grad_U.data(), X.data(), grad_X.data()));
}

// The nearest unitary matrix, the phase of its determinant taken away
inline void project(const Context& context, std::span<const double> M, std::span<double> U) {
  check_size("U", U.size(), M.size());
  context.check(hepops_su3_project(context.get(), count_of("M", M.size()), M.data(), U.data()));
}

inline void project_backward(const Context& context, std::span<const double> grad_U, std::span<const double> M,
                             std::span<double> grad_M) {
  check_size("grad_U", grad_U.size(), M.size());
  check_size("grad_M", grad_M.size(), M.size());
  context.check(
      hepops_su3_project_backward(context.get(), count_of("M", M.size()), grad_U.data(), M.data(), grad_M.data()));
}

// links (D, sites, 3, 3) -> the sums of the products of links around each, c0 times the plaquettes', c1 the rectangles'
inline void staples(const Context& context, std::span<const int64_t> extents, double c0, double c1,
                    std::span<const double> links, std::span<double> A) {
  if (extents.size() > 4)
    throw std::invalid_argument("hepops: extents must be of 1 to 4 dimensions, got " + std::to_string(extents.size()));
  int64_t n[4] = {1, 1, 1, 1};
  for (size_t mu = 0; mu < extents.size(); ++mu) n[mu] = extents[mu];
  const size_t size = product("links", {int64_t(numbers), int64_t(extents.size()), n[0], n[1], n[2], n[3]});
  check_size("links", links.size(), size);
  check_size("A", A.size(), size);
  context.check(
      hepops_su3_staples(context.get(), int64_t(extents.size()), extents.data(), c0, c1, links.data(), A.data()));
}

}  // namespace hepops::su3
