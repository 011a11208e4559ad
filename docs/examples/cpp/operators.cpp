// An operator of hepops in a C++ program that links LibTorch.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <hepops/load/load.h>

#include <iostream>

int main() {
  hepops::load_operators();
  const auto recombine =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("hepops::recombine", "")
          .typed<at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&, const at::Tensor&, int64_t)>();
  const at::Tensor dedx = at::tensor({2.1, 20.0}, at::kDouble);  // [MeV/cm]
  // A, k, alpha, beta, ratio, field, density; model 0 is Birks' law
  const at::Tensor parameters = at::tensor({0.8, 0.0486, 0.93, 0.212, 1.25, 0.5, 1.38}, at::kDouble);
  std::cout << recombine.call(dedx, std::nullopt, parameters, 0) << std::endl;
}
