"""Integrators of Hamilton's equations as stages: kick, drift, kick, ..., drift, kick."""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .coupling import real_number

# lambda of the second-order minimum-norm integrator: I. P. Omelyan, I. M. Mryglod, R. Folk, CPC 151 (2003) 272, eq. 31
OMELYAN = 0.1931833275037836
INTEGRATORS = ("leapfrog", "omelyan", "force_gradient")


@dataclass(frozen=True)
class Stages:
    r"""P -= kicks[0] F; then field += drifts[k] P and P -= kicks[k+1] F for every k.

    Where bends[k] is not 0, kick k takes the force at the field moved by -bends[k] F: the force gradient.
    """

    kicks: tuple[float, ...]
    bends: tuple[float, ...]
    drifts: tuple[float, ...]


def stages(integrator: str, step_size: float, steps: int) -> Stages:
    r"""A trajectory of `steps` steps, with the last kick of a step joined to the first of the next.

    With T the drift and V the kick of length :math:`\epsilon`:

    ======================  ==========================================================================================
    leapfrog                V(1/2) T(1) V(1/2)
    omelyan                 V(l) T(1/2) V(1 - 2l) T(1/2) V(l), l = 0.19318...
    force_gradient          V(1/6) T(1/2) V'(2/3) T(1/2) V(1/6), V' with the force at field - eps^2 F / 24: fourth order
    ======================  ==========================================================================================

    Raises:
        TypeError: the step size is no real number.
        ValueError: an unknown integrator, no step, or a step size that is not finite.

    References:
        | I. P. Omelyan, I. M. Mryglod, R. Folk, Comput. Phys. Commun. 151 (2003) 272
        | S. A. Chin, Phys. Lett. A 226 (1997) 344; H. Yin, R. D. Mawhinney, arXiv:1111.5059 (the displaced force)
    """
    if integrator not in INTEGRATORS:
        raise ValueError(f"trajectory: integrator must be one of {', '.join(INTEGRATORS)}, got {integrator!r}")
    if not hasattr(steps, "__index__") or operator.index(steps) < 1:
        raise ValueError(f"trajectory: steps must be an integer of at least 1, got {steps!r}")
    h, steps = real_number("trajectory", "step_size", step_size), operator.index(steps)
    kicks, bends, drifts = {
        "leapfrog": ([h / 2, h / 2], [0.0, 0.0], [h]),
        "omelyan": ([OMELYAN * h, (1 - 2 * OMELYAN) * h, OMELYAN * h], [0.0, 0.0, 0.0], [h / 2, h / 2]),
        "force_gradient": ([h / 6, 2 * h / 3, h / 6], [0.0, h * h / 24, 0.0], [h / 2, h / 2]),
    }[integrator]
    all_kicks, all_bends = list(kicks), list(bends)
    for _ in range(steps - 1):
        all_kicks[-1] += kicks[0]
        all_kicks += kicks[1:]
        all_bends += bends[1:]
    return Stages(tuple(all_kicks), tuple(all_bends), tuple(drifts * steps))


def plain_trajectory(
    force: Callable[[Tensor], Tensor], field: Tensor, momenta: Tensor, plan: Stages
) -> tuple[Tensor, Tensor]:
    """The stages in torch's operators, for fields of plain numbers: the reference of the fused forms."""

    def kick(k: int) -> Tensor:
        at = field - plan.bends[k] * force(field) if plan.bends[k] else field
        return momenta - plan.kicks[k] * force(at)

    momenta = kick(0)
    for k, drift in enumerate(plan.drifts, 1):
        field = field + drift * momenta
        momenta = kick(k)
    return field, momenta


def plan(integrator: str, step_size: float, steps: int) -> Tensor:
    """The stages as the fused trajectories want them: kick, bend and drift, shape (stages, 3), float64, on the CPU."""
    s = stages(integrator, step_size, steps)
    return torch.tensor(list(zip(s.kicks, s.bends, (*s.drifts, 0.0), strict=True)), dtype=torch.float64)
