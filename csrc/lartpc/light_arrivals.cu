#include "lartpc/light_arrivals.h"

#include <tuple>

#include "core/check.h"
#include "core/for_each_row.h"
#include "core/op.h"

namespace hepops::lartpc {
namespace {

using core::ScalarType;
using core::Tensor;

struct Inputs {
  const double *photons, *time;   // (channels, N)
  const double *share, *tau;      // (N), (2)
  const int64_t *offset, *begin;  // (groups + 1), (groups): deposits of each group, first tick of its window
  int64_t N, channels, groups, ticks;
  double tick;

  HEPOPS_HD int64_t columns() const { return ticks + 2; }
  HEPOPS_HD Decay decay(int c) const { return Decay(tau[c], tick); }
};

// A block of deposits at a time: the exponentials in SIMD, then the scatter. A GPU's thread takes them one by one.
#ifdef __CUDA_ARCH__
constexpr int block = 1;
#else
constexpr int block = 256;
#endif

struct Block {
  double left[num_components][block], rest[block];
  int64_t column[block];

  HEPOPS_HD void fill(const Inputs& in, const Decay& s, const Decay& t, const double* time, int64_t begin, int n) {
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) {
      const LightPlace place = light_place(time[i], begin, in.tick, in.ticks);
      const bool inside = place.column <= in.ticks;
      column[i] = place.column;
      rest[i] = place.rest;
      left[singlet][i] = inside ? s.left(place.rest) : 0.0;
      left[triplet][i] = inside ? t.left(place.rest) : 0.0;
    }
  }
};

HEPOPS_HD int block_size(int64_t from, int64_t end) { return end - from < block ? int(end - from) : block; }

// One row: a group's channel. The scratch holds what enters each column, singlet then triplet.
struct Forward {
  Inputs in;
  double *out, *scratch;  // (rows, columns), (rows, 2 columns) on a GPU
  HEPOPS_HD void operator()(int64_t row, const core::Team& team) const {
    const int64_t g = row / in.channels, c = row % in.channels, width = in.columns();
    double* const sum = out + row * width;
    double* const enter = scratch ? scratch + row * 2 * width : reinterpret_cast<double*>(team.memory);
    double* const enter_t = enter + width;
    for (int64_t k = 0; k < width; ++k) sum[k] = enter[k] = enter_t[k] = 0;
    const Decay s = in.decay(singlet), t = in.decay(triplet);
    Block b;
    const int64_t end = in.offset[g + 1];
    for (int64_t from = in.offset[g]; from < end; from += block) {
      const int n = block_size(from, end);
      const double* const photons = in.photons + c * in.N + from;
      b.fill(in, s, t, in.time + c * in.N + from, in.begin[g], n);
      for (int i = 0; i < n; ++i) {
        const int64_t k = b.column[i];
        const double fast = photons[i] * in.share[from + i], slow = photons[i] - fast;
        const double fast_left = fast * b.left[singlet][i], slow_left = slow * b.left[triplet][i];
        sum[k] += (fast - fast_left) + (slow - slow_left);
        if (k > in.ticks) continue;
        enter[k + 1] += fast_left;
        enter_t[k + 1] += slow_left;
      }
    }
    s.spread(enter, sum, in.ticks);
    t.spread(enter_t, sum, in.ticks);
  }
};

// One row of the gradients. The scratch: worth and alive, of singlet and triplet.
struct Backward {
  Inputs in;
  const double* grad;                                        // (rows, columns)
  double *grad_photons, *grad_time, *grad_share, *grad_tau;  // (channels, N) three times; (rows, 2)
  double* scratch;
  HEPOPS_HD void operator()(int64_t row, const core::Team& team) const {
    const int64_t g = row / in.channels, c = row % in.channels, width = in.columns();
    const double* const G = grad + row * width;
    double* const worth = scratch ? scratch + row * 4 * width : reinterpret_cast<double*>(team.memory);
    double *const worth_t = worth + width, *const alive = worth_t + width, *const alive_t = alive + width;
    for (int64_t k = 0; k < width; ++k) alive[k] = alive_t[k] = 0;
    const Decay s = in.decay(singlet), t = in.decay(triplet);
    s.gather(G, worth, in.ticks);
    t.gather(G, worth_t, in.ticks);
    double by_tau_s = 0, by_tau_t = 0;
    Block b;
    const int64_t end = in.offset[g + 1];
    for (int64_t from = in.offset[g]; from < end; from += block) {
      const int n = block_size(from, end);
      const int64_t first = c * in.N + from;
      b.fill(in, s, t, in.time + first, in.begin[g], n);
      for (int i = 0; i < n; ++i) {
        const int64_t k = b.column[i];
        const double photons = in.photons[first + i], share = in.share[from + i], here = G[k];
        if (k > in.ticks) {
          grad_photons[first + i] = here;
          grad_time[first + i] = grad_share[first + i] = 0;
          continue;
        }
        const double gain_s = b.left[singlet][i] * (worth[k + 1] - here);
        const double gain_t = b.left[triplet][i] * (worth_t[k + 1] - here);
        const double fast = photons * share, slow = photons - fast;
        grad_photons[first + i] = here + share * gain_s + (1 - share) * gain_t;
        grad_time[first + i] = fast * gain_s / s.tau + slow * gain_t / t.tau;
        grad_share[first + i] = photons * (gain_s - gain_t);
        by_tau_s += fast * gain_s * b.rest[i];
        by_tau_t += slow * gain_t * b.rest[i];
        alive[k + 1] += fast * b.left[singlet][i];
        alive_t[k + 1] += slow * b.left[triplet][i];
      }
    }
    for (int64_t k = 1; k <= in.ticks; ++k) {
      alive[k] += s.q * alive[k - 1];
      alive_t[k] += t.q * alive_t[k - 1];
    }
    grad_tau[2 * row] = by_tau_s / (s.tau * s.tau) + s.slope_by_tau(alive, G, worth, in.ticks);
    grad_tau[2 * row + 1] = by_tau_t / (t.tau * t.tau) + t.slope_by_tau(alive_t, G, worth_t, in.ticks);
  }
};

void check_double(const char* name, const Tensor& x) {
  core::check_type(x.scalar_type() == ScalarType::Double, "light_arrivals: ", name, " must be float64, got ",
                   toString(x.scalar_type()));
}

void check_index(const char* name, const Tensor& x, const Tensor& like) {
  core::check_type(x.scalar_type() == ScalarType::Long, "light_arrivals: ", name, " must be int64, got ",
                   toString(x.scalar_type()));
  core::check_value(x.device() == like.device(), "light_arrivals: ", name,
                    " must be on the device of the other tensors");
}

struct Checked {
  Tensor photons, time, share, tau, offset, begin;
  Inputs in;
};

Checked check(const Tensor& photons, const Tensor& time, const Tensor& share, const Tensor& tau, const Tensor& offset,
              const Tensor& begin, int64_t ticks, double tick) {
  check_double("photons", photons);
  core::check_value(photons.dim() == 2, "light_arrivals: photons must be (channels, N), got ", core::Shape{photons});
  core::check_same_shape("light_arrivals: time", time, photons);
  core::check_same_kind("light_arrivals: share", share, photons);
  core::check_value(share.dim() == 1 && share.size(0) == photons.size(1), "light_arrivals: share must be (",
                    photons.size(1), ",), got ", core::Shape{share});
  core::check_same_kind("light_arrivals: tau", tau, photons);
  core::check_value(tau.dim() == 1 && tau.size(0) == num_components,
                    "light_arrivals: tau must be (2,), singlet and triplet, got ", core::Shape{tau});
  check_index("offset", offset, photons);
  check_index("begin", begin, photons);
  core::check_value(begin.dim() == 1 && offset.dim() == 1 && offset.size(0) == begin.size(0) + 1,
                    "light_arrivals: offset must have one entry more than begin, got ", core::Shape{offset}, " and ",
                    core::Shape{begin});
  core::check_value(ticks >= 1, "light_arrivals: ticks must be positive, got ", ticks);
  core::check_value(tick > 0, "light_arrivals: tick must be positive [us], got ", tick);
  Checked c{core::contiguous(photons),
            core::contiguous(time),
            core::contiguous(share),
            core::contiguous(tau),
            core::contiguous(offset),
            core::contiguous(begin),
            {}};
  c.in = {core::in<double>(c.photons),
          core::in<double>(c.time),
          core::in<double>(c.share),
          core::in<double>(c.tau),
          core::in<int64_t>(c.offset),
          core::in<int64_t>(c.begin),
          photons.size(1),
          photons.size(0),
          begin.size(0),
          ticks,
          tick};
  if (!photons.is_cpu()) return c;
  for (int k = 0; k < num_components; ++k)
    core::check_value(c.in.tau[k] > 0, "light_arrivals: tau must be positive [us], got ", c.in.tau[k]);
  core::check_value(c.in.offset[0] == 0 && c.in.offset[c.in.groups] == c.in.N,
                    "light_arrivals: offset must run from 0 to ", c.in.N, ", got ", c.in.offset[0], " to ",
                    c.in.offset[c.in.groups]);
  for (int64_t g = 0; g < c.in.groups; ++g)
    core::check_value(c.in.offset[g] <= c.in.offset[g + 1], "light_arrivals: offset must not fall, got ",
                      c.in.offset[g], " and then ", c.in.offset[g + 1]);
  return c;
}

// Scratch of `arrays` rows each: on the CPU a thread's own, on a GPU in its memory.
template <class F>
void for_each_channel(const Checked& c, int arrays, F f) {
  const int64_t rows = c.in.groups * c.in.channels;
  const bool host = c.photons.is_cpu();
  const Tensor memory = torch::stable::new_empty(c.photons, {host ? 0 : rows * arrays * c.in.columns()});
  f.scratch = host ? nullptr : core::out<double>(memory);
  core::for_each_row(c.photons, rows, host ? arrays * c.in.columns() * sizeof(double) : 0, f, /*threads=*/1);
}

Tensor forward(const Tensor& photons, const Tensor& time, const Tensor& share, const Tensor& tau, const Tensor& offset,
               const Tensor& begin, int64_t ticks, double tick) {
  const Checked c = check(photons, time, share, tau, offset, begin, ticks, tick);
  Tensor out = torch::stable::new_empty(c.photons, {c.in.groups, c.in.channels, c.in.columns()});
  for_each_channel(c, 2, Forward{c.in, core::out<double>(out), nullptr});
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& photons, const Tensor& time,
                                                    const Tensor& share, const Tensor& tau, const Tensor& offset,
                                                    const Tensor& begin, int64_t ticks, double tick) {
  const Checked c = check(photons, time, share, tau, offset, begin, ticks, tick);
  core::check_same_kind("light_arrivals_backward: grad", grad, photons);
  core::check_value(grad.numel() == c.in.groups * c.in.channels * c.in.columns(),
                    "light_arrivals_backward: grad has shape ", core::Shape{grad});
  const Tensor g = core::contiguous(grad);
  Tensor grad_photons = core::empty_like(c.photons), grad_time = core::empty_like(c.photons),
         grad_share = core::empty_like(c.photons);
  Tensor grad_tau = torch::stable::new_empty(c.photons, {c.in.groups, c.in.channels, 2});
  for_each_channel(c, 4,
                   Backward{c.in, core::in<double>(g), core::out<double>(grad_photons), core::out<double>(grad_time),
                            core::out<double>(grad_share), core::out<double>(grad_tau), nullptr});
  return {grad_photons, grad_time, grad_share, grad_tau};
}

const core::Operators operators{
    core::op<forward>("light_arrivals(Tensor photons, Tensor time, Tensor share, Tensor tau, Tensor offset, "
                      "Tensor begin, int ticks, float tick) -> Tensor"),
    core::op<backward>("light_arrivals_backward(Tensor grad, Tensor photons, Tensor time, Tensor share, Tensor tau, "
                       "Tensor offset, Tensor begin, int ticks, float tick) -> (Tensor, Tensor, Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lartpc
