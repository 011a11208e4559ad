#pragma once
// The kernels of convolve_cpu.h: MR rows times NV vectors of channels, whose sums stay in registers.
//
//   s[m][c] += sum over i of x[m][i] w[i][c]
//
// X is what x and w are stored in: float or double; or Brain, of which pairs are multiplied and added to a float by one
// instruction, w having its rows interleaved by twos.
#include <array>
#include <vector>

#include "sparse/halves.h"
#include "sparse/simd.h"

namespace hepops::sparse {

template <class X>
using SumOf = std::conditional_t<std::is_same_v<X, Brain>, float, X>;

// How many rows are added at a time, beside NV vectors of channels: their sums, the weights and a number of x are to
// stay in registers.
constexpr int rows_at_once(int NV) {
  if (simd_registers == 32) return NV == 1 ? 16 : NV == 2 ? 12 : NV == 3 ? 8 : NV == 4 ? 6 : 5;
  return NV == 1 ? 8 : NV == 2 ? 6 : 4;
}
constexpr int max_panel = simd_registers == 32 ? 5 : 3;  // vectors in a panel

template <class X>
struct Block {
  using T = SumOf<X>;
  const X* const* x;  // of the rows
  T* const* sums;
  int64_t x_at, sums_at;
  const X* w;
  int64_t depth, stride;  // rows of w, and their distance (of two of them for Brain)

  template <int V, int MR, int NV>
  static void add(const Block& b) {
    using Vec = Simd<T, V>;
    typename Vec::type s[MR][NV];
    const X* x[MR];
    unroll<MR>(HEPOPS_UNROLLED(m) {
      x[m] = b.x[m] + b.x_at;
      unroll<NV>(HEPOPS_UNROLLED(n) { s[m][n] = Vec::load(b.sums[m] + b.sums_at + n * V); });
    });
    const X* w = b.w;
    for (int64_t i = 0; i < b.depth; i += std::is_same_v<X, Brain> ? 2 : 1, w += b.stride) {
      typename Vec::type row[NV];
      unroll<NV>(HEPOPS_UNROLLED(n) { row[n] = load<V>(w, n); });
      unroll<MR>(HEPOPS_UNROLLED(m) {
        if constexpr (std::is_same_v<X, T>) {
          const T a = x[m][i];
          unroll<NV>(HEPOPS_UNROLLED(n) { s[m][n] += a * row[n]; });
        } else {
          const typename Simd<uint32_t, V>::type a = typename Simd<uint32_t, V>::type{} + two(x[m] + i);
          unroll<NV>(HEPOPS_UNROLLED(n) { asm("vdpbf16ps %2, %1, %0" : "+v"(s[m][n]) : "v"(row[n]), "v"(a)); });
        }
      });
    }
    unroll<MR>(
        HEPOPS_UNROLLED(m) { unroll<NV>(HEPOPS_UNROLLED(n) { Vec::store(b.sums[m] + b.sums_at + n * V, s[m][n]); }); });
  }

 private:
  template <int V>
  [[gnu::always_inline]] static typename Simd<T, V>::type load(const X* w, int n) {
    return Simd<T, V>::load(reinterpret_cast<const T*>(w) + n * V);
  }
  [[gnu::always_inline]] static uint32_t two(const X* x) {
    uint32_t bits;
    __builtin_memcpy(&bits, x, 4);
    return bits;
  }
};

template <class X>
using AddBlock = void (*)(const Block<X>&);

// The kernels of 1 ... rows_at_once(NV) rows
template <class X, int V, int NV>
constexpr auto blocks_of = []<int... M>(std::integer_sequence<int, M...>) {
  return std::array<AddBlock<X>, sizeof...(M)>{Block<X>::template add<V, M + 1, NV>...};
}(std::make_integer_sequence<int, rows_at_once(NV)>{});

// Calls f<V>() with the lanes of the narrowest vector that holds all channels, or of the widest.
template <class X, class F>
void for_lanes(int64_t channels, const F& f) {
  constexpr int V = full_lanes<SumOf<X>>, least = std::is_same_v<X, Brain> ? V : 16 / int(sizeof(X));
  if (V / 4 >= least && channels <= V / 4)
    f.template operator()<std::max(V / 4, least)>();
  else if (V / 2 >= least && channels <= V / 2)
    f.template operator()<std::max(V / 2, least)>();
  else
    f.template operator()<V>();
}

// Calls f<NV>(first, size) for panels of nearly one width that cover the channels, the last perhaps in part.
template <class X, int V, class F>
void for_panels(int64_t channels, const F& f) {
  constexpr int most = V < full_lanes<SumOf<X>> ? 1 : max_panel;  // a narrow vector holds all
  const int64_t vectors = (channels + V - 1) / V, number = (vectors + most - 1) / most;
  for (int64_t n = 0; n < number; ++n) {
    const int64_t from = vectors * n / number, to = vectors * (n + 1) / number;
    unroll<most>(HEPOPS_UNROLLED(v) {
      if (to - from == v + 1) f.template operator()<v + 1>(from * V, std::min(to * V, channels) - from * V);
    });
  }
}

// Channels [first, first + size) of a group, and who adds them up.
template <class X>
struct Panel {
  int64_t group, first, size;
  int rows;                // at once
  const AddBlock<X>* add;  // for 1 ... rows
};

// A group's channels in panels of nearly one width, and the distance of its rows in the scratch.
template <class X>
struct Panels {
  std::vector<Panel<X>> panels;
  int64_t padded;  // channels of a group in the scratch
  int lanes;

  Panels(int64_t channels, int64_t groups) {
    for_lanes<X>(channels, [&]<int V>() {
      lanes = V;
      padded = (channels + V - 1) / V * V;
      for (int64_t g = 0; g < groups; ++g)
        for_panels<X, V>(channels, [&]<int NV>(int64_t first, int64_t size) {
          panels.push_back({g, first, size, rows_at_once(NV), blocks_of<X, V, NV>.data()});
        });
    });
  }
};

}  // namespace hepops::sparse
