"""UResNet: a class for every voxel."""

from __future__ import annotations

from typing import Any, Literal, overload

from torch import nn

from .. import nn as snn
from ..tensor import SparseTensor
from ._units import make_activation, make_norm, norm_act
from .backbones import Planes, make_backbone, split
from .configuration import Configuration, Source, component


class Segmented(Planes, total=False):
    """What UResNet returns with its planes."""

    segmentation: SparseTensor  # logits
    ghost: SparseTensor  # logits of (not a ghost, ghost), where asked for


class UResNet(nn.Module):
    r"""U-shaped residual network of sparse convolutions, for semantic segmentation; SPINE's UResNetSegmentation.

    Channels of the levels are filters * (1 ... depth). On each level `reps` residual blocks
    :math:`x + W_2\, a(n(W_1\, a(n(x))))`, between levels convolutions of kernel 2 and stride 2, back by their
    transposes, with the encoder's features beside; at the end norm, activation and a linear layer.

    Args:
        config: mapping as SPINE's, YAML file (also a whole configuration of SPINE with this one network), or None.
        num_classes: classes.
        ghost: adds a second linear layer that tells ghost points.
        backbone: "uresnet", or "uresnext" (cardinality), "senet" (se_ratio), "mobilenet", "fpn"; a mapping
            {"name": ..., arguments} sets their own arguments.
        options: as `Configuration`; on top of `config`.

    Returns:
        forward(x) is the logits, a SparseTensor on the voxels of x with num_classes channels, in the rows of x; with
        ``planes=True`` a dictionary with `segmentation`, `encoder_tensors`, `decoder_tensors`, `final_tensor`, and
        `ghost` where there is one. Logits in the order of rows that were merged: ``y.features[y.inverse_mapping]``.

    Differentiable as its layers. Deterministic: the same bits in every run.

    Raises:
        ValueError: unknown options, numbers below 1; an input with other channels or dimension.

    References:
        | L. Domine, K. Terao, Scalable deep convolutional neural networks for sparse, locally dense liquid argon time
          projection chamber data, Phys. Rev. D 102, 012005 (2020)
        | SPINE, https://github.com/DeepLearnPhysics/spine

    Example:
        >>> import torch
        >>> network = UResNet(num_classes=5, filters=8, depth=3, reps=1, activation={"name": "lrelu"})
        >>> x = SparseTensor(torch.rand(100, 1), torch.cat([torch.zeros(100, 1), torch.arange(300).view(100, 3)], 1))
        >>> network(x)
        SparseTensor(100 voxels x 5 channels, 3D, 1 event, stride 1, torch.float32, cpu)
        >>> sum(p.numel() for p in UResNet(num_classes=5, filters=32, depth=5, reps=2).parameters())
        10956229
    """

    def __init__(self, config: Source = None, **options: Any) -> None:
        super().__init__()
        own, shared = split(config, options, ["num_classes", "ghost", "backbone"])
        if "num_classes" not in own:
            raise ValueError("num_classes must be given")
        self.num_classes, self.ghost = own["num_classes"], bool(own.get("ghost", False))
        if isinstance(self.num_classes, bool) or not isinstance(self.num_classes, int):
            raise TypeError(f"num_classes must be an integer, got {self.num_classes!r}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")
        name, arguments = component(own.get("backbone", "uresnet"))
        self.backbone = make_backbone(name, {**shared, **arguments})
        self.config: Configuration = self.backbone.config  # type: ignore[assignment]
        width = self.config.filters
        self.output = nn.Sequential(make_norm(self.config.norm_layer, width), make_activation(self.config.activation))
        self.linear_segmentation = snn.Linear(width, self.num_classes)
        if self.ghost:
            self.linear_ghost = snn.Linear(width, 2)

    @overload
    def forward(self, x: SparseTensor, planes: Literal[False] = False) -> SparseTensor: ...

    @overload
    def forward(self, x: SparseTensor, planes: Literal[True]) -> Segmented: ...

    def forward(self, x: SparseTensor, planes: bool = False) -> SparseTensor | Segmented:
        made: Segmented = self.backbone(x, (self.output[0], self.output[1]))
        last = made["decoder_tensors"][-1] if made["decoder_tensors"] else made["final_tensor"]
        last = norm_act(self.output[0], self.output[1], last)
        # The rows are those of x all the way; on x's own voxels they also keep what is known of merged rows.
        logits = x.replace(self.linear_segmentation(last).features)
        if not planes:
            return logits
        made["segmentation"] = logits
        if self.ghost:
            made["ghost"] = x.replace(self.linear_ghost(last).features)
        return made
