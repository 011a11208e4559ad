#pragma once
// waveforms.h for a CPU core: the same sums, ordered for SIMD.
//
// The ticks p lie in vectors of 64 bytes. A node's bins are first folded onto the quadrant of the response table; then
// the whole of a[p] stays in registers while the bins stream by, one load and one multiply-add for 16 ticks. In the
// reverse direction each bin's gradient is one dot product with g W. Tested against the plain form; how much faster it
// is, benchmarks/lartpc/bench_waveforms.py measures.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "lartpc/waveforms.h"

namespace hepops::lartpc {

template <class T>
struct Simd {
  static constexpr int lanes = 64 / sizeof(T);
  typedef T type __attribute__((vector_size(64)));
  typedef T unaligned __attribute__((vector_size(64), aligned(alignof(T)), may_alias));
  static type load(const T* p) { return *reinterpret_cast<const unaligned*>(p); }
  static void store(T* p, type x) { *reinterpret_cast<unaligned*>(p) = x; }
  static double sum(type x) {
    double total = 0;
    for (int i = 0; i < lanes; ++i) total += x[i];
    return total;
  }
};

// f(0), f(1) ... f(N - 1) with constants for arguments, so that small arrays of vectors stay in registers.
template <int N, class F>
[[gnu::always_inline]] inline void unroll(const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}
#define HEPOPS_INLINE(i) [&](auto i) __attribute__((always_inline))

// Vectors of the table that one pass works on: so few that the rows a node needs stay in the first-level cache for the
// nodes that follow it, and together with wide_rows enough sums in flight to hide the latency of the multiply-add.
#if defined(__AVX512F__)
constexpr int wide_block = 2;
#else
constexpr int wide_block = 1;
#endif
constexpr int wide_rows = 4;

// The bins of a node along one axis, folded onto the rows [low, low + n) of the table: the weights and their slopes.
template <class T>
struct Column {
  int64_t low, n;
  T w[4][max_bins];

  void fold(const T* weights, int64_t size, int sets, int64_t first, int64_t bins_in_use, int64_t pixel, int bins,
            int B) {
    const int64_t from_centre = first - pixel * bins - bins / 2;
    if (from_centre >= 0) {  // all on the right of the centre
      low = from_centre;
      n = std::max<int64_t>(0, std::min(bins_in_use, B - low));
      for (int k = 0; k < sets; ++k) std::copy_n(weights + k * size, n, w[k]);
    } else if (from_centre + bins_in_use <= 0) {  // all on the left, mirrored
      low = -(from_centre + bins_in_use);
      n = std::max<int64_t>(0, std::min(bins_in_use, B - low));
      for (int k = 0; k < sets; ++k)
        std::reverse_copy(weights + k * size + bins_in_use - n, weights + k * size + bins_in_use, w[k]);
    } else {  // on both sides: where they meet in a row of the table they are added
      low = 0;
      n = std::min<int64_t>(B, std::max(-from_centre, from_centre + bins_in_use));
      for (int k = 0; k < sets; ++k) {
        std::fill_n(w[k], n, T(0));
        for (int64_t b = 0; b < bins_in_use; ++b) {
          const int64_t at = quadrant(first + b, pixel, bins);
          if (at < n) w[k][at] += weights[b + k * size];
        }
      }
    }
  }
};

constexpr int batch = 16;  // nodes of a row that are contracted together

// Scratch of one thread: a[p] and the like, with zeros on both sides, and the folded columns.
template <class T>
struct WaveScratch {
  int64_t stride, pad = max_taps + 4 * Simd<T>::lanes;
  std::vector<T> memory;
  std::vector<Column<T> > columns;
  explicit WaveScratch(int64_t stride_)
      : stride(stride_), memory(3 * batch * (stride_ + 2 * pad) + 2 * Simd<T>::lanes), columns(2 * batch) {}
  T* buffer(int k) { return memory.data() + k * (stride + 2 * pad) + pad; }
};

// a[p] = sum_x w_x sum_y w_y r[x][y][p] for a block of p; with Sigma also its slope with the node's sigma.
template <class T, bool Sigma, int Rows>
[[gnu::always_inline]] inline void contract_rows(const T* table, int64_t stride, int B, const Column<T>& cu,
                                                 const Column<T>& cv, int64_t x, typename Simd<T>::type* a,
                                                 typename Simd<T>::type* a_sigma) {
  using V = Simd<T>;
  typename V::type sum[Rows * wide_block] = {}, slope[Rows * wide_block] = {};
  const T* r = table + ((cu.low + x) * B + cv.low) * stride;
  const int64_t next = B * stride;
  for (int64_t y = 0; y < cv.n; ++y, r += stride) {
    const T w = cv.w[0][y], ws = Sigma ? cv.w[2][y] : T(0);
    unroll<Rows * wide_block>(HEPOPS_INLINE(n) {
      const typename V::type rk = V::load(r + (n / wide_block) * next + (n % wide_block) * V::lanes);
      sum[n] += w * rk;
      if constexpr (Sigma) slope[n] += ws * rk;
    });
  }
  unroll<Rows * wide_block>(HEPOPS_INLINE(n) {
    constexpr int i = n / wide_block, k = n % wide_block;
    a[k] += cu.w[0][x + i] * sum[n];
    if constexpr (Sigma) a_sigma[k] += cu.w[2][x + i] * sum[n] + cu.w[0][x + i] * slope[n];
  });
}

template <class T, bool Sigma>
void contract_block(const T* table, int64_t stride, int B, const Column<T>& cu, const Column<T>& cv, T* a, T* a_sigma) {
  using V = Simd<T>;
  typename V::type sum[wide_block] = {}, slope[wide_block] = {};
  int64_t x = 0;
  for (; x + wide_rows <= cu.n; x += wide_rows)
    contract_rows<T, Sigma, wide_rows>(table, stride, B, cu, cv, x, sum, slope);
  if (x + 2 <= cu.n) {
    contract_rows<T, Sigma, 2>(table, stride, B, cu, cv, x, sum, slope);
    x += 2;
  }
  if (x < cu.n) contract_rows<T, Sigma, 1>(table, stride, B, cu, cv, x, sum, slope);
  unroll<wide_block>(HEPOPS_INLINE(k) {
    V::store(a + k * V::lanes, sum[k]);
    if constexpr (Sigma) V::store(a_sigma + k * V::lanes, slope[k]);
  });
}

// A node created within the response's reach: nothing before p = start, there all at once.
template <class T>
void begin_at(int64_t start, const T* lead, int64_t stride, int B, const Column<T>& cu, const Column<T>& cv, T* a,
              T* a_sigma) {
  if (start == 0) return;
  std::fill_n(a, start, T(0));
  if (a_sigma) std::fill_n(a_sigma, start, T(0));
  T sum = 0, sum_sigma = 0;
  for (int64_t x = 0; x < cu.n; ++x)
    for (int64_t y = 0; y < cv.n; ++y) {
      const T r = lead[((cu.low + x) * B + cv.low + y) * stride + start];
      sum += cu.w[0][x] * cv.w[0][y] * r;
      if (a_sigma) sum_sigma += (cu.w[2][x] * cv.w[0][y] + cu.w[0][x] * cv.w[2][y]) * r;
    }
  a[start] = sum;
  if (a_sigma) a_sigma[start] = sum_sigma;
}

// The part of the lead that was there before the charge: - phi_w(z0), taken off at p = start.
template <class T>
void take_potential(const WaveRow<T>& f, int64_t i, int64_t start, int64_t pixel_u, int64_t pixel_v,
                    const Column<T>& cu, const Column<T>& cv, T* a, T* a_sigma) {
  if (f.response.mode == point) a[start] -= T(point_potential(f.response, f.nodes, i, pixel_u, pixel_v, f.plane));
  if (f.response.mode != table) return;
  for (int64_t x = 0; x < cu.n; ++x)
    for (int64_t y = 0; y < cv.n; ++y) {
      const int64_t bin = (cu.low + x) * f.response.B + cv.low + y;
      const T phi = T(tabulated_potential(f.response, bin, f.nodes(depth, i))[0]);
      a[start] -= cu.w[0][x] * cv.w[0][y] * phi;
      if (a_sigma) a_sigma[start] -= (cu.w[2][x] * cv.w[0][y] + cu.w[0][x] * cv.w[2][y]) * phi;
    }
}

// out[o ...] += y, up to `end`
template <class T>
void add_to(T* out, int64_t o, int64_t end, typename Simd<T>::type y) {
  if (o + Simd<T>::lanes <= end)
    Simd<T>::store(out + o, Simd<T>::load(out + o) + y);
  else
    for (int64_t m = 0; o + m < end; ++m) out[o + m] += y[m];
}

// The pixel that sees a node from the given slot of the square around it.
struct Seen {
  int64_t node, u, v;
  template <class T>
  Seen(const WaveRow<T>& f, int64_t i, int64_t slot)
      : node(i),
        u(pixel_under(f.nodes(Field::u, i), f.plane) + slot / f.plane.side() - f.plane.reach),
        v(pixel_under(f.nodes(Field::v, i), f.plane) + slot % f.plane.side() - f.plane.reach) {}
};

template <class T>
void add_node(const WaveRow<T>& f, int64_t row, const Seen& seen, const Column<T>& cu, const Column<T>& cv, T* a,
              T* a_sigma, T* a_velocity);

// The nodes of a row in batches: all of a batch against one block of the table, then the next block.
template <class T>
void wave_row(const WaveRow<T>& f, int64_t row, WaveScratch<T>& scratch) {
  const int64_t begin = f.rows.offset[row], length = f.rows.offset[row + 1] - begin;
  const int K = f.tangent.K, side = f.plane.side(), B = f.response.B;
  std::fill_n(f.rows.values + begin, length, T(0));
  for (int k = 0; k < K; ++k) std::fill_n(f.rows.tangents + k * f.rows.total + begin, length, T(0));

  const int64_t stride = f.response.stride, step = wide_block * Simd<T>::lanes;
  for (int64_t j = f.rows.pair_offset[row]; j < f.rows.pair_offset[row + 1]; j += batch) {
    const int n = int(std::min<int64_t>(batch, f.rows.pair_offset[row + 1] - j));
    const auto seen = [&](int k) {
      return Seen(f, f.rows.pair[j + k] / (side * side), f.rows.pair[j + k] % (side * side));
    };
    for (int k = 0; k < n; ++k) {
      const Seen at = seen(k);
      const Place& place = f.places[at.node];
      const Weights<const T> w = f.weights_of(at.node);
      scratch.columns[2 * k].fold(w.u, w.size, K ? 3 : 1, place.bin_u, place.bins_u, at.u, f.plane.bins, B);
      scratch.columns[2 * k + 1].fold(w.v, w.size, K ? 3 : 1, place.bin_v, place.bins_v, at.v, f.plane.bins, B);
    }
    for (int64_t p = 0; p < stride; p += step)
      for (int k = 0; k < n; ++k) {
        const Column<T>&cu = scratch.columns[2 * k], &cv = scratch.columns[2 * k + 1];
        T *a = scratch.buffer(3 * k) + p, *a_sigma = scratch.buffer(3 * k + 1) + p;
        if (K)
          contract_block<T, true>(f.response.r + p, stride, B, cu, cv, a, a_sigma);
        else
          contract_block<T, false>(f.response.r + p, stride, B, cu, cv, a, a_sigma);
      }
    if (K)
      for (int64_t p = 0; p < stride; p += step)
        for (int k = 0; k < n; ++k)
          contract_block<T, false>(f.response.rv + p, stride, B, scratch.columns[2 * k], scratch.columns[2 * k + 1],
                                   scratch.buffer(3 * k + 2) + p, nullptr);
    for (int k = 0; k < n; ++k)
      add_node(f, row, seen(k), scratch.columns[2 * k], scratch.columns[2 * k + 1], scratch.buffer(3 * k),
               K ? scratch.buffer(3 * k + 1) : nullptr, scratch.buffer(3 * k + 2));
  }
}

// a, contracted, arrives in time and is added to the row.
template <class T>
void add_node(const WaveRow<T>& f, int64_t row, const Seen& seen, const Column<T>& cu, const Column<T>& cv, T* a,
              T* a_sigma, T* a_velocity) {
  using V = Simd<T>;
  const int64_t i = seen.node, begin = f.rows.offset[row], stride = f.response.stride;
  const int K = f.tangent.K, M = f.response.M, B = f.response.B;
  const Place& at = f.places[i];
  const Weights<const T> w = f.weights_of(i);
  begin_at(at.start, f.response.lead, stride, B, cu, cv, a, a_sigma);
  take_potential(f, i, at.start, seen.u, seen.v, cu, cv, a, a_sigma);
  if (K) begin_at<T>(at.start, f.response.leadv, stride, B, cu, cv, a_velocity, nullptr);

  const int64_t taps = 2 * at.half + 2, end = M + taps;
  const double per_tick = 1 / f.plane.dt, q = f.nodes(charge, i) * per_tick;
  T factor[max_tangents][6];  // of y0, its slopes by time, sigma and width, a_sigma W, a_velocity W
  for (int k = 0; k < K; ++k) {
    const double* d = f.tangent.node + k * 5 * f.nodes.n + i;
    const double n[6] = {d[0] * per_tick,
                         q * d[f.nodes.n] * per_tick,
                         q * d[3 * f.nodes.n] * per_tick,
                         q * d[4 * f.nodes.n] * per_tick,
                         q * d[2 * f.nodes.n],
                         q * f.tangent.velocity[k]};
    for (int m = 0; m < 6; ++m) factor[k][m] = T(n[m]);
  }
  const int64_t base = begin + at.first - f.rows.first[row] - at.start;
  T* out = f.rows.values + base;
  if (K == 0) {
    constexpr int wide = 4;  // sums in flight
    for (int64_t o = at.start; o < end; o += wide * V::lanes) {
      typename V::type y[wide] = {};
      const T* from = a + o;
      for (int64_t t = 0; t < taps; ++t, --from)
        unroll<wide>(HEPOPS_INLINE(k) { y[k] += w.t[t] * V::load(from + k * V::lanes); });
      unroll<wide>(HEPOPS_INLINE(k) { add_to(out, o + k * V::lanes, end, T(q) * y[k]); });
    }
    return;
  }
  for (int64_t o = at.start; o < end; o += 2 * V::lanes) {
    typename V::type y[12] = {};
    for (int64_t t = 0; t < taps; ++t) {
      const T* from = a + o - t;
      const typename V::type x0 = V::load(from), x1 = V::load(from + V::lanes);
      unroll<4>(HEPOPS_INLINE(s) {
        const T ws = w.t[t + s * w.size];
        y[s] += ws * x0;
        y[s + 6] += ws * x1;
      });
      const T wt = w.t[t];
      y[4] += wt * V::load(a_sigma + o - t);
      y[10] += wt * V::load(a_sigma + o - t + V::lanes);
      y[5] += wt * V::load(a_velocity + o - t);
      y[11] += wt * V::load(a_velocity + o - t + V::lanes);
    }
    unroll<2>(HEPOPS_INLINE(h) {
      const int64_t at_o = o + h * V::lanes;
      add_to(out, at_o, end, T(q) * y[6 * h]);
      for (int k = 0; k < K; ++k) {
        typename V::type sum = {};
        unroll<6>(HEPOPS_INLINE(s) { sum += factor[k][s] * y[6 * h + s]; });
        add_to(f.rows.tangents + k * f.rows.total + base, at_o, end, sum);
      }
    });
  }
}

// One block of p in the reverse direction: a as contract_block makes it, and what g W says of the weights.
// With z_x = sum_y w_y r and z_y = sum_x w_x r:  dL/dw_x = z_x . gW,  dL/dw_y = z_y . gW;  by[s] gathers them, times
// the weights' slopes s, lane by lane.
template <class T, int Rows>
[[gnu::always_inline]] inline void reverse_rows(const T* table, int64_t stride, int B, const Column<T>& cu,
                                                const Column<T>& cv, int64_t x, const typename Simd<T>::type* gw,
                                                typename Simd<T>::type* a, typename Simd<T>::type* z_y,
                                                typename Simd<T>::type* by_u) {
  using V = Simd<T>;
  typename V::type z_x[Rows * wide_block] = {};
  const T* r = table + ((cu.low + x) * B + cv.low) * stride;
  const int64_t next = B * stride;
  T wu[Rows];
  unroll<Rows>(HEPOPS_INLINE(i) { wu[i] = cu.w[0][x + i]; });
  for (int64_t y = 0; y < cv.n; ++y, r += stride) {
    typename V::type sum[wide_block];
    unroll<wide_block>(HEPOPS_INLINE(k) { sum[k] = z_y[y * wide_block + k]; });
    const T wv = cv.w[0][y];
    unroll<Rows * wide_block>(HEPOPS_INLINE(n) {
      const typename V::type rk = V::load(r + (n / wide_block) * next + (n % wide_block) * V::lanes);
      z_x[n] += wv * rk;
      sum[n % wide_block] += wu[n / wide_block] * rk;
    });
    unroll<wide_block>(HEPOPS_INLINE(k) { z_y[y * wide_block + k] = sum[k]; });
  }
  unroll<Rows * wide_block>(HEPOPS_INLINE(n) {
    constexpr int i = n / wide_block, k = n % wide_block;
    a[k] += wu[i] * z_x[n];
    const typename V::type product = z_x[n] * gw[k];
    unroll<3>(HEPOPS_INLINE(s) { by_u[s + 1] += cu.w[s + 1][x + i] * product; });
  });
}

template <class T>
void reverse_block(const T* table, int64_t stride, int B, const Column<T>& cu, const Column<T>& cv, const T* gw_from,
                   T* a, typename Simd<T>::type* by_u, typename Simd<T>::type* by_v) {
  using V = Simd<T>;
  typename V::type sum[wide_block] = {}, u[4] = {}, v[4] = {}, gw[wide_block], z_y[max_bins * wide_block];
  unroll<wide_block>(HEPOPS_INLINE(k) { gw[k] = V::load(gw_from + k * V::lanes); });
  for (int64_t y = 0; y < cv.n * wide_block; ++y) z_y[y] = typename V::type{};
  int64_t x = 0;
  for (; x + wide_rows <= cu.n; x += wide_rows)
    reverse_rows<T, wide_rows>(table, stride, B, cu, cv, x, gw, sum, z_y, u);
  if (x + 2 <= cu.n) {
    reverse_rows<T, 2>(table, stride, B, cu, cv, x, gw, sum, z_y, u);
    x += 2;
  }
  if (x < cu.n) reverse_rows<T, 1>(table, stride, B, cu, cv, x, gw, sum, z_y, u);
  for (int64_t y = 0; y < cv.n; ++y) {
    typename V::type product = {};
    unroll<wide_block>(HEPOPS_INLINE(k) { product += z_y[y * wide_block + k] * gw[k]; });
    unroll<3>(HEPOPS_INLINE(s) { v[s + 1] += cv.w[s + 1][y] * product; });
  }
  unroll<3>(HEPOPS_INLINE(s) {
    by_u[s + 1] += u[s + 1];
    by_v[s + 1] += v[s + 1];
  });
  unroll<wide_block>(HEPOPS_INLINE(k) { V::store(a + k * V::lanes, sum[k]); });
}

// Scratch of the reverse direction: of every node of a batch, g with W and its three slopes, what of it the table's
// rows meet, a and a_velocity.
template <class T>
struct ReverseScratch {
  using Vector = typename Simd<T>::type;
  int64_t stride, pad = max_taps + 2 * Simd<T>::lanes;
  std::vector<T> memory, window;
  std::vector<Column<T> > columns;
  struct Node {
    int64_t index, row;
    T *g[4], *table, *a, *a_velocity;
    Vector by_u[4], by_v[4];
    double sum[WaveNode<T>::sums];
  };
  Node nodes[batch];

  explicit ReverseScratch(int64_t stride_)
      : stride(stride_), memory(batch * 7 * stride_ + Simd<T>::lanes), window(stride_ + pad), columns(2 * batch) {
    for (int k = 0; k < batch; ++k) {
      T* from = memory.data() + k * 7 * stride;
      for (int s = 0; s < 4; ++s) nodes[k].g[s] = from + s * stride;
      nodes[k].table = from + 4 * stride;
      nodes[k].a = from + 5 * stride;
      nodes[k].a_velocity = from + 6 * stride;
    }
  }
};

// g W, and g with W's slopes by time, sigma and width, over the window of node i on a row.
template <class T>
void correlate(const WaveNode<T>& b, typename ReverseScratch<T>::Node& node, ReverseScratch<T>& scratch) {
  using V = Simd<T>;
  const WaveRow<T>& f = b.forward;
  const Place& at = f.places[node.index];
  const Weights<const T> w = f.weights_of(node.index);
  const int64_t taps = 2 * at.half + 2, stride = scratch.stride, end = f.response.M + taps;
  T* g = scratch.window.data();
  const T* from = b.grad + f.rows.offset[node.row] + at.first - f.rows.first[node.row] - at.start;
  std::fill_n(g, at.start, T(0));
  std::copy(from + at.start, from + end, g + at.start);
  std::fill(g + end, g + scratch.window.size(), T(0));
  for (int64_t p = 0; p < stride; p += 2 * V::lanes) {
    typename V::type y[8] = {};
    for (int64_t t = 0; t < taps; ++t) {
      const typename V::type x0 = V::load(g + p + t), x1 = V::load(g + p + t + V::lanes);
      unroll<4>(HEPOPS_INLINE(s) {
        const T ws = w.t[t + s * w.size];
        y[s] += ws * x0;
        y[s + 4] += ws * x1;
      });
    }
    unroll<8>(HEPOPS_INLINE(s) { V::store(node.g[s % 4] + p + (s / 4) * V::lanes, y[s]); });
  }
  // where the charge began, the table's row at p = start is not used, nor are those before
  std::copy_n(node.g[0], stride, node.table);
  if (at.start > 0) std::fill_n(node.table, at.start + 1, T(0));
}

// What one pixel says of one node, once its a and its sums by_u, by_v are there.
template <class T>
void gather(const WaveNode<T>& b, typename ReverseScratch<T>::Node& node, const Seen& seen, const Column<T>& cu,
            const Column<T>& cv) {
  using V = Simd<T>;
  const WaveRow<T>& f = b.forward;
  const Plane& plane = f.plane;
  const int64_t i = node.index, stride = f.response.stride;
  const int B = f.response.B;
  const Place& at = f.places[i];
  const double per_tick = 1 / plane.dt, q = f.nodes(charge, i) * per_tick, gstart = node.g[0][at.start];
  begin_at<T>(at.start, f.response.lead, stride, B, cu, cv, node.a, nullptr);
  take_potential<T>(f, i, at.start, seen.u, seen.v, cu, cv, node.a, nullptr);
  begin_at<T>(at.start, f.response.leadv, stride, B, cu, cv, node.a_velocity, nullptr);
  typename V::type by[5] = {};  // a g W, and with W's slopes; a_velocity g W
  for (int64_t p = 0; p < stride; p += V::lanes) {
    const typename V::type a = V::load(node.a + p);
    unroll<4>(HEPOPS_INLINE(s) { by[s] += a * V::load(node.g[s] + p); });
    by[4] += V::load(node.a_velocity + p) * V::load(node.g[0] + p);
  }
  double* sum = node.sum;
  sum[charge] += V::sum(by[0]) * per_tick;
  sum[time] += V::sum(by[1]) * q * per_tick;
  sum[sigma_time] += V::sum(by[2]) * q * per_tick;
  sum[width_time] += V::sum(by[3]) * q * per_tick;
  sum[num_fields] += V::sum(by[4]) * q;

  double su[4] = {}, sv[4] = {}, sdepth = 0;
  for (int s = 1; s < 4; ++s) su[s] = V::sum(node.by_u[s]), sv[s] = V::sum(node.by_v[s]);
  if (at.start > 0 || f.response.mode == table)
    for (int64_t x = 0; x < cu.n; ++x)
      for (int64_t y = 0; y < cv.n; ++y) {
        const int64_t bin = (cu.low + x) * B + cv.low + y;
        double G = at.start > 0 ? gstart * f.response.lead[bin * stride + at.start] : 0;
        if (f.response.mode == table) {
          const core::Vec<double, 2> phi = tabulated_potential(f.response, bin, f.nodes(depth, i));
          G -= gstart * phi[0];
          sdepth -= double(cu.w[0][x]) * cv.w[0][y] * gstart * phi[1];
        }
        for (int s = 1; s < 4; ++s) {
          su[s] += double(cu.w[s][x]) * cv.w[0][y] * G;
          sv[s] += double(cu.w[0][x]) * cv.w[s][y] * G;
        }
      }
  if (f.response.mode == point) {
    const double x = f.nodes(u, i) - (double(seen.u) + 0.5) * plane.pitch;
    const double y = f.nodes(v, i) - (double(seen.v) + 0.5) * plane.pitch;
    const core::Vec<double, 3> slope = weighting_potential_slope(x, y, f.nodes(depth, i), 0.5 * plane.pitch);
    su[1] -= gstart * slope[0];
    sv[1] -= gstart * slope[1];
    sdepth -= gstart * slope[2];
  }
  sum[u] += q * su[1];
  sum[v] += q * sv[1];
  sum[sigma] += q * (su[2] + sv[2]);
  sum[width_u] += q * su[3];
  sum[width_v] += q * sv[3];
  sum[depth] += q * sdepth;
}

// Reverse mode of the nodes [first, first + n), n <= batch: neighbours on a track, seen from the same slot of the
// square, meet the same rows of the table. The sums are those of the plain form.
template <class T>
void wave_nodes(const WaveNode<T>& b, int64_t first, int n, ReverseScratch<T>& scratch) {
  const WaveRow<T>& f = b.forward;
  const int side = f.plane.side(), B = f.response.B;
  const int64_t stride = f.response.stride, step = wide_block * Simd<T>::lanes;
  for (int k = 0; k < n; ++k) {
    scratch.nodes[k].index = first + k;
    std::fill_n(scratch.nodes[k].sum, WaveNode<T>::sums, 0.0);
  }
  for (int slot = 0; slot < side * side; ++slot) {
    for (int k = 0; k < n; ++k) {
      auto& node = scratch.nodes[k];
      node.row = b.node_row[node.index * side * side + slot];
      if (node.row < 0) continue;
      const Seen seen(f, node.index, slot);
      const Place& at = f.places[node.index];
      const Weights<const T> w = f.weights_of(node.index);
      if (slot % side == 0 || b.node_row[node.index * side * side + slot - 1] < 0)
        scratch.columns[2 * k].fold(w.u, w.size, 4, at.bin_u, at.bins_u, seen.u, f.plane.bins, B);
      scratch.columns[2 * k + 1].fold(w.v, w.size, 4, at.bin_v, at.bins_v, seen.v, f.plane.bins, B);
      correlate(b, node, scratch);
      for (int s = 0; s < 4; ++s) node.by_u[s] = node.by_v[s] = typename Simd<T>::type{};
    }
    for (int64_t p = 0; p < stride; p += step)
      for (int k = 0; k < n; ++k) {
        auto& node = scratch.nodes[k];
        if (node.row < 0) continue;
        const Column<T>&cu = scratch.columns[2 * k], &cv = scratch.columns[2 * k + 1];
        reverse_block<T>(f.response.r + p, stride, B, cu, cv, node.table + p, node.a + p, node.by_u, node.by_v);
      }
    for (int64_t p = 0; p < stride; p += step)
      for (int k = 0; k < n; ++k) {
        auto& node = scratch.nodes[k];
        if (node.row < 0) continue;
        const Column<T>&cu = scratch.columns[2 * k], &cv = scratch.columns[2 * k + 1];
        contract_block<T, false>(f.response.rv + p, stride, B, cu, cv, node.a_velocity + p, nullptr);
      }
    for (int k = 0; k < n; ++k)
      if (scratch.nodes[k].row >= 0)
        gather(b, scratch.nodes[k], Seen(f, scratch.nodes[k].index, slot), scratch.columns[2 * k],
               scratch.columns[2 * k + 1]);
  }
  for (int k = 0; k < n; ++k) {
    for (int s = 0; s < num_fields; ++s) b.grad_nodes[s * f.nodes.n + first + k] = scratch.nodes[k].sum[s];
    b.grad_velocity[first + k] = scratch.nodes[k].sum[num_fields];
  }
}

#undef HEPOPS_INLINE

}  // namespace hepops::lartpc
