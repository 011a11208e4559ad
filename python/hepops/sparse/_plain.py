"""Plain forms in torch, until the operators stand (to be removed)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

TILE = 256


@dataclass(frozen=True)
class Index:
    packing: Tensor
    keys: Tensor
    schedule: Tensor
    stride: tuple


def _q(c, stride):
    s = torch.tensor([1, *stride])
    return torch.div(c.long(), s, rounding_mode="floor")


def _morton(q):
    """canonical order by sorting rows lexicographically on bit planes"""
    n, d = q.shape
    b = q[:, 0]
    u = q[:, 1:]
    if n == 0:
        return torch.zeros(0, dtype=torch.int64)
    (u < 0).any()
    bits = int(u.abs().max()).bit_length() + 1
    u = u + (1 << bits)
    b.clone()

    keys = [int(x) for x in b.tolist()]
    D = d - 1
    rows = u.tolist()
    out = []
    for k, r in zip(keys, rows, strict=False):
        m = 0
        for p in range(bits, -1, -1):
            for a in range(D):
                m = (m << 1) | ((r[a] >> p) & 1)
        out.append((k, m))
    return torch.tensor(sorted(range(n), key=lambda i: out[i]), dtype=torch.int64)


def index(coordinates, stride):
    c = coordinates.long()
    u, inv = torch.unique(c, dim=0, return_inverse=True)
    n = len(u)
    first = torch.full((n,), len(c), dtype=torch.int64).scatter_reduce(0, inv, torch.arange(len(c)), "amin")
    order = torch.argsort(first)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(n)
    first = first[order]
    inverse = rank[inv]
    sched = _morton(_q(c[first], stride)).int()
    return Index(torch.zeros(0), c[first], sched, tuple(stride)), first, inverse


def coarsen(coordinates, idx, factor):
    s = torch.tensor([1, *[a * b for a, b in zip(idx.stride, factor, strict=False)]])
    c = torch.div(coordinates.long(), s, rounding_mode="floor") * s
    return canonical(c, tuple(s[1:].tolist()), coordinates.dtype)


def canonical(c, stride, dtype):
    c = torch.unique(c, dim=0)
    c = c[_morton(_q(c, stride))]
    i, _, _ = index(c, stride)
    return c.to(dtype), i


def find(idx, queries):
    table = {tuple(r): i for i, r in enumerate(idx.keys.tolist())}
    return torch.tensor([table.get(tuple(r), -1) for r in queries.long().tolist()], dtype=torch.int64)


def generate(coordinates, offsets, stride_out):
    c = coordinates.long()
    o = torch.cat([torch.zeros(len(offsets), 1, dtype=torch.int64), offsets], 1)
    return canonical((c[:, None] + o[None]).reshape(-1, c.shape[1]), stride_out, coordinates.dtype)


def union(cs, stride):
    c, i = canonical(torch.cat([c.long() for c in cs]), stride, cs[0].dtype)
    return c, i, [find(i, x) for x in cs]


class Pairs(NamedTuple):
    pairs: Tensor
    entries: Tensor
    tiles: Tensor
    schedule: Tensor


def make(row, place, k, schedule):
    tile = place // TILE
    K = int(k.max()) + 1 if len(k) else 1
    order = torch.argsort((tile * K + k) * (len(schedule) + 1) + place)
    row, place, k, tile = row[order], place[order], k[order], tile[order]
    tk = tile * K + k
    new = torch.ones(len(tk), dtype=torch.bool)
    new[1:] = tk[1:] != tk[:-1]
    first = new.nonzero()[:, 0]
    entries = torch.stack([torch.cat([first, torch.tensor([len(tk)])]), torch.cat([k[first], torch.tensor([-1])])], 1)
    T = -(-len(schedule) // TILE)
    tiles = torch.searchsorted(tile[first].contiguous(), torch.arange(T + 1))
    return Pairs(torch.stack([row, place], 1).int(), entries.int(), tiles.int(), schedule)


def build(source, target_coordinates, target, offsets):
    rows, places, ks = [], [], []
    place_of = torch.empty(len(target.schedule), dtype=torch.int64)
    place_of[target.schedule.long()] = torch.arange(len(target.schedule))
    for k, o in enumerate(offsets):
        r = find(source, target_coordinates.long() + torch.cat([torch.zeros(1, dtype=torch.int64), o]))
        m = (r >= 0).nonzero()[:, 0]
        rows.append(r[m])
        places.append(place_of[m])
        ks.append(torch.full_like(m, k))
    return make(torch.cat(rows), torch.cat(places), torch.cat(ks), target.schedule)


def triples(p):
    counts = (p.entries[1:, 0] - p.entries[:-1, 0]).long()
    k = torch.repeat_interleave(p.entries[:-1, 1].long(), counts)
    return p.pairs[:, 0].long(), p.pairs[:, 1].long(), k


def regroup(p, source_schedule):
    row, place, k = triples(p)
    place_of = torch.empty(len(source_schedule), dtype=torch.int64)
    place_of[source_schedule.long()] = torch.arange(len(source_schedule))
    return make(p.schedule.long()[place], place_of[row], k, source_schedule)


def convolve(x, weight, kmap, bias=None, *, flip=False, transposed=False, groups=1):
    p = kmap.forward
    row, place, k = triples(p)
    if flip:
        k = kmap.volume - 1 - k
    W = weight.transpose(1, 2) if transposed else weight
    n = len(p.schedule)
    out = x.new_zeros(n, W.shape[2])
    for kk in k.unique().tolist():
        m = k == kk
        out = out.index_add(0, p.schedule.long()[place[m]], x[row[m]] @ W[kk])
    return out if bias is None else out + bias


def depthwise(x, weight, kmap, *, flip=False):
    p = kmap.forward
    row, place, k = triples(p)
    if flip:
        k = kmap.volume - 1 - k
    return x.new_zeros(len(p.schedule), x.shape[1]).index_add(0, p.schedule.long()[place], x[row] * weight[k])


def pool(x, kmap, mode):
    p = kmap.forward
    row, place, _k = triples(p)
    o = p.schedule.long()[place]
    n = len(p.schedule)
    if mode == "max":
        return x.new_zeros(n, x.shape[1]).scatter_reduce(
            0, o[:, None].expand(-1, x.shape[1]), x[row], "amax", include_self=False
        )
    out = x.new_zeros(n, x.shape[1]).index_add(0, o, x[row])
    if mode == "avg":
        out = out / torch.bincount(o, minlength=n).clamp(min=1)[:, None].to(x)
    return out


def _rowseg(order, starts):
    seg = torch.repeat_interleave(torch.arange(len(starts) - 1), starts[1:] - starts[:-1])
    out = torch.empty_like(seg)
    out[order] = seg
    return out


def segment_reduce(x, order, starts, mode):
    r = _rowseg(order, starts)
    B = len(starts) - 1
    if mode == "max":
        return x.new_zeros(B, x.shape[1]).scatter_reduce(0, r[:, None].expand_as(x), x, "amax", include_self=False)
    out = x.new_zeros(B, x.shape[1]).index_add(0, r, x)
    return out / (starts[1:] - starts[:-1]).clamp(min=1)[:, None].to(x) if mode in ("avg", "mean") else out


def segment_broadcast(g, order, starts):
    return g[_rowseg(order, starts)]


def interpolate(x, rows, fractions):
    D = fractions.shape[1]
    corners = torch.cartesian_prod(*[torch.arange(2)] * D).reshape(-1, D)
    w = torch.where(corners[None] == 1, fractions[:, None], 1 - fractions[:, None]).prod(2)
    return (x[rows.clamp(min=0)] * (w * (rows >= 0))[..., None]).sum(1)
