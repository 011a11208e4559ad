#pragma once
// Links of SU(N) and of U(1), and what surrounds one: the sum of its staples.
#include "core/matrix.h"
#include "lattice/geometry.h"

namespace hepops::lattice {

// (chains, D, sites, N, N) complex numbers of S, as torch lays them out
template <class S, int N>
struct Links {
  S* data;
  Lattice lattice;

  HEPOPS_HD int64_t number(int64_t chain, int mu, int64_t site) const {
    return (chain * lattice.dims + mu) * lattice.sites + site;
  }
  HEPOPS_HD core::Matrix<double, N> operator()(int64_t chain, int mu, int64_t site) const {
    const S* at = data + number(chain, mu, site) * (2 * N * N);
    return core::Matrix<double, N>::from([&](int i, int j) {
      return core::Complex<double>{double(at[2 * (N * i + j)]), double(at[2 * (N * i + j) + 1])};
    });
  }
  HEPOPS_HD void put(int64_t chain, int mu, int64_t site, const core::Matrix<double, N>& U) const {
    S* at = data + number(chain, mu, site) * (2 * N * N);
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; ++j) {
        at[2 * (N * i + j)] = S(U(i, j).real);
        at[2 * (N * i + j) + 1] = S(U(i, j).imag);
      }
  }

  // A = sum_{nu != mu} [U_nu(x+mu) U_mu(x+nu)^+ U_nu(x)^+ + U_nu(x+mu-nu)^+ U_mu(x-nu)^+ U_nu(x-nu)]
  HEPOPS_HD core::Matrix<double, N> staples(int64_t chain, int mu, int64_t x) const {
    const auto& U = *this;
    core::Matrix<double, N> A{};
    const int64_t ahead = lattice.ahead(x, mu);
    for (int nu = 0; nu < lattice.dims; ++nu) {
      if (nu == mu) continue;
      A += U(chain, nu, ahead) * adjoint(U(chain, nu, x) * U(chain, mu, lattice.ahead(x, nu)));
      const int64_t below = lattice.behind(x, nu);
      A += adjoint(U(chain, mu, below) * U(chain, nu, lattice.behind(ahead, nu))) * U(chain, nu, below);
    }
    return A;
  }
};

// (chains, D, sites) angles
template <class S>
struct Links<S, 1> {
  S* data;
  Lattice lattice;

  HEPOPS_HD int64_t number(int64_t chain, int mu, int64_t site) const {
    return (chain * lattice.dims + mu) * lattice.sites + site;
  }
  HEPOPS_HD double operator()(int64_t chain, int mu, int64_t site) const {
    return double(data[number(chain, mu, site)]);
  }
  HEPOPS_HD void put(int64_t chain, int mu, int64_t site, double theta) const {
    data[number(chain, mu, site)] = S(theta);
  }

  // sum over staples of e^{i angle}; the plaquettes around an extent of 1 do not depend on the link
  HEPOPS_HD core::Complex<double> staples(int64_t chain, int mu, int64_t x) const {
    const auto& t = *this;
    core::Complex<double> A{};
    const int64_t ahead = lattice.ahead(x, mu);
    for (int nu = 0; nu < lattice.dims; ++nu) {
      if (nu == mu || lattice.extent[nu] == 1) continue;
      const double up = t(chain, nu, ahead) - t(chain, mu, lattice.ahead(x, nu)) - t(chain, nu, x);
      const int64_t below = lattice.behind(x, nu);
      const double down = t(chain, nu, below) - t(chain, mu, below) - t(chain, nu, lattice.behind(ahead, nu));
      A += core::Complex<double>{core::cos(up) + core::cos(down), core::sin(up) + core::sin(down)};
    }
    return A;
  }
};

}  // namespace hepops::lattice
