"""Labels of voxels that several points share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MergedLabels(NamedTuple):
    """A label for each voxel, and the voxels whose points disagreed."""

    labels: Tensor  # (n), dtype of the labels given
    conflicts: Tensor  # int64, ascending: the voxels that got the label to ignore


def merge_labels(
    labels: Tensor, inverse: Tensor, ignore_label: int = -100, num_voxels: int | None = None
) -> MergedLabels:
    """The label of each merged voxel: that of its points where they agree, `ignore_label` where they do not.

    Args:
        labels: integer (N), one a point.
        inverse: int64 (N), the voxel of each point, as `SparseTensor.inverse_mapping` has it.
        ignore_label: what conflicting voxels get, and voxels without points; -100 is what torch's losses pass over.
        num_voxels: n, by default the largest of `inverse` and 1 more.

    Returns:
        `labels` (n) and `conflicts`, the rows of the voxels whose points carry different labels.

    Not differentiable. Deterministic.

    Raises:
        TypeError: labels or inverse are not integers.
        ValueError: lengths differ, or an entry of inverse is not in [0, n).

    References:
        C. Choy, J. Gwak, S. Savarese, 4D Spatio-Temporal ConvNets, CVPR 2019 (its code marks the wrong voxels)

    Example:
        >>> merge_labels(torch.tensor([4, 4, 1, 2]), torch.tensor([1, 1, 0, 0]))
        MergedLabels(labels=tensor([-100,    4]), conflicts=tensor([0]))
    """
    for name, x in [("labels", labels), ("inverse", inverse)]:
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(f"{name} must be integer, got {x.dtype}")
        if x.dim() != 1:
            raise ValueError(f"{name} must be (N,), got shape {tuple(x.shape)}")
    if len(labels) != len(inverse):
        raise ValueError(f"labels has {len(labels)} entries, inverse {len(inverse)}")
    least, most = (int(inverse.min()), int(inverse.max())) if len(inverse) else (0, -1)
    n = most + 1 if num_voxels is None else num_voxels
    if least < 0 or most >= n:
        raise ValueError(f"inverse must be in [0, {n}), got {least} to {most}")
    inverse = inverse.long()
    low, high = (
        torch.full((n,), ignore_label, dtype=labels.dtype, device=labels.device).scatter_reduce(
            0, inverse, labels, reduce, include_self=False
        )
        for reduce in ("amin", "amax")
    )
    differ = low != high
    return MergedLabels(low.masked_fill(differ, ignore_label), differ.nonzero()[:, 0])
