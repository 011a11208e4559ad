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
from hepops import _core
from hepops.lartpc import Detector, Parameters, Simulator, drift, gun, recombine

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
    """The headers and the torch-free library, installed, and moved to where nobody expects them.

    Built for this processor's level alone: a level takes a minute.
    """
    folder = tmp_path_factory.mktemp("plain")
    level = f"-DHEPOPS_CPU_LEVELS={_core.cpu_level()}"
    run(CMAKE, "-S", ROOT, "-B", folder / "build", "-DHEPOPS_OPERATORS=OFF", level)
    run(CMAKE, "--build", folder / "build", "--parallel", os.cpu_count())
    run(CMAKE, "--install", folder / "build", "--prefix", folder / "first")
    return (folder / "first").rename(folder / "moved")


@pytest.fixture(scope="module")
def examples(prefix, tmp_path_factory):
    """The examples that need no torch, built against it."""
    folder = tmp_path_factory.mktemp("examples")
    run(CMAKE, "-S", EXAMPLES, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}")
    run(CMAKE, "--build", folder)
    return folder


def charge_of_the_example():
    dE, dedx, distance = torch.tensor([[0.21, 2.1, 5], [0.25, 2.5, 15], [1.2, 12, 30]], dtype=torch.float64).T
    lifetime = torch.tensor(2200.0, dtype=torch.float64, requires_grad=True)
    total = (recombine(dedx) * dE / 23.6e-6 * drift(distance, lifetime).survival).sum()
    return total.item(), torch.autograd.grad(total, lifetime)[0].item()


def test_the_example_of_headers_agrees_with_python(examples):
    last = run(examples / "charge").splitlines()[-1]
    total, slope, slope_by_backward = map(float, re.findall(r"\d+\.\d+", last))
    expected, expected_slope = charge_of_the_example()
    assert total == pytest.approx(expected, rel=1e-8)  # as printed
    assert slope == slope_by_backward == pytest.approx(expected_slope, abs=1e-6)


@pytest.mark.parametrize("seed", [None, 11])
def test_the_producer_makes_the_simulators_hits(examples, tmp_path, seed):
    """A framework's module, segments in and hits out: as Python's Simulator, for any number of threads."""
    detector = Detector.module0()
    segments = gun.shoot(detector, events=3, seed=2)
    parameters = {"lifetime": 1700.0, "efield": 0.51, "transverse_diffusion": 9e-6, "longitudinal_diffusion": 5e-6}
    numbers = torch.cat([segments.start, segments.end, segments.dE[:, None], segments.dEdx[:, None],
                         segments.t0[:, None]], 1).tolist()  # fmt: skip
    (tmp_path / "segments").write_text(
        "".join(f"{e} {' '.join(map(repr, row))}\n" for e, row in zip(segments.event.tolist(), numbers, strict=True))
    )
    settings = parameters | {"threshold": 4500.0} | ({} if seed is None else {"seed": seed})
    (tmp_path / "parameters").write_text("# of the module\n" + "".join(f"{k} {v!r}\n" for k, v in settings.items()))

    printed = run(examples / "produce", tmp_path / "parameters", tmp_path / "segments", 1)
    assert run(examples / "produce", tmp_path / "parameters", tmp_path / "segments", 3) == printed
    sim = Simulator(detector.replace(frontend=detector.frontend.replace(threshold=4500.0)), Parameters(**parameters))
    with torch.no_grad():
        hits = sim(segments, seed)
    found = torch.tensor([list(map(float, line.split())) for line in printed.splitlines()], dtype=torch.float64)
    expected = torch.stack(
        [getattr(hits, n).double() for n in ("event", "tpc", "ix", "iy", "time", "charge", "adc")], 1
    )
    assert len(found) > 100 and torch.equal(found[:, :4], expected[:, :4])
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-9)  # the rounding of float32 currents


def test_the_producer_refuses_by_name(examples, tmp_path):
    (tmp_path / "parameters").write_text("lifetime -1\n")
    (tmp_path / "segments").write_text("0 0 0 0 1 1 1 nan 2 0\n")
    with pytest.raises(AssertionError, match="lifetime must lie in"):
        run(examples / "produce", tmp_path / "parameters", tmp_path / "segments")
    (tmp_path / "parameters").write_text("")
    with pytest.raises(AssertionError, match=r"too short|dE of segment 0"):
        run(examples / "produce", tmp_path / "parameters", tmp_path / "segments")


def test_the_example_in_c_agrees_with_python(examples):
    lines = [line.split() for line in run(examples / "laws").splitlines()]
    by_name = {line[0]: [float(x) for x in line if re.fullmatch(r"[-+]?\.?\d[-+.e\d]*", x)] for line in lines}
    segments = hepops.lartpc.Segments(
        event=torch.tensor([3]),
        start=torch.tensor([[-20.0, 1, 2]], dtype=torch.float64),
        end=torch.tensor([[-18.0, 4, 7]], dtype=torch.float64),
        **{name: torch.tensor([x], dtype=torch.float64) for name, x in {"dE": 14.0, "dEdx": 2.27, "t0": 0.0}.items()},
        pdg=torch.tensor([13]),
        track=torch.tensor([0]),
    )
    with torch.no_grad():
        hits = Simulator(Detector.module0())(segments)
    found = [len(hits), float(hits.charge.double().sum()), hits.reports["electrons_arriving"]]
    assert by_name["hits"] == pytest.approx(found, rel=1e-6)
    fraction = recombine(torch.tensor([2.1, 20.0], dtype=torch.float64))
    survival = drift(torch.tensor([5.0, 30.0], dtype=torch.float64), 2200.0).survival
    assert by_name["fraction"] == pytest.approx([*fraction.tolist(), *survival.tolist()], rel=1e-14)
    assert "refused: frontend: threshold must be 0.001 e or more, got -1" in [" ".join(line) for line in lines]
    taken, given_back = by_name["level"]
    assert taken == given_back > 50  # all memory came from the example's allocator, and went back


def test_the_classes_keep_their_promises(prefix, tmp_path):
    """Exceptions, memory, threads, and laws of the numbers: api_program.cpp, linked as CMake links it."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.26)\nproject(p LANGUAGES CXX)\n"
        "find_package(hepops REQUIRED COMPONENTS core)\nfind_package(Threads REQUIRED)\n"
        f"add_executable(p {ROOT / 'tests' / 'core' / 'api_program.cpp'})\n"
        "target_link_libraries(p PRIVATE hepops::core Threads::Threads)\n"
        "target_compile_options(p PRIVATE -Wall -Wextra -Werror)\n"
    )
    run(CMAKE, "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run(CMAKE, "--build", tmp_path / "build")
    assert run(tmp_path / "build" / "p") == "0 failures\n"


def test_a_level_that_is_not_there_is_refused(examples):
    with pytest.raises(AssertionError, match="libhepops_core_v9"):
        run(examples / "laws", HEPOPS_CPU_LEVEL="v9")


def test_headers_include_nothing_that_is_not_installed(prefix, tmp_path):
    """Each torch-free header, alone, with the installed headers as the only ones beside the standard's."""
    include = prefix / "include"
    headers = {str(h.relative_to(include)): h.read_text() for h in include.rglob("*.h")}

    def needs_torch(name):
        included = re.findall(r'#include "(.+)"', headers[name])
        return "<torch/" in headers[name] or any(needs_torch(h) for h in included)

    free = [name for name in headers if not needs_torch(name)]
    assert {"hepops/core/dual.h", "hepops/lartpc/recombine.h", "hepops/hepops.h", "hepops/sdk/scene.h"} <= set(free)
    for name in free:
        source = tmp_path / "alone.cpp"
        source.write_text(f"#include <{name}>\n#include <{name}>\n")
        run("c++", "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{include}", source)


def test_the_c_header_is_c(prefix, tmp_path):
    (tmp_path / "alone.c").write_text("#include <hepops/c_api.h>\n#include <hepops/c_api.h>\n")
    flags = (
        "-fsyntax-only",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "-Wstrict-prototypes",
        f"-I{prefix / 'include'}",
    )
    run("cc", "-std=c11", *flags, tmp_path / "alone.c")


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
    run(CMAKE, "--build", tmp_path, "--target", "operators")
    charge = recombine(torch.tensor([2.1, 20.0], dtype=torch.float64)).tolist()
    for level in ("v2", ""):
        printed = run(tmp_path / "operators", HEPOPS_CPU_LEVEL=level)
        assert [float(x) for x in re.findall(r"0\.\d+", printed)] == pytest.approx(charge, abs=1e-4)
