r"""What a charge that drifts through planes of wires induces on one of them: built in, by Shockley and Ramo.

A plane is taken as strips as wide as its pitch, without gaps, that let electrons pass; its neighbours (the next planes,
the grid) are grounded and let electrons pass too. Between two grounded planes a gap g apart, of which the one at height
g has a strip |b| < a at potential 1,

    phi = 1/pi [atan(T tanh(pi (b + a) / 2g)) - atan(T tanh(pi (b - a) / 2g))],   T = tan(pi zeta / 2g),

zeta the height above the other plane: harmonic, 1 on the strip, 0 on all else, and zeta/g when summed over all strips.
So phi_w of a wire is that of its own two gaps, and 0 beyond them: planes shield each other. An electron that passes an
induction plane sees phi rise from 0 to 1 and fall to 0: a bipolar signal whose integral is exactly 0; on a collection
plane it ends at 1 on its own wire: unipolar, integral exactly its charge.
"""

import math

import torch
from torch import Tensor

from ..response import Response
from .detector import WireDetector

_NODES = (-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526)  # Gauss-Legendre
_SHARES = (0.17392742256872692, 0.3260725774312731, 0.3260725774312731, 0.17392742256872692)


def wire_potential(detector: WireDetector, plane: int, across: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Weighting potential of a wire, and its slope with the distance [1/cm].

    Args:
        detector: With its planes and shield.
        plane: Number of the plane.
        across: From the wire, across the wires [cm].
        distance: From the collection plane, towards the cathode [cm]; of any shape that broadcasts with `across`.

    Returns:
        phi and dphi/d distance, float64. Where a plane stands the slope is that of the side of the cathode.

    Example:
        >>> apa = WireDetector.dune_apa()
        >>> z = torch.tensor([0.0, 0.475, 0.95, 1.425], dtype=torch.float64)
        >>> [wire_potential(apa, k, torch.tensor(0.0), z)[0].round(decimals=9).tolist() for k in range(3)]
        [[0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    """
    stops = [detector.shield, *(p.distance for p in detector.planes)]
    above, own = stops[plane], stops[plane + 1]
    half = 0.5 * detector.planes[plane].pitch
    b, z = torch.broadcast_tensors(across.to(torch.float64), distance.to(torch.float64))
    phi, slope = _strip(b, above - z, above - own, half)
    near = (z >= own) & (z <= above)
    phi, slope = torch.where(near, phi, 0.0), torch.where(near, -slope, 0.0)
    if plane + 1 < len(detector.planes):
        below = stops[plane + 2]
        other = _strip(b, z - below, own - below, half)
        far = (z >= below) & (z < own)
        phi, slope = torch.where(far, other[0], phi), torch.where(far, other[1], slope)
    return phi, slope


def _strip(b: Tensor, height: Tensor, gap: float, half: float) -> tuple[Tensor, Tensor]:
    """phi and dphi/d height, at a height above the grounded plane."""
    angle = (height.clamp(0.0, gap)) * (math.pi / (2 * gap))
    sine, cosine = torch.sin(angle), torch.cos(angle)
    phi, slope = torch.zeros_like(b), torch.zeros_like(b)
    for sign in (1.0, -1.0):
        c = torch.tanh((b + sign * half) * (math.pi / (2 * gap)))
        phi = phi + sign * torch.atan2(sine * c, cosine)
        slope = slope + sign * c / (cosine * cosine + sine * sine * c * c).clamp_min(1e-30)
    return phi / math.pi, slope / (2 * gap)


def _steps(detector: WireDetector) -> int:
    """Steps from the collection plane to the shield in which the planes, where phi has its kinks, best meet a step."""

    def miss(n: int) -> float:
        at = [n * plane.distance / detector.shield for plane in detector.planes]
        return max(abs(x - round(x)) for x in at)

    return min(range(192, 289), key=lambda n: (round(miss(n), 6), n))


def wire_response(
    detector: WireDetector, plane: int, velocity: Tensor, tick: float, *, bins: int, reach: int, dtype: torch.dtype
) -> Response:
    """The response as the waveform operators read it: averages over bins of pitch / bins, tick by tick before arrival.

    It resolves all that a wire sees, since the shield ends it. Along the wire there is one bin (simulator.py).
    """
    v = velocity.detach().to(torch.float64)
    length = math.ceil(detector.shield / (float(v) * tick)) + 1
    pitch, size = detector.planes[plane].pitch, bins * (reach + 1)
    ticks = torch.arange(length + 1, dtype=torch.float64, device=v.device)
    low = torch.arange(size, dtype=torch.float64, device=v.device)
    phi, slope = (torch.zeros(size, length + 1, dtype=torch.float64, device=v.device) for _ in range(2))
    for node, share in zip(_NODES, _SHARES, strict=True):
        b = (low + 0.5 + 0.5 * node) * (pitch / bins)
        value, rise = wire_potential(detector, plane, b[:, None], (v * tick * ticks)[None])
        phi, slope = phi + share * value, slope + share * rise * (tick * ticks)
    own = (low < bins / 2).to(torch.float64)  # at the collection plane itself
    if detector.planes[plane].kind == "collection":
        phi[:, 0] = own
    depths = 1 + _steps(detector)
    dz = detector.shield / (depths - 1)
    z = torch.arange(depths, dtype=torch.float64, device=v.device) * dz
    middle = (low + 0.5) * (pitch / bins)
    created = wire_potential(detector, plane, middle[:, None], z[None])[0]

    def square(table: Tensor) -> Tensor:
        wide = table.new_zeros(size, size, table.shape[1])
        wide[:, 0] = table
        return wide

    potential = square(created).to(dtype).contiguous()
    return Response.make(square(phi), square(slope), bins, "table", dtype, potential=potential, dz=dz)
