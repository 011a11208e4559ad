"""The package says its types (py.typed), and a program that uses it passes mypy in strict mode."""

import subprocess
import sys
from pathlib import Path

import hepops
import pytest

ROOT = Path(__file__).parent.parent


def mypy(path, *words):
    pytest.importorskip("mypy")
    words = ["--strict", "--config-file", "/dev/null", "--ignore-missing-imports", "--follow-imports=silent", *words]
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", ROOT / ".mypy_cache", *words, path],
        capture_output=True, text=True, cwd=ROOT / "python",
    )  # fmt: skip


def test_the_package_is_typed():
    assert any((Path(part) / "py.typed").exists() for part in hepops.__path__)


@pytest.mark.slow
def test_a_strict_program_passes_and_a_wrong_one_does_not(tmp_path):
    found = mypy(ROOT / "tests" / "typing" / "example.py")
    assert found.returncode == 0, found.stdout
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from hepops.lattice import SUN\nname: str = SUN(3, (4, 4), beta=4.0).cold(2)\n")
    assert "Incompatible types in assignment" in mypy(wrong).stdout
