"""Residual encoder: a vector for every event, or for every cluster whose number stands in the place of the event's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as snn
from ..tensor import Duplicates, SparseTensor
from .backbones import Encoding, split
from .configuration import Configuration, Source


class ResidualEncoder(Encoding):
    """Residual encoder, a pool over each event and a linear layer; SPINE's SparseResidualEncoder.

    Args:
        config: mapping as SPINE's, YAML file, or None.
        coord_conv: put the coordinates, over spatial_size, before the features; `num_input` does not count them.
        pool_mode: "avg", "sum", "max", or "conv": a convolution whose kernel and stride span what is left of
            spatial_size on the coarsest level.
        feature_size: length of the vector.
        options: as `Configuration`; on top of `config`.

    Returns:
        forward(x) is (B, feature_size), one row for each batch id, ascending; ids without voxels have a row where x has
        a batch size. x is a SparseTensor, or a table (N, 1 + D + C) as SPINE hands over (see `from_table`).

    Differentiable as its layers. Deterministic: the same bits in every run.

    Raises:
        ValueError: unknown options; coord_conv or "conv" without spatial_size; with "conv", voxels outside of
            [0, spatial_size).

    References:
        SPINE, https://github.com/DeepLearnPhysics/spine

    Example:
        >>> encoder = ResidualEncoder(filters=4, depth=3, reps=1, coord_conv=True, spatial_size=64, feature_size=16)
        >>> encoder(SparseTensor(torch.ones(2, 1), torch.tensor([[0, 1, 2, 3], [7, 4, 5, 6]]))).shape
        torch.Size([2, 16])
    """

    def __init__(self, config: Source = None, **options: Any) -> None:
        super().__init__()
        own, shared = split(config, options, ["coord_conv", "pool_mode", "feature_size"])
        self.coord_conv = bool(own.get("coord_conv", False))
        self.pool_mode = own.get("pool_mode", "avg")
        self.feature_size = own.get("feature_size", 512)
        plain = Configuration.of(shared)
        self.input_features = plain.num_input
        if plain.spatial_size is None and (self.coord_conv or self.pool_mode == "conv"):
            raise ValueError("coord_conv and pool_mode 'conv' need spatial_size")
        channels = plain.num_input + (plain.data_dim if self.coord_conv else 0)
        self._make_encoder(Configuration.of(plain, num_input=channels))
        self.pool = self._make_pool()
        self.linear = snn.Linear(self.num_planes[-1], self.feature_size)

    def _make_pool(self) -> nn.Module:
        pools = {"avg": snn.GlobalAvgPool, "sum": snn.GlobalSumPool, "max": snn.GlobalMaxPool}
        if self.pool_mode in pools:
            return pools[self.pool_mode]()
        if self.pool_mode != "conv":
            raise ValueError(f"pool_mode must be avg, sum, max or conv, got {self.pool_mode!r}")
        assert self.config.spatial_size is not None
        left, width = self.config.spatial_size // 2 ** (self.config.depth - 1), self.num_planes[-1]
        if left < 1:
            raise ValueError(f"spatial_size {self.config.spatial_size} is less than the coarsest stride")
        return nn.Sequential(snn.Convolution(width, width, left, left, dimension=self.dimension))

    def forward(self, x: SparseTensor | Tensor) -> Tensor:
        if isinstance(x, Tensor):
            x = from_table(x[:, : 1 + self.dimension + self.input_features], self.dimension)
        if self.coord_conv:
            assert self.config.spatial_size is not None
            place = x.coordinates[:, 1:].to(x.dtype) / self.config.spatial_size
            x = x.replace(torch.cat([place, x.features], 1))
        final = self.encode(x)["final_tensor"]
        pooled = self.pool(final)
        if self.pool_mode == "conv":
            _one_row_each(pooled, final)
        vectors: Tensor = self.linear(pooled).features
        return vectors


def _one_row_each(pooled: SparseTensor, final: SparseTensor) -> None:
    """A pool by convolution makes a row for each cell: one an event, if its voxels lie within the image."""
    events = len(final.segments.batches)
    if len(pooled) != events:
        raise ValueError(
            f"pool_mode 'conv' needs voxels of every event, all within [0, spatial_size): {events} events made "
            f"{len(pooled)} rows"
        )


def from_table(
    table: Tensor, dimension: int = 3, *, duplicates: Duplicates = "sum", batch_size: int | None = None
) -> SparseTensor:
    """Voxels from a table with their coordinates before their features, as SPINE's.

    Args:
        table: float (N, 1 + D + C) [batch, x, y, ..., features].
        dimension: D.
        duplicates: as in SparseTensor.
        batch_size: number of batch ids, where empty ones shall count.

    Returns:
        SparseTensor; ``inverse_mapping`` has its row for each row of the table.

    Raises:
        ValueError: a table without features, or coordinates that are not integers.

    Example:
        >>> from_table(torch.tensor([[0.0, 1, 2, 3, 0.5], [0, 1, 2, 3, 0.25]])).features
        tensor([[0.7500]])
    """
    if table.dim() != 2 or table.shape[1] < dimension + 2:
        raise ValueError(f"table must be (N, 1 + {dimension} + C) with C > 0, got {tuple(table.shape)}")
    return SparseTensor(
        table[:, dimension + 1 :].contiguous(), table[:, : dimension + 1], duplicates=duplicates, batch_size=batch_size
    )
