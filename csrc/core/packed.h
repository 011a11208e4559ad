#pragma once
// A few numbers that are one to the formula which uses them: a SIMD register, as wide as the level that a file is
// compiled for. A formula that is a template on its number, and chooses by select instead of by if, runs on a Packed
// (the CPU), on a double (a GPU, a test) and on a Dual (its derivatives) from one text.
//
//   select(condition, a, b)   a where it holds, else b         any(condition)   whether it holds anywhere
//
// The functions below are polynomials, within 2 ulp of the correct value (expm1: 5; tests/core/test_packed.cpp), with
// the standard's infinities and NaN:
//   exp, log, log1p, expm1   as elementary.h has them (the last: the Taylor series below ln 2 / 2)
//   atan2                    S. L. Moshier, Cephes 2.8 (2000), atan.c: x + x^3 P(x^2) / Q(x^2) below 0.66
//   sin_cos_half_turn        Cephes, sin.c, for |x| <= 3 pi / 4
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <type_traits>
#include <utility>

#include "core/dual.h"
#include "core/elementary.h"

namespace hepops::core {

// What a formula needs of a number beside core/math.h.
template <class T>
HEPOPS_HD T select(bool condition, const T& a, const T& b) {
  return condition ? a : b;
}
HEPOPS_HD bool any(bool condition) { return condition; }

// sin and cos for |x| <= 3 pi / 4, without the tables that large arguments need: x = n pi / 2 + r, |n| <= 1
template <class T>
HEPOPS_HD void sin_cos_by_series(const T& x, T& sine, T& cosine) {
  constexpr double quarter = std::numbers::pi / 4, high = 0x1.921fb54442d18p+0, low = 0x1.1a62633145c07p-54;
  const auto above = x > T(quarter), below = x < T(-quarter);
  const T n = select(above, T(1.0), select(below, T(-1.0), T(0.0)));
  const T r = (x - n * T(high)) - n * T(low), z = r * r;
  const T s = r + r * z *
                      (-1.66666666666666307295e-1 +
                       z * (8.33333333332211858878e-3 +
                            z * (-1.98412698295895385996e-4 +
                                 z * (2.75573136213857245213e-6 +
                                      z * (-2.50507477628578072866e-8 + z * 1.58962301576546568060e-10)))));
  const T c = 1.0 - 0.5 * z +
              z * z *
                  (4.16666666666665929218e-2 +
                   z * (-1.38888888888730564116e-3 +
                        z * (2.48015872888517045348e-5 +
                             z * (-2.75573141792967388112e-7 +
                                  z * (2.08757008419747316778e-9 - z * 1.13585365213876817300e-11)))));
  sine = select(above, c, select(below, -c, s));
  cosine = select(above, -s, select(below, s, c));
}

HEPOPS_HD void sin_cos_half_turn(double x, double& sine, double& cosine) { sin_cos_by_series(x, sine, cosine); }

template <class T, int N>
HEPOPS_HD void sin_cos_half_turn(const Dual<T, N>& x, Dual<T, N>& sine, Dual<T, N>& cosine) {
  T s, c;
  sin_cos_half_turn(x.value, s, c);
  sine = Dual<T, N>::chain(s, c, x);
  cosine = Dual<T, N>::chain(c, -s, x);
}

#ifndef __CUDACC__

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // every function here is inlined: nothing is passed

#if defined(__AVX512F__)
constexpr int pack_bytes = 64;
#elif defined(__AVX__)
constexpr int pack_bytes = 32;
#else
constexpr int pack_bytes = 16;
#endif

template <class R>  // float or double
struct PackedOf {
  using B = series::Binary<R>;
  using Int = typename B::Int;
  static constexpr int size = pack_bytes / int(sizeof(R));
  typedef R Values __attribute__((vector_size(pack_bytes)));
  typedef Int Bits __attribute__((vector_size(pack_bytes)));
  template <class S>
  struct As {
    typedef S type __attribute__((vector_size(pack_bytes / sizeof(R) * sizeof(S))));
  };
  Values v;

  struct Mask {
    Bits bits;  // all ones or all zeros
    HEPOPS_HD friend Mask operator&(Mask a, Mask b) { return {a.bits & b.bits}; }
    HEPOPS_HD friend Mask operator|(Mask a, Mask b) { return {a.bits | b.bits}; }
    HEPOPS_HD friend Mask operator!(Mask a) { return {~a.bits}; }
    HEPOPS_HD friend bool any(Mask a) {
      Int some = 0;
      for (int i = 0; i < size; ++i) some |= a.bits[i];
      return some != 0;
    }
  };

  PackedOf() = default;
  HEPOPS_HD PackedOf(Values v) : v(v) {}
  HEPOPS_HD PackedOf(double x) : v(R(x) - Values{}) {}  // x - 0 is x, its sign and all
  HEPOPS_HD static Bits all(Int k) { return k - Bits{}; }

  // `size` numbers side by side, of double, float or a half, from and to any address
  template <class S>
  HEPOPS_HD static PackedOf load(const S* from) {
    PackedOf x;
    if constexpr (std::is_floating_point_v<S>) {
      typename As<S>::type stored;
      __builtin_memcpy(&stored, from, sizeof(stored));
      x.v = __builtin_convertvector(stored, Values);
    } else {
      for (int i = 0; i < size; ++i) x.v[i] = R(float(from[i]));
    }
    return x;
  }
  template <class S>
  HEPOPS_HD void store(S* to) const {
    if constexpr (std::is_floating_point_v<S>) {
      const auto stored = __builtin_convertvector(v, typename As<S>::type);
      __builtin_memcpy(to, &stored, sizeof(stored));
    } else {
      for (int i = 0; i < size; ++i) to[i] = S(float(v[i]));
    }
  }

  HEPOPS_HD friend PackedOf operator-(PackedOf a) { return -a.v; }
  HEPOPS_HD friend PackedOf operator+(PackedOf a, PackedOf b) { return a.v + b.v; }
  HEPOPS_HD friend PackedOf operator-(PackedOf a, PackedOf b) { return a.v - b.v; }
  HEPOPS_HD friend PackedOf operator*(PackedOf a, PackedOf b) { return a.v * b.v; }
  HEPOPS_HD friend PackedOf operator/(PackedOf a, PackedOf b) { return a.v / b.v; }
  HEPOPS_HD PackedOf& operator+=(PackedOf b) { return v += b.v, *this; }
  HEPOPS_HD PackedOf& operator-=(PackedOf b) { return v -= b.v, *this; }
  HEPOPS_HD PackedOf& operator*=(PackedOf b) { return v *= b.v, *this; }
  HEPOPS_HD friend Mask operator<(PackedOf a, PackedOf b) { return {a.v < b.v}; }
  HEPOPS_HD friend Mask operator>(PackedOf a, PackedOf b) { return {a.v > b.v}; }
  HEPOPS_HD friend Mask operator<=(PackedOf a, PackedOf b) { return {a.v <= b.v}; }
  HEPOPS_HD friend Mask operator>=(PackedOf a, PackedOf b) { return {a.v >= b.v}; }
  HEPOPS_HD friend Mask operator==(PackedOf a, PackedOf b) { return {a.v == b.v}; }
  HEPOPS_HD friend Mask operator!=(PackedOf a, PackedOf b) { return {a.v != b.v}; }

  HEPOPS_HD friend PackedOf select(Mask condition, PackedOf a, PackedOf b) { return condition.bits ? a.v : b.v; }
  HEPOPS_HD friend PackedOf abs(PackedOf a) { return Values((Bits)a.v & all(std::numeric_limits<Int>::max())); }
  HEPOPS_HD friend PackedOf min(PackedOf a, PackedOf b) { return b.v < a.v ? b.v : a.v; }
  HEPOPS_HD friend PackedOf max(PackedOf a, PackedOf b) { return a.v < b.v ? b.v : a.v; }
  HEPOPS_HD friend PackedOf sqrt(PackedOf a) {
    PackedOf root;
    for (int i = 0; i < size; ++i) root.v[i] = std::sqrt(a.v[i]);
    return root;
  }
  // to the nearest integer, where it is small
  HEPOPS_HD friend PackedOf nearest(PackedOf a) { return (a.v + B::round) - B::round; }

  HEPOPS_HD friend PackedOf exp(PackedOf x) {
    const PackedOf bounded = select(x < B::exp_least, B::exp_least, select(x > B::exp_most, B::exp_most, x));
    const Values shifted = bounded.v * R(0x1.71547652b82fep0) + B::round, k = shifted - B::round;
    const Values r = (bounded.v - k * B::ln2_high) - k * B::ln2_low;
    const Bits power = (Bits)shifted - (Bits)PackedOf(B::round).v, half = power >> 1;
    return (1 + exp_tail(r)) * (Values)((half + B::exponent_bias) << B::mantissa_bits) *
           (Values)((power - half + B::exponent_bias) << B::mantissa_bits);
  }

  HEPOPS_HD friend PackedOf expm1(PackedOf x) {
    const PackedOf small = exp_tail(x.v);
    return select(abs(x) < 0.35, small, exp(x) - 1.0);
  }

  HEPOPS_HD friend PackedOf log1p(PackedOf u) {
    const PackedOf y = 1.0 + u, lost = (u - (y - 1.0)) / y;
    return ends(y, log_of_normal(y, lost));
  }

  HEPOPS_HD friend PackedOf log(PackedOf x) {
    const Mask tiny = x < double(std::numeric_limits<R>::min());
    const PackedOf result = log_of_normal(select(tiny, x * 0x1p54, x), 0.0);
    return ends(x, select(tiny, result - 54 * std::numbers::ln2, result));
  }

  HEPOPS_HD friend PackedOf atan2(PackedOf y, PackedOf x) {
    const PackedOf a = abs(y), b = abs(x);
    const Mask steep = a > b;
    const PackedOf above = select(steep, b, a), below = select(steep, a, b);
    const PackedOf t = select(below == 0.0, below, above / below);
    const Mask far = t > 0.66;
    const PackedOf r = select(far, (t - 1.0) / (t + 1.0), t), angle_of_r = atan_series(r);
    const PackedOf angle = select(far, (std::numbers::pi / 4) + angle_of_r, angle_of_r);
    const PackedOf first = select(steep, (std::numbers::pi / 2) - angle, angle);
    const PackedOf half = select(x < 0.0, std::numbers::pi - first, first);
    return Values((Bits)half.v | ((Bits)y.v & all(std::numeric_limits<Int>::min())));
  }

  HEPOPS_HD friend void sin_cos_half_turn(PackedOf x, PackedOf& sine, PackedOf& cosine) {
    sin_cos_by_series(x, sine, cosine);
  }

 private:
  // e^r - 1 for |r| < 0.35
  HEPOPS_HD static Values exp_tail(Values r) {
    Values tail = 1 / R(5040) - Values{};
    if constexpr (std::is_same_v<R, double>)
      tail +=
          r * (1 / 40320. +
               r * (1 / 362880. + r * (1 / 3628800. + r * (1 / 39916800. + r * (1 / 479001600. + r / 6227020800.)))));
    return r * (1 + r * (1 / R(2) + r * (1 / R(6) + r * (1 / R(24) + r * (1 / R(120) + r * (1 / R(720) + r * tail))))));
  }

  // ln(m) = f - f^2/2 + s (f^2/2 + R(s^2)), as in elementary.h
  HEPOPS_HD static Values log_series(Values z) {
    if constexpr (std::is_same_v<R, float>)
      return z * (0.66666662693f + z * (0.40000972152f + z * (0.28498786688f + z * 0.24279078841f)));
    else
      return z * (6.666666666666735130e-01 +
                  z * (3.999999999940941908e-01 +
                       z * (2.857142874366239149e-01 +
                            z * (2.222219843214978396e-01 +
                                 z * (1.818357216161805012e-01 +
                                      z * (1.531383769920937332e-01 + z * 1.479819860511658591e-01))))));
  }

  // of a positive normal number
  HEPOPS_HD static PackedOf log_of_normal(PackedOf y, PackedOf lost) {
    constexpr Int one = Int(B::exponent_bias) << B::mantissa_bits, mantissa = (Int(1) << B::mantissa_bits) - 1;
    const Bits bits = (Bits)y.v + (one - B::root_half);
    const Bits power = (bits >> B::mantissa_bits) - B::exponent_bias;
    const Values k = (Values)((Bits)PackedOf(B::round).v + power) - B::round;
    const Values f = (Values)((bits & mantissa) + B::root_half) - 1;
    const Values s = f / (2 + f), half_square = f * f / 2, series = log_series(s * s);
    return k * B::ln2_high + (f - (half_square - (s * (half_square + series) + (k * B::ln2_low + lost.v))));
  }

  // What the logarithm is at 0, below and at infinity.
  HEPOPS_HD static PackedOf ends(PackedOf y, PackedOf result) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const PackedOf below = select(y == 0.0, -infinity, std::numeric_limits<double>::quiet_NaN());
    return select(y < infinity, select(y > 0.0, result, below), y);
  }

  HEPOPS_HD static PackedOf atan_series(PackedOf x) {
    const PackedOf z = x * x;
    const PackedOf P =
        -6.485021904942025371773e1 +
        z * (-1.228866684490136173410e2 +
             z * (-7.500855792314704667340e1 + z * (-1.615753718733365076637e1 + z * -8.750608600031904122785e-1)));
    const PackedOf Q =
        1.945506571482613964425e2 +
        z * (4.853903996359136964868e2 +
             z * (4.328810604912902668951e2 + z * (1.650270098316988542046e2 + z * (2.485846490142306297962e1 + z))));
    return x + x * (z * P / Q);
  }
};

using Packed = PackedOf<double>;

// One stage of a transposition of size x size numbers: squares of `step` change places across the diagonal.
template <int step, class Values, int... lane>
HEPOPS_HD void exchange(Values* row, std::integer_sequence<int, lane...>) {
  constexpr int size = sizeof...(lane);
  if constexpr (step < size) {
#pragma GCC unroll 16
    for (int i = 0; i < size; ++i) {
      if (i & step) continue;
      const Values a = row[i], b = row[i + step];
      row[i] = __builtin_shufflevector(a, b, (lane & step ? size + lane - step : lane)...);
      row[i + step] = __builtin_shufflevector(a, b, (lane & step ? size + lane : lane + step)...);
    }
  }
}

// load(n) gives the rows of a square, store(n, pack) takes its columns
template <class P, class Load, class Store>
[[gnu::always_inline]] inline void transpose(const Load& load, const Store& store) {
  typename P::Values row[P::size];
  constexpr std::make_integer_sequence<int, P::size> lanes;
#pragma GCC unroll 16
  for (int n = 0; n < P::size; ++n) row[n] = load(n).v;
  exchange<1>(row, lanes);
  exchange<2>(row, lanes);
  exchange<4>(row, lanes);
  exchange<8>(row, lanes);
#pragma GCC unroll 16
  for (int n = 0; n < P::size; ++n) store(n, P(row[n]));
}

// Numbers that lie in turn (a0 b0 a1 b1 ...) in two packs, apart and back together.
template <class P, int... lane>
HEPOPS_HD void apart(P& a, P& b, std::integer_sequence<int, lane...>) {
  const auto first = a.v, second = b.v;
  a.v = __builtin_shufflevector(first, second, (2 * lane)...);
  b.v = __builtin_shufflevector(first, second, (2 * lane + 1)...);
}
template <class P, int... lane>
HEPOPS_HD void in_turn(P& a, P& b, std::integer_sequence<int, lane...>) {
  constexpr int size = P::size;
  const auto first = a.v, second = b.v;
  a.v = __builtin_shufflevector(first, second, (lane / 2 + (lane % 2) * size)...);
  b.v = __builtin_shufflevector(first, second, (size / 2 + lane / 2 + (lane % 2) * size)...);
}

#pragma GCC diagnostic pop

#endif

HEPOPS_HD double nearest(double a) { return (a + 0x1.8p52) - 0x1.8p52; }

template <class T, int N>
HEPOPS_HD Dual<T, N> nearest(const Dual<T, N>& a) {
  return nearest(a.value);
}

}  // namespace hepops::core
