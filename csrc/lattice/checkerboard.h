#pragma once
// An affine coupling on a checkerboard, with its convolutional conditioner, as one operation:
//
//   active sites    y = x e^s + t,   s = S(raw_s(f)), t = raw_t(f)    f: x at the frozen sites, 0 at the active ones
//   frozen ones     y = x,           ln |det| = sum over active sites of s
//   S(r) = r, or m tanh(r / m) for a limit m
//
// Conditioner: h_0 = f, h_l = A(W_l * h_{l-1} + b_l), then (raw_s, raw_t) = W * h + b. The odd form, for actions that
// do not change under x -> -x, has no biases but that of s, an odd A, and raw_s = W_s * h^2 + b_s, raw_t = W_t * h, so
// that s is even and t is odd in f, to the last bit.
//
// Parameters lie in one tensor: W_1, b_1, W_2, ... ; the last layer's W has s's channel first.
// Backward, with G = dL/dy, g = dL/d ln|det|:
//   dL/dx = G e^s,  dL/dt = G,  dL/ds = G (y - t) + g
// and of the inverse, x = (y - t) e^-s with log-determinant -sum s, where G = dL/dx:
//   dL/dy = G e^-s,  dL/dt = -G e^-s,  dL/ds = -G x - g
#include "lattice/convolve.h"

namespace hepops::lattice {

// What the coupling does to one active number, forward or inverse.
template <class T>
struct Coupled {
  T value, s;
};

template <class T>
HEPOPS_HD T limited(T raw, double limit) {
  return limit > 0 ? T(limit) * tanh(raw * T(1 / limit)) : raw;
}
template <class T>
HEPOPS_HD T limited_slope(T s, double limit) {
  return limit > 0 ? T(1) - (s * T(1 / limit)) * (s * T(1 / limit)) : T(1);
}

template <class T>
HEPOPS_HD Coupled<T> couple(T x, T raw_s, T t, double limit, bool inverse) {
  const T s = limited(raw_s, limit);
  return {inverse ? (x - t) * exp(-s) : x * exp(s) + t, s};
}

template <class T>
struct CoupledGradient {
  T x, raw_s, raw_t;
};

// x: what the coupling was given. G, g: the gradients of its value and of the log-determinant.
template <class T>
HEPOPS_HD CoupledGradient<T> couple_backward(T x, T raw_s, T t, T G, T g, double limit, bool inverse) {
  const T s = limited(raw_s, limit), slope = limited_slope(s, limit);
  if (inverse) {
    const T e = exp(-s), along = G * e;
    return {along, (-(along * (x - t)) - g) * slope, -along};
  }
  const T along = G * exp(s);
  return {along, (along * x + g) * slope, G};
}

// The sizes of a layer.
struct Board {
  Lattice lattice;
  int64_t kernel[most_dims] = {1, 1, 1, 1};
  int layers = 1;            // of the conditioner
  int64_t widths[16] = {1};  // channels between: 1, ..., 2
  int parity = 0;            // active sites have sum_mu x_mu = parity mod 2
  bool odd = false, inverse = false;
  Activation activation = Activation::none;
  double limit = 0;

  Shape shape(int layer) const {
    Shape s{lattice};
    for (int mu = 0; mu < lattice.dims; ++mu) s.kernel[mu] = kernel[mu];
    s.in = widths[layer], s.out = widths[layer + 1];
    return s;
  }
  int64_t weights(int layer) const { return widths[layer] * widths[layer + 1] * shape(layer).taps(); }
  int64_t biases(int layer) const { return !odd ? widths[layer + 1] : layer + 1 == layers ? 1 : 0; }
  int64_t first_weight(int layer) const {
    int64_t n = 0;
    for (int l = 0; l < layer; ++l) n += weights(l) + biases(l);
    return n;
  }
  int64_t first_bias(int layer) const { return first_weight(layer) + weights(layer); }
  int64_t parameters() const { return first_weight(layers); }
};

}  // namespace hepops::lattice
