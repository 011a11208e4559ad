#pragma once
// convolve.h for a CPU core: a register holds one site of as many configurations as it has lanes (16 float, 8 double on
// AVX-512), so that neighbours are found by address, on a lattice of any extents.
//
// A block is V lanes' fields as [row][channel][column][lane], a row being the sites along the last direction, with the
// columns that the kernel reaches beyond its ends written twice. Where the batch does not fill the lanes, a
// configuration is cut along its first direction into slabs, each with the planes that the kernel reaches (Grid).
//
// A tile of S columns and O channels stays in registers: O S multiply-adds for S loads of the field and O of weights.
// Zen 4, one core, float32: 8 -> 8 channels, 3 x 3, 16 x 16: see benchmarks/lattice/bench_convolve.py.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/simd.h"
#include "lattice/convolve.h"

namespace hepops::lattice {

template <class T>
using Lanes = core::PackedOf<T>;

// A lane's part of the lattice, as rows with a margin.
struct Grid {
  Shape shape;
  int64_t slabs = 1, margin0 = 0;  // pieces of the first direction, and planes beyond each end of one
  int64_t planes = 1;              // of a piece with its margins
  int64_t inner = 1;               // rows of a plane
  int64_t columns = 1, padded = 1, margin = 0;
  int outer = 1;  // taps of all directions but the last
  int64_t last_kernel = 1;

  Grid() = default;
  Grid(const Shape& s, int64_t batch, int lanes, bool cut) : shape(s) {
    const Lattice& l = s.lattice;
    const int last = l.dims - 1;
    columns = l.extent[last], last_kernel = s.kernel[last];
    margin = last_kernel / 2, padded = columns + 2 * margin;
    for (int mu = 0; mu < last; ++mu) outer *= int(s.kernel[mu]);
    for (int mu = 1; mu < last; ++mu) inner *= l.extent[mu];
    if (last > 0 && cut) slabs = best_cut(batch, lanes);
    margin0 = slabs > 1 ? s.kernel[0] / 2 : 0;
    planes = last > 0 ? l.extent[0] / slabs + 2 * margin0 : 1;
  }

  int64_t rows() const { return planes * inner; }
  int64_t first_row() const { return margin0 * inner; }
  int64_t last_row() const { return (planes - margin0) * inner; }
  int64_t row_size(int64_t channels) const { return channels * padded; }  // registers

  // The rows that the kernel meets from this one, by tap.
  void neighbours(int64_t row, int64_t* at) const {
    const Lattice& l = shape.lattice;
    int64_t stride = rows() / planes, count = 1;
    at[0] = 0;
    for (int mu = 0; mu + 1 < l.dims; ++mu) {
      const int64_t L = mu == 0 ? planes : l.extent[mu], K = shape.kernel[mu];
      if (mu > 0) stride /= L;
      const int64_t here = row / stride % L;
      for (int64_t t = count - 1; t >= 0; --t) {
        const int64_t base = at[t];
        for (int64_t k = K - 1; k >= 0; --k) at[t * K + k] = base + wrapped(here + k - K / 2, L) * stride;
      }
      count *= K;
    }
  }

  static int64_t wrapped(int64_t x, int64_t L) { return (x % L + L) % L; }

 private:
  // The divisor of the first extent that wastes least: lanes without work, and margins that are read more than once.
  int64_t best_cut(int64_t batch, int lanes) const {
    const int64_t L = shape.lattice.extent[0];
    int64_t best = 1;
    double least = 1e300;
    for (int64_t d = 1; d <= L; ++d) {
      if (L % d) continue;
      const int64_t units = batch * d, filled = (units + lanes - 1) / lanes * lanes;
      const double cost =
          double(filled) / double(units) * (1 + 0.1 * double(d > 1 ? shape.kernel[0] * d : 0) / double(L));
      if (cost < least * (1 - 1e-9)) least = cost, best = d;
    }
    return best;
  }
};

// The pieces in the lanes of a block; beyond the last one it stands in, and is not stored.
template <class T>
struct Pieces {
  static constexpr int V = Lanes<T>::size;
  int64_t config[V], slab[V];
  int count;

  Pieces(const Grid& grid, int64_t batch, int64_t block) {
    const int64_t units = batch * grid.slabs;
    count = int(std::min<int64_t>(V, units - block * V));
    for (int l = 0; l < V; ++l) {
      const int64_t u = block * V + std::min(l, count - 1);
      config[l] = u / grid.slabs, slab[l] = u % grid.slabs;
    }
  }
  static int64_t blocks(const Grid& grid, int64_t batch) { return (batch * grid.slabs + V - 1) / V; }

  Lanes<T> live() const {
    T one[V];
    for (int l = 0; l < V; ++l) one[l] = T(l < count);
    return Lanes<T>::load(one);
  }
};

// f(row, column, values) for `sites` sites from row `row` on, which lie one after the other at from[lane].
template <class T, class F>
[[gnu::always_inline]] inline void for_sites(const T* const* from, int64_t sites, int64_t row, int64_t columns,
                                             const F& f) {
  using P = Lanes<T>;
  int64_t column = 0, s = 0;
  const auto put = [&](P value) __attribute__((always_inline)) {
    f(row, column, value);
    if (++column == columns) column = 0, ++row;
  };
  for (; s + P::size <= sites; s += P::size)
    core::transpose<P>([&](int n) { return P::load(from[n] + s); }, [&](int, P value) { put(value); });
  for (; s < sites; ++s) {
    T value[P::size];
    for (int l = 0; l < P::size; ++l) value[l] = from[l][s];
    put(P::load(value));
  }
}

// f(row, column) gives the values that go to to[lane], for the first `count` lanes.
template <class T, class F>
[[gnu::always_inline]] inline void store_sites(T* const* to, int count, int64_t sites, int64_t row, int64_t columns,
                                               const F& f) {
  using P = Lanes<T>;
  int64_t column = 0, s = 0;
  const auto get = [&]() __attribute__((always_inline)) {
    const P value = f(row, column);
    if (++column == columns) column = 0, ++row;
    return value;
  };
  for (; s + P::size <= sites; s += P::size)
    core::transpose<P>([&](int) { return get(); },
                       [&](int n, P value) {
                         if (n < count) value.store(to[n] + s);
                       });
  for (; s < sites; ++s) {
    T value[P::size];
    get().store(value);
    for (int l = 0; l < count; ++l) to[l][s] = value[l];
  }
}

// The columns beyond both ends of every channel of a row.
template <class T>
inline void fill_margin(const Grid& grid, int64_t channels, Lanes<T>* row) {
  for (int64_t c = 0; c < channels; ++c, row += grid.padded)
    for (int64_t j = 0; j < grid.margin; ++j) {
      row[j] = row[grid.margin + Grid::wrapped(j - grid.margin, grid.columns)];
      const int64_t k = grid.columns + grid.margin + j;
      row[k] = row[grid.margin + Grid::wrapped(grid.columns + j, grid.columns)];
    }
}

// A tensor (batch, channels, sites) into a block, with its margins.
template <class T>
void pack(const Grid& grid, const Pieces<T>& pieces, const T* x, int64_t channels, Lanes<T>* block) {
  constexpr int V = Lanes<T>::size;
  const int64_t sites = grid.shape.lattice.sites, plane = grid.inner * grid.columns, size = grid.row_size(channels);
  const int64_t runs = grid.slabs > 1 ? grid.planes : 1, run = grid.rows() / runs * grid.columns;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t p = 0; p < runs; ++p) {
      const T* from[V];
      for (int l = 0; l < V; ++l) {
        const int64_t first = pieces.slab[l] * (grid.planes - 2 * grid.margin0) + p - grid.margin0;
        const int64_t plane0 = grid.slabs > 1 ? Grid::wrapped(first, grid.shape.lattice.extent[0]) : 0;
        from[l] = x + (pieces.config[l] * channels + c) * sites + plane0 * plane;
      }
      Lanes<T>* const to = block + c * grid.padded + grid.margin;
      for_sites<T>(from, run, p * grid.inner, grid.columns,
                   [&](int64_t row, int64_t column, Lanes<T> v)
                       __attribute__((always_inline)) { to[row * size + column] = v; });
    }
  for (int64_t row = 0; row < grid.rows(); ++row) fill_margin<T>(grid, channels, block + row * size);
}

// A block without its margins into a tensor (batch, channels, sites).
template <class T>
void unpack(const Grid& grid, const Pieces<T>& pieces, const Lanes<T>* block, int64_t channels, T* y) {
  constexpr int V = Lanes<T>::size;
  const int64_t sites = grid.shape.lattice.sites, size = grid.row_size(channels);
  const int64_t run = (grid.last_row() - grid.first_row()) * grid.columns;
  for (int64_t c = 0; c < channels; ++c) {
    T* to[V];
    for (int l = 0; l < V; ++l) to[l] = y + (pieces.config[l] * channels + c) * sites + pieces.slab[l] * run;
    const Lanes<T>* const from = block + c * grid.padded + grid.margin;
    store_sites<T>(to, pieces.count, run, grid.first_row(), grid.columns,
                   [&](int64_t row, int64_t column)
                       __attribute__((always_inline)) { return from[row * size + column]; });
  }
}

// How many channels a tile takes of those that are left.
inline int tile_channels(int64_t left) {
  for (const int n : {8, 6, 4, 3, 2})
    if (left >= n) return n;
  return 1;
}

// Calls f<O>() for the O of a tile.
template <class F>
[[gnu::always_inline]] inline void for_channels(int O, const F& f) {
  switch (O) {
    case 8: return f.template operator()<8>();
    case 6: return f.template operator()<6>();
    case 4: return f.template operator()<4>();
    case 3: return f.template operator()<3>();
    case 2: return f.template operator()<2>();
    default: return f.template operator()<1>();
  }
}

// Weights as tiles read them: [tile][in][outer tap][tap][channel of the tile].
template <class T>
struct Kernel {
  int64_t in = 0, out = 0, outer = 1, last = 1;
  std::vector<T> weights;

  Kernel() = default;
  // transposed: of the backward, from the gradients of `out` channels to those of `in`
  Kernel(const Shape& shape, const T* w, bool transposed)
      : in(transposed ? shape.out : shape.in), out(transposed ? shape.in : shape.out) {
    last = shape.kernel[shape.lattice.dims - 1];
    const int64_t taps = shape.taps();
    outer = taps / last;
    weights.reserve(in * out * taps);
    for (int64_t o = 0, O; o < out; o += O) {
      O = tile_channels(out - o);
      for (int64_t c = 0; c < in; ++c)
        for (int64_t k = 0; k < taps; ++k)
          for (int64_t j = o; j < o + O; ++j)
            weights.push_back(transposed ? w[(c * out + j) * taps + taps - 1 - k] : w[(j * in + c) * taps + k]);
    }
  }
};

// Which taps of the last direction meet something: all, or of a checkerboard's every second one from `first[outer]` on.
struct Taps {
  const int8_t* first = nullptr;
  int step = 1;
};

// S columns, `step` apart, of O channels.
template <class T, int O, int S, int step>
[[gnu::always_inline]] inline void convolve_tile(const Kernel<T>& kernel, const T* weights, const T* const* rows,
                                                 int64_t channel, int64_t offset, const Taps& taps, const T* bias,
                                                 T* y) {
  using P = Lanes<T>;
  constexpr int V = P::size;
  P sum[O][S];
  core::unroll<O>(HEPOPS_UNROLLED(o) {
    const P b = bias ? double(bias[o]) : 0.0;
    core::unroll<S>(HEPOPS_UNROLLED(s) { sum[o][s] = b; });
  });
  const int64_t K = kernel.last;
  for (int64_t c = 0; c < kernel.in; ++c)
    for (int64_t r = 0; r < kernel.outer; ++r, weights += K * O) {
      const T* const x = rows[r] + c * channel + offset;
      for (int64_t k = taps.first ? taps.first[r] : 0; k < K; k += taps.step) {
        P at[S];
        core::unroll<S>(HEPOPS_UNROLLED(s) { at[s] = P::load(x + (k + s * step) * V); });
        core::unroll<O>(HEPOPS_UNROLLED(o) {
          const typename P::Values w = weights[k * O + o] - typename P::Values{};
          core::unroll<S>(HEPOPS_UNROLLED(s) { sum[o][s].v += w * at[s].v; });
        });
      }
    }
  core::unroll<O>(
      HEPOPS_UNROLLED(o) { core::unroll<S>(HEPOPS_UNROLLED(s) { sum[o][s].store(y + o * channel + s * step * V); }); });
}

// One row of a(x) = bias + sum W s: columns first, first + step, ... . rows[tap] are those of the input, y that of the
// output, each at its margin's beginning.
template <class T, int step = 1>
void convolve_row(const Grid& grid, const Kernel<T>& kernel, const T* const* rows, const T* bias, T* y,
                  int64_t first = 0, const Taps& taps = {}) {
  constexpr int V = Lanes<T>::size;
  const int64_t channel = grid.padded * V, count = (grid.columns - first + step - 1) / step;
  const T* weights = kernel.weights.data();
  for (int64_t o = 0, O; o < kernel.out; o += O) {
    O = tile_channels(kernel.out - o);
    const T *w = weights, *b = bias ? bias + o : nullptr;
    T* const to = y + o * channel + (grid.margin + first) * V;
    for_channels(int(O), [&]<int O>() __attribute__((always_inline)) {
      constexpr int most = (core::simd_registers * 3 / 4) / O, S = most > 6 ? 6 : most < 1 ? 1 : most;
      int64_t s = 0;
      const auto tile = [&]<int n>() __attribute__((always_inline)) {
        convolve_tile<T, O, n, step>(kernel, w, rows, channel, (first + s * step) * V, taps, b, to + s * step * V);
        s += n;
      };
      while (s + S <= count) tile.template operator()<S>();
      while (s < count) tile.template operator()<1>();
    });
    weights += kernel.in * kernel.outer * kernel.last * O;
  }
}

// dL/dW and dL/db of the rows so far, lane by lane: [tile][in][outer tap][tap][channel of the tile], then the biases.
template <class T>
struct GradientSums {
  using P = Lanes<T>;
  static constexpr int V = P::size;
  const Grid& grid;
  int64_t in, out, taps;
  std::vector<T> sums;
  std::vector<double> totals;

  GradientSums(const Grid& g, int64_t in, int64_t out)
      : grid(g),
        in(in),
        out(out),
        taps(g.outer * g.last_kernel),
        sums((in * taps + 1) * out * V),
        totals(sums.size()) {}

  // Adds g_o(x) s_i(x + k - h) for the columns first, first + step, ... of a row.
  template <int step = 1>
  void add(const T* g, const T* const* rows, int64_t first = 0, const Taps& only = {}) {
    const int64_t channel = grid.padded * V, count = (grid.columns - first + step - 1) / step;
    const int64_t K = grid.last_kernel;
    T *to = sums.data(), *bias = sums.data() + in * taps * out * V;
    for (int64_t o = 0, O; o < out; o += O) {
      O = tile_channels(out - o);
      const T* const from = g + o * channel + (grid.margin + first) * V;
      for_channels(int(O), [&]<int O>() __attribute__((always_inline)) {
        for (int64_t c = 0; c < in; ++c)
          for (int r = 0; r < grid.outer; ++r, to += K * O * V) {
            const T* const x = rows[r] + c * channel + first * V;
            int64_t k = only.first ? only.first[r] : 0;
            if (only.step == 1)
              for (; k + 3 <= K; k += 3) products<O, 3, step>(from, channel, x + k * V, count, to + k * O * V);
            for (; k < K; k += only.step) products<O, 1, step>(from, channel, x + k * V, count, to + k * O * V);
          }
        for (int64_t s = 0; s < count; ++s)
          for (int j = 0; j < O; ++j)
            (P::load(bias + (o + j) * V) + P::load(from + j * channel + s * step * V)).store(bias + (o + j) * V);
      });
    }
  }

  // What was added goes to sums in double.
  void flush() {
    T* const s = sums.data();
    double* const t = totals.data();
    const int64_t n = int64_t(sums.size());
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) t[i] += double(s[i]), s[i] = 0;
  }

  // The sum over lanes, in the order of the weight (out, in, taps), then the biases.
  void finish(double* result) {
    const double* t = totals.data();
    const auto lanes = [&] {
      double sum = 0;
      for (int l = 0; l < V; ++l) sum += *t++;
      return sum;
    };
    for (int64_t o = 0, O; o < out; o += O) {
      O = tile_channels(out - o);
      for (int64_t c = 0; c < in; ++c)
        for (int64_t k = 0; k < taps; ++k)
          for (int64_t j = o; j < o + O; ++j) result[(j * in + c) * taps + k] = lanes();
    }
    for (int64_t o = 0; o < out; ++o) result[in * taps * out + o] = lanes();
  }

 private:
  template <int O, int N, int step>
  [[gnu::always_inline]] static void products(const T* g, int64_t channel, const T* x, int64_t count, T* to) {
    P sum[O][N];
    core::unroll<O>(
        HEPOPS_UNROLLED(o) { core::unroll<N>(HEPOPS_UNROLLED(n) { sum[o][n] = P::load(to + (n * O + o) * V); }); });
    for (int64_t s = 0; s < count; ++s, g += step * V, x += step * V) {
      P at[N];
      core::unroll<N>(HEPOPS_UNROLLED(n) { at[n] = P::load(x + n * V); });
      core::unroll<O>(HEPOPS_UNROLLED(o) {
        const P here = P::load(g + o * channel);
        core::unroll<N>(HEPOPS_UNROLLED(n) { sum[o][n].v += here.v * at[n].v; });
      });
    }
    core::unroll<O>(
        HEPOPS_UNROLLED(o) { core::unroll<N>(HEPOPS_UNROLLED(n) { sum[o][n].store(to + (n * O + o) * V); }); });
  }
};

// The rows of a block as a tile's taps meet them.
template <class T>
struct RowPointers {
  std::vector<int64_t> at;
  std::vector<const T*> rows;

  explicit RowPointers(const Grid& grid) : at(grid.outer), rows(grid.outer) {}
  const T* const* operator()(const Grid& grid, int64_t row, const Lanes<T>* block, int64_t channels) {
    grid.neighbours(row, at.data());
    for (int r = 0; r < grid.outer; ++r) rows[r] = reinterpret_cast<const T*>(block + at[r] * grid.row_size(channels));
    return rows.data();
  }
};

// f(v) in place of every number of a row
template <class T, class F>
[[gnu::always_inline]] inline void for_row(Lanes<T>* row, int64_t size, const F& f) {
  for (int64_t i = 0; i < size; ++i) row[i] = f(row[i], i);
}

template <class T>
void activate_row(Activation activation, Lanes<T>* row, int64_t size) {
  using P = Lanes<T>;
  const auto run = [&]<Activation A>() __attribute__((always_inline)) {
    for_row<T>(row, size, [](P a, int64_t) __attribute__((always_inline)) { return activate(A, a); });
  };
  switch (activation) {
    case Activation::leaky_relu: return run.template operator()<Activation::leaky_relu>();
    case Activation::tanh: return run.template operator()<Activation::tanh>();
    case Activation::silu: return run.template operator()<Activation::silu>();
    default: return;
  }
}

// g *= A'(at)
template <class T>
void slope_row(Activation activation, Lanes<T>* g, const Lanes<T>* at, int64_t size) {
  using P = Lanes<T>;
  const auto run = [&]<Activation A>() __attribute__((always_inline)) {
    for_row<T>(g, size, [&](P g, int64_t i) __attribute__((always_inline)) { return g * activation_slope(A, at[i]); });
  };
  switch (activation) {
    case Activation::leaky_relu: return run.template operator()<Activation::leaky_relu>();
    case Activation::tanh: return run.template operator()<Activation::tanh>();
    case Activation::silu: return run.template operator()<Activation::silu>();
    default: return;
  }
}

}  // namespace hepops::lattice
