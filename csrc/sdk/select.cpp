// libhepops_core.so: the functions of c_api.h, passed on to the library of the best x86-64 level that this processor
// has, which lies beside it. It is loaded at the first call and stays; the table of its functions never changes.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "core/cpu_level.h"
#include "sdk/functions.h"

namespace hepops::sdk {
namespace {

struct Selected {
  const Functions* functions = nullptr;
  std::string level, error;

  Selected() {
    const char* named = std::getenv("HEPOPS_CPU_LEVEL");
    level = named && *named ? named : core::cpu_level();
    Dl_info info{};
    if (!dladdr(reinterpret_cast<const void*>(&hepops_abi), &info) || !info.dli_fname) {
      error = "hepops: the folder of libhepops_core is not known";
      return;
    }
    const std::string self = info.dli_fname;
    const size_t slash = self.rfind('/');
    const std::string path =
        (slash == std::string::npos ? "" : self.substr(0, slash + 1)) + "libhepops_core_" + level + ".so";
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      error = std::string("hepops: ") + dlerror();
      return;
    }
    const auto table = reinterpret_cast<decltype(&hepops_functions)>(dlsym(library, "hepops_functions"));
    functions = table ? table(sizeof(Functions)) : nullptr;
    if (!functions) error = "hepops: " + path + " is of another version than " + self;
  }
};

const Selected& selected() {
  static const Selected once;
  return once;
}

const Functions& functions() { return *selected().functions; }

}  // namespace
}  // namespace hepops::sdk

using hepops::sdk::functions, hepops::sdk::selected;

int hepops_abi(void) { return HEPOPS_ABI; }
const char* hepops_version(void) { return HEPOPS_VERSION; }
const char* hepops_cpu_level(void) { return selected().level.c_str(); }
const char* hepops_load_error(void) { return selected().error.c_str(); }

hepops_status hepops_context_create(const hepops_execution* execution, hepops_context** context) {
  if (context) *context = nullptr;
  return selected().functions ? functions().context_create(execution, context) : HEPOPS_FAILED;
}

// A function that is given NULL for its context says so itself: without a library there is no context to be given.
#define HEPOPS_PASS(name, parameters, arguments) \
  hepops_status hepops_##name parameters { return selected().functions ? functions().name arguments : HEPOPS_FAILED; }
#define HEPOPS_DESTROY(name, type)        \
  void hepops_##name(type* handle) {      \
    if (handle) functions().name(handle); \
  }

const char* hepops_error(const hepops_context* context) {
  return context ? functions().error(context) : "context is NULL";
}
HEPOPS_DESTROY(context_destroy, hepops_context)
HEPOPS_DESTROY(simulator_destroy, hepops_simulator)
HEPOPS_DESTROY(hits_destroy, hepops_hits)
HEPOPS_DESTROY(map_destroy, hepops_map)

HEPOPS_PASS(simulator_create, (hepops_context * c, const hepops_simulator_config* config, hepops_simulator** simulator),
            (c, config, simulator))
HEPOPS_PASS(simulate,
            (hepops_context * c, const hepops_simulator* simulator, const hepops_segments* segments,
             const hepops_simulate_options* options, hepops_hits** hits),
            (c, simulator, segments, options, hits))
HEPOPS_PASS(recombine,
            (hepops_context * c, const hepops_parameters* p, int64_t model, int64_t n, const double* dedx,
             const double* cos2, double* fraction),
            (c, p, model, n, dedx, cos2, fraction))
HEPOPS_PASS(drift,
            (hepops_context * c, const hepops_parameters* p, int64_t n, const double* distance, double* survival,
             double* time, double* sigma_t, double* sigma_l),
            (c, p, n, distance, survival, time, sigma_t, sigma_l))
HEPOPS_PASS(map_create,
            (hepops_context * c, int64_t n, const int64_t* read, const int64_t* written, const int64_t* offset,
             int64_t rows_read, int64_t rows_written, int64_t offsets, hepops_map** map),
            (c, n, read, written, offset, rows_read, rows_written, offsets, map))
HEPOPS_PASS(convolve,
            (hepops_context * c, const hepops_map* map, int64_t in, int64_t out, const float* x, const float* w,
             const float* bias, float* y),
            (c, map, in, out, x, w, bias, y))
HEPOPS_PASS(convolve_backward,
            (hepops_context * c, const hepops_map* map, int64_t in, int64_t out, const float* g, const float* x,
             const float* w, float* grad_x, float* grad_w, float* grad_b),
            (c, map, in, out, g, x, w, grad_x, grad_w, grad_b))
HEPOPS_PASS(su3_exp, (hepops_context * c, int64_t n, const double* X, double* U), (c, n, X, U))
HEPOPS_PASS(su3_exp_backward, (hepops_context * c, int64_t n, const double* g, const double* X, double* grad),
            (c, n, g, X, grad))
HEPOPS_PASS(su3_project, (hepops_context * c, int64_t n, const double* M, double* U), (c, n, M, U))
HEPOPS_PASS(su3_project_backward, (hepops_context * c, int64_t n, const double* g, const double* M, double* grad),
            (c, n, g, M, grad))
HEPOPS_PASS(su3_staples,
            (hepops_context * c, int64_t D, const int64_t* extents, double c0, double c1, const double* links,
             double* A),
            (c, D, extents, c0, c1, links, A))

#define HEPOPS_PASS_BOTH(suffix, T)                                                                                  \
  HEPOPS_PASS(spline_##suffix,                                                                                       \
              (hepops_context * c, const hepops_spline* s, int64_t n, const T* x, const T* widths, const T* heights, \
               const T* slopes, T* value, T* logdet),                                                                \
              (c, s, n, x, widths, heights, slopes, value, logdet))                                                  \
  HEPOPS_PASS(spline_backward_##suffix,                                                                              \
              (hepops_context * c, const hepops_spline* s, int64_t n, const T* gv, const T* gl, const T* x,          \
               const T* widths, const T* heights, const T* slopes, T* gx, T* gw, T* gh, T* gs),                      \
              (c, s, n, gv, gl, x, widths, heights, slopes, gx, gw, gh, gs))

HEPOPS_PASS_BOTH(f32, float)
HEPOPS_PASS_BOTH(f64, double)
