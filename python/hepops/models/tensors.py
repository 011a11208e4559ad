"""Tensors as safetensors, in memory: what was verified is what is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .digests import of_tensor

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_HEADER = 100 << 20  # the format's own limit [bytes]


def encode(tensors: Mapping[str, Tensor]) -> bytes:
    """The file of some tensors; each a copy of its own, in the order of their names."""
    from safetensors.torch import save

    whole = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    return save(whole)


def decode(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a file.

    Raises:
        ValueError: truncated, a header that is too large or no JSON, or offsets that do not fit, with `name`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    check_header(content, name)
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name}: not readable safetensors ({' '.join(str(error).split())[:200]})") from None


def check_header(content: bytes, name: str) -> dict[str, Any]:
    """The header, whose length is not believed before it is compared with the file's."""
    if len(content) < 8:
        raise ValueError(f"{name}: truncated, has {len(content)} bytes of the 8 that begin safetensors")
    size = int.from_bytes(content[:8], "little")
    if size > LARGEST_HEADER:
        raise ValueError(f"{name}: says that its header has {size} bytes, at most {LARGEST_HEADER} are read")
    if size > len(content) - 8:
        raise ValueError(f"{name}: truncated within its header: {len(content) - 8} of {size} bytes")
    try:
        header = json.loads(content[8 : 8 + size])
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        end = max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{name}: its header is not that of safetensors ({' '.join(str(error).split())[:120]})"
        ) from None
    if not isinstance(end, int) or end != len(content) - 8 - size:
        raise ValueError(
            f"{name}: truncated, or longer than it says: {len(content) - 8 - size} of {end} bytes of tensors"
        )
    return dict(header)


def describe(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Dtype, shape and SHA-256 of each."""
    return {
        name: {"dtype": str(x.dtype).removeprefix("torch."), "shape": list(x.shape), "sha256": of_tensor(x)}
        for name, x in sorted(tensors.items())
    }


def differences(expected: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> list[str]:
    """What differs from the description, tensor by tensor, in words."""
    found = describe(tensors)
    lines = [f"{name} is missing" for name in expected if name not in found]
    lines += [f"{name} is not expected" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        for what in ("dtype", "shape", "sha256"):
            want, got = expected[name].get(what), found[name][what]
            if want != got:
                lines.append(f"{name}: {what} expected {want}, got {got}")
                break
    return sorted(lines)
