r"""The Wilson flow of gauge fields and the scales t0 and w0.

.. math:: \dot V_\mu = -\mathrm{TA}(V_\mu A_\mu)\, V_\mu, \qquad V(0) = U

whose action is that of plaquettes alone, whatever the theory's. Time t has the unit of the lattice spacing squared; the
field is smoothed over a radius :math:`\sqrt{8t}`.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import group
from .flow_scales import crossing as crossing
from .flow_scales import flow_derivative as flow_derivative
from .flow_scales import t0 as t0
from .flow_scales import w0 as w0
from .observables import energy, topological_charge
from .observables._checks import check_unitary, checked_links
from .sun import SUN

Generator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FlowHistory:
    """What was measured along the flow.

    Attributes:
        times: t, shape (T), float64, from 0.
        energy: The clover's E, the mean over the lattice, shape (B, T), float64.
        plaquette: The plaquettes' E, shape (B, T).
        charge: Q of the clover, shape (B, T), in four dimensions; None elsewhere.
        field: V at the last time, (B, D, L..., N, N).
        steps: Steps of the integrator of each configuration, shape (B).
    """

    times: Tensor
    energy: Tensor
    plaquette: Tensor
    charge: Tensor | None
    field: Tensor
    steps: Tensor


def generator(n: int, shape: tuple[int, ...]) -> Generator:
    """V -> Z = -TA(V A): -F of the Wilson action at beta = 2 N, F = beta/2N TA(V A)."""
    theory = SUN(n, shape, 2.0 * n)
    return lambda V: -theory.force(V)


def runge_kutta(V: Tensor, step: float | Tensor, Z: Generator) -> tuple[Tensor, Tensor]:
    r"""One step of Luescher's third-order scheme, and the second-order answer that its stages also give.

    .. math:: W_1 = e^{Z_0/4} V, \quad W_2 = e^{8 Z_1/9 - 17 Z_0/36} W_1, \quad
        V' = e^{3 Z_2/4 - 8 Z_1/9 + 17 Z_0/36} W_2, \quad V'_{(2)} = e^{2 Z_1 - Z_0} V, \qquad Z_i = \epsilon Z(W_i)

    References:
        | M. Luescher, JHEP 08 (2010) 071, arXiv:1006.4518, appendix C
        | P. Fritzsch, A. Ramos, JHEP 10 (2013) 008, arXiv:1301.4388, appendix D (the second-order answer)
    """
    Z0 = step * Z(V)
    W = group.exp(Z0 / 4) @ V
    Z1 = step * Z(W)
    rest = 8 / 9 * Z1 - 17 / 36 * Z0
    W = group.exp(rest) @ W
    Z2 = step * Z(W)
    return group.exp(3 / 4 * Z2 - rest) @ W, group.exp(2 * Z1 - Z0) @ V


def _adaptive(V: Tensor, time: float, first: Tensor, Z: Generator, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """V after `time` by steps that each configuration chooses for itself; the next step, and how many were taken."""
    size = (-1, *[1] * (V.dim() - 1))
    left, step = torch.full_like(first, time), first.clone()
    taken = torch.zeros(len(V), dtype=torch.int64, device=V.device)
    while bool((left > 0).any()):
        now = torch.minimum(step, left)
        third, second = runge_kutta(V, now.to(V.real.dtype).view(size), Z)
        off = (third - second).abs().square().sum((-1, -2)).flatten(1).amax(1).sqrt() / V.shape[-1]
        active = left > 0
        good = active & (off <= tolerance)
        V = torch.where(good.view(size), third, V)
        left = torch.where(good, torch.where(now < left, left - now, 0), left)
        taken += good
        factor = (0.95 * (tolerance / off.double().clamp_min(1e-300)) ** (1 / 3)).clamp(0.2, 5)
        whole = now >= step  # a step cut short says little about longer ones
        step = torch.where(active & (whole | ~good), now * factor, step)
        if not bool((step > 1e-12 * time).all()):
            raise ValueError("wilson_flow: the step size vanished: the field is not finite or the tolerance too small")
    return V, step, taken


def wilson_flow(
    U: Tensor,
    time: float,
    *,
    step: float = 0.02,
    every: int = 1,
    tolerance: float | None = None,
    charge: bool = True,
) -> FlowHistory:
    r"""Flow links to a time, measuring on the way.

    Args:
        U: Links, shape (B, D, L..., N, N), complex64 or complex128, in SU(N).
        time: Last t, above 0.
        step: Of the integrator, at most; the error of a step is of order step^4, stable up to about 0.2 in 4D.
        every: Measure at every so many steps.
        tolerance: Adaptive steps: between two measurements each configuration takes the steps that keep the
            distance between the third- and the second-order answer, :math:`\max \lVert V - V_{(2)} \rVert / N`, below.
        charge: Measure Q too (four dimensions).

    Returns:
        `FlowHistory`, at times 0, every * step, ...; the last is `time`. Links stay in the group. Not differentiable.
        Deterministic.

    Raises:
        TypeError: `U` of another dtype.
        ValueError: `U` of another shape or not unitary (not looked at on a GPU); time, step or tolerance not positive.

    References:
        | M. Luescher, JHEP 08 (2010) 071, arXiv:1006.4518

    Example:
        >>> theory = hepops.lattice.SUN(2, (4, 4, 4, 4), beta=2.4)
        >>> history = hepops.lattice.wilson_flow.wilson_flow(theory.random(1, seed=1), 0.2, step=0.05)
        >>> history.times
        tensor([0.0000, 0.0500, 0.1000, 0.1500, 0.2000], dtype=torch.float64)
        >>> bool((history.plaquette.diff() < 0).all())
        True
    """
    dims = checked_links("wilson_flow", U)
    for name, value in (("time", time), ("step", step), ("every", every), ("tolerance", tolerance)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"wilson_flow: {name} must be positive, got {value}")
    check_unitary("wilson_flow", U)
    Z = generator(U.shape[-1], tuple(U.shape[2:-2]))
    count = max(1, math.ceil(time / (step * every) - 1e-9))
    times = [min(time, k * step * every) for k in range(count)] + [time]
    with torch.no_grad():
        V, records = U, [_measure(U, charge and dims == 4)]
        each = torch.full((len(U),), float(step), dtype=torch.float64, device=U.device)
        taken = torch.zeros(len(U), dtype=torch.int64, device=U.device)
        for start, stop in itertools.pairwise(times):
            if tolerance is None:
                whole = max(1, math.ceil((stop - start) / step - 1e-9))
                for _ in range(whole):
                    V = runge_kutta(V, (stop - start) / whole, Z)[0]
                taken += whole
            else:
                V, each, more = _adaptive(V, stop - start, each, Z, tolerance)
                taken += more
            records.append(_measure(V, charge and dims == 4))
    E, P, *Q = (torch.stack(column, 1) for column in zip(*records, strict=True))
    at = torch.tensor(times, dtype=torch.float64, device=U.device)
    return FlowHistory(at, E, P, Q[0] if Q else None, V, taken)


def _measure(V: Tensor, charge: bool) -> list[Tensor]:
    return [energy(V), energy(V, "plaquette")] + ([topological_charge(V)] if charge else [])
