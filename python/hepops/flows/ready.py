"""Flows that are ready to be trained."""

from collections.abc import Sequence

import torch

from .bases import Normal
from .coupling import Coupling
from .elementwise import Spline
from .flow import Flow
from .transform import Compose, Transform


def nsf(
    features: int,
    context: int = 0,
    *,
    layers: int = 4,
    bins: int = 8,
    hidden: Sequence[int] = (64, 64),
    bound: float = 5.0,
) -> Flow:
    """Neural spline flow: couplings of rational-quadratic splines on alternating halves, over normal numbers."""
    masks = [(torch.arange(features) + i) % 2 == 0 for i in range(layers)]
    couplings: list[Transform] = [Coupling(m, Spline(bins, bound), hidden=hidden, context=context) for m in masks]
    return Flow(Compose(couplings), Normal(features))
