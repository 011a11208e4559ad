#pragma once
// Complex numbers over any scalar, dual numbers included, laid out as torch lays out its own (real, imag).
// std::complex is no device type, and its product spends most of its time on infinities.
#include "core/math.h"

namespace hepops::core {

template <class T>
struct Complex {
  T real, imag;

  HEPOPS_HD Complex& operator+=(const Complex& b) { return *this = *this + b; }
  HEPOPS_HD Complex& operator-=(const Complex& b) { return *this = *this - b; }
  HEPOPS_HD Complex& operator*=(const Complex& b) { return *this = *this * b; }

  HEPOPS_HD friend Complex operator-(const Complex& a) { return {-a.real, -a.imag}; }
  HEPOPS_HD friend Complex operator+(const Complex& a, const Complex& b) { return {a.real + b.real, a.imag + b.imag}; }
  HEPOPS_HD friend Complex operator-(const Complex& a, const Complex& b) { return {a.real - b.real, a.imag - b.imag}; }
  HEPOPS_HD friend Complex operator*(const Complex& a, const Complex& b) {
    return {a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real};
  }
  HEPOPS_HD friend Complex operator*(const T& a, const Complex& b) { return {a * b.real, a * b.imag}; }
  HEPOPS_HD friend Complex operator*(const Complex& a, const T& b) { return b * a; }
  HEPOPS_HD friend Complex operator/(const Complex& a, const T& b) { return {a.real / b, a.imag / b}; }
  // a / b = a b* / |b|^2; |b|^2 must neither overflow nor underflow
  HEPOPS_HD friend Complex operator/(const Complex& a, const Complex& b) { return a * conj(b) / norm(b); }

  HEPOPS_HD friend bool operator==(const Complex& a, const Complex& b) { return a.real == b.real && a.imag == b.imag; }

  HEPOPS_HD friend Complex conj(const Complex& a) { return {a.real, -a.imag}; }
  HEPOPS_HD friend T norm(const Complex& a) { return a.real * a.real + a.imag * a.imag; }  // |a|^2, as std::norm
  HEPOPS_HD friend T abs(const Complex& a) { return sqrt(norm(a)); }
  HEPOPS_HD friend T arg(const Complex& a) { return atan2(a.imag, a.real); }

  // e^(x + i y) = e^x (cos y + i sin y)
  HEPOPS_HD friend Complex exp(const Complex& a) { return exp(a.real) * Complex{cos(a.imag), sin(a.imag)}; }
};

}  // namespace hepops::core
