#pragma once
// A Pack is V numbers that are computed with as one: a formula written for a number T runs on Pack<T, V> with the SIMD
// instructions of the level that a file is compiled for. Comparisons give a mask, `select` chooses.
//
// All is found by argument-dependent lookup. exp, log and log1p are series as in elementary.h: to 2 ulp, or for a Pack
// that is `brief` to 1.1e-10 of the value, where the result is to be rounded to float. NaN and infinity as they should
// be. Polynomials: Chebyshev fits (mpmath's chebyfit) of exp on |r| < ln2 / 2, of atanh(s) / s in z = s^2.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "core/simd.h"

namespace hepops::core {

template <class Bits>
struct Mask {
  Bits bits;
  [[gnu::always_inline]] friend Mask operator&(Mask a, Mask b) { return {a.bits & b.bits}; }
  [[gnu::always_inline]] friend Mask operator|(Mask a, Mask b) { return {a.bits | b.bits}; }
  [[gnu::always_inline]] friend Mask operator!(Mask a) { return {~a.bits}; }
  [[gnu::always_inline]] friend bool any(Mask a) {
    auto found = a.bits[0];
    for (size_t i = 1; i < sizeof(Bits) / sizeof(found); ++i) found |= a.bits[i];
    return found != 0;
  }
};

template <int V, bool brief = false>
struct Pack {
  static constexpr int lanes = V;
  using Vector = typename Simd<double, V>::type;
  using Bits = typename Simd<int64_t, V>::type;
  using Chosen = Mask<Bits>;
  Vector v;
#ifdef __AVX512F__
  static constexpr __mmask8 every = __mmask8(-1);
#endif

  Pack() = default;  // not initialised, as a double is not
  [[gnu::always_inline]] Pack(Vector x) : v(x) {}
  [[gnu::always_inline]] Pack(double x) : v(x - Vector{}) {}
  template <class S>
  [[gnu::always_inline]] static Pack load(const S* p) {
    return widened<S>(Simd<S, V>::load(p));
  }
  template <class S>
  [[gnu::always_inline]] void store(S* p) const {
    Simd<S, V>::store(p, narrowed<S>());
  }

  // Numbers of another type S. GCC 12 takes two halves for what is one instruction, and warns of that without a mask.
  template <class S>
  [[gnu::always_inline]] static Pack widened(typename Simd<S, V>::type x) {
#ifdef __AVX512F__
    if constexpr (std::is_same_v<S, float> && V == 8) return Vector(_mm512_maskz_cvtps_pd(every, x));
#endif
    return __builtin_convertvector(x, Vector);
  }
  template <class S>
  [[gnu::always_inline]] typename Simd<S, V>::type narrowed() const {
#ifdef __AVX512F__
    if constexpr (std::is_same_v<S, float> && V == 8) return _mm512_maskz_cvtpd_ps(every, v);
#endif
    return __builtin_convertvector(v, typename Simd<S, V>::type);
  }

  [[gnu::always_inline]] friend Pack operator-(Pack a) { return -a.v; }
  [[gnu::always_inline]] friend Pack operator+(Pack a, Pack b) { return a.v + b.v; }
  [[gnu::always_inline]] friend Pack operator-(Pack a, Pack b) { return a.v - b.v; }
  [[gnu::always_inline]] friend Pack operator*(Pack a, Pack b) { return a.v * b.v; }
  [[gnu::always_inline]] friend Pack operator/(Pack a, Pack b) { return a.v / b.v; }
  [[gnu::always_inline]] Pack& operator+=(Pack b) { return v += b.v, *this; }
  [[gnu::always_inline]] friend Chosen operator<(Pack a, Pack b) { return {a.v < b.v}; }
  [[gnu::always_inline]] friend Chosen operator>(Pack a, Pack b) { return {a.v > b.v}; }
  [[gnu::always_inline]] friend Chosen operator<=(Pack a, Pack b) { return {a.v <= b.v}; }
  [[gnu::always_inline]] friend Chosen operator>=(Pack a, Pack b) { return {a.v >= b.v}; }
  [[gnu::always_inline]] friend Chosen operator==(Pack a, Pack b) { return {a.v == b.v}; }
  [[gnu::always_inline]] friend Chosen operator!=(Pack a, Pack b) { return {a.v != b.v}; }
  [[gnu::always_inline]] friend Pack select(Chosen c, Pack a, Pack b) { return c.bits ? a.v : b.v; }

  [[gnu::always_inline]] friend Pack max(Pack a, Pack b) { return a.v < b.v ? b.v : a.v; }
  [[gnu::always_inline]] friend Pack min(Pack a, Pack b) { return b.v < a.v ? b.v : a.v; }
  [[gnu::always_inline]] friend Pack abs(Pack a) {
    return reinterpret_cast<Vector>(reinterpret_cast<Bits>(a.v) & std::numeric_limits<int64_t>::max());
  }
  [[gnu::always_inline]] friend Pack sqrt(Pack a) {
    Vector y;
    for (int i = 0; i < V; ++i) y[i] = std::sqrt(a.v[i]);
    return y;
  }
  template <class S>
  [[gnu::always_inline]] friend Pack round_to(S, Pack a) {
    return widened<S>(a.template narrowed<S>());
  }
  friend Pack fmod(Pack a, Pack b) {
    for (int i = 0; i < V; ++i) a.v[i] = std::fmod(a.v[i], b.v[i]);
    return a;
  }

  // 2^k e^r, k = round(x / ln 2), for x up to 709; below -708 it stays at e^-708
  [[gnu::always_inline]] friend Pack exp(Pack x) {
    constexpr double round = 0x1.8p52 + 1023;  // x + round has the nearest integer in its last bits, and 2^k's exponent
    const Vector bounded = max(x, Pack(-708.0)).v;
    const Vector shifted = bounded * 0x1.71547652b82fep0 + round, k = shifted - round;
    const Vector r =
        brief ? bounded - k * 0x1.62e42fefa39efp-1 : (bounded - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
    return exp_series(r) * reinterpret_cast<Vector>(reinterpret_cast<Bits>(shifted) << 52);
  }

  // x = 2^k m, m in [sqrt(1/2), sqrt(2)): k ln 2 + 2 atanh(s), s = (m - 1) / (m + 1)
  [[gnu::always_inline]] friend Pack log(Pack x) {
    constexpr int64_t root_half = 0x3fe6a09e667f3bcd, one = int64_t(1023) << 52, mantissa = (int64_t(1) << 52) - 1;
    constexpr double infinity = std::numeric_limits<double>::infinity(), round = 0x1.8p52;
    const Bits bits = reinterpret_cast<Bits>(x.v) + (one - root_half);
    const Bits whole = ((bits >> 52) - 1023) + std::bit_cast<int64_t>(round);
    const Vector k = reinterpret_cast<Vector>(whole) - round;
    const Vector f = reinterpret_cast<Vector>((bits & mantissa) + root_half) - 1.0;
    const Vector s = f / (f + 2.0), z = s * s;
    const Vector y = k * 0x1.62e42feep-1 + (2 * s * log_series(z) + k * 0x1.a39ef35793c76p-33);
    const Vector normal = x.v >= std::numeric_limits<double>::min() ? y : x.v == 0.0 ? Vector{} - infinity : y * NAN;
    return x.v < infinity ? normal : x.v;
  }

  // ln(1 + t) for t in [0, 1]: 2 atanh(s), s = t / (t + 2)
  [[gnu::always_inline]] friend Pack log1p_of_fraction(Pack t) {
    const Vector s = t.v / (t.v + 2.0), z = s * s;
    return 2 * s * log1p_series(z);
  }

 private:
  template <class... C>
  [[gnu::always_inline]] static Vector horner(Vector x, double first, C... rest) {
    if constexpr (sizeof...(rest) == 0)
      return Pack(first).v;
    else
      return horner(x, rest...) * x + first;
  }
  [[gnu::always_inline]] static Vector exp_series(Vector r) {
    if constexpr (brief)
      return horner(r, 0.9999999999595294, 0.9999999999955055, 0.5000000107793876, 0.1666666678638044,
                    0.041666218139710595, 0.008333283518768105, 0.0013948590286863383, 0.00019907582591325134);
    else
      return horner(r, 1, 1, 1 / 2., 1 / 6., 1 / 24., 1 / 120., 1 / 720., 1 / 5040., 1 / 40320., 1 / 362880.,
                    1 / 3628800., 1 / 39916800., 1 / 479001600., 1 / 6227020800.);
  }
  [[gnu::always_inline]] static Vector log_series(Vector z) {
    if constexpr (brief)
      return horner(z, 1.0000000000042009, 0.33333332620856193, 0.2000019292543696, 0.14267488127293454,
                    0.11808905679487959);
    else
      return horner(z, 1, 0.3333333333333333, 0.20000000000003773, 0.14285714284401557, 0.11111111339630612,
                    0.09090886777460622, 0.07693584421520037, 0.06624292878278355, 0.06631854983611397);
  }
  [[gnu::always_inline]] static Vector log1p_series(Vector z) {
    if constexpr (brief)
      return horner(z, 0.9999999999045031, 0.33333339513216986, 0.19999355623431167, 0.14310103704218619,
                    0.10699280253339272, 0.12196954042011512);
    else
      return horner(z, 1, 0.3333333333333333, 0.20000000000000134, 0.14285714285687826, 0.11111111113820867,
                    0.09090908926090614, 0.07692314110632321, 0.06666499760192586, 0.058853092776241546,
                    0.052274737577654315, 0.050490927343170296, 0.02892704498833825, 0.08036283067339135);
  }
};

}  // namespace hepops::core
