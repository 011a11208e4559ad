"""Voxels as a liquid-argon detector gives them: tracks, which scatter, in a cube of 768 voxels a side."""

import numpy as np
import torch


def events(num_voxels: int, seed: int, batch: int = 1, D: int = 3) -> torch.Tensor:
    """Active voxels of random walks with a little thickness: about 12.4 of 27 neighbours in 3D, the centre counted.

    Args:
        num_voxels: In all.
        seed: Of the random numbers.
        batch: Number of events, with equally many voxels (the last one takes the rest).
        D: Dimensions, 1 to 6.

    Returns:
        Coordinates (num_voxels, 1 + D) int32 [batch, x, y, ...]: unique, in random order.
    """
    random = np.random.default_rng(seed)
    shares = np.full(batch, num_voxels // batch)
    shares[-1] += num_voxels - shares.sum()
    rows = [np.insert(_event(random, share, D), 0, b, axis=1) for b, share in enumerate(shares)]
    voxels = np.concatenate(rows)
    return torch.from_numpy(voxels[random.permutation(len(voxels))].astype(np.int32))


def _event(random: np.random.Generator, num_voxels: int, D: int, side: int = 768) -> np.ndarray:
    side = max(side, 4 * num_voxels if D == 1 else side)
    found = np.empty((0, D), dtype=np.int64)
    while len(found) < num_voxels:
        length = int(random.integers(100, 700))
        direction = random.normal(size=D)
        kinks = random.normal(scale=0.08, size=(length, D)).cumsum(axis=0)
        steps = direction / np.linalg.norm(direction) + kinks
        steps /= np.linalg.norm(steps, axis=1, keepdims=True)
        path = random.uniform(0, side, D) + 0.7 * steps.cumsum(axis=0)
        cloud = path[:, None] + random.normal(scale=WIDTH, size=(length, SPLATS, D))
        voxels = np.floor(cloud.reshape(-1, D)).astype(np.int64)
        voxels = voxels[((voxels >= 0) & (voxels < side)).all(axis=1)]
        found = np.concatenate([found, voxels])
        _, first = np.unique(found, axis=0, return_index=True)
        found = found[np.sort(first)]
    return found[:num_voxels]


WIDTH, SPLATS = 0.65, 9  # of the cloud around a step [voxels], points in it
