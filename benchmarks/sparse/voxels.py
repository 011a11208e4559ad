"""Voxels as a liquid-argon detector has them, and their kernel maps in numpy, for the benchmarks of this folder."""

from typing import NamedTuple

import numpy as np
import torch


class Map(NamedTuple):
    forward: tuple[torch.Tensor, ...]
    backward: tuple[torch.Tensor, ...]
    mirrored: bool
    volume: int
    num_in: int
    num_out: int


def voxels(number: int, extent: int = 768, spread: float = 0.45, seed: int = 1) -> np.ndarray:
    """Straight tracks a few voxels wide: with the default spread a 3^3 kernel meets 12.4 voxels, its own included."""
    rng = np.random.default_rng(seed)
    found = np.zeros((0, 3), dtype=np.int64)
    while len(found) < number:
        start, way = rng.uniform(0, extent, 3), rng.normal(size=3)
        along = np.arange(0, rng.uniform(50, 400), 0.05)[:, None] * way / np.linalg.norm(way)
        track = np.floor(start + along + rng.normal(size=along.shape) * spread).astype(np.int64)
        track = track[((track >= 0) & (track < extent)).all(1)]
        found = np.unique(np.concatenate([found, track]), axis=0)
    at = morton(found)
    return found[np.argsort(at)][:number]


def morton(c: np.ndarray) -> np.ndarray:
    key = np.zeros(len(c), dtype=np.int64)
    for bit in range(20):
        for axis in range(c.shape[1]):
            key |= ((c[:, axis] >> bit) & 1) << (bit * c.shape[1] + c.shape[1] - 1 - axis)
    return key


def box(size: int) -> np.ndarray:
    steps = np.arange(size) - (size // 2 if size % 2 else 0)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)[:, ::-1]


def _list(read: np.ndarray, written: np.ndarray, k: np.ndarray, schedule: np.ndarray, tile: int) -> tuple:
    place_of = np.empty(len(schedule), dtype=np.int64)
    place_of[schedule] = np.arange(len(schedule))
    place = place_of[written]
    order = np.lexsort((place, k, place // tile))
    read, place, k = read[order], place[order], k[order]
    t = place // tile
    first = np.flatnonzero(np.r_[True, (np.diff(t) != 0) | (np.diff(k) != 0)] if len(t) else np.zeros(0, bool))
    entries = np.concatenate([np.stack([first, k[first]], 1), [[len(read), -1]]])
    tiles = np.searchsorted(t[first], np.arange(-(-len(schedule) // tile) + 1))
    arrays = np.stack([read, place], 1), entries, tiles, schedule
    return tuple(torch.from_numpy(a.astype(np.int32)) for a in arrays)


def kernel_map(c: np.ndarray, size: int = 3, tile: int = 256) -> Map:
    """The submanifold map of the voxels in the order they are given; its schedule is Morton's."""
    key = (c[:, 0] + 8) << 42 | (c[:, 1] + 8) << 21 | (c[:, 2] + 8)
    order = np.argsort(key)
    triples = []
    for n, d in enumerate(box(size)):
        wanted = key + (int(d[0]) << 42) + (int(d[1]) << 21) + int(d[2])
        at = np.minimum(np.searchsorted(key[order], wanted), len(c) - 1)
        hit = np.flatnonzero(key[order][at] == wanted)
        triples.append((order[at[hit]], hit, np.full(len(hit), n)))
    read, written, k = (np.concatenate(column) for column in zip(*triples, strict=True))
    schedule = np.argsort(morton(c), kind="stable")
    forward = _list(read, written, k, schedule, tile)
    mirrored = size % 2 == 1
    backward = forward if mirrored else _list(written, read, k, schedule, tile)
    return Map(forward, backward, mirrored, size**3, len(c), len(c))
