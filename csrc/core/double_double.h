#pragma once
// A number as the sum of two doubles, high + low with |low| <= ulp(high) / 2: about 32 digits.
//
//   two_sum   a + b = s + e exactly      (Knuth; 6 operations, for any a and b)
//   two_prod  a b = p + e exactly        (one fma)
//
// T. J. Dekker, Numer. Math. 18 (1971) 224; relative errors of the sums and products below (2 to 5 times 2^-106) are
// proved in M. Joldes, J.-M. Muller, V. Popescu, ACM Trans. Math. Softw. 44 (2017) 15, algorithms 4, 6, 9, 12.
// Exact but where a step overflows, or a product's error underflows (below 2^-969).
#include <cstdint>

#include "core/math.h"
#include "core/rounded.h"

namespace hepops::core {

struct DoubleDouble {
  double high = 0, low = 0;

  DoubleDouble() = default;
  HEPOPS_HD DoubleDouble(double x) : high(x), low(0) {}
  HEPOPS_HD DoubleDouble(double high, double low) : high(high), low(low) {}
  HEPOPS_HD explicit operator double() const { return high; }  // high is the sum, rounded
};

HEPOPS_HD DoubleDouble two_sum(double a, double b) {
  const double s = rounded_sum(a, b), b_seen = rounded_sum(s, -a), a_seen = rounded_sum(s, -b_seen);
  return {s, rounded_sum(rounded_sum(a, -a_seen), rounded_sum(b, -b_seen))};
}

// where |a| >= |b|, or a is 0
HEPOPS_HD DoubleDouble quick_two_sum(double a, double b) {
  const double s = rounded_sum(a, b);
  return {s, rounded_sum(b, -rounded_sum(s, -a))};
}

HEPOPS_HD DoubleDouble two_prod(double a, double b) {
  const double p = rounded_product(a, b);
  return {p, fma(a, b, -p)};
}

HEPOPS_HD DoubleDouble operator-(const DoubleDouble& a) { return {-a.high, -a.low}; }

// algorithm 4
HEPOPS_HD DoubleDouble operator+(const DoubleDouble& a, double b) {
  const DoubleDouble s = two_sum(a.high, b);
  return quick_two_sum(s.high, rounded_sum(a.low, s.low));
}

// algorithm 6: holds its bound under cancellation too
HEPOPS_HD DoubleDouble operator+(const DoubleDouble& a, const DoubleDouble& b) {
  const DoubleDouble s = two_sum(a.high, b.high), t = two_sum(a.low, b.low);
  const DoubleDouble v = quick_two_sum(s.high, rounded_sum(s.low, t.high));
  return quick_two_sum(v.high, rounded_sum(t.low, v.low));
}

HEPOPS_HD DoubleDouble operator-(const DoubleDouble& a, const DoubleDouble& b) { return a + -b; }

// algorithm 9
HEPOPS_HD DoubleDouble operator*(const DoubleDouble& a, double b) {
  const DoubleDouble p = two_prod(a.high, b);
  return quick_two_sum(p.high, fma(a.low, b, p.low));
}

// algorithm 12
HEPOPS_HD DoubleDouble operator*(const DoubleDouble& a, const DoubleDouble& b) {
  const DoubleDouble p = two_prod(a.high, b.high);
  const double rest = fma(a.low, b.high, fma(a.high, b.low, rounded_product(a.low, b.low)));
  return quick_two_sum(p.high, rounded_sum(p.low, rest));
}

// x[0] + ... + x[n - 1]
template <class T>
HEPOPS_HD DoubleDouble accurate_sum(const T* x, int64_t n) {
  DoubleDouble total;
  for (int64_t i = 0; i < n; ++i) total = total + double(x[i]);
  return total;
}

}  // namespace hepops::core
