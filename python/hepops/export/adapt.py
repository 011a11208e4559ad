"""What of a model is exported: plain tensors in, plain tensors out, and what they mean."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hepops.segmentation import Segmenter
from hepops.segmentation.network import _LEAST, _MIP
from hepops.segmentation.sample import CLASSES
from hepops.sparse import SparseTensor

from .maps import Recipe

VOXELS = "voxels"  # the name of the number that may differ from call to call
COORDINATES = "event x y z of each voxel, each voxel once"


@dataclass(frozen=True)
class Adapted:
    """A module that takes and gives tensors, an example for it, and what the tensors mean."""

    module: nn.Module
    example: tuple[Tensor, ...]
    names: tuple[str, ...]  # of the inputs
    meanings: tuple[str, ...]
    output: str
    configuration: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


class _Sparse(nn.Module):
    """coordinates, features -> features of the network's result."""

    def __init__(self, network: nn.Module, example: SparseTensor) -> None:
        super().__init__()
        self.network = network
        network(example)
        self.recipe = Recipe(example)

    def forward(self, coordinates: Tensor, features: Tensor) -> Tensor:
        result: Tensor = self.network(self.recipe.build(coordinates, features)).features
        return result


class _Segmenter(nn.Module):
    """coordinates, charge -> logits."""

    def __init__(self, segmenter: Segmenter, coordinates: Tensor, charge: Tensor) -> None:
        super().__init__()
        self.inner = _Sparse(segmenter.network, SparseTensor(_of_charge(charge), coordinates))

    def forward(self, coordinates: Tensor, charge: Tensor) -> Tensor:
        logits: Tensor = self.inner(coordinates, _of_charge(charge))
        return logits


def _of_charge(charge: Tensor) -> Tensor:
    """What `Segmenter.forward` makes of a charge [ke]."""
    return torch.stack((charge / _MIP, torch.log(charge.clamp_min(_LEAST) / _MIP)), 1)


def adapt(model: nn.Module, example: Sequence[Tensor] | None) -> Adapted:
    """The exported form of a model; see `export` for what is taken.

    Raises:
        TypeError: not a module, or an example of other than tensors.
        ValueError: an example that is needed and is not given, or that does not fit.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"export: model must be a torch.nn.Module, got {type(model).__name__}")
    if example is not None and not all(isinstance(x, Tensor) for x in example):
        raise TypeError(f"export: example must be tensors, got {[type(x).__name__ for x in example]}")
    given = None if example is None else tuple(example)
    if isinstance(model, Segmenter):
        return _segmenter(model, given)
    channels = getattr(getattr(model, "config", None), "num_input", None)
    if channels is not None or _is_sparse(model):
        return _sparse(model, channels, given)
    if type(model).forward is nn.Module.forward:
        raise ValueError(
            f"export: {type(model).__name__} has no forward; give a module whose forward is what to export"
        )
    if given is None:
        raise ValueError(
            f"export: {type(model).__name__} needs an example, a tuple of tensors: hepops.export.export(model, path, "
            "example=...) in Python"
        )
    names = tuple(f"input{i}" for i in range(len(given)))
    return Adapted(model, given, names, ("",) * len(given), "output")


def _is_sparse(model: nn.Module) -> bool:
    return any(type(m).__module__.startswith("hepops.sparse.") for m in model.modules())


def _segmenter(model: Segmenter, example: tuple[Tensor, ...] | None) -> Adapted:
    coordinates, charge = example or (voxels(3), torch.rand(len(voxels(3)), generator=_generator()) * 100)
    _check_voxels(coordinates, charge)
    return Adapted(
        _Segmenter(model, coordinates, charge),
        (coordinates, charge),
        ("coordinates", "charge"),
        (COORDINATES, "charge of each voxel [ke]"),
        "logits",
        {"network": model.options},
        tuple(CLASSES),
    )


def _sparse(model: nn.Module, channels: int | None, example: tuple[Tensor, ...] | None) -> Adapted:
    if example is None:
        if channels is None:
            raise ValueError(
                f"export: {type(model).__name__} needs an example: coordinates (N, 1 + D), features (N, C)"
            )
        dimension = int(getattr(model.config, "data_dim", 3))
        coordinates = voxels(dimension)
        example = (coordinates, torch.rand(len(coordinates), channels, generator=_generator()))
    if len(example) != 2:
        raise ValueError(f"export: example must be coordinates and features, got {len(example)} tensors")
    _check_voxels(*example)
    meanings = (COORDINATES, "features of each voxel")
    made = _Sparse(model, SparseTensor(example[1], example[0]))
    return Adapted(made, example, ("coordinates", "features"), meanings, "features")


def _check_voxels(coordinates: Tensor, features: Tensor) -> None:
    if coordinates.dim() != 2 or coordinates.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"export: coordinates must be integers (N, 1 + D), got {coordinates.dtype} {tuple(coordinates.shape)}"
        )
    if len(coordinates) != len(features) or len(coordinates) < 2:
        raise ValueError(f"export: the example needs two voxels or more, got {len(coordinates)} and {len(features)}")


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def voxels(dimension: int, steps: int = 1000) -> Tensor:
    """The voxels of a random walk as an example, int64 (N, 1 + dimension)."""
    walk = torch.randint(-1, 2, (steps, dimension), generator=_generator()).cumsum(0)
    visited = torch.unique(walk, dim=0)
    return torch.cat([visited.new_zeros(len(visited), 1), visited], 1)
