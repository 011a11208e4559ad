# torch_stable: torch's stable headers and the library that carries its C functions, found without importing torch.
set(torch "${HEPOPS_TORCH}")
if(NOT torch AND Python_Interpreter_FOUND)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "from importlib.util import find_spec; print(find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE torch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()

if(EXISTS "${torch}/include/torch/csrc/stable/tensor.h")
  add_library(torch_stable INTERFACE)
  target_include_directories(torch_stable SYSTEM INTERFACE ${torch}/include)
  set(oldest_torch 2.10)
  target_compile_definitions(torch_stable INTERFACE TORCH_TARGET_VERSION=0x020a000000000000)  # the same in hex
  target_link_libraries(torch_stable INTERFACE ${torch}/lib/libtorch_cpu.so)
  # what `hepops info` says it was compiled against; pip's torch has version.py, a LibTorch build-version
  file(GLOB torch_version_file ${torch}/version.py ${torch}/build-version)
  if(torch_version_file)
    file(READ ${torch_version_file} torch_version)
    string(REGEX MATCH "[0-9]+\\.[0-9]+[0-9a-z.+]*" torch_version "${torch_version}")
  endif()
elseif(HEPOPS_TORCH)
  message(FATAL_ERROR "hepops: HEPOPS_TORCH=${HEPOPS_TORCH} has no include/torch/csrc/stable/tensor.h (torch >= 2.10)")
elseif(SKBUILD)
  message(FATAL_ERROR "hepops is compiled against torch's headers (>= 2.10), and ${Python_EXECUTABLE} has none: pip install torch")
else()
  message(STATUS "hepops: no torch >= 2.10 (HEPOPS_TORCH names a LibTorch), so the operators are left out: headers alone")
endif()
