# One library per variant. LANGUAGE belongs to a file and a directory, so each variant has a directory of its own.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(levels ${HEPOPS_CPU_LEVELS})
else()
  set(levels generic)
endif()
set(variants ${levels})
include(CheckLanguage)
if(HEPOPS_CUDA)
  check_language(CUDA)
endif()
if(HEPOPS_CUDA AND CMAKE_CUDA_COMPILER AND EXISTS ${torch}/lib/libtorch_cuda.so)
  enable_language(CUDA)
  list(APPEND variants cuda)
  set(cuda_version ${CMAKE_CUDA_COMPILER_VERSION})
  set(cuda_architectures ${CMAKE_CUDA_ARCHITECTURES})
  if(HEPOPS_CUDA_FAMILIES)
    include(cmake/cuda_families.cmake)
  endif()
elseif(HEPOPS_CUDA)
  message(STATUS "hepops: no nvcc (or a torch without CUDA), so the CUDA library is left out; all else is built")
endif()
foreach(variant ${variants})
  add_subdirectory(csrc ${variant})
endforeach()

# hepops::ops: for programs that link LibTorch. It loads the operators that suit the machine, as the Python import does,
# and tells what was built; hepops._core asks it that through ctypes, so that one wheel serves every Python.
list(JOIN levels " " levels_in_words)  # a semicolon would end the definition
list(JOIN cuda_architectures " " architectures_in_words)
add_library(hepops_ops SHARED csrc/load/load.cpp csrc/load/about.cpp)
add_library(hepops::ops ALIAS hepops_ops)
set_target_properties(hepops_ops PROPERTIES EXPORT_NAME ops)
target_compile_definitions(hepops_ops PRIVATE
  HEPOPS_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
  HEPOPS_BUILD_TYPE="${CMAKE_BUILD_TYPE}" HEPOPS_CPU_LEVELS="${levels_in_words}" HEPOPS_BUILT_WITH_TORCH="${torch_version}" HEPOPS_OLDEST_TORCH="${oldest_torch}"
  HEPOPS_CUDA_VERSION="${cuda_version}" HEPOPS_CUDA_ARCHITECTURES="${architectures_in_words}")
target_link_libraries(hepops_ops PUBLIC hepops_core PRIVATE ${CMAKE_DL_LIBS})
hepops_manylinux(hepops_ops)
install(TARGETS hepops_ops EXPORT hepops DESTINATION ${HEPOPS_LIBDIR})
