#include "core/sort_pairs.h"

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"
#include "core/radix_sort.h"

#ifdef __CUDACC__
#include <cub/device/device_radix_sort.cuh>
#endif

namespace hepops::core {
namespace {

struct Iota {
  int64_t* values;
  HEPOPS_HD void operator()(int64_t i) const { values[i] = i; }
};

#ifdef __CUDACC__

void sort(const Tensor& keys, const int64_t* payload, int64_t bits, int64_t* sorted_keys, int64_t* sorted_payload) {
  const int64_t n = keys.numel();
  Tensor iota;
  if (!payload) {
    iota = core::empty_like(keys);
    payload = out<int64_t>(iota);
    for_each(keys, n, Iota{out<int64_t>(iota)});
  }
  if (bits == 0) {  // of which CUB would make nothing
    on_stream(keys, [&](cudaStream_t stream) {
      const size_t bytes = n * sizeof(int64_t);
      STD_CUDA_CHECK(cudaMemcpyAsync(sorted_keys, in<int64_t>(keys), bytes, cudaMemcpyDeviceToDevice, stream));
      STD_CUDA_CHECK(cudaMemcpyAsync(sorted_payload, payload, bytes, cudaMemcpyDeviceToDevice, stream));
    });
    return;
  }
  with_workspace(keys, [&](void* workspace, size_t& bytes, cudaStream_t stream) {
    return cub::DeviceRadixSort::SortPairs(workspace, bytes, in<int64_t>(keys), sorted_keys, payload, sorted_payload, n,
                                           0, int(bits), stream);
  });
}

#else

void sort(const Tensor& keys, const int64_t* payload, int64_t bits, int64_t* sorted_keys, int64_t* sorted_payload) {
  const Tensor other_keys = core::empty_like(keys), other_payload = core::empty_like(keys);
  radix_sort_pairs<int64_t>({in<int64_t>(keys), payload}, keys.numel(), int(bits), {sorted_keys, sorted_payload},
                            {out<int64_t>(other_keys), out<int64_t>(other_payload)}, Threads{});
}

#endif

}  // namespace

std::tuple<Tensor, Tensor> sort_pairs(const Tensor& keys, const std::optional<Tensor>& payload, int64_t bits) {
  check_int64("sort_pairs: keys", keys);
  check_value(keys.dim() == 1, "sort_pairs: keys must be (N), got shape ", Shape{keys});
  check_value(0 <= bits && bits <= 64, "sort_pairs: bits must be 0 to 64, got ", bits);
  if (payload) check_same_shape("sort_pairs: payload", *payload, keys);
  const Tensor k = core::contiguous(keys), p = payload ? core::contiguous(*payload) : Tensor();
  Tensor sorted_keys = core::empty_like(k), sorted_payload = core::empty_like(k);
  if (k.numel() > 0)
    sort(k, payload ? in<int64_t>(p) : nullptr, bits, out<int64_t>(sorted_keys), out<int64_t>(sorted_payload));
  return {sorted_keys, sorted_payload};
}

namespace {
const Operators operators{op<sort_pairs>("sort_pairs(Tensor keys, Tensor? payload, int bits) -> (Tensor, Tensor)")};
}

}  // namespace hepops::core
