"""A registry keeps what it was given: versions never change, two writers lose nothing, a kill leaves no half entry."""

import errno
import http.server
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import uuid
from functools import partial

import hepops
import pytest
import torch
from hepops.models import Registry
from hepops.models.store import Folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of models that differ."""
    place = tmp_path_factory.mktemp("saved")
    for k in range(12):
        model = hepops.flows.MLP(1, 1, hidden=())
        torch.nn.init.constant_(model.last.bias, float(k))
        hepops.save(model, place / str(k), metrics={"k": k})
    return [place / str(k) for k in range(12)]


def bias(model):
    return model.last.bias.item()


@pytest.fixture(params=["folder", "file://", "memory://"])
def registry(request, tmp_path):
    if request.param == "folder":
        return Registry(tmp_path / "r")
    if request.param == "file://":
        return Registry(f"file://{tmp_path}/r")
    pytest.importorskip("fsspec")
    return Registry(f"memory://{uuid.uuid4()}", cache=tmp_path / "cache")


def test_versions_and_tags(registry, saved):
    assert registry.names() == [] and registry.entries() == []
    first = registry.add("line", saved[0], tags=["best", "paper"])
    second = registry.add("line", saved[1])
    assert (str(first), first.tags, str(second)) == ("line@1", ("best", "paper"), "line@2")
    assert [bias(registry.load(f"line@{w}")) for w in ("1", "best", "2", "latest")] == [0, 0, 1, 1]
    assert bias(registry.load("line")) == 1
    registry.tag("line@2", "best")
    assert registry.tags("line") == {"best": 2, "paper": 1}
    assert bias(registry.load("line@best")) == 1 and bias(registry.load("line@paper")) == 0
    assert registry.card("line@1").metrics == {"k": 0}
    assert registry.add("line", saved[0]) == registry.entry("line@1"), "the same files are the same version"
    registry.add("other", saved[2])
    assert registry.names() == ["line", "other"] and len(registry.entries()) == 3
    assert registry.unfinished(0) == []


def test_models_are_added_as_they_are(registry):
    entry = registry.add("sum", hepops.flows.MLP(1, 1), licence="CC0-1.0", metrics={"loss": 0.5})
    card = registry.card(str(entry))
    assert (card.licence, card.metrics, card.name) == ("CC0-1.0", {"loss": 0.5}, "sum")


def test_a_folder_of_its_own(registry, saved, tmp_path):
    registry.add("line", saved[3])
    place = registry.get("line", tmp_path / "out")
    assert place == tmp_path / "out" and bias(hepops.load(place)) == 3
    with pytest.raises(ValueError, match="holds a model"):
        registry.get("line", tmp_path / "out")


@pytest.mark.parametrize(
    ("what", "word"),
    [
        (lambda r, s: r.add("../x", s), "name must be"),
        (lambda r, s: r.add("", s), "name must be"),
        (lambda r, s: r.add("a", s, tags=["3"]), "must not be a number"),
        (lambda r, s: r.add("a", s, tags=["latest"]), "latest"),
        (lambda r, s: r.add("a", s, tags=["a/b"]), "tag must be"),
        (lambda r, s: r.load("line@9"), "no version or tag '9', but 1"),
        (lambda r, s: r.load("line@no"), "no version or tag 'no'"),
        (lambda r, s: r.load("nothing"), "no model 'nothing', but line"),
        (lambda r, s: r.entry("../line"), "name must be"),
    ],
)
def test_what_is_refused(tmp_path, saved, what, word):
    registry = Registry(tmp_path)
    registry.add("line", saved[0])
    with pytest.raises(ValueError, match=word):
        what(registry, saved[1])
    with pytest.raises(TypeError, match="licence of a folder"):
        registry.add("line", saved[1], licence="x")
    assert [str(e) for e in registry.entries()] == ["line@1"]


def test_a_damaged_folder_is_not_taken(tmp_path, saved):
    shutil.copytree(saved[0], tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        Registry(tmp_path / "r").add("line", tmp_path / "bad")
    assert Registry(tmp_path / "r").names() == []


def test_a_version_that_was_changed_in_place_is_refused(tmp_path, saved):
    registry = Registry(tmp_path / "r")
    entry = registry.add("line", saved[0])
    place = tmp_path / "r" / "line" / "files" / entry.sha256
    for name in ("model.yaml", "model.safetensors", "SHA256SUMS"):  # a whole other model, sound in itself
        shutil.copyfile(saved[1] / name, place / name)
    for use in (registry.load, registry.card, registry.get):
        with pytest.raises(ValueError, match=rf"was changed.*{entry.sha256}"):
            use("line")


def _add_all(root, folders, barrier):
    registry = Registry(root)
    barrier.wait()
    for folder in folders:
        registry.add("line", folder, tags=[f"of-{os.getpid()}"])
    os._exit(0)


def test_two_processes_that_add_at_once_lose_nothing(tmp_path, saved):
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(3)
    parts = (saved[0::3], saved[1::3], saved[2::3])
    workers = [fork.Process(target=_add_all, args=(tmp_path, part, barrier)) for part in parts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    registry = Registry(tmp_path)
    entries = registry.entries("line")
    assert [e.version for e in entries] == list(range(1, 13))
    assert sorted(bias(registry.load(str(e))) for e in entries) == list(range(12))
    assert len(registry.tags("line")) == 3 and registry.unfinished(0) == []


def test_the_number_that_another_took_is_not_taken_again(tmp_path, saved, monkeypatch):
    """Both have seen the same last version: the second finds its number taken, and takes the next one."""
    registry = Registry(tmp_path)
    registry.add("line", saved[0])
    monkeypatch.setattr(Registry, "_taken", lambda self, name: [])  # what it sees is of before the first
    registry._publish("line", "f" * 64)
    monkeypatch.undo()
    first = json.loads((tmp_path / "line" / "versions" / "1.json").read_text())
    second = json.loads((tmp_path / "line" / "versions" / "2.json").read_text())
    assert first["sha256"] != "f" * 64 and second["sha256"] == "f" * 64


def _hang(*a, **k):
    while True:
        time.sleep(60)


def _add_and_hang(root, folder, stage, ready):
    """Stops for good in the middle of an addition, and says that it is there."""

    def stop(*a, **k):
        ready.set()
        _hang()

    if stage == "files":
        write = Folder.write

        def second(self, path, content):
            if path.endswith("model.yaml"):
                stop()
            write(self, path, content)

        Folder.write = second
    elif stage == "within a file":
        os.replace = stop
    elif stage == "before the version":
        Folder.create = stop
    else:
        os.link = stop  # the version's object is written beside, and not yet there
    Registry(root).add("line", folder)


@pytest.mark.parametrize("stage", ["files", "within a file", "before the version", "within the version"])
def test_a_kill_in_the_middle_leaves_a_whole_registry(tmp_path, saved, stage):
    registry = Registry(tmp_path)
    registry.add("line", saved[0])
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    worker = fork.Process(target=_add_and_hang, args=(tmp_path, saved[1], stage, ready))
    worker.start()
    assert ready.wait(60)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert worker.exitcode == -signal.SIGKILL

    assert [str(e) for e in registry.entries()] == ["line@1"], "the half entry is not seen"
    assert bias(registry.load("line")) == 0
    left = registry.unfinished(0)
    assert left and all(path.startswith("line/") for path in left), "but reported"
    assert registry.unfinished(3600) == [] and registry.clean(3600) == [], "an addition under way is left alone"
    assert str(registry.add("line", saved[2])) == "line@2", "the next one is not disturbed"
    with pytest.raises(ValueError, match="older must not be negative"):
        registry.clean(-1)
    assert registry.clean(0) == left and registry.unfinished(0) == []
    assert [bias(registry.load(f"line@{v}")) for v in (1, 2)] == [0, 2]
    assert str(registry.add("line", saved[1])) == "line@3" and bias(registry.load("line")) == 1
    assert [p.name for p in tmp_path.rglob("*") if p.name.startswith(".")] == []


def test_an_entry_that_cannot_be_read_is_left_out(tmp_path, saved):
    registry = Registry(tmp_path)
    registry.add("line", saved[0])
    (tmp_path / "line" / "versions" / "2.json").write_text("{")  # of a file system that tears
    (tmp_path / "line" / "versions" / "notes.txt").write_text("mine")
    assert [e.version for e in registry.entries("line")] == [1]
    assert registry.add("line", saved[1]).version == 3


def test_the_cache_is_verified_and_mended(tmp_path, saved):
    pytest.importorskip("fsspec")
    url = f"memory://{uuid.uuid4()}"
    registry = Registry(url, cache=tmp_path / "cache")
    entry = registry.add("line", saved[4])
    place = registry.get("line")
    assert place == tmp_path / "cache" / entry.sha256
    stamp = (place / "model.yaml").stat().st_mtime_ns
    assert registry.get("line") == place and (place / "model.yaml").stat().st_mtime_ns == stamp, "not fetched again"
    (place / "model.safetensors").write_bytes(b"damaged")
    assert bias(registry.load("line")) == 4
    registry.store.write(f"line/files/{entry.sha256}/model.safetensors", b"damaged at its source")
    assert bias(registry.load("line")) == 4, "the cache has it"
    with pytest.raises(ValueError, match=r"line@1: .*model\.safetensors"):
        Registry(url, cache=tmp_path / "other").load("line")
    assert list((tmp_path / "other").iterdir()) == []


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *a):
        pass


def test_over_http_it_is_read_and_not_written(tmp_path, saved):
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    Registry(tmp_path / "r").add("line", saved[5], tags=["best"])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "r")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        registry = Registry(f"http://127.0.0.1:{server.server_port}", cache=tmp_path / "cache")
        assert registry.names() == ["line"] and bias(registry.load("line@best")) == 5
        with pytest.raises(PermissionError, match="can be read, not written"):
            registry.add("line", saved[6])
    finally:
        server.shutdown()
        server.server_close()


def test_from_the_shell(tmp_path, saved, monkeypatch):
    from hepops.cli.app import app
    from typer.testing import CliRunner

    def run(*words):
        return CliRunner().invoke(app, ["models", *words])

    monkeypatch.setenv("HEPOPS_REGISTRY", str(tmp_path / "r"))
    assert "no models" in run("list").output
    assert run("add", "line", str(saved[0]), "--tag", "best").output.strip() == "line@1"
    assert run("add", "line", str(saved[1])).output.strip() == "line@2"
    listed = run("list").output
    assert "line@1" in listed and "best" in listed and "k=1" in listed
    assert "MLP" in run("show", "line@best").output
    assert run("tag", "line@2", "best").exit_code == 0
    place = run("get", "line@best", "-o", str(tmp_path / "out")).output.strip()
    again = run("get", "line@best", "-o", str(tmp_path / "out"))
    assert again.exit_code != 0 and "exists; give a folder" in f"{again.output}{again.exception}"
    assert bias(hepops.load(place)) == 1
    assert "0 removed" in run("clean").output
    wrong = run("show", "nothing")
    assert wrong.exit_code == 1 and wrong.output.startswith("hepops: ") and wrong.output.count("\n") == 1


def test_a_file_system_without_hard_links(tmp_path, saved, monkeypatch):
    """EOS has none: an object is made in its place, never over another, and a part that a kill left is no version."""

    def refuse(*paths, **options):
        raise PermissionError(errno.EPERM, "Operation not permitted", paths[0], None, paths[1])

    monkeypatch.setattr(os, "link", refuse)
    registry = Registry(tmp_path / "r")
    assert str(registry.add("line", saved[0])) == "line@1"
    assert not registry.store.create("line/versions/1.json", b"another")
    (tmp_path / "r/line/versions/2.json").write_text('{"name": "li')
    assert str(registry.add("line", saved[1])) == "line@3"
    assert [entry.version for entry in registry.entries()] == [1, 3]


def test_a_listing_reads_each_version_a_few_times(tmp_path, saved, monkeypatch):
    registry, count = Registry(tmp_path / "r"), [0]
    for folder in saved:
        registry.add("line", folder)
    read = Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, path: count.__setitem__(0, count[0] + 1) or read(self, path))
    assert [registry.card(entry).metrics["k"] for entry in registry.entries("line")] == list(range(len(saved)))
    assert count[0] <= 3 * len(saved)


@pytest.mark.parametrize("which", ["\u00b2", "9" * 5000])
def test_references_that_are_no_numbers(tmp_path, saved, which):
    registry = Registry(tmp_path / "r")
    registry.add("line", saved[0])
    with pytest.raises(ValueError, match=r"line has no version|tag must be"):
        registry.entry(f"line@{which}")


def test_a_registry_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert Registry("~/models").store.root == tmp_path / "models"
