#include "lartpc/drift.h"

#include <tuple>

#include "core/check.h"
#include "core/dual.h"
#include "core/for_each.h"
#include "core/op.h"
#include "core/reduce.h"

namespace hepops::lartpc {
namespace {

using core::Tensor;
using core::Vec;

constexpr int num_parameters = 5;  // in the order of Transport: lifetime E D_T D_L temperature

template <class T>
HEPOPS_HD Transport<T> transport_of(const Vec<T, num_parameters>& p) {
  return {p[0], p[1], p[2], p[3], p[4]};
}

// Four arrays of one length: an Arrival for each element.
template <class Pointer>
struct Arrivals {
  Pointer survival, time, sigma_t, sigma_l;
};

template <class T>
HEPOPS_HD Arrival<T> read(const Arrivals<const T*>& arrays, int64_t i) {
  return {arrays.survival[i], arrays.time[i], arrays.sigma_t[i], arrays.sigma_l[i]};
}

template <class T>
HEPOPS_HD void write(const Arrivals<T*>& arrays, int64_t i, const Arrival<T>& arrival) {
  arrays.survival[i] = arrival.survival;
  arrays.time[i] = arrival.time;
  arrays.sigma_t[i] = arrival.sigma_t;
  arrays.sigma_l[i] = arrival.sigma_l;
}

template <class T>
struct Forward {
  const T* distance;
  core::Scalars<T, num_parameters> parameters;
  Arrivals<T*> out;

  HEPOPS_HD void operator()(int64_t i) const { write(out, i, drift(distance[i], transport_of<T>(parameters))); }
};

// Writes the gradient of each distance, returns what the element adds to those of the parameters.
template <class T>
struct Backward {
  Arrivals<const T*> grad;
  const T* distance;
  core::Scalars<T, num_parameters> parameters;
  T* grad_distance;

  HEPOPS_HD Vec<T, num_parameters> operator()(int64_t i) const {
    const auto gradient = drift_backward(read(grad, i), distance[i], transport_of<T>(parameters));
    grad_distance[i] = gradient.distance;
    return {gradient.lifetime, gradient.E, gradient.D_T, gradient.D_L, gradient.temperature};
  }
};

// The derivatives of the backward along v are the slopes of both formulas on dual numbers (why: recombine.cu).
template <class T>
struct DoubleBackward {
  using D = core::Dual<T, 1>;
  Arrivals<const T*> grad;
  const T* distance;
  core::Scalars<T, num_parameters> parameters;
  const T* v_distance;
  core::Scalars<T, num_parameters> v_parameters;
  Arrivals<T*> grad_grad;
  T* grad_distance;

  HEPOPS_HD Vec<T, num_parameters> operator()(int64_t i) const {
    const auto along = [](T value, T slope) { return D::with(value, {slope}); };
    const Vec<T, num_parameters> p = parameters, v = v_parameters;
    const Transport<D> transport{along(p[0], v[0]), along(p[1], v[1]), along(p[2], v[2]), along(p[3], v[3]),
                                 along(p[4], v[4])};
    const D d = along(distance[i], v_distance[i]);
    const Arrival<D> at = drift(d, transport);
    write(grad_grad, i, {at.survival.slope[0], at.time.slope[0], at.sigma_t.slope[0], at.sigma_l.slope[0]});
    const Arrival<T> seed = read(grad, i);
    const auto g = drift_backward({D(seed.survival), D(seed.time), D(seed.sigma_t), D(seed.sigma_l)}, d, transport);
    grad_distance[i] = g.distance.slope[0];
    return {g.lifetime.slope[0], g.E.slope[0], g.D_T.slope[0], g.D_L.slope[0], g.temperature.slope[0]};
  }
};

void check(const Tensor& distance, const Tensor& parameters) {
  core::check_floating("drift: distance", distance);
  core::check_scalars("drift: parameters", parameters, distance, num_parameters);
  core::for_host_scalars<num_parameters>(parameters, [](const auto& p) {
    const auto& [lifetime, E, D_T, D_L, temperature] = p.values;
    core::check_value(lifetime > 0, "drift: lifetime must be positive [us], got ", lifetime);
    core::check_value(E > 0, "drift: field must be positive [kV/cm], got ", E);
    core::check_value(D_T >= 0, "drift: transverse_diffusion must not be negative [cm^2/us], got ", D_T);
    core::check_value(D_L >= 0, "drift: longitudinal_diffusion must not be negative [cm^2/us], got ", D_L);
    core::check_value(temperature > 0, "drift: temperature must be positive [K], got ", temperature);
  });
}

struct Four {
  Tensor survival, time, sigma_t, sigma_l;

  static Four like(const Tensor& x) {
    return {core::empty_like(x), core::empty_like(x), core::empty_like(x), core::empty_like(x)};
  }
  template <class T>
  Arrivals<const T*> in() const {
    return {core::in<T>(survival), core::in<T>(time), core::in<T>(sigma_t), core::in<T>(sigma_l)};
  }
  template <class T>
  Arrivals<T*> out() const {
    return {core::out<T>(survival), core::out<T>(time), core::out<T>(sigma_t), core::out<T>(sigma_l)};
  }
};

Four checked_gradients(const Tensor& survival, const Tensor& time, const Tensor& sigma_t, const Tensor& sigma_l,
                       const Tensor& like) {
  core::check_same_shape("drift_backward: grad_survival", survival, like);
  core::check_same_shape("drift_backward: grad_time", time, like);
  core::check_same_shape("drift_backward: grad_sigma_t", sigma_t, like);
  core::check_same_shape("drift_backward: grad_sigma_l", sigma_l, like);
  return {core::contiguous(survival), core::contiguous(time), core::contiguous(sigma_t), core::contiguous(sigma_l)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& distance, const Tensor& parameters) {
  check(distance, parameters);
  const Tensor d = core::contiguous(distance), p = core::contiguous(parameters);
  const Four out = Four::like(d);
  core::for_floating("drift: distance", d,
                     [&]<class T>() { core::for_each(d, d.numel(), Forward<T>{core::in<T>(d), p, out.out<T>()}); });
  return {out.survival, out.time, out.sigma_t, out.sigma_l};
}

// -> the gradients of distance and of the parameters
std::tuple<Tensor, Tensor> backward(const Tensor& grad_survival, const Tensor& grad_time, const Tensor& grad_sigma_t,
                                    const Tensor& grad_sigma_l, const Tensor& distance, const Tensor& parameters) {
  check(distance, parameters);
  const Four grad = checked_gradients(grad_survival, grad_time, grad_sigma_t, grad_sigma_l, distance);
  const Tensor d = core::contiguous(distance), p = core::contiguous(parameters);
  Tensor grad_distance = core::empty_like(d), grad_parameters;
  core::for_floating("drift: distance", d, [&]<class T>() {
    const Backward<T> step{grad.in<T>(), core::in<T>(d), p, core::out<T>(grad_distance)};
    grad_parameters = core::reduce<T, num_parameters>(p, d.numel(), step);
  });
  return {grad_distance, grad_parameters};
}

// v: what stands for the gradients of the backward's outputs -> those of its four grads, distance and the parameters
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> double_backward(
    const Tensor& grad_survival, const Tensor& grad_time, const Tensor& grad_sigma_t, const Tensor& grad_sigma_l,
    const Tensor& distance, const Tensor& parameters, const Tensor& v_distance, const Tensor& v_parameters) {
  check(distance, parameters);
  const Four grad = checked_gradients(grad_survival, grad_time, grad_sigma_t, grad_sigma_l, distance);
  core::check_same_shape("drift_double_backward: v_distance", v_distance, distance);
  core::check_same_shape("drift_double_backward: v_parameters", v_parameters, parameters);
  const Tensor d = core::contiguous(distance), p = core::contiguous(parameters), vd = core::contiguous(v_distance),
               vp = core::contiguous(v_parameters);
  const Four grad_grad = Four::like(d);
  Tensor grad_distance = core::empty_like(d), grad_parameters;
  core::for_floating("drift: distance", d, [&]<class T>() {
    const DoubleBackward<T> step{
        grad.in<T>(), core::in<T>(d), p, core::in<T>(vd), vp, grad_grad.out<T>(), core::out<T>(grad_distance)};
    grad_parameters = core::reduce<T, num_parameters>(p, d.numel(), step);
  });
  return {grad_grad.survival, grad_grad.time, grad_grad.sigma_t, grad_grad.sigma_l, grad_distance, grad_parameters};
}

const core::Operators operators{
    core::op<forward>("drift(Tensor distance, Tensor parameters) -> (Tensor, Tensor, Tensor, Tensor)"),
    core::op<backward>("drift_backward(Tensor grad_survival, Tensor grad_time, Tensor grad_sigma_t, "
                       "Tensor grad_sigma_l, Tensor distance, Tensor parameters) -> (Tensor, Tensor)"),
    core::op<double_backward>("drift_double_backward(Tensor grad_survival, Tensor grad_time, Tensor grad_sigma_t, "
                              "Tensor grad_sigma_l, Tensor distance, Tensor parameters, Tensor v_distance, "
                              "Tensor v_parameters) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"),
};

}  // namespace
}  // namespace hepops::lartpc
