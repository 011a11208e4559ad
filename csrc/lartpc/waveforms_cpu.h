#pragma once
// waveforms.h for a CPU core: the same sums, ordered for SIMD.
//
// The ticks p lie in vectors of 64 bytes. A node's bins are first folded onto the quadrant of the response table; then
// the whole of a[p] stays in registers while the bins stream by, one load and one multiply-add for 16 ticks. In the
// reverse direction each bin's gradient is one dot product with g W. Tested against the plain form; how much faster it
// is, benchmarks/lartpc/bench_waveforms.py measures.
#include <algorithm>
#include <cstring>
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

#if defined(__AVX512F__)
constexpr int wide_block = 10;  // vectors that stay in registers
#elif defined(__AVX2__)
constexpr int wide_block = 5;
#else
constexpr int wide_block = 2;
#endif

// The bins of a node along one axis, folded onto the rows [low, low + n) of the table: the weights and their slopes.
template <class T>
struct Column {
  int64_t low = 0, n = 0;
  T w[4][max_bins];

  Column(const T* weights, int64_t size, int sets, int64_t first, int64_t bins_in_use, int64_t pixel, int bins, int B) {
    int64_t high = -1;
    low = B;
    for (int64_t b = 0; b < bins_in_use; ++b) {
      const int64_t at = quadrant(first + b, pixel, bins);
      if (at < B) low = std::min(low, at), high = std::max(high, at);
    }
    n = std::max<int64_t>(0, high - low + 1);
    for (int k = 0; k < sets; ++k) std::fill_n(w[k], n, T(0));
    for (int64_t b = 0; b < bins_in_use; ++b) {
      const int64_t at = quadrant(first + b, pixel, bins);
      if (at < B)
        for (int k = 0; k < sets; ++k) w[k][at - low] += weights[b + k * size];
    }
  }
};

// Scratch of one thread: a[p] and the like, with zeros on both sides.
template <class T>
struct WaveScratch {
  int64_t stride, pad = max_taps + Simd<T>::lanes;
  std::vector<T> memory;
  explicit WaveScratch(int64_t stride_) : stride(stride_), memory(10 * (stride_ + 2 * pad) + 2 * Simd<T>::lanes) {}
  T* buffer(int k) { return memory.data() + k * (stride + 2 * pad) + pad; }
};

// out[s][p] = sum over bins of (weights of set s) x table, one block of N vectors.
template <class T, int N>
void contract_block(const T* table, int64_t stride, int B, const Column<T>& cu, const Column<T>& cv, int64_t p, T* a,
                    T* a_sigma) {
  using V = Simd<T>;
  typename V::type sum[N] = {}, sum_sigma[N] = {};
  for (int64_t x = 0; x < cu.n; ++x)
    for (int64_t y = 0; y < cv.n; ++y) {
      const T w = cu.w[0][x] * cv.w[0][y];
      const T* r = table + ((cu.low + x) * B + cv.low + y) * stride + p;
      if (a_sigma) {
        const T ws = cu.w[2][x] * cv.w[0][y] + cu.w[0][x] * cv.w[2][y];
        for (int k = 0; k < N; ++k) {
          const typename V::type rk = V::load(r + k * V::lanes);
          sum[k] += w * rk;
          sum_sigma[k] += ws * rk;
        }
      } else {
        for (int k = 0; k < N; ++k) sum[k] += w * V::load(r + k * V::lanes);
      }
    }
  for (int k = 0; k < N; ++k) {
    V::store(a + p + k * V::lanes, sum[k]);
    if (a_sigma) V::store(a_sigma + p + k * V::lanes, sum_sigma[k]);
  }
}

template <class T>
void contract(const T* table, int64_t stride, int B, const Column<T>& cu, const Column<T>& cv, T* a, T* a_sigma) {
  constexpr int lanes = Simd<T>::lanes;
  int64_t p = 0;
  for (; p + wide_block * lanes <= stride; p += wide_block * lanes)
    contract_block<T, wide_block>(table, stride, B, cu, cv, p, a, a_sigma);
  for (; p + 3 * lanes <= stride; p += 3 * lanes) contract_block<T, 3>(table, stride, B, cu, cv, p, a, a_sigma);
  for (; p < stride; p += lanes) contract_block<T, 1>(table, stride, B, cu, cv, p, a, a_sigma);
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

// y[s][o] = sum_t a[o - t] W_s[t] for one vector of o; a has zeros on both sides.
template <class T, int Sets>
void convolve(const T* a, const T* w, int64_t size, int64_t taps, int64_t o, typename Simd<T>::type (&y)[Sets]) {
  for (int64_t t = 0; t < taps; ++t) {
    const auto x = Simd<T>::load(a + o - t);
    for (int s = 0; s < Sets; ++s) y[s] += w[t + s * size] * x;
  }
}

template <class T>
void wave_row(const WaveRow<T>& f, int64_t row, WaveScratch<T>& scratch) {
  using V = Simd<T>;
  const int64_t begin = f.rows.offset[row], length = f.rows.offset[row + 1] - begin;
  const int K = f.tangent.K, side = f.plane.side(), M = f.response.M;
  std::fill_n(f.rows.values + begin, length, T(0));
  for (int k = 0; k < K; ++k) std::fill_n(f.rows.tangents + k * f.rows.total + begin, length, T(0));

  T *a = scratch.buffer(0), *a_sigma = K ? scratch.buffer(1) : nullptr, *a_velocity = scratch.buffer(2);
  const int64_t stride = f.response.stride;
  for (int64_t j = f.rows.pair_offset[row]; j < f.rows.pair_offset[row + 1]; ++j) {
    const int64_t i = f.rows.pair[j] / (side * side), slot = f.rows.pair[j] % (side * side);
    const Place& at = f.places[i];
    const Weights<const T> w = f.weights_of(i);
    const int64_t pixel_u = pixel_under(f.nodes(u, i), f.plane) + slot / side - f.plane.reach;
    const int64_t pixel_v = pixel_under(f.nodes(v, i), f.plane) + slot % side - f.plane.reach;
    const int sets = K ? 3 : 1, B = f.response.B;
    const Column<T> cu(w.u, w.size, sets, at.bin_u, at.bins_u, pixel_u, f.plane.bins, B);
    const Column<T> cv(w.v, w.size, sets, at.bin_v, at.bins_v, pixel_v, f.plane.bins, B);
    contract(f.response.r, stride, B, cu, cv, a, a_sigma);
    begin_at(at.start, f.response.lead, stride, B, cu, cv, a, a_sigma);
    take_potential(f, i, at.start, pixel_u, pixel_v, cu, cv, a, a_sigma);
    if (K) {
      contract<T>(f.response.rv, stride, B, cu, cv, a_velocity, nullptr);
      begin_at<T>(at.start, f.response.leadv, stride, B, cu, cv, a_velocity, nullptr);
    }

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
    for (int64_t o = at.start; o < end; o += V::lanes) {
      const int64_t n = std::min<int64_t>(V::lanes, end - o);
      if (K == 0) {
        typename V::type y[1] = {};
        convolve<T, 1>(a, w.t, w.size, taps, o, y);
        y[0] *= T(q);
        if (n == V::lanes)
          V::store(out + o, V::load(out + o) + y[0]);
        else
          for (int64_t m = 0; m < n; ++m) out[o + m] += y[0][m];
        continue;
      }
      typename V::type y[4] = {}, y_sigma[1] = {}, y_velocity[1] = {};
      convolve<T, 4>(a, w.t, w.size, taps, o, y);
      convolve<T, 1>(a_sigma, w.t, w.size, taps, o, y_sigma);
      convolve<T, 1>(a_velocity, w.t, w.size, taps, o, y_velocity);
      for (int64_t m = 0; m < n; ++m) out[o + m] += T(q) * y[0][m];
      for (int k = 0; k < K; ++k) {
        const T* c = factor[k];
        const typename V::type sum =
            c[0] * y[0] + c[1] * y[1] + c[2] * y[2] + c[3] * y[3] + c[4] * y_sigma[0] + c[5] * y_velocity[0];
        T* to = f.rows.tangents + k * f.rows.total + base;
        if (n == V::lanes)
          V::store(to + o, V::load(to + o) + sum);
        else
          for (int64_t m = 0; m < n; ++m) to[o + m] += sum[m];
      }
    }
  }
}

// Reverse mode of one node; the plain form's sums.
template <class T>
void wave_node(const WaveNode<T>& b, int64_t i, WaveScratch<T>& scratch) {
  using V = Simd<T>;
  const WaveRow<T>& f = b.forward;
  const Plane& plane = f.plane;
  const int side = plane.side(), M = f.response.M, B = f.response.B;
  const int64_t stride = f.response.stride;
  const Place& at = f.places[i];
  const Weights<const T> w = f.weights_of(i);
  const double per_tick = 1 / plane.dt, q = f.nodes(charge, i) * per_tick;
  const int64_t taps = 2 * at.half + 2;
  T *a = scratch.buffer(0), *a_velocity = scratch.buffer(1), *g = scratch.buffer(2), *gw = scratch.buffer(3);
  double sum[WaveNode<T>::sums] = {};

  for (int slot = 0; slot < side * side; ++slot) {
    const int64_t row = b.node_row[i * side * side + slot];
    if (row < 0) continue;
    const int64_t pixel_u = pixel_under(f.nodes(u, i), plane) + slot / side - plane.reach;
    const int64_t pixel_v = pixel_under(f.nodes(v, i), plane) + slot % side - plane.reach;
    const Column<T> cu(w.u, w.size, 4, at.bin_u, at.bins_u, pixel_u, plane.bins, B);
    const Column<T> cv(w.v, w.size, 4, at.bin_v, at.bins_v, pixel_v, plane.bins, B);

    // the node's window of the gradient, zero outside it
    const T* from = b.grad + f.rows.offset[row] + at.first - f.rows.first[row] - at.start;
    std::fill_n(g, at.start, T(0));
    std::copy(from + at.start, from + M + taps, g + at.start);
    std::fill(g + M + taps, g + stride + max_taps, T(0));

    contract<T>(f.response.r, stride, B, cu, cv, a, nullptr);
    begin_at<T>(at.start, f.response.lead, stride, B, cu, cv, a, nullptr);
    take_potential<T>(f, i, at.start, pixel_u, pixel_v, cu, cv, a, nullptr);
    contract<T>(f.response.rv, stride, B, cu, cv, a_velocity, nullptr);
    begin_at<T>(at.start, f.response.leadv, stride, B, cu, cv, a_velocity, nullptr);

    typename V::type by[5] = {};  // a g W, and with W's slopes; a_velocity g W
    for (int64_t p = 0; p < stride; p += V::lanes) {
      typename V::type y[4] = {};
      for (int64_t t = 0; t < taps; ++t) {
        const auto x = V::load(g + p + t);
        for (int s = 0; s < 4; ++s) y[s] += w.t[t + s * w.size] * x;
      }
      const auto ap = V::load(a + p);
      for (int s = 0; s < 4; ++s) by[s] += ap * y[s];
      by[4] += V::load(a_velocity + p) * y[0];
      V::store(gw + p, y[0]);
    }
    sum[charge] += V::sum(by[0]) * per_tick;
    sum[time] += V::sum(by[1]) * q * per_tick;
    sum[sigma_time] += V::sum(by[2]) * q * per_tick;
    sum[width_time] += V::sum(by[3]) * q * per_tick;
    sum[num_fields] += V::sum(by[4]) * q;

    const double gstart = gw[at.start];
    if (at.start > 0) std::fill_n(gw, at.start + 1, T(0));
    double su[4] = {}, sv[4] = {}, sdepth = 0;
    for (int64_t x = 0; x < cu.n; ++x)
      for (int64_t y = 0; y < cv.n; ++y) {
        const int64_t bin = (cu.low + x) * B + cv.low + y;
        const T* r = f.response.r + bin * stride;
        typename V::type dot = {};
        for (int64_t p = 0; p < stride; p += V::lanes) dot += V::load(r + p) * V::load(gw + p);
        double G = V::sum(dot);
        if (at.start > 0) G += gstart * f.response.lead[bin * stride + at.start];
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
      const double x = f.nodes(u, i) - (double(pixel_u) + 0.5) * plane.pitch;
      const double y = f.nodes(v, i) - (double(pixel_v) + 0.5) * plane.pitch;
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
  for (int k = 0; k < num_fields; ++k) b.grad_nodes[k * f.nodes.n + i] = sum[k];
  b.grad_velocity[i] = sum[num_fields];
}

}  // namespace hepops::lartpc
