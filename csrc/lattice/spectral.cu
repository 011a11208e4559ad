#include "lattice/spectral.h"

#include <tuple>
#include <vector>

#include "core/op.h"
#include "lattice/matrices.h"
#include "lattice/spectral_backward.h"

namespace hepops::lattice {
namespace {

template <bool inverse, class S, int N>
struct Forward {
  const S *W, *raw;
  S* image;
  double* logdet;
  int bins, count;

  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    const auto result = spectral<inverse>(load_matrix<N>(at, W), at.row(raw, count), bins);
    store_matrix(at, result.W, image);
    at.store(&result.logdet, 1, logdet);
  }
};

template <bool inverse, class S, int N>
struct Backward {
  const S* grad_image;
  const double* grad_logdet;
  const S *W, *raw;
  S *grad_W, *grad_raw;
  int bins, count;

  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    typename At::Number seed{};
    at.load(grad_logdet, 1, &seed);
    const auto grad = spectral_backward<inverse>(load_matrix<N>(at, grad_image), seed, load_matrix<N>(at, W),
                                                 at.row(raw, count), bins, at.row_to(grad_raw, count));
    store_matrix(at, grad, grad_W);
    at.flush(grad_raw, count);
  }
};

// raw: (..., N - 1, 3 K + 1) -> K
int checked(const Tensor& W, const Tensor& raw) {
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

Tensor logdets_of(const Tensor& W) {
  const auto sizes = W.sizes();
  return torch::stable::new_empty(W, {sizes.data(), sizes.size() - 2}, ScalarType::Double);
}

std::tuple<Tensor, Tensor> forward(const Tensor& W, const Tensor& raw, bool inverse) {
  const int bins = checked(W, raw);
  const Tensor from = core::contiguous(W), parameters = core::contiguous(raw), image = fresh(W), logdet = logdets_of(W);
  const int64_t n = matrix_count(W);
  for_matrices(W, [&]<class S, int N>() {
    const int count = (N - 1) * (3 * bins + 1);
    const auto run = [&]<bool back>() {
      for_each_record(from, n,
                      Forward<back, S, N>{in_parts<S>(from), in_parts<S>(parameters), out_parts<S>(image),
                                          out_parts<double>(logdet), bins, count},
                      count);
    };
    inverse ? run.template operator()<true>() : run.template operator()<false>();
  });
  return {image, logdet};
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad_image, const Tensor& grad_logdet, const Tensor& W,
                                    const Tensor& raw, bool inverse) {
  const int bins = checked(W, raw);
  core::check_same_shape("spectral_backward: grad_image", grad_image, W);
  core::check_type(grad_logdet.scalar_type() == ScalarType::Double, "spectral_backward: grad_logdet must be float64");
  core::check_value(grad_logdet.numel() == matrix_count(W), "spectral_backward: grad_logdet has shape ",
                    core::Shape{grad_logdet});
  const Tensor from = core::contiguous(W), parameters = core::contiguous(raw), seed = core::contiguous(grad_image),
               seed_logdet = core::contiguous(grad_logdet), grad_W = fresh(W), grad_raw = fresh(raw);
  const int64_t n = matrix_count(W);
  for_matrices(W, [&]<class S, int N>() {
    const int count = (N - 1) * (3 * bins + 1);
    const auto run = [&]<bool back>() {
      for_each_record(
          from, n,
          Backward<back, S, N>{in_parts<S>(seed), in_parts<double>(seed_logdet), in_parts<S>(from),
                               in_parts<S>(parameters), out_parts<S>(grad_W), out_parts<S>(grad_raw), bins, count},
          count);
    };
    inverse ? run.template operator()<true>() : run.template operator()<false>();
  });
  return {grad_W, grad_raw};
}

const core::Operators operators{
    core::op<forward>("lattice_spectral(Tensor W, Tensor raw, bool inverse) -> (Tensor, Tensor)"),
    core::op<backward>("lattice_spectral_backward(Tensor grad_image, Tensor grad_logdet, Tensor W, Tensor raw, "
                       "bool inverse) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lattice
