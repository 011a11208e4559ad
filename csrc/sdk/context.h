#pragma once
// A context, and the wall that no exception passes: what a function throws becomes a status and the context's message.
#include <cstdio>
#include <sstream>
#include <stdexcept>

#include "sdk/memory.h"

struct hepops_context {
  hepops::sdk::Resource resource;
  char message[1024] = "";

  explicit hepops_context(const hepops_execution& execution) : resource(execution) {}
  hepops::sdk::Parallel parallel() const { return hepops::sdk::Parallel(resource.execution()); }
};

namespace hepops::sdk {

template <class... Parts>
[[noreturn]] void refuse(const Parts&... message) {
  std::ostringstream text;
  (text << ... << message);
  throw std::invalid_argument(text.str());
}

template <class... Parts>
void check(bool good, const Parts&... message) {
  if (!good) refuse(message...);
}

template <class F>
hepops_status guarded(hepops_context* context, const F& f) noexcept {
  if (!context) return HEPOPS_INVALID_ARGUMENT;
  const auto failed = [&](hepops_status status, const char* message) {
    std::snprintf(context->message, sizeof(context->message), "%s", message);
    return status;
  };
  try {
    f();
    context->message[0] = '\0';
    return HEPOPS_OK;
  } catch (const std::invalid_argument& error) {
    return failed(HEPOPS_INVALID_ARGUMENT, error.what());
  } catch (const std::bad_alloc&) {
    return failed(HEPOPS_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return failed(HEPOPS_FAILED, error.what());
  } catch (...) {
    return failed(HEPOPS_FAILED, "an exception of an unknown kind");
  }
}

}  // namespace hepops::sdk
