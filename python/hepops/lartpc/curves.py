"""The responses at many velocities as sums of few curves: what many universes share.

r_b(v)[p] = sum_l U_b(v)[l] B_l[p]: l = 0 is the tick p = 0 alone, the others are the leading right singular vectors of
the responses of all bins b at all velocities, as many as leave no error above `TOLERANCE` of the largest current. The
built-in response is an analytic function of the velocity: U is interpolated between Chebyshev points of an interval.
A table's response is not smooth in the velocity: U is made at every one.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .response import Response, builtin_response, table_response, weighting_potential

if TYPE_CHECKING:
    from .simulator import Simulator

TOLERANCE = {torch.float32: 3e-7, torch.float64: 1e-12}  # of the largest r: some units in the last place of the sums
LANES = 16  # of U's last axis: a register of float32
EARLY = 40  # ticks of a block of D that has its own number of curves, some registers of float64
STEP = 0.02  # relative; ends of an interval of velocities lie on this grid, so that the next call finds it made


@dataclass(frozen=True)
class Curves:
    """The tables of `_universe_currents`, in the dtype of the currents; `points` where U was made."""

    U: Tensor  # (points, B, B, L)
    basis: Tensor  # (rank, stride)
    X: Tensor  # (ticks, L, columns)  the basis shifted by 0 ... ticks - 1, in terms of D
    D: Tensor  # (curves, stride)        the first alone make the early ticks, the others are 0 there
    points: Tensor  # float64 (points)       velocities [cm/us]
    smooth: bool  # between the points U is interpolated
    positive: Tensor  # float64 (2 B, 2 B)   the positive part of the whole response, at most, around a pad
    most: Tensor  # float64 (B, B)           the largest of it from there outwards
    response: Response  # of the first point: potential, bins, length, mode

    def at(self, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """U at some velocities (tables, B, B, L), and which table is whose, int64 (n)."""
        distinct, which = torch.unique(velocity, return_inverse=True)
        if not self.smooth:
            near = (distinct[:, None] - self.points).abs()
            return self.U[near.argmin(1)].contiguous(), which
        weights = lagrange(self.points, distinct).to(self.U.dtype)
        flat = self.U.flatten(1)
        result = flat.new_empty(len(weights), flat.shape[1])
        for w, row in zip(weights, result, strict=True):
            torch.mv(flat.T, w, out=row)  # one at a time: a matrix product would round each by how many there are
        return result.reshape(-1, *self.U.shape[1:]), which


def lagrange(points: Tensor, x: Tensor) -> Tensor:
    """Weights (len(x), len(points)) of the polynomial through values at Chebyshev points, barycentric."""
    n = len(points)
    k = torch.arange(n, dtype=torch.float64, device=points.device)
    w = torch.sin((k + 0.5) * math.pi / n) * torch.where(k % 2 == 0, 1.0, -1.0)
    apart = x[:, None] - points
    hit = apart == 0
    ratio = w / torch.where(hit, 1.0, apart)
    weights = ratio / ratio.sum(1, keepdim=True)
    return torch.where(hit.any(1, keepdim=True), hit.to(weights), weights)


def chebyshev(low: float, high: float, n: int) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)
    return (low + high) / 2 + (high - low) / 2 * torch.cos((k + 0.5) * math.pi / n)


_made: "OrderedDict[tuple[Any, ...], tuple[Curves, Any]]" = OrderedDict()
KEPT = 8  # of different simulators; some megabytes each


def curves(sim: "Simulator", velocity: Tensor) -> Curves:
    """The curves of a simulator for some velocities, float64 (n); kept for the next call over the same interval.

    They follow the interval asked for, not what was made before: the same call gives the same bits.
    """
    detector = sim.detector
    distinct = torch.unique(velocity)
    over = _interval(distinct) if sim.table is None and len(distinct) > 1 else tuple(distinct.tolist())
    key = (sim.dtype, sim.length, sim.reach, sim.lead, detector.pixel_pitch, detector.tick, id(sim.table), over)
    made, _ = _made.pop((*key, str(velocity.device)), (None, None))
    if made is None:
        made = _make(sim, distinct)
    _made[*key, str(velocity.device)] = made, sim.table  # the table is held, so that its id stays its own
    while len(_made) > KEPT:
        _made.popitem(last=False)
    return made


def _interval(velocity: Tensor) -> tuple[float, float]:
    """Of ascending velocities, with its ends on the grid."""
    grid = math.log1p(STEP)
    low, high = (math.log(float(v)) / grid for v in (velocity[0], velocity[-1]))
    return math.exp(grid * math.floor(low)), math.exp(grid * math.ceil(high))


def _make(sim: "Simulator", distinct: Tensor) -> Curves:
    smooth = sim.table is None and len(distinct) > 1
    if smooth:
        low, high = _interval(distinct)
        # r is analytic in v but for |v| = 0 and beyond the imaginary axis: a Bernstein ellipse of this sum of half-axes
        ratio = (high + low) / (high - low)
        rho = ratio + math.sqrt(ratio**2 - 1)
        n = 2 + math.ceil(-math.log(TOLERANCE[sim.dtype] / 8) / math.log(rho))
        distinct = chebyshev(low, high, n).to(distinct.device)
    responses = [_response(sim, v) for v in distinct]
    r = torch.stack([x.r for x in responses])  # float64
    length = responses[0].length
    size = r.shape[1]
    once = torch.ones(size, size, dtype=torch.bool, device=r.device).triu()  # a square pad: x and y change places
    if sim.table is not None:
        once = torch.ones_like(once)
    ends = sorted({0, len(r) // 2, len(r) - 1}) if smooth else list(range(len(r)))
    some = r[ends][:, once]
    basis = _basis(some[..., 1 : length + 1].flatten(0, 1), TOLERANCE[sim.dtype])
    rank = len(basis) + 1
    U = r.new_zeros(*r.shape[:3], -(-rank // LANES) * LANES)
    U[..., 0] = r[..., 0]
    U[..., 1:rank] = r[..., 1 : length + 1] @ basis.T
    wide = r.new_zeros(rank, r.shape[3])
    wide[0, 0] = 1.0
    wide[1:, 1 : length + 1] = basis
    shared = responses[0]
    shared = replace(shared, potential=shared.potential.to(sim.dtype))
    X, D = _shifted(U[[0, -1]][:, once][..., :rank], wide, length, TOLERANCE[sim.dtype] * float(r[..., 1:].abs().max()))
    positive = _positive(sim, r, responses, float(distinct.max()))
    most = positive.flip(0, 1).cummax(0).values.cummax(1).values.flip(0, 1)
    whole = torch.cat([positive.flip(0), positive])
    whole = torch.cat([whole.flip(1), whole], 1).contiguous()
    U, wide, X, D = (x.to(sim.dtype) for x in (U, wide, X, D))
    return Curves(U, wide, X, D, distinct, smooth, whole, most.contiguous(), shared)


def _shifted(U: Tensor, basis: Tensor, length: int, error: float) -> tuple[Tensor, Tensor]:
    """X (G, L, columns) and D (curves, stride): B_l[p - j] = sum_c X[j][l][c] D_c[p], as good as all responses need.

    G is the number of ticks of which the products cost least: a group of G takes (G L + stride) columns multiply-adds.
    """
    rank, stride = basis.shape
    some = U.flatten(0, 1)[:, 1:]
    best: tuple[float, Tensor, Tensor] | None = None
    for ticks in (8, 4, 1):
        if length + ticks > stride:
            continue
        shifted = basis.new_zeros(ticks, rank - 1, stride)
        for j in range(ticks):
            shifted[j, :, j:] = basis[1:, : stride - j]
        rows = (some @ shifted).flatten(0, 1)
        D = _basis(rows, error / float(rows.abs().max()))
        columns = -(-len(D) // LANES) * LANES
        cost = (ticks * rank + stride) * columns / ticks
        if best is None or cost < best[0]:
            # a sixteenth: what early ticks lack has one sign over many, and a charge is their sum
            D, D_whole = _early_first(D, error / (16 * float(rows.norm(dim=1).max())))
            X = basis.new_zeros(ticks, -(-rank // LANES) * LANES, columns)
            X[:, 1:rank, : len(D)] = shifted @ D_whole.T
            best = cost, X, D
    assert best is not None
    return best[1], best[2]


def _early_first(D: Tensor, error: float) -> tuple[Tensor, Tensor]:
    """Orthonormal curves (curves, stride) turned so that early ticks need the first of them alone.

    What is induced early comes from afar and is smooth: few curves make it. Block by block of ticks the rest is turned
    to the right singular vectors of its part there; those of a singular value below `error` are not needed.

    Returns:
        The curves, with zeros where they are not needed, and without.
    """
    whole, needed = D.clone(), torch.ones_like(D, dtype=torch.bool)
    found = 0
    for begin in range(0, D.shape[1], EARLY):
        ticks = slice(begin, begin + EARLY)
        if found < len(D):
            left, sizes, _ = torch.linalg.svd(whole[found:, ticks])
            whole[found:] = left.T @ whole[found:]
            found += int((sizes > error).sum())
        needed[found:, ticks] = False
    return whole * needed, whole


def _response(sim: "Simulator", velocity: Tensor) -> Response:
    settings: dict[str, Any] = {"length": sim.length, "dtype": torch.float64}
    tick = sim.detector.tick
    if sim.table is not None:
        return table_response(sim.table, velocity, tick, lead="table" if sim.lead else "drop", **settings)
    lead: Any = "point" if sim.lead else "drop"
    return builtin_response(velocity, sim.detector.pixel_pitch, tick, reach=sim.reach, lead=lead, **settings)


def _basis(rows: Tensor, tolerance: float) -> Tensor:
    """Orthonormal curves (rank, ticks) whose span holds all rows to `tolerance` of the largest number."""
    triangle = torch.linalg.qr(rows, mode="r").R
    _, _, curves = torch.linalg.svd(triangle, full_matrices=False)
    most = float(rows.abs().max())

    def error(rank: int) -> float:
        kept = curves[:rank]
        return float((rows - (rows @ kept.T) @ kept).abs().max())

    low, high = 0, len(curves)  # the error falls with the rank
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) <= tolerance * most else (middle + 1, high)
    return curves[: max(low, 1)]


def _positive(sim: "Simulator", r: Tensor, responses: list[Response], velocity: float) -> Tensor:
    """No more positive charge than this comes from a unit charge in a bin (B, B), whatever the clock's phase.

    On its way in a charge induces positive where the weighting potential rises: its positive variation, seen in steps
    of a tick, is at most that of the whole way. Near the pad the ticks are too coarse for that, so the steps there are
    an eighth. 1e-3 is left for what lies between them.
    """
    rises = r.clamp(min=0).sum(3).amax(0)
    if sim.table is None:
        near = min(sim.length, 40)
        fine = weighting_potential(
            velocity / 8, sim.detector.pixel_pitch, sim.detector.tick, size=r.shape[1], length=8 * near
        ).to(r)
        far = r[..., : max(sim.length + 1 - near, 1)].clamp(min=0).sum(3).amax(0)
        rises = torch.maximum(rises, far + (fine[..., :-1] - fine[..., 1:]).clamp(min=0).sum(2))
    else:
        phi = torch.stack([x.potential for x in responses])
        current = r.new_zeros(rises.shape)
        table = sim.table.current.to(r).clamp(min=0).sum(2) * sim.table.tick
        current[: table.shape[0], : table.shape[1]] = table
        start = phi[..., -1].abs().amax(0)  # what the table's own sum misses
        rises = torch.maximum(rises, current + start) + (-phi.amin(3).amin(0)).clamp(min=0)
    return rises * (1 + 1e-3) + 1e-5
