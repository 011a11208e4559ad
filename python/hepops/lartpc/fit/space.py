r"""The space of a fit: named physical parameters, their ranges, the logit u = ln((p - low)/(high - p)), and priors.

A fit moves u, so that no step leaves the range; every number that it reports is physical.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hepops.lartpc.parameters import Parameters

Bounds = Mapping[str, tuple[float, float]]
Priors = Mapping[str, tuple[float, float]]

SIX = Parameters.SIX
TIME_OFFSET = "time_offset"  # [us], added to every simulated time: what a clock's phase does to a measured one

# The chip's own, which a likelihood of measured hits can fit: unit, present value by default, range, ends of the law.
CHIP: dict[str, tuple[str, float, float, float, float, float]] = {
    "threshold": ("e", 7000.0, 1000.0, 20000.0, 1.0, math.inf),
    "gain": ("mV/e", 4e-3, 2e-3, 8e-3, 1e-6, math.inf),
    "pedestal": ("mV", 580.0, 400.0, 760.0, -math.inf, math.inf),
    "reset_noise": ("e", 900.0, 100.0, 3000.0, 0.0, math.inf),
    "uncorrelated_noise": ("e", 500.0, 50.0, 3000.0, 0.0, math.inf),
    "discriminator_noise": ("e", 650.0, 50.0, 3000.0, 0.0, math.inf),
}

# Only the ratio (or product) enters the hits, so that data cannot tell the two apart.
DEGENERATE = (
    ("w_ion", "birks_a", "n_e = A_b dE / W_ion ... holds only their ratio"),
    ("density", "birks_k", "Birks' law holds only k_b / rho"),
    ("density", "box_beta", "the box law holds only beta / rho"),
    ("gain", "birks_a", "an ADC knows only the product of gain and charge, but for the threshold"),
    ("gain", "w_ion", "an ADC knows only the ratio of gain and W_ion, but for the threshold"),
)

# Where no u is infinite, though a start lies on the end of its range.
EDGE = 1e-3
FARTHEST = math.log((1 - EDGE) / EDGE)


@dataclass(frozen=True)
class Space:
    """K free parameters; every tensor is float64 (K) on the CPU."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: Tensor
    high: Tensor
    prior_mean: Tensor  # the nominal value where there is no prior
    prior_weight: Tensor  # 1 / sigma^2, zero where there is no prior

    def __len__(self) -> int:
        return len(self.names)

    def unconstrained(self, p: Tensor) -> Tensor:
        """u of physical values, kept a thousandth of the range away from its ends."""
        x = ((p - self.low) / (self.high - self.low)).clamp(EDGE, 1 - EDGE)
        return torch.logit(x)

    def physical(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Physical values and dp/du."""
        x = torch.sigmoid(u)
        return self.low + (self.high - self.low) * x, (self.high - self.low) * x * (1 - x)

    def inside(self, u: Tensor) -> Tensor:
        """u, no further out than the thousandth: beyond, dp/du is so small that a parameter would never come back."""
        return u.clamp(-FARTHEST, FARTHEST)

    def relative(self, change: Tensor, p: Tensor) -> float:
        """The largest change of a parameter, relative to its value, or to a tenth of its range where that is larger."""
        size = torch.maximum(p.abs(), 0.1 * (self.high - self.low))
        return float((change.abs() / size).max())

    def at_limit(self, p: Tensor) -> tuple[str, ...]:
        """Names of the parameters that ended a thousandth of their range, or less, from its ends."""
        x = (p - self.low) / (self.high - self.low)
        return tuple(n for n, v in zip(self.names, x.tolist(), strict=True) if not 1.01 * EDGE < v < 1 - 1.01 * EDGE)

    def draw(self, count: int, seed: int) -> Tensor:
        """(count, K) starts in a Latin hypercube: each parameter visits each of `count` slices of its range once."""
        generator = torch.Generator().manual_seed(seed)
        slices = torch.stack([torch.randperm(count, generator=generator) for _ in self.names], 1)
        x = (slices + torch.rand(slices.shape, generator=generator, dtype=torch.float64)) / max(1, count)
        return self.low + (self.high - self.low) * x.clamp(EDGE, 1 - EDGE)


def space(
    parameters: Iterable[str],
    fixed: Iterable[str] = (),
    priors: Priors | Literal["published"] | None = None,
    bounds: Bounds | None = None,
) -> Space:
    """The free parameters of a fit, checked: names, ranges, and pairs that no data can tell apart.

    Args:
        parameters: Names, of `Parameters.SPEC`, "time_offset", or of the chip (`CHIP`).
        fixed: Those of them that stay where they are.
        priors: Mean and sigma of Gaussian priors, by name; "published" takes those of `Parameters.SPEC`.
        bounds: Ranges, by name, in place of the published ones.

    Raises:
        ValueError: an unknown, repeated or missing name, an empty range, a sigma that is not positive, or a
            degenerate pair of which neither has a prior.

    Example:
        >>> space(["lifetime", "efield"], fixed=["efield"]).names
        ('lifetime',)
    """
    names, held = tuple(parameters), tuple(fixed)
    known = (*Parameters.SPEC, TIME_OFFSET, *CHIP)
    for what, given in (("parameters", names), ("fixed", held), ("bounds", tuple(bounds or ()))):
        for name in given:
            if name.partition("@")[0] not in known:  # "lifetime@3": of module 3 alone
                raise ValueError(f"{what}: {name!r} is not one of {', '.join(known)}")
        if len(set(given)) != len(given):
            raise ValueError(f"{what} names one twice: {', '.join(given)}")
    free = tuple(name for name in names if name not in held)
    if not free:
        raise ValueError(f"parameters: nothing is left to fit of {list(names)} with fixed={list(held)}")
    wanted = _priors(free, priors)
    _refuse_degenerate(free, wanted)
    spec = [_spec(name) for name in free]
    ranges = [(bounds or {}).get(name, (s[2], s[3])) for name, s in zip(free, spec, strict=True)]
    for name, (low, high), s in zip(free, ranges, spec, strict=True):
        if not s[4] <= low < high <= s[5]:
            raise ValueError(f"bounds of {name} must rise within [{s[4]:g}, {s[5]:g}] {s[0]}, got ({low}, {high})")
    ends = [_tensor(column) for column in zip(*ranges, strict=True)]
    mean = _tensor([wanted[n][0] if n in wanted else s[1] for n, s in zip(free, spec, strict=True)])
    weight = _tensor([wanted[n][1] ** -2 if n in wanted else 0.0 for n in free])
    return Space(free, tuple(s[0] for s in spec), ends[0], ends[1], mean, weight)


def _spec(name: str) -> tuple[str, float, float, float, float, float]:
    """Unit, nominal value, range, and where the law itself ends."""
    if name == TIME_OFFSET:
        return "us", 0.0, -5.0, 5.0, -math.inf, math.inf
    if name in CHIP:
        return CHIP[name]
    s = Parameters.SPEC[name]
    return s.unit, s.nominal, s.low, s.high, s.floor, s.ceiling


def _priors(free: Sequence[str], priors: Priors | Literal["published"] | None) -> dict[str, tuple[float, float]]:
    if priors is None:
        return {}
    if isinstance(priors, str):
        if priors != "published":
            raise ValueError(f'priors must be a mapping or "published", got {priors!r}')
        published = {n: (Parameters.SPEC[n].nominal, Parameters.SPEC[n].sigma) for n in free if n in Parameters.SPEC}
        return {name: (mean, sigma) for name, (mean, sigma) in published.items() if sigma is not None}
    for name, (mean, sigma) in priors.items():
        if name not in free:
            raise ValueError(f"priors: {name!r} is not a free parameter of this fit ({', '.join(free)})")
        if not (math.isfinite(mean) and 0 < sigma < math.inf):
            raise ValueError(f"priors: {name} needs a finite mean and a positive sigma, got ({mean}, {sigma})")
    return dict(priors)


def _refuse_degenerate(free: Sequence[str], priors: Mapping[str, object]) -> None:
    for a, b, reason in DEGENERATE:
        if a in free and b in free and a not in priors and b not in priors:
            raise ValueError(f"parameters: {a} and {b} are degenerate ({reason}); fix one of them or give it a prior")


def _tensor(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)
