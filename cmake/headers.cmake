# hepops::headers: the headers, for a program as <hepops/core/vec.h>. In the sources they include each other from csrc
# as "core/vec.h"; what is installed says "hepops/core/vec.h", so that nobody else's core/ is in the way.
add_library(hepops_core INTERFACE)
add_library(hepops::headers ALIAS hepops_core)
set_target_properties(hepops_core PROPERTIES EXPORT_NAME headers)
target_compile_features(hepops_core INTERFACE cxx_std_20)

# The same names for a program that builds hepops within itself.
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include ${PROJECT_BINARY_DIR}/generated/hepops)
foreach(part MAJOR MINOR PATCH)
  math(EXPR HEPOPS_${part} "0${PROJECT_VERSION_${part}}")  # a version between releases may have two numbers
endforeach()
configure_file(cmake/version.h.in ${PROJECT_BINARY_DIR}/generated/hepops/version.h @ONLY)
file(CREATE_LINK ${PROJECT_SOURCE_DIR}/csrc ${PROJECT_BINARY_DIR}/include/hepops SYMBOLIC)
target_include_directories(hepops_core INTERFACE
  $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include> $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc>
  $<INSTALL_INTERFACE:${HEPOPS_INCLUDEDIR}>)

install(TARGETS hepops_core EXPORT hepops)
install(FILES ${PROJECT_BINARY_DIR}/generated/hepops/version.h DESTINATION ${HEPOPS_INCLUDEDIR}/hepops)
install(CODE "
  file(GLOB_RECURSE headers RELATIVE \"${PROJECT_SOURCE_DIR}/csrc\" \"${PROJECT_SOURCE_DIR}/csrc/*.h\" \"${PROJECT_SOURCE_DIR}/csrc/*.cuh\")
  foreach(header IN LISTS headers)
    file(READ \"${PROJECT_SOURCE_DIR}/csrc/\${header}\" text)
    string(REGEX REPLACE \"#include \\\"([a-z_]+[/.])\" \"#include \\\"hepops/\\\\1\" text \"\${text}\")
    file(WRITE \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${HEPOPS_INCLUDEDIR}/hepops/\${header}\" \"\${text}\")
  endforeach()
")
