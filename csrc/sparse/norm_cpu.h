#pragma once
// TileMoments and TileSums (norm.h) for a CPU core: one pass over the rows, sums in registers.
//
// Few channels are made many: `repeat` rows side by side are one row of repeat x channels, a multiple of what the
// registers hold; afterwards the copies of a channel are added. A tile's moments are taken about its first row, a
// pivot as good as the mean: the square that is subtracted at the end is of the size of the spread.
#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "sparse/norm.h"

namespace hepops::sparse {

template <class T>
struct ColumnSimd {
#if defined(__AVX512F__)
  static constexpr int lanes = 8;
#elif defined(__AVX2__)
  static constexpr int lanes = 4;
#else
  static constexpr int lanes = 2;
#endif
  typedef T type __attribute__((vector_size(lanes * sizeof(T))));
  typedef T unaligned __attribute__((vector_size(lanes * sizeof(T)), aligned(alignof(T)), may_alias));
  static constexpr int vectors = 4;  // of sums, two kinds: half of the registers
  static constexpr int strip = vectors * lanes;

  static type load(const T* p) { return *reinterpret_cast<const unaligned*>(p); }
  static void store(T* p, type x) { *reinterpret_cast<unaligned*>(p) = x; }
  template <class S>
  static type load(const S* p) {
    type x;
    for (int i = 0; i < lanes; ++i) x[i] = T(p[i]);
    return x;
  }
};

template <class T>
[[gnu::always_inline]] inline ColumnSimd<double>::type widen(typename ColumnSimd<T>::type x) {
  return __builtin_convertvector(x, ColumnSimd<double>::type);
}

// How a tile's rows are laid side by side: at least two strips wide, or one row where that is wide enough. Strips cover
// the columns; the last one may reach back over columns of the one before, and sums them again, by themselves.
struct SideBySide {
  static constexpr int64_t strip = ColumnSimd<double>::strip;
  static constexpr int64_t rows_at_once = 16;  // that a strip walks down before the next: their lines stay in the L1
  int64_t channels, repeat, width, strips;

  explicit SideBySide(int64_t channels_)
      : channels(channels_),
        repeat(channels_ >= strip ? 1 : (2 * strip + channels_ - 1) / channels_),
        width(repeat * channels),
        strips((width + strip - 1) / strip) {}

  int64_t sums() const { return strips * strip; }
  int64_t column(int64_t s) const { return std::min(s * strip, width - strip); }

  template <class T>
  std::vector<T> widened(const T* from) const {
    std::vector<T> all(width);
    for (int64_t j = 0; j < width; ++j) all[j] = from[j % channels];
    return all;
  }
  // f(row, rows, column, place of its sums)
  template <class F>
  void walk(int64_t rows, const F& f) const {
    for (int64_t row = 0; row < rows; row += rows_at_once)
      for (int64_t s = 0; s < strips; ++s) f(row, std::min(rows_at_once, rows - row), column(s), s * strip);
  }
  // the sums of the last strip, put where its columns are
  void settle(double* sums) const { std::copy_n(sums + (strips - 1) * strip, strip, sums + column(strips - 1)); }
  // the copies of a channel, added onto the first
  void fold(double* sums) const {
    for (int64_t j = channels; j < width; j += channels)
      for (int64_t c = 0; c < channels; ++c) sums[c] += sums[j + c];
  }
};

template <class S>
[[gnu::always_inline]] inline void ask_ahead(const S* x, int64_t elements) {
  for (size_t byte = 0; byte < SideBySide::strip * sizeof(S); byte += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(x + elements) + byte);
}

// adds the sum and the sum of squares of x - pivot over rows of `stride`, of one strip of columns
template <class S, class T>
void strip_moments(const S* x, int64_t rows, int64_t stride, const double* pivot_of, double* sum, double* square) {
  using D = ColumnSimd<double>;
  typename D::type pivot[D::vectors], s[D::vectors], q[D::vectors];
#pragma GCC unroll 4
  for (int k = 0; k < D::vectors; ++k) {
    pivot[k] = D::load(pivot_of + k * D::lanes);
    s[k] = D::load(sum + k * D::lanes);
    q[k] = D::load(square + k * D::lanes);
  }
  for (int64_t row = 0; row < rows; ++row, x += stride) {
    ask_ahead(x, SideBySide::rows_at_once * stride);
#pragma GCC unroll 4
    for (int k = 0; k < D::vectors; ++k) {
      const typename D::type d = widen<T>(ColumnSimd<T>::load(x + k * D::lanes)) - pivot[k];
      s[k] += d;
      q[k] += d * d;
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < D::vectors; ++k) D::store(sum + k * D::lanes, s[k]), D::store(square + k * D::lanes, q[k]);
}

template <class S, class T>
void tile_moments(const TileMoments<S>& f, int64_t tile, const SideBySide& side, double* pivot, double* sum,
                  double* square) {
  const int64_t first = tile * f.tile_rows, rows = std::min(f.tile_rows, f.rows - first), wide = rows / side.repeat;
  const S* x = f.x + first * f.channels;
  for (int64_t j = 0; j < side.width; j += f.channels)
    for (int64_t c = 0; c < f.channels; ++c) pivot[j + c] = double(x[c]);
  std::fill_n(sum, side.sums(), 0.0);
  std::fill_n(square, side.sums(), 0.0);
  side.walk(wide, [&](int64_t row, int64_t n, int64_t j, int64_t at) {
    strip_moments<S, T>(x + row * side.width + j, n, side.width, pivot + j, sum + at, square + at);
  });
  side.settle(sum);
  side.settle(square);
  const S* left = x + wide * side.width;
  for (int64_t j = 0; j < (rows - wide * side.repeat) * f.channels; ++j) {
    const double d = double(left[j]) - pivot[j];
    sum[j] += d;
    square[j] += d * d;
  }
  side.fold(sum);
  side.fold(square);
  double* to = f.partial + tile * 2 * f.channels;
  for (int64_t c = 0; c < f.channels; ++c) {
    to[c] = pivot[c] + sum[c] / double(rows);
    to[f.channels + c] = core::max(square[c] - sum[c] * (sum[c] / double(rows)), 0.0);
  }
}

// partial (tiles, 2, channels) of all tiles
template <class S, class T, class Parallel = core::Serial>
void moments_on_host(const TileMoments<S>& f, const Parallel& parallel = {}) {
  const SideBySide side(f.channels);
  parallel((f.rows + f.tile_rows - 1) / f.tile_rows, 4, [&](int64_t first, int64_t last) {
    std::vector<double> scratch(3 * side.sums());
    double* at = scratch.data();
    for (int64_t tile = first; tile < last; ++tile)
      tile_moments<S, T>(f, tile, side, at, at + side.sums(), at + 2 * side.sums());
  });
}

// adds the sums of g and of g (x - centre), of one strip of columns
template <class S, class T>
void strip_sums(const S* x, const S* grad, int64_t rows, int64_t stride, const T* centre_of, const T* scale_of,
                const T* shift_of, T slope, double* sum_g, double* sum_gd) {
  using D = ColumnSimd<double>;
  using V = ColumnSimd<T>;
  typename V::type centre[D::vectors], scale[D::vectors], shift[D::vectors];
  typename D::type s[D::vectors], q[D::vectors];
#pragma GCC unroll 4
  for (int k = 0; k < D::vectors; ++k) {
    s[k] = D::load(sum_g + k * D::lanes);
    q[k] = D::load(sum_gd + k * D::lanes);
    centre[k] = V::load(centre_of + k * D::lanes);
    scale[k] = V::load(scale_of + k * D::lanes);
    shift[k] = V::load(shift_of + k * D::lanes);
  }
  for (int64_t row = 0; row < rows; ++row, x += stride, grad += stride) {
    ask_ahead(x, SideBySide::rows_at_once * stride);
    ask_ahead(grad, SideBySide::rows_at_once * stride);
#pragma GCC unroll 4
    for (int k = 0; k < D::vectors; ++k) {
      const typename V::type d = V::load(x + k * D::lanes) - centre[k], g = V::load(grad + k * D::lanes);
      const typename V::type z = d * scale[k] + shift[k];
      const typename D::type behind = widen<T>(z > T(0) ? g : slope * g);
      s[k] += behind;
      q[k] += behind * widen<T>(d);
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < D::vectors; ++k) D::store(sum_g + k * D::lanes, s[k]), D::store(sum_gd + k * D::lanes, q[k]);
}

template <class S, class T, class Parallel = core::Serial>
void sums_on_host(const TileSums<S, T>& f, const Parallel& parallel = {}) {
  const SideBySide side(f.channels);
  const std::vector<T> centre = side.widened(f.centre), scale = side.widened(f.scale), shift = side.widened(f.shift);
  parallel((f.rows + f.tile_rows - 1) / f.tile_rows, 4, [&](int64_t begin, int64_t end) {
    std::vector<double> scratch(2 * side.sums());
    double *sum_g = scratch.data(), *sum_gd = sum_g + side.sums();
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * f.tile_rows, rows = std::min(f.tile_rows, f.rows - first), wide = rows / side.repeat;
      const S *x = f.x + first * f.channels, *grad = f.grad + first * f.channels;
      std::fill(scratch.begin(), scratch.end(), 0.0);
      side.walk(wide, [&](int64_t row, int64_t n, int64_t j, int64_t at) {
        const int64_t from = row * side.width + j;
        strip_sums<S, T>(x + from, grad + from, n, side.width, &centre[j], &scale[j], &shift[j], f.slope, sum_g + at,
                         sum_gd + at);
      });
      side.settle(sum_g);
      side.settle(sum_gd);
      for (int64_t j = 0, done = wide * side.width; j < (rows - wide * side.repeat) * f.channels; ++j) {
        const T d = T(x[done + j]) - centre[j];
        const double g = rectify_backward(T(grad[done + j]), d * scale[j] + shift[j], f.slope);
        sum_g[j] += g;
        sum_gd[j] += g * double(d);
      }
      side.fold(sum_g);
      side.fold(sum_gd);
      std::copy_n(sum_g, f.channels, f.partial + tile * 2 * f.channels);
      std::copy_n(sum_gd, f.channels, f.partial + (tile * 2 + 1) * f.channels);
    }
  });
}

}  // namespace hepops::sparse
