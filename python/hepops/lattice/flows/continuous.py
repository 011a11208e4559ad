"""Builder of continuous flows."""

import math
from typing import Any

import torch

from hepops.flows import Flow

from ..phi4 import Phi4
from ..sun import SUN
from ..theory import Theory
from .continuous_gauge import ContinuousGauge
from .continuous_scalar import ContinuousScalar


def continuous(theory: Theory, *, dtype: torch.dtype = torch.float64, **options: Any) -> Flow:
    r"""A continuous flow of a theory's fields, equivariant under its symmetries.

    Args:
        theory: `Phi4`: :class:`ContinuousScalar`, which begins with the width that independent normal sites have at the
            least free energy. `SUN`, N = 2 or 3: :class:`ContinuousGauge`, which begins as the identity.
        dtype: Of parameters and fields: float32 or float64.
        **options: Of the transform: steps, recompute, ....

    Returns:
        A `Flow` whose base is the theory's prior.

    Raises:
        TypeError: another theory.
        ValueError: another dtype, or an option is out of range.

    References:
        | scalar: M. Gerdes et al., arXiv:2207.00283
        | gauge: M. Lüscher, arXiv:0907.5491; S. Bacchio, P. Kessel, S. Schaefer, L. Vaitl, arXiv:2212.08469

    Example:
        >>> flow = hepops.lattice.flows.continuous(hepops.lattice.Phi4((8, 8), m2=-4.0, lam=8.0))
        >>> flow.sample(2, seed=1).shape
        torch.Size([2, 8, 8])
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"continuous: dtype must be float32 or float64, got {dtype}")
    if isinstance(theory, Phi4):
        scalar = ContinuousScalar(theory.shape, width=_width(theory), dtype=dtype, **options)
        return Flow(scalar.inv, theory.prior(dtype))
    if isinstance(theory, SUN):
        gauge = ContinuousGauge(theory.n, theory.shape, dtype=dtype, **options)
        return Flow(gauge.inv, theory.prior(dtype))
    raise TypeError(f"continuous: theory must be Phi4 or SUN, got {type(theory).__name__}")


def _width(theory: Phi4) -> float:
    r""":math:`\sigma` at the minimum of :math:`\langle S \rangle / V - \ln \sigma = a \sigma^2 + 3 b \sigma^4 -
    \ln \sigma`, with S = a phi^2 + b phi^4 + hopping, of independent normal sites."""
    _, a, b = theory.law
    # 12 b u^2 + 2 a u = 1 for u = sigma^2, in a form that holds at b = 0
    return math.sqrt(1 / (a + math.sqrt(a * a + 12 * b)))
