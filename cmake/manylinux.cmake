# HEPOPS_MANYLINUX: libraries for every Linux that torch itself serves (glibc 2.28, libstdc++ of GCC 8), from a compiler
# of today. The linker replaces the few newer symbols by those of manylinux.cpp; auditwheel checks that none was missed.
if(HEPOPS_MANYLINUX)
  add_library(hepops_manylinux OBJECT cmake/manylinux.cpp)
  set_target_properties(hepops_manylinux PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_compile_options(hepops_manylinux PRIVATE -O2)
  set(hepops_wrapped exp log pow hypot dlopen dlsym dlerror dladdr __libc_single_threaded)
  list(TRANSFORM hepops_wrapped PREPEND "LINKER:--wrap=")

  # What CUDA's static runtime takes from libpthread, libdl and librt, which libc took over (2.34).
  add_library(hepops_manylinux_cuda OBJECT cmake/manylinux_cuda.cpp)
  set_target_properties(hepops_manylinux_cuda PROPERTIES POSITION_INDEPENDENT_CODE ON)
  file(STRINGS cmake/manylinux_cuda.cpp hepops_wrapped_cuda REGEX "^HEPOPS_FORWARD")
  list(TRANSFORM hepops_wrapped_cuda REPLACE ".*\\(([a-z_]+), .*" "LINKER:--wrap=\\1")
  list(APPEND hepops_wrapped_cuda  # there on every glibc; where symbols live in libc they are empty
    "LINKER:--push-state,--no-as-needed,-l:libpthread.so.0,-l:libdl.so.2,-l:librt.so.1,--pop-state")
endif()

function(hepops_manylinux library)
  if(HEPOPS_MANYLINUX)
    target_sources(${library} PRIVATE $<TARGET_OBJECTS:hepops_manylinux>)
    target_link_options(${library} PRIVATE ${hepops_wrapped})
    target_link_libraries(${library} PRIVATE ${CMAKE_DL_LIBS})
    if(library STREQUAL "hepops_cuda")
      target_sources(${library} PRIVATE $<TARGET_OBJECTS:hepops_manylinux_cuda>)
      target_link_options(${library} PRIVATE ${hepops_wrapped_cuda})
    endif()
  endif()
endfunction()
