"""What was changed, cut or forged is refused, by its name, before anything is made of it."""

import json
import struct

import hepops
import pytest
import torch
from hepops.models import digests, text
from safetensors.torch import load, save

WEIGHTS, CARD, SUMS = "model.safetensors", "model.yaml", "SHA256SUMS"


@pytest.fixture
def folder(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        hepops.save(hepops.flows.MLP(2, 3, hidden=(4,)), tmp_path / "m", licence="CC0-1.0")
    return tmp_path / "m"


def refused(folder, *words, **options):
    """The message, which names the folder and all these words."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        hepops.load(folder, **options)
    message = str(error.value)
    assert str(folder) in message and "\n" not in message
    for word in words:
        assert word in message, message
    return message


def forge(folder, change=None, weights=None):
    """Somebody who writes card and sums anew, so that all checksums agree."""
    if weights is not None:
        (folder / WEIGHTS).write_bytes(weights)
    card = text.parse((folder / CARD).read_bytes(), CARD)
    content = (folder / WEIGHTS).read_bytes()
    card["files"][WEIGHTS] = {"bytes": len(content), "sha256": digests.of_bytes(content)}
    card = change(card) if change else card
    lines = card if isinstance(card, bytes) else text.dump(card).encode()
    (folder / CARD).write_bytes(lines)
    sums = {CARD: digests.of_bytes(lines), WEIGHTS: digests.of_bytes(content)}
    (folder / SUMS).write_text(digests.write_sums(sums))


def test_the_folder_is_sound_before(folder):
    forge(folder)  # so that what follows fails for what it changes
    hepops.load(folder)


def test_truncated_weights(folder):
    content = (folder / WEIGHTS).read_bytes()
    for size in (0, 5, 100, len(content) - 1):
        (folder / WEIGHTS).write_bytes(content[:size])
        refused(folder, WEIGHTS, "truncated", f"{size} of {len(content)} bytes")
    (folder / WEIGHTS).write_bytes(content + b"more")
    refused(folder, WEIGHTS, "more than")


def test_an_edited_weight_is_named(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    before = digests.of_bytes(load(bytes(content))["layers.2.weight"].numpy().tobytes())
    message = refused(folder, WEIGHTS, "was changed in layers.2.weight: sha256 expected", "got")
    assert "layers.0" not in message and before


def test_a_tensor_renamed_or_of_another_shape_is_named(folder):
    tensors = load((folder / WEIGHTS).read_bytes())
    renamed = {("x" if n == "layers.0.bias" else n): v for n, v in tensors.items()}
    forge(folder, weights=save(renamed))
    refused(folder, WEIGHTS, "layers.0.bias is missing", "x is not expected")
    forge(folder, weights=save({**tensors, "layers.0.bias": torch.zeros(5)}))
    refused(folder, WEIGHTS, "layers.0.bias", "shape expected [4], got [5]")


def test_an_edited_card_is_named(folder):
    content = (folder / CARD).read_text()
    (folder / CARD).write_text(content.replace("CC0-1.0", "CC-BY-4.0"))
    refused(folder, CARD, "was changed", digests.of_file(folder / CARD), SUMS)


def test_all_written_anew_differs_from_the_known_number(folder):
    known = digests.of_file(folder / CARD)
    hepops.load(folder, sha256=known)
    forge(folder, lambda card: {**card, "licence": "none"})
    hepops.load(folder)  # agrees with itself: only the number that was kept elsewhere tells
    refused(folder, CARD, known, digests.of_file(folder / CARD), sha256=known)


@pytest.mark.parametrize(
    "line",
    [
        "more: !!python/object/apply:os.system ['touch PWNED']",
        "more: !!python/name:os.system",
        "more: !!python/object:hepops.models.Card {}",
        "more: !<tag:example.org,2026:x> 1",
        "more: !!binary aGVsbG8=",
        "more: !!set {a, b}",
    ],
)
def test_tags_are_refused_and_nothing_runs(folder, line, monkeypatch):
    monkeypatch.chdir(folder)
    content = (folder / CARD).read_text().replace("more: {}", line).encode()
    assert line.encode() in content
    forge(folder, lambda card: content)
    refused(folder, CARD, "line", "tag")
    assert not (folder / "PWNED").exists()


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("more: {a: &x [1], b: *x}", "aliases"),
        ("more: {a: 1, a: 2}", "twice"),
        ("more: {[1]: 2}", "key"),
        ("more: " + "[" * 100 + "]" * 100, "levels"),
        ("more: [1", "not YAML"),
        ("more: 3", "more must be dict"),
        ("strange: 3", "'strange' is no field"),
    ],
)
def test_yaml_that_is_no_plain_data(folder, line, word):
    content = (folder / CARD).read_text().replace("more: {}", line).encode()
    forge(folder, lambda card: content)
    refused(folder, CARD, word)


def test_aliases_cost_nothing_before_they_are_refused():
    rows = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(ValueError, match="aliases"):
        text.parse("\n".join(rows).encode(), "bomb.yaml")


@pytest.mark.parametrize("missing", [WEIGHTS, CARD, SUMS])
def test_missing_files(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing.replace(".", r"\.")):
        hepops.load(folder)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        hepops.load(folder / "no")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "a\\b", ".hidden", "a\x00b", "x" * 200])
def test_names_that_lead_elsewhere(folder, name):
    (folder.parent / "secret").write_bytes(b"s")
    with open(folder / SUMS, "ab") as file:
        file.write(f"{'0' * 64}  ".encode() + name.encode() + b"\n")
    refused(folder, SUMS)
    forge(folder, lambda card: {**card, "files": {**card["files"], name: {"bytes": 1, "sha256": "0" * 64}}})
    message = refused(folder, CARD)
    assert "no plain name" in message or "not YAML" in message


def test_links_out_of_the_folder(folder):
    outside = folder.parent / "weights"
    (folder / WEIGHTS).rename(outside)
    (folder / WEIGHTS).symlink_to(outside)
    refused(folder, WEIGHTS, "link")


def header(head: object, size: int | None = None, rest: bytes = b"") -> bytes:
    content = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(content) if size is None else size) + content + rest


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (header(b"{}", 1 << 60), "header has 1152921504606846976 bytes"),
        (header(b"{}", 1 << 20), "truncated within its header"),
        (header(b"{" + b"[" * 1000), "not that of safetensors"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}, rest=b"1234"), "4 of 400 bytes"),
        (header({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, rest=b"1234"), "not readable"),
        (header({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, rest=b"1234"), "not readable"),
        (b"\x80\x04\x95pickle", "header"),
    ],
)
def test_headers_that_lie(folder, content, word):
    forge(folder, weights=content)
    refused(folder, WEIGHTS, word)


@pytest.mark.parametrize(
    ("configuration", "word"),
    [
        ({"class": "os.system", "arguments": {"command": "touch PWNED"}}, "'os.system' is no class"),
        ({"class": "subprocess.Popen", "arguments": {"args": ["touch", "PWNED"]}}, "no class"),
        ({"class": "hepops.models.registry.Registry", "arguments": {"url": "x"}}, "no class"),
        ({"class": "torch.nn.Module", "arguments": {}}, "no class"),
        ({"class": "torch.nn.Linear", "arguments": {"in_features": 2, "device": "meta"}}, "no argument 'device'"),
        ({"class": "hepops.flows.MLP", "arguments": {"inputs": 2, "outputs": 3, "f": 1}}, "no argument 'f'"),
        (
            {"class": "hepops.flows.MLP", "arguments": {"inputs": 2, "outputs": 4, "hidden": [4]}},
            "layers.2.bias: shape",
        ),
        ({"class": "hepops.lartpc.os", "values": {}}, "no record"),
        ({"same": 7}, "nothing was made as number 7"),
        ({"dtype": "load"}, "'load' is no dtype"),
        ({"tensor": "argument.0", "dtype": "float32"}, "no tensor 'argument.0'"),
        (None, "give make="),
    ],
)
def test_configurations_make_what_is_allowed_alone(folder, configuration, word, monkeypatch):
    monkeypatch.chdir(folder)
    forge(folder, lambda card: {**card, "configuration": configuration})
    refused(folder, word)
    assert not (folder / "PWNED").exists()


LINEAR = "torch.nn.Linear"


@pytest.mark.parametrize(
    "configuration",
    [
        [1],
        "x",
        3,
        {"class": LINEAR, "arguments": {"in_features": 10**12, "out_features": 10**9}},
        {"class": LINEAR, "arguments": {"in_features": "a", "out_features": 1}},
        {"class": LINEAR, "arguments": [1]},
        {"class": LINEAR},
        {"class": "torch.nn.Sequential", "arguments": [3]},
        {"class": "hepops.flows.Flow", "arguments": {"transform": 1, "base": 2}},
        {"class": "hepops.lartpc.Detector", "values": None},
        {"class": "torch.nn.Identity", "id": [1]},
        {"tensor": [1]},
        {"class": "torch.nn.Identity", "buffers": {"a.b": "float32"}},
    ],
)
def test_configurations_that_give_no_model_are_one_kind_of_error(folder, configuration):
    forge(folder, lambda card: {**card, "configuration": configuration})
    refused(folder, "configuration gives")


def test_sizes_that_no_file_has_and_kinds_without_their_files(folder):
    def size(number):
        return lambda card: {**card, "files": {WEIGHTS: {**card["files"][WEIGHTS], "bytes": number}}}

    for number, word in ((10**30, "truncated"), (1 << 45, "truncated"), (-1, "must have bytes")):
        forge(folder, size(number))
        refused(folder, WEIGHTS, word)
    forge(folder, lambda card: {**card, "kind": "hepops.flows.Density"})
    refused(folder, "density.safetensors, which a Density needs, is not among its files")
    forge(folder, lambda card: {**card, "kind": "record"})
    refused(folder, "must have its values")


def test_numbers_of_base_60_are_refused_at_once():
    """Of 10^5 digits PyYAML makes a number in seconds; and who writes 12:30 means no 750."""
    for line in (b"a: 12:30", b"a: 1" + b":1" * 100_000, b"a: 1:1.5"):
        with pytest.raises(ValueError, match="plain number"):
            text.parse(line, "x")
    assert text.parse(text.dump({"a": "12:30"}).encode(), "x") == {"a": "12:30"}


def test_other_formats_and_versions(folder):
    forge(folder, lambda card: {**card, "version": 99})
    refused(folder, CARD, "has version 99")
    forge(folder, lambda card: {**card, "version": 1, "format": "x"})
    refused(folder, CARD, "not the description")


def test_a_kind_that_is_unknown(folder):
    forge(folder, lambda card: {**card, "kind": "pickle"})
    refused(folder, "kind 'pickle' is unknown")


def test_sums_that_are_none(folder):
    (folder / SUMS).write_text("hello\n")
    refused(folder, SUMS, "line 1 is no checksum")
    (folder / SUMS).write_text("")
    refused(folder, SUMS, "does not name model.yaml")


def test_options_of_another_class(folder):
    with pytest.raises(TypeError, match="'embedding' is no option"):
        hepops.load(folder, embedding=3)
