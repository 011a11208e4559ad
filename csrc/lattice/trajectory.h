#pragma once
// A trajectory of molecular dynamics, dU/dt = P U, dP/dt = -F(U):
//
//   kick   P -= k F(V),  V = exp(-s F(U)) U where the kick is displaced by s, else U
//   drift  U  = exp(d P) U
#include <cstdint>
#include <vector>

#include "core/packed.h"
#include "lattice/wilson.h"

namespace hepops::lattice {

// kicks[0], then a drift and a kick in turn (hepops/lattice/stages.py); bends[k] is how far kick k is displaced.
struct Scheme {
  std::vector<double> kicks, bends, drifts;

  template <class Kick, class Drift>
  void run(const Kick& kick, const Drift& drift) const {
    kick(kicks[0], bends[0]);
    for (size_t k = 0; k < drifts.size(); ++k) {
      drift(drifts[k]);
      kick(kicks[k + 1], bends[k + 1]);
    }
  }
};

// q0 + q1 X + q2 X^2 of a matrix
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
