#pragma once
// A periodic lattice of 1 to 4 dimensions: sites are numbered as torch lays out (L_1, ..., L_D), the last one fastest.
// Neighbours are found by index: there are no copies with halos.
#include <cstdint>

#include "core/host_device.h"

namespace hepops::lattice {

constexpr int most_dims = 4;

struct Lattice {
  int dims = 0;
  int64_t extent[most_dims] = {}, stride[most_dims] = {};
  int64_t sites = 1;

  Lattice() = default;
  template <class Extents>
  Lattice(const Extents& extents, int D) : dims(D) {
    for (int mu = D - 1; mu >= 0; --mu) {
      extent[mu] = extents[mu];
      stride[mu] = sites;
      sites *= extent[mu];
    }
  }

  // x_mu of a site
  HEPOPS_HD int64_t coordinate(int64_t site, int mu) const { return site / stride[mu] % extent[mu]; }

  // the site of x + mu, and of x - mu
  HEPOPS_HD int64_t ahead(int64_t site, int mu) const {
    return coordinate(site, mu) + 1 == extent[mu] ? site - (extent[mu] - 1) * stride[mu] : site + stride[mu];
  }
  HEPOPS_HD int64_t behind(int64_t site, int mu) const {
    return coordinate(site, mu) == 0 ? site + (extent[mu] - 1) * stride[mu] : site - stride[mu];
  }

  // sum_mu x_mu mod 2
  HEPOPS_HD int parity(int64_t site) const {
    int64_t sum = 0;
    for (int mu = 0; mu < dims; ++mu) sum += coordinate(site, mu);
    return int(sum % 2);
  }
};

// The number of the plane (mu, nu), mu < nu: 01, 02, 03, 12, ...
HEPOPS_HD int plane(int mu, int nu, int dims) { return mu * dims - mu * (mu + 1) / 2 + nu - mu - 1; }

}  // namespace hepops::lattice
