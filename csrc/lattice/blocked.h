#pragma once
// Gauge fields as SIMD likes them: V sites side by side.
//
// The last dimensions, as far as their extents are even, are folded: a lane holds the sites of one part of the lattice,
// x_mu = c_mu l_mu + y_mu with c the lane and y the block. A neighbour is then the same lane of another block, but
// where y leaves its range: there the lanes move in a circle. What extents leave over of V goes to the batch: odd
// lattices have as many configurations side by side, the last one again where there are no more.
//
//   blocked field   [group of configurations][block y][mu][2 N N][V]
//
// The fold follows from the lattice alone, so that the bits of a configuration's results do not depend on the batch.
#ifndef __CUDACC__
#include <algorithm>

#include "core/packed.h"
#include "lattice/geometry.h"

namespace hepops::lattice {

constexpr int64_t grain = 32;  // blocks that a thread takes at least

template <class T>
struct Fold {
  using P = core::PackedOf<T>;
  static constexpr int V = P::size;

  Lattice whole, blocks;
  int configs = V;                                // configurations in a group
  int ahead[most_dims][V], behind[most_dims][V];  // the lane at c + mu and at c - mu, within one configuration
  typename P::Bits turn[V];                       // turn[c]: in each lane the number of the one that lies c further
  bool turns[most_dims] = {};                     // whether a dimension is folded
  int64_t site_of_lane[V];
  static constexpr int64_t widest = 8;
  int64_t tile[most_dims] = {};  // see visit

  explicit Fold(const Lattice& lattice) : whole(lattice) {
    const int D = lattice.dims;
    int64_t extent[most_dims] = {};
    int split[most_dims], stride[most_dims], lanes = 1;
    for (int mu = D - 1; mu >= 0; --mu) {
      split[mu] = 1, stride[mu] = lanes;
      while (lanes < V && lattice.extent[mu] % (2 * split[mu]) == 0) split[mu] *= 2, lanes *= 2;
      extent[mu] = lattice.extent[mu] / split[mu];
      turns[mu] = split[mu] > 1;
    }
    blocks = Lattice(extent, D);
    for (int mu = 0; mu < D; ++mu) {
      tile[mu] = extent[mu];
      if (mu == 0 || mu == D - 1) continue;
      for (tile[mu] = std::min(widest, extent[mu]); extent[mu] % tile[mu];) --tile[mu];
    }
    configs = V / lanes;
    for (int lane = 0; lane < V; ++lane) {
      site_of_lane[lane] = 0;
      for (int mu = 0; mu < D; ++mu) {
        const int c = lane / stride[mu] % split[mu], rest = lane - c * stride[mu];
        ahead[mu][lane] = rest + (c + 1) % split[mu] * stride[mu];
        behind[mu][lane] = rest + (c + split[mu] - 1) % split[mu] * stride[mu];
        site_of_lane[lane] += c * extent[mu] * lattice.stride[mu];
      }
      for (int by = 0; by < lanes; ++by) {
        int to = 0;
        for (int mu = 0; mu < D; ++mu) to += (lane / stride[mu] + by / stride[mu]) % split[mu] * stride[mu];
        turn[by][lane] = lane / lanes * lanes + to;
      }
    }
  }

  // The n-th block to visit: columns along the first dimension, narrow in those that lie between, so that the
  // neighbours of a block are still in the second cache.
  int64_t visit(int64_t n) const {
    const int D = whole.dims;
    int64_t block = 0;
    for (int mu = D - 1; mu > 0; --mu) {
      block += n % tile[mu] * blocks.stride[mu];
      n /= tile[mu];
    }
    block += n % blocks.extent[0] * blocks.stride[0];
    n /= blocks.extent[0];
    for (int mu = D - 1; mu > 0; --mu) {
      const int64_t count = blocks.extent[mu] / tile[mu];
      block += n % count * tile[mu] * blocks.stride[mu];
      n /= count;
    }
    return block;
  }

  int64_t groups(int64_t batch) const { return (batch + configs - 1) / configs; }
  int config_of_lane(int lane) const { return lane / (V / configs); }

  // the first site of a block, in lane 0
  int64_t site(int64_t block) const {
    int64_t site = 0;
    for (int mu = 0; mu < whole.dims; ++mu) site += blocks.coordinate(block, mu) * whole.stride[mu];
    return site;
  }
};

// Where the V sites of a block lie in a plain field of M numbers a site: (B, components, sites, M).
template <class T, class S>
struct Lanes {
  static constexpr int V = Fold<T>::V;
  S* at[V];
  int used = V;  // configurations beyond the batch are read, not written

  Lanes(const Fold<T>& fold, S* field, int64_t group, int64_t batch, int components, int M) {
    const int64_t size = components * fold.whole.sites * M;
    for (int lane = 0; lane < V; ++lane) {
      const int64_t config = group * fold.configs + fold.config_of_lane(lane);
      if (config >= batch) used = std::min(used, lane);
      at[lane] = field + std::min(config, batch - 1) * size + fold.site_of_lane[lane] * M;
    }
  }
};

// M numbers of each lane, at `offset` there, to [M][V]
template <int M, class T, class S>
[[gnu::noinline]] void gather(const Lanes<T, const S>& lanes, int64_t offset, T* to) {
  using P = core::PackedOf<T>;
  constexpr int V = P::size;
  if constexpr (M < V) {
    for (int lane = 0; lane < V; ++lane)
      for (int k = 0; k < M; ++k) to[k * V + lane] = T(lanes.at[lane][offset + k]);
  } else {
    for (int first = 0; first < M; first += V) {
      const int k = std::min(first, M - V);  // the last ones overlap
      core::transpose<P>([&](int n) { return P::load(lanes.at[n] + offset + k); },
                         [&](int n, P x) { x.store(to + (k + n) * V); });
    }
  }
}

// and back
template <int M, class T, class S>
[[gnu::noinline]] void scatter(const Lanes<T, S>& lanes, int64_t offset, const T* from) {
  using P = core::PackedOf<T>;
  constexpr int V = P::size;
  if constexpr (M < V) {
    for (int lane = 0; lane < lanes.used; ++lane)
      for (int k = 0; k < M; ++k) lanes.at[lane][offset + k] = S(from[k * V + lane]);
  } else {
    for (int first = 0; first < M; first += V) {
      const int k = std::min(first, M - V);
      core::transpose<P>([&](int n) { return P::load(from + (k + n) * V); },
                         [&](int n, P x) {
                           if (n < lanes.used) x.store(lanes.at[n] + offset + k);
                         });
    }
  }
}

// One configuration group of a plain field (B, components, sites, M), blocked, in ranges of a caller's threads.
template <int M, class T, class S, class Parallel>
void pack(const Fold<T>& fold, const S* field, int64_t group, int64_t batch, int components, T* blocked,
          const Parallel& parallel) {
  const Lanes<T, const S> lanes(fold, field, group, batch, components, M);
  parallel(fold.blocks.sites, grain, [&](int64_t first, int64_t last) {
    T* to = blocked + first * components * M * fold.V;
    for (int64_t block = first; block < last; ++block) {
      const int64_t site = fold.site(block);
      for (int c = 0; c < components; ++c, to += M * fold.V) gather<M>(lanes, (c * fold.whole.sites + site) * M, to);
    }
  });
}

template <int M, class T, class S, class Parallel>
void unpack(const Fold<T>& fold, const T* blocked, int64_t group, int64_t batch, int components, S* field,
            const Parallel& parallel) {
  const Lanes<T, S> lanes(fold, field, group, batch, components, M);
  parallel(fold.blocks.sites, grain, [&](int64_t first, int64_t last) {
    const T* from = blocked + first * components * M * fold.V;
    for (int64_t block = first; block < last; ++block) {
      const int64_t site = fold.site(block);
      for (int c = 0; c < components; ++c, from += M * fold.V)
        scatter<M>(lanes, (c * fold.whole.sites + site) * M, from);
    }
  });
}

}  // namespace hepops::lattice
#endif
