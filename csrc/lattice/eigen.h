#pragma once
// Eigen-decomposition of unitary and hermitian 2 x 2 and 3 x 3 matrices in closed form, without a loop or a branch, to
// rounding error of the matrix wherever the eigenvalues lie:
//
// 1. The isolated eigenvalue. A hermitian traceless E with tr E^2 = 6 and det E = 2 r has the eigenvalue m, |m| in
//    [sqrt 3, 2] with the sign of r, of m^3 - 3 m - 2 r = 0: m = 2 cos(acos(r) / 3). Its distance to the other two is
//    at least sqrt 3, so that neither it nor its vector v, a column of (E - l1)(E - l2) = E^2 + m E + m^2 - 3, is
//    ill-conditioned. [J. Kopp, Int. J. Mod. Phys. C 19 (2008) 523, physics/0610206, has the closed form of all three
//    roots, which loses half the digits where two of them meet.]
// 2. What remains, B = (u1, u2)^+ A (u1, u2) on the plane that is orthogonal to v, is a 2 x 2 matrix of the same kind:
//    its eigenvectors are those of a hermitian traceless one, (z, w; w*, -z), that is n.sigma.
//
// A unitary W has the eigenvectors of its hermitian and of its anti-hermitian part: in either step the part whose
// traceless rest is the larger one is used, so that at least half of what tells the eigenvalues apart is kept.
#include "lattice/algebra.h"

namespace hepops::lattice {

using core::any, core::sin_cos_half_turn;
using core::select, core::sqrt, core::abs, core::max, core::min, core::atan2, core::log, core::exp;

// sin x and cos x for |x| <= 3 pi / 2
template <class T>
HEPOPS_HD void sin_cos_turn(const T& x, T& sine, T& cosine) {
  T s, c;
  sin_cos_half_turn(0.5 * x, s, c);
  sine = 2.0 * s * c;
  cosine = 1.0 - 2.0 * s * s;
}

template <class T, int N>
struct Eigen {
  Complex<T> values[N];
  Matrix<T, N> vectors;  // columns
};

// core::select serves a bool; these the masks of packs.
template <class C, class T>
  requires(!std::is_same_v<C, bool>)
HEPOPS_HD Complex<T> select(const C& condition, const Complex<T>& a, const Complex<T>& b) {
  return {select(condition, a.real, b.real), select(condition, a.imag, b.imag)};
}

template <class C, class T, int N>
  requires(!std::is_same_v<C, bool>)
HEPOPS_HD Matrix<T, N> select(const C& condition, const Matrix<T, N>& A, const Matrix<T, N>& B) {
  return Matrix<T, N>::from([&](int i, int j) { return select(condition, A(i, j), B(i, j)); });
}

template <class T, int N>
HEPOPS_HD Matrix<T, N> hermitian_part(const Matrix<T, N>& A) {
  return Matrix<T, N>::from([&](int i, int j) { return T(0.5) * (A(i, j) + conj(A(j, i))); });
}

// The larger one of the traceless hermitian and anti-hermitian parts of W, the latter divided by i.
template <class T, int N>
HEPOPS_HD Matrix<T, N> larger_part(const Matrix<T, N>& W) {
  const Matrix<T, N> D = traceless(W), A = hermitian_part(D), B = hermitian_part(over_i(D));
  return select(real_inner(A, A) >= real_inner(B, B), A, B);
}

// x / sqrt(square), or 0
template <class T>
HEPOPS_HD T inverse_root(const T& square) {
  const auto some = square > T(0.0);
  return select(square == T(0.0), T(0.0), T(1.0) / sqrt(select(some, square, T(1.0)))) + (square - square);
}

// m^3 - 3 m = 2 r for r in [0, 1]: a fit to 1.2e-6 and two of Newton's steps
template <class T>
HEPOPS_HD T isolated_root(const T& r) {
  T m = 1.7320519648958264 +
        r * (0.33324512789375327 +
             r * (-0.09510725177584772 +
                  r * (0.04395557114380057 + r * (-0.018108343905021446 + r * 0.003963813196881186))));
  for (int n = 0; n < 2; ++n) m = (2.0 * m * m * m + 2.0 * r) / (3.0 * m * m - 3.0);
  return m;
}

// The unit eigenvector of the isolated eigenvalue of a hermitian traceless D; (1, 0, 0) where D is 0.
template <class T>
HEPOPS_HD void isolated_vector(const Matrix<T, 3>& D, Complex<T> (&v)[3]) {
  T most = T(0.0);
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j) most = max(most, max(abs(D(i, j).real), abs(D(i, j).imag)));
  const T unit = T(1.0) / select(most > T(0.0), most, T(1.0));
  Matrix<T, 3> E = unit * D;
  const T size = inverse_root(T(1.0 / 6) * real_inner(E, E));
  E = size * E;
  const Matrix<T, 3> square = hermitian_square(E);
  const Complex<T> around = E(0, 1) * E(1, 2) * E(2, 0);
  const T determinant = E(0, 0).real * (E(1, 1).real * E(2, 2).real - norm(E(1, 2))) - E(1, 1).real * norm(E(0, 2)) -
                        E(2, 2).real * norm(E(0, 1)) + 2.0 * around.real;
  const T r = min(0.5 * abs(determinant), T(1.0)), root = isolated_root(r);
  const T m = select(determinant < T(0.0), -root, root), rest = m * m - 3.0;
  Matrix<T, 3> A = square + m * E;
  for (int i = 0; i < 3; ++i) A(i, i).real += rest;
  // the column of the largest diagonal entry, which is at least 2
  T largest = A(0, 0).real;
  for (int i = 0; i < 3; ++i) v[i] = A(i, 0);
  for (int k = 1; k < 3; ++k) {
    const auto better = A(k, k).real > largest;
    largest = select(better, A(k, k).real, largest);
    for (int i = 0; i < 3; ++i) v[i] = select(better, A(i, k), v[i]);
  }
  const auto none = largest < T(1.0);
  const T length = T(1.0) / sqrt(norm(v[0]) + norm(v[1]) + norm(v[2]));
  for (int i = 0; i < 3; ++i) v[i] = select(none, Complex<T>{T(i == 0 ? 1.0 : 0.0), T(0.0)}, length * v[i]);
}

// u1 and u2, which complete a unit vector v: u1 has a zero where v is not the largest, u2 = (v x u1)*
template <class T>
HEPOPS_HD Matrix<T, 3> completed(const Complex<T> (&v)[3]) {
  const Complex<T> zero{T(0.0), T(0.0)};
  const auto second = norm(v[0]) > T(0.5);  // then the middle one is left out
  const T length = T(1.0) / sqrt(select(second, norm(v[0]) + norm(v[2]), norm(v[1]) + norm(v[2])));
  const Complex<T> u[3] = {select(second, length * conj(v[2]), zero), select(second, zero, -length * conj(v[2])),
                           select(second, -length * conj(v[0]), length * conj(v[1]))};
  Matrix<T, 3> V;
  for (int i = 0; i < 3; ++i) {
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    V(i, 0) = u[i];
    V(i, 1) = conj(v[j] * u[k] - v[k] * u[j]);
    V(i, 2) = v[i];
  }
  return V;
}

// The eigenvectors of (z, w; w*, -z), of the eigenvalues r and -r.
template <class T>
HEPOPS_HD Matrix<T, 2> eigenvectors(const Matrix<T, 2>& D) {
  const T most = max(abs(D(0, 0).real), max(abs(D(0, 1).real), abs(D(0, 1).imag)));
  const auto some = most > T(0.0), none = most == T(0.0);
  const T unit = T(1.0) / select(some, most, T(1.0));
  const T z = select(none, T(1.0), unit * D(0, 0).real);
  const Complex<T> w = unit * D(0, 1);
  const T r = sqrt(z * z + norm(w)), sum = r + abs(z), length = T(1.0) / sqrt(2.0 * r * sum);
  const Complex<T> large{length * sum, T(0.0)}, small = length * w;
  const auto up = z >= T(0.0);
  return {{{select(up, large, small), select(up, -small, -large)},
           {select(up, conj(small), large), select(up, large, conj(small))}}};
}

// v_k^+ A v_k
template <class T, int N>
HEPOPS_HD Complex<T> expectation(const Matrix<T, N>& A, const Matrix<T, N>& V, int k) {
  Complex<T> sum{T(0.0), T(0.0)};
  for (int i = 0; i < N; ++i) {
    Complex<T> row = A(i, 0) * V(0, k);
    for (int j = 1; j < N; ++j) row += A(i, j) * V(j, k);
    sum += conj(V(i, k)) * row;
  }
  return sum;
}

template <class T>
HEPOPS_HD Eigen<T, 2> eigen_normal(const Matrix<T, 2>& A, const Matrix<T, 2>& part) {
  Eigen<T, 2> e;
  e.vectors = eigenvectors(part);
  for (int k = 0; k < 2; ++k) e.values[k] = expectation(A, e.vectors, k);
  return e;
}

// Of a normal A; `part` is hermitian, traceless and commutes with A.
template <class T, class Part>
HEPOPS_HD Eigen<T, 3> eigen_normal(const Matrix<T, 3>& A, const Matrix<T, 3>& part, const Part& part_of) {
  Complex<T> v[3];
  isolated_vector(part, v);
  const Matrix<T, 3> V = completed(v);
  const Matrix<T, 3> AV = A * V;
  Matrix<T, 2> B;
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      B(i, j) = conj(V(0, i)) * AV(0, j);
      for (int k = 1; k < 3; ++k) B(i, j) += conj(V(k, i)) * AV(k, j);
    }
  const Eigen<T, 2> plane = eigen_normal(B, part_of(B));
  Eigen<T, 3> e;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 2; ++j) e.vectors(i, j) = V(i, 0) * plane.vectors(0, j) + V(i, 1) * plane.vectors(1, j);
    e.vectors(i, 2) = V(i, 2);
  }
  e.values[0] = plane.values[0];
  e.values[1] = plane.values[1];
  e.values[2] = conj(V(0, 2)) * AV(0, 2);
  for (int k = 1; k < 3; ++k) e.values[2] += conj(V(k, 2)) * AV(k, 2);
  return e;
}

struct LargerPart {
  template <class T>
  HEPOPS_HD Matrix<T, 2> operator()(const Matrix<T, 2>& B) const {
    return larger_part(B);
  }
};
struct HermitianPart {
  template <class T>
  HEPOPS_HD Matrix<T, 2> operator()(const Matrix<T, 2>& B) const {
    return traceless(hermitian_part(B));
  }
};

template <class T>
HEPOPS_HD Eigen<T, 2> eigen_unitary_unsorted(const Matrix<T, 2>& W) {
  return eigen_normal(W, larger_part(W));
}
template <class T>
HEPOPS_HD Eigen<T, 3> eigen_unitary_unsorted(const Matrix<T, 3>& W) {
  return eigen_normal(W, larger_part(W), LargerPart{});
}
template <class T>
HEPOPS_HD Eigen<T, 2> eigen_hermitian_unsorted(const Matrix<T, 2>& H) {
  return eigen_normal(H, traceless(H));
}
template <class T>
HEPOPS_HD Eigen<T, 3> eigen_hermitian_unsorted(const Matrix<T, 3>& H) {
  return eigen_normal(H, traceless(H), HermitianPart{});
}

template <class T, int N>
struct Spectrum {
  T values[N];  // in ascending order: eigenvalues, or phases in the alcove
  Matrix<T, N> vectors;
};

template <class T, int N, class C>
HEPOPS_HD void exchange_where(const C& condition, Spectrum<T, N>& s, int a, int b) {
  const T low = select(condition, s.values[b], s.values[a]), high = select(condition, s.values[a], s.values[b]);
  s.values[a] = low;
  s.values[b] = high;
  for (int i = 0; i < N; ++i) {
    const Complex<T> left = select(condition, s.vectors(i, b), s.vectors(i, a));
    const Complex<T> right = select(condition, s.vectors(i, a), s.vectors(i, b));
    s.vectors(i, a) = left;
    s.vectors(i, b) = right;
  }
}

template <class T, int N>
HEPOPS_HD void sort(Spectrum<T, N>& s) {
  if constexpr (N == 3) exchange_where(s.values[1] > s.values[2], s, 1, 2);
  exchange_where(s.values[0] > s.values[1], s, 0, 1);
  if constexpr (N == 3) exchange_where(s.values[1] > s.values[2], s, 1, 2);
}

template <class T, int N>
HEPOPS_HD Spectrum<T, N> eigen_hermitian(const Matrix<T, N>& A) {
  const Matrix<T, N> H = hermitian_part(A);
  const Eigen<T, N> e = eigen_hermitian_unsorted(H);
  Spectrum<T, N> s;
  for (int k = 0; k < N; ++k) s.values[k] = e.values[k].real;
  s.vectors = e.vectors;
  sort(s);
  return s;
}

// The canonical alcove of phases in [-pi, pi]: sorted, the largest or the least moved by 2 pi so that the sum is 0
// (that of a matrix of determinant 1 is a multiple of 2 pi), sorted again: th_1 <= ... <= th_N <= th_1 + 2 pi.
template <class T, int N>
HEPOPS_HD Spectrum<T, N> eigen_unitary(const Matrix<T, N>& W) {
  constexpr double pi = 3.14159265358979323846;
  const Eigen<T, N> e = eigen_unitary_unsorted(W);
  Spectrum<T, N> s;
  for (int k = 0; k < N; ++k) s.values[k] = atan2(e.values[k].imag, e.values[k].real);
  s.vectors = e.vectors;
  sort(s);
  T sum = s.values[0];
  for (int k = 1; k < N; ++k) sum += s.values[k];
  const auto above = sum > T(pi), below = sum < T(-pi);
  s.values[N - 1] = select(above, s.values[N - 1] - T(2 * pi), s.values[N - 1]);
  s.values[0] = select(below, s.values[0] + T(2 * pi), s.values[0]);
  for (int k = N - 1; k > 0; --k) exchange_where(above, s, k - 1, k);
  for (int k = 0; k < N - 1; ++k) exchange_where(below, s, k, k + 1);
  return s;
}

}  // namespace hepops::lattice
