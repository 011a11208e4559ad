r"""Is a posterior calibrated? Two tests on simulations that it has not seen.

SBC: if theta is drawn from the prior, x simulated from it, and L draws are made of the posterior of x, then the rank
of each parameter of theta among the draws is uniform in 0 ... L. A posterior too narrow piles ranks up at both ends,
one too wide in the middle, a biased one at one end.

TARP: with r a reference point that does not depend on theta, the share f of draws that are closer to r than theta is,
is uniform in (0, 1): the expected coverage of the region that holds a share alpha of the draws is alpha. It sees all
parameters together, and what SBC cannot: a wrong correlation.

Ranks are spread by uniform numbers, :math:`(rank + U) / (L + 1)`, so that they are uniform exactly, whatever L. Neither
test sees everything: the prior itself passes SBC.

References:
    | S. Talts et al., Validating Bayesian Inference Algorithms with Simulation-Based Calibration, arXiv:1804.06788
    | P. Lemos et al., Sampling-Based Accuracy Testing of Posterior Estimators (TARP), ICML (2023), arXiv:2302.03026
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from .. import random
from .statistics import chi2_tail, uniform_ks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EXPECTED = 10  # ranks per bin, at least
_MOST = 32  # bins


class Sampled(Protocol):
    """What the tests ask of a posterior: n draws for each of N data, shape (n, N, K)."""

    def sample(self, n: int, x: Tensor, seed: int | None = None) -> Tensor: ...


@dataclass(frozen=True)
class SBC:
    """Ranks of N truths among L draws each, and tests of their uniformity: two for each of K parameters."""

    names: tuple[str, ...]
    ranks: Tensor  # int64 (N, K), in 0 ... draws
    uniform: Tensor  # float64 (N, K)  ranks spread over (0, 1)
    draws: int
    bins: int
    counts: Tensor  # int64 (bins, K)
    chi2_p: Tensor  # float64 (K)  of the counts
    ks_p: Tensor  # float64 (K)    of `uniform`

    @property
    def p_value(self) -> float:
        """Of all 2 K tests together: 2 K times the smallest (Bonferroni), at most 1."""
        every = torch.cat([self.chi2_p, self.ks_p])
        return min(1.0, len(every) * float(every.min()))

    def summary(self) -> str:
        """A table for the terminal."""
        width = max(map(len, self.names))
        lines = [f"SBC: {len(self.ranks)} simulations, {self.draws} draws each, {self.bins} bins"]
        lines.append(f"{'':{width}}  {'p (chi2)':>9} {'p (KS)':>9} {'mean rank':>9}")
        rows = zip(self.names, self.chi2_p.tolist(), self.ks_p.tolist(), self.uniform.mean(0).tolist(), strict=True)
        lines += [f"{name:{width}}  {a:9.3g} {b:9.3g} {c:9.3f}" for name, a, b, c in rows]
        lines.append(f"all {2 * len(self.names)} tests together (Bonferroni): p = {self.p_value:.3g}")
        return "\n".join(lines)

    def plot(self) -> "Figure":
        """Histograms of the ranks with the band that holds 99 % of the counts of a calibrated posterior."""
        from .plots import ranks

        return ranks(self)


def sbc(posterior: Sampled, theta: Tensor, x: Tensor, *, draws: int = 127, seed: int = 0, chunk: int = 100) -> SBC:
    """Simulation-based calibration.

    Args:
        posterior: To be tested.
        theta: True parameters (N, K), drawn from the prior; not among those that were learned from.
        x: Their data (N, ...).
        draws: L for each.
        seed: Of the draws and of the spread of the ranks.
        chunk: Data at a time: bounds the memory.

    Returns:
        `SBC`.

    Raises:
        ValueError: fewer than 40 simulations, shapes that do not fit, or NaN among parameters or draws.
    """
    pairs = _draws(posterior, theta, x, draws, seed, chunk)
    ranks = torch.cat([(d < t).sum(0) for t, d in pairs])
    u = _spread(ranks, draws, seed)
    n, k = u.shape
    bins = max(2, min(_MOST, n // _EXPECTED))
    counts = torch.stack([torch.histc(u[:, i], bins, 0, 1) for i in range(k)], 1).to(torch.int64)
    chi2 = ((counts - n / bins).square() / (n / bins)).sum(0)
    chi2_p = torch.tensor([chi2_tail(v, bins - 1) for v in chi2.tolist()], dtype=torch.float64)
    ks_p = torch.tensor([uniform_ks(u[:, i])[1] for i in range(k)], dtype=torch.float64)
    return SBC(_names(posterior, k), ranks, u, draws, bins, counts, chi2_p, ks_p)


@dataclass(frozen=True)
class TARP:
    """Expected coverage against credibility."""

    share: Tensor  # float64 (N)      f, spread over (0, 1)
    alpha: Tensor  # float64 (A)      credibility
    coverage: Tensor  # float64 (A)   mean of f < alpha
    band: Tensor  # float64 (2, A)    bootstrap over the simulations, 2.5 and 97.5 %
    distance: float  # Kolmogorov and Smirnov's, the largest |coverage - alpha|
    p_value: float  # of that distance

    def summary(self) -> str:
        """Two lines for the terminal."""
        at = [float(self.coverage[int((self.alpha - a).abs().argmin())]) for a in (0.5, 0.68, 0.95)]
        shares = ", ".join(f"{a:.3f} at {b}" for a, b in zip(at, ("0.50", "0.68", "0.95"), strict=True))
        first = f"TARP: {len(self.share)} simulations, expected coverage {shares}"
        return f"{first}\nlargest distance from the diagonal {self.distance:.3f}: p = {self.p_value:.3g}"

    def plot(self) -> "Figure":
        """Coverage against credibility with its bootstrap band."""
        from .plots import coverage

        return coverage(self)


def tarp(
    posterior: Sampled,
    theta: Tensor,
    x: Tensor,
    *,
    references: Tensor | Literal["prior", "corner"] = "prior",
    draws: int = 127,
    seed: int = 0,
    bootstrap: int = 200,
    chunk: int = 100,
) -> TARP:
    """Tests of accuracy with random points.

    Args:
        posterior: To be tested.
        theta, x: True parameters (N, K) and their data, as of `sbc`.
        references: "prior": the parameters of other simulations, which lie on all sides, so that a bias all to one side
            averages out; "corner": the corner of the smallest value of each parameter, which sees it; or points (N, K),
            which may depend on x but not on theta.
        draws: For each of the data.
        seed: Of draws, spread and bootstrap.
        bootstrap: How many samples of N make the band.
        chunk: Data at a time.

    Distances are Euclidean, each parameter in units of its spread among `theta`.

    Returns:
        `TARP`.

    Raises:
        ValueError: as of `sbc`.
    """
    n, given = len(theta), references
    generator = torch.Generator().manual_seed(seed)
    if isinstance(references, str):
        if references not in ("prior", "corner"):
            raise ValueError(f'references must be "prior", "corner" or points, got {references!r}')
        shift = int(torch.randint(1, max(2, n), (), generator=generator))
        references = theta.roll(shift, 0) if references == "prior" else theta.amin(0).expand_as(theta)
    if references.shape != theta.shape:
        raise ValueError(f"references must have shape {tuple(theta.shape)}, got {tuple(references.shape)}")
    if not isinstance(given, str) and not bool(torch.isfinite(references).all()):
        raise ValueError("references hold NaN or infinity")
    if bootstrap < 1:
        raise ValueError(f"bootstrap must be at least 1, got {bootstrap}")
    scale = theta.double().std(0).clamp_min(1e-300)
    ranks, begin = [], 0
    for t, d in _draws(posterior, theta, x, draws, seed, chunk):
        r = references[begin : begin + len(t)].double()
        begin += len(t)
        ranks.append((((d - r) / scale).square().sum(-1) < ((t - r) / scale).square().sum(-1)).sum(0))
    f = _spread(torch.cat(ranks)[:, None], draws, seed)[:, 0]
    alpha = torch.linspace(0, 1, 101, dtype=torch.float64)
    again = torch.randint(n, (bootstrap, n), generator=generator)
    curves = torch.stack([_coverage(f[rows], alpha) for rows in again])
    band = torch.quantile(curves, torch.tensor([0.025, 0.975], dtype=torch.float64), 0)
    distance, p = uniform_ks(f)
    return TARP(f, alpha, _coverage(f, alpha), band, distance, p)


def _coverage(f: Tensor, alpha: Tensor) -> Tensor:
    return torch.searchsorted(f.sort().values, alpha).double() / len(f)


def _draws(
    posterior: Sampled, theta: Tensor, x: Tensor, draws: int, seed: int, chunk: int
) -> list[tuple[Tensor, Tensor]]:
    """Pairs of truths (n, K) and draws (L, n, K), float64."""
    if theta.ndim != 2 or len(theta) != len(x):
        raise ValueError(f"theta must be (N, K) and x (N, ...), got {tuple(theta.shape)} and {tuple(x.shape)}")
    if len(theta) < 40:
        raise ValueError(f"a coverage test needs at least 40 simulations, got {len(theta)}")
    if draws < 1 or chunk < 1:
        raise ValueError(f"draws and chunk must be at least 1, got {draws} and {chunk}")
    pairs = []
    for first in range(0, len(theta), chunk):
        t = theta[first : first + chunk].double()
        if not bool(torch.isfinite(t).all()):
            raise ValueError("theta holds NaN or infinity")
        d = posterior.sample(draws, x[first : first + chunk], (seed + first) % 2**64).double()
        if d.shape != (draws, *t.shape):
            raise ValueError(f"posterior.sample must return {(draws, *t.shape)}, got {tuple(d.shape)}")
        if not bool(torch.isfinite(d).all()):
            raise ValueError("posterior.sample returned NaN or infinity")
        pairs.append((t, d))
    return pairs


def _spread(ranks: Tensor, draws: int, seed: int) -> Tensor:
    u = random.uniform(len(ranks), ranks.shape[1], seed, purpose=random.PICK, dtype=torch.float64)
    return (ranks + u) / (draws + 1)


def _names(posterior: Any, count: int) -> tuple[str, ...]:
    prior = getattr(posterior, "prior", None)
    return tuple(prior.names) if prior is not None else tuple(f"theta{i}" for i in range(count))
