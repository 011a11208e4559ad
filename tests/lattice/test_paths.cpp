// The program of a path and the groups of sites, without torch: a plaquette on a lattice that fills no register.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "lattice/paths.h"

namespace {

using namespace hepops::lattice;
using Complex = hepops::core::Complex<double>;
using M = hepops::core::Matrix<double, 2>;

constexpr int64_t extents[] = {3, 5};

M link(int64_t k, int64_t site) {
  return M::from(
      [&](int i, int j) { return Complex{0.1 * double(k + 1) + double(site % 7) * i, 0.3 * j - double(site % 3)}; });
}

struct Paths : testing::Test {
  Lattice lattice{extents, 2};
  std::vector<M> U;
  // one output, one path, four steps of two fields: U_0(x) U_1(x+0) U_0(x+1)^+ U_1(x)^+
  std::vector<int64_t> row{1, 1, 4, 2, 0, 1, 0, 4, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1,
                           0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 2, 0, 1, 0, 3};
  void SetUp() override {
    for (int k = 0; k < 2; ++k)
      for (int64_t site = 0; site < lattice.sites; ++site) U.push_back(link(k, site));
  }
  M at(int k, int64_t site) const { return U[size_t(k * lattice.sites + site)]; }
  M plaquette(int64_t x) const {
    return at(0, x) * at(1, lattice.ahead(x, 0)) * adjoint(at(0, lattice.ahead(x, 1))) * adjoint(at(1, x));
  }
};

TEST_F(Paths, ProgramHoldsWhatItSays) {
  const Program program{row.data()};
  EXPECT_EQ(program.size(), int64_t(row.size()));
  EXPECT_EQ(program.step(2)[0], 0);
  EXPECT_EQ(program.step(2)[1], 1);
  EXPECT_EQ(program.step(2)[3], 1);
  EXPECT_EQ(program.use(3)[1], 3);
}

TEST_F(Paths, ProductsAndTracesSiteBySite) {
  std::vector<M> result(size_t(lattice.sites));
  std::vector<double> trace_of(size_t(2 * lattice.sites));
  const PathProducts<double, 2> f{{row.data()},
                                  {&U[0](0, 0).real, 2, lattice.sites},
                                  {&result[0](0, 0).real, 1, lattice.sites},
                                  trace_of.data(),
                                  lattice,
                                  0.5};
  for (int64_t site = 0; site < lattice.sites; site += lanes) {
    f.run<matrices>(0, 0, site);
    f.run<traces>(0, 0, site);
  }
  for (int64_t x = 0; x < lattice.sites; ++x) {
    const M expected = 0.5 * plaquette(x);
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) {
        EXPECT_NEAR(result[size_t(x)](i, j).real, expected(i, j).real, 1e-9);
        EXPECT_NEAR(result[size_t(x)](i, j).imag, expected(i, j).imag, 1e-9);
      }
    EXPECT_NEAR(trace_of[size_t(2 * x)], trace(expected).real, 1e-9);
    EXPECT_NEAR(trace_of[size_t(2 * x + 1)], trace(expected).imag, 1e-9);
  }
}

// <g, dP> = <dU, backward(g)> for a change of every link: the sum of traces is linear in each
TEST_F(Paths, BackwardIsTheDerivative) {
  std::vector<double> trace_of(size_t(2 * lattice.sites)), grad(size_t(2 * lattice.sites), 0.0);
  for (int64_t x = 0; x < lattice.sites; ++x) grad[size_t(2 * x)] = 1;
  std::vector<M> slope(U.size());
  const auto forward = [&] {
    return PathProducts<double, 2>{
        {row.data()}, {&U[0](0, 0).real, 2, lattice.sites}, {nullptr, 0, 0}, trace_of.data(), lattice, 1.0};
  };
  const PathProductsBackward<double, 2> f{
      forward(), {nullptr, 1, lattice.sites}, grad.data(), {&slope[0](0, 0).real, 2, lattice.sites}};
  for (int k = 0; k < 2; ++k)
    for (int64_t site = 0; site < lattice.sites; site += lanes) f.run<traces>(0, k, site);
  const auto total = [&] {
    double sum = 0;
    for (int64_t x = 0; x < lattice.sites; ++x) sum += real_trace(plaquette(x));
    return sum;
  };
  for (const size_t l : {size_t(0), size_t(4), size_t(17), size_t(29)}) {
    const double before = U[l](0, 1).imag, h = 1e-3;
    U[l](0, 1).imag = before + h;
    const double up = total();
    U[l](0, 1).imag = before - h;
    const double down = total();
    U[l](0, 1).imag = before;
    EXPECT_NEAR((up - down) / (2 * h), slope[l](0, 1).imag, 1e-6 * (1 + std::abs(slope[l](0, 1).imag)));
  }
}

}  // namespace
