r"""Gaussian mixtures with full covariances, cut by the cube's walls, and how they are fitted to weighted points.

.. math:: q(x) = \sum_k \alpha_k |2\pi \Sigma_k|^{-1/2} e^{-\frac12 |A_k (x - \mu_k)|^2}, \quad
          \Sigma_k = L_k L_k^T, \; A_k = L_k^{-1}.

q is the density on all of space: what it throws outside the cube is lost as zeros, which no one has to normalise.

References:
    A. Dempster, N. Laird, D. Rubin, J. R. Stat. Soc. B 39 (1977) 1 (EM). O. Cappe et al., Adaptive importance sampling
    in general mixture classes, Stat. Comput. 18 (2008) 447, arXiv 0710.4242 (EM of weighted points). D. Arthur,
    S. Vassilvitskii, k-means++, SODA 2007 (the start).
"""

import math
from typing import Any

import torch
from torch import Tensor

from hepops.flows.random import CHANNEL

from .proposal import Proposal, normals, substream, uniforms


class GaussianMixture(Proposal):
    """K Gaussians of any covariance; begins with all at the centre of the cube.

    Args:
        dim: d.
        components: K.
    """

    shares: Tensor
    means: Tensor
    scales: Tensor
    whiten: Tensor

    def __init__(self, dim: int, components: int = 8) -> None:
        super().__init__(dim)
        if components < 1:
            raise ValueError(f"GaussianMixture: components must be positive, got {components}")
        self.components = components
        eye = torch.eye(dim, dtype=torch.float64).repeat(components, 1, 1)
        self.register_buffer("shares", torch.full((components,), 1 / components, dtype=torch.float64))
        self.register_buffer("means", torch.full((components, dim), 0.5, dtype=torch.float64))
        self.register_buffer("scales", 0.3 * eye)  # L
        self.register_buffer("whiten", eye / 0.3)  # A

    @classmethod
    def of(cls, shares: Tensor, means: Tensor, scales: Tensor) -> "GaussianMixture":
        """The mixture of these shares (K,), means (K, d) and lower Cholesky factors of the covariances (K, d, d)."""
        mixture = cls(means.shape[1], len(means)).to(means.device)
        mixture.shares.copy_(shares / shares.sum())
        mixture.means.copy_(means)
        mixture.scales.copy_(scales)
        eye = torch.eye(means.shape[1], dtype=torch.float64, device=means.device)
        mixture.whiten.copy_(torch.linalg.solve_triangular(scales, eye.expand_as(scales), upper=False))
        return mixture

    def config(self) -> dict[str, Any]:
        return {"dim": self.dim, "components": self.components}

    def draw(self, numbers: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        edges = self.shares.cumsum(0)
        pick = uniforms(numbers, 1, substream(seed, 0), step, CHANNEL)[:, 0] * edges[-1]
        k = torch.bucketize(pick, edges[:-1], right=True)
        z = normals(numbers, self.dim, seed, step, CHANNEL)
        x = self.means[k] + torch.einsum("nij,nj->ni", self.scales[k], z)
        return x, self.density(x)

    def cost(self) -> float:
        return 2e-7 + self.components * (1e-8 + 3e-9 * self.dim)

    def terms(self, x: Tensor) -> Tensor:
        """ln(alpha_k N_k(x)), shape (n, K)."""
        return gaussian_terms(x, self.shares.log(), self.means, self.whiten)

    def density(self, x: Tensor) -> Tensor:
        return torch.logsumexp(self.terms(x), 1)


def gaussian_terms(x: Tensor, log_shares: Tensor, means: Tensor, whiten: Tensor) -> Tensor:
    """ln(alpha_k N_k(x)), shape (n, K): one matrix product of the points with all A_k."""
    K, d = means.shape
    offset = torch.einsum("kij,kj->ki", whiten, means).flatten()
    z = torch.addmm(-offset, x, whiten.flatten(0, 1).T).view(-1, K, d)
    constant = log_shares + whiten.diagonal(dim1=1, dim2=2).log().sum(1) - 0.5 * d * math.log(2 * math.pi)
    return torch.addcmul(constant.expand(len(x), K), z.square().sum(2), z.new_tensor(-0.5))


def _start(x: Tensor, w: Tensor, components: int, generator: torch.Generator) -> GaussianMixture:
    """Means at points of weight far from each other (k-means++), covariances those of the nearest points' average."""
    mean = w @ x / w.sum()
    centred = x - mean
    covariance = (centred * w[:, None]).T @ centred / w.sum() + 1e-12 * torch.eye(x.shape[1], dtype=x.dtype)
    scale = torch.linalg.cholesky(covariance)
    z = torch.linalg.solve_triangular(scale, centred.T, upper=False).T
    chosen = torch.multinomial(w, 1, generator=generator)
    nearest = (z - z[chosen]).square().sum(1)
    for _ in range(components - 1):
        odds = nearest * w
        new = torch.multinomial(odds if odds.sum() > 0 else w, 1, generator=generator)
        chosen = torch.cat([chosen, new])
        nearest = torch.minimum(nearest, (z - z[new]).square().sum(1))
    # of the spread that is left around the chosen points
    left = float((w @ nearest / w.sum() / x.shape[1]).clamp(1e-6, 1.0))
    shares = torch.ones(components, dtype=x.dtype)
    return GaussianMixture.of(shares, x[chosen], (scale * math.sqrt(left)).repeat(components, 1, 1))


def fit(
    x: Tensor,
    w: Tensor,
    start: GaussianMixture | int,
    *,
    steps: int = 30,
    tolerance: float = 1e-4,
    strength: float = 1.0,
    seed: int = 0,
) -> tuple[GaussianMixture, list[float]]:
    r"""EM for the weighted likelihood, with an inverse-Wishart prior of each covariance.

    It maximises

    .. math:: \sum_i w_i \ln q(x_i) - \sum_k [\tfrac{\nu}{2} \ln|\Sigma_k| + \tfrac12 \mathrm{tr}\, \Psi \Sigma_k^{-1}],

    with w scaled to sum to the effective number of points :math:`(\sum w)^2 / \sum w^2`, :math:`\nu` = `strength` and
    :math:`\Psi` that many times a thousandth of the variances of all points: a covariance never vanishes, and with
    many points the prior is forgotten. No step lowers it. A component of less than one point is dropped.

    Args:
        x: Shape (n, d), float64.
        w: Weights >= 0, shape (n,), with a positive sum.
        start: The mixture to begin at, or the number of components of a start at points of weight.
        steps: EM steps at most.
        tolerance: Gain per point at which it stops.
        strength: nu.
        seed: Of the start.

    Returns:
        The mixture, and what was maximised before each step.
    """
    total = w.sum()
    w = w * (total / w.square().sum())  # sums to the effective number of points
    if isinstance(start, int):
        start = _start(x, w, start, torch.Generator().manual_seed(seed & (2**63 - 1)))
    mixture, d, n_eff = start, x.shape[1], float(w.sum())
    centre = w @ x / n_eff
    x = x - centre
    psi = strength * torch.diag((1e-3 * (w @ x.square() / n_eff)).clamp(min=1e-14))
    squares = (x[:, :, None] * x[:, None, :]).flatten(1)
    trace: list[float] = []
    for _ in range(steps):
        terms = gaussian_terms(x, mixture.shares.log(), mixture.means - centre, mixture.whiten)
        log_q = torch.logsumexp(terms, 1)
        penalty = -strength * mixture.whiten.diagonal(dim1=1, dim2=2).log().sum()
        penalty = penalty + 0.5 * (mixture.whiten.square() @ psi.diagonal()).sum()
        trace.append(float(w @ log_q - penalty))
        if len(trace) > 1 and trace[-1] - trace[-2] < tolerance * n_eff:
            break
        r = (terms - log_q[:, None]).exp_().mul_(w[:, None])
        counts = r.sum(0)
        alive = counts > 1
        if not bool(alive.all()):
            if not bool(alive.any()):
                break
            r, counts = r[:, alive], counts[alive]
            trace.clear()
        means = r.T @ x / counts[:, None]
        second = (r.T @ squares).view(-1, d, d)
        scatter = second - counts[:, None, None] * means[:, :, None] * means[:, None, :]
        scatter = scatter + 1e-15 * torch.eye(d, dtype=x.dtype)  # rounding
        scales = torch.linalg.cholesky((scatter + psi) / (counts + strength)[:, None, None])
        mixture = GaussianMixture.of(counts, means + centre, scales)
    return mixture, trace


def split(mixture: GaussianMixture, scores: Tensor, into: int) -> GaussianMixture:
    """More components: those of the highest scores, shape (K,), become two, a deviation apart along the long axis."""
    extra = min(into - mixture.components, mixture.components)
    chosen = scores.argsort(descending=True)[:extra]
    scales = mixture.scales[chosen]
    vectors, values, _ = torch.linalg.svd(scales)
    step = 0.5 * vectors[:, :, 0] * values[:, :1]
    # the halves share the variance along that axis: sigma^2 = (sigma/2)^2 [between] + 3/4 sigma^2 [within]
    covariance = scales @ scales.transpose(1, 2) - step[:, :, None] * step[:, None, :]
    half = torch.linalg.cholesky(covariance)
    shares, means, factors = mixture.shares.clone(), mixture.means.clone(), mixture.scales.clone()
    shares[chosen] /= 2
    means[chosen] -= step
    factors[chosen] = half
    return GaussianMixture.of(
        torch.cat([shares, shares[chosen]]),
        torch.cat([means, mixture.means[chosen] + step]),
        torch.cat([factors, half]),
    )
