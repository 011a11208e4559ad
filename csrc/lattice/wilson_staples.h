#pragma once
// for_all_staples: what is made of A_mu(x) (and of its slope) at every link, on any device.
//
// A rule says how: with U, A, DA the matrices of a link and X those of an auxiliary field,
//
//   moving                        whether it wants DA, along the direction V
//   result(U, A, DA, X, s)        on a GPU, of Matrix
//   block(U, A, DA, X, s, to)     on a CPU, of blocked matrices
//
// s is a factor, times a number of the configuration where there are such.
#include "lattice/wilson_call.h"

namespace hepops::lattice {

// Plain tensors that a rule needs beside the links: V the direction, X the auxiliary field, or null; weights of loops,
// `loops` at each site, or null for c0 and c1.
template <class S>
struct Beside {
  const S *V = nullptr, *X = nullptr, *weights = nullptr;
  int loops = 0;
  double factor = 1;
  const double* of_config = nullptr;

  HEPOPS_HD double scale(int64_t config) const { return of_config ? factor * of_config[config] : factor; }
};

// Where the action goes that is summed on the way: factor times the bracket.
struct ActionToo {
  double factor = 0, *total = nullptr;
  bool accurate = false;
};

#ifdef __CUDACC__

template <class Rule, class S, class T, int N>
struct StapleOf {
  Rule rule;
  const S* U;
  Beside<S> beside;
  S* out;
  Lattice lattice;
  StapleWords words;
  Coefficients c;

  HEPOPS_HD void operator()(int64_t link) const {
    const int64_t site = link % lattice.sites, mu = link / lattice.sites % lattice.dims;
    const int64_t config = link / (lattice.sites * lattice.dims), matrices = lattice.sites * lattice.dims;
    const Links<S, T, N> links{U + config * matrices * (2 * N * N), lattice};
    const int count = beside.weights ? (beside.loops > pairs() ? staple_words : plaquette_words) : c.words();
    const auto scale = [&](const Word& word, int nu) -> T {
      return beside.weights ? T(weight(word, config, site, int(mu), nu)) : T(c.of(word));
    };
    Matrix<T, N> A, DA{}, X{};
    if constexpr (Rule::moving) {
      const MovingLinks<S, T, N> moving{links, {beside.V + config * matrices * (2 * N * N), lattice}, lattice};
      const auto both = staple_sum(moving, site, int(mu), words, count, scale);
      A = Matrix<T, N>::from([&](int i, int j) { return Complex<T>{both(i, j).real.value, both(i, j).imag.value}; });
      DA = Matrix<T, N>::from(
          [&](int i, int j) { return Complex<T>{both(i, j).real.slope[0], both(i, j).imag.slope[0]}; });
    } else {
      A = staple_sum(links, site, int(mu), words, count, scale);
    }
    if (beside.X) X = Links<S, T, N>::load(beside.X, link);
    store(rule.result(links(site, int(mu)), A, DA, X, T(beside.scale(config))), out, link);
  }

  HEPOPS_HD int pairs() const { return lattice.dims * (lattice.dims - 1) / 2; }
  HEPOPS_HD S weight(const Word& word, int64_t config, int64_t site, int mu, int nu) const {
    site = moved(moved(site, mu, word.along_mu), nu, word.along_nu);
    const int a = word.loop == tall_loop ? nu : mu, b = word.loop == tall_loop ? mu : nu;
    const int loop = word.loop == plaquette_loop ? plane(mu < nu ? mu : nu, mu < nu ? nu : mu, lattice.dims)
                                                 : pairs() + a * (lattice.dims - 1) + b - (b > a);
    return beside.weights[(config * beside.loops + loop) * lattice.sites + site];
  }
  HEPOPS_HD int64_t moved(int64_t site, int mu, int steps) const {
    for (; steps < 0; ++steps) site = lattice.behind(site, mu);
    return site;
  }
};

template <class S, class T, int N, class Rule>
void for_all_staples(const Tensor& U, const Gauge& g, const Coefficients& c, const Beside<S>& beside, const Rule& rule,
                     S* out) {
  core::for_each(U, g.links(), StapleOf<Rule, S, T, N>{rule, reals<S>(U), beside, out, g.lattice, {}, c});
}

#else

template <class S, class T, int N, class Rule>
void for_all_staples(const Tensor& U, const Gauge& g, const Coefficients& c, const Beside<S>& beside, const Rule& rule,
                     S* out, const ActionToo& action = {}) {
  constexpr int M = 2 * N * N, size = Block<N, T>::size;
  const core::Threads threads;
  const Fold<T> fold(g.lattice);
  const int64_t field_size = fold.blocks.sites * g.D * size;
  const int64_t fields = 1 + (beside.V != nullptr) + (beside.X != nullptr);
  for_groups<T>(fold, g.batch, fields * g.D * size + beside.loops * fold.V, [&](int64_t group, T* links) {
    T* next = links + field_size;
    const auto packed = [&]<int numbers>(const S* field, int components) -> T* {
      if (!field) return nullptr;
      T* to = next;
      next += fold.blocks.sites * components * numbers * fold.V;
      pack<numbers>(fold, field, group, g.batch, components, to, threads);
      return to;
    };
    pack<M>(fold, reals<S>(U), group, g.batch, g.D, links, threads);
    const T *V = packed.template operator()<M>(beside.V, g.D), *X = packed.template operator()<M>(beside.X, g.D);
    Weights<T> weights(c);
    weights.field = packed.template operator()<1>(beside.weights, beside.loops);
    weights.components = beside.loops;
    if (beside.weights) weights.rectangles = beside.loops > g.planes();
    const Field<N, T> field{fold, links, V};
    const Lanes<T, S> lanes(fold, out, group, g.batch, g.D, M);
    core::PackedOf<T> scale;
    for (int lane = 0; lane < fold.V; ++lane)
      scale.v[lane] = T(beside.scale(std::min(group * fold.configs + fold.config_of_lane(lane), g.batch - 1)));
    const auto range = [&](int64_t first, int64_t last, const auto& also) {
      const Rule local = rule;
      Block<N, T> result;
      for_staples<Rule::moving>(field, weights, first, last, [&](int64_t block, int mu, const T* A, const T* DA) {
        const int64_t at = (block * g.D + mu) * size;
        also(links + at, A);
        local.block(links + at, A, DA, X ? X + at : nullptr, scale, result.numbers);
        scatter<M>(lanes, (mu * g.lattice.sites + fold.site(block)) * M, result.numbers);
      });
    };
    // sum of Re tr(U A) over links counts each plaquette four times
    const auto with_action = [&]<class A>() {
      sum_blocks<A>(
          fold, group, g.batch, action.factor / 4, action.total, threads, [&](int64_t first, int64_t last, auto& sums) {
            range(first, last,
                  [&](const T* link, const T* staples) { sums.add(real_trace_of_product<N>(link, staples)); });
          });
    };
    if (!action.total || weights.rectangles) {
      threads(fold.blocks.sites, grain, [&](int64_t first, int64_t last) { range(first, last, [](auto...) {}); });
      if (!action.total) return;
      if (action.accurate)
        return sum_of_loops<N, core::DoubleDouble>(field, group, g.batch, c, action.factor, action.total, threads);
      return sum_of_loops<N, double>(field, group, g.batch, c, action.factor, action.total, threads);
    }
    if (action.accurate) return with_action.template operator()<core::DoubleDouble>();
    with_action.template operator()<double>();
  });
}

#endif

}  // namespace hepops::lattice
