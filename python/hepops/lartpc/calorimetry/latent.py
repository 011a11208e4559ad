r"""Losses as latent variables, by reverse mode: any function of (simulator, segments) as the data's density.

.. math:: \ln p(v, w, z \mid \mathrm{data}) = -F(p(v), d(w, z)) - \tfrac12 (w^2 + z^2) + \mathrm{priors}(p)

with :math:`v_k = \ln(p_k/p_k^0)`, nuisance parameters w of the tracks and normal scores z of the losses, all standard
normal beforehand. One backward pass through the simulator gives the gradient with respect to all of them.

The maximum in (w, z) at fixed detector parameters says what was lost where. The joint maximum, detector parameters too,
is biased (as many latent variables as data; J. Neyman, E. L. Scott, Econometrica 16 (1948) 1) and is not offered: draw
from the density instead, or fit the marginal one (`marginal`).
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..fit.nuts import Chain, effective_size, sample
from ..fit.space import TIME_OFFSET, space
from ..parameters import Parameters
from ..segments import Segments
from ..simulator import Simulator
from .objective import Objective
from .tracks import Tracks

_STEP = 1e-4  # for differences of gradients, in widths of the priors
_MOVES = (1.0, 0.3, 0.1)  # of one latent variable at a time, across seams [widths of the priors]
_GAIN = 1e-3  # of ln p: less ends a search


@dataclass(frozen=True)
class LatentSamples:
    """n draws."""

    names: tuple[str, ...]
    values: Tensor  # (n, K) physical
    nuisance: Tensor  # (n, num_tracks) residual range at the end [cm], or ln(energy/MeV)
    losses: Tensor  # (n, num_segments) [MeV]
    chain: Chain

    @property
    def mean(self) -> Tensor:
        """(K)"""
        return self.values.mean(0)

    @property
    def errors(self) -> Tensor:
        """(K) one standard deviation of the posterior."""
        return self.values.std(0)

    @property
    def effective(self) -> Tensor:
        """(K) effective number of independent draws."""
        return torch.stack([effective_size(column[None]) for column in self.values.T])


class LatentPosterior:
    """ln p and its gradient at x = (v, w, z), float64 (K + num_tracks + num_segments): a density for `fit.nuts.sample`.

    Args:
        sim: Its values are p at v = 0, and held where no name is given; it is copied. float64.
        tracks: Geometry, particles and priors of their ends or energies.
        objective: -ln L of (simulator, segments) with a graph: `PixelCharges`, `HitObjective`, or any function.
        parameters: Names of parameters of the simulator that are unknown too; flat in their logarithms but for priors.
        priors: Mean and sigma of Gaussian priors by name [physical].

    Deterministic wherever the objective is.

    Raises:
        ValueError: an unknown, repeated or degenerate name, a start that is not positive, a simulator in float32.

    Example:
        >>> from hepops.lartpc import Detector, Simulator
        >>> from hepops.lartpc.calorimetry import LatentPosterior, PixelCharges, StoppingTrack, Tracks
        >>> tracks = Tracks([StoppingTrack(torch.tensor([[-20.0, 1.0, 1.0], [-19.8, 1.2, 1.2]]), "proton", offset=5.0)])
        >>> sim = Simulator(Detector.module0(), dtype=torch.float64, step=0.4, reach=1)
        >>> data = PixelCharges.measure(sim, tracks.segments(z=torch.ones(1).double()), 200.0, seed=1)
        >>> posterior = LatentPosterior(sim, tracks, data)
        >>> best = posterior.maximum()
        >>> bool((best[-1] - 1).abs() < 0.5)
        True
    """

    def __init__(
        self,
        sim: Simulator,
        tracks: Tracks,
        objective: Objective,
        parameters: Sequence[str] = (),
        priors: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        if sim.dtype is not torch.float64:
            raise ValueError(f"sim: latent variables need torch.float64, got {sim.dtype}")
        if TIME_OFFSET in parameters:
            raise ValueError(f"parameters: {TIME_OFFSET} is not one of the simulator's")
        if parameters:
            space(parameters, priors=priors or None)  # refuses unknown, repeated and degenerate names
        for name in parameters:
            if not getattr(sim, name).item() > 0:
                raise ValueError(f"parameters: {name} must start above 0, is {getattr(sim, name).item()}")
        self.sim, self.tracks, self.objective = copy.deepcopy(sim), tracks, objective
        self.names, self.priors = tuple(parameters), dict(priors or {})
        self.start = torch.tensor([getattr(sim, name).item() for name in parameters], dtype=torch.float64)
        for name, parameter in self.sim.named_parameters():
            parameter.requires_grad_(name in self.names)

    @property
    def size(self) -> int:
        return len(self.names) + len(self.tracks) + self.tracks.num_segments

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """v, w, z."""
        v, w, z = x.split([len(self.names), len(self.tracks), self.tracks.num_segments], -1)
        return v, w, z

    def segments(self, x: Tensor) -> Segments:
        """The tracks with the losses at x."""
        _, w, z = self.split(x)
        return self.tracks.segments(w, z)

    def __call__(self, x: Tensor) -> tuple[float, Tensor]:
        v = self.split(x.detach())[0]
        latent = x.detach()[len(v) :].clone().requires_grad_()
        p, inside = self._apply(v)
        segments = self.segments(torch.cat([v, latent]))
        F = self.objective(self.sim, segments) + (latent**2).sum() / 2
        leaves = [getattr(self.sim, name) for name in self.names]
        *shared, own = torch.autograd.grad(F, [*leaves, latent])
        value, to_v = float(F.detach()), torch.stack(shared) * p * inside if shared else v
        for name, (mean, sigma) in self.priors.items():
            k = self.names.index(name)
            value += float((p[k] - mean) ** 2) / (2 * sigma**2)
            to_v[k] += p[k] * (p[k] - mean) / sigma**2
        return -value, -torch.cat([to_v, own])

    def _apply(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters at v, now the simulator's, and which move it: beyond the ends of a law -ln L stays what it is."""
        p = self.start * torch.exp(v)
        inside = torch.ones_like(p)
        with torch.no_grad():
            for k, (name, value) in enumerate(zip(self.names, p.tolist(), strict=True)):
                spec = Parameters.SPEC[name]
                held = min(max(value, spec.floor), spec.ceiling)
                inside[k] = float(held == value)
                getattr(self.sim, name).fill_(held)
        return p, inside

    def value(self, x: Tensor) -> float:
        """ln p alone."""
        v, latent = x[: len(self.names)], x[len(self.names) :]
        p = self._apply(v)[0]
        with torch.no_grad():
            F = float(self.objective(self.sim, self.segments(x)) + (latent**2).sum() / 2)
        return -F - sum(float((p[self.names.index(n)] - m) ** 2) / (2 * s**2) for n, (m, s) in self.priors.items())

    def maximum(self, x: Tensor | None = None, iterations: int = 60) -> Tensor:
        """The most probable (w, z) at v of `x` (zeros if None), which stay.

        By L-BFGS with a strong Wolfe search. An objective with an attribute ``smooth`` that is False (`HitResiduals`)
        has seams, where hits come and go, and so local maxima; there L-BFGS takes turns with a search along single
        latent variables until neither gains a thousandth of ln p. That crosses the seams of one or two pixels; it is no
        proof of the highest maximum.
        """
        begin = torch.zeros(self.size, dtype=torch.float64) if x is None else x.detach().clone()
        K = len(self.names)
        best, top = self._climb(begin, iterations, K)
        while not getattr(self.objective, "smooth", True):
            moved, height = self._across(best, top, K)
            trial, value = self._climb(moved, iterations, K)
            gain = max(value, height) - top
            best, top = (trial, value) if value > height else (moved, height)
            if gain < _GAIN:
                break
        return best

    def _climb(self, begin: Tensor, iterations: int, held: int) -> tuple[Tensor, float]:
        """L-BFGS over all but the first `held` numbers: where it got to, and ln p there."""
        head, rest = begin[:held], begin[held:].clone().requires_grad_()
        optimiser = torch.optim.LBFGS(
            [rest], max_iter=iterations, history_size=30, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
        )
        best, top = begin, -math.inf

        def closure() -> Tensor:
            nonlocal best, top
            x = torch.cat([head, rest.detach()])
            value, gradient = self(x)
            if value > top:  # a line search may end at a seam, below what it has seen
                best, top = x, value
            rest.grad = -gradient[held:]
            return torch.tensor(-value, dtype=torch.float64)

        optimiser.step(closure)
        return best, top

    def _across(self, x: Tensor, top: float, held: int) -> tuple[Tensor, float]:
        """Steps of one latent variable after the other, kept where ln p rises."""
        for size in _MOVES:
            for i in range(held, self.size):
                for step in (size, -size):
                    trial = x.clone()
                    trial[i] += step
                    if (value := self.value(trial)) > top:
                        x, top = trial, value
                        break
        return x, top

    def curvature(self, x: Tensor) -> Tensor:
        """-d2 ln p by central differences of gradients (n, n), of an objective that is a sum over events.

        Latent variables of different events then act on each other through the parameters alone, and one difference
        serves all events: 2 (K + most of one event) evaluations.
        """
        K, layout = len(self.names), self.tracks.layout
        owner = torch.cat([layout.event[layout.first], layout.event])  # of every latent variable
        same = owner[:, None] == owner
        rank = (same & torch.ones_like(same).tril(-1)).sum(1)  # within its event
        H = torch.zeros(self.size, self.size, dtype=torch.float64)
        for k in range(K):
            H[:, k] = H[k] = self._difference(x, torch.tensor([k]))
        for turn in range(int(rank.max()) + 1):
            at = K + (rank == turn).nonzero().squeeze(1)
            change = self._difference(x, at)
            for i in at.tolist():
                H[K:, i] = torch.where(same[i - K], change[K:], 0.0)
        return (H + H.T) / 2

    def _difference(self, x: Tensor, at: Tensor) -> Tensor:
        """Of the gradient, for one step of all numbers `at` together."""
        step = torch.zeros_like(x).index_fill(0, at, _STEP)
        return (self(x - step)[1] - self(x + step)[1]) / (2 * _STEP)

    def sample(self, samples: int = 300, warmup: int = 100, seed: int = 0) -> LatentSamples:
        """Draws by the No-U-Turn sampler, whitened by the curvature at the joint maximum.

        Args:
            samples, warmup: Draws kept, and before.
            seed: Of all random numbers.

        Cost: about eight forward and backward simulations for each draw: for single tracks, not for runs of them.
        Refuse what a chain with ``chain.diverged`` or few `LatentSamples.effective` says. Leave out the last centimetre
        of a track: the energy has a singular slope where a particle ends, and the sampler's steps (``chain.step``, of
        order 0.5 where all is well) then become some twenty times shorter.
        """
        best = self._climb(self.maximum(), 60, 0)[0]
        values, vectors = torch.linalg.eigh(self.curvature(best))
        lower = vectors * values.abs().clamp(min=0.3).rsqrt()
        generator = torch.Generator().manual_seed(seed)

        def white(y: Tensor) -> tuple[float, Tensor]:
            value, gradient = self(best + lower @ y)
            return value, lower.T @ gradient

        begin = torch.randn(self.size, generator=generator, dtype=torch.float64)
        chain = sample(white, begin, samples, warmup, generator)
        x = best + chain.draws @ lower.T
        v, w, z = self.split(x)
        with torch.no_grad():
            losses = torch.stack([self.tracks.segments(a, b).dE for a, b in zip(w, z, strict=True)])
        nuisance = self.tracks.layout.mean + self.tracks.layout.sigma * w
        return LatentSamples(self.names, self.start * torch.exp(v), nuisance, losses, chain)
