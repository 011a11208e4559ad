#pragma once
// A few doubles that are one to the formula which uses them: a SIMD register, as wide as the level that a file is
// compiled for. A formula that is a template on its number, and chooses by select instead of by if, runs on a Doubles
// (the CPU), on a double (a GPU, a test) and on a Dual (its derivatives) from one text.
//
//   select(condition, a, b)   a where it holds, else b         any(condition)   whether it holds anywhere
//
// The functions below are polynomials, within 2 ulp of the correct value (expm1: 5; tests/core/test_doubles.cpp), with
// the standard's infinities and NaN:
//   exp, log, log1p, expm1   as elementary.h has them (the last: the Taylor series below ln 2 / 2)
//   atan2                    S. L. Moshier, Cephes 2.8 (2000), atan.c: x + x^3 P(x^2) / Q(x^2) below 0.66
//   sin_cos_half_turn        Cephes, sin.c, for |x| <= 3 pi / 4
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

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
constexpr int doubles_size = 8;
#elif defined(__AVX__)
constexpr int doubles_size = 4;
#else
constexpr int doubles_size = 2;
#endif

struct Doubles {
  typedef double Values __attribute__((vector_size(doubles_size * 8)));
  typedef int64_t Bits __attribute__((vector_size(doubles_size * 8)));
  static constexpr int size = doubles_size;
  Values v;

  struct Mask {
    Bits bits;  // all ones or all zeros
    HEPOPS_HD friend Mask operator&(Mask a, Mask b) { return {a.bits & b.bits}; }
    HEPOPS_HD friend Mask operator|(Mask a, Mask b) { return {a.bits | b.bits}; }
    HEPOPS_HD friend Mask operator!(Mask a) { return {~a.bits}; }
    HEPOPS_HD friend bool any(Mask a) {
      int64_t some = 0;
      for (int i = 0; i < size; ++i) some |= a.bits[i];
      return some != 0;
    }
  };

  Doubles() = default;
  HEPOPS_HD Doubles(Values v) : v(v) {}
  HEPOPS_HD Doubles(double x) : v(x - Values{}) {}  // x - 0 is x, its sign and all
  HEPOPS_HD static Bits all(int64_t k) { return k - Bits{}; }

  HEPOPS_HD friend Doubles operator-(Doubles a) { return -a.v; }
  HEPOPS_HD friend Doubles operator+(Doubles a, Doubles b) { return a.v + b.v; }
  HEPOPS_HD friend Doubles operator-(Doubles a, Doubles b) { return a.v - b.v; }
  HEPOPS_HD friend Doubles operator*(Doubles a, Doubles b) { return a.v * b.v; }
  HEPOPS_HD friend Doubles operator/(Doubles a, Doubles b) { return a.v / b.v; }
  HEPOPS_HD Doubles& operator+=(Doubles b) { return v += b.v, *this; }
  HEPOPS_HD Doubles& operator-=(Doubles b) { return v -= b.v, *this; }
  HEPOPS_HD Doubles& operator*=(Doubles b) { return v *= b.v, *this; }
  HEPOPS_HD friend Mask operator<(Doubles a, Doubles b) { return {a.v < b.v}; }
  HEPOPS_HD friend Mask operator>(Doubles a, Doubles b) { return {a.v > b.v}; }
  HEPOPS_HD friend Mask operator<=(Doubles a, Doubles b) { return {a.v <= b.v}; }
  HEPOPS_HD friend Mask operator>=(Doubles a, Doubles b) { return {a.v >= b.v}; }
  HEPOPS_HD friend Mask operator==(Doubles a, Doubles b) { return {a.v == b.v}; }
  HEPOPS_HD friend Mask operator!=(Doubles a, Doubles b) { return {a.v != b.v}; }

  HEPOPS_HD friend Doubles select(Mask condition, Doubles a, Doubles b) { return condition.bits ? a.v : b.v; }
  HEPOPS_HD friend Doubles abs(Doubles a) { return Values((Bits)a.v & all(std::numeric_limits<int64_t>::max())); }
  HEPOPS_HD friend Doubles min(Doubles a, Doubles b) { return b.v < a.v ? b.v : a.v; }
  HEPOPS_HD friend Doubles max(Doubles a, Doubles b) { return a.v < b.v ? b.v : a.v; }
  HEPOPS_HD friend Doubles sqrt(Doubles a) {
    Doubles root;
    for (int i = 0; i < size; ++i) root.v[i] = __builtin_sqrt(a.v[i]);
    return root;
  }
  // to the nearest integer, for |a| < 2^51
  HEPOPS_HD friend Doubles nearest(Doubles a) { return (a.v + 0x1.8p52) - 0x1.8p52; }

  HEPOPS_HD friend Doubles exp(Doubles x) {
    using B = series::Binary<double>;
    const Doubles bounded = select(x < B::exp_least, B::exp_least, select(x > B::exp_most, B::exp_most, x));
    const Values shifted = bounded.v * 0x1.71547652b82fep0 + B::round, k = shifted - B::round;
    const Values r = (bounded.v - k * B::ln2_high) - k * B::ln2_low;
    const Bits power = (Bits)shifted - (Bits)Doubles(B::round).v, half = power >> 1;
    return (1 + exp_tail(r)) * (Values)((half + B::exponent_bias) << B::mantissa_bits) *
           (Values)((power - half + B::exponent_bias) << B::mantissa_bits);
  }

  HEPOPS_HD friend Doubles expm1(Doubles x) {
    const Doubles small = exp_tail(x.v);
    return select(abs(x) < 0.35, small, exp(x) - 1.0);
  }

  HEPOPS_HD friend Doubles log1p(Doubles u) {
    const Doubles y = 1.0 + u, lost = (u - (y - 1.0)) / y;
    return ends(y, log_of_normal(y, lost));
  }

  HEPOPS_HD friend Doubles log(Doubles x) {
    const Mask tiny = x < std::numeric_limits<double>::min();
    const Doubles result = log_of_normal(select(tiny, x * 0x1p54, x), 0.0);
    return ends(x, select(tiny, result - 54 * std::numbers::ln2, result));
  }

  HEPOPS_HD friend Doubles atan2(Doubles y, Doubles x) {
    const Doubles a = abs(y), b = abs(x);
    const Mask steep = a > b;
    const Doubles above = select(steep, b, a), below = select(steep, a, b);
    const Doubles t = select(below == 0.0, below, above / below);
    const Mask far = t > 0.66;
    const Doubles r = select(far, (t - 1.0) / (t + 1.0), t);
    const Doubles angle = select(far, (std::numbers::pi / 4) + atan_series(r), atan_series(r));
    const Doubles first = select(steep, (std::numbers::pi / 2) - angle, angle);
    const Doubles half = select(x < 0.0, std::numbers::pi - first, first);
    return Values((Bits)half.v | ((Bits)y.v & all(std::numeric_limits<int64_t>::min())));
  }

  HEPOPS_HD friend void sin_cos_half_turn(Doubles x, Doubles& sine, Doubles& cosine) {
    sin_cos_by_series(x, sine, cosine);
  }

 private:
  // e^r - 1 for |r| < 0.35
  HEPOPS_HD static Values exp_tail(Values r) {
    const Values tail =
        1 / 5040. +
        r * (1 / 40320. +
             r * (1 / 362880. + r * (1 / 3628800. + r * (1 / 39916800. + r * (1 / 479001600. + r / 6227020800.)))));
    return r * (1 + r * (1 / 2. + r * (1 / 6. + r * (1 / 24. + r * (1 / 120. + r * (1 / 720. + r * tail))))));
  }

  // of a positive normal number; the method of series::log1p
  HEPOPS_HD static Doubles log_of_normal(Doubles y, Doubles lost) {
    using B = series::Binary<double>;
    constexpr int64_t one = int64_t(B::exponent_bias) << B::mantissa_bits,
                      mantissa = (int64_t(1) << B::mantissa_bits) - 1;
    const Bits bits = (Bits)y.v + (one - B::root_half);
    const Bits power = (bits >> B::mantissa_bits) - B::exponent_bias;
    const Values k = (Values)((Bits)Doubles(B::round).v + power) - B::round;
    const Values f = (Values)((bits & mantissa) + B::root_half) - 1;
    const Values s = f / (2 + f), half_square = f * f / 2, z = s * s;
    const Values R = z * (6.666666666666735130e-01 +
                          z * (3.999999999940941908e-01 +
                               z * (2.857142874366239149e-01 +
                                    z * (2.222219843214978396e-01 +
                                         z * (1.818357216161805012e-01 +
                                              z * (1.531383769920937332e-01 + z * 1.479819860511658591e-01))))));
    return k * B::ln2_high + (f - (half_square - (s * (half_square + R) + (k * B::ln2_low + lost.v))));
  }

  // What the logarithm is at 0, below and at infinity.
  HEPOPS_HD static Doubles ends(Doubles y, Doubles result) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const Doubles below = select(y == 0.0, -infinity, std::numeric_limits<double>::quiet_NaN());
    return select(y < infinity, select(y > 0.0, result, below), y);
  }

  HEPOPS_HD static Doubles atan_series(Doubles x) {
    const Doubles z = x * x;
    const Doubles P =
        -6.485021904942025371773e1 +
        z * (-1.228866684490136173410e2 +
             z * (-7.500855792314704667340e1 + z * (-1.615753718733365076637e1 + z * -8.750608600031904122785e-1)));
    const Doubles Q =
        1.945506571482613964425e2 +
        z * (4.853903996359136964868e2 +
             z * (4.328810604912902668951e2 + z * (1.650270098316988542046e2 + z * (2.485846490142306297962e1 + z))));
    return x + x * (z * P / Q);
  }
};

#pragma GCC diagnostic pop

#endif

HEPOPS_HD double nearest(double a) { return (a + 0x1.8p52) - 0x1.8p52; }

template <class T, int N>
HEPOPS_HD Dual<T, N> nearest(const Dual<T, N>& a) {
  return nearest(a.value);
}

}  // namespace hepops::core
