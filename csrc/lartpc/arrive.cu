#include "lartpc/arrive.h"

#include <tuple>

#include "core/check.h"
#include "core/for_each.h"
#include "core/op.h"
#include "core/reduce.h"

namespace hepops::lartpc {
namespace {

using core::ScalarType;
using core::Tensor;
using core::Vec;

constexpr int num_deposit = DepositField::count, num_parameters = ParameterField::count,
              num_arrival = ArrivalField::count;

struct Inputs {
  const double *deposits, *parameters;
  int64_t N;
  int model;
  bool local;  // whether a seventh row of the deposits holds the ratio of the local field to E

  // Deposits first, then parameters.
  HEPOPS_HD void read(int64_t i, double* x) const {
    for (int k = 0; k < num_deposit; ++k) x[k] = deposits[k * N + i];
    for (int k = 0; k < num_parameters; ++k) x[num_deposit + k] = parameters[k];
  }
  HEPOPS_HD double ratio(int64_t i) const { return local ? deposits[num_deposit * N + i] : 1.0; }
};

struct Forward {
  Inputs in;
  double* out;
  HEPOPS_HD void operator()(int64_t i) const {
    double x[arrive_inputs];
    in.read(i, x);
    const auto result = arrive<double>(x, x + num_deposit, in.model, in.ratio(i));
    for (int k = 0; k < num_arrival; ++k) out[k * in.N + i] = result[k];
  }
};

// Writes the gradient of each deposit, returns what it adds to those of the parameters.
struct Backward {
  Inputs in;
  const double* grad;
  double* grad_deposits;
  HEPOPS_HD Vec<double, num_parameters> operator()(int64_t i) const {
    double x[arrive_inputs];
    in.read(i, x);
    Vec<double, num_parameters> grad_parameters;
    for (int g = 0; g < arrive_inputs / 6; ++g) {
      const auto slopes = arrive_slopes(x, g, in.model, in.ratio(i));
      for (int s = 0; s < 6; ++s) {
        double sum = 0;
        for (int k = 0; k < num_arrival; ++k) sum += grad[k * in.N + i] * slopes[k].slope[s];
        if (g == 0)
          grad_deposits[s * in.N + i] = sum;
        else
          grad_parameters[6 * (g - 1) + s] = sum;
      }
    }
    if (in.local) {
      const double charge = arrive<double>(x, x + num_deposit, in.model, in.ratio(i))[ArrivalField::charge];
      grad_deposits[num_deposit * in.N + i] =
          grad[ArrivalField::charge * in.N + i] * charge * charge_per_ratio(x, in.model, in.ratio(i));
    }
    return grad_parameters;
  }
};

struct Tangent {
  Inputs in;
  const double* seeds;  // (K, num_parameters)
  int64_t K;
  double* out;  // (K, num_arrival, N)
  HEPOPS_HD void operator()(int64_t i) const {
    double x[arrive_inputs];
    in.read(i, x);
    for (int64_t n = 0; n < K * num_arrival; ++n) out[n * in.N + i] = 0;
    for (int g = 1; g < arrive_inputs / 6; ++g) {
      const auto slopes = arrive_slopes(x, g, in.model, in.ratio(i));
      for (int64_t k = 0; k < K; ++k)
        for (int f = 0; f < num_arrival; ++f)
          for (int s = 0; s < 6; ++s)
            out[(k * num_arrival + f) * in.N + i] += seeds[k * num_parameters + 6 * (g - 1) + s] * slopes[f].slope[s];
    }
  }
};

struct Checked {
  Tensor deposits, parameters;
  Inputs in;
};

Checked check(const Tensor& deposits, const Tensor& parameters, int64_t model) {
  core::check_type(deposits.scalar_type() == ScalarType::Double, "arrive: deposits must be float64, got ",
                   toString(deposits.scalar_type()));
  core::check_value(deposits.dim() == 2 && (deposits.size(0) == num_deposit || deposits.size(0) == num_deposit + 1),
                    "arrive: deposits must be (", num_deposit, ", N), or (", num_deposit + 1,
                    ", N) with the ratio of the local field, got ", core::Shape{deposits});
  core::check_same_kind("arrive: parameters", parameters, deposits);
  core::check_value(parameters.numel() == num_parameters, "arrive: parameters must be (", num_parameters, "), got ",
                    core::Shape{parameters});
  core::check_value(model >= 0 && model <= 2, "arrive: model must be 0, 1 or 2, got ", model);
  const Tensor d = core::contiguous(deposits), p = core::contiguous(parameters);
  return {d, p, {core::in<double>(d), core::in<double>(p), d.size(1), int(model), d.size(0) > num_deposit}};
}

Tensor forward(const Tensor& deposits, const Tensor& parameters, int64_t model) {
  const Checked c = check(deposits, parameters, model);
  Tensor result = torch::stable::new_empty(c.deposits, {num_arrival, c.in.N});
  core::for_each(c.deposits, c.in.N, Forward{c.in, core::out<double>(result)});
  return result;
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& deposits, const Tensor& parameters,
                                    int64_t model) {
  const Checked c = check(deposits, parameters, model);
  core::check_same_kind("arrive_backward: grad", grad, deposits);
  core::check_value(grad.dim() == 2 && grad.size(0) == num_arrival && grad.size(1) == c.in.N,
                    "arrive_backward: grad has shape ", core::Shape{grad}, ", expected (", num_arrival, ", ", c.in.N,
                    ")");
  const Tensor g = core::contiguous(grad);
  Tensor grad_deposits = core::empty_like(c.deposits);
  Tensor grad_parameters = core::reduce<double, num_parameters>(
      c.deposits, c.in.N, Backward{c.in, core::in<double>(g), core::out<double>(grad_deposits)});
  return {grad_deposits, grad_parameters};
}

Tensor jvp(const Tensor& deposits, const Tensor& parameters, const Tensor& seeds, int64_t model) {
  const Checked c = check(deposits, parameters, model);
  core::check_same_kind("arrive_jvp: seeds", seeds, deposits);
  core::check_value(seeds.dim() == 2 && seeds.size(1) == num_parameters, "arrive_jvp: seeds must be (K, ",
                    num_parameters, "), got ", core::Shape{seeds});
  const Tensor s = core::contiguous(seeds);
  const int64_t K = s.size(0);
  Tensor result = torch::stable::new_empty(c.deposits, {K, num_arrival, c.in.N});
  core::for_each(c.deposits, c.in.N, Tangent{c.in, core::in<double>(s), K, core::out<double>(result)});
  return result;
}

const core::Operators operators{
    core::op<forward>("arrive(Tensor deposits, Tensor parameters, int model) -> Tensor"),
    core::op<backward>("arrive_backward(Tensor grad, Tensor deposits, Tensor parameters, int model) -> (Tensor, "
                       "Tensor)"),
    core::op<jvp>("arrive_jvp(Tensor deposits, Tensor parameters, Tensor seeds, int model) -> Tensor"),
};

}  // namespace
}  // namespace hepops::lartpc
