// The table of a level's library, and its contexts.
#include "sdk/context.h"
#include "sdk/functions.h"

namespace hepops::sdk {
namespace {

hepops_status context_create(const hepops_execution* execution, hepops_context** context) {
  if (!context) return HEPOPS_INVALID_ARGUMENT;
  *context = nullptr;
  const hepops_execution one_thread{};
  try {
    *context = make<hepops_context>(execution ? *execution : one_thread);
    return HEPOPS_OK;
  } catch (const std::bad_alloc&) {
    return HEPOPS_OUT_OF_MEMORY;
  }
}

const char* error(const hepops_context* context) { return context ? context->message : "context is NULL"; }

Functions filled() {
  Functions f{};
  f.context_create = context_create;
  f.context_destroy = destroy<hepops_context>;
  f.error = error;
  fill_simulate(f);
  fill_argon(f);
  fill_sparse(f);
  fill_spline(f);
  fill_su3(f);
  fill_staples(f);
  return f;
}

}  // namespace
}  // namespace hepops::sdk

const hepops::sdk::Functions* hepops_functions(size_t size) {
  static const hepops::sdk::Functions functions = hepops::sdk::filled();
  return size == sizeof(functions) ? &functions : nullptr;
}
