"""Stochastic normalizing flows: layers and Monte Carlo updates in turn."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hepops.flows import Transform
from hepops.flows.bases import Base, Haar, Normal
from hepops.flows.weights import LogZ, Mean, effective_sample_size, log_normaliser, reweighted_mean

from ..theory import Theory
from .chains import Chains
from .sampler import Sampler


class Between(Theory):
    r"""The theory of :math:`S_t = t\,S + (1 - t)\,S_0`, S_0 that of the prior: 0 for Haar's, :math:`\phi^2/2` for a
    normal one of unit width (constants left out). t = 0 is the prior, 1 the theory.

    Args:
        theory: S.
        t: In [0, 1].

    Raises:
        ValueError: t out of range.

    Example:
        >>> theory = hepops.lattice.U1((4, 4), beta=2.0)
        >>> U = theory.cold(1)
        >>> hepops.lattice.samplers.Between(theory, 0.25).action(U) / theory.action(U)
        tensor([0.2500], dtype=torch.float64)
    """

    def __init__(self, theory: Theory, t: float) -> None:
        if not 0 <= t <= 1:
            raise ValueError(f"Between: t must lie in [0, 1], got {t!r}")
        self.theory, self.t = theory, float(t)
        self.shape, self.event_shape, self.complex = theory.shape, theory.event_shape, theory.complex
        base = theory.prior()
        if not isinstance(base, (Haar, Normal)):
            raise TypeError(f"Between: the prior must be Haar's or normal, got {type(base).__name__}")
        self._normal = isinstance(base, Normal)

    def action(self, field: Tensor) -> Tensor:
        S = self.t * self.theory.action(field)
        return S + (1 - self.t) * self.theory.kinetic(field) if self._normal else S

    def force(self, field: Tensor) -> Tensor:
        F = self.t * self.theory.force(field)
        return F + (1 - self.t) * field if self._normal else F

    def prior(self, dtype: torch.dtype = torch.float64) -> Base:
        return self.theory.prior(dtype)

    def cold(
        self, batch: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        return self.theory.cold(batch, dtype=dtype, device=device)

    def momenta(self, field: Tensor, seed: int, step: int = 0, first: int = 0) -> Tensor:
        return self.theory.momenta(field, seed, step, first)

    def kinetic(self, momenta: Tensor) -> Tensor:
        return self.theory.kinetic(momenta)

    def move(self, field: Tensor, momenta: Tensor, time: float) -> Tensor:
        return self.theory.move(field, momenta, time)

    def check(self, field: Tensor, name: str = "field") -> None:
        self.theory.check(field, name)


class Work(NamedTuple):
    """Fields (B, *event_shape) and the work W of each, float64, shape (B): ln w = -W."""

    field: Tensor
    work: Tensor

    @property
    def log_z(self) -> LogZ:
        r"""ln of :math:`Z_N / Z_0 = \langle e^{-W} \rangle`, with its error (Jarzynski)."""
        return log_normaliser(-self.work)

    @property
    def ess(self) -> Tensor:
        """The effective share of the samples."""
        return effective_sample_size(-self.work)

    def mean(self, observable: Callable[[Tensor], Tensor]) -> Mean:
        r""":math:`\langle O e^{-W} \rangle / \langle e^{-W} \rangle`, with its error."""
        return reweighted_mean(observable(self.field).double(), -self.work)


class StochasticFlow:
    r"""A flow whose layers alternate with Monte Carlo updates.

    .. math:: W = S_N(\phi_N) - S_0(\phi_0) - \sum_n Q_n - \sum_n \ln J_n, \qquad
        \frac{Z_N}{Z_0} = \langle e^{-W} \rangle, \qquad
        \langle O \rangle = \frac{\langle O e^{-W} \rangle}{\langle e^{-W} \rangle}

    Q is the change of action in an update of the theory at that stage (heat), or the logarithm of the ratio of the
    transition probabilities where the update does not keep it (`Langevin`).

    Args:
        theory: S_N, what is to be sampled.
        steps: Transforms, written base -> data, and samplers (HMC, Metropolis, Heatbath, Langevin), in the order in
            which the field meets them. A sampler's theory is that of its stage: `Between(theory, t)`, or the theory at
            another coupling.
        prior: Where the fields come from; the theory's prior where None. :math:`S_0 = -\ln` of its density.

    The numbers of sample i are named by (seed, i, update). Transforms are differentiable, updates are not.

    Raises:
        TypeError: a step that is neither.
        ValueError: a step of other events than the theory.

    References:
        | M. Caselle, E. Cellini, A. Nada, M. Panero, JHEP 07 (2022) 015, arXiv:2201.08862
        | H. Wu, J. Köhler, F. Noé, NeurIPS (2020), arXiv:2002.06707
        | C. Jarzynski, Phys. Rev. Lett. 78 (1997) 2690; G. E. Crooks, Phys. Rev. E 60 (1999) 2721

    Example:
        >>> lattice = hepops.lattice
        >>> theory = lattice.U1((4, 4), beta=2.0)
        >>> ladder = [lattice.Heatbath(lattice.U1((4, 4), beta=2.0 * k / 20)) for k in range(1, 20)]
        >>> work = lattice.samplers.StochasticFlow(theory, ladder).run(400, seed=1)
        >>> abs(work.log_z.value.item() - 13.190) < 0.3  # exact: 13.190
        True
    """

    def __init__(self, theory: Theory, steps: Sequence[Transform | Sampler], prior: Base | None = None) -> None:
        for i, step in enumerate(steps):
            if not isinstance(step, (Transform, Sampler)):
                raise TypeError(f"StochasticFlow: step {i} is neither a Transform nor a Sampler: {type(step).__name__}")
            events = step.event_shape if isinstance(step, Transform) else step.theory.event_shape
            if events is not None and tuple(events) != tuple(theory.event_shape):
                raise ValueError(
                    f"StochasticFlow: step {i} is of events {tuple(events)}, not {tuple(theory.event_shape)}"
                )
        self.theory, self.steps = theory, list(steps)
        self.prior = theory.prior() if prior is None else prior

    def run(self, batch: int, seed: int, *, first: int = 0) -> Work:
        """Samples first ... first + batch - 1, from the prior to the theory."""
        chains = Chains(self.prior.draw(batch, seed, first), seed, first, step=1)
        work = self.prior.log_prob(chains.field)
        for step in self.steps:
            if isinstance(step, Transform):
                chains.field, logdet = step(chains.field)
                chains.state = {}
                work = work - logdet
            else:
                with torch.no_grad():
                    work = work - step.exchange(chains)
        return Work(chains.field, work + self.theory.action(chains.field))

    def reverse(self, field: Tensor, seed: int, *, first: int = 0) -> Work:
        r"""The protocol backwards, from samples of the theory to the prior: fields, and the work on this way.

        For updates in detailed balance (HMC, Metropolis of one site, Langevin; not sweeps in an order)
        :math:`P_f(W) / P_r(-W) = e^{W} Z_N / Z_0` (Crooks).

        Args:
            field: Samples of the theory, shape (B, *event_shape).
            seed: Of the updates, not that of `run`.
        """
        self.theory.check(field)
        chains = Chains(field, seed, first, step=1)
        work = -self.theory.action(field)
        for step in reversed(self.steps):
            if isinstance(step, Transform):
                chains.field, logdet = step.inverse(chains.field)
                chains.state = {}
                work = work - logdet
            else:
                with torch.no_grad():
                    work = work - step.exchange(chains)
        return Work(chains.field, work - self.prior.log_prob(chains.field))
