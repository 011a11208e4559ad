"""The C++ and CMake of README and docs: compiled as they stand, run where they are programs, compared with Python."""

import re

import hepops
import pytest
import torch
from conftest import ROOT
from hepops.lartpc import Detector, Parameters, Segments, Simulator

from core.test_cpp_package import CMAKE, pytestmark, run  # noqa: F401 # pytestmark: what a compiler is needed for

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    """Every block of a language, with its page."""
    return [(page, text) for page in PAGES for found, text in BLOCK.findall(page.read_text()) if found == language]


@pytest.fixture(scope="module")
def configuration():
    try:
        return f"-Dhepops_DIR={hepops.cmake_path() / 'hepops'}"
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def programs(configuration, tmp_path_factory):
    """The blocks of docs/cpp.md: a program, and a function that a second one calls."""
    folder = tmp_path_factory.mktemp("pages")
    program, function = (text for page, text in blocks("cpp") if page.name == "cpp.md")
    (folder / "one.cpp").write_text(program)
    (folder / "all.cpp").write_text(
        f"{function}\nstatic std::pmr::synchronized_pool_resource arena;\n"
        + program.replace("simulator(config)", "simulator(config, on_all_cores(&arena))")
    )
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.26)\nproject(pages LANGUAGES CXX)\nset(CMAKE_CXX_STANDARD 20)\n"
        "find_package(hepops REQUIRED COMPONENTS core)\nadd_executable(one one.cpp)\nadd_executable(several all.cpp)\n"
        "target_link_libraries(one PRIVATE hepops::core)\ntarget_link_libraries(several PRIVATE hepops::core)\n"
        "target_compile_options(several PRIVATE -fopenmp)\ntarget_link_options(several PRIVATE -fopenmp)\n"
    )
    run(CMAKE, "-S", folder, "-B", folder / "build", configuration)
    run(CMAKE, "--build", folder / "build")
    return folder / "build"


def test_the_program_of_the_page_makes_pythons_hits(programs):
    printed = run(programs / "one")
    assert "on_all_cores" in (programs.parent / "all.cpp").read_text().split("int main")[1]
    assert run(programs / "several", OMP_NUM_THREADS="3") == printed
    double = torch.float64
    segments = Segments(
        event=torch.tensor([0, 0]),
        start=torch.tensor([[-20, 1, 2], [-18, 4, 7]], dtype=double),
        end=torch.tensor([[-18, 4, 7], [-17, 6, 9]], dtype=double),
        dE=torch.tensor([14, 7], dtype=double),
        dEdx=torch.tensor([2.27, 2.33], dtype=double),
        t0=torch.zeros(2, dtype=double),
        pdg=torch.tensor([13, 13]),
        track=torch.tensor([0, 0]),
    )
    with torch.no_grad():
        expected = Simulator(Detector.module0(), Parameters(lifetime=1800.0))(segments, 7).charge.double()
    found = torch.tensor(list(map(float, printed.split())), dtype=double)
    assert len(found) > 10
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=0)  # the rounding of float32 currents


def test_the_lines_for_libtorch_compile(configuration, tmp_path):
    (text,) = [text for page, text in blocks("cpp") if page.name == "export.md"]
    head, body = text.split("\n\n", 1)
    function = f"at::Tensor label(at::Tensor coordinates, at::Tensor charge) {{\n{body}return logits;\n}}\n"
    (tmp_path / "page.cpp").write_text(f"{head}\n{function}")
    from torch.utils.cpp_extension import include_paths

    folders = [hepops.cmake_path().parents[1] / "include", *include_paths()]
    run("c++", "-std=c++20", "-fsyntax-only", *(f"-I{f}" for f in folders), tmp_path / "page.cpp")


@pytest.mark.parametrize("page, text", blocks("cmake"), ids=lambda value: getattr(value, "stem", ""))
def test_the_cmake_of_the_pages_configures(page, text, configuration, tmp_path):
    names = re.findall(r"target_link_libraries\((\w+)", text)
    (tmp_path / "one.cpp").write_text("int one() { return 1; }\n")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.26)\nproject(page LANGUAGES CXX)\n"
        + "".join(f"add_library({name} STATIC one.cpp)\n" for name in names)
        + text
    )
    assert names
    run(CMAKE, "-S", tmp_path, "-B", tmp_path / "build", configuration)


def test_no_block_of_cpp_is_left_out():
    assert sorted(page.name for page, _ in blocks("cpp")) == ["cpp.md", "cpp.md", "export.md"]
