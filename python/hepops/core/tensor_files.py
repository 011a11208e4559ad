"""Weights that other programs wrote: their tensors, and nothing that would run."""

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch

HOLDERS = ("state_dict", "model_state_dict", "model")  # where checkpoints keep a state dict
_PAGE = "docs/checkpoints.md, 'An old pickle', has the steps where that program no longer runs"
_OF_TENSORS = (
    "torch",
    "torch._utils",
    "torch._tensor",
    "torch.storage",
    "torch.nn.parameter",
    "collections",
    "builtins",
    "__builtin__",
)


def read_tensors(path: str | Path) -> Any:
    """What a file of safetensors or torch.save holds, as far as that is tensors and plain values (weights_only).

    Args:
        path: Named .safetensors, or anything else for torch.save.

    Returns:
        Mostly a dict; tensors on the CPU.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A whole model or other objects in it, a TorchScript program, a damaged or a foreign file: says which
            of these, and what to do. Nothing of it has been run.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "weights.pt"
        >>> torch.save({"kernel": torch.ones(2)}, path)
        >>> read_tensors(path)
        {'kernel': tensor([1., 1.])}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats, which the error below says better
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # of many kinds: whatever a file of another kind makes a reader stumble over
        raise ValueError(f"{path} {_reason(path, error)}") from None


def state_of(found: Any) -> Any:
    """The state dict within a checkpoint that keeps one under a usual name; anything else as it is."""
    if isinstance(found, Mapping):
        for name in HOLDERS:
            if isinstance(found.get(name), Mapping):
                return found[name]
    return found


def _safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ImportError("files in .safetensors need safetensors: pip install safetensors") from None
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} holds no weights that can be read: {error}") from None


class _Pickle(NamedTuple):
    classes: list[str]  # that it would make objects of, but for those of tensors
    is_dict: bool


def _reason(path: Path, error: Exception) -> str:
    """Why a file was not read, and what its owner can do: torch's own advice is to run what is in it."""
    with suppress(zipfile.BadZipFile, KeyError):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = {Path(name).name: name for name in archive.namelist()}
                if "constants.pkl" in names:
                    return (
                        "is a program (TorchScript), which is not run. Where it is trusted: "
                        f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt'); then read that file"
                    )
                if isinstance(error, pickle.UnpicklingError):
                    return _advice(_looked_at(archive.read(names["data.pkl"])))
    if pickles := _pickles(path):
        return _advice(_looked_at(pickles[min(3, len(pickles) - 1)]))
    first = " ".join(str(error).split(". ")[0].split())[:120]
    why = "" if isinstance(error, pickle.UnpicklingError) else f" ({first})"  # of pickles it is torch's advice
    return f"holds no weights that can be read: neither safetensors nor a whole file of torch.save{why}"


def _advice(found: _Pickle) -> str:
    names = ", ".join(found.classes[:3]) + (f" and {len(found.classes) - 3} more" if len(found.classes) > 3 else "")
    if found.is_dict:
        what = f"a checkpoint with objects in it ({names or 'of a kind that torch does not know'})"
        kept = "checkpoint['state_dict']"
    else:
        what, kept = f"a whole model or object, pickled ({names or 'no class is named'})", "model.state_dict()"
    return (
        f"holds more than tensors: {what}. Reading it would run code, which is not done. In the program that has its "
        f"classes save the tensors alone, torch.save({kept}, 'weights.pt'), and read that file; {_PAGE}"
    )


def _pickles(path: Path) -> list[bytes]:
    """The pickles that a file begins with; looked at, not run.

    torch.save wrote four of them before 1.6: a magic number, a version, the machine, and what was saved.
    """
    with open(path, "rb") as file:
        content = file.read(1 << 24)  # tensors come after
    stream = BytesIO(content)
    found: list[bytes] = []
    with suppress(Exception):  # pickletools has no exception of its own
        while len(found) < 4 and content[stream.tell() : stream.tell() + 1] == b"\x80":
            start = stream.tell()
            for _ in pickletools.genops(stream):
                pass
            found.append(content[start : stream.tell()])
    return found


def _looked_at(pickled: bytes) -> _Pickle:
    """Which classes a pickle names, and whether it is a dict."""
    classes: dict[str, None] = {}
    first = ""
    with suppress(Exception):
        for code, argument, _ in pickletools.genops(pickled):
            if code.name not in ("PROTO", "FRAME", "MARK", "MEMOIZE") and not first:
                first = f"{code.name} {argument}"
            if code.name == "GLOBAL":
                module, name = str(argument).rsplit(" ", 1)
                if module not in _OF_TENSORS:
                    classes[f"{module}.{name}"] = None
    return _Pickle(list(classes), first.startswith(("EMPTY_DICT", "DICT", "GLOBAL collections OrderedDict")))
