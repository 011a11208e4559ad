"""Derivatives of a backward operator, from a formula that computes the same in torch's operators."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def differentiate(
    formula: Callable[[list[Any]], tuple[Tensor, ...]],
    inputs: Sequence[Any],
    wanted: Sequence[bool],
    seeds: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """What `seeds`, the gradients of the formula's outputs, are as gradients of its inputs: None where not wanted.

    The result is made by torch's operators, so that it can be differentiated any number of times.
    """
    create = torch.is_grad_enabled()
    places = [n for n, t in enumerate(inputs) if t is not None and wanted[n]]
    with torch.enable_grad():
        # views, so that the gradient of an input does not reach it through another that was made from it
        views = [t.view_as(t) if t is not None and t.requires_grad else t for t in inputs]
        outputs = formula(views)
        pairs = [(o, s) for o, s in zip(outputs, seeds, strict=True) if s is not None and o.requires_grad]
        if not pairs or not places:
            return (None,) * len(inputs)
        slopes = torch.autograd.grad(
            [o for o, _ in pairs],
            [views[n] for n in places],
            [s for _, s in pairs],
            create_graph=create,
            allow_unused=True,
        )
    found = dict(zip(places, slopes, strict=True))
    return tuple(found.get(n) for n in range(len(inputs)))
