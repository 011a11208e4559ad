#include "lattice/spectral.h"

#include <tuple>

#include "core/op.h"
#include "lattice/ahead.h"
#include "lattice/spectral_call.h"

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
    Ahead<At> ahead;
    ahead.add(at, W, 2 * N * N);
    ahead.add(at, raw, count);
    const auto result = spectral<inverse>(load_matrix<N>(at, W), row_ahead(at, raw, count, ahead), bins);
    store_matrix(at, result.W, image);
    at.store(&result.logdet, 1, logdet);
  }
};

Tensor logdets_of(const Tensor& W) {
  const auto sizes = W.sizes();
  return torch::stable::new_empty(W, {sizes.data(), sizes.size() - 2}, ScalarType::Double);
}

std::tuple<Tensor, Tensor> forward(const Tensor& W, const Tensor& raw, bool inverse) {
  const int bins = bins_of(W, raw);
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

const core::Operators operators{
    core::op<forward>("lattice_spectral(Tensor W, Tensor raw, bool inverse) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lattice
