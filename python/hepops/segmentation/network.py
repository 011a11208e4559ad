"""The network with all that it needs to label voxels, in two files: model.safetensors and config.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from hepops.core.files import atomic
from hepops.sparse import SparseTensor
from hepops.sparse.models import UResNet

from .sample import CLASSES

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT, VERSION = "hepops.segmentation", 1
NETWORK = {"filters": 16, "depth": 5, "reps": 2, "activation": {"name": "lrelu", "negative_slope": 0.33}}
_MIP = 30.0  # charge of a minimum-ionising track in a voxel [ke]: inputs are of order 1
_LEAST = 0.3  # below, the logarithm ends [ke]


class Segmenter(nn.Module):
    """A UResNet that gives every voxel a class.

    Args:
        network: Options of `hepops.sparse.models.UResNet` on top of `NETWORK`: 16 filters, depth 5, two blocks per
            level.

    Deterministic: the same bits from run to run and for any number of threads.

    Example:
        >>> segmenter = Segmenter({"filters": 4, "depth": 2})
        >>> segmenter.label(torch.tensor([[0, 5, 5, 5], [0, 5, 5, 6]]), torch.tensor([28.0, 31.0])).shape
        torch.Size([2])
    """

    def __init__(self, network: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.options: dict[str, Any] = {**NETWORK, **(network or {})}
        self.network = UResNet(num_classes=len(CLASSES), num_input=2, **self.options)

    def forward(self, coordinates: Tensor, charge: Tensor) -> Tensor:
        """Logits (num_voxels, num_classes), in the rows of the voxels.

        Args:
            coordinates: Integers (num_voxels, 4), event x y z, each voxel once; of any number of events.
            charge: In each voxel, (num_voxels) [ke].
        """
        q = charge.to(self.network.linear_segmentation.linear.weight)
        features = torch.stack((q / _MIP, torch.log(q.clamp_min(_LEAST) / _MIP)), 1)
        return self.network(SparseTensor(features, coordinates)).features

    @torch.no_grad()
    def label(self, coordinates: Tensor, charge: Tensor, voxels: int = 50_000) -> Tensor:
        """The class of every voxel, int64 (num_voxels), an index of `CLASSES`; arguments as of `forward`.

        Events are taken some at a time, about `voxels` together, so that memory stays bounded; which ones makes no
        difference.
        """
        before = self.training
        self.eval()
        try:
            return self._label(coordinates, charge, voxels)
        finally:
            self.train(before)

    def _label(self, coordinates: Tensor, charge: Tensor, voxels: int) -> Tensor:
        given = torch.zeros(len(coordinates), dtype=torch.int64, device=coordinates.device)
        order = torch.argsort(coordinates[:, 0], stable=True)
        _, counts = torch.unique_consecutive(coordinates[order, 0], return_counts=True)
        begin, end = 0, 0
        ends = torch.cumsum(counts, 0).tolist()
        for k, end in enumerate(ends):
            if k + 1 < len(ends) and ends[k + 1] - begin <= voxels:
                continue
            rows = order[begin:end]
            given[rows] = self(coordinates[rows], charge[rows]).argmax(1)
            begin = end
        return given

    def save(self, folder: str | Path, more: Mapping[str, Any] | None = None) -> None:
        """Write weights and configuration, each whole or not there; `more` stands in config.json under its names."""
        from safetensors.torch import save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "format": FORMAT,
            "version": VERSION,
            "classes": list(CLASSES),
            "network": self.options,
            **(more or {}),
        }
        with atomic(folder / WEIGHTS) as part:
            part.write_bytes(save({name: value.contiguous() for name, value in self.network.state_dict().items()}))
        with atomic(folder / CONFIG) as part:
            part.write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A network as `save` wrote it, to the last bit.

        Raises:
            FileNotFoundError: one of the files is not there.
            ValueError: another format, a later version, other classes, or weights that do not fit.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name}: no such file")
        try:
            config = json.loads((folder / CONFIG).read_text())
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG}: not JSON ({error})") from None
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise ValueError(f"{folder / CONFIG}: not the configuration of a {FORMAT}")
        if config["version"] > VERSION:
            raise ValueError(f"{folder / CONFIG}: version {config['version']} is newer than this library's {VERSION}")
        if config["classes"] != list(CLASSES):
            raise ValueError(f"{folder / CONFIG}: classes are {config['classes']}, expected {list(CLASSES)}")
        made = cls(config["network"])
        try:
            made.network.load_state_dict(load_file(folder / WEIGHTS))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{folder / WEIGHTS}: {' '.join(str(error).split())}") from None
        return made.eval()
