"""A table of a network's layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..common import absent


def size2list(size: torch.Size) -> list[int]:
    """The shape as a list."""
    return list(size)


def pruned_weight_sparsity_string(module: nn.Module) -> float:
    """The share of zeros in a weight that torch.nn.utils.prune masks; 0 without a mask."""
    for name, _ in module.named_buffers(recurse=False):
        if name.endswith("_mask"):
            return float((getattr(module, name.removesuffix("_mask")) == 0).float().mean())
    return 0.0


def get_hash_occupancy_ratio(minkowski_tensor: Any) -> float:
    raise absent("utils.summary.get_hash_occupancy_ratio", "there is no hash table")


def minkowski_summary_string(model: nn.Module, summary_input: Any) -> tuple[str, tuple[int, int]]:
    """A table of the output shape and number of parameters of every layer, and (all, trainable) parameters.

    The network is run once on `summary_input`.
    """
    lines: list[tuple[str, str, str]] = []
    hooks = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        outputs = output if isinstance(output, (list, tuple)) else [output]
        shapes = [size2list(x.shape) for x in outputs if hasattr(x, "shape")]
        count = sum(p.numel() for p in module.parameters())
        lines.append(
            (f"{type(module).__name__}-{len(lines) + 1}", str(shapes[0] if len(shapes) == 1 else shapes), f"{count:,}")
        )

    for module in model.modules():
        if not isinstance(module, (nn.Sequential, nn.ModuleList)):
            hooks.append(module.register_forward_hook(note))
    try:
        model(summary_input)
    finally:
        for hook in hooks:
            hook.remove()
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rule = "-" * 80
    rows = [
        f"{name:>36}  {shape:>25} {count:>15}"
        for name, shape, count in [("Layer (type)", "Output Shape", "Param #"), *lines]
    ]
    table = [rule, rows[0], rule, *rows[1:], rule, f"Total params: {total:,}", f"Trainable params: {trainable:,}", rule]
    return "\n".join(table) + "\n", (total, trainable)


def summary(model: nn.Module, summary_input: Any) -> tuple[int, int]:
    """Print `minkowski_summary_string`; returns (all, trainable) parameters."""
    table, counts = minkowski_summary_string(model, summary_input)
    print(table)
    return counts
