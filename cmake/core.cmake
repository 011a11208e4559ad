# hepops::core: the headers (hepops::headers) and libhepops_core, the torch-free functions of c_api.h: one library for
# each x86-64 level, and one that programs link and that picks among them. Needs a C++20 compiler and nothing else.
file(GLOB sdk CONFIGURE_DEPENDS csrc/sdk/*.cpp)
set(selects csrc/sdk/select.cpp csrc/sdk/defaults.cpp)
list(TRANSFORM selects PREPEND ${PROJECT_SOURCE_DIR}/)
list(REMOVE_ITEM sdk ${selects})
# What Python does with torch's elementwise operators is done here without contraction, to the same last bit.
set_source_files_properties(csrc/sdk/pieces.cpp csrc/sdk/tables.cpp PROPERTIES COMPILE_OPTIONS -ffp-contract=off)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(core_levels ${HEPOPS_CPU_LEVELS})
else()
  set(core_levels generic)
endif()
foreach(level ${core_levels})
  set(library hepops_core_${level})
  add_library(${library} SHARED ${sdk})
  # as the operators are compiled (csrc/CMakeLists.txt), so that the numbers are theirs
  target_compile_options(${library} PRIVATE -O3 -fno-math-errno -fno-trapping-math -Wall -Wextra
    $<$<CXX_COMPILER_ID:GNU>:-Wno-psabi>)  # vectors of 64 bytes stay within the library
  if(NOT level STREQUAL "generic")
    target_compile_options(${library} PRIVATE -march=x86-64-${level} $<$<STREQUAL:${level},v4>:-mprefer-vector-width=512>)
  endif()
  target_link_libraries(${library} PRIVATE hepops_core)
  target_link_options(${library} PRIVATE -Wl,--exclude-libs,ALL)
  hepops_manylinux(${library})
  install(TARGETS ${library} DESTINATION ${HEPOPS_LIBDIR})
endforeach()

add_library(hepops_core_library SHARED ${selects})
add_library(hepops::core ALIAS hepops_core_library)
set_target_properties(hepops_core_library PROPERTIES EXPORT_NAME core OUTPUT_NAME hepops_core)
target_compile_definitions(hepops_core_library PRIVATE HEPOPS_VERSION="${hepops_version}")
target_link_libraries(hepops_core_library PUBLIC hepops_core PRIVATE ${CMAKE_DL_LIBS})
hepops_manylinux(hepops_core_library)
if(core_levels)
  list(TRANSFORM core_levels PREPEND hepops_core_ OUTPUT_VARIABLE core_libraries)
  add_dependencies(hepops_core_library ${core_libraries})
endif()
install(TARGETS hepops_core_library EXPORT hepops DESTINATION ${HEPOPS_LIBDIR})
