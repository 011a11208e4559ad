#pragma once
// load_operators() registers torch.ops.hepops in a C++ program, as `import hepops` does in Python: those of the best
// x86-64 level that this processor has, and those for CUDA where the program has LibTorch's CUDA library loaded. A
// second call does nothing. Link hepops::ops and LibTorch.
#include <string>

namespace hepops {

// level: "v2", "v3" or "v4" in place of what the environment variable HEPOPS_CPU_LEVEL or the processor says.
// Throws std::runtime_error, with the path, where a library cannot be loaded.
[[gnu::visibility("default")]] void load_operators(const std::string& level = "");

}  // namespace hepops
