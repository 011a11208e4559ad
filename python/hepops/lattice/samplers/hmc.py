"""Hybrid (Hamiltonian) Monte Carlo."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .. import random
from ..stages import INTEGRATORS
from ..theory import Theory
from .chains import Chains, check_start, checked_theory
from .integrate import trajectory
from .project import project
from .sampler import Sampler, checked_project_every
from .tuning import BLOCK, Tuning, checked_count, checked_length, checked_target

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

SHORTER = 8  # steps of the trajectories that bring back chains from far off


class Reversibility(NamedTuple):
    """What a trajectory there and back leaves: the largest differences of field, momenta and H."""

    field: float
    momenta: float
    energy: float


class HMC(Sampler):
    r"""Hybrid Monte Carlo: momenta from :math:`e^{-K}`, a trajectory, and acceptance with :math:`\min(1, e^{-dH})`.

    .. math:: H = K(P) + S(U), \qquad dU/dt = P U, \quad dP/dt = -F

    Args:
        theory: Any; its own `trajectory` serves where it has one, else its force and move.
        step_size: :math:`\epsilon`, of each of the `steps` of a trajectory.
        steps: Steps in a trajectory.
        integrator: "omelyan" (second order, minimum norm), "leapfrog" or "force_gradient" (fourth order).
        tune: Acceptance towards which the step size is tuned during thermalisation; frozen after. The mean is that of
            all chains of the run (and of all ranks of `group`), so that the number of chains, unlike their split,
            matters to it. In the first third every second block of 5 trajectories has steps 8 times shorter, which
            brings back chains that start where the forces are large, and is not counted.
        project_every: SU(N) links are put back to the group at every step number that this divides.
        group: Ranks whose chains are tuned together.

    A trajectory whose dH is NaN or infinite is rejected. The history has "dH" and "accepted" of each; a run that
    accepted nothing warns and names `step_size`. Nothing waits for a GPU but the tuning, every 5 trajectories.

    Raises:
        TypeError: no theory.
        ValueError: a step size that is not positive and finite, no step, another integrator, an acceptance to tune
            to outside (0, 1).

    References:
        | S. Duane, A. D. Kennedy, B. J. Pendleton, D. Roweth, Phys. Lett. B 195 (1987) 216
        | Integrators: hepops.lattice.stages
        | R. Gupta, A. Irbäck, F. Karsch, B. Petersson, Phys. Lett. B 242 (1990) 437 (acceptance and step size)

    Example:
        >>> theory = hepops.lattice.Phi4((8, 8), m2=-4.0, lam=8.0)
        >>> hmc = hepops.lattice.HMC(theory, step_size=0.1, steps=5, tune=0.9)
        >>> run = hmc.run(20, chains=16, seed=1, thermalise=100, observables={"S": theory.action})
        >>> run.dH.shape, run.observables["S"].shape, run.acceptance > 0.8
        (torch.Size([20, 16]), torch.Size([20, 16]), True)
    """

    def __init__(
        self,
        theory: Theory,
        step_size: float,
        steps: int,
        *,
        integrator: str = "omelyan",
        tune: float | None = None,
        project_every: int = 100,
        group: "ProcessGroup | None" = None,
    ) -> None:
        if integrator not in INTEGRATORS:
            raise ValueError(f"HMC: integrator must be one of {', '.join(INTEGRATORS)}, got {integrator!r}")
        self.theory, self.integrator = checked_theory("HMC", theory), integrator
        self.settings: dict[str, Any] = {"step_size": checked_length("HMC", "step_size", step_size)}
        self.steps = checked_count("HMC", "steps", steps)
        self.tune = checked_target("HMC", tune)
        self.project_every = checked_project_every("HMC", project_every)
        self._tuning = None if tune is None else Tuning(tune, group)
        if tune is not None:
            self.settings |= {"tuned": False, "short": False}

    @property
    def step_size(self) -> float:
        """Of now: tuned where it is tuned."""
        return float(self.settings["step_size"])

    def update(self, chains: Chains) -> dict[str, Tensor]:
        theory, field, step = self.theory, chains.field, chains.step
        momenta = theory.momenta(field, chains.seed, step, chains.first)
        step_size = self.step_size / (SHORTER if self.settings.get("short") else 1)
        before = theory.action(field) + theory.kinetic(momenta)
        moved, after = trajectory(theory, field, momenta, step_size, self.steps, self.integrator)
        dH = theory.action(moved) + theory.kinetic(after) - before
        u = random.uniform(len(chains), 1, chains.seed, first=chains.first, step=step, device=field.device)[:, 0]
        accepted = (u < torch.exp(-dH)) & dH.isfinite()
        chains.advance(torch.where(accepted.view(-1, *(1,) * (field.dim() - 1)), moved, field))
        if theory.complex and chains.step % self.project_every == 0:
            chains.field = project(chains.field)
        return {"dH": dH, "accepted": accepted}

    def ready(self, thermalise: int) -> None:
        if self.tune is not None and thermalise < 1 and not self.settings["tuned"]:
            raise ValueError(f"HMC: tune = {self.tune} needs thermalise > 0, where the step size is tuned")

    def adapt(self, rows: dict[str, list[Tensor]], done: int, total: int) -> None:
        if self._tuning is None or self.settings["tuned"]:
            return
        if done % BLOCK == 0 and not self.settings["short"]:
            dH = torch.cat(rows["dH"][-BLOCK:])[-BLOCK:]
            p = self._tuning.mean(torch.where(dH.isfinite(), torch.exp(-dH), 0.0))
            order = 4 if self.integrator == "force_gradient" else 2
            self.settings["step_size"] *= self._tuning.factor(p, order)
            if done > total / 2:
                self._tuning.note(self.step_size, self.settings)
        if done % BLOCK == 0:
            self.settings["short"] = not self.settings["short"] and done < total / 3
        if done == total:
            self.settings["step_size"] = self._tuning.end(self.step_size, self.settings)
            self.settings["tuned"], self.settings["short"] = True, False

    @torch.no_grad()
    def reversibility(self, field: Tensor, seed: int = 0) -> Reversibility:
        """A trajectory, the momenta turned round, and the trajectory again: what is left of each.

        Args:
            field: Shape (B, *event_shape).
            seed: Of the momenta.
        """
        check_start("HMC", self.theory, field)
        theory, plan = self.theory, (self.step_size, self.steps, self.integrator)
        momenta = theory.momenta(field, seed)
        moved, after = trajectory(theory, field, momenta, *plan)
        back, last = trajectory(theory, moved, -after, *plan)
        H = [theory.action(u) + theory.kinetic(p) for u, p in ((field, momenta), (back, last))]
        around = theory.move(back, torch.zeros_like(last), 0.0)
        off = (around - field).abs()
        if not theory.complex and type(theory).__name__ == "U1":
            off = torch.minimum(off, 2 * torch.pi - off)  # pi and -pi are one angle
        return Reversibility(float(off.max()), float((last + momenta).abs().max()), float((H[1] - H[0]).abs().max()))
