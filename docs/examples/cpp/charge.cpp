// The charge that a muon's deposits bring to the anode, and its derivative with respect to the lifetime: no torch, no
// Python, no library to link.
#include <hepops/core/dual.h>
#include <hepops/lartpc/drift.h>
#include <hepops/lartpc/recombine.h>

#include <cstdio>

namespace lartpc = hepops::lartpc;

struct Segment {
  double dE;        // [MeV]
  double dEdx;      // [MeV/cm]
  double distance;  // from the anode [cm]
};

int main() {
  constexpr double W_ion = 23.6e-6;  // [MeV] per electron
  const Segment segments[] = {{0.21, 2.1, 5.0}, {0.25, 2.5, 15.0}, {1.20, 12.0, 30.0}};

  const lartpc::Recombination<double> birks{.model = lartpc::birks,
                                            .A = 0.8,
                                            .k = 0.0486,
                                            .alpha = 0.93,
                                            .beta = 0.212,
                                            .ratio = 1.25,
                                            .E = 0.5,
                                            .rho = 1.38};
  const lartpc::Transport<double> transport{
      .lifetime = 2200, .E = 0.5, .D_T = 8.8e-6, .D_L = 4.0e-6, .temperature = 87.17};

  // The same formula on dual numbers yields a derivative; the hand-written backward must yield the same.
  using Dual = hepops::core::Dual<double, 1>;
  const lartpc::Transport<Dual> along_lifetime{Dual(2200., 0), 0.5, 8.8e-6, 4.0e-6, 87.17};

  double total = 0, slope = 0, slope_by_backward = 0;
  for (const Segment& s : segments) {
    const double electrons = lartpc::recombine(s.dEdx, 0.0, birks) * s.dE / W_ion;
    const auto arrival = lartpc::drift(s.distance, transport);
    std::printf("%5.1f cm: %8.1f of %8.1f electrons after %7.3f us, spread %.4f cm and %.4f cm\n", s.distance,
                electrons * arrival.survival, electrons, arrival.time, arrival.sigma_t, arrival.sigma_l);
    total += electrons * arrival.survival;
    slope += electrons * lartpc::drift(s.distance, along_lifetime).survival.slope[0];
    slope_by_backward += lartpc::drift_backward({electrons, 0, 0, 0}, s.distance, transport).lifetime;
  }
  std::printf("total %.4f electrons, d/dlifetime %.6f (by backward %.6f) electrons/us\n", total, slope,
              slope_by_backward);
}
