#include "sparse/depthwise.h"

#include <optional>
#include <vector>

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"
#include "sparse/pair_tensors.h"

namespace hepops::sparse {
namespace {

using core::check_type, core::check_value, core::ScalarType, core::Shape;

ScalarType wide_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <class S, class W, class I>
void run([[maybe_unused]] const Tensor& on, const Depthwise<S, W, I>& f) {
#ifdef __CUDACC__
  core::for_each(on, f.list.num_rows * f.channels, f);
#else
  torch::stable::parallel_for(0, f.list.num_tiles, 1, [&](int64_t first, int64_t last) {
    std::vector<Wide<S> > sums(f.list.tile * f.channels);
    for (int64_t tile = first; tile < last; ++tile) depthwise_tile(f, tile, sums.data());
  });
#endif
}

template <class S, class I>
void run([[maybe_unused]] const Tensor& on, const DepthwiseGradient<S, I>& f) {
#ifdef __CUDACC__
  core::for_each(on, f.volume * f.channels, f);
#else
  torch::stable::parallel_for(0, f.volume, 1, [&](int64_t first, int64_t last) {
    std::vector<Wide<S> > part(f.channels);
    for (int64_t kk = first; kk < last; ++kk) depthwise_gradient_row(f, kk, part.data());
  });
#endif
}

#define HEPOPS_LIST const Tensor &pairs, const Tensor &entries, const Tensor &tiles, const Tensor &schedule
#define HEPOPS_BACK_LIST const Tensor&, const Tensor&, const Tensor&, const Tensor&
#define HEPOPS_LISTS_SCHEMA                                              \
  "Tensor pairs, Tensor entries, Tensor tiles, Tensor schedule, Tensor " \
  "back_pairs, Tensor back_entries, Tensor back_tiles, Tensor back_schedule"

Tensor depthwise(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, HEPOPS_LIST,
                 HEPOPS_BACK_LIST, bool flip, bool mirrored) {
  core::check_floating_or_half("depthwise: x", x);
  check_value(x.dim() == 2, "depthwise: x must be (N, C), got shape ", Shape{x});
  const ScalarType kind = weight.scalar_type();
  check_type(kind == x.scalar_type() || kind == wide_type(x), "depthwise: weight has dtype ", toString(kind),
             " where x has ", toString(x.scalar_type()));
  check_value(weight.device() == x.device(), "depthwise: weight must be on the device of x");
  check_value(weight.dim() == 2 && weight.size(1) == x.size(1), "depthwise: weight has shape ", Shape{weight},
              ", expected (K, ", x.size(1), ")");
  check_value(!mirrored || x.size(0) == schedule.size(0), "depthwise: x has ", x.size(0),
              " rows where the kernel map reads ", schedule.size(0));
  const PairTensors list = pair_tensors("depthwise", pairs, entries, tiles, schedule, x);
  const Tensor from = core::contiguous(x), w = core::contiguous(weight);
  std::optional<Tensor> b;
  if (bias) {
    check_type(bias->scalar_type() == x.scalar_type() || bias->scalar_type() == wide_type(x),
               "depthwise: bias has dtype ", toString(bias->scalar_type()), ", expected ", toString(wide_type(x)));
    check_value(bias->device() == x.device(), "depthwise: bias must be on the device of x");
    check_value(bias->dim() == 1 && bias->size(0) == x.size(1), "depthwise: bias has shape ", Shape{*bias},
                ", expected (", x.size(1), ")");
    b = core::contiguous(torch::stable::to(*bias, wide_type(x)));
  }
  const Tensor y = torch::stable::new_empty(from, {schedule.size(0), x.size(1)});
  if (y.numel() == 0) return y;
  core::for_floating_or_half("depthwise: x", x, [&]<class S, class T>() {
    for_index(list, [&]<class I>() {
      const auto with = [&]<class W>(const W* of) {
        run(from, Depthwise<S, W, I>{core::in<S>(from), of, b ? core::in<T>(*b) : nullptr, list.list<I>(),
                                     weight.size(0), x.size(1), flip, core::out<S>(y)});
      };
      if (kind == x.scalar_type())
        with(core::in<S>(w));
      else
        with(core::in<T>(w));
    });
  });
  return y;
}

Tensor depthwise_gradient(const Tensor& x, const Tensor& grad, HEPOPS_LIST, HEPOPS_BACK_LIST, int64_t volume, bool flip,
                          bool mirrored) {
  core::check_floating_or_half("depthwise: x", x);
  core::check_same_kind("depthwise: grad", grad, x);
  check_value(x.dim() == 2, "depthwise: x must be (N, C), got shape ", Shape{x});
  check_value(grad.dim() == 2 && grad.size(0) == schedule.size(0) && grad.size(1) == x.size(1),
              "depthwise: grad has shape ", Shape{grad}, ", expected (", schedule.size(0), ", ", x.size(1), ")");
  check_value(!mirrored || x.size(0) == schedule.size(0), "depthwise: x has ", x.size(0),
              " rows where the kernel map reads ", schedule.size(0));
  const PairTensors list = pair_tensors("depthwise", pairs, entries, tiles, schedule, x);
  const Tensor from = core::contiguous(x), to = core::contiguous(grad);
  const Tensor result = torch::stable::new_empty(from, {volume, x.size(1)}, wide_type(x));
  if (result.numel() == 0) return result;
  core::for_floating_or_half("depthwise: x", x, [&]<class S, class T>() {
    for_index(list, [&]<class I>() {
      run(from, DepthwiseGradient<S, I>{core::in<S>(from), core::in<S>(to), list.list<I>(), core::out<T>(result),
                                        volume, x.size(1), flip});
    });
  });
  return result;
}

const core::Operators operators{
    core::op<depthwise>("sparse_depthwise(Tensor x, Tensor weight, Tensor? bias, " HEPOPS_LISTS_SCHEMA
                        ", bool flip, bool mirrored) -> Tensor"),
    core::op<depthwise_gradient>("_sparse_depthwise_gradient(Tensor x, Tensor grad, " HEPOPS_LISTS_SCHEMA
                                 ", int volume, bool flip, bool mirrored) -> Tensor"),
};

}  // namespace
}  // namespace hepops::sparse
