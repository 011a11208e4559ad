#include "sparse/norm.h"

#include <optional>
#include <tuple>
#include <type_traits>

#include "core/check.h"
#include "core/for_each.h"
#include "core/for_each_row.h"
#include "core/op.h"
#include "sparse/pair_tensors.h"
#ifndef __CUDACC__
#include "sparse/half_cpu.h"
#include "sparse/norm_cpu.h"
#endif

namespace hepops::sparse {
namespace {

using core::ScalarType;
using core::Team;
using core::Tensor;

constexpr int threads = 256;

// Numbers of whatever floating type, one for each column.
class Numbers {
 public:
  Numbers(const std::optional<Tensor>& x, double otherwise)
      : data_(x ? x->const_data_ptr() : nullptr),
        kind_(x ? x->scalar_type() : ScalarType::Undefined),
        otherwise_(otherwise) {}

  HEPOPS_HD double operator[](int64_t c) const {
    switch (kind_) {
      case ScalarType::Double: return static_cast<const double*>(data_)[c];
      case ScalarType::Float: return double(static_cast<const float*>(data_)[c]);
      case ScalarType::Half: return double(float(static_cast<const torch::headeronly::Half*>(data_)[c]));
      case ScalarType::BFloat16: return double(float(static_cast<const torch::headeronly::BFloat16*>(data_)[c]));
      default: return otherwise_;
    }
  }

 private:
  const void* data_;
  ScalarType kind_;
  double otherwise_;
};

// The constants of all columns: mean, variance, weight and bias, as they are given.
struct Columns {
  std::optional<Tensor> mean, variance, weight, bias;  // contiguous, (channels)
  double eps;
};

struct ReadColumn {
  Numbers mean, variance, weight, bias;
  double eps;
  explicit ReadColumn(const Columns& c)
      : mean(c.mean, 0), variance(c.variance, 0), weight(c.weight, 1), bias(c.bias, 0), eps(c.eps) {}
  HEPOPS_HD Column operator()(int64_t c) const {
    return {mean[c], 1 / core::sqrt(variance[c] + eps), weight[c], bias[c]};
  }
};

// Few columns are laid side by side, several rows of them, so that a pass over the rows has long inner loops.
struct Layout {
#ifdef __CUDACC__
  static constexpr int64_t at_once =
      2048;  // by a block: 20 thousand rows of 32 shall be enough for every multiprocessor
#else
  static constexpr int64_t at_once = 32768;
#endif
  int64_t channels, repeat, width, numel, chunk;
  explicit Layout(const Tensor& x)
      : channels(x.size(1)),
        repeat(std::clamp<int64_t>(512 / std::max<int64_t>(channels, 1), 1, std::max<int64_t>(x.size(0), 1))),
        width(repeat * channels),
        numel(x.numel()),
        chunk(width * std::max<int64_t>(1, at_once / std::max<int64_t>(width, 1))) {}
  int64_t chunks() const { return (numel + chunk - 1) / chunk; }
};

// The numbers of every column, `repeat` times: centre, scale, shift, and with sums level and tilt.
template <class T>
struct Prepare {
  ReadColumn column;
  const double* sums;   // (2, channels), or null
  const double* count;  // one number, or null: rows
  double rows;
  int64_t channels, repeat;
  T* out;  // (5, repeat x channels)

  HEPOPS_HD void operator()(int64_t c) const {
    const Column at = column(c);
    const Affine<T> affine = at.affine<T>();
    Slope<T> slope{0, 0};
    if (sums) slope = slope_of<T>(at, sums[c], sums[channels + c], count ? *count : rows);
    const int64_t width = repeat * channels;
    for (int64_t j = c; j < width; j += channels) {
      out[j] = affine.centre;
      out[j + width] = affine.scale;
      out[j + 2 * width] = affine.shift;
      out[j + 3 * width] = slope.level;
      out[j + 4 * width] = slope.tilt;
    }
  }
};

template <class T>
Tensor prepare(const Tensor& x, const Layout& layout, const Columns& columns, const double* sums = nullptr,
               const double* count = nullptr) {
  const auto kind = sizeof(T) == sizeof(double) ? ScalarType::Double : ScalarType::Float;
  const Tensor constants = torch::stable::new_empty(x, {5, layout.width}, kind);
  core::for_each(x, layout.channels,
                 Prepare<T>{ReadColumn(columns), sums, count, double(x.size(0)), layout.channels, layout.repeat,
                            core::out<T>(constants)});
  return constants;
}

// to[i] = f(a[i], b[i], j) of every element i of a chunk, j its place among the constants
template <class S, class T, class F>
HEPOPS_HD void map_chunk(const Layout& layout, int64_t item, const Team& team, const S* a, const S* b, S* to,
                         const F& f) {
  const int64_t begin = item * layout.chunk, end = core::min(begin + layout.chunk, layout.numel);
  for (int64_t base = begin; base < end; base += layout.width) {
    const int64_t here = core::min(layout.width, end - base);
#ifndef __CUDACC__
    if constexpr (std::is_same_v<S, torch::headeronly::Half>) {
      T *wide_a = reinterpret_cast<T*>(team.memory), *wide_b = wide_a + layout.width, *wide_to = wide_b + layout.width;
      convert(a + base, wide_a, here);
      convert(b + base, wide_b, here);
#pragma GCC ivdep
      for (int64_t j = 0; j < here; ++j) wide_to[j] = f(wide_a[j], wide_b[j], j);
      convert(wide_to, to + base, here);
      continue;
    }
#endif
#pragma GCC ivdep
    for (int64_t j = team.rank; j < here; j += team.size) to[base + j] = S(f(T(a[base + j]), T(b[base + j]), j));
  }
}

// What map_chunk asks for.
template <class S>
size_t map_scratch(const Layout& layout) {
  return std::is_same_v<S, torch::headeronly::Half> ? 3 * layout.width * sizeof(float) : 0;
}

// A compiler leaves out the reads of what a function does not use: without a residual, that of x again.
template <class S, class T, bool with_residual>
struct Forward {
  Layout layout;
  const S *x, *residual;
  const T* constants;
  S* y;
  T slope;
  HEPOPS_HD void operator()(int64_t item, const Team& team) const {
    const T *centre = constants, *scale = centre + layout.width, *shift = scale + layout.width;
    const T leak = slope;
    map_chunk<S, T>(layout, item, team, x, residual, y, [=](T from, T beside, int64_t j) {
      const T a = rectify(normalise(from, centre[j], scale[j], shift[j]), leak);
      return with_residual ? a + beside : a;
    });
  }
};

template <class S, class T>
struct Backward {
  Layout layout;
  const S *x, *grad;
  const T* constants;
  S* grad_x;
  T slope;
  HEPOPS_HD void operator()(int64_t item, const Team& team) const {
    const T *centre = constants, *scale = centre + layout.width, *shift = scale + layout.width,
            *level = shift + layout.width, *tilt = level + layout.width;
    const T leak = slope;
    map_chunk<S, T>(layout, item, team, x, grad, grad_x, [=](T from, T seed, int64_t j) {
      const T d = from - centre[j];
      const T g = rectify_backward(seed, d * scale[j] + shift[j], leak);
      return scale[j] * (g - level[j] - d * tilt[j]);
    });
  }
};

// sum g (x - centre) becomes sum g xhat, xhat = (x - mean) invstd
struct Reckon {
  ReadColumn column;
  double* sums;
  int64_t channels;
  bool single;
  HEPOPS_HD void operator()(int64_t c) const {
    const Column at = column(c);
    const double centre = single ? double(float(at.mean)) : at.mean;
    sums[channels + c] = at.invstd * (sums[channels + c] + (centre - at.mean) * sums[c]);
  }
};

int64_t channel_blocks(int64_t channels) { return (channels + norm_channels - 1) / norm_channels; }

Tensor zeros(const Tensor& like, std::initializer_list<int64_t> shape) {
  Tensor result = torch::stable::new_empty(like, shape, ScalarType::Double);
  torch::stable::fill_(result, 0.0);
  return result;
}

template <class Combine>
void combine(const Tensor& partial, int64_t rows, int64_t tile, int64_t channels, double* first, double* second) {
  core::for_each_row(partial, channel_blocks(channels), norm_scratch(threads),
                     Combine{{core::in<double>(partial), rows, tile, channels}, first, second}, threads);
}

std::tuple<Tensor, Tensor> combined(const Tensor& partial, int64_t rows, int64_t tile, int64_t channels) {
  const Tensor mean = torch::stable::new_empty(partial, {channels}), variance = core::empty_like(mean);
  combine<CombineMoments>(partial, rows, tile, channels, core::out<double>(mean), core::out<double>(variance));
  return {mean, variance};
}

Tensor tiles_of(const Tensor& x) {
  const int64_t tile = tile_rows(x);
  return torch::stable::new_empty(x, {(x.size(0) + tile - 1) / tile, 2, x.size(1)}, ScalarType::Double);
}

void check_matrix(const char* name, const Tensor& x) {
  core::check_floating_or_half(name, x);
  core::check_value(x.dim() == 2, name, " must be (N, C), got shape ", core::Shape{x});
}

std::tuple<Tensor, Tensor> moments(const Tensor& x) {
  check_matrix("moments: features", x);
  const int64_t rows = x.size(0), channels = x.size(1), tile = tile_rows(x);
  if (x.numel() == 0) return {zeros(x, {channels}), zeros(x, {channels})};
  const Tensor from = core::contiguous(x), partial = tiles_of(x);
  core::for_floating_or_half("moments: features", x, [&]<class S, class T>() {
    const TileMoments<S> step{core::in<S>(from), core::out<double>(partial), rows, tile, channels};
#ifdef __CUDACC__
    core::for_each_row(x, NormTile::count(rows, tile, channels), norm_scratch(threads), step, threads);
#else
    moments_on_host<S, T>(step, core::Threads{});
#endif
  });
  return combined(partial, rows, tile, channels);
}

// tiles (T, 2, C) float64: mean and M2 of the rows of each tile of `like`, as a convolution leaves them
std::tuple<Tensor, Tensor> combine_moments(const Tensor& tiles, const Tensor& like) {
  const int64_t tile = tile_rows(like), count = (like.size(0) + tile - 1) / tile;
  core::check_type(tiles.scalar_type() == ScalarType::Double, "combine_moments: tiles must be float64, got ",
                   toString(tiles.scalar_type()));
  core::check_value(like.dim() == 2, "combine_moments: features must be (N, C), got shape ", core::Shape{like});
  core::check_value(tiles.dim() == 3 && (tiles.size(0) == count || tiles.size(0) == count + 1) && tiles.size(1) == 2 &&
                        tiles.size(2) == like.size(1),
                    "combine_moments: tiles must be (", count, ", 2, ", like.size(1), "), got shape ",
                    core::Shape{tiles});
  core::check_value(tiles.device() == like.device(), "combine_moments: tiles must be on the device of the features");
  if (like.numel() == 0) return {zeros(like, {like.size(1)}), zeros(like, {like.size(1)})};
  return combined(core::contiguous(tiles), like.size(0), tile, like.size(1));
}

std::optional<Tensor> column_numbers(const char* name, const std::optional<Tensor>& given, const Tensor& x) {
  if (!given) return given;
  core::check_floating_or_half(name, *given);
  core::check_value(given->dim() == 1 && given->size(0) == x.size(1), name, " must be (C) with C = ", x.size(1),
                    " of the features, got shape ", core::Shape{*given});
  core::check_value(given->device() == x.device(), name, " must be on the device of the features");
  return core::contiguous(*given);
}

Columns columns_of(const Tensor& x, const Tensor& mean, const Tensor& variance, const std::optional<Tensor>& weight,
                   const std::optional<Tensor>& bias, double eps) {
  check_matrix("norm_act: features", x);
  core::check_value(eps >= 0, "norm_act: eps must not be negative, got ", eps);
  return {column_numbers("norm_act: mean", mean, x), column_numbers("norm_act: variance", variance, x),
          column_numbers("norm_act: weight", weight, x), column_numbers("norm_act: bias", bias, x), eps};
}

Tensor forward(const Tensor& x, const Tensor& mean, const Tensor& variance, const std::optional<Tensor>& weight,
               const std::optional<Tensor>& bias, const std::optional<Tensor>& residual, double eps, double slope,
               bool /*through*/) {
  const Columns columns = columns_of(x, mean, variance, weight, bias, eps);
  if (residual) core::check_same_shape("norm_act: residual", *residual, x);
  const Tensor from = core::contiguous(x), y = core::empty_like(from);
  if (y.numel() == 0) return y;
  const Layout layout(x);
  core::for_floating_or_half("norm_act: features", x, [&]<class S, class T>() {
    const Tensor constants = prepare<T>(from, layout, columns);
    const auto run = [&]<bool with_residual>(const Tensor& beside) {
      core::for_each_row(x, layout.chunks(), map_scratch<S>(layout),
                         Forward<S, T, with_residual>{layout, core::in<S>(from), core::in<S>(beside),
                                                      core::in<T>(constants), core::out<S>(y), T(slope)},
                         threads);
    };
    residual ? run.template operator()<true>(core::contiguous(*residual)) : run.template operator()<false>(from);
  });
  return y;
}

// (2, C) float64: the sums over the rows of g and g xhat, g the gradient behind the rectifier
Tensor sums_of(const Tensor& grad, const Tensor& x, const Columns& columns, double slope) {
  const int64_t rows = x.size(0), channels = x.size(1), tile = tile_rows(x);
  if (x.numel() == 0) return zeros(x, {2, channels});
  const Layout layout(x);
  const Tensor partial = tiles_of(x);
  const Tensor sums = torch::stable::new_empty(x, {2, channels}, ScalarType::Double);
  core::for_floating_or_half("norm_act: features", x, [&]<class S, class T>() {
    const Tensor constants = prepare<T>(x, layout, columns);
    const T* centre = core::in<T>(constants);
    const TileSums<S, T> step{core::in<S>(x),
                              core::in<S>(grad),
                              centre,
                              centre + layout.width,
                              centre + 2 * layout.width,
                              core::out<double>(partial),
                              rows,
                              tile,
                              channels,
                              T(slope)};
#ifdef __CUDACC__
    core::for_each_row(x, NormTile::count(rows, tile, channels), norm_scratch(threads), step, threads);
#else
    sums_on_host<S, T>(step, core::Threads{});
#endif
    double* total = core::out<double>(sums);
    combine<CombineSums>(partial, rows, tile, channels, total, total + channels);
    core::for_each(sums, channels, Reckon{ReadColumn(columns), total, channels, sizeof(T) == sizeof(float)});
  });
  return sums;
}

Tensor gradient(const Tensor& grad, const Tensor& x, const Columns& columns, double slope, const Tensor* sums,
                const Tensor* count) {
  const Tensor grad_x = core::empty_like(x);
  if (x.numel() == 0) return grad_x;
  const Layout layout(x);
  core::for_floating_or_half("norm_act: features", x, [&]<class S, class T>() {
    const Tensor constants = prepare<T>(x, layout, columns, sums ? core::in<double>(*sums) : nullptr,
                                        count ? core::in<double>(*count) : nullptr);
    core::for_each_row(x, layout.chunks(), map_scratch<S>(layout),
                       Backward<S, T>{layout, core::in<S>(x), core::in<S>(grad), core::in<T>(constants),
                                      core::out<S>(grad_x), T(slope)},
                       threads);
  });
  return grad_x;
}

Tensor checked_grad(const Tensor& grad, const Tensor& x) {
  core::check_same_shape("norm_act: grad", grad, x);
  return core::contiguous(grad);
}

// -> the gradient of the features, and the sums; `through`: mean and variance are those of the features
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& mean, const Tensor& variance,
                                    const std::optional<Tensor>& weight, const std::optional<Tensor>& bias, double eps,
                                    double slope, bool through) {
  const Columns columns = columns_of(x, mean, variance, weight, bias, eps);
  const Tensor g = checked_grad(grad, x), from = core::contiguous(x);
  const Tensor sums = sums_of(g, from, columns, slope);
  return {gradient(g, from, columns, slope, through ? &sums : nullptr, nullptr), sums};
}

// The two passes of the backward apart, for sums and moments over several processes.
Tensor only_sums(const Tensor& grad, const Tensor& x, const Tensor& mean, const Tensor& variance,
                 const std::optional<Tensor>& weight, const std::optional<Tensor>& bias, double eps, double slope) {
  const Columns columns = columns_of(x, mean, variance, weight, bias, eps);
  return sums_of(checked_grad(grad, x), core::contiguous(x), columns, slope);
}

// sums (2, C) and count (1), float64: over all rows that mean and variance are of. Without them these are constants.
Tensor only_gradient(const Tensor& grad, const Tensor& x, const Tensor& mean, const Tensor& variance,
                     const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& sums, const std::optional<Tensor>& count, double eps, double slope) {
  const Columns columns = columns_of(x, mean, variance, weight, bias, eps);
  core::check_value(sums.has_value() == count.has_value(), "norm_act: sums and count must both be given, or neither");
  if (!sums) return gradient(checked_grad(grad, x), core::contiguous(x), columns, slope, nullptr, nullptr);
  for (const Tensor* t : {&*sums, &*count}) {
    core::check_type(t->scalar_type() == ScalarType::Double, "norm_act: sums and count must be float64");
    core::check_value(t->device() == x.device(), "norm_act: sums and count must be on the device of the features");
  }
  core::check_value(sums->dim() == 2 && sums->size(0) == 2 && sums->size(1) == x.size(1), "norm_act: sums must be (2, ",
                    x.size(1), "), got shape ", core::Shape{*sums});
  core::check_value(count->numel() == 1, "norm_act: count must hold one number, got shape ", core::Shape{*count});
  const Tensor s = core::contiguous(*sums);
  return gradient(checked_grad(grad, x), core::contiguous(x), columns, slope, &s, &*count);
}

const core::Operators operators{
    core::op<moments>("sparse_moments(Tensor x) -> (Tensor, Tensor)"),
    core::op<combine_moments>("_sparse_combine_moments(Tensor tiles, Tensor like) -> (Tensor, Tensor)"),
    core::op<forward>("sparse_norm_act(Tensor x, Tensor mean, Tensor variance, Tensor? weight, Tensor? bias, "
                      "Tensor? residual, float eps, float slope, bool through) -> Tensor"),
    core::op<backward>("_sparse_norm_act_backward(Tensor grad, Tensor x, Tensor mean, Tensor variance, Tensor? weight, "
                       "Tensor? bias, float eps, float slope, bool through) -> (Tensor, Tensor)"),
    core::op<only_sums>("_sparse_norm_act_sums(Tensor grad, Tensor x, Tensor mean, Tensor variance, Tensor? weight, "
                        "Tensor? bias, float eps, float slope) -> Tensor"),
    core::op<only_gradient>("_sparse_norm_act_gradient(Tensor grad, Tensor x, Tensor mean, Tensor variance, "
                            "Tensor? weight, Tensor? bias, Tensor? sums, Tensor? count, float eps, float slope) "
                            "-> Tensor"),
};

}  // namespace
}  // namespace hepops::sparse
