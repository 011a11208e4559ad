"""The `hepops` lines of README and docs run, page by page and in order, with the files that the page made before.

Not run here: `segment`, `posterior` and `demo` (minutes; tests/segmentation, tests/flows and tests/cli run them small),
`export` and `run` (tests/export), and lines of other programs. That their options exist is seen in test_docs.py.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT, shared
from test_docs import BLOCK, PAGES, relative

RUN = {"gun", "simulate", "display", "calibrate", "info", "merge", "models", "reproduce", "export-packets"}
LEFT_OUT = {"facilities"}  # batch systems' jobs; tests/test_recipes.py runs what can be run of them
SHARDS = 3  # in the place of the hundred that a page divides its files among
SHORT = ["gun", "--number", "2", "--particle", "proton", "--energy", "100:200", "--topology", "inside", "--seed", "1"]


def invoke(arguments):
    from hepops.cli import app
    from typer.testing import CliRunner

    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    torch.set_num_threads(threads)
    assert result.exit_code == 0, f"hepops {' '.join(arguments)}: {result.output}"
    return result.output


def expand(word):
    """What a shell makes of a pattern."""
    found = sorted(str(path) for path in Path.cwd().glob(word)) if "*" in word else []
    return [str(Path(path).name) for path in found] or [word]


def commands(block):
    """The `hepops` lines of a block, as lists of words, the shards' once for each."""
    for line in block.replace("\\\n", " ").splitlines():
        if not line.startswith("hepops "):
            continue
        for shard in range(SHARDS) if "$SLURM_ARRAY_TASK_ID" in line else [0]:
            told = line.replace("$SLURM_ARRAY_TASK_ID/100", f"{shard}/{SHARDS}").replace(
                "$SLURM_ARRAY_TASK_ID", str(shard)
            )
            words = shlex.split(told, comments=True)
            if words[1] in RUN:
                yield words[1:]


def given(page):
    """The files that a page supposes: a user's tracks, what a detector made of them, and what earlier pages left."""
    text = page.read_text()
    if "hepops gun -o tracks.h5" in text:
        return  # it makes its own
    for name in {"tracks.h5", "tracks_1.h5"} if "tracks_*" in text else {"tracks.h5"}:
        invoke([*SHORT, "-o", name])
    if page.stem in ("calibrate", "runs", "file-formats"):
        invoke(["simulate", "tracks.h5", "-o", "hits.h5", "-p", "lifetime=1500"])
    if page.stem == "runs":
        invoke(["calibrate", "hits.h5", "--tracks", "tracks.h5", "-o", "fit/", "--fit", "lifetime"])
    if page.stem == "your-detector":
        shutil.copy(shared("data/lartpc/detector/module0.yaml"), "module0.yaml")
        shutil.copy(shared("data/lartpc/layouts/DUNE/multi_tile_layout-2.4.16.yaml"), ".")


def pages():
    for page in PAGES:
        found = BLOCK.findall(page.read_text())
        if page.stem not in LEFT_OUT and any(
            list(commands(text)) for language, text in found if language in ("sh", "")
        ):
            yield page


@pytest.mark.parametrize("page", [*pages()], ids=relative)
def test_commands_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given(page)
    before = "python" if page.stem == "models" else None  # its commands are about what its Python saved
    names = {"__name__": "page"}
    for language, block in BLOCK.findall(page.read_text()):
        if language == before:
            exec(compile(block, str(page), "exec"), names)
        for words in commands(block) if language in ("sh", "") else []:
            invoke([part for word in words for part in expand(word)])


def test_most_pages_have_commands_that_run():
    assert {"README", "quick-start", "simulate", "clusters", "models", "runs"} <= {page.stem for page in pages()}
    assert re.search(r"hepops segment", (ROOT / "README.md").read_text())
