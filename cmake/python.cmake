# hepops._core: part of the wheel; a plain build makes it where pybind11 is found.
if(Python_Development.Module_FOUND)
  if(SKBUILD)
    find_package(pybind11 CONFIG REQUIRED)
  else()
    find_package(pybind11 CONFIG QUIET)
  endif()
endif()
if(pybind11_FOUND)
  list(JOIN levels " " levels_in_words)  # a semicolon would end the definition
  list(JOIN cuda_architectures " " architectures_in_words)
  pybind11_add_module(_core csrc/python/module.cpp)
  target_link_libraries(_core PRIVATE hepops_core)
  target_compile_definitions(_core PRIVATE
    HEPOPS_VERSION="${PROJECT_VERSION}" HEPOPS_COMPILER="${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}"
    HEPOPS_BUILD_TYPE="${CMAKE_BUILD_TYPE}" HEPOPS_CPU_LEVELS="${levels_in_words}"
    HEPOPS_CUDA_VERSION="${cuda_version}" HEPOPS_CUDA_ARCHITECTURES="${architectures_in_words}")
  if(HEPOPS_WHEEL)
    install(TARGETS _core DESTINATION hepops)
  endif()
endif()
