r"""A space-charge map that needs no file.

Ions drift slowly to the cathode and stay behind as a charge. Where ionisation is uniform, the current of ions grows
linearly from the anode, K x, and Gauss' law gives the field at a distance x from it,

.. math:: \frac{\mathrm{d}E}{\mathrm{d}x} = \frac{K x}{\epsilon \mu_i E} \quad\Rightarrow\quad
          E(x) = \sqrt{E_a^2 + (\alpha E_0 x / L)^2}, \qquad \alpha = \frac{L}{E_0} \sqrt{\frac{K}{\epsilon\mu_i}}

with the field at the anode such that the voltage is kept, :math:`\int_0^L E\,dx = E_0 L`. S. Palestini, F. Resnati,
JINST 16 (2021) P01028 (arXiv:2008.10472); K. T. McDonald, Space Charge in Ionization Detectors (2009).
"""

import math

import numpy as np
import torch
from torch import Tensor

from .argon import mobility
from .detector import TPC
from .field_map import FieldMap

VACUUM = 8.8541878128e-12  # permittivity [F/m]
PERMITTIVITY = 1.505  # of liquid argon, relative; R. L. Amey, R. H. Cole, J. Chem. Phys. 40 (1964) 146


def space_charge_alpha(
    injection: float, drift_length: float, field: float = 0.5, ion_mobility: float = 1.6e-3
) -> float:
    r"""The strength of space charge, :math:`\alpha = (L/E_0) \sqrt{K/(\epsilon \mu_i)}` [1].

    Args:
        injection: Charge of the ions set free, K [C/m3/s]; some 2e-10 by cosmic rays at the surface.
        drift_length: L [cm].
        field: E_0 [kV/cm].
        ion_mobility: [cm2/V/s]; from 0.5e-3 to 2e-3 are published.

    Raises:
        ValueError: a number is not positive (the injection may be 0).

    Example:
        >>> round(space_charge_alpha(2e-10, drift_length=256.0, field=0.273), 2)
        0.91
    """
    if not injection >= 0:
        raise ValueError(f"space_charge_alpha: injection must not be negative [C/m3/s], got {injection}")
    for name, value in (("drift_length", drift_length), ("field", field), ("ion_mobility", ion_mobility)):
        if not value > 0:
            raise ValueError(f"space_charge_alpha: {name} must be positive, got {value}")
    density_of_charge = injection / (PERMITTIVITY * VACUUM * ion_mobility * 1e-4)  # [(V/m)^2 / m^2]
    return drift_length * 1e-2 / (field * 1e5) * math.sqrt(density_of_charge)


def anode_field(alpha: float | Tensor) -> Tensor:
    """E_a / E_0 of the space-charge law, float64; differentiable once in `alpha`.

    Raises:
        ValueError: alpha is not in [0, 2): at 2 the field at the anode vanishes, and nothing drifts.

    Example:
        >>> round(anode_field(0.5).item(), 4)
        0.9581
    """
    a = torch.as_tensor(alpha, dtype=torch.float64)
    if not 0 <= float(a.detach()) < 2:
        raise ValueError(f"anode_field: alpha must lie in [0, 2), got {float(a.detach())}")

    def voltage(e: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """The integral of sqrt(e^2 + a^2 s^2) over 0 ... 1, and its slope with e."""
        if float(a.detach()) < 1e-3:  # the next term is below 1e-13
            return e + a * a / (6 * e), 1 - a * a / (6 * e * e)
        slope = e / a * torch.asinh(a / e)
        return 0.5 * (torch.sqrt(e * e + a * a) + e * slope), slope

    e = torch.sqrt((1 - a.detach() ** 2 / 4).clamp(min=1e-12))
    for _ in range(60):
        value, slope = voltage(e, a.detach())
        step = (value - 1) / slope
        e = torch.where(e - step > 0, e - step, e / 2)
        if float(step.abs()) < 1e-15:
            break
    value, slope = voltage(e, a)  # one more step carries the derivative: de/da = -V_a / V_e
    return e - (value - 1) / slope.detach()


def _drift_times(depth: Tensor, alpha: Tensor, drift_length: float, field: float, temperature: float) -> Tensor:
    """Integrals of dx / v(E(x)) from the anode to rising depths, the first of them 0; Gauss-Legendre in every cell."""
    x, w = (torch.from_numpy(t) for t in np.polynomial.legendre.leggauss(8))
    width = depth[1:] - depth[:-1]
    at = depth[:-1, None] + width[:, None] * (x + 1) / 2
    E = field * torch.sqrt(anode_field(alpha) ** 2 + (alpha * at / drift_length) ** 2)
    slowness = 1000 / (mobility(E, temperature) * E)
    return torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumsum((slowness * w).sum(1) * width / 2, 0)])


def space_charge_map(
    tpc: TPC,
    alpha: float | Tensor,
    *,
    bowing: tuple[float, float] = (0.0, 0.0),
    field: float = 0.5,
    temperature: float = 87.17,
    nodes: tuple[int, int, int] = (65, 33, 33),
) -> FieldMap:
    r"""The distortion of one drift volume: the law above along the drift, a smooth bowing across it.

    Across, charge made at a depth d is drawn inwards by

    .. math:: \delta_y = -A_y\, \tfrac{1}{2}\Big(1 - \cos\frac{\pi d}{L}\Big) \sin\frac{\pi \eta}{2}

    (z likewise), with :math:`\eta = -1 \dots 1` from wall to wall: nothing at the anode and in the middle of the box,
    most at the walls by the cathode. The field has the transverse component that bends the path so, and none at the
    anode and the cathode. The bowing is a parametrisation, not a solution of Poisson's equation.

    Args:
        tpc: The drift volume that the map fills.
        alpha: Strength of the space charge, 0 to 2 (`space_charge_alpha`).
        bowing: A_y and A_z, the largest displacements across the drift [cm].
        field: Nominal drift field E_0 [kV/cm].
        temperature: Of the argon [K].
        nodes: Along x, y, z. Between nodes the map is linear: its error falls with the square of the spacing.

    Returns:
        `FieldMap`. Differentiable in `alpha`.

    Raises:
        ValueError: alpha is not in [0, 2), or fewer than two nodes along an axis.

    Example:
        >>> from hepops.lartpc import Detector
        >>> map = space_charge_map(Detector.module0().tpcs[0], alpha=0.3, bowing=(0.2, 0.2))
        >>> map.check_covers(Detector.module0().tpcs[0])
    """
    if min(nodes) < 2:
        raise ValueError(f"space_charge_map: two nodes or more are needed along each axis, got {nodes}")
    a = torch.as_tensor(alpha, dtype=torch.float64)
    L, d = tpc.drift_length, torch.linspace(0, tpc.drift_length, nodes[0], dtype=torch.float64)
    speed = mobility(field, temperature) * field / 1000
    delay = speed * _drift_times(d, a, L, field, temperature) - d
    along = field * torch.sqrt(anode_field(a) ** 2 + (a * d / L) ** 2)

    eta_y, eta_z = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in nodes[1:])
    shape_y = -bowing[0] * torch.sin(math.pi / 2 * eta_y)[None, :, None]
    shape_z = -bowing[1] * torch.sin(math.pi / 2 * eta_z)[None, None, :]
    grown = ((1 - torch.cos(math.pi * d / L)) / 2)[:, None, None]
    slope = (math.pi / (2 * L) * torch.sin(math.pi * d / L))[:, None, None]
    full = torch.zeros(nodes, dtype=torch.float64)
    shift = [tpc.direction * delay[:, None, None] + full, grown * shape_y + full, grown * shape_z + full]
    strength = along[:, None, None] * torch.sqrt(1 + (slope * shape_y) ** 2 + (slope * shape_z) ** 2)

    if tpc.direction < 0:  # the grid runs with x, the drift against it
        shift, strength = [s.flip(0) for s in shift], strength.flip(0)
    ends = (tuple(sorted((tpc.anode, tpc.cathode))), tpc.y, tpc.z)
    x, y, z = (low for low, _ in ends)
    hx, hy, hz = ((high - low) / (n - 1) for (low, high), n in zip(ends, nodes, strict=True))
    return FieldMap(torch.stack(shift, 3), strength, (x, y, z), (hx, hy, hz), field)
