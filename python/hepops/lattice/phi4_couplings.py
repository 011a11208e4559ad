"""The couplings of phi^4: their checks, the one form that is computed, and the conventions' conversions."""

import math
from collections.abc import Sequence
from math import log as log
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from .coupling import real_number

if TYPE_CHECKING:
    from .phi4 import Phi4

# L and lambda at m2 = -4 in convention A: arXiv:1904.12072, table I; the tutorial: arXiv:2101.08176
STANDARD = {
    "E1": (6, 6.975),
    "E2": (8, 6.008),
    "E3": (10, 5.550),
    "E4": (12, 5.276),
    "E5": (14, 5.113),
    "tutorial": (8, 8.0),
}
WANTED = {"A": ("m2", "lam"), "B": ("m2", "lam", "kappa"), "C": ("lam", "kappa")}


class Conversion(NamedTuple):
    """A theory in another convention: field' = scale * field, S' = S, ln Z' = ln Z + log_z."""

    theory: "Phi4"
    scale: float
    log_z: float


def plain(coupling: Any) -> float:
    """A coupling as a number."""
    return float(coupling.detach()) if isinstance(coupling, Tensor) else float(coupling)


def law(dims: int, m2: Any, lam: Any, convention: str, kappa: Any) -> tuple[Any, Any, Any]:
    """(h, s, lambda) of S = sum_x [h phi sum_mu phi(x+mu) + s phi^2 + lambda phi^4]."""
    if convention == "A":
        return -2.0, m2 + 2 * dims, lam
    if convention == "B":
        return -kappa, m2 / 2 + kappa * dims, lam
    return -2 * kappa, 1 - 2 * lam, lam


def lowest(shape: Sequence[int], hop: float, square: float) -> float:
    """The least s + h sum_mu cos p_mu over the momenta of a lattice: what damps its softest mode."""
    return square + sum(min(hop * math.cos(2 * math.pi * k / extent) for k in range(extent)) for extent in shape)


def check(shape: Sequence[int], m2: Any, lam: Any, convention: str, kappa: Any) -> None:
    """Refuse couplings that are missing, not wanted or not finite, or whose action has no lower bound."""
    if convention not in WANTED:
        raise ValueError(f'Phi4: convention must be "A", "B" or "C", got {convention!r}')
    values = {"m2": m2, "lam": lam, "kappa": kappa}
    for name, value in values.items():
        if name not in WANTED[convention]:
            if value is not None:
                raise ValueError(f"Phi4: convention {convention} takes no {name}, got {value!r}")
            continue
        if value is None:
            raise ValueError(f"Phi4: convention {convention} needs {name}, got None")
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"Phi4: {name} must hold one number, got shape {tuple(value.shape)}")
        real_number("Phi4", name, value.detach() if isinstance(value, Tensor) else value)
    if plain(lam) < 0:
        raise ValueError(f"Phi4: lam must not be negative (the action would have no lower bound), got {lam!r}")
    hop, square, quartic = (plain(c) for c in law(len(shape), m2, lam, convention, kappa))
    if quartic == 0 and lowest(shape, hop, square) <= 0:
        name = "kappa" if convention == "C" else "m2"
        hint = "kappa too large" if convention == "C" else "m2 too small"
        raise ValueError(f"Phi4: {name}: the action has no lower bound at lam = 0 ({hint}), got {values[name]!r}")


def converted(
    dims: int, terms: tuple[float, float, float], convention: str
) -> tuple[tuple[float | None, float, float | None], float]:
    r"""(m2, lam, kappa) in another convention, and the scale of the field.

    With phi' = c phi: h' = h / c^2, s' = s / c^2, lambda' = lambda / c^4. A wants h' = -2, B h' = -1 (kappa = 1),
    C s' + 2 lambda' = 1.
    """
    hop, square, quartic = terms
    if convention not in WANTED:
        raise ValueError(f'Phi4.to_convention: convention must be "A", "B" or "C", got {convention!r}')
    if convention == "C":
        # 2 lambda u^2 + s u = 1 with u = 1 / c^2, in the form that holds at lambda = 0 too
        root = math.sqrt(square * square + 8 * quartic)
        u = 2 / (square + root) if square >= 0 else (root - square) / (4 * quartic)
        return (None, quartic * u * u, -hop * u / 2), 1 / math.sqrt(u)
    if hop >= 0:
        raise ValueError(f"Phi4.to_convention: convention {convention} needs kappa > 0, got hopping {hop}")
    c2 = -hop / 2 if convention == "A" else -hop
    s = square / c2
    if convention == "A":
        return (s - 2 * dims, quartic / c2**2, None), math.sqrt(c2)
    return (2 * (s - dims), quartic / c2**2, 1.0), math.sqrt(c2)
