#include "sparse/weight_gradient.h"

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"
#include "sparse/pair_tensors.h"
// template <class S, class I> bool weight_gradient_chunks(const Tensor& on, const WeightGradient<S, I>& f):
// true where it has written all of f.gradient, false where it leaves it to the plain form.
#ifdef __CUDACC__
#include "sparse/weight_gradient_cuda.cuh"
#else
#include "sparse/torch_halves.h"
#include "sparse/weight_gradient_cpu.h"

namespace hepops::sparse {

template <class S, class I>
bool weight_gradient_chunks(const core::Tensor&, const WeightGradient<S, I>& f) {
  weight_gradient_on_host(f, core::Threads{});
  return true;
}

}  // namespace hepops::sparse
#endif

namespace hepops::sparse {
namespace {

using core::check_value, core::ScalarType, core::Shape;

template <class G>
void run(const Tensor& on, const G& f) {
  const int64_t size = f.volume * f.matrix_size();
  if (size == 0) return;
#ifdef __CUDACC__
  if constexpr (std::is_same_v<typename G::I, int32_t>) {
    if (!f.list.entries) {
      if (!with_itself(on, f, [&](const G& listed) { return weight_gradient_chunks(on, listed); }))
        core::for_each(on, size, LinearGradientAt<G>{f});
      return;
    }
  }
#endif
  if (!weight_gradient_chunks(on, f)) core::for_each(on, size, WeightGradientAt<G>{f});
}

Tensor weight_gradient(const Tensor& x, const Tensor& grad, const Tensor& pairs, const Tensor& entries,
                       const Tensor& tiles, const Tensor& schedule, const Tensor& /*back_pairs*/,
                       const Tensor& /*back_entries*/, const Tensor& /*back_tiles*/, const Tensor& /*back_schedule*/,
                       int64_t volume, bool flip, bool mirrored, bool transposed, int64_t groups, bool tf32) {
  core::check_floating_or_half("weight_gradient: x", x);
  core::check_same_kind("weight_gradient: grad", grad, x);
  check_value(x.dim() == 2, "weight_gradient: x must be (N, C), got shape ", Shape{x});
  check_value(grad.dim() == 2 && grad.size(0) == schedule.size(0), "weight_gradient: grad has shape ", Shape{grad},
              " where the kernel map writes ", schedule.size(0), " rows");
  check_value(!mirrored || x.size(0) == schedule.size(0), "weight_gradient: x has ", x.size(0),
              " rows where the kernel map reads ", schedule.size(0));
  check_value(volume >= 1, "weight_gradient: volume must be at least 1, got ", volume);
  check_value(groups >= 1 && x.size(1) % groups == 0 && grad.size(1) % groups == 0, "weight_gradient: ", groups,
              " groups do not divide ", x.size(1), " and ", grad.size(1), " channels");
  const PairTensors list = pair_tensors("weight_gradient", pairs, entries, tiles, schedule, x);
  const Tensor from = core::contiguous(x), to = core::contiguous(grad);
  const int64_t in = x.size(1), out = grad.size(1);
  const int64_t rows = (transposed ? out : in) / groups, columns = transposed ? in : out;
  Tensor result;
  core::for_floating_or_half("weight_gradient: x", x, [&]<class S, class T>() {
    constexpr ScalarType kind = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;
    result = torch::stable::new_empty(from, {volume, rows, columns}, kind);
    for_index(list, [&]<class I>() {
      const WeightGradient<S, I> f{core::in<S>(from),
                                   core::in<S>(to),
                                   list.list<I>(),
                                   core::out<T>(result),
                                   volume,
                                   x.size(0),
                                   in,
                                   out,
                                   groups,
                                   flip,
                                   transposed,
                                   tf32};
      run(from, f);
    });
  });
  return result;
}

// x^T grad, or grad^T x: a weight (A, B) of `linear`
Tensor linear_gradient(const Tensor& x, const Tensor& grad, bool transposed) {
  core::check_floating_or_half("linear: x", x);
  core::check_same_kind("linear: grad", grad, x);
  check_value(x.dim() == 2 && grad.dim() == 2 && x.size(0) == grad.size(0), "linear: grad has shape ", Shape{grad},
              " where x has ", Shape{x});
  const Tensor from = core::contiguous(x), to = core::contiguous(grad);
  const int64_t in = x.size(1), out = grad.size(1), rows = x.size(0), tile = tile_rows(x);
  Tensor result;
  core::for_floating_or_half("linear: x", x, [&]<class S, class T>() {
    constexpr ScalarType kind = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;
    result = torch::stable::new_empty(from, {transposed ? out : in, transposed ? in : out}, kind);
    const PairList<int32_t> itself{nullptr, nullptr, nullptr, nullptr, rows, 0, (rows + tile - 1) / tile, rows, tile};
    run(from, WeightGradient<S, int32_t>{core::in<S>(from), core::in<S>(to), itself, core::out<T>(result), 1, rows, in,
                                         out, 1, false, transposed});
  });
  return result;
}

const core::Operators operators{
    core::op<linear_gradient>("_sparse_linear_gradient(Tensor x, Tensor grad, bool transposed) -> Tensor"),
    core::op<weight_gradient>(
        "sparse_weight_gradient(Tensor x, Tensor grad, Tensor pairs, Tensor entries, Tensor tiles, Tensor schedule, "
        "Tensor back_pairs, Tensor back_entries, Tensor back_tiles, Tensor back_schedule, int volume, bool flip, "
        "bool mirrored, bool transposed, int groups, bool tf32=False) -> Tensor"),
};

}  // namespace
}  // namespace hepops::sparse
