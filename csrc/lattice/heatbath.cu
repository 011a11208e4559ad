#include "lattice/heatbath.h"

#include <tuple>
#include <vector>

#include "core/check.h"
#include "core/op.h"
#include "lattice/links.h"
#include "lattice/sweep.h"

namespace hepops::lattice {
namespace {

using core::ScalarType, core::Tensor;

// What names the numbers of a sweep.
struct Name {
  uint64_t seed;
  uint32_t sweep, purpose;
  int64_t first;  // the number of the first chain

  template <class L>
  HEPOPS_HD Draws of(const L& links, int64_t chain, int mu, int64_t site) const {
    return {seed, uint64_t(links.number(first + chain, mu, site)), sweep, purpose};
  }
};

template <class S, int N>
struct Heatbath {
  Links<S, N> links;
  Lattice lattice;
  double beta;
  Name name;

  HEPOPS_HD void operator()(int64_t chain, int64_t site, int mu) const {
    auto draws = name.of(links, chain, mu, site);
    const auto A = links.staples(chain, mu, site);
    if constexpr (N == 1) {
      const double k = beta * abs(A), centre = beta < 0 ? std::numbers::pi - arg(A) : -arg(A);
      links.put(chain, mu, site, wrapped(centre + draw_von_mises(abs(k), draws)));
    } else {
      auto U = links(chain, mu, site);
      heatbath(U, A, beta, draws);
      links.put(chain, mu, site, U);
    }
  }
};

template <class S, int N>
struct Overrelax {
  Links<S, N> links;
  Lattice lattice;

  HEPOPS_HD void operator()(int64_t chain, int64_t site, int mu) const {
    const auto A = links.staples(chain, mu, site);
    if constexpr (N == 1) {
      if (norm(A) > 0) links.put(chain, mu, site, wrapped(-2 * arg(A) - links(chain, mu, site)));
    } else {
      auto U = links(chain, mu, site);
      overrelax(U, A);
      links.put(chain, mu, site, U);
    }
  }
};

template <class S, int N>
struct Metropolis {
  Links<S, N> links;
  Lattice lattice;
  double beta, width;
  int hits;
  Name name;
  int64_t* taken;

  HEPOPS_HD void operator()(int64_t chain, int64_t site, int mu) const {
    auto draws = name.of(links, chain, mu, site);
    const auto A = links.staples(chain, mu, site);
    auto U = links(chain, mu, site);
    int count = 0;
    for (int hit = 0; hit < hits; ++hit) {
      if constexpr (N == 1) {
        const auto r = draws.uniform2();
        const double next = wrapped(U + width * (2 * r[0] - 1)), angle = arg(A);
        if (log(r[1]) < beta * abs(A) * (cos(next + angle) - cos(U + angle))) U = next, ++count;
      } else {
        count += metropolis(U, A, beta, width, draws);
      }
    }
    links.put(chain, mu, site, U);
    taken[links.number(chain, mu, site)] = count;
  }
};

// links: (B, D, L_1 ... L_D), and behind them (N, N, 2) for N > 1
Lattice checked(const Tensor& links, int64_t n) {
  const int64_t behind = n == 1 ? 0 : 3, dims = links.dim() - 2 - behind;
  core::check_value(n >= 1 && n <= 3, "heatbath: N must be 1, 2 or 3, got ", n);
  core::check_value(dims >= 2 && dims <= most_dims && links.size(1) == dims,
                    "heatbath: links must have shape (B, D, L_1 ... L_D), D = 2, 3, 4, got ", core::Shape{links});
  core::check_value(n == 1 || (links.size(-1) == 2 && links.size(-2) == n && links.size(-3) == n),
                    "heatbath: links must end in (", n, ", ", n, ", 2), got ", core::Shape{links});
  int64_t extents[most_dims] = {};
  for (int mu = 0; mu < dims; ++mu) extents[mu] = links.size(2 + mu);
  const Lattice lattice(extents, int(dims));
  for (int mu = 0; mu < dims && lattice.sites > 0; ++mu)
    core::check_value(n == 1 || extents[mu] > 1, "heatbath: an extent of 1 (direction ", mu,
                      ") makes the action quadratic in the links of the others; HMC serves there");
  return lattice;
}

// f<S, N>() with the type that is stored and the group
template <class F>
void for_links(const Tensor& links, int64_t n, const F& f) {
  core::for_floating("heatbath: links", links, [&]<class S>() {
    switch (n) {
      case 1: return f.template operator()<S, 1>();
      case 2: return f.template operator()<S, 2>();
      default: return f.template operator()<S, 3>();
    }
  });
}

uint32_t word(const char* name, int64_t value) {
  core::check_value(0 <= value && value <= UINT32_MAX, "heatbath: ", name, " must be in [0, 2^32), got ", value);
  return uint32_t(value);
}

constexpr uint32_t heatbath_purpose = 18, metropolis_purpose = 19;  // lattice/random.py

Tensor copied(const Tensor& x) {
  Tensor y = core::empty_like(x);
  torch::stable::copy_(y, x);
  return y;
}

Tensor heatbath_sweep(const Tensor& links, int64_t n, double beta, int64_t seed, int64_t sweep, int64_t first) {
  const Lattice lattice = checked(links, n);
  const Name name{uint64_t(seed), word("sweep", sweep), heatbath_purpose, first};
  const Tensor out = copied(links);
  for_links(out, n, [&]<class S, int N>() {
    sweep_links(out, out.size(0), Heatbath<S, N>{{core::out<S>(out), lattice}, lattice, beta, name});
  });
  return out;
}

Tensor overrelax_sweep(const Tensor& links, int64_t n) {
  const Lattice lattice = checked(links, n);
  const Tensor out = copied(links);
  for_links(out, n, [&]<class S, int N>() {
    sweep_links(out, out.size(0), Overrelax<S, N>{{core::out<S>(out), lattice}, lattice});
  });
  return out;
}

// -> links, and how many of the proposals each took
std::tuple<Tensor, Tensor> metropolis_sweep(const Tensor& links, int64_t n, double beta, double width, int64_t hits,
                                            int64_t seed, int64_t sweep, int64_t first) {
  const Lattice lattice = checked(links, n);
  const Name name{uint64_t(seed), word("sweep", sweep), metropolis_purpose, first};
  const Tensor out = copied(links);
  const auto sizes = out.sizes();
  const Tensor taken = torch::stable::new_empty(out, {sizes.data(), size_t(2 + lattice.dims)}, ScalarType::Long);
  for_links(out, n, [&]<class S, int N>() {
    sweep_links(out, out.size(0),
                Metropolis<S, N>{
                    {core::out<S>(out), lattice}, lattice, beta, width, int(hits), name, core::out<int64_t>(taken)});
  });
  return {out, taken};
}

// phi^4: S = sum_x [hop sum_mu phi phi_mu + square phi^2 + quartic phi^4]
template <class S>
struct MetropolisPhi4 {
  S* phi;
  Lattice lattice;
  double hop, square, quartic, width;
  int hits;
  Name name;
  int64_t* taken;

  HEPOPS_HD void operator()(int64_t chain, int64_t site, int) const {
    const int64_t number = (name.first + chain) * lattice.sites + site, at = chain * lattice.sites;
    Draws draws(name.seed, uint64_t(number), name.sweep, name.purpose);
    double around = 0, mass = square;
    for (int mu = 0; mu < lattice.dims; ++mu) {
      if (lattice.extent[mu] == 1)
        mass += hop;  // its own neighbour
      else
        around += double(phi[at + lattice.ahead(site, mu)]) + double(phi[at + lattice.behind(site, mu)]);
    }
    double x = double(phi[at + site]);
    int count = 0;
    for (int hit = 0; hit < hits; ++hit) {
      const auto r = draws.uniform2();
      const double y = x + width * (2 * r[0] - 1), sum = y * y + x * x;
      const double dS = (y - x) * (hop * around + (y + x) * (mass + quartic * sum));
      if (log(r[1]) < -dS) x = y, ++count;
    }
    phi[at + site] = S(x);
    taken[at + site] = count;
  }
};

std::tuple<Tensor, Tensor> metropolis_phi4(const Tensor& phi, double hop, double square, double quartic, double width,
                                           int64_t hits, int64_t seed, int64_t sweep, int64_t first) {
  const int64_t dims = phi.dim() - 1;
  core::check_value(dims >= 1 && dims <= most_dims, "metropolis: phi must have shape (B, L_1 ... L_D), got ",
                    core::Shape{phi});
  int64_t extents[most_dims] = {};
  for (int mu = 0; mu < dims; ++mu) extents[mu] = phi.size(1 + mu);
  const Lattice lattice(extents, int(dims));
  const Name name{uint64_t(seed), word("sweep", sweep), metropolis_purpose, first};
  const Tensor out = copied(phi), taken = torch::stable::new_empty(phi, phi.sizes(), ScalarType::Long);
  core::for_floating("metropolis: phi", out, [&]<class S>() {
    sweep_sites(out, out.size(0),
                MetropolisPhi4<S>{core::out<S>(out), lattice, hop, square, quartic, width, int(hits), name,
                                  core::out<int64_t>(taken)});
  });
  return {out, taken};
}

const core::Operators operators{
    core::op<heatbath_sweep>("_lattice_heatbath(Tensor links, int n, float beta, int seed, int sweep, int first) -> "
                             "Tensor"),
    core::op<overrelax_sweep>("_lattice_overrelax(Tensor links, int n) -> Tensor"),
    core::op<metropolis_sweep>("_lattice_metropolis(Tensor links, int n, float beta, float width, int hits, int seed, "
                               "int sweep, int first) -> (Tensor, Tensor)"),
    core::op<metropolis_phi4>("_lattice_metropolis_phi4(Tensor phi, float hop, float square, float quartic, float "
                              "width, int hits, int seed, int sweep, int first) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lattice
