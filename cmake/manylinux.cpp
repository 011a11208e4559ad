// What glibc 2.28 and GCC 8's libstdc++ lack, in their words (cmake/manylinux.cmake).
//
// glibc gave exp, log, pow (2.29) and hypot (2.35) new versions that leave out SVID error handling: the older symbols
// compute the same values. dlopen and its kin moved from libdl into libc (2.34): the older symbols are in both.
#include <dlfcn.h>

#include <memory_resource>
#include <new>
#include <sstream>

#define HEPOPS_OLD(type, name, parameters, ...)           \
  extern "C" type name##_old parameters;                  \
  __asm__(".symver " #name "_old," #name "@GLIBC_2.2.5"); \
  extern "C" __attribute__((visibility("hidden"))) type __wrap_##name parameters { return name##_old(__VA_ARGS__); }

HEPOPS_OLD(double, exp, (double x), x)
HEPOPS_OLD(double, log, (double x), x)
HEPOPS_OLD(double, pow, (double x, double y), x, y)
HEPOPS_OLD(double, hypot, (double x, double y), x, y)
HEPOPS_OLD(void*, dlopen, (const char* file, int mode), file, mode)
HEPOPS_OLD(void*, dlsym, (void* handle, const char* name), handle, name)
HEPOPS_OLD(char*, dlerror, (), )
HEPOPS_OLD(int, dladdr, (const void* address, Dl_info* info), address, info)

// glibc 2.32: shared_ptr asks whether it may skip atomic counting. It may not.
extern "C" {
__attribute__((visibility("hidden"))) char __wrap___libc_single_threaded = 0;
}

// libstdc++ of GCC 9 and 11 holds these; here they are made on the spot.
namespace std {
__attribute__((weak)) void __throw_bad_array_new_length() { throw bad_array_new_length(); }
template basic_ostringstream<char>::basic_ostringstream();
template basic_stringstream<char>::basic_stringstream();
template string basic_stringbuf<char>::str() const&;
template string basic_stringbuf<char>::str() &&;
pmr::memory_resource::~memory_resource() = default;
}  // namespace std

// exception_ptr counts its owners by these two from GCC 11 on; before, by its copy and its end, which are there still.
extern "C" {
void exception_ptr_copy(void* to, const void* from) __asm__("_ZNSt15__exception_ptr13exception_ptrC1ERKS0_");
void exception_ptr_end(void* pointer) __asm__("_ZNSt15__exception_ptr13exception_ptrD1Ev");
void exception_ptr_addref(void* pointer) __asm__("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv");
void exception_ptr_release(void* pointer) __asm__("_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv");

__attribute__((visibility("hidden"))) void exception_ptr_addref(void* pointer) {
  void* forgotten;
  exception_ptr_copy(&forgotten, pointer);
}
__attribute__((visibility("hidden"))) void exception_ptr_release(void* pointer) { exception_ptr_end(pointer); }
}
