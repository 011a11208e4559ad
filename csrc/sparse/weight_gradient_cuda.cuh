#pragma once
// The tuned kernels of weight_gradient.h for a GPU: weight_gradient_block.h, launched as gpu_table.h says. What runs
// where is as in convolve_cuda.cuh.
#include <bit>

#include "core/for_each.h"
#include "core/sort_pairs.h"
#include "sparse/convolve_cuda.cuh"
#include "sparse/weight_gradient_block.h"

namespace hepops::sparse {

template <class I>
struct OffsetOfEntry {
  const Entry<I>* entries;
  int64_t* offset;
  HEPOPS_HD void operator()(int64_t e) const { offset[e] = entries[e].offset; }
};

template <class Kind, int block, class G>
bool weight_gradient_blocks(const core::Tensor& on, const G& f, const WeightGradientChoice& choice) {
  using Body = WeightGradientBlock<Kind, G, block, block>;
  if (!core::runs_on<Body>(core::device(on))) return false;
  const int64_t size = f.volume * f.matrix_size();
  Body body{f,
            f.gradient,
            1,
            nullptr,
            nullptr,
            in_vectors(f.x, f.in, f.group_in()),
            in_vectors(f.grad, f.out, f.group_out())};
  if (choice.sorted) {
    const core::Tensor keys = torch::stable::new_empty(on, {int64_t(f.list.num_entries)}, core::ScalarType::Long);
    core::for_each(on, f.list.num_entries, OffsetOfEntry{f.list.entries, core::out<int64_t>(keys)});
    const auto [sorted, order] = core::sort_pairs(keys, {}, std::bit_width(uint64_t(f.volume)));
    core::on_stream(
        on, [&](cudaStream_t stream) { STD_CUDA_CHECK(cudaMemsetAsync(f.gradient, 0, size * sizeof(float), stream)); });
    body.keys = core::in<int64_t>(sorted), body.order = core::in<int64_t>(order);
    core::launch_blocks(on, body.blocks(), body);
    return true;
  }
  if (choice.splits == 1) {
    core::launch_blocks(on, body.blocks(), body);
    return true;
  }
  const core::Tensor partial = torch::stable::new_empty(on, {choice.splits * size}, core::ScalarType::Float);
  body.gradient = core::out<float>(partial), body.splits = choice.splits;
  core::launch_blocks(on, body.blocks(), body);
  core::for_each(on, size, AddPartials{body.gradient, f.gradient, size, choice.splits});
  return true;
}

template <class S, class I>
bool weight_gradient_chunks(const core::Tensor& on, const WeightGradient<S, I>& f) {
  if constexpr (std::is_same_v<S, double>) {
    return false;
  } else {
    const auto choice = choose_weight_gradient(f.list.num_rows, f.volume, f.group_in(), f.group_out(), f.groups);
    const auto run_kind = [&]<class Kind>() {
      return choice.block == 64 ? weight_gradient_blocks<Kind, 64>(on, f, choice)
                                : weight_gradient_blocks<Kind, 32>(on, f, choice);
    };
    if constexpr (std::is_same_v<S, float>)
      if (f.tf32 && run_kind.template operator()<core::Tf32>()) return true;
    return run_kind.template operator()<typename KindOf<S>::type>();
  }
}

}  // namespace hepops::sparse
