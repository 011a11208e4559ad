// What passes over SU(3) links of 16^4 cost in the blocked layout (csrc/lattice/blocked.h), one thread, processor time:
// packing, P += F, the gradient written to a plain field, the action, unpacking. From the repository's root:
//
//   g++ -O3 -std=gnu++20 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math -Wno-psabi
//       -Icsrc benchmarks/lattice/blocked.cpp -o blocked && ./blocked
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <random>
#include <vector>

#include "lattice/wilson_rules.h"

using namespace hepops::lattice;

constexpr int N = 3, M = 2 * N * N, D = 4, size = Block<N, double>::size, turns = 15;

struct Serial {
  template <class Body>
  void operator()(int64_t n, int64_t, const Body& body) const {
    body(0, n);
  }
};

// The median milliseconds of a pass.
template <class Pass>
void report(const char* name, const Pass& pass) {
  std::vector<double> times;
  for (int turn = 0; turn < turns; ++turn) {
    const std::clock_t start = std::clock();
    pass();
    times.push_back(1e3 * (std::clock() - start) / CLOCKS_PER_SEC);
  }
  std::sort(times.begin(), times.end());
  std::printf("%-28s %6.1f ms\n", name, times[turns / 2]);
}

int main() {
  const int64_t extents[D] = {16, 16, 16, 16};
  const Lattice lattice(extents, D);
  const Fold<double> fold(lattice);
  const int64_t numbers = lattice.sites * D * M;
  std::vector<double> plain(numbers), out(numbers);
  std::mt19937 bits(1);
  std::normal_distribution<double> normal;
  for (double& x : plain) x = normal(bits);
  const hepops::core::Buffer<double> links(numbers), momenta(numbers);
  double *U = links.get(), *P = momenta.get(), action = 0;
  std::fill(P, P + numbers, 0.0);
  const Coefficients c{1, 0};
  const Weights<double> weights(c);
  const Field<N, double> field{fold, U, nullptr};
  const Lanes<double, double> lanes(fold, out.data(), 0, 1, D, M);
  const hepops::core::PackedOf<double> one(1.0);
  Block<N, double> result;

  report("pack", [&] { pack<M>(fold, static_cast<const double*>(plain.data()), 0, 1, D, U, Serial{}); });
  report("force", [&] {
    for_staples<false>(field, weights, 0, fold.blocks.sites,
                       [&](int64_t block, int mu, const double* A, const double*) {
                         const int64_t at = (block * D + mu) * size;
                         ForceRule<N>{}.block(U + at, A, A, A, one, result.numbers);
                         for (int k = 0; k < size; ++k) P[at + k] += result.numbers[k];
                       });
  });
  report("gradient, to a plain field", [&] {
    for_staples<false>(field, weights, 0, fold.blocks.sites,
                       [&](int64_t block, int mu, const double* A, const double*) {
                         StapleRule<N, true>{}.block(U, A, A, A, one, result.numbers);
                         scatter<M>(lanes, (mu * lattice.sites + fold.site(block)) * M, result.numbers);
                       });
  });
  report("action", [&] { sum_of_loops<N, double>(field, 0, 1, c, 1.0, &action, Serial{}); });
  report("unpack", [&] { unpack<M>(fold, P, 0, 1, D, out.data(), Serial{}); });
  std::printf("(action %.12g)\n", action);
}
