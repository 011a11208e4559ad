#include "sparse/convolve.h"

#include <optional>
#include <string>
#include <tuple>

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"
#include "sparse/pair_tensors.h"
// template <class S, class W, class I> bool convolve_tiles(const Tensor& on, const Convolution<S, W, I>& c):
// true where it has done all that c asks for, false where it leaves it to the plain form.
#ifdef __CUDACC__
#include "sparse/convolve_cuda.cuh"
#else
#include "sparse/convolve_cpu.h"
#include "sparse/torch_halves.h"

namespace hepops::sparse {

template <class S, class W, class I>
bool convolve_tiles(const core::Tensor&, const Convolution<S, W, I>& c) {
  convolve_on_host(c, core::Threads{});
  return true;
}

}  // namespace hepops::sparse
#endif

namespace hepops::sparse {
namespace {

using core::check_type, core::check_value, core::ScalarType, core::Shape;
using Optional = std::optional<Tensor>;

// What is asked for, as tensors; everything contiguous.
struct ConvolveProblem {
  Tensor x, weight;
  std::optional<PairTensors> list;  // none for a linear layer
  bool flip, transposed;
  int64_t groups, in, out;
  Optional bias, residual, scale, shift;  // of a channel: in the dtype of the sums
  double slope = 1;
  Optional raw, activated, moments;
  bool tf32 = false;
};

ScalarType wide_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <class T>
T* pointer(const Optional& x) {
  return x ? core::out<T>(*x) : nullptr;
}

template <class S, class W, class I>
Convolution<S, W, I> convolution(const ConvolveProblem& p) {
  using T = Wide<S>;
  const int64_t rows = p.x.size(0), tile = tile_rows(p.x);
  const PairList<I> itself{nullptr, nullptr, nullptr, nullptr, rows, 0, (rows + tile - 1) / tile, rows, tile};
  return {core::in<S>(p.x),
          core::in<W>(p.weight),
          p.list ? p.list->list<I>() : itself,
          p.list ? p.weight.size(0) : 1,
          p.x.size(0),
          p.in,
          p.out,
          p.groups,
          p.flip,
          p.transposed,
          {pointer<T>(p.bias), pointer<S>(p.residual), pointer<T>(p.scale), pointer<T>(p.shift), T(p.slope),
           pointer<S>(p.raw), pointer<S>(p.activated), pointer<double>(p.moments)},
          p.tf32};
}

// Calls f<S, W>() with the types that x and the weight are stored in.
template <class F>
void for_kinds(const Tensor& x, const Tensor& weight, const F& f) {
  core::for_floating_or_half("x", x, [&]<class S, class T>() {
    if (weight.scalar_type() == x.scalar_type())
      f.template operator()<S, S>();
    else
      f.template operator()<S, T>();
  });
}

template <class C>
void run(const Tensor& on, const C& c) {
  if (c.list.num_rows == 0 || c.out == 0) return;
#ifdef __CUDACC__
  if constexpr (std::is_same_v<typename C::I, int32_t>) {
    if (!c.list.entries) {
      if (!with_itself(on, c, [&](const C& listed) { return convolve_tiles(on, listed); }))
        core::for_each(on, c.list.num_rows * c.out, LinearAt<C>{c});
      return;
    }
  }
#endif
  if (convolve_tiles(on, c)) return;
  core::for_each(on, c.list.num_rows * c.out, ConvolveAt<C>{c});
  if (c.epilogue.moments) core::for_each(on, c.list.num_tiles * c.out, MomentsAt<C>{c});
}

void run(const ConvolveProblem& p) {
  for_kinds(p.x, p.weight, [&]<class S, class W>() {
    if (p.list)
      for_index(*p.list, [&]<class I>() { run(p.x, convolution<S, W, I>(p)); });
    else
      run(p.x, convolution<S, W, int32_t>(p));
  });
}

// One number for each channel written, in the dtype of the sums.
Optional of_channels(const std::string& name, const Optional& given, const ConvolveProblem& p) {
  if (!given) return given;
  const ScalarType kind = given->scalar_type();
  check_type(kind == p.x.scalar_type() || kind == wide_type(p.x), name, " has dtype ", toString(kind), ", expected ",
             toString(wide_type(p.x)));
  check_value(given->device() == p.x.device(), name, " must be on the device of x");
  check_value(given->dim() == 1 && given->size(0) == p.out, name, " has shape ", Shape{*given}, ", expected (", p.out,
              ")");
  return core::contiguous(kind == wide_type(p.x) ? *given : torch::stable::to(*given, wide_type(p.x)));
}

// The operands alone; the weight is (K, A, B), or (A, B).
ConvolveProblem problem(const std::string& name, const Tensor& x, const Tensor& weight, bool flip, bool transposed,
                        int64_t groups) {
  core::check_floating_or_half((name + ": x").c_str(), x);
  check_value(x.dim() == 2, name, ": x must be (N, C), got shape ", Shape{x});
  const ScalarType kind = weight.scalar_type();
  check_type(kind == x.scalar_type() || kind == wide_type(x), name, ": weight has dtype ", toString(kind),
             " where x has ", toString(x.scalar_type()));
  check_value(weight.device() == x.device(), name, ": weight must be on the device of x");
  check_value(groups >= 1, name, ": groups must be at least 1, got ", groups);
  const int64_t A = weight.size(-2), B = weight.size(-1);
  check_value(B % groups == 0, name, ": ", groups, " groups do not divide a weight of shape ", Shape{weight});
  const int64_t in = transposed ? B : A * groups, out = transposed ? A * groups : B;
  check_value(x.size(1) == in, name, ": x has ", x.size(1), " channels, a weight of shape ", Shape{weight},
              transposed ? ", transposed," : "", " reads ", in);
  ConvolveProblem p;
  p.x = core::contiguous(x);
  p.weight = core::contiguous(weight);
  p.flip = flip;
  p.transposed = transposed;
  p.groups = groups;
  p.in = in;
  p.out = out;
  return p;
}

ConvolveProblem problem(const Tensor& x, const Tensor& weight, const Tensor& pairs, const Tensor& entries,
                        const Tensor& tiles, const Tensor& schedule, bool flip, bool transposed, int64_t groups) {
  check_value(weight.dim() == 3 && weight.size(0) >= 1, "convolve: weight must be (K, A, B), got shape ",
              Shape{weight});
  ConvolveProblem p = problem("convolve", x, weight, flip, transposed, groups);
  p.list = pair_tensors("convolve", pairs, entries, tiles, schedule, x);
  return p;
}

#define HEPOPS_LIST const Tensor &pairs, const Tensor &entries, const Tensor &tiles, const Tensor &schedule
#define HEPOPS_LIST_SCHEMA "Tensor pairs, Tensor entries, Tensor tiles, Tensor schedule"
#define HEPOPS_BACK_LIST_SCHEMA "Tensor back_pairs, Tensor back_entries, Tensor back_tiles, Tensor back_schedule"

// The second list is what the gradient of x runs over; here it only says how many rows x must have.
Tensor convolve(const Tensor& x, const Tensor& weight, const Optional& bias, HEPOPS_LIST, const Tensor& /*back_pairs*/,
                const Tensor& /*back_entries*/, const Tensor& /*back_tiles*/, const Tensor& /*back_schedule*/,
                bool flip, bool mirrored, bool transposed, int64_t groups, bool tf32) {
  ConvolveProblem p = problem(x, weight, pairs, entries, tiles, schedule, flip, transposed, groups);
  check_value(!mirrored || x.size(0) == schedule.size(0), "convolve: x has ", x.size(0),
              " rows where the kernel map reads ", schedule.size(0));
  p.bias = of_channels("convolve: bias", bias, p);
  p.tf32 = tf32;
  p.raw = torch::stable::new_empty(p.x, {schedule.size(0), p.out});
  run(p);
  return *p.raw;
}

// y = x W + b, or x W^T + b
Tensor linear(const Tensor& x, const Tensor& weight, const Optional& bias, bool transposed) {
  check_value(weight.dim() == 2, "linear: weight must be (A, B), got shape ", Shape{weight});
  ConvolveProblem p = problem("linear", x, weight, false, transposed, 1);
  p.bias = of_channels("linear: bias", bias, p);
  p.raw = torch::stable::new_empty(p.x, {x.size(0), p.out});
  run(p);
  return *p.raw;
}

enum Outputs : int64_t { raw_wanted = 1, activated_wanted = 2 };

std::tuple<Tensor, Tensor, Tensor> fused(const Tensor& x, const Tensor& weight, HEPOPS_LIST, bool flip, bool transposed,
                                         int64_t groups, const Optional& bias, const Optional& residual,
                                         const Optional& scale, const Optional& shift, double slope, int64_t outputs,
                                         bool moments, bool tf32) {
  ConvolveProblem p = problem(x, weight, pairs, entries, tiles, schedule, flip, transposed, groups);
  check_value(outputs >= 0 && outputs <= 3, "convolve: outputs must be 0 to 3, got ", outputs);
  check_value(!moments || (outputs & raw_wanted), "convolve: moments are those of raw, which is not asked for");
  const int64_t rows = schedule.size(0);
  if (residual) {
    core::check_same_kind("convolve: residual", *residual, x);
    check_value(residual->dim() == 2 && residual->size(0) == rows && residual->size(1) == p.out,
                "convolve: residual has shape ", Shape{*residual}, ", expected (", rows, ", ", p.out, ")");
    p.residual = core::contiguous(*residual);
  }
  p.bias = of_channels("convolve: bias", bias, p);
  p.scale = of_channels("convolve: scale", scale, p);
  p.shift = of_channels("convolve: shift", shift, p);
  p.slope = slope;
  p.tf32 = tf32;
  if (outputs & raw_wanted) p.raw = torch::stable::new_empty(p.x, {rows, p.out});
  if (outputs & activated_wanted) p.activated = torch::stable::new_empty(p.x, {rows, p.out});
  // As many rows as `tiles` has, the last one 0: a length that is never 1 is none that torch.compile takes for fixed.
  if (moments) p.moments = torch::stable::new_zeros(p.x, {tiles.size(0), 2, p.out}, ScalarType::Double);
  if (outputs) run(p);
  const auto or_empty = [&](const Optional& y, ScalarType kind) {
    return y ? *y : torch::stable::new_empty(p.x, {0}, kind);
  };
  return {or_empty(p.raw, x.scalar_type()), or_empty(p.activated, x.scalar_type()),
          or_empty(p.moments, ScalarType::Double)};
}

const core::Operators operators{
    core::op<convolve>("sparse_convolve(Tensor x, Tensor weight, Tensor? bias, " HEPOPS_LIST_SCHEMA
                       ", " HEPOPS_BACK_LIST_SCHEMA ", bool flip, bool mirrored, bool transposed, int groups, "
                       "bool tf32=False) -> Tensor"),
    core::op<linear>("sparse_linear(Tensor x, Tensor weight, Tensor? bias, bool transposed) -> Tensor"),
    core::op<fused>(
        "_sparse_convolve_fused(Tensor x, Tensor weight, " HEPOPS_LIST_SCHEMA
        ", bool flip, bool transposed, int groups, Tensor? bias, Tensor? residual, Tensor? scale, "
        "Tensor? shift, float slope, int outputs, bool moments, bool tf32=False) -> (Tensor, Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::sparse
