"""hepops for C++ programs: installed, moved elsewhere, found by CMake, used by the examples of docs/."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hepops
import pytest
import torch
from conftest import ROOT
from hepops.lartpc import drift, recombine

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
CMAKE = shutil.which("cmake", path=PATH)
EXAMPLES = ROOT / "docs" / "examples" / "cpp"


def new_enough():
    version = subprocess.run([CMAKE, "--version"], capture_output=True, text=True).stdout if CMAKE else ""
    return bool(found := re.search(r"version (\d+)\.(\d+)", version)) and tuple(map(int, found.groups())) >= (3, 26)


pytestmark = pytest.mark.skipif(
    not new_enough() or not shutil.which("c++"), reason="needs cmake >= 3.26 and a C++ compiler"
)


def run(*command, **environment):
    result = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, env={**os.environ, "PATH": PATH, **environment}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """The headers, built without torch, installed, and moved to where nobody expects them."""
    folder = tmp_path_factory.mktemp("plain")
    run(CMAKE, "-S", ROOT, "-B", folder / "build", "-DHEPOPS_OPERATORS=OFF")
    run(CMAKE, "--build", folder / "build")
    run(CMAKE, "--install", folder / "build", "--prefix", folder / "first")
    return (folder / "first").rename(folder / "moved")


def charge_of_the_example():
    dE, dedx, distance = torch.tensor([[0.21, 2.1, 5], [0.25, 2.5, 15], [1.2, 12, 30]], dtype=torch.float64).T
    lifetime = torch.tensor(2200.0, dtype=torch.float64, requires_grad=True)
    total = (recombine(dedx) * dE / 23.6e-6 * drift(distance, lifetime).survival).sum()
    return total.item(), torch.autograd.grad(total, lifetime)[0].item()


def test_the_example_without_torch_agrees_with_python(prefix, tmp_path):
    run(CMAKE, "-S", EXAMPLES, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    run(CMAKE, "--build", tmp_path)
    last = run(tmp_path / "charge").splitlines()[-1]
    total, slope, slope_by_backward = map(float, re.findall(r"\d+\.\d+", last))
    expected, expected_slope = charge_of_the_example()
    assert total == pytest.approx(expected, rel=1e-8)  # as printed
    assert slope == slope_by_backward == pytest.approx(expected_slope, abs=1e-6)


def test_headers_include_nothing_that_is_not_installed(prefix, tmp_path):
    """Each torch-free header, alone, with the installed headers as the only ones beside the standard's."""
    include = prefix / "include"
    headers = {str(h.relative_to(include)): h.read_text() for h in include.rglob("*.h")}

    def needs_torch(name):
        included = re.findall(r'#include "(.+)"', headers[name])
        return "<torch/" in headers[name] or any(needs_torch(h) for h in included)

    free = [name for name in headers if not needs_torch(name)]
    assert {"hepops/core/dual.h", "hepops/lartpc/recombine.h", "hepops/lartpc/drift.h"} <= set(free)
    for name in free:
        source = tmp_path / "alone.cpp"
        source.write_text(f"#include <{name}>\n#include <{name}>\n")
        run("c++", "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{include}", source)


def test_a_version_that_is_too_new_is_refused(prefix, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.26)\nproject(p LANGUAGES NONE)\nfind_package(hepops 99 REQUIRED)\n"
    )
    with pytest.raises(AssertionError, match="hepops"):
        run(CMAKE, "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")


def test_operators_are_refused_where_they_were_not_built(prefix, tmp_path):
    with pytest.raises(AssertionError, match="built without torch and has no operators"):
        run(CMAKE, "-S", EXAMPLES, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}", "-DWITH_TORCH=ON")


def test_the_installed_package_serves_a_program_that_links_torch(tmp_path):
    try:
        configuration = hepops.cmake_path() / "hepops"
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert run(sys.executable, "-m", "hepops.cmake").strip() == str(hepops.cmake_path())
    if torch.version.cuda and not shutil.which("nvcc"):
        pytest.skip("find_package(Torch) of a CUDA build needs a CUDA toolkit")
    where = (f"-Dhepops_DIR={configuration}", f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}")
    run(CMAKE, "-S", EXAMPLES, "-B", tmp_path, *where, "-DWITH_TORCH=ON")
    run(CMAKE, "--build", tmp_path)
    charge = recombine(torch.tensor([2.1, 20.0], dtype=torch.float64)).tolist()
    for level in ("v2", ""):
        printed = run(tmp_path / "operators", HEPOPS_CPU_LEVEL=level)
        assert [float(x) for x in re.findall(r"0\.\d+", printed)] == pytest.approx(charge, abs=1e-4)
