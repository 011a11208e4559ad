#include "lattice/residual.h"

#include <tuple>

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"

namespace hepops::lattice {
namespace {

using core::in;
using core::out;
using core::ScalarType;
using core::Tensor;

// One thread holds the 8 x 8 matrices of an SU(3) link: on a GPU they spill to local memory (forward 6-9 kB, backward
// 35 kB, sm_90); SU(2) does not. Eight threads to a link, a row each, would keep them in registers.
//
// Numbers of several links side by side on the CPU, one by one on a GPU; float32 links are computed in double.
#ifdef __CUDACC__
using Number = double;
constexpr int width = 1;
HEPOPS_HD void put(double& x, int, double value) { x = value; }
HEPOPS_HD double get(double x, int) { return x; }
#else
using Number = core::Packed;
constexpr int width = Number::size;
HEPOPS_HD void put(Number& x, int lane, double value) { x.v[lane] = value; }
HEPOPS_HD double get(const Number& x, int lane) { return x.v[lane]; }
#endif

template <int N>
using Links = core::Matrix<Number, N>;

// Matrices number first ... first + width - 1; beyond the last stand zeros, which the formulas bear.
template <int N, class R>
HEPOPS_HD Links<N> load(const R* from, int64_t first, int64_t last) {
  Links<N> M{};
  for (int lane = 0; lane < width; ++lane)
    for (int i = 0; i < N * N; ++i) {
      const R* entry = from + 2 * ((first + lane) * N * N + i);
      const bool there = first + lane < last;
      put(M(i / N, i % N).real, lane, there ? double(entry[0]) : 0.0);
      put(M(i / N, i % N).imag, lane, there ? double(entry[1]) : 0.0);
    }
  return M;
}

template <int N, class R>
HEPOPS_HD void store(const Links<N>& M, R* to, int64_t first, int64_t last) {
  for (int lane = 0; lane < width && first + lane < last; ++lane)
    for (int i = 0; i < N * N; ++i) {
      R* entry = to + 2 * ((first + lane) * N * N + i);
      entry[0] = R(get(M(i / N, i % N).real, lane));
      entry[1] = R(get(M(i / N, i % N).imag, lane));
    }
}

HEPOPS_HD Number load(const double* from, int64_t first, int64_t last) {
  Number x = Number(0.0);
  for (int lane = 0; lane < width && first + lane < last; ++lane) put(x, lane, from[first + lane]);
  return x;
}
HEPOPS_HD void store(const Number& x, double* to, int64_t first, int64_t last) {
  for (int lane = 0; lane < width && first + lane < last; ++lane) to[first + lane] = get(x, lane);
}

template <int N, class R>
struct Forward {
  const R *U, *A;
  R* result;
  double* logdet;
  int64_t links;

  HEPOPS_HD void operator()(int64_t block) const {
    const int64_t first = block * width;
    Links<N> after;
    Number l;
    residual(load<N>(U, first, links), load<N>(A, first, links), after, l);
    store<N>(after, result, first, links);
    store(l, logdet, first, links);
  }
};

template <int N, class R>
struct Backward {
  const R* grad_result;
  const double* grad_logdet;
  const R *U, *A;
  R *grad_U, *grad_A;
  int64_t links;

  HEPOPS_HD void operator()(int64_t block) const {
    const int64_t first = block * width;
    Links<N> gU, gA;
    residual_backward(load<N>(grad_result, first, links), load(grad_logdet, first, links), load<N>(U, first, links),
                      load<N>(A, first, links), gU, gA);
    store<N>(gU, grad_U, first, links);
    store<N>(gA, grad_A, first, links);
  }
};

template <int N, class R>
struct Inverse {
  const R *result, *A;
  R* U;
  double* moved;
  int64_t links;
  int most;
  double tolerance;

  HEPOPS_HD void operator()(int64_t block) const {
    const int64_t first = block * width;
    Links<N> before;
    const Number far =
        residual_inverse(load<N>(result, first, links), load<N>(A, first, links), most, tolerance, before);
    store<N>(before, U, first, links);
    store(far, moved, first, links);
  }
};

template <int N, class R>
struct InverseBackward {
  const R *grad_U, *U, *A;
  R *grad_result, *grad_A;
  int64_t links;

  HEPOPS_HD void operator()(int64_t block) const {
    const int64_t first = block * width;
    Links<N> g, gA;
    residual_inverse_backward(load<N>(grad_U, first, links), load<N>(U, first, links), load<N>(A, first, links), g, gA);
    store<N>(g, grad_result, first, links);
    store<N>(gA, grad_A, first, links);
  }
};

void check_links(const char* op, const Tensor& U, const Tensor& A) {
  const auto kind = U.scalar_type();
  core::check_type(kind == ScalarType::ComplexFloat || kind == ScalarType::ComplexDouble, op,
                   ": links must be complex64 or complex128 (of float32 or float64), got ", toString(kind));
  core::check_value(U.dim() >= 2 && U.size(-1) == U.size(-2) && (U.size(-1) == 2 || U.size(-1) == 3), op,
                    ": links must have shape (..., N, N), N = 2 or 3, got ", core::Shape{U});
  core::check_same_shape("staples", A, U);
}

int64_t count(const Tensor& U) { return U.numel() / (U.size(-1) * U.size(-1)); }

Tensor new_numbers(const Tensor& U) {
  return torch::stable::new_empty(U, U.sizes().slice(0, U.dim() - 2), ScalarType::Double);
}

// f<N, R>() of the size and the real type of the links
template <class F>
void for_links(const Tensor& U, const F& f) {
  const bool wide = U.scalar_type() == ScalarType::ComplexDouble;
  if (U.size(-1) == 2)
    wide ? f.template operator()<2, double>() : f.template operator()<2, float>();
  else
    wide ? f.template operator()<3, double>() : f.template operator()<3, float>();
}

template <class F>
void for_blocks(const Tensor& on, const F& f) {
  const int64_t blocks = (f.links + width - 1) / width;
#ifdef __CUDACC__
  core::for_each(on, blocks, f);
#else
  (void)on;
  torch::stable::parallel_for(0, blocks, /*grain_size=*/16, [&f](int64_t first, int64_t last) {
    const F local = f;
    for (int64_t i = first; i < last; ++i) local(i);
  });
#endif
}

template <class R>
const R* reals(const Tensor& x) {
  return static_cast<const R*>(x.const_data_ptr());
}
template <class R>
R* reals_out(const Tensor& x) {
  return static_cast<R*>(x.mutable_data_ptr());
}

std::tuple<Tensor, Tensor> lattice_residual(const Tensor& links, const Tensor& staples) {
  check_links("residual", links, staples);
  const Tensor U = core::contiguous(links), A = core::contiguous(staples);
  Tensor result = core::empty_like(U), logdet = new_numbers(U);
  for_links(U, [&]<int N, class R>() {
    for_blocks(U, Forward<N, R>{reals<R>(U), reals<R>(A), reals_out<R>(result), out<double>(logdet), count(U)});
  });
  return {result, logdet};
}

std::tuple<Tensor, Tensor> lattice_residual_backward(const Tensor& grad_result, const Tensor& grad_logdet,
                                                     const Tensor& links, const Tensor& staples) {
  check_links("residual_backward", links, staples);
  core::check_same_shape("grad_result", grad_result, links);
  const Tensor U = core::contiguous(links), A = core::contiguous(staples), g = core::contiguous(grad_result),
               l = core::contiguous(grad_logdet);
  Tensor grad_U = core::empty_like(U), grad_A = core::empty_like(U);
  for_links(U, [&]<int N, class R>() {
    for_blocks(U, Backward<N, R>{reals<R>(g), in<double>(l), reals<R>(U), reals<R>(A), reals_out<R>(grad_U),
                                 reals_out<R>(grad_A), count(U)});
  });
  return {grad_U, grad_A};
}

std::tuple<Tensor, Tensor> lattice_residual_inverse(const Tensor& result, const Tensor& staples, int64_t most,
                                                    double tolerance) {
  check_links("residual_inverse", result, staples);
  const Tensor V = core::contiguous(result), A = core::contiguous(staples);
  Tensor U = core::empty_like(V), moved = new_numbers(V);
  for_links(V, [&]<int N, class R>() {
    for_blocks(V, Inverse<N, R>{reals<R>(V), reals<R>(A), reals_out<R>(U), out<double>(moved), count(V), int(most),
                                tolerance});
  });
  return {U, moved};
}

std::tuple<Tensor, Tensor> lattice_residual_inverse_backward(const Tensor& grad_links, const Tensor& links,
                                                             const Tensor& staples) {
  check_links("residual_inverse_backward", links, staples);
  core::check_same_shape("grad_links", grad_links, links);
  const Tensor g = core::contiguous(grad_links), U = core::contiguous(links), A = core::contiguous(staples);
  Tensor grad_result = core::empty_like(U), grad_A = core::empty_like(U);
  for_links(U, [&]<int N, class R>() {
    for_blocks(U, InverseBackward<N, R>{reals<R>(g), reals<R>(U), reals<R>(A), reals_out<R>(grad_result),
                                        reals_out<R>(grad_A), count(U)});
  });
  return {grad_result, grad_A};
}

const core::Operators operators{
    core::op<lattice_residual>("lattice_residual(Tensor links, Tensor staples) -> (Tensor, Tensor)"),
    core::op<lattice_residual_backward>("lattice_residual_backward(Tensor grad_result, Tensor grad_logdet, Tensor "
                                        "links, Tensor staples) -> (Tensor, Tensor)"),
    core::op<lattice_residual_inverse>("_lattice_residual_inverse(Tensor result, Tensor staples, int most, float "
                                       "tolerance) -> (Tensor, Tensor)"),
    core::op<lattice_residual_inverse_backward>("_lattice_residual_inverse_backward(Tensor grad_links, Tensor links, "
                                                "Tensor staples) -> (Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lattice
