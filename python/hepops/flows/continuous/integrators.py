"""Integrators of dx/dt = g: our own fixed steps, and the adaptive ones of torchdiffeq where it is installed."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

Rate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def rk4_step(rate: Rate, t: float, h: float, x: Tensor, logdet: Tensor) -> tuple[Tensor, Tensor]:
    r"""One step of the classical fourth-order Runge-Kutta rule, for x and the integral of its divergence.

    .. math:: x(t+h) = x + \tfrac{h}{6} (k_1 + 2 k_2 + 2 k_3 + k_4) + O(h^5)

    References:
        | W. Kutta, Z. Math. Phys. 46 (1901) 435
    """

    def at(time: float) -> Tensor:
        return torch.full((), time, dtype=torch.float64, device=x.device)

    k1, d1 = rate(at(t), x)
    k2, d2 = rate(at(t + h / 2), x + h / 2 * k1)
    k3, d3 = rate(at(t + h / 2), x + h / 2 * k2)
    k4, d4 = rate(at(t + h), x + h * k3)
    return x + h / 6 * (k1 + 2 * (k2 + k3) + k4), logdet + h / 6 * (d1 + 2 * (d2 + d3) + d4)


def odeint(adjoint: bool) -> Callable[..., Any]:
    """torchdiffeq's integrator.

    Raises:
        ImportError: It is not installed.
    """
    try:
        torchdiffeq = import_module("torchdiffeq")
    except ImportError:
        raise ImportError("Continuous: methods other than 'rk4' need torchdiffeq: pip install hepops[ode]") from None
    return torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
