r"""An experiment whose detector is to be known: tracks, the simulator of their hits, and the noise of a measurement.

A measurement is :math:`x = \mu(\theta) + n`: the charge and the time of every hit, of the noise-free simulator, with
independent normal noise of stated widths. The Fisher information of such data is exact,

.. math:: F_{kl} = \sum_i \frac{1}{\sigma_i^2} \frac{\partial \mu_i}{\partial \theta_k}
          \frac{\partial \mu_i}{\partial \theta_l}

as long as the set of hits stays the same. The other face is the clocked chip with the noise of its detector: resets,
early triggers, hits that are missing, of which no likelihood is known.

References:
    | J. Alsing, B. Wandelt, MNRAS 476 (2018) L60, arXiv:1712.00012: the score is the optimal compression
    | A. F. Heavens, R. Jimenez, O. Lahav, MNRAS 317 (2000) 965, arXiv:astro-ph/9911102
"""

import copy
import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hepops.flows.inference import noise
from hepops.lartpc import Hits, Parameters, Segments, Simulator
from hepops.lartpc.fit import Noise
from hepops.lartpc.fit.residuals import _common, _hit_keys

_CLIP = 6.0  # standard deviations: a hit that changed its rank counts no more than this


@dataclass(frozen=True)
class Known(Noise):
    """Normal noise of fixed widths on the charge and the time of every hit.

    Example:
        >>> known = Known(sigma_charge=1000.0, sigma_time=0.2)
        >>> known.charge, known.time(torch.tensor([3e4, 6e4]))
        (1000.0, tensor([0.2000, 0.2000]))
    """

    sigma_charge: float = 1068.0  # [e]   module0's, reset noise, uncorrelated noise and ADC together
    sigma_time: float = 0.2  # [us]

    def __post_init__(self) -> None:
        for name in ("sigma_charge", "sigma_time"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"Known: {name} must be positive and finite, got {getattr(self, name)}")
        super().__post_init__()

    @property
    def charge(self) -> float:
        return self.sigma_charge

    def time(self, charge: Tensor) -> Tensor:
        return torch.full_like(charge, self.sigma_time)


class Experiment:
    """Tracks and a simulator; measurements of it, by parameters and seed.

    Args:
        sim: The simulator; it is copied. Its values are those of every parameter that is not in `names`.
        segments: The tracks, whole events.
        noise: `Known`; or None: the clocked chip with the noise of its detector.
        names: The parameters that are asked for.
    """

    def __init__(
        self,
        sim: Simulator,
        segments: Segments,
        noise: Known | None = None,
        names: tuple[str, ...] = Parameters.SIX,
    ) -> None:
        self.sim, self.segments, self.noise, self.names = copy.deepcopy(sim), segments, noise, tuple(names)
        for name in self.names:
            Parameters.spec(name)
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"Experiment: names must be different and at least one, got {list(self.names)}")

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(Parameters.spec(name).unit for name in self.names)

    @property
    def assumed(self) -> Noise:
        """The noise by which residuals are divided."""
        return self.noise or Noise.of(self.sim.detector)

    def set(self, theta: Tensor) -> None:
        """The simulator's parameters, from physical values (K)."""
        with torch.no_grad():
            for name, value in zip(self.names, theta.tolist(), strict=True):
                getattr(self.sim, name).fill_(value)

    @torch.no_grad()
    def measure(self, theta: Tensor, seed: int) -> Hits:
        """Hits with noise of the detector with these parameters (K)."""
        self.set(theta)
        if self.noise is None:
            return self.sim(self.segments, seed=seed)
        hits = self.sim(self.segments)
        n = len(hits)
        draws = noise(torch.tensor([seed]), 2 * n)[0].to(hits.charge)
        charge = hits.charge + self.noise.sigma_charge * draws[:n]
        return replace(hits, charge=charge, time=hits.time + self.noise.sigma_time * draws[n:].to(hits.time))

    def fingerprint(self) -> str:
        """A short name for tracks, simulator and noise: what the simulations of a checkpoint must have in common."""
        digest = hashlib.sha256()
        for column in (self.segments.event, self.segments.start, self.segments.end, self.segments.dE):
            digest.update(column.contiguous().numpy().tobytes())
        others = {n: v for n, v in self.sim.parameters_now.to_dict().items() if n not in self.names}
        digest.update(repr((self.names, self.noise, repr(self.sim), self.sim.detector.to_dict(), others)).encode())
        return digest.hexdigest()[:16]


class Score:
    r"""Hits compressed to one number per parameter, at a fiducial point :math:`\theta_0`:

    .. math:: t = F^{-1} \sum_i \frac{1}{\sigma_i} \frac{\partial \mu_i}{\partial \theta} \,
              c\left(\frac{x_i - \mu_i(\theta_0)}{\sigma_i}\right)

    the first step of the method of scoring, in units of :math:`\sqrt{(F^{-1})_{kk}}`. Near the fiducial point it holds
    all information that the data have; away from it what it says is bent, which the posterior learns. Hits are matched
    by (event, tpc, ix, iy, rank); c cuts at 6, and is 0 for a hit without a partner.

    Args:
        experiment: Whose hits.
        fiducial: Physical values (K).

    Raises:
        ValueError: no hits, or singular information.
    """

    def __init__(self, experiment: Experiment, fiducial: Tensor) -> None:
        self.experiment, self.fiducial = experiment, fiducial.to(torch.float64)
        experiment.set(self.fiducial)
        with torch.no_grad():
            hits = experiment.sim(experiment.segments, tangents=experiment.names)
        if not len(hits):
            raise ValueError("Score: the tracks make no hits at the fiducial point")
        assert hits.charge_tangents is not None and hits.time_tangents is not None
        self.hits = hits
        self.sigma = (
            torch.full((len(hits),), experiment.assumed.charge).double(),
            experiment.assumed.time(hits.charge.double()),
        )
        slopes = (hits.charge_tangents.double() / self.sigma[0], hits.time_tangents.double() / self.sigma[1])
        self.jacobian = torch.cat(slopes, 1)  # (K, 2 n), whitened
        # scaled to a unit diagonal: parameters differ by nine orders of magnitude
        self.information = self.jacobian @ self.jacobian.T
        size = self.information.diagonal().sqrt()
        factor, wrong = torch.linalg.cholesky_ex(self.information / (size * size[:, None]))
        if int(wrong) or float(factor.diagonal().min()) < 1e-6:
            raise ValueError(f"Score: the hits do not tell {', '.join(experiment.names)} apart: singular information")
        self.covariance = torch.cholesky_inverse(factor) / (size * size[:, None])
        self.errors = self.covariance.diagonal().sqrt()

    def compress(self, hits: Hits) -> Tensor:
        """t of measured hits, (K) float64."""
        i, j = _common(*_hit_keys(hits, self.hits))
        residual = torch.zeros(2, len(self.hits), dtype=torch.float64)
        residual[0, j] = (hits.charge[i].double() - self.hits.charge[j].double()) / self.sigma[0][j]
        residual[1, j] = (hits.time[i].double() - self.hits.time[j].double()) / self.sigma[1][j]
        return self.covariance @ (self.jacobian @ residual.clamp(-_CLIP, _CLIP).flatten()) / self.errors

    def estimate(self, t: Tensor) -> Tensor:
        """The physical values that t (..., K) stands for, were the simulator linear."""
        return self.fiducial + t * self.errors

    def __call__(self, theta: Tensor, seeds: Tensor) -> Tensor:
        """Measure and compress, for `simulate`: theta (B, K), seeds (B) -> (B, K)."""
        pairs = zip(theta, seeds.tolist(), strict=True)
        return torch.stack([self.compress(self.experiment.measure(row, seed)) for row, seed in pairs])
