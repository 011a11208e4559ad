"""Where CMake finds hepops: `cmake -Dhepops_DIR="$(python -m hepops.cmake)/hepops"`, or that path as a prefix."""

from pathlib import Path

from hepops.core.libraries import DIRECTORY


def cmake_path() -> Path:
    """The folder that holds hepops/hepopsConfig.cmake, for find_package(hepops) in a C++ project.

    Raises:
        FileNotFoundError: this copy of hepops was not installed by pip, but put together by hand.
    """
    path = DIRECTORY / "share" / "cmake"
    if not (path / "hepops" / "hepopsConfig.cmake").exists():
        raise FileNotFoundError(f"hepops: no CMake configuration in {path}; was hepops installed with pip?")
    return path


if __name__ == "__main__":
    print(cmake_path())
