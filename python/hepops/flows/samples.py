r"""A sample of collisions with known structure: radiative return to the Z, :math:`e^+ e^- \to \mu^+ \mu^- \gamma`."""

import math

import numpy as np

from .tables import Table

Z_MASS, Z_WIDTH = 91.1880, 2.4955  # [GeV]; Particle Data Group, Phys. Rev. D 110 (2024) 030001
COLUMNS = ("photon_energy", "photon_cos", "photon_dphi", "plus_pt", "plus_cos", "minus_pt", "minus_cos", "minus_dphi")
KINDS = {
    "photon_energy": "positive",
    "photon_cos": ("bounded", -1.0, 1.0),
    "photon_dphi": ("periodic", -math.pi, math.pi),
    "plus_pt": "positive",
    "plus_cos": ("bounded", -1.0, 1.0),
    "minus_pt": "positive",
    "minus_cos": ("bounded", -1.0, 1.0),
    "minus_dphi": ("periodic", -math.pi, math.pi),
}  # for `Density.fit`


def radiative_return(n: int, seed: int = 0, energy: float = 200.0, resolution: float = 1.0) -> Table:
    r"""Muon pairs with one hard photon, as a simple detector sees them.

    With x the share of the beam's energy that the photon takes, and s' = (1 - x) s the squared mass of the muons:

    .. math:: \frac{d\sigma}{dx} \propto \frac{1 + (1 - x)^2}{x} \Big[\frac{s'}{(s' - M^2)^2 + M^2 \Gamma^2}
        + \frac{0.05}{s'}\Big], \qquad 0.1 < x < 0.98

    a Z of mass M and width Γ over a continuum, both with the photon's splitting function; the photon's
    :math:`\cos\theta` follows :math:`(1 + c^2)/(1 - c^2)`, |c| < .95; the muons, massless, :math:`1 + \cos^2\theta^*`
    about the beam in their own frame, whence they are boosted. Then transverse momenta are smeared by
    :math:`\sqrt{.01^2 + (2 \cdot 10^{-4} p_T)^2}` and the photon's energy by :math:`\sqrt{.1^2/E + .01^2}`, both
    relative, angles by 20 mrad. Muons with :math:`|\cos\theta| > .99` or :math:`p_T` below 3 GeV are lost. So four
    numbers set the event, and conservation leaves eight observables on a curved surface as thick as the resolution.

    A model for tests of density estimation, not a generator of cross sections: one photon, from the beams only, no
    interference, no forward-backward asymmetry.

    Args:
        n: Events that are seen.
        seed: Of numpy's generator.
        energy: sqrt(s) [GeV].
        resolution: Factor on all that is smeared; positive.

    Returns:
        A table (n, 8): the photon's energy and cos theta; p_T and cos theta of mu+ and mu-; the angles of the photon
        and of mu- about the beam, from that of mu+, in (-pi, pi]; [GeV], [rad].

    References:
        | G. Bonneau, F. Martin, Nucl. Phys. B 27 (1971) 381: the photon's spectrum and angle

    Example:
        >>> table = radiative_return(1000, seed=1)
        >>> table.values.shape, bool(70 < np.median(table["photon_energy"]) < 85)  # (s - M^2) / 2 sqrt(s) = 79.2
        ((1000, 8), True)
    """
    if n < 1 or not energy > 0 or not resolution > 0:
        raise ValueError(f"n must be at least 1, energy and resolution positive, got {n}, {energy}, {resolution}")
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < n:
        parts.append(_seen(rng, max(2 * n, 1000), energy, resolution))
    return Table(COLUMNS, np.concatenate(parts)[:n])


def _seen(rng: np.random.Generator, n: int, energy: float, resolution: float) -> np.ndarray:
    s = energy**2
    x = _by_table(rng, n, lambda x: _spectrum(x, s), 0.1, 0.98)
    c = _by_table(rng, n, lambda c: (1 + c * c) / (1 - c * c), -0.95, 0.95)
    k = x * energy / 2
    photon = k[:, None] * _direction(c, rng.uniform(-np.pi, np.pi, n))
    # the pair: energy E - k, momentum -k; its muons back to back in its frame
    mass = np.sqrt(s * (1 - x))
    along = _by_table(rng, n, lambda c: 1 + c * c, -1.0, 1.0)
    star = _direction(along, rng.uniform(-np.pi, np.pi, n)) * mass[:, None] / 2
    beta = -photon / (energy - k)[:, None]
    plus, minus = _boost(star, beta), _boost(-star, beta)

    seen = []
    for p in (photon, plus, minus):
        pt, phi, theta = np.hypot(p[:, 0], p[:, 1]), np.arctan2(p[:, 1], p[:, 0]), np.arctan2(*_across_and_along(p))
        smear = resolution * rng.standard_normal((3, n))
        relative = np.sqrt(0.1**2 / k + 0.01**2) if p is photon else np.hypot(0.01, 2e-4 * pt)
        size = (k if p is photon else pt) * (1 + relative * smear[0])
        seen.append((size, np.cos(theta + 0.02 * smear[1]), phi + 0.02 * smear[2]))
    (k, c, f), (pt1, c1, f1), (pt2, c2, f2) = seen
    keep = (np.abs(c1) < 0.99) & (np.abs(c2) < 0.99) & (pt1 > 3) & (pt2 > 3) & (np.abs(c) < 0.99) & (k > 0)
    return np.stack([k, c, _wrapped(f - f1), pt1, c1, pt2, c2, _wrapped(f2 - f1)], 1)[keep]


def _across_and_along(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.hypot(p[:, 0], p[:, 1]), p[:, 2]


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """In (-pi, pi]."""
    return np.pi - np.remainder(np.pi - angle, 2 * np.pi)


def _spectrum(x: np.ndarray, s: float) -> np.ndarray:
    t = (1 - x) * s
    peak = t / ((t - Z_MASS**2) ** 2 + (Z_MASS * Z_WIDTH) ** 2)
    return (1 + (1 - x) ** 2) / x * (peak + 0.05 / t)


def _by_table(rng: np.random.Generator, n: int, density: object, low: float, high: float) -> np.ndarray:
    """Numbers of a density by the inverse of its integral, on 2^16 steps."""
    assert callable(density)
    edges = np.linspace(low, high, (1 << 16) + 1)
    total = np.concatenate([[0.0], np.cumsum(density((edges[1:] + edges[:-1]) / 2))])
    return np.interp(rng.uniform(0, total[-1], n), total, edges)


def _direction(cos: np.ndarray, phi: np.ndarray) -> np.ndarray:
    sin = np.sqrt(1 - cos * cos)
    return np.stack([sin * np.cos(phi), sin * np.sin(phi), cos], 1)


def _boost(p: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """A massless p from a frame that moves with beta."""
    b2 = (beta**2).sum(1)
    gamma = 1 / np.sqrt(1 - b2)
    along = (p * beta).sum(1)
    e = np.linalg.norm(p, axis=1)
    return p + beta * ((gamma - 1) * along / b2 + gamma * e)[:, None]
