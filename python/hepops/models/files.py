"""Models in folders: `model.yaml`, which a person reads, weights, which are data alone, and their SHA-256.

    model.yaml            class, configuration, seed, metrics, data, licence, versions; size and SHA-256 of each file,
                          dtype, shape and SHA-256 of each tensor
    model.safetensors     the weights (a class that has files of its own keeps those)
    SHA256SUMS            of all of these; `sha256sum -c SHA256SUMS` checks it without hepops

A folder that was not there appears whole or not at all. In one that is there all files are written beside the old ones
and then take their places, the sums last: what fails leaves the old model, and a kill between the places is seen as a
difference by the next `load`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hepops.core.files import atomic, umask
from hepops.core.seeds import last_seed

from . import digests, kinds, text
from .card import NAME, Card
from .tensors import check_header, decode, describe, differences


def save(
    model: Any,
    path: str | Path,
    *,
    name: str | None = None,
    description: str | None = None,
    authors: str | Sequence[str] = (),
    licence: str | None = None,
    doi: str | None = None,
    seed: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Card:
    r"""Write a model with all that is needed to find, check, make and cite it again.

    Flows, lattice flows, sparse networks and plain torch layers remember how they were made, so that `load` needs
    nothing but the folder; so do detectors, parameters and simulators. Segmenters, densities, posteriors, integrators
    and fits keep the files that they always had. Any other module is saved with its weights, and `load` must be told
    how to make it.

    Args:
        model: The model. Weights are copied to the CPU, in their dtypes.
        path: A folder; made where it is not there.
        name, description, authors, licence, doi: What a citation needs; one author may stand without a list, the
            licence is an SPDX name ("CC-BY-4.0").
        seed: Of the training; None: that of `seed_everything`, where it was called.
        metrics: What was measured: numbers, words, lists and mappings of them.
        data: What the model learnt from, by name: files, folders, tensors or arrays, whose SHA-256 is kept, or such
            a number.
        more: Whatever else belongs to the model, as metrics.
        overwrite: Replace a model that the folder holds.

    Returns:
        The `Card`.

    Raises:
        ValueError: the folder holds a model, something is in the way, or the model's configuration does not give it
            again; a DOI that is none.
        TypeError: no model, or what YAML cannot hold: a key of a mapping that is neither a word nor a whole number,
            say.
        FileNotFoundError: no such folder above, or no such data.
        OSError: no permission or no space, with the folder's name. What the folder held is still there.

    Deterministic: the same model gives the same bytes of weights.

    Example:
        >>> import tempfile
        >>> flow = hepops.flows.nsf(2, layers=2, hidden=(16,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     card = hepops.save(flow, f"{folder}/flow", licence="CC-BY-4.0", metrics={"loss": 1.25})
        ...     again = hepops.load(f"{folder}/flow")
        >>> x = torch.zeros(3, 2)
        >>> torch.equal(flow.log_prob(x), again.log_prob(x))
        True
    """
    from hepops.runs.environment import environment

    path = _path(path, "save")
    _check_place(path, overwrite)
    doi = None if doi is None else _doi(doi)
    given = {name: text.plain(value, name) for name, value in (("metrics", metrics or {}), ("more", more or {}))}
    written = kinds.write(model, given["more"])
    card = Card(
        kind=written.kind,
        cls=f"{type(model).__module__}.{type(model).__qualname__}",
        files={n: {"bytes": len(c), "sha256": digests.of_bytes(c)} for n, c in written.files.items()},
        tensors={n: describe(decode(c, n)) for n, c in written.files.items() if n.endswith(".safetensors")},
        configuration=text.plain(written.configuration, "configuration"),
        why_not=written.why_not,
        name=name,
        description=description,
        authors=[authors] if isinstance(authors, str) else [str(author) for author in authors],
        licence=licence,
        doi=doi,
        seed=last_seed() if seed is None else seed,
        data={name: digests.of_data(name, thing) for name, thing in (data or {}).items()},
        code=environment(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **given,
    )
    card._check("save")
    head = card.to_yaml()
    Card.from_yaml(head, f"save: {NAME}")  # too deep or too long for a reader: better to hear it now
    _write(path, {**written.files, NAME: head})
    if card.why_not is not None:
        warnings.warn(f"hepops: {path}: load will need make= ({card.why_not})", stacklevel=2)
    return card


def _doi(doi: str) -> str:
    """A DOI without the address of its resolver."""
    bare = re.sub(r"^(doi:\s*|https?://(dx\.)?doi\.org/)", "", str(doi).strip(), flags=re.IGNORECASE)
    if not re.fullmatch(r"10\.\d{4,9}(\.\d+)*/[^\s<>]+", bare):
        raise ValueError(f"save: doi must be like 10.5281/zenodo.1234567, got {doi!r:.80}")
    return bare


def _path(path: str | Path, what: str) -> Path:
    """A path that names something: Path("") would be the folder that the program happens to run in."""
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise ValueError(f"{what}: {os.fspath(path)!r} is no path")
    return Path(path)


def _check_place(path: Path, overwrite: bool) -> None:
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{path}: is a link that leads nowhere")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: exists and is not a folder")
    if (path / NAME).exists() and not overwrite:
        raise ValueError(f"{path}: holds a model; overwrite=True replaces it")
    if not path.exists() and not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    sums = digests.write_sums({name: digests.of_bytes(content) for name, content in files.items()}).encode()
    whole = {**files, digests.SUMS: sums}
    try:
        if path.exists():
            _replace(path, whole)
        else:
            _make(path, whole)
    except OSError as error:  # such as a full disk, which names no file, or the name of a temporary one
        raise type(error)(error.errno, error.strerror, str(path)) from error


def _replace(path: Path, files: Mapping[str, bytes]) -> None:
    """All are written beside those that are there before the first takes its place; the sums do so last."""
    for name in files:
        if (path / name).exists() and not (path / name).is_file():
            raise ValueError(f"{path / name}: is in the way, and is no file")
    with ExitStack() as stack:
        for name in reversed(list(files)):  # what is entered first takes its place last
            stack.enter_context(atomic(path / name)).write_bytes(files[name])


def _make(path: Path, files: Mapping[str, bytes]) -> None:
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.absolute().parent))
    try:
        for name, content in files.items():
            with open(beside / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        os.chmod(beside, 0o777 & ~umask())  # mkdtemp's 0700 would stay
        os.rename(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def load(path: str | Path, *, make: kinds.Make | None = None, sha256: str | None = None, **options: Any) -> Any:
    """The model that `save` wrote, verified to the last bit before anything is made of it.

    No pickle is read, and a name in a file makes nothing but classes of hepops that are marked for it, torch's plain
    layers, and what `hepops.models.register` was given.

    Args:
        path: The folder. One that hepops wrote before it knew `model.yaml` (a segmenter, a posterior, a likelihood)
            is read as well, with a warning: nothing in it can be verified.
        make: A function of no arguments, or a class, that makes the model, in place of the configuration; it takes
            the weights.
        sha256: Of `model.yaml`, as `Card` or a registry gave it: the folder must hold exactly this model. Without it
            the folder is compared with itself, which finds damage, but not somebody who wrote all of it anew.
        options: Of the class's own `load`, such as `embedding` for a posterior.

    Returns:
        The model, on the CPU and in `eval` mode; to the last bit.

    Raises:
        FileNotFoundError: the folder, or one of its files, is not there.
        ValueError: a file or tensor differs (each is named, with what was expected and what was found), is truncated,
            holds more than plain data, leads out of the folder, or names a class that is not allowed.
        TypeError: an option that the class does not take.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = hepops.save(hepops.flows.MLP(2, 3), f"{folder}/mlp")
        ...     hepops.load(f"{folder}/mlp")(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """
    path = _path(path, "load")
    if path.is_dir() and not (path / NAME).exists() and (own := _older(path)) is not None:
        if sha256 is not None:
            raise ValueError(f"{path}: has no {NAME}, its sha256 cannot be compared")
        warnings.warn(f"hepops: {path}: has no {NAME}, nothing in it can be verified", stacklevel=2)
        return own.cls.load(path, **options)
    card, files = verify(path, sha256=sha256)
    try:
        return kinds.read(card.kind, card.cls, card.configuration, card.why_not, files, make, options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _older(path: Path) -> kinds.Own | None:
    return next(
        (own for own in kinds.OWN.values() if len(own.files) > 1 and all((path / f).is_file() for f in own.files)), None
    )


def verify(path: str | Path, *, sha256: str | None = None) -> tuple[Card, dict[str, bytes]]:
    """The card of a saved model and the bytes of its files, of which every one is what the card says.

    Args:
        path: The folder.
        sha256: Of `model.yaml`.

    Raises:
        FileNotFoundError, ValueError: as for `load`.
    """
    path = _path(path, "load")
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"{path}: is a file; a saved model is a folder (docs/checkpoints.md: networks from files of other programs)"
        )
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    sums = digests.read_sums(_bytes(path, digests.SUMS, 1 << 20), str(path / digests.SUMS))
    head = _bytes(path, NAME, text.LARGEST)
    found = digests.of_bytes(head)
    for expected, source in ((sums.get(NAME), digests.SUMS), (sha256, "sha256")):
        if expected is None and source == digests.SUMS:
            raise ValueError(f"{path / digests.SUMS}: does not name {NAME}")
        if expected is not None and expected.lower() != found:
            raise ValueError(f"{path / NAME}: was changed: SHA-256 expected {expected} ({source}), got {found}")
    card = Card.from_yaml(head, str(path / NAME))
    if sums.keys() != {NAME, *card.files}:
        other = sorted(sums.keys() ^ {NAME, *card.files})
        raise ValueError(f"{path}: {digests.SUMS} and {NAME} name different files: {', '.join(other)}")
    return card, {name: _verified(path, name, entry, card, sums[name]) for name, entry in card.files.items()}


def _bytes(path: Path, name: str, most: int) -> bytes:
    """A plain file of the folder, not a link out of it, of no more bytes than are expected."""
    file = path / digests.check_name(name, str(path))
    if file.is_symlink() and os.path.dirname(os.path.realpath(file)) != os.path.realpath(path):
        raise ValueError(f"{file}: is a link that leads out of the folder")
    if (file.exists() or file.is_symlink()) and not file.is_file():
        raise ValueError(f"{file}: is no plain file, but a folder, a device or a link that leads nowhere")
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    with open(file, "rb") as opened:  # a description may say 10^30: no more is asked for than is there
        content = opened.read(min(most, os.fstat(opened.fileno()).st_size) + 1)
    if len(content) > most:
        raise ValueError(f"{file}: has more than the {most} bytes that are expected")
    return content


def _verified(path: Path, name: str, entry: Mapping[str, Any], card: Card, listed: str) -> bytes:
    content = _bytes(path, name, entry["bytes"])
    where = str(path / name)
    tensors = name.endswith(".safetensors")
    if len(content) != entry["bytes"]:
        detail = ""
        if tensors:
            try:
                check_header(content, name)
            except ValueError as error:
                detail = f" ({error})"
        raise ValueError(f"{where}: truncated: {len(content)} of {entry['bytes']} bytes{detail}")
    found = digests.of_bytes(content)
    for expected, source in ((entry["sha256"], NAME), (listed, digests.SUMS)):
        if found != expected:
            which = _which(content, where, card.tensors.get(name)) if tensors else ""
            raise ValueError(f"{where}: was changed{which}: SHA-256 expected {expected} ({source}), got {found}")
    if tensors and (lines := differences(card.tensors.get(name, {}), decode(content, where))):
        raise ValueError(f"{where}: is not what {NAME} describes: {'; '.join(lines[:8])}")
    return content


def _which(content: bytes, where: str, expected: Mapping[str, Any] | None) -> str:
    """The tensors that differ, where the file can still be read."""
    try:
        lines = differences(expected or {}, decode(content, where))
    except ValueError as error:
        return f" ({error})"
    return f" in {'; '.join(lines[:8])}" if lines else ""
