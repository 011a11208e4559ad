"""cmake/manylinux.cpp: a program that uses what glibc and libstdc++ gained lately runs, and asks for none of it."""

import re
import shutil
import subprocess

import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(
    not shutil.which("g++") or not shutil.which("objdump"), reason="needs GCC and binutils, as make wheel does"
)

PROGRAM = """
#include <dlfcn.h>
#include <cmath>
#include <exception>
#include <iostream>
#include <memory>
#include <memory_resource>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <vector>

int main(int words, char**) {
  std::exception_ptr kept;
  {
    std::exception_ptr thrown;
    try {
      throw std::runtime_error("told");
    } catch (...) {
      thrown = std::current_exception();
    }
    std::vector<std::exception_ptr> owners(100, thrown);
    kept = owners[7];
    std::thread([&] { auto another = owners[3]; owners.clear(); }).join();
  }
  std::ostringstream said;
  try {
    std::rethrow_exception(kept);
  } catch (const std::exception& error) {
    said << error.what();
  }
  try {
    const int below_zero = -words;
    std::unique_ptr<int[]> none(new int[below_zero]);
    said << " allocated";
  } catch (const std::bad_array_new_length&) {
    said << " refused";
  }
  const double x = words;
  std::pmr::monotonic_buffer_resource memory;
  std::pmr::vector<double> values({std::exp(x), std::log(x + 1), std::pow(x + 1, 0.5), std::hypot(3 * x, 4 * x)}, &memory);
  said.precision(17);
  for (double value : values) said << ' ' << value;
  said << (dlopen("nowhere.so", RTLD_NOW) ? " opened" : " not opened") << (dlerror() ? ", with a reason" : "");
  std::cout << said.str() << std::endl;
}
"""


def wrapped():
    """The symbols that the linker is told to replace."""
    text = (ROOT / "cmake" / "manylinux.cmake").read_text()
    return re.search(r"hepops_wrapped ([^)]*)\)", text)[1].split()


def newest(program, family):
    table = subprocess.run(["objdump", "-T", program], capture_output=True, text=True, check=True).stdout
    return max(([int(k) for k in found.split(".")] for found in re.findall(rf"\b{family}_([0-9.]+)", table)), default=[0])


def test_newer_symbols_are_replaced_by_older_ones_of_the_same_values(tmp_path):
    (tmp_path / "program.cpp").write_text(PROGRAM)
    command = ["g++", "-std=gnu++20", "-O1", tmp_path / "program.cpp"]
    said = {}
    for name, more in (
        ("plain", ["-pthread", "-ldl"]),
        ("old", [ROOT / "cmake" / "manylinux.cpp", *(f"-Wl,--wrap={symbol}" for symbol in wrapped()), "-ldl"]),
    ):
        program = tmp_path / name
        subprocess.run([*command, *more, "-o", program], check=True)
        said[name] = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert said["plain"] == said["old"]  # to the last bit
    assert said["old"].startswith("told refused 2.718") and "not opened, with a reason" in said["old"]
    assert newest(tmp_path / "old", "GLIBCXX") <= [3, 4, 25] and newest(tmp_path / "old", "CXXABI") <= [1, 3, 11]
    # what a program's own start and its threads ask for is not in a library
    table = subprocess.run(["objdump", "-T", tmp_path / "old"], capture_output=True, text=True).stdout
    late = re.findall(r"GLIBC_2\.(?:29|3\d)\)?\s+(\w+)", table)
    assert set(late) <= {"__libc_start_main", "pthread_create"}
