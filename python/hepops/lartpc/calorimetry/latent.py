r"""Detector parameters from tracks whose losses are not given: joint maximum, and the marginal by Laplace's method.

The joint density of data and latent variables (`model`) has its maximum where no latent variable was integrated over:
its parameters are biased where the width of what was left out depends on them, and its second derivatives at fixed
losses state errors that are much too small. With :math:`l^*(v)` the best latent variables at given parameters and A
their block of second derivatives,

.. math:: -\ln p(\mathrm{data} \mid v) \approx F(v, l^*(v)) + \tfrac12 \ln\det A(v, l^*(v))

whose information is the Schur complement :math:`F_{vv} - F_{vl} A^{-1} F_{lv}` (the determinant's own curvature is left
out: it is of the order of one latent variable, not of their number), and whose maximum lies
:math:`-C\,\partial_v \tfrac12\ln\det A` from the joint one, with C the covariance.

References:
    | L. Tierney, J. B. Kadane, J. Am. Stat. Assoc. 81 (1986) 82
    | J. Neyman, E. L. Scott, Econometrica 16 (1948) 1, for what goes wrong without
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..segments import Segments
from ..simulator import Simulator
from .model import Block, Curvature, Gradient, Model, Point
from .objective import Objective
from .tracks import Tracks

_LONGEST = 0.3  # of ln p in one step
_HALVINGS = 12
_KINK = 1e-6  # how near to its last point an end may come [cm]
_LAPLACE_STEP = 0.3  # of sigma: where the determinant is read


@dataclass(frozen=True, eq=False)
class LatentFit:
    """K parameters with errors (what they are worth: docs/calorimetry.md) and the latent variables."""

    names: tuple[str, ...]
    values: Tensor  # (K) physical, of the marginal density (of the joint one where `laplace` was off)
    covariance: Tensor  # (K, K) physical, latent variables integrated out
    joint: Tensor  # (K) physical, of the joint density
    conditional: Tensor  # (K) errors at fixed latent variables: what must not be quoted
    nuisance: Tensor  # (num_tracks) residual range at the end [cm], or ln(energy/MeV)
    nuisance_errors: Tensor  # (num_tracks) parameters included
    scores: Tensor  # (num_segments) normal scores of the losses
    score_errors: Tensor  # (num_segments), of those alone: at fixed parameters
    segments: Segments  # with the losses found
    value: float  # F at the joint maximum
    iterations: int
    converged: bool
    message: str

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


def fit_tracks(
    sim: Simulator,
    tracks: Tracks,
    objective: Objective,
    parameters: Sequence[str] = ("birks_a", "birks_k", "lifetime"),
    *,
    priors: Mapping[str, tuple[float, float]] | None = None,
    straggling: bool = True,
    laplace: bool = True,
    max_iterations: int = 20,
    tolerance: float = 1e-3,
) -> LatentFit:
    """Fit detector parameters to tracks whose dE/dx is not known.

    Newton's method on the joint density of data and latent variables: gradients in reverse mode through the simulator,
    second derivatives in blocks, one per event, so that a step costs the parameters' Schur complement. Then the
    marginal maximum by Laplace's method.

    Args:
        sim: Its values are the start; it is copied. float64 is needed for second derivatives.
        tracks: Geometry, particles and priors of their ends or energies.
        objective: -log L of (simulator, segments) with a graph: `PixelCharges`, `HitResiduals`, or any function.
        parameters: Names of parameters of the simulator, all positive; they move as logarithms.
        priors: Mean and sigma of Gaussian priors by name [physical].
        straggling: False takes the mean loss everywhere, the nuisance parameters of the tracks alone are free: its
            errors are those of a fit that ignores the fluctuations.
        laplace: Move to the maximum of the marginal density.
        max_iterations: Of Newton's method.
        tolerance: Expected distance to the minimum, half of g^T H^-1 g, at which it ends; a thousandth is a
            twentieth of a sigma along any one direction.

    Returns:
        `LatentFit`.

    Not differentiable. Deterministic wherever the objective is. Memory: the waveforms, and a square of the segments of
    one event for each event.

    Raises:
        ValueError: an unknown, repeated or degenerate name, a prior that does not fit, a simulator in float32, or data
            that do not determine the parameters.

    References:
        | L. Tierney, J. B. Kadane, J. Am. Stat. Assoc. 81 (1986) 82

    Example:
        >>> from hepops.lartpc import Detector, Simulator
        >>> from hepops.lartpc.calorimetry import PixelCharges, StoppingTrack, Tracks, fit_tracks
        >>> points = torch.linspace(-20.0, -12.0, 17).double()[:, None] * torch.tensor([1.0, 0.6, 0.3]).double()
        >>> tracks = Tracks([StoppingTrack(points, "proton")])
        >>> truth = Simulator(Detector.module0(), dtype=torch.float64, step=0.4, reach=1)
        >>> data = PixelCharges.measure(truth, tracks.segments(z=torch.zeros(16).double()), 500.0, seed=1)
        >>> result = fit_tracks(truth, tracks, data, ["birks_a"], laplace=False)
        >>> result.converged, abs(result["birks_a"] - 0.8) < 4 * float(result.errors[0])
        (True, True)
    """
    if sim.dtype is not torch.float64:
        raise ValueError(f"sim: second derivatives need torch.float64, got {sim.dtype}")
    if max_iterations < 1 or not tolerance > 0:
        raise ValueError(f"max_iterations and tolerance must be positive, got {max_iterations}, {tolerance}")
    model = Model(sim, tracks, objective, tuple(parameters), priors or {}, straggling)
    point, gradient, curvature, iterations, done, message = _newton(model, max_iterations, tolerance)
    solved = _Arrow(model, curvature, soften=not done)
    joint, v = model.physical(point.v), point.v
    if laplace and straggling:
        shift = _laplace_shift(model, point, solved)
        v = point.v + shift
        point = solved.along(point, shift)
    p = model.physical(v)
    covariance = solved.covariance * p * p[:, None]
    conditional = p / curvature.shared.diagonal().sqrt()
    nuisance_errors, score_errors = solved.local_errors(model)
    with torch.no_grad():
        segments = model.losses(point)
    return LatentFit(
        model.names,
        p,
        covariance,
        joint,
        conditional,
        tracks.nuisance(point.w),
        tracks.layout.sigma * nuisance_errors,
        point.z,
        score_errors,
        segments,
        gradient.value,
        iterations,
        done,
        message,
    )


class _Arrow:
    """Second derivatives in arrow form, factorised: blocks A of the latent variables, B across, C of the parameters."""

    def __init__(self, model: Model, curvature: Curvature, soften: bool = False) -> None:
        self.blocks = curvature.blocks
        self.factors = [_factor(block) for block in self.blocks]
        self.solved = [torch.cholesky_solve(b.cross.T, L) for b, L in zip(self.blocks, self.factors, strict=True)]
        self.schur = curvature.shared - sum(
            (b.cross @ s for b, s in zip(self.blocks, self.solved, strict=True)), torch.zeros_like(curvature.shared)
        )
        eigenvalues, vectors = torch.linalg.eigh(self.schur)
        if float(eigenvalues[0]) <= 1e-9 * float(eigenvalues[-1]):
            if not soften:
                worst = model.names[int(vectors[:, 0].abs().argmax())]
                raise ValueError(
                    f"parameters: these tracks do not determine them ({worst} above all): fix one or give it a prior"
                )
            floor = 1e-3 * float(eigenvalues[-1].abs())
            self.schur = vectors @ torch.diag(eigenvalues.abs().clamp(min=floor)) @ vectors.T
        self.covariance = torch.linalg.inv(self.schur)

    @property
    def log_det(self) -> float:
        return float(sum(2 * L.diagonal().log().sum() for L in self.factors))

    def step(self, point: Point, g: Gradient) -> tuple[Point, float]:
        """Newton's step, and the decrease of F that it promises."""
        local = [_gather(b, g.w, g.z) for b in self.blocks]
        reduced = g.v - sum((s.T @ x for s, x in zip(self.solved, local, strict=True)), torch.zeros_like(g.v))
        dv = -torch.linalg.solve(self.schur, reduced)
        w, z = torch.zeros_like(g.w), torch.zeros_like(g.z)
        promise = float(reduced @ -dv) / 2
        for block, L, s, x in zip(self.blocks, self.factors, self.solved, local, strict=True):
            own = torch.cholesky_solve(x[:, None], L).squeeze(1)
            promise += float(x @ own) / 2
            _scatter(block, -own - s @ dv, w, z)
        return Point(dv, w, z), promise

    def along(self, point: Point, dv: Tensor) -> Point:
        """The point whose latent variables follow a change of the parameters: dl = -A^-1 B^T dv."""
        w, z = torch.zeros_like(point.w), torch.zeros_like(point.z)
        for block, s in zip(self.blocks, self.solved, strict=True):
            _scatter(block, -s @ dv, w, z)
        return Point(point.v + dv, point.w + w, point.z + z)

    def local_errors(self, model: Model) -> tuple[Tensor, Tensor]:
        """Errors of the nuisance parameters, those of the detector included, and of the scores at fixed parameters."""
        w = torch.zeros(len(model.tracks), dtype=torch.float64)
        z = torch.zeros(model.tracks.num_segments, dtype=torch.float64)
        for block, L, s in zip(self.blocks, self.factors, self.solved, strict=True):
            own = torch.cholesky_inverse(L).diagonal()
            _scatter(block, own, w, z)
            n = len(block.tracks)
            w[block.tracks] += ((s @ self.covariance) * s).sum(1)[:n]
        return w.sqrt(), z.sqrt()


def _factor(block: Block) -> Tensor:
    """Cholesky's factor of a block, or of Gauss and Newton's, which is positive, where the block is not.

    That is so far from the maximum, and where a particle ends within rounding of its last point, at the kink.
    """
    L, info = torch.linalg.cholesky_ex(block.local)
    if int(info) == 0:
        return L
    L, info = torch.linalg.cholesky_ex(block.safe)
    if int(info) == 0:
        return L
    values, vectors = torch.linalg.eigh(block.safe)  # the objective's own second derivatives may be negative
    return torch.linalg.cholesky(vectors @ torch.diag(values.abs().clamp(min=0.3)) @ vectors.T)


def _gather(block: Block, w: Tensor, z: Tensor) -> Tensor:
    return torch.cat([w[block.tracks], z[block.segments]])


def _scatter(block: Block, values: Tensor, w: Tensor, z: Tensor) -> None:
    n = len(block.tracks)
    w[block.tracks], z[block.segments] = values[:n], values[n:]


def begin(model: Model) -> Point:
    """The origin, with the best of nine ends of every stopping track.

    The loss in the last segment has its maximum, with a kink, where the particle ends at the last point: Newton's
    method does not find the way from one side to the other.
    """
    point = model.origin()
    grid = torch.linspace(-2.4, 2.4, 9, dtype=torch.float64)
    for event in model.events():
        for track in model.stopping(event):
            values = []
            for w in grid.tolist():
                point.w[track] = w
                values.append(model.value(point, event) + w * w / 2)
            point.w[track] = grid[int(torch.tensor(values).argmin())]
    return point


def _newton(model: Model, most: int, tolerance: float) -> tuple[Point, Gradient, Curvature, int, bool, str]:
    """To the maximum of the joint density, every end on the side of its last point where it begins."""
    point = begin(model)
    side = torch.where(model.tracks.nuisance(point.w) < 0, -1.0, 1.0).double()
    gradient = model.gradient(point)
    for iteration in range(1, most + 1):
        curvature = model.curvature(point, gradient)
        held = _at_kink(model, point) & (gradient.w * side > 0)
        arrow = _Arrow(model, _without(curvature, held), soften=True)
        step, promise = arrow.step(point, replace(gradient, w=gradient.w.masked_fill(held, 0.0)))
        if promise < tolerance:
            return point, gradient, curvature, iteration, True, "converged"
        share = min(1.0, _LONGEST / max(float(step.v.abs().max()), 1e-300))
        # a track's end or a loss beyond four of its widths in one step is beyond what a parabola can promise
        share = min(share, 4.0 / max(float(step.w.abs().max()), float(step.z.abs().max()), 1e-300))
        for _ in range(_HALVINGS):
            w = _on_side(model, point.w + share * step.w, side)
            trial = Point(point.v + share * step.v, w, point.z + share * step.z)
            if model.value(trial) < gradient.value - 1e-4 * share * promise:
                break
            share /= 2
        else:
            return point, gradient, curvature, iteration, promise < 30 * tolerance, f"stalled, {promise:.2g} to go"
        point = trial
        gradient = model.gradient(point)
    return point, gradient, model.curvature(point, gradient), most, False, f"not converged after {most} iterations"


def _at_kink(model: Model, point: Point) -> Tensor:
    """Stopping tracks that end at their last point."""
    return model.can_stop & (model.tracks.nuisance(point.w).abs() < 2 * _KINK)


def _on_side(model: Model, w: Tensor, side: Tensor) -> Tensor:
    """Ends that would pass their last point stay there, on their side of it."""
    layout = model.tracks.layout
    crossed = model.can_stop & (model.tracks.nuisance(w) * side < _KINK)
    return torch.where(crossed, (side * _KINK - layout.mean) / layout.sigma, w)


def _without(curvature: Curvature, held: Tensor) -> Curvature:
    """The same with some nuisance parameters out of the step."""
    blocks = []
    for block in curvature.blocks:
        out = torch.cat([held[block.tracks], torch.zeros(len(block.segments), dtype=torch.bool)])
        either, one = out | out[:, None], torch.diag(out.double())
        local, safe = (m.masked_fill(either, 0.0) + one for m in (block.local, block.safe))
        blocks.append(replace(block, local=local, safe=safe, cross=block.cross.masked_fill(out, 0.0)))
    return Curvature(curvature.shared, blocks)


def _laplace_shift(model: Model, point: Point, arrow: _Arrow) -> Tensor:
    """-C d(1/2 ln det A)/dv, by central differences along each parameter, latent variables following (K)."""
    slope = torch.zeros_like(point.v)
    for k, sigma in enumerate(arrow.covariance.diagonal().sqrt().tolist()):
        ends = []
        for sign in (1, -1):
            dv = torch.zeros_like(point.v)
            dv[k] = sign * _LAPLACE_STEP * sigma
            ends.append(sum(float(torch.linalg.slogdet(A)[1]) for A in model.local_curvature(arrow.along(point, dv))))
        slope[k] = (ends[0] - ends[1]) / 2 / (2 * _LAPLACE_STEP * sigma)
    return -arrow.covariance @ slope
