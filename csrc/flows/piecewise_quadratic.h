#pragma once
// A distribution function of a density that is linear in each of K bins of [0, 1] and continuous:
//
//   y = C_k + W_k (H_k u + (H_k+1 - H_k) u^2 / 2),   dy/dx = r = H_k + (H_k+1 - H_k) u,   u = (x - X_k) / W_k
//
// T. Mueller et al., Neural importance sampling, arXiv:1808.03856, section 4.2, with the floors of nflows:
//
//   W = m + (1 - m K) softmax(raw),   U = softplus(raw) + m,   H = m + (1 - m) U / A,   A = sum_j W_j (U_j + U_j+1) / 2
//
// m = 1e-3, so that sum_j W_j (H_j + H_j+1) / 2 = 1. Raw parameters: K of the widths, K + 1 of the heights.
#include "flows/bijection.h"
#include "flows/piecewise_linear.h"

namespace hepops::flows {

struct PiecewiseQuadratic {
  int bins;

  static constexpr double floor = 1e-3;

  HEPOPS_HD int slots() const { return 2 * bins + 2; }
  HEPOPS_HD double above_floor() const { return 1 - floor * bins; }

  // W, U, A
  template <class T>
  HEPOPS_HD void prepare(const Lane<T>& p) const {
    const T sum = exponentials(p, 0, bins);
    T area = T(0.0);
    p[bins] = softplus(p[bins]) + T(floor);
    for (int j = 0; j < bins; ++j) {
      p[j] = T(floor) + above_floor() * (p[j] / sum);
      p[bins + j + 1] = softplus(p[bins + j + 1]) + T(floor);
      area += 0.5 * p[j] * (p[bins + j] + p[bins + j + 1]);
    }
    p[2 * bins + 1] = area;
  }

  template <class T>
  HEPOPS_HD auto contains(const T& x, bool) const {
    return (x >= T(0.0)) & (x <= T(1.0));
  }

  // A bin: where it begins, its width, its heights.
  template <class T>
  struct Bin {
    T X, C, W, H, rise;

    HEPOPS_HD T area(const T& u) const { return u * (H + 0.5 * rise * u); }
    HEPOPS_HD T density(const T& u) const { return H + rise * u; }
    HEPOPS_HD T part(const T& x) const { return clamp((x - X) / W); }
  };

  template <class T>
  HEPOPS_HD T height(const Lane<T>& p, int j) const {
    return T(floor) + (1 - floor) * p[bins + j] / p[2 * bins + 1];
  }

  // The last bin that begins (in x, or in y) at or below v.
  template <class T>
  HEPOPS_HD Bin<T> find(const T& v, const Lane<T>& p, bool in_y) const {
    T X = T(0.0), C = T(0.0), left = height(p, 0);
    Bin<T> found{X, C, p[0], left, T(0.0)};
    for (int j = 0; j < bins; ++j) {
      const T right = height(p, j + 1), W = p[j];
      const auto here = v >= (in_y ? C : X);
      found.X = select(here, X, found.X);
      found.C = select(here, C, found.C);
      found.W = select(here, W, found.W);
      found.H = select(here, left, found.H);
      found.rise = select(here, right - left, found.rise);
      X += W;
      C += 0.5 * W * (left + right);
      left = right;
    }
    return found;
  }

  template <class T>
  HEPOPS_HD Image<T> forward(const T& x, const Lane<T>& p) const {
    const Bin<T> bin = find(x, p, false);
    const T u = bin.part(x);
    return {min(bin.C + bin.W * bin.area(u), T(1.0)), log(bin.density(u))};
  }

  // rise u^2 / 2 + H u = r, in the form that holds for a rise of 0
  template <class T>
  HEPOPS_HD T inverse(const T& y, const Lane<T>& p) const {
    const Bin<T> bin = find(y, p, true);
    const T r = (y - bin.C) / bin.W;
    const T u = clamp(2.0 * r / (bin.H + sqrt(max(bin.H * bin.H + 2.0 * bin.rise * r, T(0.0)))));
    return min(bin.X + bin.W * u, T(1.0));
  }

  template <class T>
  struct At : Slopes<T> {
    T X, u;  // of the bin
  };

  template <class T>
  HEPOPS_HD At<T> slopes(const T& x, const Lane<T>& p) const {
    const Bin<T> bin = find(x, p, false);
    const T u = bin.part(x), r = bin.density(u);
    return {{r, bin.rise / (bin.W * r)}, bin.X, u};
  }

  // What bin j contributes: to the gradients of the heights at its ends and of its width, with all H and W as free.
  // c: how much of the bin lies below x.
  template <class T>
  struct Share {
    T left, right, width;

    HEPOPS_HD Share(const At<T>& at, const T& a, const T& b, const T& X, const Bin<T>& bin) {
      const T c = select(X < at.X, T(1.0), select(X == at.X, at.u, T(0.0)));
      const T own = select(X == at.X, b / at.f, T(0.0)), half = 0.5 * c * c;
      left = a * bin.W * (c - half) + own * (T(1.0) - at.u);
      right = a * bin.W * half + own * at.u;
      width = a * (bin.area(c) - at.f * c) - b * c * at.l;
    }
  };

  // f(j, bin, share) for every bin, from the values that the places had before.
  template <class T, class F>
  HEPOPS_HD void each(const At<T>& at, const T& a, const T& b, const Lane<T>& p, const F& f) const {
    T X = T(0.0), left = height(p, 0);
    for (int j = 0; j < bins; ++j) {
      const T right = height(p, j + 1), W = p[j];
      const Bin<T> bin{X, T(0.0), W, left, right - left};
      f(j, bin, Share<T>(at, a, b, X, bin));
      X += W;
      left = right;
    }
  }

  // From H and W back through the area A, the softmax and the softplus.
  template <class T>
  HEPOPS_HD void gradient(const At<T>& at, const T& a, const T& b, const T&, const Lane<T>& p) const {
    const T A = p[2 * bins + 1], per_area = (1 - floor) / A;
    T grad_A = T(0.0), mean = T(0.0);
    each(at, a, b, p, [&](int j, const Bin<T>&, const Share<T>& share) {
      grad_A -= per_area / A * (share.left * p[bins + j] + share.right * p[bins + j + 1]);
    });
    const auto logit_slope = [&](const T& W) { return W - T(floor); };  // (1 - m K) softmax
    const auto grad_W = [&](const T& width, const T& U, const T& V) { return width + 0.5 * grad_A * (U + V); };
    each(at, a, b, p, [&](int j, const Bin<T>& bin, const Share<T>& share) {
      mean += logit_slope(bin.W) * grad_W(share.width, p[bins + j], p[bins + j + 1]);
    });
    mean = mean / T(above_floor());
    T before = T(0.0);  // what the last bin gives to the height that it shares
    each(at, a, b, p, [&](int j, const Bin<T>& bin, const Share<T>& share) {
      const T U = p[bins + j], grad = grad_W(share.width, U, p[bins + j + 1]), from_area = 0.5 * grad_A * bin.W;
      p[j] = logit_slope(bin.W) * (grad - mean);
      p[bins + j] = (before + per_area * share.left + from_area) * softplus_slope(U - T(floor));
      before = per_area * share.right + from_area;
    });
    p[2 * bins] = before * softplus_slope(p[2 * bins] - T(floor));
  }
};

}  // namespace hepops::flows
