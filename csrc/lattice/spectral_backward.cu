#include "lattice/spectral_backward.h"

#include <tuple>

#include "core/op.h"
#include "lattice/ahead.h"
#include "lattice/spectral_call.h"

namespace hepops::lattice {
namespace {

template <bool inverse, class S, int N>
struct Backward {
  const S* grad_image;
  const double* grad_logdet;
  const S *W, *raw;
  S *grad_W, *grad_raw;
  int bins, count;

  template <class At>
  HEPOPS_HD void operator()(const At& at) const {
    Ahead<At> ahead;
    ahead.add(at, grad_image, 2 * N * N);
    ahead.add(at, W, 2 * N * N);
    ahead.add(at, raw, count);
    typename At::Number seed{};
    at.load(grad_logdet, 1, &seed);
    const auto loop = [&] { return load_matrix<N>(at, W); };
    const auto image = [&] { return load_matrix<N>(at, grad_image); };
    const auto grad = spectral_backward<inverse>(loop, image, seed, row_ahead(at, raw, count, ahead), bins,
                                                 at.row_to(grad_raw, count), Size<N>{});
    store_matrix(at, grad, grad_W);
    at.flush(grad_raw, count);
  }
};

std::tuple<Tensor, Tensor> backward(const Tensor& grad_image, const Tensor& grad_logdet, const Tensor& W,
                                    const Tensor& raw, bool inverse) {
  const int bins = bins_of(W, raw);
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
    core::op<backward>("lattice_spectral_backward(Tensor grad_image, Tensor grad_logdet, Tensor W, Tensor raw, "
                       "bool inverse) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lattice
