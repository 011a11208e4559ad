#pragma once
// What the spectral coupling's forward and backward operators share: their checks.
#include "lattice/matrices.h"

namespace hepops::lattice {

// raw: (..., N - 1, 3 K + 1) -> K
inline int bins_of(const Tensor& W, const Tensor& raw) {
  check_matrices("spectral: W", W);
  const bool wide = W.scalar_type() == ScalarType::ComplexDouble;
  core::check_type(raw.scalar_type() == (wide ? ScalarType::Double : ScalarType::Float), "spectral: raw has dtype ",
                   toString(raw.scalar_type()), ", which does not go with W of dtype ", toString(W.scalar_type()));
  core::check_value(W.device() == raw.device(), "spectral: raw must be on the device of W");
  const int64_t d = W.dim(), N = W.size(d - 1);
  core::check_value(
      raw.dim() == d && raw.sizes().slice(0, d - 2).equals(W.sizes().slice(0, d - 2)) && raw.size(d - 2) == N - 1,
      "spectral: raw has shape ", core::Shape{raw}, " where W has ", core::Shape{W});
  const int64_t P = raw.size(d - 1), bins = (P - 1) / 3;
  core::check_value(bins >= 1 && bins < 1000 && 3 * bins + 1 == P,
                    "spectral: raw must hold 3 K + 1 parameters, K from 1 to 999, got ", P);
  return int(bins);
}

}  // namespace hepops::lattice
