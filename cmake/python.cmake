# hepops._core: part of the wheel; a plain build makes it where pybind11 is found.
if(Python_Development.Module_FOUND)
  if(SKBUILD)
    find_package(pybind11 CONFIG REQUIRED)
  else()
    find_package(pybind11 CONFIG QUIET)
  endif()
endif()
if(pybind11_FOUND)
  pybind11_add_module(_core csrc/python/module.cpp)
  target_link_libraries(_core PRIVATE hepops_core)
  target_compile_definitions(_core PRIVATE
    HEPOPS_VERSION="${PROJECT_VERSION}" HEPOPS_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
    HEPOPS_BUILD_TYPE="${CMAKE_BUILD_TYPE}" HEPOPS_CPU_LEVELS="${levels}"
    HEPOPS_CUDA_VERSION="${cuda_version}" HEPOPS_CUDA_ARCHITECTURES="${cuda_architectures}")
  if(HEPOPS_WHEEL)
    install(TARGETS _core DESTINATION hepops)
  endif()
endif()
