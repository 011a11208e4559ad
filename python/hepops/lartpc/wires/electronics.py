"""Cold electronics: the shaped response to a charge, its integral, and the shaping of ragged rows of current.

h(t) is the fifth-order semi-Gaussian of the cold front-end chip, in the constants with which LArSoft and Wire-Cell have
it (C. Adams et al. (MicroBooNE), JINST 13 (2018) P07006, describes the chip). With x = t / t_p,

    h = 10.12 g [4.31054 e^-2.94809x + e^-2.82833x (1.524912 sin 1.19361x - 5.2404 cos 1.19361x)
                 + e^-2.40318x (0.929848 cos 2.5928x - 0.655368 sin 2.5928x)],

whose peak is g. It is a sum of exponentials with complex rates, so that its integral H is in closed form.
"""

import math
from typing import Any

import torch
from torch import Tensor

FEMTOCOULOMB = 1.602176634e-4  # charge of an electron [fC], exact (SI 2019)
_RATES = (2.94809 + 0j, 2.82833 - 1.19361j, 2.40318 - 2.5928j)  # h = Re sum c exp(-s x)
_WEIGHTS = (4.31054 + 0j, -5.2404 - 1.524912j, 0.929848 + 0.655368j)
_SCALE = 10.12
LENGTH = 10.0  # [peaking times] after which h is below 1e-10 of its peak


def cold_response(time: Tensor, gain: float = 14.0, peaking_time: float = 2.0) -> Tensor:
    """Response h(t) to one electron at t = 0 [mV], float64; zero before. `gain` [mV/fC], times [us].

    Differentiable in time, as torch is; deterministic.

    Example:
        >>> t = torch.arange(0.0, 20.0, 0.01, dtype=torch.float64)
        >>> round(float(cold_response(t).max()) / 1.602176634e-4, 2), round(float(t[cold_response(t).argmax()]), 2)
        (14.0, 2.35)
    """
    x = time.to(torch.float64) / peaking_time
    total = sum((c * torch.exp(-s * x)).real for c, s in zip(_WEIGHTS, _RATES, strict=True))
    return torch.where(x > 0, total * (_SCALE * gain * FEMTOCOULOMB), 0.0)


def cold_integral(time: Tensor, gain: float, peaking_time: float) -> Tensor:
    """H(t), the integral of h from 0 to t [mV us per electron], float64."""
    x = time.to(torch.float64) / peaking_time
    total = sum((c / s * (1 - torch.exp(-s * x))).real for c, s in zip(_WEIGHTS, _RATES, strict=True))
    return torch.where(x > 0, total * (_SCALE * gain * FEMTOCOULOMB * peaking_time), 0.0)


def taps(tick: float, parts: int, gain: float, peaking_time: float) -> list[float]:
    """g[m] = H(m d) - H((m - 1) d), d = tick / parts: a current that is constant during a part, seen m parts later."""
    d = tick / parts
    count = parts * math.ceil(LENGTH * peaking_time / tick)
    steps = cold_integral(torch.arange(count + 1, dtype=torch.float64) * d, gain, peaking_time)
    values: list[float] = (steps[1:] - steps[:-1]).tolist()
    return values


class Shape(torch.autograd.Function):
    """Samples V[n] = sum_m g[m] I[parts n - m] of a flat row; linear, so that its backward is its transpose.

    The row begins with as many zeros as there are taps. A loop over the taps, each over all samples: one order of the
    sums, whatever the threads.
    """

    @staticmethod
    def forward(ctx: Any, current: Tensor, weights: list[float], parts: int) -> Tensor:
        ctx.weights, ctx.parts, ctx.length = weights, parts, current.shape[-1]
        lead = len(weights)
        samples = (current.shape[-1] - lead) // parts
        result = current.new_zeros(*current.shape[:-1], samples)
        for m, g in enumerate(weights, 1):
            result.add_(current[..., lead - m : lead - m + samples * parts : parts], alpha=g)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (grad,) = grads
        lead, samples, parts = len(ctx.weights), grad.shape[-1], ctx.parts
        result = grad.new_zeros(*grad.shape[:-1], ctx.length)
        for m, g in enumerate(ctx.weights, 1):
            result[..., lead - m : lead - m + samples * parts : parts].add_(grad, alpha=g)
        return result, None, None
