#pragma once
// A sweep over the links, or over the sites, of many chains: set after set, each in parallel, in a fixed order.
//
// Links of one set share no plaquette, sites of one set are no neighbours. Two links of direction mu share one where
// their sites differ by one step in another direction, so a set is (mu, colour) with colours of the torus without mu:
//   c(x) = sum_{nu != mu} c_nu(x_nu) mod n,   c_nu = x_nu mod 2, but 2 at the last site of an odd extent
// with n = 2 where all those extents are even, and else n = 3: c changes by 1 or 2 in every step.
#include "core/for_each.h"
#include "lattice/geometry.h"

namespace hepops::lattice {

struct Set {
  int mu;  // the direction of the links; -1 for sites
  int colour, colours;

  HEPOPS_HD bool contains(const Lattice& lattice, int64_t site) const {
    int sum = 0;
    for (int nu = 0; nu < lattice.dims; ++nu) {
      const int64_t x = lattice.coordinate(site, nu), L = lattice.extent[nu];
      if (nu != mu) sum += L % 2 && x + 1 == L && L > 1 ? 2 : int(x % 2);
    }
    return sum % colours == colour;
  }
};

inline int colours_without(const Lattice& lattice, int mu) {
  bool even = true;
  for (int nu = 0; nu < lattice.dims; ++nu)
    if (nu != mu && lattice.extent[nu] > 1) even = even && lattice.extent[nu] % 2 == 0;
  return even ? 2 : 3;
}

template <class Update>
struct SweepSet {
  Update update;
  Set set;

  HEPOPS_HD void operator()(int64_t i) const {
    const Lattice& lattice = update.lattice;
    const int64_t chain = i / lattice.sites, site = i % lattice.sites;
    if (set.contains(lattice, site)) update(chain, site, set.mu);
  }
};

// update(chain, site, mu) for all of a set, in parallel and in any order
template <class Update>
void sweep_set(const core::Tensor& on, int64_t chains, const Update& update, const Set& set) {
  const int64_t n = chains * update.lattice.sites;
  const SweepSet<Update> f{update, set};
#ifdef __CUDACC__
  core::for_each(on, n, f);
#else
  (void)on;  // a link costs a microsecond: fewer to a thread than for_each gives
  core::Threads{}(n, 256, [&f](int64_t first, int64_t last) {
    const auto local = f;
    for (int64_t i = first; i < last; ++i) local(i);
  });
#endif
}

template <class Update>
void sweep_links(const core::Tensor& on, int64_t chains, const Update& update) {
  for (int mu = 0; mu < update.lattice.dims; ++mu) {
    const int colours = colours_without(update.lattice, mu);
    for (int c = 0; c < colours; ++c) sweep_set(on, chains, update, {mu, c, colours});
  }
}

template <class Update>
void sweep_sites(const core::Tensor& on, int64_t chains, const Update& update) {
  const int colours = colours_without(update.lattice, -1);
  for (int c = 0; c < colours; ++c) sweep_set(on, chains, update, {-1, c, colours});
}

}  // namespace hepops::lattice
