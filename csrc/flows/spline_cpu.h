#pragma once
// spline_call.h for a CPU core: as many elements at a time as a register holds doubles.
//
// The logits of V elements are brought to rows of V numbers, one row a bin: whole registers where the elements lie side
// by side, transposed in registers where an element's logits do, one by one else. exp runs down the rows in place; the
// search is by comparison and select; of the slopes only the two that a bin meets are taken.
#include <algorithm>
#include <cstring>
#include <utility>

#include "core/pack.h"
#include "flows/spline_call.h"

namespace hepops::flows {

constexpr int spline_lanes = core::full_lanes<double>;

// A result that is rounded to float needs no more of the elementary functions than 1e-10.
template <class X>
using PackOf = core::Pack<spline_lanes, sizeof(X) == sizeof(float)>;

using Lane = int64_t[spline_lanes];  // offsets of V elements

template <class P>
constexpr bool is_native = std::is_same_v<P, float> || std::is_same_v<P, double>;

// V x V numbers, transposed: V times the top bit of the row becomes the lowest of the column, and its top bit the
// row's.
template <class P, int V>
struct Tile {
  using Vector = typename core::Simd<P, V>::type;
  Vector row[V];

  [[gnu::always_inline]] void transpose() {
    for (int stage = 1; stage < V; stage *= 2) {
      Vector next[V];
      core::unroll<V / 2>(HEPOPS_UNROLLED(i) {
        next[2 * i] = interleave<0>(row[i], row[i + V / 2], std::make_integer_sequence<int, V>());
        next[2 * i + 1] = interleave<V / 2>(row[i], row[i + V / 2], std::make_integer_sequence<int, V>());
      });
      core::unroll<V>(HEPOPS_UNROLLED(i) { row[i] = next[i]; });
    }
  }

 private:
  template <int first, int... I>
  [[gnu::always_inline]] static Vector interleave(Vector a, Vector b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (first + I / 2 + I % 2 * V)...);
  }
};

// to[k][l] = from[at[l] + k step], for k below `count`
template <class P>
[[gnu::always_inline]] inline void load_rows(const P* from, const Lane& at, bool together, int64_t step, int count,
                                             double* to) {
  constexpr int V = spline_lanes;
  int k = 0;
  if constexpr (is_native<P>) {
    using Wide = core::Pack<V>;
    if (together && at[1] - at[0] == 1) {
      for (; k < count; ++k) Wide::load(from + at[0] + k * step).store(to + k * V);
    } else if (step == 1) {
      for (; k + V <= count; k += V) {
        Tile<P, V> tile;
        core::unroll<V>(HEPOPS_UNROLLED(l) { tile.row[l] = core::Simd<P, V>::load(from + at[l] + k); });
        tile.transpose();
        core::unroll<V>(HEPOPS_UNROLLED(l) { Wide::template widened<P>(tile.row[l]).store(to + (k + l) * V); });
      }
    }
  }
  for (; k < count; ++k)
    for (int l = 0; l < V; ++l) to[k * V + l] = double(from[at[l] + k * step]);
}

// to[l row + k] = from[k][l], for the first n of V elements
template <class P>
[[gnu::always_inline]] inline void store_rows(const double* from, int n, int64_t row, int count, P* to) {
  constexpr int V = spline_lanes;
  int k = 0;
  if constexpr (is_native<P>) {
    for (; n == V && k + V <= count; k += V) {
      Tile<P, V> tile;
      core::unroll<V>(HEPOPS_UNROLLED(l) {
        tile.row[l] =
            __builtin_convertvector((core::Simd<double, V>::load(from + (k + l) * V)), typename core::Simd<P, V>::type);
      });
      tile.transpose();
      core::unroll<V>(HEPOPS_UNROLLED(l) { core::Simd<P, V>::store(to + l * row + k, tile.row[l]); });
    }
  }
  for (int l = 0; l < n; ++l)
    for (int j = k; j < count; ++j) to[l * row + j] = P(from[j * V + l]);
}

// Where the operands of V neighbours lie. The last ones of a range may be fewer; then the first stands in for the rest.
class Walk {
 public:
  static constexpr int V = spline_lanes;
  Lane at[num_operands];
  bool together;  // the elements follow each other along the last dimension

  Walk(const Layout& layout, int64_t first) : layout_(layout) {
    for (int d = layout.dims - 1; d >= 0; --d) index_[d] = first % layout.sizes[d], first /= layout.sizes[d];
    for (int o = 0; o < num_operands; ++o) {
      base_[o] = 0;
      for (int d = 0; d < layout.dims; ++d) base_[o] += index_[d] * layout.strides[o][d];
      for (int l = 0; l < V; ++l) lane_[o][l] = l * layout.strides[o][layout.dims - 1];
    }
  }

  [[gnu::always_inline]] void next(int n) {
    const int last = layout_.dims - 1;
    together = n == V && index_[last] + V <= layout_.sizes[last];
    if (together) {
      for (int o = 0; o < num_operands; ++o) {
        for (int l = 0; l < V; ++l) at[o][l] = base_[o] + lane_[o][l];
        base_[o] += V * lane_[o][1];
      }
      index_[last] += V;
      if (index_[last] == layout_.sizes[last]) carry();
    } else {
      for (int l = 0; l < V; ++l) {
        for (int o = 0; o < num_operands; ++o) at[o][l] = l < n ? base_[o] : at[o][0];
        if (l >= n) continue;
        for (int o = 0; o < num_operands; ++o) base_[o] += layout_.strides[o][last];
        if (++index_[last] == layout_.sizes[last]) carry();
      }
    }
  }

 private:
  void carry() {
    for (int d = layout_.dims - 1; d > 0 && index_[d] == layout_.sizes[d]; --d) {
      for (int o = 0; o < num_operands; ++o)
        base_[o] += layout_.strides[o][d - 1] - layout_.sizes[d] * layout_.strides[o][d];
      index_[d] = 0;
      ++index_[d - 1];
    }
  }
  const Layout& layout_;
  int64_t index_[max_dims], base_[num_operands];
  Lane lane_[num_operands];  // beyond the first of V
};

// The exponentials of V elements' logits, a row a bin.
template <class T>
struct Fractions {
  double* rows;
  T scale, floor;

  [[gnu::always_inline]] T exponential(int k) const { return T::load(rows + k * T::lanes); }
  [[gnu::always_inline]] T operator()(int k) const { return floor + scale * exponential(k); }

  // Puts the exponentials where the logits were.
  Fractions(double* logits, int bins, Convention convention) : rows(logits), floor(floor_of(convention)) {
    T sum = 0;
    if (convention == Convention::nflows) {
      T most = exponential(0);
      for (int k = 1; k < bins; ++k) most = max(most, exponential(k));
      for (int k = 0; k < bins; ++k) sum += replace(k, exp(exponential(k) - most));
    } else {
      for (int k = 0; k < bins; ++k) sum += replace(k, exp(soft_clip(exponential(k), 2)));
    }
    scale = T(1 - floor_of(convention) * bins) / sum;
  }

 private:
  [[gnu::always_inline]] T replace(int k, T e) {
    e.store(rows + k * T::lanes);
    return e;
  }
};

template <class X, class P>
struct PackSource {
  using T = PackOf<X>;
  static constexpr int V = spline_lanes;
  const Spline<X, P>& spline;
  const Lane& slopes_at;
  Fractions<T> widths, heights;
  Tails tails;
  Convention convention;

  [[gnu::always_inline]] PackSource(const Spline<X, P>& s, const Walk& walk, double* memory)
      : spline(s),
        slopes_at(walk.at[slopes_]),
        widths((load_rows(s.widths, walk.at[widths_], walk.together, s.layout.steps[widths_], s.bins, memory), memory),
               s.bins, s.convention),
        heights((load_rows(s.heights, walk.at[heights_], walk.together, s.layout.steps[heights_], s.bins,
                           memory + s.bins * V),
                 memory + s.bins * V),
                s.bins, s.convention),
        tails(s.tails),
        convention(s.convention) {}
  [[gnu::always_inline]] int bins() const { return spline.bins; }
  [[gnu::always_inline]] T width(int k) const { return widths(k); }
  [[gnu::always_inline]] T height(int k) const { return heights(k); }
  [[gnu::always_inline]] void raw_slopes(const T& index, T& raw0, T& raw1) const {
    raw0 = raw1 = T(0);
    if (spline.num_slopes() == 0) return;
    raw0 = raw(spline.first_slope(index));
    raw1 = raw(spline.second_slope(index));
  }

 private:
  [[gnu::always_inline]] T raw(const T& slope) const {
    int32_t number[V];
    slope.store(number);
    return [&]<int... l>(std::integer_sequence<int, l...>) __attribute__((always_inline)) {
      using S = std::conditional_t<is_native<P>, P, float>;
      const typename core::Simd<S, V>::type all = {
          S(spline.slopes[slopes_at[l] + number[l] * spline.layout.steps[slopes_]])...};
      return T::template widened<S>(all);
    }(std::make_integer_sequence<int, V>());
  }
};

// V numbers of type X, whatever their stride
template <class X>
[[gnu::always_inline]] inline PackOf<X> load_numbers(const X* from, const Lane& at, bool together) {
  if (together && at[1] - at[0] == 1) return PackOf<X>::load(from + at[0]);
  double numbers[spline_lanes];
  for (int l = 0; l < spline_lanes; ++l) numbers[l] = double(from[at[l]]);
  return PackOf<X>::load(numbers);
}

template <class X>
[[gnu::always_inline]] inline PackOf<X> load_numbers(const X* from, int n) {
  if (n == spline_lanes) return PackOf<X>::load(from);
  double numbers[spline_lanes] = {};
  for (int l = 0; l < n; ++l) numbers[l] = double(from[l]);
  return PackOf<X>::load(numbers);
}

template <class X>
[[gnu::always_inline]] inline void store_numbers(const PackOf<X>& x, int n, X* to) {
  if (n == spline_lanes) return x.store(to);
  for (int l = 0; l < n; ++l) to[l] = X(x.v[l]);
}

template <class X, class P>
[[gnu::always_inline]] inline Domain<PackOf<X>> domain_of(const Spline<X, P>& s, const Walk& walk) {
  return {s.low ? load_numbers(s.low, walk.at[low_], walk.together) : PackOf<X>(s.lower),
          s.high ? load_numbers(s.high, walk.at[high_], walk.together) : PackOf<X>(s.upper)};
}

constexpr int64_t spline_grain = 1024;  // elements that are worth a thread

template <bool inverse, class X, class P, class Parallel>
void map_all(const MapEach<inverse, X, P>& f, int64_t count, const Parallel& parallel) {
  constexpr int V = spline_lanes;
  parallel(count, spline_grain, [&](int64_t first, int64_t last) {
    const Spline<X, P> s = f.spline;
    core::Buffer<double> memory(2 * s.bins * V);
    Walk walk(s.layout, first);
    for (int64_t i = first; i < last; i += V) {
      const int n = int(std::min<int64_t>(V, last - i));
      walk.next(n);
      const PackSource<X, P> source(s, walk, memory.get());
      const auto image = map<inverse, X>(load_numbers(s.x, walk.at[x_], walk.together), domain_of(s, walk), source);
      store_numbers(image.value, n, f.value + i);
      store_numbers(image.logdet, n, f.logdet + i);
    }
  });
}

// The gradients of V elements' logits from those of bin and place; the exponentials make room for them.
template <class X, class P>
[[gnu::always_inline]] inline void logit_gradients(const Spline<X, P>& s, const Fractions<PackOf<X>>& fractions,
                                                   const double* logits, const PackOf<X>& before, const PackOf<X>& here,
                                                   const PackOf<X>& index, const PackOf<X>& begin,
                                                   const PackOf<X>& size) {
  using T = PackOf<X>;
  const double floor = s.floor();
  const T mean = mean_gradient(before, here, index, begin, size, floor, s.c());
  for (int k = 0; k < s.bins; ++k) {
    const T g = logit_gradient(k, fractions(k), before, here, index, mean, floor);
    (logits ? g * soft_clip_slope(T::load(logits + k * T::lanes), 2) : g).store(fractions.rows + k * T::lanes);
  }
}

template <class X, class P>
[[gnu::always_inline]] inline void slope_gradients(const Spline<X, P>& s, const Backward<PackOf<X>>& back, int n,
                                                   int64_t row, P* to) {
  constexpr int V = spline_lanes;
  double g0[V], g1[V];
  int32_t bin[V];
  slope_of_backward(back.gradient.d0, back.ends.raw0, s.convention).store(g0);
  slope_of_backward(back.gradient.d1, back.ends.raw1, s.convention).store(g1);
  back.bin.index.store(bin);
  const bool linear = s.tails == Tails::linear;
  for (int l = 0; l < n; ++l, to += row) {
    const int first = s.first_slope(bin[l]), second = s.second_slope(bin[l]);
    if (!linear || bin[l] > 0) to[first] = P(g0[l]);
    if (!linear || bin[l] < s.bins - 1) to[second] = first == second && !linear ? P(g0[l] + g1[l]) : P(g1[l]);
  }
}

template <bool inverse, class X, class P, class Parallel>
void map_all_backward(const MapEachBackward<inverse, X, P>& f, int64_t count, const Parallel& parallel) {
  constexpr int V = spline_lanes;
  parallel(count, spline_grain, [&](int64_t first, int64_t last) {
    const Spline<X, P> s = f.spline;
    const Rows<P> to = f.grad;
    const int K = s.bins, S = s.num_slopes();
    const bool keeps = s.convention == Convention::zuko;
    core::Buffer<double> memory(4 * K * V);
    double *rows = memory.get(), *logits = rows + 2 * K * V;
    Walk walk(s.layout, first);
    for (int64_t i = first; i < last; i += V) {
      const int n = int(std::min<int64_t>(V, last - i));
      walk.next(n);
      const PackSource<X, P> source(s, walk, rows);
      if (keeps) {
        load_rows(s.widths, walk.at[widths_], walk.together, s.layout.steps[widths_], K, logits);
        load_rows(s.heights, walk.at[heights_], walk.together, s.layout.steps[heights_], K, logits + K * V);
      }
      const auto back =
          map_backward<inverse, X>(load_numbers(f.grad_value + i, n), load_numbers(f.grad_logdet + i, n),
                                   load_numbers(s.x, walk.at[x_], walk.together), domain_of(s, walk), source);
      const auto& [g, bin, ends] = back;
      store_numbers(g.x, n, f.grad_x + i);
      logit_gradients(s, source.widths, keeps ? logits : nullptr, g.X, g.w, bin.index, bin.X, bin.w);
      logit_gradients(s, source.heights, keeps ? logits + K * V : nullptr, g.Y, g.h, bin.index, bin.Y, bin.h);
      store_rows(rows, n, to.width_row, K, to.widths + i * to.width_row);
      store_rows(rows + K * V, n, to.height_row, K, to.heights + i * to.height_row);
      for (int l = 0; l < n; ++l) std::fill_n(to.slopes + (i + l) * to.slope_row, S, P(0.f));
      slope_gradients(s, back, n, to.slope_row, to.slopes + i * to.slope_row);
    }
  });
}

}  // namespace hepops::flows
