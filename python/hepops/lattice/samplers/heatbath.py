"""Heatbath and over-relaxation of gauge theories."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake

from hepops.core.ops import call
from hepops.core.philox import _signed

from ..sun import SUN
from ..theory import Theory
from ..u1 import U1
from .chains import Chains
from .project import project
from .sampler import Sampler, checked_project_every


class Heatbath(Sampler):
    r"""Heatbath sweeps of U(1), SU(2) and SU(3) with the Wilson action, and over-relaxation between them.

    A link's density given the others is :math:`e^{\beta/N\,\mathrm{Re\,tr}(U A)}`, A the sum of its staples.

    =====  ======================================================  ====================================================
    group  heatbath                                                over-relaxation
    =====  ======================================================  ====================================================
    U(1)   von Mises by Best and Fisher's rejection, any beta A    :math:`\theta \to -2 \arg A - \theta`
    SU(2)  Kennedy and Pendleton; Creutz where beta A < 1.69       :math:`U \to (A U A)^\dagger / \det A`
    SU(3)  Cabibbo and Marinari, subgroups 01, 02, 12              the same in each subgroup
    =====  ======================================================  ====================================================

    A step is one heatbath sweep and then `overrelax` sweeps of reflections. Links go in the order of (mu, colour):
    those of one colour share no plaquette, two colours where all other extents are even and three otherwise, so that
    odd extents are legal, and extents of 2, which count both bonds. Any real beta is.

    Args:
        theory: U1, or SUN with N = 2, 3 and plaquettes alone.
        overrelax: Sweeps of reflections after each heatbath sweep.
        project_every: SU(N) links are put back to the group at every step number that this divides.

    Deterministic: the numbers of a link are named by (seed, sweep, chain, link, draw), so that bits do not depend on
    threads, batch or ranks. Fields of float32 are computed in double.

    Raises:
        TypeError: a theory without a heatbath: phi^4 (HMC or Metropolis serve), SU(N > 3).
        ValueError: an action with rectangles (whose staples are others; HMC serves), an extent of 1 for SU(N), a
            number out of range.

    References:
        | M. Creutz, Phys. Rev. D 21 (1980) 2308 and 36 (1987) 515
        | A. D. Kennedy, B. J. Pendleton, Phys. Lett. B 156 (1985) 393
        | N. Cabibbo, E. Marinari, Phys. Lett. B 119 (1982) 387
        | D. J. Best, N. I. Fisher, Appl. Statist. 28 (1979) 152

    Example:
        >>> theory = hepops.lattice.SUN(2, (4, 4), beta=2.2)
        >>> heatbath = hepops.lattice.Heatbath(theory, overrelax=1)
        >>> run = heatbath.run(100, chains=64, seed=1, thermalise=10, observables={"plaquette": theory.plaquette})
        >>> abs(run.mean("plaquette").mean.item() - 0.46448) < 0.01  # exact: 0.46448
        True
    """

    def __init__(self, theory: Theory, *, overrelax: int = 0, project_every: int = 100) -> None:
        self.n = group_of("Heatbath", theory)
        if isinstance(overrelax, bool) or not isinstance(overrelax, int) or overrelax < 0:
            raise ValueError(f"Heatbath: overrelax must be a whole number of at least 0, got {overrelax!r}")
        self.theory, self.overrelax = theory, overrelax
        self.project_every = checked_project_every("Heatbath", project_every)
        self.settings: dict[str, Any] = {}

    def update(self, chains: Chains) -> dict[str, Tensor]:
        links, beta = plain(chains.field), float(self.theory.beta)  # type: ignore[attr-defined]
        name = (_signed(chains.seed), chains.step, chains.first)
        links = call(torch.ops.hepops._lattice_heatbath, links, self.n, beta, *name)
        for _ in range(self.overrelax):
            links = call(torch.ops.hepops._lattice_overrelax, links, self.n)
        put(chains, links, self.project_every)
        return {}

    def reflect(self, field: Tensor) -> Tensor:
        """One sweep of reflections, which keep the action: links of the same shape."""
        self.theory.check(field)
        links = call(torch.ops.hepops._lattice_overrelax, plain(field), self.n)
        return torch.view_as_complex(links) if field.is_complex() else links


def group_of(who: str, theory: Theory) -> int:
    """N of a theory whose links have staples; 1 for U(1)."""
    if not isinstance(theory, (U1, SUN)):
        raise TypeError(
            f"{who}: {type(theory).__name__} has no heatbath (U1, SU(2) and SU(3) have); use HMC or Metropolis"
        )
    n = theory.n if isinstance(theory, SUN) else 1
    if n > 3:
        raise TypeError(f"{who}: SU({n}) has no heatbath (U1, SU(2) and SU(3) have); use HMC")
    c1 = float(getattr(theory, "c1", 0.0) or 0.0)
    if c1 != 0:
        raise ValueError(f"{who}: the action has rectangles (c1 = {c1}), its sweeps know plaquettes alone; use HMC")
    if n > 1 and min(theory.shape) == 1:
        raise ValueError(
            f"{who}: an extent of 1 makes the action quadratic in a link, got shape {tuple(theory.shape)}; use HMC"
        )
    return n


def plain(field: Tensor) -> Tensor:
    """Links as the operators take them: real, contiguous."""
    return (torch.view_as_real(field.resolve_conj()) if field.is_complex() else field).contiguous()


def put(chains: Chains, links: Tensor, project_every: int) -> None:
    chains.advance(torch.view_as_complex(links) if chains.field.is_complex() else links)
    if chains.field.is_complex() and chains.step % project_every == 0:
        chains.field = project(chains.field)


@register_fake("hepops::_lattice_heatbath")
def _(links: Tensor, n: int, beta: float, seed: int, sweep: int, first: int) -> Tensor:
    return links.new_empty(links.shape)


@register_fake("hepops::_lattice_overrelax")
def _(links: Tensor, n: int) -> Tensor:
    return links.new_empty(links.shape)
