// Forces and staples (the laws: wilson.h).
#include "core/op.h"
#include "lattice/wilson_rules.h"
#include "lattice/wilson_staples.h"

namespace hepops::lattice {
namespace {

// F, and the action where `total` is asked for
Tensor force_of(const char* who, const Tensor& links, double beta, double c1, bool wide, const ActionToo& action) {
  const Gauge g = checked_links(who, links);
  check_couplings(who, beta, c1);
  const Tensor U = core::contiguous(links), F = core::in_huge_pages(core::empty_like(U));
  if (g.batch == 0) return F;
  for_links(U, wide, [&]<class S, class T, int N>() {
    Beside<S> beside;
    beside.factor = beta / (2 * N);
    const auto c = Coefficients::improved(c1);
#ifdef __CUDACC__
    for_all_staples<S, T, N>(U, g, c, beside, ForceRule<N>{}, reals_out<S>(F));
#else
    for_all_staples<S, T, N>(U, g, c, beside, ForceRule<N>{}, reals_out<S>(F),
                             ActionToo{-beta / N, action.total, action.accurate});
#endif
  });
  return F;
}

Tensor wilson_force(const Tensor& links, double beta, double c1, bool wide) {
  return force_of("wilson_force", links, beta, c1, wide, {});
}

// -> the action, F. On a GPU the action has a kernel of its own (lattice/wilson.py): the first is not filled.
std::tuple<Tensor, Tensor> wilson_action_and_force(const Tensor& links, double beta, double c1, bool wide,
                                                   bool accurate) {
  const int64_t batch = links.dim() > 0 ? links.size(0) : 0;
  const Tensor total = torch::stable::new_empty(links, {batch}, ScalarType::Double);
  const Tensor F = force_of("wilson_force", links, beta, c1, wide, {0, core::out<double>(total), accurate});
  return {total, F};
}

// The plain sums, of walks along plaquettes times c0 and rectangles times c1.
Tensor wilson_staples(const Tensor& links, double c0, double c1, bool wide) {
  const Gauge g = checked_links("wilson_staples", links);
  check_couplings("wilson_staples", c0, c1);
  const Tensor U = core::contiguous(links), A = core::in_huge_pages(core::empty_like(U));
  if (g.batch == 0) return A;
  for_links(U, wide, [&]<class S, class T, int N>() {
    for_all_staples<S, T, N>(U, g, {c0, c1}, Beside<S>{}, StapleRule<N, false>{}, reals_out<S>(A));
  });
  return A;
}

const core::Operators operators{
    core::op<wilson_action_and_force>("_lattice_wilson_action_and_force(Tensor links, float beta, float c1, bool wide, "
                                      "bool accurate) -> (Tensor, Tensor)"),
    core::op<wilson_force>("lattice_wilson_force(Tensor links, float beta, float c1, bool wide) -> Tensor"),
    core::op<wilson_staples>("lattice_wilson_staples(Tensor links, float c0, float c1, bool wide) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lattice
