"""An exported network in a C++ program: the example of docs/, against Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import hepops
import pytest
import torch
from conftest import ROOT
from hepops import export

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def run(*command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, env={**os.environ, "PATH": PATH})
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def label(tmp_path_factory):
    """The example, built against the installed package and the LibTorch of Python."""
    cmake = shutil.which("cmake", path=PATH)
    if not cmake or not shutil.which("c++"):
        pytest.skip("needs cmake and a C++ compiler")
    try:
        configuration = hepops.cmake_path() / "hepops"
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if torch.version.cuda and not shutil.which("nvcc"):
        pytest.skip("find_package(Torch) of a CUDA build needs a CUDA toolkit")
    folder = tmp_path_factory.mktemp("label")
    where = (f"-Dhepops_DIR={configuration}", f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}")
    run(cmake, "-S", ROOT / "docs" / "examples" / "cpp", "-B", folder, *where, "-DWITH_TORCH=ON")
    run(cmake, "--build", folder, "--target", "label")
    return folder / "label"


@pytest.mark.slow
def test_a_program_labels_voxels_as_python_does(label, package, segmenter, event, tmp_path):
    coordinates, charge = event(800, seed=3)
    lines = zip(coordinates.tolist(), charge.tolist(), strict=True)
    (tmp_path / "voxels").write_text("".join(f"{' '.join(map(str, c))} {q!r}\n" for c, q in lines))
    printed = run(label, package, tmp_path / "voxels")
    found = torch.tensor([list(map(float, line.split())) for line in printed.splitlines()])
    loaded = export.load(package)(coordinates, charge)
    with torch.no_grad():
        expected = segmenter(coordinates, charge)
    assert torch.equal(found[:, 0].long(), expected.argmax(1))
    torch.testing.assert_close(found[:, 1:], loaded, rtol=1e-8, atol=0)  # as printed, with nine digits
    torch.testing.assert_close(found[:, 1:], expected, rtol=0, atol=1e-6)
    with pytest.raises(AssertionError, match="label: "):
        run(label, tmp_path / "nothing.pt2", tmp_path / "voxels")
