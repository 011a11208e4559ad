#include "load/load.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "core/cpu_level.h"

namespace hepops {
namespace {

// The operators lie beside the library that this function is in, wherever links to it may be.
std::string here() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<const void*>(&load_operators), &info)) throw std::runtime_error("hepops: where am I?");
  const std::unique_ptr<char, decltype(&std::free)> path(realpath(info.dli_fname, nullptr), &std::free);
  if (!path) throw std::runtime_error(std::string("hepops: cannot follow ") + info.dli_fname);
  const std::string file = path.get();
  return file.substr(0, file.rfind('/') + 1);
}

void load(const std::string& library) {
  if (!dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL)) throw std::runtime_error(std::string("hepops: ") + dlerror());
}

std::string level_of(const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  const char* named = std::getenv("HEPOPS_CPU_LEVEL");
  return named && *named ? named : core::cpu_level();
}

}  // namespace

void load_operators(const std::string& level) {
  static std::mutex mutex;
  static bool loaded = false;
  const std::lock_guard lock(mutex);
  if (loaded) return;
  load(here() + "libhepops_cpu_" + level_of(level) + ".so");
  const std::string cuda = here() + "libhepops_cuda.so";
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD) && access(cuda.c_str(), F_OK) == 0) load(cuda);
  loaded = true;
}

}  // namespace hepops
