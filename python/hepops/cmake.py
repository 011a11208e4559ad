"""`python -m hepops.cmake` prints where CMake finds hepops: cmake -Dhepops_DIR="$(python -m hepops.cmake)/hepops"."""

from hepops.core.libraries import cmake_path

if __name__ == "__main__":
    print(cmake_path())
