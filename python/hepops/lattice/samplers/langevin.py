"""Unadjusted Langevin updates: layers of stochastic flows."""

import math
from typing import Any

from torch import Tensor

from .. import random
from ..theory import Theory
from .chains import Chains, checked_theory
from .sampler import Sampler
from .tuning import checked_length


class Langevin(Sampler):
    r"""Overdamped Langevin steps of a scalar theory, without acceptance.

    .. math:: \phi' = \phi - \epsilon F(\phi) + \sqrt{2 \epsilon}\,\eta, \qquad
        Q = \ln p(\phi' \to \phi) - \ln p(\phi \to \phi')

    Alone it samples a density that is wrong by O(:math:`\epsilon`); in a stochastic flow the exchange Q puts that
    right, for any :math:`\epsilon`.

    Args:
        theory: Of real numbers (Phi4).
        step_size: :math:`\epsilon`.

    Raises:
        TypeError: a theory whose field is compact.
        ValueError: a step size that is not positive and finite.

    References:
        | G. Parisi, Y.-S. Wu, Sci. Sin. 24 (1981) 483
        | H. Wu, J. Köhler, F. Noé, arXiv:2002.06707, section 4 (the exchange)

    Example:
        >>> theory = hepops.lattice.Phi4((4,), m2=1.0, lam=0.5)
        >>> langevin = hepops.lattice.samplers.Langevin(theory, step_size=0.01)
        >>> langevin.exchange(langevin.start(3, seed=1)).shape
        torch.Size([3])
    """

    def __init__(self, theory: Theory, step_size: float) -> None:
        if checked_theory("Langevin", theory).complex or type(theory).__name__ in ("U1", "SUN"):
            raise TypeError(f"Langevin: {type(theory).__name__} has a compact field; use HMC")
        self.theory = theory
        self.settings: dict[str, Any] = {"step_size": checked_length("Langevin", "step_size", step_size)}

    def update(self, chains: Chains) -> dict[str, Tensor]:
        self.exchange(chains)
        return {}

    def exchange(self, chains: Chains) -> Tensor:
        field, eps = chains.field, float(self.settings["step_size"])
        noise = random.normal(
            len(chains),
            field[0].numel(),
            chains.seed,
            first=chains.first,
            step=chains.step,
            purpose=random.NOISE,
            dtype=field.dtype,
            device=field.device,
        ).view_as(field)
        moved = field - eps * self.theory.force(field) + math.sqrt(2 * eps) * noise
        back = (field - moved + eps * self.theory.force(moved)) / math.sqrt(2 * eps)
        chains.advance(moved)
        return (noise.double().square() - back.double().square()).flatten(1).sum(1) / 2
