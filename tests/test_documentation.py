"""The pages, the notebooks and the API make a documentation without a warning."""

import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("sphinx")
pytest.importorskip("myst_nb")
pytest.importorskip("furo")


@pytest.mark.slow
def test_documentation_is_built_without_warnings(tmp_path):
    line = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", str(ROOT / "docs")]
    run = subprocess.run([*line, str(ROOT), str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    pages = {path.name for path in (tmp_path / "docs").glob("*.html")}
    assert {"index.html", "quick-start.html", "gallery.html", "results.html", "cpp.html"} <= pages
    api = (tmp_path / "docs" / "api" / "lartpc.html").read_text()
    assert 'id="hepops.lartpc.Simulator"' in api and 'id="hepops.lartpc.hit_likelihood"' in api
    headers = (tmp_path / "docs" / "api" / "cpp.html").read_text()
    assert "hepops_simulator_create" in headers
    assert (tmp_path / "notebooks" / "01_simulate_an_event.html").exists()
