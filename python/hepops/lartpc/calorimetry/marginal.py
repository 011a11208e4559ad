r"""Detector parameters from tracks whose losses are not given: losses integrated out, to first order Gaussian.

With :math:`\mu(\theta)` the mean of the pixels' charges over the fluctuations and :math:`C(\theta) = M S M^T + N` their
covariance (`charges`), the fit solves

.. math:: J^T C^{-1} (Q - \mu) = 0, \qquad J = \partial\mu/\partial\theta, \qquad
          \mathrm{cov}\,\theta = (J^T C^{-1} J)^{-1}

by Gauss and Newton's method with C and J at the current values: quasi-likelihood. It needs the first two moments of the
data alone, whatever the shape of the fluctuations; no term in ln|C| enters, which would let a skewed law pull.

References:
    | R. W. M. Wedderburn, Biometrika 61 (1974) 439
    | C. R. Henderson, Biometrics 31 (1975) 423, for the losses given the data
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fit.space import space
from ..segments import Segments
from ..simulator import NAMES, Simulator
from .charges import ALLOWED, Moments, Shares, covariance, law_of, moments
from .objective import PixelCharges
from .tracks import StoppingTrack, Tracks

_LONGEST = (0.3, 1.0)  # a step: of ln parameter, of a nuisance parameter in its prior's widths
_CALM = 7  # from here on half a step at a time: an end at a kink may swing to and fro
_FREE = 30.0  # the charge of a segment that is left free has this spread, in its mean


@dataclass(frozen=True, eq=False)
class MarginalFit:
    """K parameters with errors, and what the data say of every loss."""

    names: tuple[str, ...]
    values: Tensor  # (K)
    covariance: Tensor  # (K, K), ends and energies of the tracks included
    sandwich: Tensor  # (K, K), from the scatter of the scores of events: wants tens of events
    nuisance: Tensor  # (num_tracks) residual range at the last point [cm], or ln(energy/MeV)
    nuisance_errors: Tensor  # (num_tracks)
    losses: Tensor  # (num_segments) mean given the data [MeV]
    loss_errors: Tensor  # (num_segments), of parameters and ends too [MeV]
    prior_losses: Tensor  # (num_segments) mean at this residual range [MeV]
    chi2: float  # (Q - mu)^T C^-1 (Q - mu)
    pixels: int
    iterations: int
    converged: bool

    def __getitem__(self, name: str) -> float:
        if name not in self.names:
            raise KeyError(f"{name} is not in this fit: {', '.join(self.names)}")
        return float(self.values[self.names.index(name)])

    @property
    def errors(self) -> Tensor:
        """(K) one standard deviation."""
        return self.covariance.diagonal().sqrt()

    def apply(self, sim: Simulator) -> None:
        """Write the values into a simulator, in place."""
        with torch.no_grad():
            for name, value in zip(self.names, self.values.tolist(), strict=True):
                getattr(sim, name).fill_(value)

    def segments(self, tracks: Tracks) -> Segments:
        """The tracks with the losses found."""
        dE = self.losses.clamp(min=1e-6)
        return replace(tracks.segments(), dE=dE, dEdx=dE / tracks.layout.length)


@dataclass(frozen=True)
class _Event:
    J: Tensor  # (pixels, K + num_tracks)
    residual: Tensor  # (pixels)
    factor: Tensor  # Cholesky's, of C
    loss_charge: Tensor  # (n, pixels) covariance of losses and charges
    loss_loss: Tensor  # (n, n)

    def solve(self, b: Tensor) -> Tensor:
        return torch.cholesky_solve(b if b.ndim == 2 else b[:, None], self.factor).reshape(b.shape)


def fit_charges(
    sim: Simulator,
    tracks: Tracks,
    data: PixelCharges,
    parameters: Sequence[str] = ("birks_a", "birks_k", "lifetime"),
    *,
    priors: Mapping[str, tuple[float, float]] | None = None,
    straggling: bool = True,
    margin: float = 1.0,
    max_iterations: int = 30,
    tolerance: float = 1e-4,
) -> MarginalFit:
    """Fit detector parameters to the pixel charges of tracks whose dE/dx is not known.

    Args:
        sim: Its values are the start, and those at which pixels' shares of a segment's charge are taken. It is left as
            it is.
        tracks: Geometry, particles and priors of their ends or energies.
        data: Integrated charges.
        parameters: Names of parameters that act on a segment's charge as a whole: those of recombination, w_ion and
            lifetime. Their logarithms move.
        priors: Mean and sigma of Gaussian priors by name [physical].
        straggling: False ignores the fluctuations: the error that is made so can then be looked at.
        margin: The charge within so much of the last point of a stopping track is left free [cm]: its law there has a
            kink where the particle ends. A few widths of the prior of the end.
        max_iterations: Of Gauss and Newton's method.
        tolerance: Expected decrease of chi2/2 at which it ends: a ten thousandth is 0.014 of an error. From the seventh
            iteration on the share of the detector's parameters in it, twice in a row, is enough: the end of a track at
            a kink of its law may swing on, by some hundredths of its error.

    Returns:
        `MarginalFit`. Look at `converged`.

    Not differentiable. Deterministic. Memory: squares of the pixels, and of the segments, of one event.

    Raises:
        ValueError: an unknown, repeated, degenerate or unsuitable name, a start that is not positive, a prior that does
            not fit, no measured pixel on the tracks, data that do not determine the parameters, or losses whose
            tail reaches too far for a mean and a variance to mean much (xi/W below 1e-3): give `Tracks` a cut.

    References:
        | R. W. M. Wedderburn, Biometrika 61 (1974) 439

    Example:
        >>> from hepops.lartpc import Detector, Simulator
        >>> from hepops.lartpc.calorimetry import PixelCharges, StoppingTrack, Tracks, fit_charges
        >>> points = torch.linspace(-20.0, -12.0, 17).double()[:, None] * torch.tensor([1.0, 0.6, 0.3]).double()
        >>> tracks = Tracks([StoppingTrack(points, "proton")])
        >>> truth = Simulator(Detector.module0(), dtype=torch.float64, step=0.4, reach=1)
        >>> data = PixelCharges.measure(truth, tracks.segments(), 500.0, seed=1)
        >>> result = fit_charges(truth, tracks, data, ["birks_a"])
        >>> result.converged, abs(result["birks_a"] - 0.8) < 2 * float(result.errors[0])
        (True, True)
    """
    if max_iterations < 1 or not tolerance > 0 or not margin >= 0:
        given = f"{max_iterations}, {tolerance}, {margin}"
        raise ValueError(f"max_iterations and tolerance must be positive, margin not negative, got {given}")
    fit = _Fit(sim, tracks, data, tuple(parameters), priors or {}, straggling, margin)
    x, done, calm = fit.origin(), False, 0
    for iteration in range(1, max_iterations + 1):
        at, events = fit.linearise(x)
        information, score, _ = fit.normal(x, events)
        step = torch.linalg.solve(information, score)
        calm = calm + 1 if fit.own(information, step) < tolerance else 0
        if done := float(score @ step) / 2 < tolerance or (iteration > _CALM and calm > 1):
            break
        x = x + step * fit.share(step) * (1.0 if iteration < _CALM else 0.5)
    return fit.result(x, at, events, iteration, done)


class _Fit:
    """One problem: u = ln(parameter/start) and w, the nuisance parameters in units of their priors, as one vector."""

    def __init__(
        self,
        sim: Simulator,
        tracks: Tracks,
        data: PixelCharges,
        names: tuple[str, ...],
        priors: Mapping[str, tuple[float, float]],
        straggling: bool,
        margin: float,
    ) -> None:
        for name in names:
            if name in NAMES and name not in ALLOWED:
                raise ValueError(f"parameters: {name} moves charge from pixel to pixel or in time, fit {ALLOWED}")
        space(names, priors=dict(priors) or None)  # refuses unknown, repeated and degenerate names
        self.sim, self.tracks, self.data, self.names, self.priors = sim, tracks, data, names, dict(priors)
        self.straggling = straggling
        self.shares = Shares(sim, tracks, data)
        self.start = torch.tensor([self.shares.reference[name] for name in names], dtype=torch.float64)
        if not bool((self.start > 0).all()):
            raise ValueError(f"parameters: all must start above 0, got {self.start.tolist()}")
        if not any(bool((M > 0).any()) for *_, M in self.shares.events):
            raise ValueError("data: no measured pixel sees any of the tracks")
        stops = torch.tensor([isinstance(t, StoppingTrack) for t in tracks.tracks])[tracks.layout.track]
        self.free = stops & (tracks.layout.to_end < margin)

    def origin(self) -> Tensor:
        return torch.zeros(len(self.names) + len(self.tracks), dtype=torch.float64)

    def physical(self, x: Tensor) -> Tensor:
        return self.start * torch.exp(x[: len(self.names)])

    def share(self, step: Tensor) -> float:
        """Of a step that is not too long to trust."""
        K = len(self.names)
        return min(
            1.0, *(f / max(float(s.abs().max()), 1e-300) for f, s in zip(_LONGEST, (step[:K], step[K:]), strict=True))
        )

    def own(self, information: Tensor, step: Tensor) -> float:
        """Half of chi2 that the detector's part of a step is worth, ends and energies of the tracks left to follow."""
        K = len(self.names)
        covariance = torch.linalg.inv(information)[:K, :K]
        return float(step[:K] @ torch.linalg.solve(covariance, step[:K])) / 2

    def linearise(self, x: Tensor) -> tuple[Moments, list[_Event]]:
        tracks, layout = self.tracks, self.tracks.layout
        nuisance = tracks.nuisance(x[len(self.names) :])
        law = law_of(tracks, nuisance, self.straggling)
        values = {**self.shares.reference, **dict(zip(self.names, self.physical(x).tolist(), strict=True))}
        at = moments(self.shares, tracks, law, self.names, values, nuisance)
        own = layout.sigma[layout.track]
        D = torch.zeros(tracks.num_segments, len(x), dtype=torch.float64)
        D[:, : len(self.names)] = at.to_shared.T
        D[torch.arange(len(D)), len(self.names) + layout.track] = at.to_nuisance * own
        events = []
        for used, ours, _, M in self.shares.events:
            qq, lq, ll = covariance(tracks, law, at, ours)
            qq = qq + torch.diag(torch.where(self.free[ours], (_FREE * (at.mean[ours] + 1e4)) ** 2, 0.0))
            C = M @ qq @ M.T + torch.diag(self.data.sigma[used] ** 2)
            factor = torch.linalg.cholesky((C + C.T) / 2)
            events.append(_Event(M @ D[ours], self.data.charge[used] - M @ at.mean[ours], factor, lq @ M.T, ll))
        return at, events

    def normal(self, x: Tensor, events: list[_Event]) -> tuple[Tensor, Tensor, Tensor]:
        """Information, score, and the scores of events (E, n); priors in the first two."""
        information, rows = torch.zeros(len(x), len(x), dtype=torch.float64), []
        for event in events:
            solved = event.solve(event.J)
            information += event.J.T @ solved
            rows.append(solved.T @ event.residual)
        scores = torch.stack(rows)
        score, p, K = scores.sum(0), self.physical(x), len(self.names)
        weight = torch.cat([torch.zeros(K, dtype=torch.float64), torch.ones(len(self.tracks), dtype=torch.float64)])
        score = score - weight * x
        for name, (mean, sigma) in self.priors.items():
            k = self.names.index(name)
            weight[k] += (p[k] / sigma) ** 2
            score[k] -= p[k] * (p[k] - mean) / sigma**2
        information = information + torch.diag(weight)
        values, vectors = torch.linalg.eigh(information[:K, :K])
        if float(values[0]) <= 1e-12 * float(values[-1]):
            worst = self.names[int(vectors[:, 0].abs().argmax())]
            raise ValueError(f"parameters: these tracks do not determine {worst}: fix it or give it a prior")
        return information, score, scores

    def result(self, x: Tensor, at: Moments, events: list[_Event], iterations: int, done: bool) -> MarginalFit:
        K, layout = len(self.names), self.tracks.layout
        information, _, scores = self.normal(x, events)
        whole = torch.linalg.inv(information)
        p = self.physical(x)
        weight = information.clone()
        for event in events:
            weight -= event.J.T @ event.solve(event.J)  # what is left is the priors'
        sandwich = whole @ (scores.T @ scores + weight) @ whole
        losses, errors = at.loss.clone(), torch.zeros_like(at.loss)
        E = torch.zeros(len(losses), len(x), dtype=torch.float64)
        E[torch.arange(len(E)), K + layout.track] = at.loss_to_nuisance * layout.sigma[layout.track]
        for (_, ours, _, _), event in zip(self.shares.events, events, strict=True):
            gain = event.solve(event.loss_charge.T).T
            losses[ours] += gain @ event.residual
            own = event.loss_loss - gain @ event.loss_charge.T
            carried = E[ours] - gain @ event.J
            errors[ours] = (own.diagonal() + ((carried @ whole) * carried).sum(1)).clamp(min=0).sqrt()
        chi2 = sum(float(e.residual @ e.solve(e.residual)) for e in events)
        scale = p * p[:, None]
        return MarginalFit(
            self.names,
            p,
            whole[:K, :K] * scale,
            sandwich[:K, :K] * scale,
            self.tracks.nuisance(x[K:]),
            layout.sigma * whole.diagonal()[K:].sqrt(),
            losses,
            errors,
            at.loss,
            chi2,
            sum(len(e.residual) for e in events),
            iterations,
            done,
        )
