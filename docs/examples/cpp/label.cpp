// label <package.pt2> <voxels>: the classes of voxels by an exported network, from C++ with LibTorch.
//
// voxels: lines "event x y z charge"; charge as the package's description says [ke]. Prints the class of each and its
// logits. A package holds machine code: verify it first (`hepops run`, or its SHA-256).
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <hepops/load/load.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <fstream>
#include <vector>

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: label <package.pt2> <voxels>");
  hepops::load_operators();  // those that the package calls
  c10::InferenceMode guard;
  torch::inductor::AOTIModelPackageLoader package(argv[1]);

  std::ifstream file(argv[2]);
  std::vector<int64_t> coordinates;
  std::vector<float> charge;
  double q;
  for (int64_t c[4]; file >> c[0] >> c[1] >> c[2] >> c[3] >> q;) {
    coordinates.insert(coordinates.end(), c, c + 4);
    charge.push_back(float(q));
  }
  const auto n = int64_t(charge.size());
  const std::vector<at::Tensor> inputs = {at::tensor(coordinates).reshape({n, 4}), at::tensor(charge)};
  const at::Tensor logits = package.run(inputs)[0], label = logits.argmax(1);
  for (int64_t i = 0; i < n; ++i) {
    std::printf("%lld", (long long)label[i].item<int64_t>());
    for (int64_t k = 0; k < logits.size(1); ++k) std::printf(" %.9g", logits[i][k].item<float>());
    std::printf("\n");
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "label: %s\n", error.what());
  return 1;
}
