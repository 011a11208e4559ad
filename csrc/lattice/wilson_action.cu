// The action and the traces of its loops (the laws: wilson.h).
#include <cmath>

#include "core/op.h"
#include "lattice/wilson_call.h"

namespace hepops::lattice {
namespace {

#ifdef __CUDACC__

template <class S, class T, int N>
struct Bracket {
  const S* U;
  Lattice lattice;
  LoopWords words;
  Coefficients c;

  HEPOPS_HD T operator()(int64_t config, int64_t site) const {
    const Links<S, T, N> links{U + config * lattice.dims * lattice.sites * (2 * N * N), lattice};
    return bracket(links, site, words, c);
  }
};

template <class S, class T, int N>
struct Traces {
  const S* U;
  S* traces;
  Lattice lattice;
  LoopWords words;
  int loops;

  HEPOPS_HD void operator()(int64_t i) const {
    const int64_t site = i % lattice.sites, config = i / lattice.sites;
    const Links<S, T, N> links{U + config * lattice.dims * lattice.sites * (2 * N * N), lattice};
    S* to = traces + config * loops * lattice.sites + site;
    int number = 0;
    for (int mu = 0; mu < lattice.dims; ++mu)
      for (int nu = mu + 1; nu < lattice.dims; ++nu)
        to[number++ * lattice.sites] = S(real_trace(walk(links, site, words.word[0], mu, nu)));
    for (int mu = 0; mu < lattice.dims; ++mu)
      for (int nu = 0; nu < lattice.dims && number < loops; ++nu)
        if (nu != mu) to[number++ * lattice.sites] = S(real_trace(walk(links, site, words.word[1], mu, nu)));
  }
};

#endif

template <class S, class T, int N>
void sum_loops(const Tensor& U, const Gauge& g, const Coefficients& c, double scale, bool accurate, double* total) {
#ifdef __CUDACC__
  const Bracket<S, T, N> density{reals<S>(U), g.lattice, {}, c};
  if (accurate) return sum_sites<core::DoubleDouble>(U, g.batch, g.lattice.sites, scale, density, total);
  sum_sites<double>(U, g.batch, g.lattice.sites, scale, density, total);
#else
  const Fold<T> fold(g.lattice);
  for_groups<T>(fold, g.batch, g.D * Block<N, T>::size, [&](int64_t group, T* links) {
    const core::Threads threads;
    pack<2 * N * N>(fold, reals<S>(U), group, g.batch, g.D, links, threads);
    const Field<N, T> field{fold, links, nullptr};
    if (accurate) return sum_of_loops<N, core::DoubleDouble>(field, group, g.batch, c, scale, total, threads);
    sum_of_loops<N, double>(field, group, g.batch, c, scale, total, threads);
  });
#endif
}

template <class S, class T, int N>
void trace_loops(const Tensor& U, const Gauge& g, int loops, S* traces) {
#ifdef __CUDACC__
  core::for_each(U, g.batch * g.lattice.sites, Traces<S, T, N>{reals<S>(U), traces, g.lattice, {}, loops});
#else
  const Fold<T> fold(g.lattice);
  for_groups<T>(fold, g.batch, g.D * Block<N, T>::size, [&](int64_t group, T* links) {
    const core::Threads threads;
    pack<2 * N * N>(fold, reals<S>(U), group, g.batch, g.D, links, threads);
    const Field<N, T> field{fold, links, nullptr};
    const Lanes<T, S> lanes(fold, traces, group, g.batch, loops, 1);
    threads(fold.blocks.sites, grain, [&](int64_t first, int64_t last) {
      for_loops<N>(field, loops > g.planes(), first, last, [&](int64_t block, int loop, const core::PackedOf<T>& x) {
        alignas(64) T numbers[Fold<T>::V];
        x.store(numbers);
        scatter<1>(lanes, loop * g.lattice.sites + fold.site(block), numbers);
      });
    });
  });
#endif
}

Tensor wilson_action(const Tensor& links, double beta, double c1, bool wide, bool accurate) {
  const Gauge g = checked_links("wilson_action", links);
  check_couplings("wilson_action", beta, c1);
  const Tensor U = core::contiguous(links), total = torch::stable::new_empty(U, {g.batch}, ScalarType::Double);
  if (g.batch == 0) return total;
  for_links(U, wide, [&]<class S, class T, int N>() {
    sum_loops<S, T, N>(U, g, Coefficients::improved(c1), -beta / N, accurate, core::out<double>(total));
  });
  return total;
}

Tensor loop_traces(const Tensor& links, bool rectangles, bool wide) {
  const Gauge g = checked_links("loop_traces", links);
  const int loops = g.planes() * (rectangles ? 3 : 1);
  std::vector<int64_t> shape{g.batch, loops};
  for (int mu = 0; mu < g.D; ++mu) shape.push_back(g.lattice.extent[mu]);
  const auto kind = links.scalar_type() == ScalarType::ComplexDouble ? ScalarType::Double : ScalarType::Float;
  const Tensor U = core::contiguous(links);
  const Tensor traces = torch::stable::new_empty(U, {shape.data(), shape.size()}, kind);
  if (g.batch == 0) return traces;
  for_links(U, wide, [&]<class S, class T, int N>() { trace_loops<S, T, N>(U, g, loops, core::out<S>(traces)); });
  return traces;
}

const core::Operators operators{
    core::op<wilson_action>("lattice_wilson_action(Tensor links, float beta, float c1, bool wide, bool accurate) -> "
                            "Tensor"),
    core::op<loop_traces>("lattice_loop_traces(Tensor links, bool rectangles, bool wide) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lattice
