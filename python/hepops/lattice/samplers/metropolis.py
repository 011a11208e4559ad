"""Metropolis sweeps."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake

from hepops.core.ops import call
from hepops.core.philox import _signed

from ..phi4 import Phi4
from ..theory import Theory
from .chains import Chains
from .heatbath import group_of, plain, put
from .sampler import Sampler, checked_project_every
from .tuning import BLOCK, Tuning, checked_count, checked_length, checked_target


class Metropolis(Sampler):
    r"""Metropolis sweeps, site after site or link after link in the order of `Heatbath`.

    Proposals: :math:`\phi + w u` and :math:`\theta + w u` with u uniform in (-1, 1); for SU(N) :math:`g U` in each
    SU(2) subgroup, :math:`g = \cos\alpha + i\,n\sigma \sin\alpha`, :math:`\alpha` uniform in (0, w), n any direction.
    Each is accepted with :math:`\min(1, e^{-\Delta S})`.

    Args:
        theory: Phi4, U1, or SUN with N = 2, 3 and plaquettes alone.
        width: w.
        hits: Proposals for a site or link before the next one.
        tune: Acceptance towards which the width is tuned during thermalisation; frozen after.
        project_every: SU(N) links are put back to the group at every step number that this divides.

    The history has "accepted", the share of a sweep's proposals. Deterministic as `Heatbath`.

    Raises:
        TypeError, ValueError: as `Heatbath`; a width that is not positive and finite.

    References:
        | N. Metropolis et al., J. Chem. Phys. 21 (1953) 1087

    Example:
        >>> theory = hepops.lattice.Phi4((8, 8), m2=-4.0, lam=8.0)
        >>> run = hepops.lattice.Metropolis(theory, width=1.0, tune=0.5).run(10, chains=4, seed=1, thermalise=50)
        >>> abs(run.acceptance - 0.5) < 0.1
        True
    """

    def __init__(
        self, theory: Theory, width: float, *, hits: int = 1, tune: float | None = None, project_every: int = 100
    ) -> None:
        self.n = 0 if isinstance(theory, Phi4) else group_of("Metropolis", theory)
        self.theory = theory
        self.settings: dict[str, Any] = {"width": checked_length("Metropolis", "width", width)}
        self.hits = checked_count("Metropolis", "hits", hits)
        self.tune = checked_target("Metropolis", tune)
        self.project_every = checked_project_every("Metropolis", project_every)
        if tune is not None:
            self.settings["tuned"] = False

    def update(self, chains: Chains) -> dict[str, Tensor]:
        name = (float(self.settings["width"]), self.hits, _signed(chains.seed), chains.step, chains.first)
        theory, field = self.theory, plain(chains.field)
        if isinstance(theory, Phi4):
            field, taken = call(torch.ops.hepops._lattice_metropolis_phi4, field, *theory.law, *name)
        else:
            beta = float(theory.beta)  # type: ignore[attr-defined]
            field, taken = call(torch.ops.hepops._lattice_metropolis, field, self.n, beta, *name)
        put(chains, field, self.project_every)
        proposals = self.hits * (self.n * (self.n - 1) // 2 if self.n > 1 else 1)
        return {"accepted": taken.flatten(1).sum(1).double() / (taken[0].numel() * proposals)}

    def ready(self, thermalise: int) -> None:
        if self.tune is not None and thermalise < 1 and not self.settings["tuned"]:
            raise ValueError(f"Metropolis: tune = {self.tune} needs thermalise > 0, where the width is tuned")

    def adapt(self, rows: dict[str, list[Tensor]], done: int, total: int) -> None:
        if self.tune is None or self.settings["tuned"]:
            return
        tuning = Tuning(self.tune)
        if done % BLOCK == 0:
            p = tuning.mean(torch.cat(rows["accepted"][-BLOCK:])[-BLOCK:])
            width = tuning.advance(float(self.settings["width"]), p, self.settings)
            self.settings["width"] = width if self.n == 0 else min(width, math.pi)
            if self.settings["tuning_blocks"] > 5 and p >= 0.1:
                tuning.note(self.settings["width"], self.settings)
        if done == total:
            self.settings["width"] = tuning.end(self.settings["width"], self.settings)
            self.settings["tuned"] = True


@register_fake("hepops::_lattice_metropolis")
def _(
    links: Tensor, n: int, beta: float, width: float, hits: int, seed: int, sweep: int, first: int
) -> tuple[Tensor, Tensor]:
    behind = 0 if n == 1 else 3
    return links.new_empty(links.shape), links.new_empty(links.shape[: links.dim() - behind], dtype=torch.int64)


@register_fake("hepops::_lattice_metropolis_phi4")
def _(
    phi: Tensor,
    hop: float,
    square: float,
    quartic: float,
    width: float,
    hits: int,
    seed: int,
    sweep: int,
    first: int,
) -> tuple[Tensor, Tensor]:
    return phi.new_empty(phi.shape), phi.new_empty(phi.shape, dtype=torch.int64)
