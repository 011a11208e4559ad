"""Sets of integer coordinates that can be searched, in an order that depends on nothing else in the data."""

from dataclasses import dataclass

import torch
from torch import Tensor

LOW = -(1 << 63)


@dataclass(frozen=True)
class Index:
    packing: Tensor
    keys: Tensor
    schedule: Tensor
    stride: tuple[int, ...]


def _integers(coordinates: Tensor) -> Tensor:
    if coordinates.dim() != 2 or not 2 <= coordinates.shape[1] <= 7:
        raise ValueError(
            f"coordinates must be (N, 1 + D) [batch, x, ...] with D from 1 to 6, got {tuple(coordinates.shape)}"
        )
    if coordinates.is_floating_point():
        exact = 2 / torch.finfo(coordinates.dtype).eps
        if bool((coordinates != coordinates.floor()).any()):
            raise ValueError("coordinates must be whole numbers")
        if bool((coordinates.abs() > exact).any()):
            raise ValueError(f"coordinates of {coordinates.dtype} are not exact above {exact:.0f}")
        return coordinates.long() if coordinates.dtype == torch.float64 else coordinates.int()
    if coordinates.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"coordinates must be int32 or int64, got {coordinates.dtype}")
    return coordinates


def _strides(stride: tuple[int, ...], dimension: int) -> tuple[int, ...]:
    if len(stride) != dimension or any(s < 1 for s in stride):
        raise ValueError(f"stride must be {dimension} positive numbers, got {stride}")
    return tuple(stride)


def _packing(low: list[int], high: list[int], stride: tuple[int, ...]) -> Tensor:
    """[D, words, batch base, batch bits, then per axis: base, bits, stride], from the extents of q."""
    numbers = [low[0], (high[0] - low[0]).bit_length()]
    total = numbers[1]
    for a, (first, last) in enumerate(zip(low[1:], high[1:], strict=True)):
        bits = ((first ^ last) & (1 << 64) - 1).bit_length()
        if bits <= 3:
            bits, base = 3, first >> 3 << 3
        else:
            middle = last >> (bits - 1) << (bits - 1)
            bits = 1 + max((last - middle).bit_length(), (middle - 1 - first).bit_length(), 2)
            base = middle - (1 << (bits - 1))
        numbers += [base, bits, stride[a]]
        total += bits
    if total > 128:
        raise ValueError(f"coordinates from {low} to {high} need {total} bits, more than 128")
    return torch.tensor([len(stride), 1 + (total > 64), *numbers])


def _encode(packing: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Keys (n, words) of [batch, q ...] and which of them are in range."""
    numbers = packing.tolist()
    dimension, words = numbers[:2]
    fields = [(0, *numbers[2:4])] + [(1 + a, *numbers[4 + 3 * a : 6 + 3 * a]) for a in range(dimension)]
    good = torch.ones(len(q), dtype=torch.bool)
    units = []
    for column, base, bits in fields:
        last = base + (1 << bits) - 1
        good &= (q[:, column] >= base) & (q[:, column] <= min(last, (1 << 63) - 1))
        units.append(q[:, column] - base)
    keys = torch.zeros(len(q), words, dtype=torch.int64)
    place = 0
    tops = []
    for _, base, bits in fields:
        middle = base + (1 << bits >> 1)
        tops.append((middle & -middle).bit_length() - 1 if middle else 63)
    axes = range(dimension, 0, -1)
    planes = [(a, min(p, fields[a][2] - 1)) for p in range(64) for a in axes if p < fields[a][2] - 1 or p == tops[a]]
    for a, p in planes + [(0, p) for p in range(fields[0][2])]:
        keys[:, words - 1 - place // 64] |= ((units[a] >> p) & 1) << (place % 64)
        place += 1
    return keys, good


def _order(keys: Tensor) -> Tensor:
    order = torch.arange(len(keys))
    for word in reversed(range(keys.shape[1])):
        order = order[torch.sort(keys[order, word] ^ LOW, stable=True).indices]
    return order


def _quotients(c: Tensor, stride: tuple[int, ...]) -> Tensor:
    return torch.cat(
        [c[:, :1].long()]
        + [torch.div(c[:, 1 + a : 2 + a].long(), s, rounding_mode="floor") for a, s in enumerate(stride)],
        1,
    )


def _on(c: Tensor, stride: tuple[int, ...]) -> Tensor:
    return (torch.remainder(c[:, 1:].long(), torch.tensor(stride)) == 0).all(1)


def index(coordinates: Tensor, stride: tuple[int, ...]) -> tuple[Index, Tensor, Tensor]:
    c = _integers(coordinates)
    stride = _strides(stride, c.shape[1] - 1)
    device, c = c.device, c.cpu()
    if not bool(_on(c, stride).all()):
        raise ValueError(f"coordinates must be multiples of the stride {stride}")
    q = _quotients(c, stride)
    low, high = (q.amin(0).tolist(), q.amax(0).tolist()) if len(q) else ([0] * q.shape[1], [0] * q.shape[1])
    packing = _packing(low, high, stride)
    keys, _ = _encode(packing, q)
    order = _order(keys)
    keys = keys[order]
    new = torch.ones(len(keys), dtype=torch.bool)
    new[1:] = (keys[1:] != keys[:-1]).any(1)
    leader = order[new]  # a stable sort leaves the first occurrence in front
    first = leader.sort().values
    number = torch.empty(len(c), dtype=torch.int64)
    number[first] = torch.arange(len(first))
    inverse = torch.empty(len(c), dtype=torch.int64)
    inverse[order] = number[leader[new.cumsum(0) - 1]]
    schedule = number[leader].int()
    return Index(packing, keys[new].to(device), schedule.to(device), stride), first.to(device), inverse.to(device)


def _sorted(c: Tensor, stride: tuple[int, ...]) -> tuple[Tensor, Index, Tensor]:
    """Unique coordinates in canonical order, their index, and where each row of c went."""
    idx, first, inverse = index(c, stride)
    place = torch.empty(len(first), dtype=torch.int64, device=c.device)
    place[idx.schedule.long()] = torch.arange(len(first), device=c.device)
    rows = torch.arange(len(first), dtype=torch.int32, device=c.device)
    return c[first][idx.schedule.long()], Index(idx.packing, idx.keys, rows, stride), place[inverse]


def coarsen(coordinates: Tensor, index: Index, factor: tuple[int, ...]) -> tuple[Tensor, Index]:
    factor = _strides(factor, len(index.stride))
    stride = tuple(s * f for s, f in zip(index.stride, factor, strict=True))
    q = _quotients(coordinates, stride)
    q[:, 1:] *= torch.tensor(stride, device=q.device)
    c, idx, _ = _sorted(q, stride)
    return c.to(coordinates.dtype), idx


def find(index: Index, queries: Tensor) -> Tensor:
    queries = _integers(queries)
    device, queries = queries.device, queries.cpu()
    keys, good = _encode(index.packing, _quotients(queries, index.stride))
    good &= _on(queries, index.stride)
    n = len(index.keys)
    unique, where = torch.unique(torch.cat([index.keys.cpu(), keys]), dim=0, return_inverse=True)
    rows = torch.full((len(unique),), -1)
    rows[where[:n]] = index.schedule.cpu().long()
    return torch.where(good, rows[where[n:]], -1).to(device)


def generate(coordinates: Tensor, offsets: Tensor, stride_out: tuple[int, ...]) -> tuple[Tensor, Index]:
    c = _integers(coordinates)
    moved = c.long()[:, None, :] + torch.nn.functional.pad(offsets, (1, 0)).to(c.device)
    limit = torch.iinfo(c.dtype)
    if moved.numel() and (int(moved.min()) < limit.min or int(moved.max()) > limit.max):
        raise ValueError(f"coordinates plus offsets leave {c.dtype}")
    out, idx, _ = _sorted(moved.reshape(-1, c.shape[1]), _strides(stride_out, c.shape[1] - 1))
    return out.to(c.dtype), idx


def union(coordinates: list[Tensor], stride: tuple[int, ...]) -> tuple[Tensor, Index, list[Tensor]]:
    c = torch.cat([_integers(x) for x in coordinates])
    out, idx, rows = _sorted(c, _strides(stride, c.shape[1] - 1))
    return out, idx, list(rows.split([len(x) for x in coordinates]))
