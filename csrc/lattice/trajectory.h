#pragma once
// A trajectory of molecular dynamics, dU/dt = P U, dP/dt = -F(U):
//
//   kick   P -= k eps F(V),  V = exp(-s eps^2 F(U)) U where the kick is displaced, else U
//   drift  U  = exp(d eps P) U
//
// A step is kicks k_0 ... k_n with drifts d_0 ... d_(n-1) between them; the last kick of a step and the first of the
// next are one where neither is displaced.
#include <cstdint>
#include <vector>

#include "core/packed.h"
#include "lattice/wilson.h"

namespace hepops::lattice {

struct Scheme {
  std::vector<double> kicks, drifts, shifts;
  double step_size;
  int64_t steps;

  // kick(k eps, s eps^2) and drift(d eps), in order
  template <class Kick, class Drift>
  void run(const Kick& kick, const Drift& drift) const {
    const size_t n = drifts.size();
    const bool joined = shifts[0] == 0 && shifts[n] == 0;
    const double square = step_size * step_size;
    for (int64_t step = 0; step < steps; ++step) {
      if (step == 0 || !joined) kick(kicks[0] * step_size, shifts[0] * square);
      for (size_t i = 0; i < n; ++i) {
        drift(drifts[i] * step_size);
        const bool last = i + 1 == n;
        const double k = kicks[i + 1] + (last && joined && step + 1 < steps ? kicks[0] : 0);
        kick(k * step_size, shifts[i + 1] * square);
      }
    }
  }
};

// a + i b over any number, as Complex is, but without its divisions: polynomials q0 + q1 X + q2 X^2 of a matrix
template <class T, int N>
struct Polynomial {
  Complex<T> q[N];
};

// What Cayley and Hamilton say of a traceless anti-hermitian X: X^2 = t (N = 2), X^3 = t X + i d (N = 3), t = tr X^2 /
// 2
template <class T, int N>
struct Characteristic {
  T t, d;

  // x q of a polynomial, and a b
  HEPOPS_HD Polynomial<T, N> raised(const Polynomial<T, N>& q) const {
    if constexpr (N == 2) {
      return {{t * q.q[1], q.q[0]}};
    } else {
      const auto& top = q.q[2];
      return {{{-d * top.imag, d * top.real}, q.q[0] + t * top, q.q[1]}};
    }
  }
  HEPOPS_HD Polynomial<T, N> square(const Polynomial<T, N>& a) const {
    Polynomial<T, N> sum{};
    for (int i = N - 1; i >= 0; --i) {
      sum = raised(sum);
      for (int j = 0; j < N; ++j) sum.q[j] += a.q[i] * a.q[j];
    }
    return sum;
  }
};

// e^X by its Taylor series modulo the characteristic polynomial, for |eigenvalues| <= 1; larger X are halved, lane by
// lane, and the result squared. 19 terms leave 1/20! = 4e-19.
template <class T, int N>
HEPOPS_HD Matrix<T, N> exponential(const Matrix<T, N>& X) {
  using core::any, core::select;
  const Matrix<T, N> square = X * X;
  Characteristic<T, N> law{T(0.5) * real_trace(square), T(0.0)};
  if constexpr (N == 3) law.d = determinant(X).imag;
  T scale = T(1.0), largest = T(N == 2 ? -1.0 : -4.0 / 3) * law.t;  // >= the square of any eigenvalue
  int halvings = 0;
  for (; halvings < 60 && any(largest > T(1.0)); ++halvings) {
    const auto large = largest > T(1.0);
    scale = select(large, T(0.5) * scale, scale);
    largest = select(large, T(0.25) * largest, largest);
  }
  law.t = law.t * scale * scale, law.d = law.d * scale * scale * scale;

  Polynomial<T, N> q{};
  q.q[0].real = T(1.0);
  for (int k = 19; k > 0; --k) {
    q = law.raised(q);
    const T factor(1.0 / k);
    for (int j = 0; j < N; ++j) q.q[j] = factor * q.q[j];
    q.q[0].real += T(1.0);
  }
  T done = scale;
  for (; halvings > 0; --halvings) {
    const auto small = done < T(1.0);
    const auto squared = law.square(q);
    for (int j = 0; j < N; ++j) {
      q.q[j].real = select(small, squared.q[j].real, q.q[j].real);
      q.q[j].imag = select(small, squared.q[j].imag, q.q[j].imag);
    }
    done = select(small, T(2.0) * done, done);
  }
  Matrix<T, N> result = (scale * q.q[1]) * X;
  if constexpr (N == 3) result += (scale * scale * q.q[2]) * square;
  for (int i = 0; i < N; ++i) result(i, i) += q.q[0];
  return result;
}

}  // namespace hepops::lattice
