#include "lattice/convolve.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "core/check.h"
#include "core/for_each.h"
#include "core/huge_pages.h"
#include "core/op.h"
#ifndef __CUDACC__
#include "lattice/convolve_cpu.h"
#endif

namespace hepops::lattice {
namespace {

using core::check_same_kind, core::check_value, core::in, core::out, core::Tensor;
using ShapeOf = core::Shape;  // of a tensor, for messages

struct Checked {
  Shape shape;
  int64_t batch;
  Tensor x, weight;
};

Checked checked(const char* name, const Tensor& x, const Tensor& weight) {
  const int64_t D = x.dim() - 2;
  core::check_floating((std::string(name) + ": x").c_str(), x);
  check_value(D >= 1 && D <= most_dims, name, ": x must have shape (B, channels, L_1, ..., L_D), D = 1 to 4, got ",
              ShapeOf{x});
  check_same_kind((std::string(name) + ": weight").c_str(), weight, x);
  check_value(weight.dim() == D + 2 && weight.size(1) == x.size(1) && weight.size(0) > 0 && weight.size(1) > 0, name,
              ": weight must have shape (outputs, ", x.size(1), ", K_1, ..., K_", D, "), got ", ShapeOf{weight});
  Checked c{{Lattice(x.sizes().data() + 2, int(D))}, x.size(0), core::contiguous(x), core::contiguous(weight)};
  c.shape.in = x.size(1), c.shape.out = weight.size(0);
  for (int64_t mu = 0; mu < D; ++mu) {
    c.shape.kernel[mu] = weight.size(mu + 2);
    check_value(c.shape.kernel[mu] % 2 == 1, name, ": the kernel must be odd in every direction, got ",
                ShapeOf{weight});
    check_value(x.size(mu + 2) > 0, name, ": x has an extent of 0, got ", ShapeOf{x});
  }
  return c;
}

Activation checked_activation(const char* name, int64_t activation) {
  check_value(activation >= 0 && activation < activations, name, ": activation must be 0 to ", activations - 1,
              ", got ", activation);
  return Activation(activation);
}

Tensor fields_like(const Tensor& x, int64_t channels) {
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  sizes[1] = channels;
  return core::in_huge_pages(torch::stable::new_empty(x, {sizes.data(), sizes.size()}));
}

#ifdef __CUDACC__

template <class T>
void forward(const Checked& c, const T* bias, Activation activation, const Tensor& y) {
  core::for_each(c.x, y.numel(),
                 ConvolveOne<T>{c.shape, in<T>(c.x), in<T>(c.weight), bias, out<T>(y), activation, false});
}

template <class T>
struct TimesSlope {
  const T *g, *at;
  T* result;
  Activation activation;
  HEPOPS_HD void operator()(int64_t i) const { result[i] = g[i] * activation_slope(activation, at[i]); }
};

template <class T>
void backward(const Checked& c, const Tensor& grad, const Tensor& at, Activation activation, T* grad_x, T* grad_weight,
              T* grad_bias) {
  Tensor g = grad;
  if (activation != Activation::none) {
    g = core::empty_like(grad);
    core::for_each(g, g.numel(), TimesSlope<T>{in<T>(grad), in<T>(at), out<T>(g), activation});
  }
  if (grad_x)
    core::for_each(g, c.x.numel(),
                   ConvolveOne<T>{c.shape, in<T>(g), in<T>(c.weight), nullptr, grad_x, Activation::none, true});
  if (!grad_weight) return;
  const int64_t parts = std::clamp<int64_t>(c.batch, 1, 256);
  WeightGradient<T> f{c.shape, c.batch, parts, in<T>(g), in<T>(c.x), nullptr};
  const Tensor sums = torch::stable::new_empty(g, {parts * f.numbers()}, core::ScalarType::Double);
  f.sums = out<double>(sums);
  core::for_each(g, parts * f.numbers(), f);
  const int64_t weights = c.weight.numel();
  const Tensor total = torch::stable::new_empty(g, {f.numbers()});
  core::for_each(g, weights, AddParts<T>{f.numbers(), parts, f.sums, grad_weight});
  core::for_each(g, c.shape.out, AddParts<T>{f.numbers(), parts, f.sums + weights, grad_bias});
}

#else

template <class T>
void forward(const Checked& c, const T* bias, Activation activation, const Tensor& y) {
  using P = Lanes<T>;
  const Grid grid(c.shape, c.batch, P::size, true);
  const Kernel<T> kernel(c.shape, in<T>(c.weight), false);
  const T* const x = in<T>(c.x);
  T* const to = out<T>(y);
  torch::stable::parallel_for(0, Pieces<T>::blocks(grid, c.batch), 1, [&](int64_t begin, int64_t end) {
    const int64_t size = grid.row_size(c.shape.out);
    core::Buffer<P> fields(grid.rows() * grid.row_size(c.shape.in)), results(grid.rows() * size);
    RowPointers<T> rows(grid);
    for (int64_t b = begin; b < end; ++b) {
      const Pieces<T> pieces(grid, c.batch, b);
      pack<T>(grid, pieces, x, c.shape.in, fields.get());
      for (int64_t row = grid.first_row(); row < grid.last_row(); ++row) {
        P* const here = results.get() + row * size;
        convolve_row<T>(grid, kernel, rows(grid, row, fields.get(), c.shape.in), bias, reinterpret_cast<T*>(here));
        activate_row<T>(activation, here, size);
      }
      unpack<T>(grid, pieces, results.get(), c.shape.out, to);
    }
  });
}

// Blocks are summed in `parts` ranges, whose sums are added in order: the number of threads does not enter.
template <class T>
void backward(const Checked& c, const Tensor& grad, const Tensor& at, Activation activation, T* grad_x, T* grad_weight,
              T* grad_bias) {
  using P = Lanes<T>;
  const Grid grid(c.shape, c.batch, P::size, true);
  const Kernel<T> mirrored(c.shape, in<T>(c.weight), true);
  const int64_t blocks = Pieces<T>::blocks(grid, c.batch), parts = std::clamp<int64_t>(blocks, 1, 64);
  const int64_t numbers = c.weight.numel() + c.shape.out;
  std::vector<double> sums(grad_weight ? parts * numbers : 0);
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    const int64_t size = grid.row_size(c.shape.in), g_size = grid.row_size(c.shape.out);
    core::Buffer<P> fields(grid.rows() * size), slopes(grid.rows() * g_size), g(grid.rows() * g_size);
    core::Buffer<P> results(grad_x ? grid.rows() * size : 1);
    RowPointers<T> rows(grid);
    for (int64_t part = begin; part < end; ++part) {
      GradientSums<T> weights(grid, c.shape.in, c.shape.out);
      for (int64_t b = part * blocks / parts; b < (part + 1) * blocks / parts; ++b) {
        const Pieces<T> pieces(grid, c.batch, b);
        pack<T>(grid, pieces, in<T>(grad), c.shape.out, g.get());
        if (activation != Activation::none) {
          pack<T>(grid, pieces, in<T>(at), c.shape.out, slopes.get());
          slope_row<T>(activation, g.get(), slopes.get(), grid.rows() * g_size);
        }
        if (pieces.count < P::size) {
          const P live = pieces.live();
          for_row<T>(g.get(), grid.rows() * g_size,
                     [&](P v, int64_t) __attribute__((always_inline)) { return select(live != 0.0, v, P(0.0)); });
        }
        if (grad_x) {
          for (int64_t row = grid.first_row(); row < grid.last_row(); ++row)
            convolve_row<T>(grid, mirrored, rows(grid, row, g.get(), c.shape.out), nullptr,
                            reinterpret_cast<T*>(results.get() + row * size));
          unpack<T>(grid, pieces, results.get(), c.shape.in, grad_x);
        }
        if (!grad_weight) continue;
        pack<T>(grid, pieces, in<T>(c.x), c.shape.in, fields.get());
        for (int64_t row = grid.first_row(); row < grid.last_row(); ++row)
          weights.add(reinterpret_cast<const T*>(g.get() + row * g_size), rows(grid, row, fields.get(), c.shape.in));
        weights.flush();
      }
      if (grad_weight) weights.finish(sums.data() + part * numbers);
    }
  });
  if (!grad_weight) return;
  const AddParts<T> weight{numbers, parts, sums.data(), grad_weight};
  const AddParts<T> bias{numbers, parts, sums.data() + c.weight.numel(), grad_bias};
  for (int64_t n = 0; n < c.weight.numel(); ++n) weight(n);
  for (int64_t n = 0; n < c.shape.out; ++n) bias(n);
}

#endif

Tensor convolve(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t activation) {
  const Checked c = checked("convolve", x, weight);
  const Activation A = checked_activation("convolve", activation);
  std::optional<Tensor> b;
  if (bias) {
    check_same_kind("convolve: bias", *bias, x);
    check_value(bias->dim() == 1 && bias->size(0) == c.shape.out, "convolve: bias must have shape (", c.shape.out,
                "), got ", ShapeOf{*bias});
    b = core::contiguous(*bias);
  }
  Tensor y = fields_like(x, c.shape.out);
  if (y.numel() == 0) return y;
  core::for_floating("convolve: x", x, [&]<class T>() { forward<T>(c, b ? in<T>(*b) : nullptr, A, y); });
  return y;
}

// grad: dL/dy. at: what the activation's slope is a function of, y or (silu) a. Gradients that are not wanted are
// empty.
std::tuple<Tensor, Tensor, Tensor> convolve_backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                                     const std::optional<Tensor>& at, int64_t activation, bool wants_x,
                                                     bool wants_weight) {
  const Checked c = checked("convolve_backward", x, weight);
  const Activation A = checked_activation("convolve_backward", activation);
  check_same_kind("convolve_backward: grad", grad, x);
  check_value(A == Activation::none || at, "convolve_backward: this activation needs `at`");
  const Tensor g = core::contiguous(grad), a = at ? core::contiguous(*at) : g;
  core::check_same_shape("convolve_backward: at", a, g);
  check_value(g.dim() == x.dim() && g.size(0) == x.size(0) && g.size(1) == c.shape.out &&
                  g.numel() == c.batch * c.shape.out * c.shape.lattice.sites,
              "convolve_backward: grad has shape ", ShapeOf{grad}, ", which is not that of the result");
  Tensor grad_x = wants_x ? fields_like(x, c.shape.in) : torch::stable::new_empty(x, {0});
  Tensor grad_weight = wants_weight ? core::empty_like(c.weight) : torch::stable::new_empty(x, {0});
  Tensor grad_bias = torch::stable::new_empty(x, {wants_weight ? c.shape.out : 0});
  core::for_floating("convolve_backward: x", x, [&]<class T>() {
    backward<T>(c, g, a, A, wants_x && x.numel() ? out<T>(grad_x) : nullptr,
                wants_weight ? out<T>(grad_weight) : nullptr, wants_weight ? out<T>(grad_bias) : nullptr);
  });
  return {grad_x, grad_weight, grad_bias};
}

const core::Operators operators{
    core::op<convolve>("lattice_convolve(Tensor x, Tensor weight, Tensor? bias, int activation) -> Tensor"),
    core::op<convolve_backward>(
        "_lattice_convolve_backward(Tensor grad, Tensor x, Tensor weight, Tensor? at, int activation, bool wants_x, "
        "bool wants_weight) -> (Tensor, Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lattice
