#pragma once
// A convolution on a periodic lattice, followed by an activation A:
//
//   y_o(x) = A(a_o(x)),   a_o(x) = b_o + sum_i sum_k W_oik s_i(x + k - h),   h = (K - 1) / 2 in every direction
//
// Its backward, with g = A' dL/dy:
//   dL/ds_i(x) = sum_o sum_k W_oik g_o(x - k + h)        the same sum, with W transposed and mirrored
//   dL/dW_oik  = sum_x g_o(x) s_i(x + k - h),            dL/db_o = sum_x g_o(x)
//
// This file holds the law for one number at a time: the GPU's form, and the oracle of convolve_cpu.h.
#include "core/math.h"
#include "core/packed.h"
#include "lattice/geometry.h"

namespace hepops::lattice {

using core::abs, core::exp, core::expm1, core::max, core::min, core::tanh, core::select;

enum class Activation : int { none, leaky_relu, tanh, silu };
constexpr int activations = 4;
constexpr double leaky_slope = 0.01;  // torch's

#ifndef __CUDACC__
// x P(x^2) / Q(x^2) within 5 ulp for floats, after Eigen 3.4 (MathFunctionsImpl.h, generic_fast_tanh_float)
HEPOPS_HD core::PackedOf<float> tanh(core::PackedOf<float> x) {
  using P = core::PackedOf<float>;
  const P most = 7.90531110763549805, c = max(-most, min(most, x)), z = c * c;
  const P p = 4.89352455891786e-3 +
              z * (6.37261928875436e-4 +
                   z * (1.48572235717979e-5 +
                        z * (5.12229709037114e-8 +
                             z * (-8.60467152213735e-11 + z * (2.00018790482477e-13 + z * -2.76076847742355e-16)))));
  const P q = 4.89352518554385e-3 + z * (2.26843463243900e-3 + z * (1.18534705686654e-4 + z * 1.19825839466702e-6));
  return select(x == x, c * p / q, x);
}

// -e / (2 + e) with e = e^{-2|x|} - 1, and the sign of x
HEPOPS_HD core::PackedOf<double> tanh(core::PackedOf<double> x) {
  const auto e = expm1(-2.0 * abs(x)), t = -e / (2.0 + e);
  return select(x < 0.0, -t, t);
}
#endif

template <class T>
HEPOPS_HD T activate(Activation activation, T a) {
  switch (activation) {
    case Activation::leaky_relu: return select(a > T(0), a, a * T(leaky_slope));
    case Activation::tanh: return tanh(a);
    case Activation::silu: return a / (T(1) + exp(-a));
    default: return a;
  }
}

// A'(a), from A(a) where that is enough, and from a for silu
template <class T>
HEPOPS_HD T activation_slope(Activation activation, T at) {
  switch (activation) {
    case Activation::leaky_relu: return select(at > T(0), T(1), T(leaky_slope));
    case Activation::tanh: return T(1) - at * at;
    case Activation::silu: {
      const T e = exp(-at), s = T(1) / (T(1) + e);
      return s * (T(1) + at * (T(1) - s));
    }
    default: return T(1);
  }
}

// The sizes of a convolution: of the lattice, the kernel and the channels.
struct Shape {
  Lattice lattice;
  int64_t kernel[most_dims] = {1, 1, 1, 1};
  int64_t in = 1, out = 1;

  HEPOPS_HD int64_t taps() const {
    int64_t n = 1;
    for (int mu = 0; mu < lattice.dims; ++mu) n *= kernel[mu];
    return n;
  }
  // The site of x + k - h, or x - k + h, for the tap k.
  HEPOPS_HD int64_t at(int64_t site, int64_t tap, bool mirrored) const {
    int64_t moved = 0;
    for (int mu = lattice.dims - 1; mu >= 0; --mu) {
      const int64_t L = lattice.extent[mu], k = tap % kernel[mu] - kernel[mu] / 2;
      tap /= kernel[mu];
      const int64_t x = (lattice.coordinate(site, mu) + (mirrored ? -k : k)) % L;
      moved += (x < 0 ? x + L : x) * lattice.stride[mu];
    }
    return moved;
  }
};

// y of configuration, channel and site number i. `transposed`: from the gradient of y to that of s.
template <class T>
struct ConvolveOne {
  Shape shape;
  const T *s, *weight, *bias;  // bias may be null
  T* y;
  Activation activation;
  bool transposed;

  HEPOPS_HD void operator()(int64_t i) const {
    const int64_t V = shape.lattice.sites, site = i % V, taps = shape.taps();
    const int64_t in = transposed ? shape.out : shape.in, out = transposed ? shape.in : shape.out;
    const int64_t o = i / V % out, b = i / V / out;
    T sum = bias ? bias[o] : T(0);
    for (int64_t c = 0; c < in; ++c)
      for (int64_t k = 0; k < taps; ++k) {
        const T w = transposed ? weight[(c * out + o) * taps + k] : weight[(o * in + c) * taps + k];
        sum += w * s[(b * in + c) * V + shape.at(site, k, transposed)];
      }
    y[i] = activate(activation, sum);
  }
};

// Part p of the sums over configurations and sites that are dL/dW and dL/db, in double: parts[p][number].
template <class T>
struct WeightGradient {
  Shape shape;
  int64_t batch, parts;
  const T *g, *s;
  double* sums;

  HEPOPS_HD int64_t numbers() const { return shape.out * shape.in * shape.taps() + shape.out; }
  HEPOPS_HD void operator()(int64_t i) const {
    const int64_t V = shape.lattice.sites, taps = shape.taps(), weights = shape.out * shape.in * taps;
    const int64_t n = i % numbers(), p = i / numbers();
    const int64_t o = n < weights ? n / (shape.in * taps) : n - weights, c = n / taps % shape.in, k = n % taps;
    double sum = 0;
    for (int64_t b = p * batch / parts; b < (p + 1) * batch / parts; ++b)
      for (int64_t x = 0; x < V; ++x) {
        const double here = double(g[(b * shape.out + o) * V + x]);
        sum += n < weights ? here * double(s[(b * shape.in + c) * V + shape.at(x, k, false)]) : here;
      }
    sums[i] = sum;
  }
};

// Number n of all: the sum of its parts, one after the other.
template <class T>
struct AddParts {
  int64_t numbers, parts;
  const double* sums;
  T* total;

  HEPOPS_HD void operator()(int64_t n) const {
    double sum = 0;
    for (int64_t p = 0; p < parts; ++p) sum += sums[p * numbers + n];
    total[n] = T(sum);
  }
};

}  // namespace hepops::lattice
