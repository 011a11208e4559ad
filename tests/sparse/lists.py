"""Kernel maps made the plain way, to test operators that read them."""

import itertools
from typing import NamedTuple

import numpy as np
import torch

TILE = {"cpu": 256, "cuda": 64}


class Pairs(NamedTuple):
    pairs: torch.Tensor
    entries: torch.Tensor
    tiles: torch.Tensor
    schedule: torch.Tensor


def triples(coords_in, coords_out, offsets):
    """(i, o, k) with c_i = c_o + offset_k, by a dictionary; the batch comes first in a coordinate."""
    rows = {tuple(c): i for i, c in enumerate(np.asarray(coords_in).tolist())}
    found = []
    for o, c in enumerate(np.asarray(coords_out).tolist()):
        for k, offset in enumerate(np.asarray(offsets).tolist()):
            i = rows.get((c[0], *(a + b for a, b in zip(c[1:], offset, strict=True))))
            if i is not None:
                found.append((i, o, k))
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def pairs_of(read, written, k, schedule, index=torch.int32, device="cpu"):
    """The list that writes `written` from `read`; schedule: the rows that are written, in the order of the tiles."""
    tile, n = TILE[device], len(schedule)
    place_of = np.empty(n, dtype=np.int64)
    place_of[schedule] = np.arange(n)
    place = place_of[written]
    order = np.lexsort((place, k, place // tile))
    read, place, k = read[order], place[order], k[order]
    group = np.stack([place // tile, k], 1)
    first = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]).any(1)]) if len(k) else np.zeros(0, dtype=np.int64)
    entries = np.r_[np.stack([first, k[first]], 1).reshape(-1, 2), [[len(k), -1]]]
    tiles = np.searchsorted(group[first, 0], np.arange((n + tile - 1) // tile + 1))
    tensors = (np.stack([read, place], 1), entries, tiles, np.asarray(schedule))
    return Pairs(*(torch.as_tensor(t).to(device=device, dtype=index) for t in tensors))


def lists(found, num_in, num_out, index=torch.int32, device="cpu", seed=3):
    """The forward and the backward list of triples; rows are visited in an order of their own."""
    random = np.random.default_rng(seed)
    i, o, k = found.T
    return (
        pairs_of(i, o, k, random.permutation(num_out), index, device),
        pairs_of(o, i, k, random.permutation(num_in), index, device),
    )


def box(size, dimension, stride=1):
    """Offsets of a box kernel, the first axis fastest; odd sizes are centred."""
    sizes = [size] * dimension if isinstance(size, int) else list(size)
    one = [[a - s // 2 if s % 2 else a for a in range(s)] for s in sizes]
    return np.array([c[::-1] for c in itertools.product(*one[::-1])]) * stride


def random_triples(num_in, num_out, volume, density=0.5, seed=3):
    """Any (i, o, k), an o at most once with an i and at most once with a k; some rows meet nothing."""
    random = np.random.default_rng(seed)
    if num_in == 0:
        return np.zeros((0, 3), dtype=np.int64)
    o, k = np.nonzero(random.random((num_out, volume)) < density)
    step = max(1, num_in // volume)
    i = (o * 7 + k * step + random.integers(0, step, len(k))) % num_in
    found = np.stack([i, o, k], 1)
    _, unique = np.unique(found[:, :2], axis=0, return_index=True)
    found = found[np.sort(unique)]
    return found[found[:, 1] % 11 != 10]


def random_lists(num_in, num_out, volume=8, index=torch.int32, device="cpu", **options):
    return lists(random_triples(num_in, num_out, volume, **options), num_in, num_out, index, device)


def events(n, batches=2, dimension=3, seed=5):
    """About n voxels of random walks in a few batches, no two alike, in random order: (n, 1 + D)."""
    random = np.random.default_rng(seed)
    steps = random.integers(-1, 2, (batches, 2 * n // batches + 2, dimension))
    walks = [np.c_[np.full(len(s), b), s.cumsum(0)] for b, s in enumerate(steps)]
    coords = np.unique(np.concatenate(walks), axis=0)
    return random.permutation(coords)[:n]
