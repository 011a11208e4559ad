#pragma once
// The columns of a matrix normalised over its rows, and a leaky rectifier behind:
//
//   z = (x - mean) / sqrt(variance + eps) * weight + bias,   y = z if z > 0 else slope z
//
// slope 1 leaves z as it is, slope 0 rectifies. S. Ioffe, C. Szegedy, ICML 2015, arXiv:1502.03167.
//
// Moments are taken over tiles of rows, mean and M2 = sum (x - mean)^2 of each in double, and combined in the order of
// the tiles: no sum of squares is subtracted from another, so that a mean far beyond the spread costs no digits
// (T. Chan, G. Golub, R. LeVeque, Am. Stat. 37 (1983) 242).
#include <cstdint>

#include "core/math.h"
#include "sparse/lanes.h"

namespace hepops::sparse {

template <class T>
HEPOPS_HD T rectify(T z, T slope) {
  return z > T(0) ? z : slope * z;
}

template <class T>
HEPOPS_HD T rectify_backward(T grad, T z, T slope) {
  return z > T(0) ? grad : slope * grad;
}

// One column's constants. The centre is the mean as T holds it, so that x - centre is exact where x is near; what the
// mean has beyond is in the shift:  z = (x - centre) scale + shift.
template <class T>
struct Affine {
  T centre, scale, shift;
};

struct Column {
  double mean, invstd, weight, bias;

  template <class T>
  HEPOPS_HD Affine<T> affine() const {
    const T centre = T(mean);
    const double scale = invstd * weight;
    return {centre, T(scale), T(bias - (mean - double(centre)) * scale)};
  }
};

template <class T>
HEPOPS_HD T normalise(T x, T centre, T scale, T shift) {
  return (x - centre) * scale + shift;
}

// Where mean and variance are those of x, with g = dL/dz and xhat = (x - mean) invstd:
//
//   dL/dx = scale (g - <g> - xhat <g xhat>) = scale (g - level - (x - centre) tilt)
template <class T>
struct Slope {
  T level, tilt;
};

// From the sums of g and of g xhat over `count` rows.
template <class T>
HEPOPS_HD Slope<T> slope_of(const Column& column, double sum_g, double sum_g_xhat, double count) {
  if (count == 0) return {0, 0};
  const double per_row = column.invstd * sum_g_xhat / count;
  return {T(sum_g / count + (double(T(column.mean)) - column.mean) * per_row), T(per_row)};
}

// The plain form of both sums over a tile of rows; norm_cpu.h has the same for SIMD. partial is (tiles, 2, channels).
constexpr int64_t norm_channels = 32;  // that a team holds at once

struct NormTile {
  int64_t tile, first_row, last_row, channel, width;
  HEPOPS_HD NormTile(int64_t item, int64_t rows, int64_t tile_rows, int64_t channels) {
    const int64_t blocks = (channels + norm_channels - 1) / norm_channels;
    tile = item / blocks;
    first_row = tile * tile_rows;
    last_row = first_row + tile_rows < rows ? first_row + tile_rows : rows;
    channel = item % blocks * norm_channels;
    width = core::min(norm_channels, channels - channel);
  }
  static int64_t count(int64_t rows, int64_t tile_rows, int64_t channels) {
    return (rows + tile_rows - 1) / tile_rows * ((channels + norm_channels - 1) / norm_channels);
  }
};

// The sum of f(row, channel) over a tile's rows, of the channels of this team: left in total[c] for every member.
template <class F>
HEPOPS_HD void sum_rows(const core::Team& team, const NormTile& at, double* scratch, double* total, const F& f) {
  const Lanes on(team, at.width);
  for (int64_t c = on.lane; c < at.width; c += on.lanes) {
    double sum = 0;
    for (int64_t row = at.first_row + on.group; row < at.last_row; row += on.groups) sum += f(row, at.channel + c);
    scratch[on.group * at.width + c] = sum;
  }
  team.sync();
  for (int64_t c = team.rank; c < at.width; c += team.size) {
    double sum = 0;
    for (int group = 0; group < on.groups; ++group) sum += scratch[group * at.width + c];
    total[c] = sum;
  }
  team.sync();
}

// What a team needs: two totals, and a sum of each member or, of one member, of each channel.
constexpr size_t norm_scratch(int threads) { return (threads + 3 * norm_channels) * sizeof(double); }

// mean and M2 of every column of a tile
template <class S>
struct TileMoments {
  const S* x;
  double* partial;
  int64_t rows, tile_rows, channels;

  HEPOPS_HD void operator()(int64_t item, const core::Team& team) const {
    const NormTile at(item, rows, tile_rows, channels);
    double* mean = reinterpret_cast<double*>(team.memory);
    double *M2 = mean + norm_channels, *scratch = M2 + norm_channels;
    const double count = double(at.last_row - at.first_row);
    sum_rows(team, at, scratch, mean, [=, this](int64_t row, int64_t c) { return double(x[row * channels + c]); });
    for (int64_t c = team.rank; c < at.width; c += team.size) mean[c] /= count;
    team.sync();
    sum_rows(team, at, scratch, M2, [=, this](int64_t row, int64_t c) {
      const double d = double(x[row * channels + c]) - mean[c - at.channel];
      return d * d;
    });
    double* to = partial + at.tile * 2 * channels + at.channel;
    for (int64_t c = team.rank; c < at.width; c += team.size) to[c] = mean[c], to[channels + c] = M2[c];
  }
};

// the sums of g and of g (x - centre) of a tile, where g is the gradient behind the rectifier
template <class S, class T>
struct TileSums {
  const S *x, *grad;
  const T *centre, *scale, *shift;  // (channels)
  double* partial;
  int64_t rows, tile_rows, channels;
  T slope;

  HEPOPS_HD void operator()(int64_t item, const core::Team& team) const {
    const NormTile at(item, rows, tile_rows, channels);
    double* sum_g = reinterpret_cast<double*>(team.memory);
    double *sum_gd = sum_g + norm_channels, *scratch = sum_gd + norm_channels;
    const auto g = [=, this](int64_t row, int64_t c) {
      const T z = normalise(T(x[row * channels + c]), centre[c], scale[c], shift[c]);
      return double(rectify_backward(T(grad[row * channels + c]), z, slope));
    };
    sum_rows(team, at, scratch, sum_g, g);
    sum_rows(team, at, scratch, sum_gd,
             [=, this](int64_t row, int64_t c) { return g(row, c) * double(T(x[row * channels + c]) - centre[c]); });
    double* to = partial + at.tile * 2 * channels + at.channel;
    for (int64_t c = team.rank; c < at.width; c += team.size) to[c] = sum_g[c], to[channels + c] = sum_gd[c];
  }
};

// What the tiles say together of a block of channels: item = block. `tiles` rows of `at`, one after the other.
struct TilesOf {
  const double* partial;
  int64_t rows, tile_rows, channels;

  HEPOPS_HD int64_t count() const { return (rows + tile_rows - 1) / tile_rows; }
  HEPOPS_HD double size(int64_t tile) const {
    return double((tile + 1) * tile_rows < rows ? tile_rows : rows - tile * tile_rows);
  }
  HEPOPS_HD double first(int64_t tile, int64_t c) const { return partial[tile * 2 * channels + c]; }
  HEPOPS_HD double second(int64_t tile, int64_t c) const { return partial[(tile * 2 + 1) * channels + c]; }
};

// mean = m_0 + sum n_t (m_t - m_0) / n and variance = sum (M2_t + n_t (m_t - mean)^2) / n
struct CombineMoments {
  TilesOf tiles;
  double *mean_out, *variance_out;  // (channels)

  HEPOPS_HD void operator()(int64_t item, const core::Team& team) const {
    const NormTile at(item, tiles.count(), tiles.count(), tiles.channels);  // the tiles are the rows
    double* mean = reinterpret_cast<double*>(team.memory);
    double *variance = mean + norm_channels, *scratch = variance + norm_channels;
    const double count = double(tiles.rows);
    const TilesOf t = tiles;
    sum_rows(team, at, scratch, mean,
             [=](int64_t tile, int64_t c) { return t.size(tile) * (t.first(tile, c) - t.first(0, c)); });
    for (int64_t c = team.rank; c < at.width; c += team.size) mean[c] = t.first(0, at.channel + c) + mean[c] / count;
    team.sync();
    sum_rows(team, at, scratch, variance, [=](int64_t tile, int64_t c) {
      const double d = t.first(tile, c) - mean[c - at.channel];
      return t.second(tile, c) + t.size(tile) * d * d;
    });
    for (int64_t c = team.rank; c < at.width; c += team.size) {
      mean_out[at.channel + c] = mean[c];
      variance_out[at.channel + c] = variance[c] / count;
    }
  }
};

// The two sums over all tiles.
struct CombineSums {
  TilesOf tiles;
  double *sum_g, *sum_gd;  // (channels)

  HEPOPS_HD void operator()(int64_t item, const core::Team& team) const {
    const NormTile at(item, tiles.count(), tiles.count(), tiles.channels);
    double* total = reinterpret_cast<double*>(team.memory);
    double* scratch = total + 2 * norm_channels;
    const TilesOf t = tiles;
    for (int which = 0; which < 2; ++which) {
      sum_rows(team, at, scratch, total,
               [=](int64_t tile, int64_t c) { return which == 0 ? t.first(tile, c) : t.second(tile, c); });
      for (int64_t c = team.rank; c < at.width; c += team.size)
        (which == 0 ? sum_g : sum_gd)[at.channel + c] = total[c];
      team.sync();
    }
  }
};

}  // namespace hepops::sparse
