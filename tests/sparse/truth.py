"""What sparse layers should give, by dictionaries and loops: nothing here is hepops' own code."""

import itertools

import torch


def box(size, dilation):
    """Offsets of a box, the FIRST axis fastest; odd sizes centred, even ones from 0."""
    axes = [[(i - n // 2 if n % 2 else i) * d for i in range(n)] for n, d in zip(size, dilation, strict=True)]
    return [tuple(reversed(point)) for point in itertools.product(*reversed(axes))]


def cross(size, dilation):
    """The centre, then along each axis +1 ... +r, -r ... -1."""
    D, points = len(size), [(0,) * len(size)]
    for axis, n in enumerate(size):
        r = (n - 1) // 2
        for step in [*range(1, r + 1), *range(-r, 0)]:
            points.append(tuple(step * dilation[axis] if a == axis else 0 for a in range(D)))
    return points


def listed(coordinates):
    """Rows of a tensor as tuples of integers."""
    return [tuple(int(v) for v in row) for row in coordinates.tolist()]


def rows_of(coordinates):
    """The row of each coordinate, which must be unique."""
    rows = {c: i for i, c in enumerate(listed(coordinates))}
    assert len(rows) == len(coordinates), "coordinates are not unique"
    return rows


def match(ours, theirs):
    """The row of ours that each row of theirs is; both must hold the same voxels."""
    table = rows_of(ours)
    wanted = listed(theirs)
    assert set(table) == set(wanted) and len(table) == len(wanted), "the voxels differ"
    return torch.tensor([table[c] for c in wanted], dtype=torch.int64)


def order(coordinates, stride):
    """(batch, then Morton): the key that maps made by hepops are sorted by; the first axis is the most significant."""

    def key(c):
        q = [v // s + 2**70 for v, s in zip(c[1:], stride, strict=True)]
        code = 0
        for plane in range(71, -1, -1):
            for v in q:
                code = 2 * code + (v >> plane & 1)
        return c[0], code

    return sorted(coordinates, key=key)


def strided(coordinates, stride):
    """The unique floor(c / stride) stride, sorted."""
    down = {(c[0], *(v // s * s for v, s in zip(c[1:], stride, strict=True))) for c in listed(coordinates)}
    return order(down, stride)


def add(c, offset, sign=1):
    return (c[0], *(v + sign * o for v, o in zip(c[1:], offset, strict=True)))


def triples(source, target, offsets, transposed=False):
    """(i, o, k) with c_i = c_o + offset_k; transposed: c_o = c_i + offset_k."""
    rows, sign = rows_of(source), -1 if transposed else 1
    found = [
        (rows[add(c, offset, sign)], o, k)
        for o, c in enumerate(listed(target))
        for k, offset in enumerate(offsets)
        if add(c, offset, sign) in rows
    ]
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)


def convolve(x, weight, found, num_out, bias=None, groups=1):
    """Sum over (i, o, k) of x_i W_k, one group of channels after the other."""
    i, o, k = found.T
    out = x.new_zeros(num_out, weight.shape[2])
    if len(found):
        parts = x[i].chunk(groups, 1), weight[k].chunk(groups, 2)
        out = out.index_add(0, o, torch.cat([(a[:, None] @ w)[:, 0] for a, w in zip(*parts, strict=True)], 1))
    return out if bias is None else out + bias.reshape(1, -1)


def depthwise(x, weight, found, num_out):
    i, o, k = found.T
    return x.new_zeros(num_out, x.shape[1]).index_add(0, o, x[i] * weight[k])


def pool(x, found, num_out, mode):
    """Sum, mean over the active, or largest of the neighbours, where ties go to the lowest k."""
    i, o, _ = found.T
    if mode != "max":
        total = x.new_zeros(num_out, x.shape[1]).index_add(0, o, x[i])
        return total / torch.bincount(o, minlength=num_out).clamp(min=1)[:, None] if mode == "avg" else total
    rows = []
    for target in range(num_out):
        seen = sorted((kk, ii) for ii, oo, kk in found.tolist() if oo == target)
        if not seen:
            rows.append(x.new_zeros(x.shape[1]))
            continue
        values = x[[ii for _, ii in seen]]
        best = [max(range(len(seen)), key=lambda r: (values[r, c].item(), -r)) for c in range(x.shape[1])]
        rows.append(torch.stack([values[r, c] for c, r in enumerate(best)]))
    return torch.stack(rows) if rows else x.new_zeros(0, x.shape[1])


def random_voxels(n, D, *, batches=2, side=5, seed=0, low=None):
    """At most n distinct voxels in random order: batch ids 0 ... batches - 1, coordinates low ... low + side - 1."""
    generator = torch.Generator().manual_seed(seed)
    low = -(side // 2) if low is None else low
    c = torch.randint(0, side, (n, D), generator=generator) + low
    c = torch.cat([torch.randint(0, batches, (n, 1), generator=generator), c], 1)
    c = torch.unique(c, dim=0)
    return c[torch.randperm(len(c), generator=generator)].int()


def grid(extent, *, batches=2, seed=0, low=None):
    """Every voxel of a box, in random order."""
    low = [0] * len(extent) if low is None else low
    points = itertools.product(range(batches), *(range(a, a + n) for a, n in zip(low, extent, strict=True)))
    c = torch.tensor(list(points), dtype=torch.int32)
    return c[torch.randperm(len(c), generator=torch.Generator().manual_seed(seed))]
