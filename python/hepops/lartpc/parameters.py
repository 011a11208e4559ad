"""The physical parameters of a liquid-argon TPC: the six that users fit, and the others that the laws contain."""

import difflib
import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ._model import Record


class Spec(NamedTuple):
    """What is known of one parameter before any data."""

    unit: str
    nominal: float
    low: float  # the published range of fits, the ends of the logit
    high: float
    sigma: float | None  # width of a Gaussian prior at the nominal value, where one is published
    floor: float  # where the law itself ends: values outside are refused
    ceiling: float


# Nominal values and ranges of the six: larnd-sim-jax, and its forerunner arXiv:2309.04639.
SPEC: dict[str, Spec] = {
    "lifetime": Spec("us", 2200.0, 500.0, 5000.0, None, 1.0, 1e9),
    "efield": Spec("kV/cm", 0.50, 0.45, 0.55, None, 1e-3, 10.0),
    # S. Amoruso et al. (ICARUS), Nucl. Instrum. Meth. A 523 (2004) 275: A = 0.800 +- 0.003, k = 0.0486 +- 0.0006.
    "birks_a": Spec("1", 0.800, 0.78, 0.88, 0.003, 1e-3, 1.0),
    "birks_k": Spec("(kV/cm)(g/cm2)/MeV", 0.0486, 0.04, 0.07, 0.0006, 0.0, 1.0),
    "transverse_diffusion": Spec("cm2/us", 8.8e-6, 4e-6, 14e-6, None, 0.0, 1e-3),
    "longitudinal_diffusion": Spec("cm2/us", 4.0e-6, 2e-6, 9e-6, None, 0.0, 1e-3),
    # R. Acciarri et al. (ArgoNeuT), JINST 8 (2013) P08005: alpha = 0.93 +- 0.02, beta = 0.212 +- 0.002; larnd-sim has 0.207.
    "box_alpha": Spec("1", 0.93, 0.85, 1.0, 0.02, 1e-3, 2.0),
    "box_beta": Spec("(kV/cm)(g/cm2)/MeV", 0.207, 0.15, 0.27, 0.002, 1e-6, 2.0),
    # P. Abratenko et al. (ICARUS), JINST 20 (2025) P01033: the ellipsoidal modified box, R = 1.25 +- 0.02.
    "ellipsoid_ratio": Spec("1", 1.25, 1.0, 1.6, 0.02, 0.1, 10.0),
    # larnd-sim; at 87.3 K and 1 atm the density is 1.396 (Particle Data Group).
    "density": Spec("g/cm3", 1.38, 1.36, 1.42, 0.01, 0.5, 2.0),
    # Boiling point 87.3 K; liquid from 83.8 to 150.7 K.
    "temperature": Spec("K", 87.17, 84.0, 92.0, 0.5, 83.8, 150.7),
    # M. Miyajima et al., Phys. Rev. A 9 (1974) 1438: 23.6 +0.5 -0.3 eV per ion pair.
    "w_ion": Spec("MeV", 23.6e-6, 22.0e-6, 25.0e-6, 0.4e-6, 1e-6, 1e-4),
}


class Parameters(Record):
    """Values of the physical parameters; those not given keep their nominal value."""

    SPEC: ClassVar[dict[str, Spec]] = SPEC
    SIX: ClassVar[tuple[str, ...]] = tuple(SPEC)[:6]

    lifetime: float = SPEC["lifetime"].nominal  # electron lifetime [us]
    efield: float = SPEC["efield"].nominal  # drift field [kV/cm]
    birks_a: float = SPEC["birks_a"].nominal  # Birks' normalisation [1]
    birks_k: float = SPEC["birks_k"].nominal  # Birks' quenching [(kV/cm)(g/cm2)/MeV]
    transverse_diffusion: float = SPEC["transverse_diffusion"].nominal  # [cm2/us]
    longitudinal_diffusion: float = SPEC["longitudinal_diffusion"].nominal  # [cm2/us]
    box_alpha: float = SPEC["box_alpha"].nominal  # modified box, alpha [1]
    box_beta: float = SPEC["box_beta"].nominal  # modified box, beta [(kV/cm)(g/cm2)/MeV]
    ellipsoid_ratio: float = SPEC["ellipsoid_ratio"].nominal  # ellipsoidal box, R [1]
    density: float = SPEC["density"].nominal  # argon [g/cm3]
    temperature: float = SPEC["temperature"].nominal  # argon [K]
    w_ion: float = SPEC["w_ion"].nominal  # energy per ion pair [MeV]
