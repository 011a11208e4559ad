// The sums of staples around the links of a gauge field, in the plain form (lattice/wilson.h).
#include <cmath>

#include "lattice/wilson.h"
#include "sdk/context.h"
#include "sdk/functions.h"

namespace hepops::sdk {
namespace {

constexpr int64_t most_sites = int64_t(1) << 40;

hepops_status staples(hepops_context* context, int64_t D, const int64_t* extents, double c0, double c1,
                      const double* links, double* A) {
  return guarded(context, [&] {
    check(D >= 1 && D <= lattice::most_dims, "su3_staples: dimensions must be 1 to ", lattice::most_dims, ", got ", D);
    check(extents, "su3_staples: extents is NULL");
    int64_t sites = 1;
    for (int64_t mu = 0; mu < D; ++mu) {
      check(extents[mu] >= 1, "su3_staples: extent ", mu, " must be positive, got ", extents[mu]);
      check(extents[mu] <= most_sites / sites, "su3_staples: extents must have ", most_sites,
            " sites at most, got extent ", mu, " of ", extents[mu]);
      sites *= extents[mu];
    }
    check(std::isfinite(c0), "su3_staples: c0 must be finite, got ", c0);
    check(std::isfinite(c1), "su3_staples: c1 must be finite, got ", c1);
    check(links && A, "su3_staples: an array is NULL");
    const lattice::Lattice grid(extents, int(D));
    const lattice::Links<double, double, 3> U{links, grid};
    const lattice::Coefficients c{c0, c1};
    const lattice::StapleWords words;
    context->parallel()(D * grid.sites, 16, [&](int64_t first, int64_t last) {
      for (int64_t link = first; link < last; ++link)
        lattice::store(lattice::staple_sum(U, link % grid.sites, int(link / grid.sites), words, c.words(),
                                           [&](const lattice::Word& word, int) { return c.of(word); }),
                       A, link);
    });
  });
}

}  // namespace

void fill_staples(Functions& f) { f.su3_staples = staples; }

}  // namespace hepops::sdk
