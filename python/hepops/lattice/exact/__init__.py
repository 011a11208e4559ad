"""Exact answers: gauge theories in two dimensions, the free field, phi^4 on chains and strips."""

from collections.abc import Sequence

from . import free as free
from . import transfer as transfer
from .bessel import bessel_ratios as bessel_ratios
from .gauge2d import characters as characters
from .gauge2d import chi_top as chi_top
from .gauge2d import log_z as log_z
from .gauge2d import plaquette as plaquette
from .gauge2d import torus as torus
from .gauge2d import wilson_loop as wilson_loop


def scalar(shape: Sequence[int], law: tuple[float, float, float]) -> dict[str, float]:
    """What is known of phi^4 with (h, s, lam) = law: `free.known` at lam = 0, `transfer.known` on chains and strips."""
    return free.known(shape, law) if law[2] == 0 else transfer.known(shape, law)
