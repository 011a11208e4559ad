#pragma once
// The tuned kernels of convolve.h for a GPU: convolve_block.h, launched as gpu_table.h says.
//
// bfloat16 and half by the matrix units, with sums in float32; float32 by the ordinary units, and by the matrix units
// in tf32 where it is allowed; both from sm_80 on, float32 also before. float64, and weights of another dtype than x,
// are left to the plain form.
#include "core/for_each.h"
#include "core/launch_blocks.h"
#include "sparse/convolve_block.h"
#include "sparse/gpu_table.h"

namespace hepops::sparse {

// The kind of product for what is stored as S.
template <class S>
struct KindOf;
template <>
struct KindOf<torch::headeronly::BFloat16> {
  using type = core::Bf16;
};
template <>
struct KindOf<torch::headeronly::Half> {
  using type = core::Fp16;
};
template <>
struct KindOf<float> {
  using type = core::Fp32;
};

// Whether rows of `stride` numbers, cut at multiples of `slice`, can be copied 16 bytes at a time.
template <class S>
bool in_vectors(const S* first, int64_t stride, int64_t slice) {
  return reinterpret_cast<uintptr_t>(first) % 16 == 0 && stride * sizeof(S) % 16 == 0 && slice * sizeof(S) % 16 == 0;
}

template <class Kind, int N, bool transposed, class C>
bool convolve_blocks(const core::Tensor& on, const C& c, int splits) {
  using Body = ConvolveBlock<Kind, C, N, transposed>;
  using Sums = ConvolveSums<C>;
  if (!core::runs_on<Body>(core::device(on))) return false;
  const core::Tensor partial =
      torch::stable::new_empty(on, {splits > 1 ? splits * c.list.num_rows * c.out : 0}, core::ScalarType::Float);
  const int64_t columns = transposed ? c.in : c.out, slice = transposed ? c.group_in() : c.group_out();
  const Body body{c, splits, splits > 1 ? core::out<float>(partial) : nullptr, in_vectors(c.x, c.in, c.group_in()),
                  in_vectors(c.weight, columns, slice)};
  const auto tiles = [&](int channels) {
    return c.list.num_tiles * c.groups * TileTask<C>::blocks_of_channels(c, channels);
  };
  core::launch_blocks(on, tiles(N) * splits, body);
  if (splits > 1) core::launch_blocks(on, tiles(Sums::N), Sums{c, splits, body.partial});
  return true;
}

template <class S>
struct Round {
  const float* from;
  S* to;
  HEPOPS_HD void operator()(int64_t n) const { to[n] = S(from[n]); }
};

template <class S, class W, class I>
bool convolve_tiles(const core::Tensor& on, const Convolution<S, W, I>& c) {
  if constexpr (std::is_same_v<S, double>) {
    return false;
  } else {
    const auto choice = choose_convolve(c.list.num_rows, c.volume, c.group_in(), c.group_out(), c.groups);
    if (!choice.tiles || c.in == 0) return false;
    if constexpr (!std::is_same_v<S, W>) {
      const int64_t size = c.volume * c.matrix_size();
      const core::Tensor rounded = torch::stable::new_empty(on, {int64_t(size * sizeof(S))}, core::ScalarType::Byte);
      S* weight = static_cast<S*>(rounded.mutable_data_ptr());
      core::for_each(on, size, Round<S>{c.weight, weight});
      return convolve_tiles(on, Convolution<S, S, I>{c.x, weight, c.list, c.volume, c.rows_read, c.in, c.out, c.groups,
                                                     c.flip, c.transposed, c.epilogue, c.tf32});
    } else {
      const auto run = [&]<class Kind, int N>() {
        return c.transposed ? convolve_blocks<Kind, N, true>(on, c, choice.splits)
                            : convolve_blocks<Kind, N, false>(on, c, choice.splits);
      };
      const auto run_kind = [&]<class Kind>() {
        return choice.channels == 64 ? run.template operator()<Kind, 64>() : run.template operator()<Kind, 32>();
      };
      if constexpr (std::is_same_v<S, float>)
        if (c.tf32 && run_kind.template operator()<core::Tf32>()) return true;
      return run_kind.template operator()<typename KindOf<S>::type>();
    }
  }
}

// Calls f with the problem of a linear layer, its list made; false where the plain form must do.
template <class C, class F>
bool with_itself(const core::Tensor& on, C c, const F& f) {
  const int64_t rows = c.list.num_rows, tiles = c.list.num_tiles;
  if (std::is_same_v<typename C::T, double> || rows > INT32_MAX) return false;
  const core::Tensor list = torch::stable::new_empty(on, {int64_t(3 * rows + 3 * (tiles + 1))}, core::ScalarType::Int);
  int32_t* at = core::out<int32_t>(list);
  auto* pairs = reinterpret_cast<Pair<int32_t>*>(at);
  auto* entries = reinterpret_cast<Entry<int32_t>*>(at + 2 * rows);
  int32_t *first = at + 2 * rows + 2 * (tiles + 1), *schedule = first + tiles + 1;
  core::for_each(on, rows + 1, Itself{pairs, entries, first, schedule, rows, tiles});
  c.list = {pairs, entries, first, schedule, rows, tiles, tiles, rows, tile_on_gpu};
  return f(c);
}

}  // namespace hepops::sparse
