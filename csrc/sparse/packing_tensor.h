#pragma once
// A packing as operators pass it: int64 on the CPU, [D, words, batch base, batch bits], then [base, bits, stride] of
// each axis.
#include <algorithm>
#include <array>

#include "core/check.h"
#include "core/launch.h"
#include "core/tensor.h"
#include "sparse/packing.h"

namespace hepops::sparse {

using core::Tensor;

inline Tensor to_tensor(const Packing& p) {
  Tensor packing = torch::stable::empty({4 + 3 * p.dimension}, core::ScalarType::Long);
  int64_t* x = core::out<int64_t>(packing);
  *x++ = p.dimension, *x++ = p.words, *x++ = p.field[0].base, *x++ = p.field[0].bits;
  for (int a = 0; a < p.dimension; ++a) *x++ = p.field[1 + a].base, *x++ = p.field[1 + a].bits, *x++ = p.stride[a];
  return packing;
}

inline Packing from_tensor(const char* name, const Tensor& packing) {
  core::check_int64(name, packing);
  core::check_value(packing.is_cpu() && packing.dim() == 1 && packing.numel() >= 7, name,
                    ": packing must be a small tensor on the CPU");
  const int64_t* x = core::in<int64_t>(packing);
  Packing p{};
  p.dimension = int(x[0]);
  core::check_value(1 <= p.dimension && p.dimension <= max_dimension && packing.numel() == 4 + 3 * p.dimension, name,
                    ": not the packing of an index");
  p.field[0].base = x[2], p.field[0].bits = int(x[3]);
  for (int a = 0; a < p.dimension; ++a)
    p.field[1 + a].base = x[4 + 3 * a], p.field[1 + a].bits = int(x[5 + 3 * a]), p.stride[a] = x[6 + 3 * a];
  lay_out(p);
  core::check_value(p.words == int(x[1]), name, ": not the packing of an index");
  return p;
}

template <int W>
const Key<W>* keys_of(const Tensor& keys) {
  return reinterpret_cast<const Key<W>*>(core::in<int64_t>(keys));
}

// Calls f<W>() with the number of words.
template <class F>
void for_words(int words, const F& f) {
  if (words == 1)
    f.template operator()<1>();
  else
    f.template operator()<2>();
}

// The first numbers of a tensor, on the host. On a GPU this waits: for how large results are, and nothing else.
template <int count>
std::array<int64_t, count> read(const Tensor& on, const int64_t* numbers) {
  std::array<int64_t, count> values;
#ifdef __CUDACC__
  core::on_stream(on, [&](cudaStream_t stream) {
    STD_CUDA_CHECK(cudaMemcpyAsync(values.data(), numbers, sizeof(values), cudaMemcpyDeviceToHost, stream));
    STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  });
#else
  (void)on;
  std::copy_n(numbers, count, values.data());
#endif
  return values;
}

}  // namespace hepops::sparse
