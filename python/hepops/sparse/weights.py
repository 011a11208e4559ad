r"""Weights of other libraries: MinkowskiEngine, spconv, dense torch; loading with a report of what matched.

A kernel of sizes :math:`k_1 \dots k_D` lies in memory as

* hepops and MinkowskiEngine: (K, C_in, C_out), the FIRST axis fastest in K;
* spconv 2: (C_out, k_1, ..., k_D, C_in), "KRSC", the LAST axis fastest;
* spconv 1: (k_1, ..., k_D, C_in, C_out), "RSCK";
* dense torch: (C_out, C_in, k_1, ..., k_D), transposed convolutions (C_in, C_out, k_1, ..., k_D).

All are cross-correlations, :math:`y_u = \sum_k x_{u + \delta_k} W_k`, and their transposes, so layouts are all there is
to convert. One exception: for kernel size 1 and stride 1, spconv 2 reads the memory of its (C_out, 1, ..., C_in) as a
matrix (C_in, C_out), without a transpose (spconv/pytorch/conv.py, conv1x1); so its trained numbers lie that way, and
`load_weights` and `export_state` follow it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hepops.core.tensor_files import read_tensors, state_of

from .nn.convolution import DepthwiseConvolution, _Convolution

Layout = Literal["minkowski", "spconv", "spconv1", "dense"]
LAYOUTS: tuple[Layout, ...] = ("minkowski", "spconv", "spconv1", "dense")
Rename = Mapping[str, str] | Callable[[str], str] | None


# One kernel


def to_minkowski(weight: Tensor, layout: Layout = "spconv", *, transposed: bool = False) -> Tensor:
    """A kernel of another library as (K, C_in, C_out), the first axis fastest.

    Args:
        weight: in `layout`, with its D axes.
        layout: "spconv" (C_out, k..., C_in), "spconv1" (k..., C_in, C_out), "dense" (C_out, C_in, k...), "minkowski".
        transposed: of a transposed convolution, which dense torch keeps as (C_in, C_out, k...).

    Returns:
        (K, C_in, C_out), contiguous.

    Raises:
        ValueError: another layout, or too few axes.

    References:
        | C. Choy, J. Gwak, S. Savarese, 4D Spatio-Temporal ConvNets, CVPR 2019 (order of the weights)
        | spconv, https://github.com/traveller59/spconv (SPCONV_SAVED_WEIGHT_LAYOUT)

    Example:
        >>> dense = torch.arange(6.0).reshape(1, 1, 2, 3)
        >>> to_minkowski(dense, "dense").flatten().tolist()
        [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    """
    _known(layout)
    if layout == "minkowski":
        return weight.contiguous()
    if weight.dim() < 3:
        raise ValueError(f"weight must have two axes of channels and those of the kernel, got {tuple(weight.shape)}")
    D = weight.dim() - 2
    axes = {"spconv": (D + 1, 0), "spconv1": (D, D + 1), "dense": (0, 1) if transposed else (1, 0)}[layout]
    first = {"spconv": 1, "spconv1": 0, "dense": 2}[layout]
    spread = weight.permute(*reversed(range(first, first + D)), *axes)
    return spread.reshape(-1, weight.shape[axes[0]], weight.shape[axes[1]]).contiguous()


def from_minkowski(
    kernel: Tensor, sizes: Sequence[int], layout: Layout = "spconv", *, transposed: bool = False
) -> Tensor:
    """A kernel (K, C_in, C_out), or (C_in, C_out) where K = 1, in another library's layout; undoes `to_minkowski`.

    Args:
        kernel: the first axis fastest in K.
        sizes: of the kernel along each axis.
        layout, transposed: as in `to_minkowski`.

    Raises:
        ValueError: sizes whose product is not K, or another layout.

    Example:
        >>> from_minkowski(torch.zeros(27, 4, 8), (3, 3, 3), "spconv").shape
        torch.Size([8, 3, 3, 3, 4])
    """
    _known(layout)
    if layout == "minkowski":
        return kernel.contiguous()
    if kernel.dim() == 2:
        kernel = kernel[None]
    if kernel.dim() != 3 or kernel.shape[0] != math.prod(sizes):
        raise ValueError(f"kernel must be ({math.prod(sizes)}, C_in, C_out) for sizes {tuple(sizes)}, "
                         f"got {tuple(kernel.shape)}")  # fmt: skip
    D = len(sizes)
    grid = kernel.reshape(*reversed(sizes), *kernel.shape[1:])
    space = tuple(reversed(range(D)))
    C_in, C_out = D, D + 1
    order = {
        "spconv": (C_out, *space, C_in),
        "spconv1": (*space, C_in, C_out),
        "dense": (C_in, C_out, *space) if transposed else (C_out, C_in, *space),
    }[layout]
    return grid.permute(order).contiguous()


def _known(layout: str) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")


# Report


@dataclass
class LoadReport:
    """What became of every tensor of a state dict, and of every tensor of the model.

    Attributes:
        matched: (name in the source, name in the model, what was done to its layout: "" or "spconv", "reshaped", ...).
        missing: names in the model that the source has nothing for; they kept their values.
        unexpected: names in the source that the model has no place for.
        mismatched: (name in the source, name in the model, its shape, the shape that is needed).
        hint: what to give as `rename` where that would find places for most of what is unexpected, or nothing.
    """

    matched: list[tuple[str, str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    hint: str = ""

    @property
    def complete(self) -> bool:
        """Whether every tensor found its place, and every place its tensor."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing) + len(self.mismatched)
        done: dict[str, int] = {}
        for _, _, how in self.matched:
            if how:
                done[how] = done.get(how, 0) + 1
        changes = "".join(f", {number} {how}" for how, number in sorted(done.items()))
        lines = [f"{len(self.matched)} of {total} tensors loaded{changes}"]
        lines += _listed("missing (kept as they were)", self.missing)
        lines += _listed("unexpected (not used)", self.unexpected)
        wrong = [
            f"{source}{'' if source == target else f' -> {target}'}: {shape}, needs {needed}"
            for source, target, shape, needed in self.mismatched
        ]
        lines += _listed("of another shape (not used)", wrong)
        lines += [self.hint] if self.hint else []
        return "\n".join(lines)

    __repr__ = __str__


def _listed(title: str, names: Sequence[str], most: int = 12) -> list[str]:
    if not names:
        return []
    rest = [f"  ... {len(names) - most} more"] if len(names) > most else []
    return [f"{len(names)} {title}:", *[f"  {name}" for name in names[:most]], *rest]


# State dicts


def load_weights(
    model: nn.Module,
    source: Mapping[str, Any] | str | Path,
    *,
    layout: Layout | Literal["auto"] = "auto",
    rename: Rename = None,
    strict: bool = False,
) -> LoadReport:
    """Load a state dict of MinkowskiEngine, spconv, dense torch or hepops into a model of hepops.sparse.

    Names match as they are, or after the usual differences: a prefix "module." of parallel training; spconv's and
    torch's `weight` of a convolution for `kernel`, of a norm for `bn.weight`, of a linear layer for `linear.weight`; a
    bias (C) for (1, C). Everything is checked before anything is changed.

    Args:
        model: with layers of hepops.sparse.nn.
        source: a state dict, or a file: .safetensors, or what torch.save wrote (read with weights_only=True). A
            checkpoint may hold the state dict under "state_dict", "model" or "model_state_dict".
        layout: of the kernels in the source; "auto" takes `kernel` for MinkowskiEngine's and, for `weight`, the layout
            whose shape fits: spconv's before spconv 1's before dense.
        rename: {pattern: replacement} of regular expressions applied to each name in turn, or a function of the name;
            where it gives "", the tensor is left out.
        strict: raise where anything is missing, unexpected or of another shape. Where nothing fits at all, that is
            raised anyway.

    Returns:
        A LoadReport.

    Raises:
        ValueError: strict, and not everything matched, or nothing did (the model is as before); a file with more than
            tensors in it, such as a whole model; a file without a state dict; two names for one place.
            FileNotFoundError: no such file. ImportError: safetensors is not installed.

    References:
        | C. Choy, J. Gwak, S. Savarese, 4D Spatio-Temporal ConvNets, CVPR 2019
        | spconv, https://github.com/traveller59/spconv

    Example:
        >>> from hepops.sparse import nn
        >>> layer = nn.Convolution(2, 4, 3, bias=True)
        >>> state = {"module.weight": torch.ones(4, 3, 3, 3, 2), "bias": torch.zeros(4), "scale": torch.ones(1)}
        >>> load_weights(layer, state)
        2 of 2 tensors loaded, 1 reshaped, 1 spconv
        1 unexpected (not used):
          scale
    """
    if layout != "auto":
        _known(layout)
    state = read_state(source)
    targets = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    kernels = _kernels(model)
    report = LoadReport()
    ready: dict[str, Tensor] = {}
    taken: dict[str, str] = {}
    for name, value in state.items():
        wanted = _renamed(name, rename)
        if not wanted:
            continue
        target = _place(wanted, targets)
        if target is None:
            report.unexpected.append(name)
            continue
        if target in taken:
            raise ValueError(f"{taken[target]!r} and {name!r} are both for {target!r}; rename= can tell them apart")
        taken[target] = name
        fitted, how = _fit(value, targets[target], kernels.get(target), layout, wanted.endswith("kernel"))
        if fitted is None:
            report.mismatched.append((name, target, tuple(value.shape), tuple(targets[target].shape)))
            continue
        ready[target] = fitted
        report.matched.append((name, target, how))
    report.missing = [name for name in targets if name not in taken]
    report.hint = _hint(report.unexpected, targets)
    if not report.complete and (strict or not report.matched):
        whose = f" of {source}" if isinstance(source, (str, Path)) else ""
        raise ValueError(f"the weights{whose} do not fit the model: {report}")
    with torch.no_grad():
        for name, value in ready.items():
            targets[name].copy_(value)
    return report


def read_state(source: Mapping[str, Any] | str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict, a checkpoint that holds one, or a file of either; see `load_weights`."""
    if isinstance(source, (str, Path)):
        found = read_tensors(source)
    else:
        found = source
    found = state_of(found)
    if not isinstance(found, Mapping):
        advice = ": give its state_dict()" if isinstance(found, nn.Module) else ""
        raise ValueError(f"the source must be a state dict or hold one, got {type(found).__name__}{advice}")
    state = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not state and len(found):
        raise ValueError(f"the source holds no tensors, but {', '.join(map(str, list(found)[:8]))}")
    return state


def save_weights(
    model: nn.Module | Mapping[str, Tensor], path: str | Path, *, layout: Layout = "minkowski"
) -> dict[str, Tensor]:
    """Save a state dict, on request with its kernels in another library's layout.

    Args:
        model: a model, or a state dict, which is saved as it is.
        path: .safetensors, or anything else for torch.save.
        layout: of the kernels; see `export_state`.

    Returns:
        The state dict that was written.

    Raises:
        ValueError: a state dict with another layout than its own. ImportError: safetensors is not installed.
    """
    if isinstance(model, nn.Module):
        state = export_state(model, layout)
    elif layout == "minkowski":
        state = dict(model)
    else:
        raise ValueError("a state dict does not say the sizes of its kernels: save the model to change the layout")
    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    if Path(path).suffix == ".safetensors":
        _safetensors().save_file(state, str(path))
    else:
        torch.save(state, path)
    return state


def export_state(model: nn.Module, layout: Layout = "spconv") -> dict[str, Tensor]:
    """A model's state dict for another library.

    Kernels are in `layout` and, but for "minkowski", named `weight`; biases are (C); `bn.` and `linear.` are gone from
    the names, as spconv's networks use torch's own norms and linear layers on the features.

    Raises:
        ValueError: a kernel that is no box, in any layout but MinkowskiEngine's.

    Example:
        >>> from hepops.sparse import nn
        >>> {k: tuple(v.shape) for k, v in export_state(nn.Convolution(2, 4, (3, 1, 5), bias=True)).items()}
        {'weight': (4, 3, 1, 5, 2), 'bias': (4,)}
    """
    _known(layout)
    state, kernels = dict(model.state_dict()), _kernels(model)
    if layout == "minkowski":
        return state
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        layer = kernels.get(name)
        if layer is not None and name.endswith("kernel"):
            value = _exported(value, layer, layout, name)
            name = name.removesuffix("kernel") + "weight"
        elif layer is not None:
            value = value.reshape(-1)
        result[_short(name)] = value
    return result


def _exported(kernel: Tensor, layer: _Convolution, layout: Layout, name: str) -> Tensor:
    if layer.shape.shape != "box":
        raise ValueError(f"{name}: a kernel of shape {layer.shape.shape!r} has no place in the layout {layout!r}")
    if isinstance(layer, DepthwiseConvolution):
        kernel = kernel[:, None]  # one channel in per group
    if layout == "spconv" and layer.is_matrix:
        return kernel.reshape(kernel.shape[-1], *layer.kernel_size, -1)  # see above: no transpose
    return from_minkowski(kernel, layer.kernel_size, layout, transposed=layer.is_transposed)


def _kernels(model: nn.Module) -> dict[str, _Convolution]:
    """The convolution of each `kernel` and `bias` in the model's state dict."""
    found = {}
    for prefix, module in model.named_modules():
        if isinstance(module, _Convolution):
            dot = f"{prefix}." if prefix else ""
            found[f"{dot}kernel"] = found[f"{dot}bias"] = module
    return found


def _renamed(name: str, rename: Rename) -> str:
    if callable(rename):
        return rename(name)
    for pattern, replacement in (rename or {}).items():
        name = re.sub(pattern, replacement, name)
    return name


def _short(name: str) -> str:
    """A name without what other libraries do not say: norm.bn.weight is norm.weight, fc.linear.bias is fc.bias."""
    parts = name.split(".")
    if len(parts) > 2 and parts[-2] in ("bn", "linear", "module"):
        del parts[-2]
    return ".".join(parts)


def _place(name: str, targets: Mapping[str, Tensor]) -> str | None:
    """The model's name for a name in the source."""
    for candidate in (name, name.removeprefix("module.")):
        if candidate in targets:
            return candidate
        head, _, last = candidate.rpartition(".")
        dot = f"{head}." if head else ""
        others = [f"{dot}kernel"] if last == "weight" else []
        others += [f"{dot}{inner}.{last}" for inner in ("bn", "linear", "module")]
        for other in others:
            if other in targets:
                return other
        if _short(candidate) in targets:
            return _short(candidate)
    return None


def _hint(unexpected: Sequence[str], targets: Mapping[str, Tensor]) -> str:
    """The beginning of names to take off or to put before them, where most would then have a place."""

    def heads(name: str) -> list[str]:
        parts = name.split(".")
        return [".".join(parts[:n]) + "." for n in range(1, len(parts))]

    def places(names: Sequence[str]) -> int:
        return sum(_place(name, targets) is not None for name in names)

    found = [
        (places([name.removeprefix(head) for name in unexpected]), rf'rename={{r"^{re.escape(head)}": ""}}')
        for head in heads(next(iter(unexpected), ""))
    ]
    found += [
        (places([head + name for name in unexpected]), f'rename={{r"^": "{head}"}}')
        for head in dict.fromkeys(head for name in targets for head in heads(name)[:2])
    ]
    count, rename = max(found, default=(0, ""))
    return f"{rename} would find places for {count} of them" if 2 * count > len(unexpected) else ""


def _fit(
    value: Tensor, target: Tensor, layer: _Convolution | None, layout: str, is_kernel: bool
) -> tuple[Tensor | None, str]:
    """The value in the target's layout and what was done to it, or None where no shape fits."""
    if layer is None or value.dim() <= 2 or (is_kernel and value.dim() == 3):
        if value.shape == target.shape:
            return value, ""
        same = value.numel() == target.numel() and _squeezed(value) == _squeezed(target)
        return (value.reshape(target.shape), "reshaped") if same else (None, "")
    layouts: Sequence[Any] = ("spconv", "spconv1", "dense") if layout == "auto" else (layout,)
    C_in, C_out = layer.in_channels // layer.groups, layer.out_channels
    for tried in layouts:
        if tried == "minkowski":
            if value.shape == target.shape:
                return value, ""
        elif tuple(value.shape) == _shape(tried, C_in, C_out, layer):
            if tried == "spconv" and layer.is_matrix:
                return value.reshape(target.shape), tried  # see above: no transpose
            kernel = to_minkowski(value, tried, transposed=layer.is_transposed)
            return kernel.reshape(target.shape), tried
    return None, ""


def _shape(layout: str, C_in: int, C_out: int, layer: _Convolution) -> tuple[int, ...]:
    sizes = layer.kernel_size
    if layout == "spconv":
        return (C_out, *sizes, C_in)
    if layout == "spconv1":
        return (*sizes, C_in, C_out)
    return (C_in, C_out, *sizes) if layer.is_transposed else (C_out, C_in, *sizes)


def _squeezed(value: Tensor) -> tuple[int, ...]:
    return tuple(n for n in value.shape if n != 1)


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError("files in .safetensors need safetensors: pip install safetensors") from None
    return safetensors.torch
