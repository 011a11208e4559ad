"""The package says its types (py.typed), and a program that uses it passes mypy in strict mode."""

import subprocess
import sys
from pathlib import Path

import hepops
import pytest

ROOT = Path(__file__).parent.parent


def test_the_package_is_typed():
    assert any((Path(part) / "py.typed").exists() for part in hepops.__path__)


@pytest.mark.slow
def test_a_strict_program_passes_and_a_wrong_one_does_not(tmp_path):
    pytest.importorskip("mypy")
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from hepops.lattice import SUN\nname: str = SUN(3, (4, 4), beta=4.0).cold(2)\n")
    words = ["--strict", "--config-file", "", "--ignore-missing-imports", "--follow-imports=silent"]
    found = subprocess.run(
        [sys.executable, "-m", "mypy", *words, ROOT / "tests" / "typing" / "example.py", wrong],
        capture_output=True, text=True, cwd=ROOT / "python",
    )  # fmt: skip
    lines = found.stdout.splitlines()
    assert len(lines) == 2 and "wrong.py:2" in lines[0] and "Incompatible types in assignment" in lines[0], found.stdout
