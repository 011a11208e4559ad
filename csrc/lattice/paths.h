#pragma once
// Ordered products of matrices along paths of a periodic lattice, summed over paths:
//
//   M_o(x) = scale sum_{p in o} prod_{s in p} F_{k_s}(x + d_s)      each factor as it is or as its adjoint
//
// The fields F are links, lines of links, field strengths: whatever has one N x N matrix on each site. Wilson loops,
// Polyakov loops, clover leaves, staples and the densities tr F F are all of this form. What is asked for is M, its
// traceless antihermitian part TA(M) or its trace. Arithmetic is in double, whatever the fields are stored in.
//
// A program is one row of integers (Program below). Backward is a gather: each matrix F_k(y) visits the steps that read
// it, in their order, so that nothing is added from two threads. With M = A F B and dL = Re tr(G^+ dM)
//
//   dL/dF = A^+ G B^+        tr M: G = g 1, dL/dF = g (B A)^+        F^+ in the product: the adjoint of this
//   TA is an orthogonal projection: its gradient is TA(G)
//
// A group of `lanes` sites is computed at once: a SIMD register full on a CPU, one site on a GPU.
#include <type_traits>

#include "core/matrix.h"
#include "core/packed.h"
#include "lattice/geometry.h"

namespace hepops::lattice {

enum Kind { matrices = 0, antihermitian = 1, traces = 2 };

// outputs O, paths P, steps S, fields K | paths_of (O + 1) | steps_of (P + 1) | S x (field, adjoint, d_0 ... d_3) |
// output_of (P) | uses_of (K + 1) | S x (path, step)
struct Program {
  const int64_t* row;
  static constexpr int step_size = 2 + most_dims;

  HEPOPS_HD int64_t outputs() const { return row[0]; }
  HEPOPS_HD int64_t paths() const { return row[1]; }
  HEPOPS_HD int64_t steps() const { return row[2]; }
  HEPOPS_HD int64_t fields() const { return row[3]; }
  HEPOPS_HD const int64_t* paths_of() const { return row + 4; }
  HEPOPS_HD const int64_t* steps_of() const { return paths_of() + outputs() + 1; }
  HEPOPS_HD const int64_t* step(int64_t s) const { return steps_of() + paths() + 1 + step_size * s; }
  HEPOPS_HD const int64_t* output_of() const { return step(steps()); }
  HEPOPS_HD const int64_t* uses_of() const { return output_of() + paths(); }
  HEPOPS_HD const int64_t* use(int64_t u) const { return uses_of() + fields() + 1 + 2 * u; }
  HEPOPS_HD int64_t size() const { return use(steps()) - row; }
};

// `lanes` sites by their coordinates; behind the last site of the lattice stands the last site again.
template <int lanes>
struct Sites {
  int64_t coordinate[most_dims][lanes];
  int64_t site[lanes];

  HEPOPS_HD Sites(const Lattice& lattice, int64_t first) {
    for (int lane = 0; lane < lanes; ++lane) {
      site[lane] = first + lane < lattice.sites ? first + lane : lattice.sites - 1;
      int64_t rest = site[lane];
      for (int mu = 0; mu < lattice.dims; ++mu) {
        coordinate[mu][lane] = rest / lattice.stride[mu];
        rest %= lattice.stride[mu];
      }
    }
  }

  // x + sign d, with 0 <= d < L in each direction
  HEPOPS_HD Sites moved(const Lattice& lattice, const int64_t* d, int sign) const {
    Sites there;
    for (int lane = 0; lane < lanes; ++lane) there.site[lane] = 0;
    for (int mu = 0; mu < lattice.dims; ++mu) {
      const int64_t L = lattice.extent[mu], by = sign > 0 || d[mu] == 0 ? d[mu] : L - d[mu];
      for (int lane = 0; lane < lanes; ++lane) {
        const int64_t c = coordinate[mu][lane] + by, wrapped = c >= L ? c - L : c;
        there.coordinate[mu][lane] = wrapped;
        there.site[lane] += wrapped * lattice.stride[mu];
      }
    }
    return there;
  }

 private:
  Sites() = default;
};

#ifdef __CUDACC__
constexpr int lanes = 1;
using Number = double;
#else
constexpr int lanes = core::Packed::size;
using Number = core::Packed;
#endif

// One number of each lane: get(lane) is it, put(lane, value) takes it.
template <class Get>
HEPOPS_HD Number gather(const Get& get) {
#ifdef __CUDACC__
  return get(0);
#else
  double values[lanes];
  for (int lane = 0; lane < lanes; ++lane) values[lane] = get(lane);
  return Number::load(values);
#endif
}
template <class Put>
HEPOPS_HD void scatter(const Number& x, const Put& put) {
#ifdef __CUDACC__
  put(0, x);
#else
  double values[lanes];
  x.store(values);
  for (int lane = 0; lane < lanes; ++lane) put(lane, values[lane]);
#endif
}

// The matrices of K fields on each site, shape (B, K, sites, N, N), stored in S (float or double).
template <class S, int N>
struct Matrices {
  static constexpr int numbers = 2 * N * N;  // a matrix is `numbers` side by side
  using M = core::Matrix<Number, N>;
  S* data;
  int64_t fields, sites;

  HEPOPS_HD S* at(int64_t b, int64_t k, int64_t site) const {
    return data + ((b * fields + k) * sites + site) * numbers;
  }

  HEPOPS_HD M load(int64_t b, int64_t k, const Sites<lanes>& x) const {
    M matrix;
    Number* entries = &matrix(0, 0).real;
#ifdef __CUDACC__
    const S* from = at(b, k, x.site[0]);
    for (int n = 0; n < numbers; ++n) entries[n] = Number(from[n]);
#else
    const S* from[lanes];
    for (int lane = 0; lane < lanes; ++lane) from[lane] = at(b, k, x.site[lane]);
    for (int block = 0; block < numbers; block += lanes) {
      const int first = block + lanes <= numbers ? block : numbers - lanes;  // the last block overlaps
      core::transpose<Number>([&](int lane) { return Number::load(from[lane] + first); },
                              [&](int n, Number v) { entries[first + n] = v; });
    }
#endif
    return matrix;
  }

  HEPOPS_HD void store(int64_t b, int64_t k, const Sites<lanes>& x, const M& matrix) const {
    const Number* entries = &matrix(0, 0).real;
#ifdef __CUDACC__
    S* to = at(b, k, x.site[0]);
    for (int n = 0; n < numbers; ++n) to[n] = S(entries[n]);
#else
    S* to[lanes];
    for (int lane = 0; lane < lanes; ++lane) to[lane] = at(b, k, x.site[lane]);
    for (int block = 0; block < numbers; block += lanes) {
      const int first = block + lanes <= numbers ? block : numbers - lanes;
      core::transpose<Number>([&](int n) { return entries[first + n]; },
                              [&](int lane, Number v) { v.store(to[lane] + first); });
    }
#endif
  }
};

// tr(A B) needs no more of the product than its diagonal
template <class T, int N>
HEPOPS_HD core::Complex<T> trace_of_product(const core::Matrix<T, N>& A, const core::Matrix<T, N>& B) {
  core::Complex<T> sum = A(0, 0) * B(0, 0);
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j)
      if (i + j > 0) sum += A(i, j) * B(j, i);
  return sum;
}

// TA(M) = (M - M^+)/2 - tr(M - M^+)/2N
template <class T, int N>
HEPOPS_HD core::Matrix<T, N> traceless_antihermitian(const core::Matrix<T, N>& M) {
  core::Matrix<T, N> X = T(0.5) * (M - adjoint(M));
  const T shift = T(1.0 / N) * trace(X).imag;
  for (int i = 0; i < N; ++i) X(i, i).imag -= shift;
  return X;
}

template <class S, int N>
struct PathProducts {
  using M = core::Matrix<Number, N>;
  Program program;
  Matrices<const S, N> field;
  Matrices<S, N> result;  // (B, O, sites, N, N)
  double* trace_of;       // (B, O, sites, 2), where traces are asked for
  Lattice lattice;
  double scale;

  // M times the factor of step s, or its adjoint
  HEPOPS_HD M times(const M& A, int64_t b, const int64_t* s, const Sites<lanes>& x) const {
    const M F = field.load(b, s[0], x.moved(lattice, s + 2, 1));
    return s[1] ? A * adjoint(F) : A * F;
  }
  HEPOPS_HD M first(int64_t b, const int64_t* s, const Sites<lanes>& x) const {
    const M F = field.load(b, s[0], x.moved(lattice, s + 2, 1));
    return s[1] ? adjoint(F) : F;
  }
  // steps begin ... end - 1
  HEPOPS_HD M product(int64_t b, int64_t begin, int64_t end, const Sites<lanes>& x) const {
    M A = first(b, program.step(begin), x);
    for (int64_t s = begin + 1; s < end; ++s) A = times(A, b, program.step(s), x);
    return A;
  }

  HEPOPS_HD void sum_of_traces(int64_t b, int64_t o, const Sites<lanes>& x) const {
    core::Complex<Number> sum{Number(0.0), Number(0.0)};
    for (int64_t p = program.paths_of()[o]; p < program.paths_of()[o + 1]; ++p) {
      const int64_t begin = program.steps_of()[p], end = program.steps_of()[p + 1];
      if (end == begin + 1) {
        sum += trace(first(b, program.step(begin), x));
      } else {
        const M A = product(b, begin, end - 1, x), B = first(b, program.step(end - 1), x);
        sum += trace_of_product(A, B);
      }
    }
    double* to = trace_of + 2 * (b * program.outputs() + o) * lattice.sites;
    scatter(sum.real, [&](int lane, double value) { to[2 * x.site[lane]] = scale * value; });
    scatter(sum.imag, [&](int lane, double value) { to[2 * x.site[lane] + 1] = scale * value; });
  }

  template <int kind>
  HEPOPS_HD void run(int64_t b, int64_t o, int64_t site) const {
    const Sites<lanes> x(lattice, site);
    if constexpr (kind == traces) return sum_of_traces(b, o, x);
    const int64_t begin = program.paths_of()[o], end = program.paths_of()[o + 1];
    M sum = product(b, program.steps_of()[begin], program.steps_of()[begin + 1], x);
    for (int64_t p = begin + 1; p < end; ++p) sum += product(b, program.steps_of()[p], program.steps_of()[p + 1], x);
    if constexpr (kind == antihermitian) sum = traceless_antihermitian(sum);
    result.store(b, o, x, Number(scale) * sum);
  }
};

template <class S, int N>
struct PathProductsBackward {
  using M = core::Matrix<Number, N>;
  PathProducts<S, N> forward;  // its `result` is not used
  Matrices<const S, N> grad;   // (B, O, sites, N, N), or
  const double* grad_trace;    // (B, O, sites, 2)
  Matrices<S, N> grad_field;   // (B, K, sites, N, N)

  // F^+ A of step s, the factor as it stands in the product
  HEPOPS_HD M adjoint_times(const M& A, int64_t b, const int64_t* s, const Sites<lanes>& x) const {
    const M F = forward.field.load(b, s[0], x.moved(forward.lattice, s + 2, 1));
    return s[1] ? F * A : adjoint(F) * A;
  }
  HEPOPS_HD M times_adjoint(const M& A, int64_t b, const int64_t* s, const Sites<lanes>& x) const {
    const M F = forward.field.load(b, s[0], x.moved(forward.lattice, s + 2, 1));
    return s[1] ? A * F : A * adjoint(F);
  }

  // A^+ G B^+
  template <int kind>
  HEPOPS_HD M of_matrix(int64_t b, int64_t path, int64_t step, const Sites<lanes>& x) const {
    const Program& program = forward.program;
    const int64_t begin = program.steps_of()[path], end = program.steps_of()[path + 1];
    M G = grad.load(b, program.output_of()[path], x);
    if constexpr (kind == antihermitian) G = traceless_antihermitian(G);
    for (int64_t s = begin; s < step; ++s) G = adjoint_times(G, b, program.step(s), x);
    for (int64_t s = end - 1; s > step; --s) G = times_adjoint(G, b, program.step(s), x);
    return G;
  }

  // g (B A)^+
  HEPOPS_HD M of_trace(int64_t b, int64_t path, int64_t step, const Sites<lanes>& x) const {
    const Program& program = forward.program;
    const int64_t begin = program.steps_of()[path], end = program.steps_of()[path + 1];
    const double* from = grad_trace + 2 * (b * program.outputs() + program.output_of()[path]) * forward.lattice.sites;
    const core::Complex<Number> g{gather([&](int lane) { return from[2 * x.site[lane]]; }),
                                  gather([&](int lane) { return from[2 * x.site[lane] + 1]; })};
    M G = g * M::identity();
    for (int64_t s = begin; s < step; ++s) G = adjoint_times(G, b, program.step(s), x);
    for (int64_t s = end - 1; s > step; --s) G = times_adjoint(G, b, program.step(s), x);
    return G;
  }

  template <int kind>
  HEPOPS_HD void run(int64_t b, int64_t k, int64_t site) const {
    const Program& program = forward.program;
    const Sites<lanes> y(forward.lattice, site);
    M sum{};
    for (int64_t u = program.uses_of()[k]; u < program.uses_of()[k + 1]; ++u) {
      const int64_t path = program.use(u)[0], step = program.use(u)[1];
      const int64_t* s = program.step(step);
      const Sites<lanes> x = y.moved(forward.lattice, s + 2, -1);
      M G;
      if constexpr (kind == traces)
        G = of_trace(b, path, step, x);
      else
        G = of_matrix<kind>(b, path, step, x);
      sum += s[1] ? adjoint(G) : G;
    }
    grad_field.store(b, k, y, Number(forward.scale) * sum);
  }
};

}  // namespace hepops::lattice
