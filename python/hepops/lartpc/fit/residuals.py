r"""Residuals between simulated and measured hits that need no hand: sums per pixel, and hits matched by rank.

A residual object is a function of simulated hits (with the tangents of their times and charges) and measured hits. It
returns the whitened residuals r_i = (simulated - measured)_i / sigma_i and their Jacobian dr_i/dp_k. sigma is taken
from the measured hit alone, so that it has no derivative.

What has a partner on one side only gives no residual: it is counted, and the fit adds for each the price of a missing
one (robust.py), a number without a gradient. Neither object is the likelihood of noisy data: silent resets and early
triggers shift a fit of matched hits by several sigma. An object with the method `likelihood` (see `Likelihood`) takes
their place where errors must be honest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from .robust import Robust

if TYPE_CHECKING:
    from hepops.lartpc.detector import Detector
    from hepops.lartpc.hits import Hits
    from hepops.lartpc.likelihood import Chip
    from hepops.lartpc.segments import Segments
    from hepops.lartpc.simulator import Simulator

CHARGE, TIME = 0, 1


@dataclass(frozen=True)
class Residuals:
    """Whitened residuals of one comparison; the charges first, then the times."""

    values: Tensor  # float64 (n)           (simulated - measured) / sigma
    jacobian: Tensor | None  # float64 (n, K)   derivative with respect to the physical parameters
    kind: Tensor  # int64 (n)               CHARGE or TIME
    index: Tensor  # int64 (n)  which measured pixel or hit, numbered alike whatever is simulated
    hits: Tensor  # int64 (n)   simulated hits of its pixel: where it changes, so does the residual, by a jump
    report: Mapping[str, int]  # what was counted: pixels or hits matched, simulated only, measured only

    @property
    def missing(self) -> int:
        """How many residuals have no partner: two, charge and time, for each unmatched pixel or hit."""
        return 2 * (self.report["simulated_only"] + self.report["measured_only"])


@runtime_checkable
class Residual(Protocol):
    """Anything that compares simulated with measured hits.

    `robust` weighs what it returns. Deterministic, and additive over events: the fit calls it on batches of whole
    events and joins what it gets.
    """

    @property
    def robust(self) -> Robust: ...

    def __call__(self, simulated: Hits, measured: Hits) -> Residuals: ...


@dataclass(frozen=True)
class Likelihood:
    """-log L of some events at one point, with its derivatives with respect to the K physical parameters.

    `scores` and where each comes from are needed for nuisance parameters and for the sandwich covariance alone.
    """

    value: Tensor  # float64 ()        -log L, up to a constant
    score: Tensor  # float64 (K)       its gradient
    information: Tensor  # float64 (K, K)   Fisher information, or an estimate that is positive semidefinite
    report: Mapping[str, int] = field(default_factory=dict)
    scores: Tensor | None = None  # float64 (n, K)  gradient of the log L of each of n independent intervals
    event: Tensor | None = None  # int64 (n)
    tpc: Tensor | None = None  # int64 (n)
    ix: Tensor | None = None  # int64 (n)
    iy: Tensor | None = None  # int64 (n)
    values: Tensor | None = None  # float64 (n)  -log L of each interval, which sum to `value`


@runtime_checkable
class LikelihoodObject(Protocol):
    """What stands in for a residual where the probability of the data itself is known.

    It receives the simulator at the current values, and so may ask for waveforms rather than hits. Additive over
    events. `parameters` names the K physical parameters: of the simulator, "time_offset" (the segments come with it
    in their times), or of the likelihood itself. An object with parameters of its own has also ``own`` (their present
    values by name) and ``with_values(values)``, which returns the object at other values; where it can have a gain for
    each pixel, the value of "gain" may be a tensor (num_pixels).
    """

    def likelihood(
        self, sim: Simulator, segments: Segments, measured: Hits, parameters: tuple[str, ...], derivatives: bool
    ) -> Likelihood: ...


@dataclass(frozen=True)
class Noise:
    r"""Known noise of a hit, for whitening.

    The charge has :math:`\sigma_Q^2 = \sigma_{reset}^2 + \sigma_{unc}^2 + LSB^2/12`; the time, crossed by a current
    :math:`I \approx (Q - threshold) / T_{hold}`, has :math:`\sigma_t^2 = tick^2/12 +
    (\sigma_{reset}^2 + \sigma_{unc}^2 + \sigma_{disc}^2) / I^2`, with I no less than a tenth of the threshold per us.

    Example:
        >>> round(Noise().charge, 1)
        1068.4
    """

    reset: float = 900.0  # [e]
    uncorrelated: float = 500.0  # [e]
    discriminator: float = 650.0  # [e]
    lsb: float = 988.28125  # ADC step, (V_ref - V_cm) / 2^8 / gain  [e]
    threshold: float = 7000.0  # [e]
    clock: float = 0.1  # [us]
    hold: float = 1.8  # integration after the crossing [us]

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if not (self.clock > 0 and self.hold > 0 and self.threshold > 0 and self.charge > 0):
            raise ValueError(f"clock, hold, threshold and the noise of the charge must be positive, got {self}")

    @classmethod
    def of(cls, detector: Detector) -> Noise:
        """The noise that a detector states; where it states none, that of its clock and ADC remains."""
        chip = detector.frontend
        return cls(
            reset=chip.reset_noise,
            uncorrelated=chip.uncorrelated_noise,
            discriminator=chip.discriminator_noise,
            lsb=(chip.v_ref - chip.v_cm) / 2**chip.adc_bits / chip.gain,
            threshold=chip.threshold,
            clock=detector.tick,
            hold=(chip.hold + chip.latency) * detector.tick,
        )

    @property
    def charge(self) -> float:
        """sigma of a hit's charge [e]."""
        return (self.reset**2 + self.uncorrelated**2 + self.lsb**2 / 12) ** 0.5

    def time(self, charge: Tensor) -> Tensor:
        """sigma of the time of hits with these charges [us]."""
        current = ((charge - self.threshold) / self.hold).clamp_min(0.1 * self.threshold)
        jitter = (self.reset**2 + self.uncorrelated**2 + self.discriminator**2) / current**2
        return (self.clock**2 / 12 + jitter) ** 0.5


@dataclass(frozen=True)
class PixelSums:
    r"""Per (event, tpc, ix, iy): the charge :math:`Q = \sum q_i` and the mean time :math:`T = \sum q_i t_i / Q`.

    It does not ask which hit is which, and so is the residual to begin a fit with: a pixel keeps its place whatever the
    drift does, and a hit that splits in two moves Q by a few thousand electrons at most. Whitened by
    :math:`\sigma_Q^2 = n \sigma_q^2` and
    :math:`\sigma_T^2 = \sum [(q_i \sigma_{t,i})^2 + ((t_i - T) \sigma_q)^2] / Q^2`.

    Args:
        noise: Of a hit, for whitening.
        robust: Weights.
        chip: What measured: a fit simulates with its thresholds and leaves masked pixels out on both sides. None: the
            simulator's front end, nothing masked; before a likelihood, the likelihood's chip.

    Returns (when called with simulated and measured hits):
        `Residuals` with 2 residuals per pixel that has hits on both sides.

    Differentiable: the values by autograd with respect to the simulated charges and times; the Jacobian where the
    simulated hits carry tangents. Deterministic, also on a GPU.

    References:
        | P. J. Huber, Ann. Math. Statist. 35 (1964) 73

    Example:
        >>> PixelSums().robust.kind
        'geman_mcclure'
    """

    noise: Noise = field(default_factory=Noise)
    robust: Robust = field(default_factory=lambda: Robust("geman_mcclure"))
    chip: Chip | None = field(default=None, repr=False)

    def __call__(self, simulated: Hits, measured: Hits) -> Residuals:
        ours, theirs = _pixel_keys(simulated, measured)
        sim, meas = _Sums.of(simulated, ours), _Sums.of(measured, theirs).detached()
        i, j = _common(sim.key, meas.key)
        sigma_q, sigma_t = (s[j] for s in meas.sigma(self.noise))
        jacobian = None
        if sim.charge_tangents is not None and sim.time_tangents is not None:
            charge = sim.charge_tangents[:, i] / sigma_q
            jacobian = torch.cat((charge, sim.time_tangents[:, i] / sigma_t), 1).T
        charge, time = (sim.charge[i] - meas.charge[j]) / sigma_q, (sim.time[i] - meas.time[j]) / sigma_t
        return _residuals(charge, time, jacobian, j, sim.count[i], len(sim.key), len(meas.key))


@dataclass(frozen=True)
class MatchedHits:
    """Hits with the same (event, tpc, ix, iy, rank), rank the number of the hit within its pixel; charge and time.

    Sharper than sums per pixel, and right to end a fit with: where a threshold decides whether a pixel has one hit or
    two, ranks are shifted until the parameters are close, which the robust weights and the counts make visible.

    Args:
        noise: Of a hit, for whitening.
        robust: Weights.
        chip: What measured: a fit simulates with its thresholds and leaves masked pixels out on both sides. None: the
            simulator's front end, nothing masked; before a likelihood, the likelihood's chip.

    Returns (when called with simulated and measured hits):
        `Residuals` with 2 residuals per hit that has a partner.

    Differentiable: the values by autograd with respect to the simulated charges and times; the Jacobian where the
    simulated hits carry tangents. Deterministic, also on a GPU.

    References:
        | A. E. Beaton, J. W. Tukey, Technometrics 16 (1974) 147

    Example:
        >>> MatchedHits().robust.kind
        'tukey'
    """

    noise: Noise = field(default_factory=Noise)
    robust: Robust = field(default_factory=lambda: Robust("tukey"))
    chip: Chip | None = field(default=None, repr=False)

    def __call__(self, simulated: Hits, measured: Hits) -> Residuals:
        ours, theirs = _hit_keys(simulated, measured)
        i, j = _common(ours, theirs)
        charge_measured, time_measured = (c.detach()[j].double() for c in (measured.charge, measured.time))
        sigma_t = self.noise.time(charge_measured)
        jacobian = None
        if simulated.charge_tangents is not None and simulated.time_tangents is not None:
            charge = simulated.charge_tangents[:, i].double() / self.noise.charge
            jacobian = torch.cat((charge, simulated.time_tangents[:, i].double() / sigma_t), 1).T
        charge = (simulated.charge[i].double() - charge_measured) / self.noise.charge
        time = (simulated.time[i].double() - time_measured) / sigma_t
        return _residuals(charge, time, jacobian, j, _hits_of_pixel(simulated)[i], len(ours), len(theirs))


def _residuals(
    charge: Tensor, time: Tensor, jacobian: Tensor | None, index: Tensor, hits: Tensor, simulated: int, measured: int
) -> Residuals:
    matched = len(charge)
    kind = torch.arange(2, device=charge.device).repeat_interleave(matched)
    report = {"matched": matched, "simulated_only": simulated - matched, "measured_only": measured - matched}
    return Residuals(
        torch.cat((charge, time)), jacobian, kind, torch.cat((index, index)), torch.cat((hits, hits)), report
    )


@dataclass(frozen=True)
class _Sums:
    """Sums over the hits of each pixel, pixels in rising order of their keys."""

    key: Tensor  # int64 (P)
    count: Tensor  # int64 (P)
    charge: Tensor  # (P)  Q = sum q
    time: Tensor  # (P)    T = sum q t / Q
    hits: tuple[Tensor, Tensor]  # charge and time of each hit, pixel by pixel
    charge_tangents: Tensor | None  # (K, P)
    time_tangents: Tensor | None  # (K, P)

    @classmethod
    def of(cls, hits: Hits, keys: Tensor) -> _Sums:
        order = torch.argsort(keys, stable=True)
        key, count = torch.unique_consecutive(keys[order], return_counts=True)
        q, t = hits.charge[order].double(), hits.time[order].double()
        Q = _segment_sum(q, count)
        T = _segment_sum(q * t, count) / Q
        if hits.charge_tangents is None or hits.time_tangents is None:
            return cls(key, count, Q, T, (q, t), None, None)
        dq, dt = hits.charge_tangents[:, order].double(), hits.time_tangents[:, order].double()
        # dT = sum(dq (t - T) + q dt) / Q
        dT = _segment_sum(dq * (t - T.repeat_interleave(count)) + q * dt, count) / Q
        return cls(key, count, Q, T, (q, t), _segment_sum(dq, count), dT)

    def detached(self) -> _Sums:
        q, t = self.hits
        return _Sums(
            self.key, self.count, self.charge.detach(), self.time.detach(), (q.detach(), t.detach()), None, None
        )

    def sigma(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """sigma of Q [e] and of T [us], (P) each."""
        q, t = self.hits
        lever = (t - self.time.repeat_interleave(self.count)) * noise.charge
        variance = _segment_sum((q * noise.time(q)) ** 2 + lever**2, self.count) / self.charge**2
        return noise.charge * self.count.double().sqrt(), variance.sqrt()


def _segment_sum(values: Tensor, counts: Tensor) -> Tensor:
    """Sums of consecutive runs along the last axis, in their order: no atomics, the same bits every time."""
    if not len(counts):
        return values.new_zeros((*values.shape[:-1], 0))
    rows = values if values.ndim == 1 else values.T.contiguous()
    sums: Tensor = torch.segment_reduce(rows, "sum", lengths=counts, axis=0)
    return sums if values.ndim == 1 else sums.T


def _pixel_keys(a: Hits, b: Hits) -> tuple[Tensor, Tensor]:
    """One 64-bit number per (event, tpc, ix, iy), the same for both sides: exact, where a packed event id overflows."""
    keys = _pack([torch.cat((getattr(a, name), getattr(b, name))) for name in ("event", "tpc", "ix", "iy")])
    return keys[: len(a.event)], keys[len(a.event) :]


def _hit_keys(a: Hits, b: Hits) -> tuple[Tensor, Tensor]:
    """The same for (event, tpc, ix, iy, rank)."""
    keys = _pack([torch.cat((getattr(a, name), getattr(b, name))) for name in ("event", "tpc", "ix", "iy", "rank")])
    return keys[: len(a.event)], keys[len(a.event) :]


def _hits_of_pixel(hits: Hits) -> Tensor:
    """How many hits the pixel of each hit has."""
    _, number, counts = torch.unique(_pixel_keys(hits, hits)[0], return_inverse=True, return_counts=True)
    return counts[number]


def _pack(columns: list[Tensor]) -> Tensor:
    """Mixed-radix number of each row, in the order of the columns; each column is numbered densely first."""
    key = torch.zeros_like(columns[0])
    radix = 1
    for column in columns:
        values, number = torch.unique(column, return_inverse=True)
        radix *= max(1, len(values))
        if radix >= 2**63:
            raise ValueError(f"too many distinct (event, tpc, ix, iy, rank) for 64-bit keys: {radix:.3g}; use batches")
        key = key * len(values) + number
    return key


def _common(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Indices into `a` and `b` of the keys that both hold, in rising order of key; keys are unique on each side."""
    sorted_b, order = torch.sort(b)
    place = torch.searchsorted(sorted_b, a).clamp_max(max(0, len(b) - 1))
    found = (sorted_b[place] == a) if len(b) else torch.zeros_like(a, dtype=torch.bool)
    i = found.nonzero().squeeze(1)
    i = i[torch.argsort(a[i], stable=True)]
    return i, order[place[i]] if len(b) else i


def joined(parts: list[Residuals]) -> Residuals:
    """The residuals of several batches of events as one, batch after batch."""
    report: dict[str, int] = {}
    numbers, first = [], 0
    for part in parts:
        numbers.append(part.index + first)
        first += part.report["matched"] + part.report["measured_only"]
        for name, count in part.report.items():
            report[name] = report.get(name, 0) + count
    jacobians = [part.jacobian for part in parts if part.jacobian is not None]
    return Residuals(
        torch.cat([part.values for part in parts]),
        torch.cat(jacobians) if len(jacobians) == len(parts) else None,
        torch.cat([part.kind for part in parts]),
        torch.cat(numbers),
        torch.cat([part.hits for part in parts]),
        report,
    )
