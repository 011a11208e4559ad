r"""Mean and covariance of pixel charges where the losses fluctuate: what the marginal fits are made of.

A segment's loss is :math:`m + \varepsilon + h\varrho` (`tracks`), its charge before the drift q(loss) by the law of
recombination at dE/dx = loss/length. Mean, variance and covariance with :math:`\varepsilon` of q are integrals over
Vavilov's law, by quadrature; range straggling :math:`\varrho` is taken to first order:

.. math:: q = \bar q + \delta + G\varepsilon, \qquad G_{ij} = \bar q_i'\,/(\rho S_j)\ \text{for } j \text{ downstream},
          \qquad Q = M q + \text{noise}

with M the share of every segment's charge on every pixel, from the simulator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..simulator import NAMES, Simulator
from ..waveforms import hit_shares
from .objective import PixelCharges
from .ranges import Kinematics
from .tracks import LEAST, Tracks
from .vavilov import SMALLEST, at_knots

# What acts on a segment's charge as a whole: the shares of pixels stay.
ALLOWED = ("birks_a", "birks_k", "box_alpha", "box_beta", "ellipsoid_ratio", "lifetime", "w_ion", "density")
_NODES = torch.arange(-50, 51, dtype=torch.float64) / 10  # normal scores of the quadrature
_WHOLE = 0.1  # less of a segment, where a particle ends, is not asked for its kappa [cm]
_REFERENCE = 2.0  # dE/dx at which shares are taken [MeV/cm]: any


@dataclass(frozen=True)
class Law:
    """Of every segment: the fluctuation at the nodes of the quadrature, and its moments."""

    fluctuation: Tensor  # (N, nodes) [MeV], of mean 0 and the spectrum's own variance
    variance: Tensor  # (N) [MeV2]
    per_range: Tensor  # (N) 1 / (density S) [cm/MeV]


@dataclass(frozen=True)
class Moments:
    """Of the charges q of segments, with their derivatives; `law` at fixed scores."""

    mean: Tensor  # (N) [e]
    loss: Tensor  # (N) mean loss [MeV]
    variance: Tensor  # (N) [e2]
    cross: Tensor  # (N) covariance with the loss [e MeV]
    to_shared: Tensor  # (K, N) d mean / d ln parameter
    to_nuisance: Tensor  # (N) d mean / d own track's nuisance
    to_range: Tensor  # (N) d mean / d residual range [e/cm]
    loss_to_nuisance: Tensor  # (N)
    loss_to_range: Tensor  # (N) [MeV/cm]


class Shares:
    """Which part of a segment's charge every measured pixel sees, event by event; made once per fit.

    Args:
        sim: float64 or float32; its values are those at which the shares are taken.
        tracks: Geometry.
        data: Pixels that measured.
    """

    def __init__(self, sim: Simulator, tracks: Tracks, data: PixelCharges) -> None:
        layout = tracks.layout
        self.reference = {name: float(getattr(sim, name).detach()) for name in NAMES}
        self.field, self.model = self.reference["efield"], sim.model
        along = layout.end - layout.start
        self.cos2 = along[:, 0] ** 2 / layout.length**2
        dE = _REFERENCE * layout.length
        one = recombined(self.reference, dE, layout.length, self.field, self.model, self.cos2)
        segments = tracks.segments()
        fixed: dict[str, Any] = layout.fixed
        segments = type(segments)(dE=dE, dEdx=torch.full_like(dE, _REFERENCE), **fixed)
        with torch.no_grad():
            charge, pixel, segment = _charges(sim, segments, data)
            deposits = sim.drift(segments)
        arrived = torch.zeros_like(dE).index_add(0, deposits.segment, deposits.electrons.double())
        self.time = -self.reference["lifetime"] * torch.log((arrived / one).clamp(1e-30, 1.0))  # of the drift [us]
        self.events = []
        for event in torch.unique(layout.event).tolist():
            ours = (layout.event == event).nonzero().squeeze(1)
            on = torch.isin(segment, ours)
            used = (data.event == event).nonzero().squeeze(1)
            M = torch.zeros(len(used), len(ours), dtype=torch.float64)
            at = (torch.searchsorted(used, pixel[on]), torch.searchsorted(ours, segment[on]))
            M.index_put_(at, charge[on] / one[segment[on]], accumulate=True)
            tracks_here = torch.unique(layout.track[ours])
            self.events.append((used, ours, tracks_here, M))

    def charge(self, values: Mapping[str, Tensor | float], loss: Tensor, length: Tensor, extra: int = 0) -> Tensor:
        """Charge that M spreads over pixels (N, ...): recombination and the change of lifetime since the reference."""
        column = lambda x: x.reshape(-1, *[1] * (loss.ndim - 1)) if torch.is_tensor(x) and x.ndim else x  # noqa: E731
        values = {name: column(torch.as_tensor(v, dtype=torch.float64)) for name, v in values.items()}
        q = recombined(values, loss, column(length), self.field, self.model, column(self.cos2))
        rate = 1 / values["lifetime"] - 1 / self.reference["lifetime"]
        return q * torch.exp(-column(self.time) * rate)


def recombined(
    values: Mapping[str, Tensor | float], loss: Tensor, length: Tensor, field: float, model: str, cos2: Tensor
) -> Tensor:
    """Electrons that escape recombination; as `hepops.lartpc.recombine`, one value of a parameter per element."""
    density = torch.as_tensor(values["density"], dtype=torch.float64)  # of a number torch would make float32
    x = loss / length / (density * field)
    if model == "birks":
        R = values["birks_a"] / (1 + values["birks_k"] * x)
    else:
        xi = values["box_beta"] * x
        if model == "ellipsoid":
            ratio = torch.as_tensor(values["ellipsoid_ratio"], dtype=torch.float64)
            xi = xi / torch.sqrt(1 - cos2 + cos2 / ratio**2)
        xi = xi.clamp(min=1e-9)
        R = torch.clamp(torch.log(values["box_alpha"] + xi) / xi, min=0)
    return R * loss / values["w_ion"]


def law_of(tracks: Tracks, nuisance: Tensor, straggling: bool = True) -> Law:
    """The fluctuations of every segment at nuisance parameters (num_tracks)."""
    at = tracks.layout
    each = nuisance.detach()[at.track]
    nodes = _NODES if straggling else _NODES[50:51]
    weight = weights(len(nodes))
    values = torch.zeros(tracks.num_segments, len(nodes), dtype=torch.float64)
    variance, per_range = torch.zeros(tracks.num_segments).double(), torch.zeros(tracks.num_segments).double()
    for table, here, down in tracks._kinds(each):
        inside, middle = tracks.inside(table, down, at.length[here])
        law = Kinematics(table.particle, middle, tracks.cut)
        xi = law.xi * inside * table.density
        per_range[here] = 1 / (table.stopping_power(middle) * table.density)
        if not straggling:
            continue
        _refuse_long_tails(table.particle.pdg, xi / law.largest, inside)
        y = at_knots(xi / law.largest, law.slope, nodes)
        y = y - (y @ weight)[:, None]
        exact = xi * law.largest * (1 - law.slope / 2)
        spread = (y**2) @ weight
        values[here] = y * (exact / spread).sqrt()[:, None] * (inside > 1e-4)[:, None]
        variance[here] = torch.where(inside > 1e-4, exact, 0.0)
    return Law(values, variance, per_range)


def _refuse_long_tails(pdg: int, kappa: Tensor, inside: Tensor) -> None:
    worst = float(torch.where(inside > _WHOLE, kappa, 1.0).min())
    if worst < SMALLEST:
        raise ValueError(
            f"tracks: kappa = xi/W is {worst:.2g} for particle {pdg}, below {SMALLEST}: single collisions decide; give "
            f"Tracks a cut [MeV] and make electrons above it segments of their own"
        )


def weights(count: int) -> Tensor:
    """Of the quadrature, a normal density on its nodes."""
    if count == 1:
        return torch.ones(1, dtype=torch.float64)
    w = torch.exp(-(_NODES**2) / 2)
    return w / w.sum()


def moments(
    shares: Shares, tracks: Tracks, law: Law, names: Sequence[str], values: Mapping[str, float], nuisance: Tensor
) -> Moments:
    """Mean, variance and exact derivatives of the charges: every segment has its own copy of each parameter."""
    N, at = tracks.num_segments, tracks.layout
    shared = [torch.full((N,), values[name], dtype=torch.float64, requires_grad=True) for name in names]
    each = nuisance.detach()[at.track].clone().requires_grad_()
    rho = torch.zeros(N, dtype=torch.float64, requires_grad=True)
    m = tracks.single(each, None, rho)
    loss = torch.maximum(m[:, None] + law.fluctuation, LEAST * m[:, None])
    q = shares.charge({**values, **dict(zip(names, shared, strict=True))}, loss, at.length)
    w = weights(loss.shape[1])
    mean = q @ w
    of_loss = torch.autograd.grad(m.sum(), [each, rho], retain_graph=True)
    slopes = torch.autograd.grad(mean.sum(), [*shared, each, rho], materialize_grads=True, allow_unused=True)
    with torch.no_grad():
        d = q - mean[:, None]
        variance, cross = (d**2) @ w, (d * law.fluctuation) @ w
        to_shared = torch.stack([s * values[n] for s, n in zip(slopes, names, strict=False)])
    return Moments(mean.detach(), m.detach(), variance, cross, to_shared, slopes[-2], slopes[-1], *of_loss)


def covariance(tracks: Tracks, law: Law, at: Moments, ours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Covariances (n, n) of charges with charges, losses with charges, losses with losses, of one event's segments."""
    track = tracks.layout.track[ours]
    U = ((track[:, None] == track[None]) & (torch.arange(len(ours))[:, None] < torch.arange(len(ours)))).double()
    U = U * law.per_range[ours]
    G, H = at.to_range[ours, None] * U, at.loss_to_range[ours, None] * U
    c, var = torch.diag(at.cross[ours]), torch.diag(law.variance[ours])
    qq = torch.diag(at.variance[ours]) + G @ c + c @ G.T + G @ var @ G.T
    A = H + torch.eye(len(ours), dtype=torch.float64)
    return qq, A @ (c + var @ G.T), A @ var @ A.T


def _charges(sim: Simulator, segments: object, data: PixelCharges) -> tuple[Tensor, Tensor, Tensor]:
    """Charge of every (measured pixel, segment)."""
    waves, inputs = sim._waveforms(sim._pieces(segments), ())  # type: ignore[arg-type]
    layout = inputs.layout
    row = torch.repeat_interleave(layout.pair_offset[1:] - layout.pair_offset[:-1])
    pair = torch.arange(len(layout.pair))
    begin, end = (torch.full((len(pair),), value, dtype=torch.float64) for value in (-1e12, 1e12))
    shares = hit_shares(inputs.nodes, inputs.velocity, pair, begin, end, inputs.response, layout, **inputs.settings)
    side = 2 * inputs.settings["reach"] + 1
    segment = inputs.segment[torch.div(layout.pair, side * side, rounding_mode="floor")]
    place, found = data.place(waves)
    keep = found[row]
    return shares[keep].double(), place[row][keep], segment[keep]
