#pragma once
// Which form of the GPU's kernels runs: a table over sizes alone, never by timing, so that the same problem has the
// same bits in every run. It does not ask for the card either: what is summed apart, and then in order, is the same on
// all.
#include <algorithm>
#include <cstdint>

#include "core/host_device.h"
#include "sparse/pairs.h"

namespace hepops::sparse {

// Blocks that fill an H100 or H200: 132 multiprocessors, two each.
constexpr int64_t wave = 264;

constexpr int64_t divided(int64_t n, int64_t by) { return (n + by - 1) / by; }

struct ConvolveChoice {
  bool tiles;  // else the plain form
  int channels, splits;
};

// For `rows` written, a kernel of `volume` offsets, `in` and `out` channels in each of `groups`.
inline ConvolveChoice choose_convolve(int64_t rows, int64_t volume, int64_t in, int64_t out, int64_t groups) {
  // A depthwise convolution has no matrices to multiply.
  if (groups > 1 && std::min(in, out) < 8) return {false, 0, 0};
  const auto blocks = [&](int64_t channels) { return divided(rows, tile_on_gpu) * groups * divided(out, channels); };
  const int channels = out > 32 && blocks(64) >= wave ? 64 : 32;
  // Few tiles: their entries in parts, though not less than three offsets each.
  const int64_t splits = std::clamp<int64_t>(wave / blocks(channels), 1, divided(volume, 3));
  return {true, channels, int(splits)};
}

struct WeightGradientChoice {
  int block;    // channels, both ways
  int splits;   // ranges of tiles
  bool sorted;  // entries sorted by offset, since most offsets have few
};

inline WeightGradientChoice choose_weight_gradient(int64_t rows, int64_t volume, int64_t in, int64_t out,
                                                   int64_t groups) {
  const int block = std::min(in, out) > 32 ? 64 : 32;
  if (volume > 512) return {block, 1, true};
  const int64_t tiles = divided(rows, tile_on_gpu), blocks = volume * groups * divided(in, block) * divided(out, block);
  // At least 16 tiles each, so that a block has something to do; at most 512, so that no float sum runs too long.
  const int64_t splits =
      std::clamp(divided(2 * wave, blocks), divided(tiles, 512), std::max<int64_t>(divided(tiles, 16), 1));
  return {block, int(splits), false};
}

}  // namespace hepops::sparse
