"""The physical parameters of a liquid-argon TPC: the six that users fit, and the others that the laws contain.

A fit works in unconstrained space, u = logit((p - low) / (high - low)), so that no step leaves the range.
"""

import math
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import torch
from pydantic import ValidationInfo, field_validator
from torch import Tensor

from ._model import Record, nearest

Number = TypeVar("Number", float, Tensor)


class Spec(NamedTuple):
    """What is known of one parameter before any data."""

    unit: str
    nominal: float
    low: float  # the range of fits, the ends of the logit
    high: float
    sigma: (
        float | None
    )  # published uncertainty of the nominal value, a Gaussian prior's width; None where there is none
    floor: float  # where the law itself ends: values outside [floor, ceiling] are refused
    ceiling: float


class Specs(dict[str, Spec]):
    """Specs by name. The parameter of one module, "lifetime@3", is known wherever that of all is."""

    def __missing__(self, name: str) -> Spec:
        base, at, _ = name.partition("@")
        if at and base in self:
            return self[base]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.partition("@")[0])


# Nominal values and ranges of the six: larnd-sim-jax, and its forerunner arXiv:2309.04639.
_SPEC: dict[str, Spec] = {
    "lifetime": Spec("us", 2200.0, 500.0, 5000.0, None, 1.0, 1e9),
    "efield": Spec("kV/cm", 0.50, 0.45, 0.55, None, 1e-3, 10.0),
    # S. Amoruso et al. (ICARUS), Nucl. Instrum. Meth. A 523 (2004) 275: A = 0.800 +- 0.003, k = 0.0486 +- 0.0006.
    "birks_a": Spec("1", 0.800, 0.78, 0.88, 0.003, 1e-3, 1.0),
    "birks_k": Spec("(kV/cm)(g/cm2)/MeV", 0.0486, 0.04, 0.07, 0.0006, 0.0, 1.0),
    "transverse_diffusion": Spec("cm2/us", 8.8e-6, 4e-6, 14e-6, None, 0.0, 1e-3),
    "longitudinal_diffusion": Spec("cm2/us", 4.0e-6, 2e-6, 9e-6, None, 0.0, 1e-3),
    # R. Acciarri et al. (ArgoNeuT), JINST 8 (2013) P08005: 0.93 +- 0.02, 0.212 +- 0.002; larnd-sim has beta = 0.207.
    "box_alpha": Spec("1", 0.93, 0.85, 1.0, 0.02, 1e-3, 2.0),
    "box_beta": Spec("(kV/cm)(g/cm2)/MeV", 0.207, 0.15, 0.27, 0.002, 1e-6, 2.0),
    # P. Abratenko et al. (ICARUS), JINST 20 (2025) P01033: R = 1.25 +- 0.02.
    "ellipsoid_ratio": Spec("1", 1.25, 1.0, 1.6, 0.02, 0.1, 10.0),
    # larnd-sim; the Particle Data Group has 1.396 at the boiling point.
    "density": Spec("g/cm3", 1.38, 1.36, 1.42, None, 0.5, 2.0),
    # larnd-sim; argon is liquid from 83.8 to 150.7 K.
    "temperature": Spec("K", 87.17, 84.0, 92.0, None, 83.8, 150.7),
    # M. Miyajima et al., Phys. Rev. A 9 (1974) 1438: 23.6 +0.5 -0.3 eV.
    "w_ion": Spec("MeV", 23.6e-6, 22.0e-6, 25.0e-6, 0.4e-6, 1e-6, 1e-4),
}

SPEC = Specs(_SPEC)


class Parameters(Record):
    """Values of the physical parameters; those that are not given keep their nominal value.

    `Parameters.SPEC` holds units, nominal values, ranges and priors, `Parameters.SIX` the names of the six that are
    usually fitted.

    Raises:
        ValueError: an unknown name, or a value that is not finite or outside what the laws allow.

    Example:
        >>> Parameters(lifetime=2500.0).lifetime
        2500.0
        >>> Parameters.from_unconstrained("efield", Parameters.to_unconstrained("efield", 0.52))
        0.52
    """

    SPEC: ClassVar[Specs] = SPEC
    SIX: ClassVar[tuple[str, ...]] = tuple(SPEC)[:6]

    lifetime: float = SPEC["lifetime"].nominal  # electron lifetime [us]
    efield: float = SPEC["efield"].nominal  # drift field [kV/cm]
    birks_a: float = SPEC["birks_a"].nominal  # Birks' normalisation [1]
    birks_k: float = SPEC["birks_k"].nominal  # Birks' quenching [(kV/cm)(g/cm2)/MeV]
    transverse_diffusion: float = SPEC["transverse_diffusion"].nominal  # [cm2/us]
    longitudinal_diffusion: float = SPEC["longitudinal_diffusion"].nominal  # [cm2/us]
    box_alpha: float = SPEC["box_alpha"].nominal  # modified box [1]
    box_beta: float = SPEC["box_beta"].nominal  # modified box [(kV/cm)(g/cm2)/MeV]
    ellipsoid_ratio: float = SPEC["ellipsoid_ratio"].nominal  # ellipsoidal box, R [1]
    density: float = SPEC["density"].nominal  # of the argon [g/cm3]
    temperature: float = SPEC["temperature"].nominal  # of the argon [K]
    w_ion: float = SPEC["w_ion"].nominal  # energy per ion pair [MeV]

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return value.item() if hasattr(value, "item") else value  # a tensor or numpy scalar of one number

    @field_validator("*")
    @classmethod
    def _in_range(cls, value: float, info: ValidationInfo) -> float:
        spec = SPEC[cast(str, info.field_name)]
        if not spec.floor <= value <= spec.ceiling:
            raise ValueError(f"must lie in [{spec.floor:g}, {spec.ceiling:g}] {spec.unit}, got {value!r}")
        return value

    @staticmethod
    def spec(name: str) -> Spec:
        """The table's line for `name`; an unknown name is a ValueError that proposes the nearest."""
        if name not in SPEC:
            raise ValueError(f"unknown parameter {name!r}, {nearest(str(name), list(SPEC))}")
        return SPEC[name]

    @classmethod
    def to_unconstrained(cls, name: str, value: Number, bounds: tuple[float, float] | None = None) -> Number:
        r"""From a physical value to the whole line, :math:`u = \ln\frac{p - low}{high - low - (p - low)}`.

        Args:
            name: A parameter.
            value: Its value, a number or a tensor of any shape [its unit].
            bounds: Ends of the range, by default those of `SPEC`.

        Returns:
            `u`, of the kind of `value` [1]. Differentiable as torch is.

        Raises:
            ValueError: an unknown name, or a value (a number, or any of a tensor on the CPU) not inside the bounds.
        """
        low, high = cls._bounds(name, bounds)
        inside = low < value < high if isinstance(value, float | int) else _all_inside(value, low, high)
        if not inside:
            raise ValueError(f"{name} must lie inside ({low:g}, {high:g}) {SPEC[name].unit} to be fitted, got {value}")
        if isinstance(value, Tensor):
            return torch.log((value - low) / (high - value))
        return math.log((value - low) / (high - value))

    @classmethod
    def from_unconstrained(cls, name: str, u: Number, bounds: tuple[float, float] | None = None) -> Number:
        r"""Back to the physical value, :math:`p = low + (high - low) / (1 + e^{-u})`; see `to_unconstrained`."""
        low, high = cls._bounds(name, bounds)
        if isinstance(u, Tensor):
            return low + (high - low) * torch.sigmoid(u)
        return low + (high - low) * _sigmoid(u)

    @classmethod
    def derivative(cls, name: str, u: Number, bounds: tuple[float, float] | None = None) -> Number:
        r""":math:`dp/du = (high - low)\, s (1 - s)`, :math:`s = 1 / (1 + e^{-u})`; see `to_unconstrained`."""
        low, high = cls._bounds(name, bounds)
        if isinstance(u, Tensor):
            return (high - low) * torch.sigmoid(u) * torch.sigmoid(-u)
        return (high - low) * _sigmoid(u) * _sigmoid(-u)

    @classmethod
    def _bounds(cls, name: str, bounds: tuple[float, float] | None) -> tuple[float, float]:
        spec = cls.spec(name)
        low, high = bounds or (spec.low, spec.high)
        if not spec.floor <= low < high <= spec.ceiling:
            raise ValueError(
                f"bounds of {name} must rise within [{spec.floor:g}, {spec.ceiling:g}], got ({low}, {high})"
            )
        return low, high


def _sigmoid(u: float) -> float:
    """Written so that neither end overflows."""
    return 1 / (1 + math.exp(-u)) if u >= 0 else math.exp(u) / (1 + math.exp(u))


def _all_inside(value: Tensor, low: float, high: float) -> bool:
    """True on a GPU, whose values are not read back to check them."""
    return value.device.type != "cpu" or bool(((value > low) & (value < high)).all())
