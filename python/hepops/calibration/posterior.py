"""From measured hits to the posterior of the detector's parameters: fit, simulations around it, learning, tests."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import hepops.lartpc
from hepops.flows.inference import (
    SBC,
    TARP,
    Box,
    NeuralPosterior,
    Simulations,
    Summary,
    Training,
    corner,
    npe,
    sbc,
    simulate,
    tarp,
)
from hepops.lartpc import Hits, Parameters
from hepops.lartpc.fit import MatchedHits, PixelSums
from hepops.lartpc.plot import SYMBOLS

from .experiment import Experiment, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hepops.lartpc.fit import FitResult


@dataclass(frozen=True)
class Calibration:
    """A posterior of the detector, with the fit that it is compared with and the tests that it went through."""

    score: Score
    fit: "FitResult"
    prior: Box
    posterior: NeuralPosterior
    simulations: Simulations  # learned from
    held_out: Simulations  # tested with
    t: Tensor  # float64 (K)  the compressed measurement
    result: Summary
    linear: Summary  # normal, by the Fisher information at the fit, inside the prior's box
    sbc: SBC
    tarp: TARP  # references on all sides
    tarp_corner: TARP  # references on one side, which sees a bias

    @property
    def ratio(self) -> Tensor:
        """(K) widths of the posterior over those of the linear one."""
        return self.result.errors / self.linear.errors

    @property
    def ratio_to_fit(self) -> Tensor:
        """(K) widths of the posterior over the errors of the fit."""
        return self.result.errors / self.fit.errors

    @property
    def held_out_ratio(self) -> Tensor:
        """(K) of the held-out simulations: rms distance of the posterior's mean from the truth, in Fisher's errors."""
        means = self.posterior.sample(400, self.held_out.x, seed=11).mean(0)
        return ((means - self.held_out.theta) / self.score.errors).square().mean(0).sqrt()

    def summary(self, truth: Tensor | None = None) -> str:
        """Tables for the terminal."""
        names = self.prior.names
        width = max(map(len, names))
        heads = f"{'posterior':>13} {'error':>10} {'fit':>13} {'error':>10} {'to fit':>7} {'Fisher':>7}"
        lines = [f"{'':{width}}  {heads}{'' if truth is None else '   pull'}  unit"]
        for k, (name, unit) in enumerate(zip(names, self.prior.units, strict=True)):
            numbers = f"{float(self.result.mean[k]):13.7g} {float(self.result.errors[k]):10.3g}"
            numbers += f" {float(self.fit.values[k]):13.7g} {float(self.fit.errors[k]):10.3g}"
            numbers += f" {float(self.ratio_to_fit[k]):7.3f} {float(self.ratio[k]):7.3f}"
            if truth is not None:
                numbers += f" {float((self.result.mean[k] - truth[k]) / self.result.errors[k]):6.2f}"
            lines.append(f"{name:{width}}  {numbers}  {unit}")
        apart = (self.result.correlations - self.linear.correlations).abs().max()
        lines += [
            "to fit, Fisher: width of the posterior over the fit's error, and over that of the Fisher information in "
            "the prior's box",
            f"largest difference of a correlation from the Fisher information's: {float(apart):.3f}",
            f"learned from {self.simulations.report()}",
            self.sbc.summary(),
            self.tarp.summary(),
            f"with references on one side: p = {self.tarp_corner.p_value:.3g}",
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = {
            "prior": self.prior.to_dict(),
            "mean": self.result.mean,
            "covariance": self.result.covariance,
            "median": self.result.median,
            "intervals": self.result.intervals,
            "fit": self.fit.values,
            "fit_covariance": self.fit.covariance,
            "fisher_covariance": self.score.covariance,
            "ratio_to_fisher": self.ratio,
            "ratio_to_fit": self.ratio_to_fit,
            "sbc_chi2_p": self.sbc.chi2_p,
            "sbc_ks_p": self.sbc.ks_p,
            "sbc_p": self.sbc.p_value,
            "tarp_p": self.tarp.p_value,
            "tarp_corner_p": self.tarp_corner.p_value,
            "levels": list(self.result.levels),
            "simulations": len(self.simulations),
            "held_out": len(self.held_out),
            "failures": self.simulations.failures,
        }
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}

    def corner(self, truth: Tensor | None = None) -> "Figure":
        """The posterior over the normal one of the Fisher information."""
        draws = {"learned from hits": self.result.draws, "Fisher information": self.linear.draws}
        return corner(draws, self.prior.names, self.prior.units, truth=truth, labels=SYMBOLS)


def calibrate(
    experiment: Experiment,
    measured: Hits,
    *,
    simulations: int = 3000,
    held_out: int = 300,
    width: float = 6.0,
    members: int = 1,
    training: Training | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """The posterior of the detector's parameters, by simulation.

    A fit of the hits gives the fiducial point. The prior is uniform within `width` standard deviations of it, inside
    the published ranges: there the posterior has its mass, so that a wider uniform prior would give the same.
    Simulations of that prior are compressed to the score at the fiducial point, and a flow learns the posterior.

    Args:
        experiment: Tracks, simulator and noise.
        measured: Hits of the same tracks.
        simulations: To learn from.
        held_out: Further ones, for the tests of coverage.
        width: Half of the prior's box, in standard deviations by the Fisher information; hits of the clocked chip
            shift a fit by several, and need more.
        members, training: As of `npe`.
        seed: Of everything.
        folder: Keeps the fit's state and the simulations: a run that was killed goes on from there.
        workers: Processes that simulate.
        progress: Called with (simulations done, in all).

    Returns:
        `Calibration`.

    Raises:
        ValueError: no hits, singular information, or a folder of another experiment.
    """
    if simulations < 50 or held_out < 40:
        raise ValueError(f"simulations must be at least 50 and held_out 40, got {simulations} and {held_out}")
    if not 1 <= width < float("inf"):
        raise ValueError(f"width must be at least 1, got {width}")
    place = None if folder is None else Path(folder)
    names, assumed = experiment.names, experiment.assumed
    # the same simulator whatever was measured with it before
    experiment.set(torch.tensor([Parameters.spec(name).nominal for name in names], dtype=torch.float64))
    found = hepops.lartpc.fit(
        experiment.sim,
        experiment.segments,
        measured,
        names,
        residual=[PixelSums(assumed), MatchedHits(assumed)],
        start="nominal",
        seed=seed,
        checkpoint=None if place is None else place / "fit",
    )
    score = Score(experiment, found.values)
    spec = [Parameters.spec(name) for name in names]
    published = Box([s.low for s in spec], [s.high for s in spec], names, experiment.units)
    prior = published.around(found.values, width * score.errors)
    made = simulate(
        prior,
        score,
        simulations + held_out,
        seed,
        batch=50,
        checkpoint=None if place is None else place / "simulations",
        workers=workers,
        on_error="exclude",
        name=experiment.fingerprint(),
        progress=progress,
    )
    learn, test = made.split(min(held_out, len(made) - 50))
    posterior = npe(learn, members=members, training=training, seed=seed)
    t = score.compress(measured)
    coverage = [tarp(posterior, test.theta, test.x, references=r, seed=seed) for r in ("prior", "corner")]
    return Calibration(
        score,
        found,
        prior,
        posterior,
        learn,
        test,
        t,
        posterior.summary(t, 20_000, seed),
        Summary.of(prior, linear(score, prior, t, 20_000, seed)),
        sbc(posterior, test.theta, test.x, seed=seed),
        *coverage,
    )


def linear(score: Score, prior: Box, t: Tensor, n: int, seed: int) -> Tensor:
    """Draws (n, K) of the posterior were the simulator linear: normal around the score's estimate, inside the box."""
    generator = torch.Generator().manual_seed(seed)
    size = score.errors
    factor = torch.linalg.cholesky(score.covariance / (size * size[:, None]))
    kept, count = [], 0
    for _ in range(100):
        z = torch.randn(4 * n, len(size), generator=generator, dtype=torch.float64) @ factor.T
        theta = score.estimate(t + z)
        kept.append(theta[prior.inside(theta)])
        count += len(kept[-1])
        if count >= n:
            return torch.cat(kept)[:n]
    raise ValueError(
        "the estimate lies so far outside the prior's box that no draw falls into it: is `width` too small?"
    )
