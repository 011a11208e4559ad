#include "lattice/trajectory.h"

#include "core/op.h"
#include "lattice/wilson_rules.h"
#include "lattice/wilson_staples.h"

namespace hepops::lattice {
namespace {

#ifdef __CUDACC__

// P += s TA(U A), in place of what for_all_staples writes
template <int N, class S>
struct KickRule {
  static constexpr bool moving = false;
  template <class M, class T>
  HEPOPS_HD M result(const M& U, const M& A, const M&, const M& P, const T& s) const {
    return P + s * traceless_antihermitian(U * A);
  }
};

// exp(s TA(U A)) U
template <int N>
struct ShiftRule {
  static constexpr bool moving = false;
  template <class M, class T>
  HEPOPS_HD M result(const M& U, const M& A, const M&, const M&, const T& s) const {
    return exponential(s * traceless_antihermitian(U * A)) * U;
  }
};

template <class S, class T, int N>
struct Drift {
  S* U;
  const S* P;
  double time;
  HEPOPS_HD void operator()(int64_t link) const {
    const auto X = T(time) * Links<S, T, N>::load(P, link);
    store(exponential(X) * Links<S, T, N>::load(U, link), U, link);
  }
};

template <class S, class T, int N>
void trajectory(const Tensor& U, const Tensor& P, const Tensor& to, const Tensor& momenta, const Gauge& g, double beta,
                const Coefficients& c, const Scheme& scheme) {
  torch::stable::copy_(const_cast<Tensor&>(to), U);
  torch::stable::copy_(const_cast<Tensor&>(momenta), P);
  const Tensor shifted = core::empty_like(U);
  scheme.run(
      [&](double k, double s) {
        Beside<S> beside;
        if (s != 0) {
          beside.factor = -s * beta / (2 * N);
          for_all_staples<S, T, N>(to, g, c, beside, ShiftRule<N>{}, reals_out<S>(shifted));
        }
        beside.X = reals<S>(momenta), beside.factor = -k * beta / (2 * N);
        for_all_staples<S, T, N>(s != 0 ? shifted : to, g, c, beside, KickRule<N, S>{}, reals_out<S>(momenta));
      },
      [&](double d) {
        if (d != 0) core::for_each(to, g.links(), Drift<S, T, N>{reals_out<S>(to), reals<S>(momenta), d});
      });
}

#else

// A blocked matrix as numbers in registers.
template <int N, class T>
[[gnu::always_inline]] inline Matrix<core::PackedOf<T>, N> matrix(const T* M) {
  Matrix<core::PackedOf<T>, N> result;
  core::unroll<N * N>(HEPOPS_UNROLLED(k) { result(k / N, k % N) = {re<N>(M, k / N, k % N), im<N>(M, k / N, k % N)}; });
  return result;
}

// to = exp(s X) U
template <int N, class T>
[[gnu::noinline]] void rotate(const T* X, double s, const T* U, T* to) {
  using P = core::PackedOf<T>;
  Block<N, T> rotation;
  const auto E = exponential(P(s) * matrix<N>(X));
  core::unroll<N * N>(HEPOPS_UNROLLED(k) {
    E(k / N, k % N).real.store(rotation.numbers + 2 * k * P::size);
    E(k / N, k % N).imag.store(rotation.numbers + (2 * k + 1) * P::size);
  });
  Block<N, T> result;
  multiply<N>(rotation.numbers, U, result.numbers);
  for (int k = 0; k < Block<N, T>::size; ++k) to[k] = result.numbers[k];
}

template <class S, class T, int N>
void trajectory(const Tensor& U, const Tensor& P, const Tensor& to, const Tensor& momenta, const Gauge& g, double beta,
                const Coefficients& c, const Scheme& scheme) {
  constexpr int M = 2 * N * N, size = Block<N, T>::size;
  const core::Threads threads;
  const Fold<T> fold(g.lattice);
  const Weights<T> weights(c);
  const int64_t matrices = fold.blocks.sites * g.D;
  for_groups<T>(fold, g.batch, 3 * g.D * size, [&](int64_t group, T* links) {
    T *p = links + matrices * size, *shifted = p + matrices * size;
    pack<M>(fold, reals<S>(U), group, g.batch, g.D, links, threads);
    pack<M>(fold, reals<S>(P), group, g.batch, g.D, p, threads);
    // use(number of the matrix, s F) at every link of `from`
    const auto forces = [&](const T* from, double s, const auto& use) {
      const Field<N, T> field{fold, from, nullptr};
      const core::PackedOf<T> scale(s * beta / (2 * N));
      threads(fold.blocks.sites, grain, [&](int64_t first, int64_t last) {
        Block<N, T> F;
        for_staples<false>(field, weights, first, last, [&](int64_t block, int mu, const T* A, const T*) {
          ForceRule<N>{}.block(from + (block * g.D + mu) * size, A, A, A, scale, F.numbers);
          use((block * g.D + mu) * size, F.numbers);
        });
      });
    };
    scheme.run(
        [&](double k, double s) {
          if (s != 0) forces(links, -s, [&](int64_t at, const T* F) { rotate<N>(F, 1.0, links + at, shifted + at); });
          forces(s != 0 ? shifted : links, -k, [&](int64_t at, const T* F) {
            for (int n = 0; n < size; ++n) p[at + n] += F[n];
          });
        },
        [&](double d) {
          if (d == 0) return;
          threads(matrices, 4 * grain, [&](int64_t first, int64_t last) {
            for (int64_t m = first; m < last; ++m) rotate<N>(p + m * size, d, links + m * size, links + m * size);
          });
        });
    unpack<M>(fold, links, group, g.batch, g.D, reals_out<S>(to), threads);
    unpack<M>(fold, p, group, g.batch, g.D, reals_out<S>(momenta), threads);
  });
}

#endif

std::tuple<Tensor, Tensor> wilson_trajectory(const Tensor& links, const Tensor& momenta, double beta, double c1,
                                             std::vector<double> kicks, std::vector<double> bends,
                                             std::vector<double> drifts, bool wide) {
  const Gauge g = checked_links("wilson_trajectory", links);
  check_like("wilson_trajectory", "momenta", momenta, links);
  check_couplings("wilson_trajectory", beta, c1);
  core::check_value(kicks.size() == drifts.size() + 1 && bends.size() == kicks.size(),
                    "wilson_trajectory: there must be one drift less than kicks and as many bends, got ", kicks.size(),
                    " kicks, ", drifts.size(), " drifts and ", bends.size(), " bends");
  const Tensor U = core::contiguous(links), P = core::contiguous(momenta);
  const Tensor to = core::in_huge_pages(core::empty_like(U)), p = core::in_huge_pages(core::empty_like(U));
  if (g.batch == 0) return {to, p};
  const Scheme scheme{kicks, bends, drifts};
  for_links(U, wide, [&]<class S, class T, int N>() {
    trajectory<S, T, N>(U, P, to, p, g, beta, Coefficients::improved(c1), scheme);
  });
  return {to, p};
}

const core::Operators operators{
    core::op<wilson_trajectory>("_lattice_wilson_trajectory(Tensor links, Tensor momenta, float beta, float c1, "
                                "float[] kicks, float[] bends, float[] drifts, bool wide) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lattice
