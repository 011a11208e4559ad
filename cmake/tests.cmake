# hepops_tests: one gtest binary of every tests/<domain>/test_<stem>.cpp.
include(FetchContent)
find_package(GTest QUIET)
if(NOT GTest_FOUND AND HEPOPS_FETCH)
  set(INSTALL_GTEST OFF)
  FetchContent_Declare(googletest URL https://github.com/google/googletest/archive/refs/tags/v1.17.0.tar.gz)
  FetchContent_MakeAvailable(googletest)
endif()

# Dense algebra as an oracle: the system's Eigen, else that of the PyPI package cmeel-eigen, else fetched.
if(HEPOPS_EIGEN)
  if(Python_Interpreter_FOUND)
    execute_process(COMMAND ${Python_EXECUTABLE} -c "import os, sys; print(*[p for p in (s + '/cmeel.prefix' for s in sys.path) if os.path.isdir(p)][:1])"
      OUTPUT_VARIABLE cmeel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  find_package(Eigen3 3.4 QUIET CONFIG HINTS ${cmeel})
  if(NOT TARGET Eigen3::Eigen AND HEPOPS_FETCH)
    FetchContent_Declare(eigen URL https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.gz SOURCE_SUBDIR none)
    FetchContent_MakeAvailable(eigen)
    add_library(hepops_eigen INTERFACE)
    target_include_directories(hepops_eigen SYSTEM INTERFACE ${eigen_SOURCE_DIR})
    add_library(Eigen3::Eigen ALIAS hepops_eigen)
  endif()
endif()

enable_testing()
include(GoogleTest)
file(GLOB tests CONFIGURE_DEPENDS tests/*/test_*.cpp)
add_executable(hepops_tests ${tests})
target_link_libraries(hepops_tests PRIVATE hepops_core GTest::gtest_main $<TARGET_NAME_IF_EXISTS:Eigen3::Eigen>)
target_compile_options(hepops_tests PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-psabi>)  # vectors of 64 bytes stay within the binary
gtest_discover_tests(hepops_tests)
