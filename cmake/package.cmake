# find_package(hepops): wherever the installed tree is moved to, since paths are relative to the configuration's file.
include(CMakePackageConfigHelpers)
configure_package_config_file(cmake/hepopsConfig.cmake.in ${PROJECT_BINARY_DIR}/hepopsConfig.cmake
  INSTALL_DESTINATION ${HEPOPS_CMAKEDIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/hepopsConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/hepopsConfig.cmake ${PROJECT_BINARY_DIR}/hepopsConfigVersion.cmake
  DESTINATION ${HEPOPS_CMAKEDIR})
install(EXPORT hepops NAMESPACE hepops:: FILE hepopsTargets.cmake DESTINATION ${HEPOPS_CMAKEDIR})
