"""Segments cut at the borders of the drift volumes and divided into the pieces that the simulation sums over."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .detector import Detector
from .segments import Segments, box


@dataclass(frozen=True)
class Pieces:
    """Parts of segments, each within one drift volume, in the frame of its pixel plane: u along z, v along y, depth."""

    segment: Tensor  # int64 (num_pieces)
    event: Tensor  # int64 (num_pieces)
    tpc: Tensor  # int64 (num_pieces)
    start: Tensor  # float64 (num_pieces, 3)   u, v from the plane's low corner, distance to the anode [cm]
    end: Tensor  # float64 (num_pieces, 3)
    dE: Tensor  # float64 (num_pieces)         [MeV]
    dEdx: Tensor  # float64 (num_pieces)       [MeV/cm]
    t0: Tensor  # float64 (num_pieces)         [us]
    segments_outside: int  # segments of which no part lies in a drift volume
    energy_outside: float  # of these and of the parts cut off [MeV]

    def __len__(self) -> int:
        return self.segment.shape[0]

    def select(self, mask: Tensor) -> "Pieces":
        fields = ("segment", "event", "tpc", "start", "end", "dE", "dEdx", "t0")
        return replace(self, **{name: getattr(self, name)[mask] for name in fields})


def _boxes(detector: Detector, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Low and high corners x y z of the drift volumes; where two overlap, the earlier one has the space.

    The later one is cut along the axis of which it loses least; less than a micrometre is rounding, and left.
    """
    boxes: list[tuple[list[float], list[float]]] = []
    for tpc in detector.tpcs:
        low = [min(tpc.anode, tpc.cathode), tpc.y[0], tpc.z[0]]
        high = [max(tpc.anode, tpc.cathode), tpc.y[1], tpc.z[1]]
        for before_low, before_high in boxes:
            overlap = [min(high[k], before_high[k]) - max(low[k], before_low[k]) for k in range(3)]
            if min(overlap) < 1e-4:
                continue
            share = [overlap[k] / (high[k] - low[k]) for k in range(3)]
            k = share.index(min(share))
            if before_low[k] <= low[k] and before_high[k] < high[k]:
                low[k] = before_high[k]
            elif before_low[k] > low[k] and before_high[k] >= high[k]:
                high[k] = before_low[k]
            else:
                raise ValueError(
                    f"Detector: one drift volume lies within another along {'xyz'[k]}: whose is the charge?"
                )
        boxes.append((low, high))
    return [
        (torch.tensor(a, dtype=torch.float64, device=device), torch.tensor(b, dtype=torch.float64, device=device))
        for a, b in boxes
    ]


def cut(segments: Segments, detector: Detector) -> Pieces:
    """Cut segments at the borders of the detector's drift volumes; differentiable in positions, dE, dE/dx and t0.

    A segment's energy is shared in proportion to length. What lies in no volume is counted, not lost in silence.
    Pieces are sorted by (event, tpc, segment). Where the drift volumes of a detector overlap (ND-LAr's neighbours, by
    0.8 cm), the earlier one has the charge.
    """
    start, end = segments.start, segments.end
    along = end - start
    # Where an extent is zero the slabs' entry and exit do not exist: any number will do, the test below decides.
    flat = along == 0
    safe = torch.where(flat, torch.ones_like(along), along)
    point = flat.all(1)
    parts, inside = [], torch.zeros(len(segments), dtype=torch.float64, device=start.device)
    for number, (tpc, (low, high)) in enumerate(zip(detector.tpcs, _boxes(detector, start.device), strict=True)):
        a, b = (low - start) / safe, (high - start) / safe
        enter = torch.where(flat, torch.zeros_like(a), torch.minimum(a, b)).amax(1).clamp(min=0.0)
        leave = torch.where(flat, torch.ones_like(a), torch.maximum(a, b)).amin(1).clamp(max=1.0)
        # Half-open along y and z; a segment in an anode or cathode plane belongs to the first volume that has it.
        within = (~flat | ((start >= low) & (start < high))).all(1)
        in_plane = flat[:, 0] & (start[:, 0] == high[0]) & (inside == 0)
        within = within | (in_plane & (~flat | ((start >= low) & (start < high)))[:, 1:].all(1))
        index = torch.nonzero(within & ((leave > enter) | (point & (leave >= enter)))).squeeze(1)
        if len(index) == 0:
            continue
        enter, leave = enter[index, None], leave[index, None]
        share = torch.where(point[index], torch.ones_like(enter[:, 0]), (leave - enter)[:, 0])
        inside = inside.index_add(0, index, share.detach())
        origin = torch.tensor([tpc.anode, tpc.y[0], tpc.z[0]], dtype=torch.float64, device=start.device)
        sign = torch.tensor(
            [1.0 if tpc.cathode > tpc.anode else -1.0, 1.0, 1.0], dtype=torch.float64, device=start.device
        )

        def local(s: Tensor, index: Tensor = index, origin: Tensor = origin, sign: Tensor = sign) -> Tensor:
            return ((start[index] + s * along[index] - origin) * sign).flip(1)  # (x, y, z) -> (u, v, depth)

        parts.append((index, torch.full_like(index, number), local(enter), local(leave), segments.dE[index] * share))
    lost = (1 - inside).clamp(min=0)
    energy_outside = float((segments.dE.detach() * torch.where(lost > 1e-9, lost, torch.zeros_like(lost))).sum())
    if not parts:
        none = torch.zeros(0, dtype=torch.int64, device=start.device)
        empty = start[:0]
        return Pieces(
            none, none, none, empty, empty, empty[:, 0], empty[:, 0], empty[:, 0], len(segments), energy_outside
        )
    index, tpc_of, first, last, dE = (torch.cat(x) for x in zip(*parts, strict=True))
    order = torch.argsort(index, stable=True)
    order = order[torch.argsort(tpc_of[order], stable=True)]
    order = order[torch.argsort(segments.event[index[order]], stable=True)]
    index = index[order]
    return Pieces(
        index,
        segments.event[index],
        tpc_of[order],
        first[order],
        last[order],
        dE[order],
        segments.dEdx[index],
        segments.t0[index],
        int((inside == 0).sum()),
        energy_outside,
    )


def count_nodes(pieces: Pieces, step: float) -> Tensor:
    """How many nodes `divide` makes of each piece, int64 (num_pieces)."""
    length = (pieces.end - pieces.start).detach().norm(dim=1)
    return torch.ceil(length / step * (1 - 1e-6)).clamp(min=1).long()


def divide(pieces: Pieces, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Divide pieces into equal nodes no longer than `step` [cm].

    A node keeps its extent along each axis; what it gets wrong is that its charge fills the box around it instead of
    the box's diagonal, an error of second order in `step` (docs/lartpc.md has its size).

    Returns:
        The piece of each node, int64 (N); how many nodes share it, float64 (N); where in it the node's middle lies,
        float64 (N) between 0 and 1.
    """
    count = count_nodes(pieces, step)
    piece = torch.repeat_interleave(count)
    begin = torch.cumsum(count, 0) - count
    number = torch.arange(len(piece), device=piece.device) - begin[piece]
    n = count[piece].to(torch.float64)
    return piece, n, (number + 0.5) / n


def warning_outside(segments: Segments, detector: Detector, pieces: Pieces) -> str | None:
    """What to say where more than a tenth of the energy lies outside every drift volume; else None."""
    total = float(segments.dE.detach().sum())
    if not (total > 0 and pieces.energy_outside > 0.1 * total):
        return None
    ends = [(t.anode, t.cathode, *t.y, *t.z) for t in detector.tpcs]
    low = [min(min(e[2 * k], e[2 * k + 1]) for e in ends) for k in range(3)]
    high = [max(max(e[2 * k], e[2 * k + 1]) for e in ends) for k in range(3)]
    return (
        f"hepops: {pieces.energy_outside / total:.0%} of the energy lies outside every drift volume of "
        f"{detector.name}: deposits at {segments.extent()}, volumes at {box(list(zip(low, high, strict=True)))}. "
        "Another frame (read_segments(..., offset=), --offset), detector or unit?"
    )
