#pragma once
// checkerboard.h for a CPU core: as many configurations as a register has lanes go through the whole layer while they
// lie in the cache; of all that the conditioner computes nothing is written to memory. The backward computes it again.
//
// Half of the sites are zero for the first convolution, and half of the results of the last are not asked for: taps and
// columns of one parity are left out (Taps).
#include <memory>

#include "lattice/checkerboard.h"
#include "lattice/convolve_cpu.h"

namespace hepops::lattice {

template <class T>
struct Weights {
  std::vector<Kernel<T>> forward, mirrored;  // the last layer of the odd form is two: s, t
  const T* parameters;
};

template <class T>
Weights<T> weights_of(const Board& board, const T* parameters, bool backward) {
  Weights<T> w{{}, {}, parameters};
  const auto add = [&](const Shape& shape, const T* from) {
    w.forward.emplace_back(shape, from, false);
    if (backward) w.mirrored.emplace_back(shape, from, true);
  };
  for (int l = 0; l < board.layers; ++l) {
    Shape shape = board.shape(l);
    const T* const from = parameters + board.first_weight(l);
    if (!board.odd || l + 1 < board.layers) {
      add(shape, from);
    } else {
      shape.out = 1;
      add(shape, from), add(shape, from + shape.in * shape.taps());
    }
  }
  return w;
}

// One thread's fields of a block of configurations.
template <class T>
class Conditioner {
  using P = Lanes<T>;
  static constexpr int V = P::size;

 public:
  const Board& board;
  const Grid grid;
  core::Buffer<P> field, square;   // x; and h^2 for the odd form, each as rows with margins
  std::vector<core::Buffer<P>> h;  // h[0] = f, ..., h[layers] = (raw_s, raw_t)

  Conditioner(const Board& b, const Weights<T>& w)
      : board(b), grid(b.shape(0), 1, V, false), h(b.layers + 1), weights_(w), rows_(grid), tap_(2 * grid.outer) {
    for (int l = 0; l <= board.layers; ++l) h[l].reserve(size(l));
    field.reserve(size(0));
    if (board.odd) square.reserve(size(board.layers - 1));
    // which taps of the last direction meet a site of parity e relative to the column
    for (int r = 0; r < grid.outer; ++r) {
      int64_t moved = 0, rest = r;
      for (int mu = board.lattice.dims - 2; mu >= 0; --mu) {
        moved += rest % board.kernel[mu] + board.kernel[mu] / 2;
        rest /= board.kernel[mu];
      }
      for (int e = 0; e < 2; ++e) tap_[e * grid.outer + r] = int8_t((e + moved + grid.margin) & 1);
    }
  }

  int64_t channels(int l) const { return board.widths[l]; }
  int64_t size(int l) const { return grid.rows() * grid.row_size(channels(l)); }
  T* row_of(core::Buffer<P>& buffer, int64_t row, int64_t channels) const {
    return reinterpret_cast<T*>(buffer.get() + row * grid.row_size(channels));
  }
  const T* const* around(int64_t row, const core::Buffer<P>& buffer, int64_t channels) {
    return rows_(grid, row, buffer.get(), channels);
  }

  int row_parity(int64_t row) const {
    int64_t sum = 0;
    for (int mu = board.lattice.dims - 2; mu >= 0; --mu)
      sum += row % board.lattice.extent[mu], row /= board.lattice.extent[mu];
    return int(sum & 1);
  }
  // The first column of a row whose site has a parity: the active ones have the board's.
  int64_t first_column(int64_t row, int parity) const { return (parity + row_parity(row)) & 1; }
  // Taps by which columns q, q + 2, ... of a row meet sites of a parity.
  Taps taps_to(int64_t row, int64_t q, int parity) const {
    return {tap_.data() + ((parity + row_parity(row) + q) & 1) * grid.outer, 2};
  }

  // From x to the raw parameters at the active sites.
  void run(const Pieces<T>& pieces, const T* x) {
    pack<T>(grid, pieces, x, 1, field.get());
    const int last = board.layers - 1;
    const int64_t padded = grid.padded;
    for (int64_t row = 0; row < grid.rows(); ++row) {
      P* const f = h[0].get() + row * padded;
      const P* const from = field.get() + row * padded;
      const int64_t q = (first_column(row, board.parity) + grid.margin) & 1;
      for (int64_t c = 0; c < padded; ++c) f[c] = (c & 1) == q ? P(0.0) : from[c];
    }
    for (int l = 0; l < last; ++l) {
      const T* const bias = board.odd ? nullptr : weights_.parameters + board.first_bias(l);
      const int64_t out = channels(l + 1), n = grid.row_size(out);
      for (int64_t row = 0; row < grid.rows(); ++row) {
        T* const to = row_of(h[l + 1], row, out);
        const T* const* const from = around(row, h[l], channels(l));
        if (l == 0)
          for (int q = 0; q < 2; ++q)
            convolve_row<T, 2>(grid, weights_.forward[l], from, bias, to, q, taps_to(row, q, 1 - board.parity));
        else
          convolve_row<T>(grid, weights_.forward[l], from, bias, to);
        P* const here = reinterpret_cast<P*>(to);
        activate_row<T>(board.activation, here, n);
        fill_margin<T>(grid, out, here);
      }
    }
    const T* const bias = weights_.parameters + board.first_bias(last);
    const int64_t in = channels(last);
    if (board.odd)
      for_row<T>(square.get(), size(last),
                 [&](P, int64_t i) __attribute__((always_inline)) { return h[last].get()[i] * h[last].get()[i]; });
    for (int64_t row = 0; row < grid.rows(); ++row) {
      T* const to = row_of(h[board.layers], row, 2);
      const int64_t q = first_column(row, board.parity);
      if (!board.odd) {
        convolve_row<T, 2>(grid, weights_.forward[last], around(row, h[last], in), bias, to, q);
      } else {
        convolve_row<T, 2>(grid, weights_.forward[last], around(row, square, in), bias, to, q);
        convolve_row<T, 2>(grid, weights_.forward[last + 1], around(row, h[last], in), nullptr, to + padded * V, q);
      }
    }
  }

  // f(x, raw_s, raw_t) at the active sites in their order; x may be overwritten.
  template <class F>
  void for_active(const F& f) {
    const int64_t padded = grid.padded;
    for (int64_t row = 0; row < grid.rows(); ++row) {
      P* const x = field.get() + row * padded;
      P* const raw = h[board.layers].get() + row * 2 * padded;
      for (int64_t c = grid.margin + first_column(row, board.parity); c < grid.margin + grid.columns; c += 2)
        f(x[c], raw[c], raw[padded + c], row, c);
    }
  }

 private:
  const Weights<T>& weights_;
  RowPointers<T> rows_;
  std::vector<int8_t> tap_;
};

template <class T>
struct BoardForward {
  Board board;
  int64_t batch;
  const T *x, *parameters;
  T* y;
  double* logdet;

  template <class Parallel>
  void run(const Parallel& parallel) const {
    using P = Lanes<T>;
    const Weights<T> weights = weights_of(board, parameters, false);
    const Grid grid(board.shape(0), batch, P::size, false);
    parallel(Pieces<T>::blocks(grid, batch), 1, [&](int64_t begin, int64_t end) {
      Conditioner<T> net(board, weights);
      for (int64_t b = begin; b < end; ++b) {
        const Pieces<T> pieces(grid, batch, b);
        net.run(pieces, x);
        double sum[P::size] = {};
        net.for_active([&](P& x, P raw_s, P raw_t, int64_t, int64_t) __attribute__((always_inline)) {
          const Coupled<P> c = couple(x, raw_s, raw_t, board.limit, board.inverse);
          x = c.value;
          for (int l = 0; l < P::size; ++l) sum[l] += double(c.s.v[l]);
        });
        unpack<T>(grid, pieces, net.field.get(), 1, y);
        for (int l = 0; l < pieces.count; ++l) logdet[b * P::size + l] = board.inverse ? -sum[l] : sum[l];
      }
    });
  }
};

// The gradients of x and of the parameters. `at`: x, or with `from_y` what the layer gave, from which x is found again.
template <class T>
struct BoardBackward {
  Board board;
  int64_t batch;
  const T *at, *parameters, *grad_y;
  const double* grad_logdet;
  bool from_y;
  T *grad_x, *grad_parameters, *x;  // the last two may be null

  template <class Parallel>
  void run(const Parallel& parallel) const {
    using P = Lanes<T>;
    const Weights<T> weights = weights_of(board, parameters, true);
    const Grid grid(board.shape(0), batch, P::size, false);
    const int64_t blocks = Pieces<T>::blocks(grid, batch), parts = std::clamp<int64_t>(blocks, 1, 64);
    const int64_t numbers = board.parameters();
    std::vector<double> sums(grad_parameters ? parts * numbers : 0);
    parallel(parts, 1, [&](int64_t begin, int64_t end) {
      Task task(*this, weights, grid);
      for (int64_t part = begin; part < end; ++part) {
        task.begin();
        for (int64_t b = part * blocks / parts; b < (part + 1) * blocks / parts; ++b) task.block(b);
        if (grad_parameters) task.finish(sums.data() + part * numbers);
      }
    });
    if (!grad_parameters) return;
    const AddParts<T> add{numbers, parts, sums.data(), grad_parameters};
    for (int64_t n = 0; n < numbers; ++n) add(n);
  }

 private:
  struct Task {
    using P = Lanes<T>;
    static constexpr int V = P::size;
    const BoardBackward& of;
    const Board& board;
    const Weights<T>& weights;
    const Grid& grid;
    Conditioner<T> net;
    core::Buffer<P> G, further;             // dL/dy; and a part of dL/dh
    std::vector<core::Buffer<P>> g;         // dL/dh, g[l] for h[l]
    std::vector<GradientSums<T>> gradient;  // as Weights::forward

    Task(const BoardBackward& of, const Weights<T>& weights, const Grid& grid)
        : of(of), board(of.board), weights(weights), grid(grid), net(board, weights), g(board.layers + 1) {
      for (int l = 0; l <= board.layers; ++l) g[l].reserve(net.size(l));
      G.reserve(net.size(0));
      if (board.odd) further.reserve(grid.row_size(net.channels(board.layers - 1)));
    }

    void begin() {
      gradient.clear();
      if (of.grad_parameters)
        for (const Kernel<T>& k : weights.forward) gradient.emplace_back(grid, k.in, k.out);
    }

    void block(int64_t b) {
      const Pieces<T> pieces(grid, of.batch, b);
      net.run(pieces, of.at);
      pack<T>(grid, pieces, of.grad_y, 1, G.get());
      double of_logdet[V] = {};
      for (int l = 0; l < pieces.count; ++l) of_logdet[l] = of.grad_logdet[b * V + l];
      coupling(pieces.live(), P::load(of_logdet));
      if (of.from_y && of.x) unpack<T>(grid, pieces, net.field.get(), 1, of.x);
      last_layer();
      for (int l = board.layers - 2; l >= 0; --l) layer(l);
      unpack<T>(grid, pieces, G.get(), 1, of.grad_x);
      for (GradientSums<T>& sums : gradient) sums.flush();
    }

    // dL/d raw at the active sites, in g[layers]; x where y was given; dL/dx there, in G
    void coupling(P live, P of_logdet) {
      const int64_t padded = grid.padded;
      net.for_active([&](P& x, P raw_s, P raw_t, int64_t row, int64_t c) __attribute__((always_inline)) {
        if (of.from_y) x = couple(x, raw_s, raw_t, board.limit, !board.inverse).value;
        P& G_here = G.get()[row * padded + c];
        const auto d = couple_backward(x, raw_s, raw_t, G_here, of_logdet, board.limit, board.inverse);
        P* const to = g[board.layers].get() + row * 2 * padded + c;
        to[0] = select(live != 0.0, d.raw_s, P(0.0)), to[padded] = select(live != 0.0, d.raw_t, P(0.0));
        G_here = d.x;
      });
      for (int64_t row = 0; row < grid.rows(); ++row) fill_margin<T>(grid, 2, g[board.layers].get() + row * 2 * padded);
    }

    void last_layer() {
      const int last = board.layers - 1;
      const int64_t in = net.channels(last), n = grid.row_size(in);
      const core::Buffer<P>& out = g[board.layers];
      if (of.grad_parameters)
        for (int64_t row = 0; row < grid.rows(); ++row) {
          const T* const here = net.row_of(g[board.layers], row, 2);
          const int64_t q = net.first_column(row, board.parity);
          if (!board.odd) {
            gradient[last].template add<2>(here, net.around(row, net.h[last], in), q);
          } else {
            gradient[last].template add<2>(here, net.around(row, net.square, in), q);
            gradient[last + 1].template add<2>(here + grid.padded * V, net.around(row, net.h[last], in), q);
          }
        }
      if (last == 0) return to_frozen_from_last();
      for (int64_t row = 0; row < grid.rows(); ++row) {
        T* const to = net.row_of(g[last], row, in);
        P *const here = reinterpret_cast<P*>(to), *const more = further.get();
        const P* const h = net.h[last].get() + row * n;
        for (int q = 0; q < 2; ++q) {
          const Taps taps = net.taps_to(row, q, board.parity);
          if (!board.odd) {
            convolve_row<T, 2>(grid, weights.mirrored[last], net.around(row, out, 2), nullptr, to, q, taps);
          } else {
            convolve_row<T, 2>(grid, weights.mirrored[last], net.around(row, out, 2), nullptr,
                               reinterpret_cast<T*>(more), q, taps);
            convolve_row<T, 2>(grid, weights.mirrored[last + 1], t_rows(row), nullptr, to, q, taps);
          }
        }
        if (board.odd)
          for_row<T>(here, n, [&](P v, int64_t i) __attribute__((always_inline)) { return v + 2.0 * h[i] * more[i]; });
        slope_row<T>(board.activation, here, h, n);
        fill_margin<T>(grid, in, here);
      }
    }

    // The rows of dL/d raw_t, the second channel.
    const T* const* t_rows(int64_t row) {
      const T* const* const rows = net.around(row, g[board.layers], 2);
      shifted.assign(rows, rows + grid.outer);
      for (const T*& r : shifted) r += grid.padded * V;
      return shifted.data();
    }
    std::vector<const T*> shifted;

    // dL/dW of layer l, and from dL/dh[l + 1] (before its activation) to dL/dh[l], or to the frozen sites
    void layer(int l) {
      const int64_t in = net.channels(l), out = net.channels(l + 1), n = grid.row_size(in);
      if (of.grad_parameters)
        for (int64_t row = 0; row < grid.rows(); ++row) {
          const T* const here = net.row_of(g[l + 1], row, out);
          const T* const* const around = net.around(row, net.h[l], in);
          if (l == 0)
            for (int q = 0; q < 2; ++q)
              gradient[l].template add<2>(here, around, q, net.taps_to(row, q, 1 - board.parity));
          else
            gradient[l].add(here, around);
        }
      for (int64_t row = 0; row < grid.rows(); ++row) {
        const T* const* const around = net.around(row, g[l + 1], out);
        T* const to = net.row_of(g[l], row, in);
        P* const here = reinterpret_cast<P*>(to);
        if (l == 0) {
          const int64_t q = net.first_column(row, 1 - board.parity);
          convolve_row<T, 2>(grid, weights.mirrored[0], around, nullptr, to, q);
          add_frozen(row, here, q);
          continue;
        }
        convolve_row<T>(grid, weights.mirrored[l], around, nullptr, to);
        slope_row<T>(board.activation, here, net.h[l].get() + row * n, n);
        fill_margin<T>(grid, in, here);
      }
    }

    void add_frozen(int64_t row, const P* here, int64_t q) {
      P* const to = G.get() + row * grid.padded;
      for (int64_t c = grid.margin + q; c < grid.margin + grid.columns; c += 2) to[c] += here[c];
    }

    // a conditioner of one layer
    void to_frozen_from_last() {
      for (int64_t row = 0; row < grid.rows(); ++row) {
        P* const here = g[0].get() + row * grid.padded;
        const int64_t q = net.first_column(row, 1 - board.parity);
        const Taps taps = net.taps_to(row, q, board.parity);
        if (!board.odd) {
          convolve_row<T, 2>(grid, weights.mirrored[0], net.around(row, g[1], 2), nullptr, reinterpret_cast<T*>(here),
                             q, taps);
        } else {
          convolve_row<T, 2>(grid, weights.mirrored[0], net.around(row, g[1], 2), nullptr,
                             reinterpret_cast<T*>(further.get()), q, taps);
          convolve_row<T, 2>(grid, weights.mirrored[1], t_rows(row), nullptr, reinterpret_cast<T*>(here), q, taps);
          const P* const f = net.h[0].get() + row * grid.padded;
          for (int64_t c = grid.margin + q; c < grid.margin + grid.columns; c += 2)
            here[c] += 2.0 * f[c] * further.get()[c];
        }
        add_frozen(row, here, q);
      }
    }

    // In the order of the parameters.
    void finish(double* result) {
      for (int l = 0; l < board.layers; ++l) {
        const int64_t W = board.weights(l), B = board.biases(l);
        std::vector<double> part(W + 2 * net.channels(l + 1));
        double* const to = result + board.first_weight(l);
        gradient[l].finish(part.data());
        if (!board.odd || l + 1 < board.layers) {
          std::copy_n(part.data(), W + B, to);
          continue;
        }
        std::copy_n(part.data(), W / 2, to);
        to[W] = part[W / 2];
        gradient[l + 1].finish(part.data());
        std::copy_n(part.data(), W / 2, to + W / 2);
      }
    }
  };
};

}  // namespace hepops::lattice
