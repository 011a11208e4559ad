"""A version whose files are gone or changed is named: registry, model, version, file; the others are still there."""

import functools
import http.server
import shutil
import threading
import uuid

import hepops
import pytest
import torch
from hepops.cli.app import app
from hepops.models import Registry
from typer.testing import CliRunner

from .test_registry import Quiet, bias

FILES = ("model.yaml", "model.safetensors", "SHA256SUMS")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved")
    for k in range(3):
        model = hepops.flows.MLP(1, 1, hidden=())
        torch.nn.init.constant_(model.last.bias, float(k))
        hepops.save(model, place / str(k), metrics={"k": k})
    return [place / str(k) for k in range(3)]


@pytest.fixture(params=["folder", "memory"])
def registry(request, tmp_path, saved):
    if request.param == "memory":
        pytest.importorskip("fsspec")
    made = Registry(tmp_path / "r" if request.param == "folder" else f"memory://{uuid.uuid4()}", cache=tmp_path / "c")
    for k in range(2):
        made.add("line", saved[k], tags=["best"])
    return made


def refused(use, error, *words):
    with pytest.raises(error) as caught:
        use()
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message, message


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_named_by_its_version(registry, tmp_path, name):
    first = registry.entry("line@1")
    registry.store.remove(f"line/files/{first.sha256}/{name}")
    words = (f"{registry.url}: line@1: {name}", f"line/files/{first.sha256}")
    for use in (lambda: registry.load("line@1"), lambda: registry.get("line@1"),
                lambda: registry.get("line@1", tmp_path / "out")):  # fmt: skip
        refused(use, FileNotFoundError, *words)
    assert not (tmp_path / "out").exists() and bias(registry.load("line@2")) == 1
    if name == "model.yaml":
        refused(lambda: registry.card("line@1"), FileNotFoundError, *words)


def test_a_folder_that_is_gone_is_named_by_its_version(registry):
    first = registry.entry("line@1")
    registry.store.remove(f"line/files/{first.sha256}")
    for use in (registry.load, registry.get, registry.card):
        refused(lambda use=use: use("line@1"), FileNotFoundError, f"{registry.url}: line@1: ", "missing")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_changed_is_named_by_its_version(registry, name):
    first = registry.entry("line@1")
    path = f"line/files/{first.sha256}/{name}"
    registry.store.write(path, registry.store.read(path)[:-3] + b"!?\n")
    refused(lambda: registry.load("line@1"), ValueError, f"{registry.url}: line@1: {name}")


def test_adding_it_again_mends_it(registry, saved):
    first = registry.entry("line@1")
    for damage in (
        lambda: registry.store.remove(f"line/files/{first.sha256}/model.safetensors"),
        lambda: registry.store.write(f"line/files/{first.sha256}/model.yaml", b"{}"),
        lambda: registry.store.remove(f"line/files/{first.sha256}"),
    ):
        damage()
        with pytest.raises((ValueError, FileNotFoundError), match="line@1"):
            registry.load("line@1")
        assert str(registry.add("line", saved[0])) == "line@1" and bias(registry.load("line@1")) == 0
        if registry.cache.exists():
            shutil.rmtree(registry.cache)


def test_a_tag_of_a_version_that_is_gone(registry):
    registry.store.remove("line/versions/2.json")
    refused(lambda: registry.load("line@best"), ValueError, "the tag 'best' names version 2, which is not there")
    registry.store.write("line/versions/1.json", b"{")
    refused(lambda: registry.load("line"), ValueError, "none of its versions can be read (line/versions: 1)")


def test_folders_where_files_should_be(tmp_path, saved):
    registry = Registry(tmp_path / "r")
    first, second = (registry.add("line", folder) for folder in saved[:2])
    (tmp_path / "r/line/versions/3.json").mkdir()
    assert [str(e) for e in registry.entries()] == ["line@1", "line@2"]
    path = tmp_path / "r/line/files" / first.sha256 / "model.yaml"
    path.unlink()
    path.mkdir()
    for use in (registry.card, registry.load):
        refused(lambda use=use: use("line@1"), (ValueError, FileNotFoundError), "line@1: model.yaml")
    assert registry.card(second).metrics == {"k": 1}


def test_a_tag_that_moves_meanwhile(registry, monkeypatch):
    """`load` asks once which version it is."""
    get = Registry.get

    def moved(self, reference, path=None):
        registry.tag("line@1", "best")
        return get(self, reference, path)

    monkeypatch.setattr(Registry, "get", moved)
    assert bias(registry.load("line@best")) == 1


def test_from_the_shell_a_loss_is_one_line(tmp_path, saved):
    registry = Registry(tmp_path / "r")
    first = registry.add("line", saved[0], tags=["old"])
    registry.add("line", saved[1])
    shutil.rmtree(tmp_path / "r/line/files" / first.sha256)

    def run(*words):
        return CliRunner().invoke(app, ["models", *words, "--registry", str(tmp_path / "r")])

    listed = run("list")
    assert listed.exit_code == 1 and "line@2" in listed.stdout and "k=1" in listed.stdout, "the other one is there"
    assert any(
        row.split()[0] == "line@1" and row.split()[2:] == ["broken", "old"] for row in listed.stdout.splitlines()
    )
    for made in (
        listed,
        run("show", "line@1"),
        run("get", "line@old"),
        run("get", "line@1", "-o", str(tmp_path / "o")),
    ):
        assert made.exit_code == 1 and made.stderr.count("\n") == 1 and "Traceback" not in made.output
        assert made.stderr.startswith(f"hepops: {tmp_path / 'r'}: line@1: ") and "missing" in made.stderr
    assert not (tmp_path / "o").exists()
    assert run("add", "line", str(saved[0])).exit_code == 0 and run("list").exit_code == 0


def test_over_http_a_loss_is_named(tmp_path, saved):
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    first = Registry(tmp_path / "r").add("line", saved[0])
    (tmp_path / "r/line/files" / first.sha256 / "model.safetensors").unlink()
    handler = functools.partial(Quiet, directory=str(tmp_path / "r"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        registry = Registry(f"http://127.0.0.1:{server.server_port}", cache=tmp_path / "c")
        refused(
            lambda: registry.load("line"), FileNotFoundError, f"{registry.url}: line@1: model.safetensors is missing"
        )
    finally:
        server.shutdown()
        server.server_close()


# ---- object stores


class Conflict(OSError):
    """What s3fs makes of S3's answer 409."""


@pytest.fixture
def bucket(monkeypatch):
    """A stand-in for s3fs: memory, no folders, conditional writes that may meet another one."""
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol = ("s3",)
        store, pseudo_dirs, conflicts = {}, [""], 0
        lost = False  # whether the next answer is lost, and the request is sent again

        def makedirs(self, path, exist_ok=False):
            raise AssertionError(f"would make the bucket of {path}")

        def pipe_file(self, path, value, mode="overwrite", **options):
            if Bucket.conflicts:
                Bucket.conflicts -= 1
                raise Conflict(5, "An error occurred (ConditionalRequestConflict) when calling PutObject")
            super().pipe_file(path, value, mode=mode, **options)
            if mode == "create" and Bucket.lost:
                Bucket.lost = False
                raise FileExistsError

    monkeypatch.setattr("hepops.models.store._WAITS", (0.0, 0.0))
    fsspec.register_implementation("s3", Bucket, clobber=True)
    yield Bucket
    fsspec.register_implementation("s3", "s3fs.S3FileSystem", clobber=True)


def test_buckets_are_not_made_and_conflicts_are_tried_again(bucket, tmp_path, saved):
    registry = Registry("s3://bucket/models", cache=tmp_path)
    assert str(registry.add("line", saved[0])) == "line@1" and bias(registry.load("line")) == 0
    bucket.conflicts = 2
    assert registry.store.create("line/versions/2.json", b"{}")
    bucket.conflicts = 3
    with pytest.raises(Conflict):
        registry.store.create("line/versions/3.json", b"{}")
    assert not registry.store.create("line/versions/1.json", b"{}")


def test_a_bucket_that_is_not_there_is_named(bucket, tmp_path, saved, monkeypatch):
    def missing(*arguments, **options):
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(bucket, "pipe_file", missing)
    refused(lambda: Registry("s3://misspelt/models", cache=tmp_path).add("line", saved[0]), FileNotFoundError,
            "s3://misspelt/models: The specified bucket does not exist")  # fmt: skip


def test_an_answer_that_was_lost_makes_no_second_version(bucket, tmp_path, saved):
    registry = Registry("s3://bucket/models", cache=tmp_path)
    bucket.lost = True
    assert str(registry.add("line", saved[0])) == "line@1"
    assert [str(e) for e in registry.entries()] == ["line@1"] and str(registry.add("line", saved[1])) == "line@2"
