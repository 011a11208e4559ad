"""Kernel maps and convolutions from a dictionary: slow, plain, and the oracle of what is neither."""

import itertools
from typing import NamedTuple

import torch


class PlainMap(NamedTuple):
    """The lists of csrc/sparse/pairs.h in both directions, and the triples (row read, row written, k) they hold."""

    forward: tuple
    backward: tuple
    mirrored: bool
    volume: int
    num_in: int
    num_out: int
    triples: list

    def transposed(self):
        """The map of the transposed layer: the lists change places, and so do the rows of the triples."""
        swapped = [(o, i, k) for i, o, k in self.triples]
        return PlainMap(
            self.backward, self.forward, self.mirrored, self.volume, self.num_out, self.num_in, swapped
        )._replace(mirrored=False)


def box(size, dimension=3):
    """Offsets of a box kernel: the first axis is the fastest, odd sizes are centred, even ones start at 0."""
    steps = range(-(size // 2), size // 2 + 1) if size % 2 else range(size)
    return [offset[::-1] for offset in itertools.product(steps, repeat=dimension)]


def tile_list(triples, rows, schedule, index=torch.int32, device="cpu"):
    """The triples as one list, by tiles of the rows that are written."""
    tile = 64 if torch.device(device).type == "cuda" else 256
    place_of = {int(row): place for place, row in enumerate(schedule)}
    ordered = sorted((place_of[o] // tile, k, place_of[o], i) for i, o, k in triples)
    pairs, entries, tiles = [], [], [0]
    for p, (t, k, place, i) in enumerate(ordered):
        if not entries or entries[-1][1:] != (k, t):
            while len(tiles) <= t:
                tiles.append(len(entries))
            entries.append((p, k, t))
        pairs.append((i, place))
    tiles += [len(entries)] * (-(-rows // tile) + 1 - len(tiles))
    entries.append((len(pairs), -1, -1))

    def tensor(numbers, *shape):
        return torch.tensor(numbers, dtype=index, device=device).reshape(shape)

    return (
        tensor(pairs, -1, 2),
        tensor([entry[:2] for entry in entries], -1, 2),
        tensor(tiles, -1),
        tensor([int(row) for row in schedule], -1),
    )


def plain_map(triples, num_in, num_out, volume, mirrored=False, index=torch.int32, device="cpu", seed=0):
    """Both lists, over schedules that are random: an operator may not care."""
    shuffle = torch.Generator().manual_seed(seed)
    to, of = (torch.randperm(n, generator=shuffle).tolist() for n in (num_out, num_in))
    forward = tile_list(triples, num_out, to, index, device)
    if mirrored:
        backward = forward
    else:
        backward = tile_list([(o, i, k) for i, o, k in triples], num_in, of, index, device)
    return PlainMap(forward, backward, mirrored, volume, num_in, num_out, triples)


def triples_of(coordinates, targets, offsets):
    """(i, o, k) with c_i = c_o + offset_k."""
    rows = {tuple(c): i for i, c in enumerate(coordinates.tolist())}
    found = []
    for o, c in enumerate(targets.tolist()):
        for k, offset in enumerate(offsets):
            i = rows.get(tuple(a + b for a, b in zip(c, offset, strict=True)))
            if i is not None:
                found.append((i, o, k))
    return found


def voxels(number, extent, dimension=3, seed=0):
    """Distinct voxels of a box, in random order."""
    at = torch.randperm(extent**dimension, generator=torch.Generator().manual_seed(seed))[:number]
    return torch.stack([at // extent**axis % extent for axis in range(dimension)], 1)


def submanifold(number, size=3, extent=None, dimension=3, **kinds):
    """The map of a submanifold layer on random voxels; mirrored where the kernel has a centre."""
    extent = extent or max(1, round((2.2 * number) ** (1 / dimension)), int(number ** (1 / dimension)) + 1)
    coordinates, offsets = voxels(number, extent, dimension), box(size, dimension)
    triples = triples_of(coordinates, coordinates, offsets)
    return plain_map(triples, number, number, len(offsets), mirrored=size % 2 == 1, **kinds)


def strided(number, size=2, stride=2, extent=None, dimension=3, **kinds):
    """The map of a layer with a stride, from random voxels to their cells."""
    extent = extent or int((3 * number) ** (1 / dimension)) + 2
    coordinates = voxels(number, extent, dimension)
    cells = torch.unique(coordinates // stride * stride, dim=0)
    offsets = box(size, dimension)
    return plain_map(triples_of(coordinates, cells, offsets), number, len(cells), len(offsets), **kinds)


def triples_tensor(kernel_map, device="cpu"):
    return torch.tensor(kernel_map.triples, dtype=torch.int64, device=device).reshape(-1, 3)


def from_tensors(forward, backward, triples, volume, num_in, mirrored=True):
    """A map of what a Contract's sample holds."""
    return PlainMap(tuple(forward), tuple(backward), mirrored, volume, num_in, forward[3].shape[0], triples)


def index_of(kernel_map, like):
    given = kernel_map.triples
    return (given if torch.is_tensor(given) else triples_tensor(kernel_map, like.device)).unbind(1)


def slices(weight, groups, transposed):
    """Each group's matrices (K, channels read, channels written)."""
    parts = weight.chunk(groups, 2)
    return [part.transpose(1, 2) if transposed else part for part in parts]


def convolve(x, weight, kernel_map, bias=None, flip=False, transposed=False, groups=1):
    """The law of hepops.sparse.convolve in plain torch, by gathers and sums over the triples."""
    i, o, k = index_of(kernel_map, x)
    weight = weight.flip(0) if flip else weight
    parts = []
    for part, w in zip(x.chunk(groups, 1), slices(weight, groups, transposed), strict=True):
        y = x.new_zeros(kernel_map.num_out, w.shape[2])
        for offset in range(w.shape[0]):
            at = k == offset
            y = y.index_add(0, o[at], part[i[at]] @ w[offset])
        parts.append(y)
    y = torch.cat(parts, 1)
    return y if bias is None else y + bias


def weight_gradient(x, grad, kernel_map, flip=False, transposed=False, groups=1):
    i, o, k = index_of(kernel_map, x)
    gradients = []
    for part, g in zip(x.chunk(groups, 1), grad.chunk(groups, 1), strict=True):
        each = [part[i[k == n]].T @ g[o[k == n]] for n in range(kernel_map.volume)]
        gradients.append(torch.stack(each).transpose(1, 2) if transposed else torch.stack(each))
    gradient = torch.cat(gradients, 2)
    return gradient.flip(0) if flip else gradient
