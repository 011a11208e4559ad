"""Sparse convolutions are the dense ones of torch, looked at where there are voxels: 1D to 4D (and 5D, 6D)."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from hepops.sparse import CoordinateManager, Kernel, SparseTensor
from hepops.sparse import functional as F
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from . import truth

CONV = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
CONV_TRANSPOSE = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


def close(ours, theirs):
    assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


# Dense convolutions of any dimension: beyond 3 by a sum over the first axis.


def dense_convolution(x, weight, stride, dilation, groups):
    """torch's, without padding: x (B, C, X, ...), weight (out, in, k...)."""
    D = len(stride)
    if D <= 3:
        return CONV[D](x, weight, None, stride, 0, dilation, groups)
    s, d = stride[0], dilation[0]
    n = (x.shape[2] - (weight.shape[2] - 1) * d - 1) // s + 1
    planes = [
        sum(
            dense_convolution(x[:, :, t * s + i * d], weight[:, :, i], stride[1:], dilation[1:], groups)
            for i in range(weight.shape[2])
        )
        for t in range(n)
    ]
    return torch.stack(planes, 2)


def dense_transposed(x, weight, stride, dilation, groups):
    """torch's, without padding: weight (in, out, k...)."""
    D = len(stride)
    if D <= 3:
        return CONV_TRANSPOSE[D](x, weight, None, stride, 0, 0, groups, dilation)
    s, d = stride[0], dilation[0]
    planes = [0.0] * ((x.shape[2] - 1) * s + (weight.shape[2] - 1) * d + 1)
    for t, i in itertools.product(range(x.shape[2]), range(weight.shape[2])):
        part = dense_transposed(x[:, :, t], weight[:, :, i], stride[1:], dilation[1:], groups)
        planes[t * s + i * d] = planes[t * s + i * d] + part
    zero = torch.zeros_like(part)
    return torch.stack([p if torch.is_tensor(p) else zero for p in planes], 2)


def box_weight(weight, size):
    """(K, a, b) with the first axis fastest -> (b, a, k0, k1, ...)."""
    D, (_, a, b) = len(size), weight.shape
    w = weight.reshape(*reversed(size), a, b)
    return w.permute(D + 1, D, *reversed(range(D)))


def dilated_reach(size, dilation):
    """How far the kernel looks down and up, per axis."""
    down = [(n // 2 if n % 2 else 0) * d for n, d in zip(size, dilation, strict=True)]
    return down, [(n - 1) * d - low for n, d, low in zip(size, dilation, down, strict=True)]


def window(coordinates, unit, margin):
    """A dense box around all voxels, its corner a multiple of `unit`."""
    c = coordinates[:, 1:]
    lo = [(int(v) // u - m) * u for v, u, m in zip(c.amin(0), unit, margin, strict=True)]
    hi = [int(v) + m * u for v, u, m in zip(c.amax(0), unit, margin, strict=True)]
    return lo, [b - a + 1 for a, b in zip(lo, hi, strict=True)]


def to_grid(features, coordinates, lo, step, extent, batches):
    place = (coordinates[:, 1:].long() - torch.tensor(lo)) // torch.tensor(step)
    grid = features.new_zeros(batches, *extent, features.shape[1])
    return grid.index_put((coordinates[:, 0].long(), *place.T), features).movedim(-1, 1)


def from_grid(grid, coordinates, lo, step):
    place = (coordinates[:, 1:].long() - torch.tensor(lo)) // torch.tensor(step)
    return grid.movedim(1, -1)[(coordinates[:, 0].long(), *place.T)]


def by_dense_convolution(x, coordinates, weight, size, dilation, stride, groups, targets):
    """What a dense convolution has at `targets`, multiples of the stride."""
    D = len(size)
    lo, extent = window(coordinates, stride, [1] * D)
    down, up = dilated_reach(size, dilation)
    grid = to_grid(x, coordinates, lo, [1] * D, extent, 1 + int(coordinates[:, 0].max()))
    pad = [v for a in reversed(range(D)) for v in (down[a], up[a])]
    full = dense_convolution(torch.nn.functional.pad(grid, pad), box_weight(weight, size), stride, dilation, groups)
    return from_grid(full, targets, lo, stride)


def by_dense_transposed(x, coarse, weight, size, dilation, stride, groups, targets):
    """What a dense transposed convolution of the coarse grid has at fine `targets`."""
    D = len(size)
    down, up = dilated_reach(size, dilation)
    margin = [max(a, b) // s + 2 for a, b, s in zip(down, up, stride, strict=True)]
    lo, extent = window(coarse, stride, margin)
    cells = [(n + s - 1) // s for n, s in zip(extent, stride, strict=True)]
    grid = to_grid(x, coarse, lo, stride, cells, 1 + int(coarse[:, 0].max()))
    # (K, a per group, b) -> (a, b per group, k...): torch groups the input's channels here
    parts = [box_weight(w, size).transpose(0, 1) for w in weight.chunk(groups, 2)]
    full = dense_transposed(grid, torch.cat(parts), stride, dilation, groups)
    return from_grid(full, targets, [a - d for a, d in zip(lo, down, strict=True)], [1] * D)


def case(D, size, stride=1, dilation=1, full=False, groups=1, channels=(2, 3), batches=2):
    size, stride, dilation = (tuple(v) if isinstance(v, tuple) else (v,) * D for v in (size, stride, dilation))
    name = f"{D}D k{size} s{stride} d{dilation} g{groups} {'full' if full else 'random'}"
    made = SimpleNamespace(
        D=D, size=size, stride=stride, dilation=dilation, full=full, groups=groups, channels=channels, batches=batches
    )
    return pytest.param(made, id=name.replace(" ", "-").replace(",-", ","))


CASES = [
    *(case(1, k, s, d) for k, s, d in itertools.product([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 7], [1, 2, 3])),
    *(case(2, k, s, d) for k, s, d in itertools.product([1, 2, 3, (3, 2), (1, 5)], [1, 2, 3, (1, 2), (4, 3)], [1, 2])),
    case(2, 5, 6, (3, 1)),
    *(case(3, k, s) for k, s in itertools.product([1, 2, 3, (5, 3, 1), (2, 3, 4)], [1, 2, 3, (2, 2, 1), (1, 3, 2)])),
    *(case(3, 3, s, d) for s, d in itertools.product([1, 2], [2, 4, (1, 2, 3)])),
    case(3, 4, 4),
    case(3, 5),
    case(3, 2, 5, 3),
    *(case(4, k, s) for k, s in [(1, 2), (2, 1), (2, 2), (3, 1), (3, 2), ((1, 3, 2, 1), (2, 1, 3, 1)), (3, 3)]),
    case(4, 2, 1, (1, 2, 1, 3)),
    case(5, (2, 1, 3, 1, 2), (1, 2, 1, 1, 2), batches=1),
    case(6, (1, 2, 1, 3, 1, 2), (2, 1, 1, 1, 1, 2), batches=1),
    *(case(1, k, s, full=True) for k, s in itertools.product([2, 3, 5], [1, 2, 3])),
    *(case(2, k, s, full=True) for k, s in itertools.product([2, 3, (1, 4)], [1, 2, (3, 1)])),
    *(case(3, k, s, full=True) for k, s in [(3, 1), (2, 2), (3, 2), (3, 3)]),
    case(4, 3, 1, full=True, batches=1),
    case(4, 2, 2, full=True, batches=1),
    *(
        case(2, k, s, groups=g, channels=c)
        for k, s in [(3, 1), (2, 2)]
        for g, c in [(2, (4, 6)), (3, (6, 3)), (4, (4, 4))]
    ),
    case(3, 3, groups=2, channels=(2, 4)),
    case(4, 2, 2, groups=2, channels=(4, 2)),
]


def voxels(c):
    if c.full:
        extent = {1: (13,), 2: (7, 5), 3: (4, 5, 3), 4: (3, 2, 4, 2)}[c.D]
        return truth.grid(extent, batches=c.batches, low=[-4, 3, 0, -1][: c.D])
    n, side = {1: (30, 30), 2: (40, 8), 3: (40, 5), 4: (30, 4), 5: (25, 3), 6: (25, 3)}[c.D]
    return truth.random_voxels(n, c.D, batches=c.batches, side=side, seed=c.D)


def weights(c, seed=4):
    torch.manual_seed(seed)
    volume = torch.Size(c.size).numel()
    return torch.randn(volume, c.channels[0] // c.groups, c.channels[1], dtype=torch.float64, requires_grad=True)


def values(n, channels, seed=5):
    torch.manual_seed(seed)
    return torch.randn(n, channels, dtype=torch.float64, requires_grad=True)


def assert_same_with_gradients(ours, theirs, leaves):
    """Values, first derivatives, and a derivative of those."""
    close(ours, theirs)
    seed = torch.randn_like(ours)
    first = [grad(y, leaves, seed, create_graph=True) for y in (ours, theirs)]
    close(*first)
    directions = [torch.randn_like(leaf) for leaf in leaves]
    second = [
        grad(sum((g * v).sum() for g, v in zip(gs, directions, strict=True)), leaves, allow_unused=True) for gs in first
    ]
    for a, b in zip(*second, strict=True):
        close(a, b)


@pytest.mark.parametrize("c", CASES)
def test_convolution_is_the_dense_one(c):
    coordinates, weight = voxels(c), weights(c)
    x, bias = values(len(coordinates), c.channels[0]), torch.randn(c.channels[1], dtype=torch.float64)
    s = SparseTensor(x, coordinates)
    kernel = Kernel.of(c.size, c.D, c.dilation)
    out = F.convolve(s, weight, bias, kernel=kernel, stride=c.stride, groups=c.groups)
    assert out.stride == c.stride
    if max(c.stride) == 1:
        assert torch.equal(out.coordinates, coordinates)
    else:
        assert truth.listed(out.coordinates) == truth.strided(coordinates, c.stride)
    dense = by_dense_convolution(x, coordinates, weight, c.size, c.dilation, c.stride, c.groups, out.coordinates)
    assert_same_with_gradients(out.features, dense + bias, [x, weight])


@pytest.mark.parametrize("c", CASES)
def test_transposed_convolution_is_the_dense_one(c):
    """Onto the fine voxels that the coarse ones came from."""
    fine, weight = voxels(c), weights(c)
    manager = CoordinateManager(c.D)
    key = manager.insert(fine).key
    coarse = manager.stride(key, c.stride)
    x = values(manager.size(coarse), c.channels[0])
    s = SparseTensor(x, coordinate_map_key=coarse, coordinate_manager=manager)
    kernel = Kernel.of(c.size, c.D, c.dilation)
    out = F.conv_transpose(s, weight, kernel=kernel, stride=c.stride, groups=c.groups)
    assert out.coordinate_map_key == key and torch.equal(out.coordinates, fine)
    dense = by_dense_transposed(x, s.coordinates, weight, c.size, c.dilation, c.stride, c.groups, fine)
    assert_same_with_gradients(out.features, dense, [x, weight])


GENERATIVE = [
    *(case(1, k, s, d) for k, s, d in [(2, 2, 1), (3, 2, 1), (3, 3, 2), (4, 2, 1), (5, 1, 1)]),
    *(case(2, k, s) for k, s in [(2, 2), (3, 1), ((2, 3), (2, 3)), (4, 2)]),
    case(3, 2, 2),
    case(3, (3, 2, 1), (2, 1, 3)),
    case(4, 2, 2),
    case(3, 2, 2, full=True),
    case(2, 3, 2, groups=2, channels=(4, 6)),
]


@pytest.mark.parametrize("c", GENERATIVE)
def test_generative_convolution_writes_everything_the_dense_one_reaches(c):
    coarse, weight = voxels(c), weights(c)
    coarse = coarse * torch.tensor([1, *c.stride], dtype=torch.int32)
    x = values(len(coarse), c.channels[0])
    s = SparseTensor(x, coarse, c.stride)
    kernel = Kernel.of(c.size, c.D, c.dilation)
    out = F.conv_transpose(s, weight, kernel=kernel, stride=c.stride, groups=c.groups, generative=True)
    offsets = truth.box(c.size, c.dilation)
    reached = {truth.add(voxel, offset) for voxel in truth.listed(coarse) for offset in offsets}
    assert truth.listed(out.coordinates) == truth.order(reached, (1,) * c.D)
    dense = by_dense_transposed(x, coarse, weight, c.size, c.dilation, c.stride, c.groups, out.coordinates)
    assert_same_with_gradients(out.features, dense, [x, weight])


@pytest.mark.parametrize("D", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_depthwise_is_the_dense_one_with_as_many_groups(D, stride):
    c = case(D, 3 if D < 4 else 2, stride, groups=4, channels=(4, 4)).values[0]
    coordinates, weight = voxels(c), weights(c)
    x = values(len(coordinates), 4)
    out = F.depthwise(SparseTensor(x, coordinates), weight[:, 0], kernel=c.size, stride=c.stride)
    dense = by_dense_convolution(x, coordinates, weight, c.size, c.dilation, c.stride, 4, out.coordinates)
    assert_same_with_gradients(out.features, dense, [x, weight])


SHAPES = {
    "cross5": Kernel.of(5, 2, shape="cross"),
    "cross-3-1": Kernel.of((3, 1), 2, shape="cross"),
    "cross3-dilated": Kernel.of(3, 3, (1, 2, 3), shape="cross"),
    "custom": Kernel.of(1, 2, offsets=[[2, -1], [0, 0], [-3, 1]]),
    "custom-dilated": Kernel.of(1, 3, 2, offsets=[[1, 0, -1], [0, 0, 1]]),
    "custom-symmetric": Kernel.of(1, 2, offsets=[[1, 2], [0, 0], [-1, -2]]),
    "custom-1d": Kernel.of(1, 1, offsets=[[5], [-2], [0], [1]]),
    "custom-4d": Kernel.of(1, 4, offsets=[[1, 0, 0, 0], [0, 0, -1, 1]]),
    "custom-one": Kernel.of(1, 2, offsets=[[1, 0]]),
}
POINTS = {
    "cross5": truth.cross((5, 5), (1, 1)),
    "cross-3-1": truth.cross((3, 1), (1, 1)),
    "cross3-dilated": truth.cross((3, 3, 3), (1, 2, 3)),
    "custom": [(2, -1), (0, 0), (-3, 1)],
    "custom-dilated": [(2, 0, -2), (0, 0, 2)],
    "custom-symmetric": [(1, 2), (0, 0), (-1, -2)],
    "custom-1d": [(5,), (-2,), (0,), (1,)],
    "custom-4d": [(1, 0, 0, 0), (0, 0, -1, 1)],
    "custom-one": [(1, 0)],
}


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("name", SHAPES)
def test_other_shapes_are_boxes_with_zeros(name, stride):
    kernel, points = SHAPES[name], POINTS[name]
    D = kernel.dimension
    coordinates = truth.random_voxels(60, D, side=[12, 12, 7, 5, 4][D])
    reach = [2 * max(abs(p[a]) for p in points) + 1 for a in range(D)]
    place = [truth.box(reach, (1,) * D).index(p) for p in points]
    weight = torch.randn(len(points), 2, 3, dtype=torch.float64, requires_grad=True)
    embedded = torch.zeros(torch.Size(reach).numel(), 2, 3, dtype=torch.float64).index_put(
        (torch.tensor(place),), weight
    )
    x = values(len(coordinates), 2)
    out = F.convolve(SparseTensor(x, coordinates), weight, kernel=kernel, stride=stride)
    dense = by_dense_convolution(x, coordinates, embedded, reach, (1,) * D, (stride,) * D, 1, out.coordinates)
    assert_same_with_gradients(out.features, dense, [x, weight])


@pytest.mark.parametrize("stride", [(2,), (3,), (2, 3), (1, 2), (4, 2, 3)])
def test_offsets_are_in_units_of_the_input_stride(stride):
    """A tensor of stride s is one of stride 1 with s times larger coordinates; so with a stride on top of it."""
    D = len(stride)
    coordinates = truth.random_voxels(30, D, side=7)
    spread = coordinates * torch.tensor([1, *stride], dtype=torch.int32)
    x, weight = values(len(coordinates), 2), torch.randn(3**D, 2, 3, dtype=torch.float64)
    for step in (1, 2, 3):
        fine = F.convolve(SparseTensor(x, coordinates), weight, kernel=3, stride=step)
        wide = F.convolve(SparseTensor(x, spread, stride), weight, kernel=3, stride=step)
        assert wide.stride == tuple(s * step for s in stride)
        assert torch.equal(wide.coordinates, fine.coordinates * torch.tensor([1, *stride], dtype=torch.int32))
        assert torch.equal(wide.features, fine.features)


@pytest.mark.parametrize("D, size, step", [(1, 3, 1), (2, 3, 1), (2, 2, 2), (2, (3, 2), (2, 1)), (3, 3, 2), (4, 2, 2)])
def test_convolution_at_given_coordinates_sees_what_it_should(D, size, step):
    """Targets that no input lies on, some of them far away."""
    size, step = (v if isinstance(v, tuple) else (v,) * D for v in (size, step))
    source, target = truth.random_voxels(30, D, seed=1), truth.random_voxels(30, D, seed=2, side=9)
    target = target // torch.tensor([1, *step]) * torch.tensor([1, *step])
    target = torch.unique(target, dim=0).flip(0).int()
    target = torch.cat([target, target[:1] + torch.tensor([0] + [10_000 * s for s in step], dtype=torch.int32)])
    x, weight = values(len(source), 2), weights(SimpleNamespace(size=size, channels=(2, 3), groups=1))
    out = F.convolve(SparseTensor(x, source), weight, kernel=size, stride=step, coordinates=target)
    assert torch.equal(out.coordinates, target)
    found = truth.triples(source, target, truth.box(size, (1,) * D))
    assert_same_with_gradients(out.features, truth.convolve(x, weight, found, len(target)), [x, weight])
    assert not out.features[-1].any()


GRADCHECKED = [
    case(1, 3, 1),
    case(1, 4, 3, 2),
    case(2, 3, 1, groups=2, channels=(4, 2)),
    case(2, (2, 3), (2, 1)),
    case(3, 3, 1),
    case(3, 2, 2),
    case(3, 3, 3),
    case(4, 2, 2),
]


def few(c):
    return truth.random_voxels(7, c.D, batches=2, side=3, seed=3)


@pytest.mark.parametrize("c", GRADCHECKED)
def test_derivatives_of_the_convolution(c):
    coordinates, weight = few(c), weights(c)[:, :, : c.channels[1]].detach().requires_grad_()
    x = values(len(coordinates), c.channels[0])
    bias = torch.randn(1, c.channels[1], dtype=torch.float64, requires_grad=True)
    manager = CoordinateManager(c.D)
    key = manager.insert(coordinates).key

    def function(x, weight, bias):
        s = SparseTensor(x, coordinate_map_key=key, coordinate_manager=manager)
        kernel = Kernel.of(c.size, c.D, c.dilation)
        return F.convolve(s, weight, bias, kernel=kernel, stride=c.stride, groups=c.groups).features

    assert gradcheck(function, (x, weight, bias), atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, (x, weight, bias), atol=1e-8, rtol=1e-6)


FEW_ROWS = [p for p in GRADCHECKED if torch.Size(p.values[0].size).numel() < 20]  # generated ones


@pytest.mark.parametrize(
    "c, generative", [(*p.values, False) for p in GRADCHECKED] + [(*p.values, True) for p in FEW_ROWS]
)
def test_derivatives_of_the_transposed_convolution(c, generative):
    manager = CoordinateManager(c.D)
    coarse = manager.stride(manager.insert(few(c)).key, c.stride)
    x, weight = values(manager.size(coarse), c.channels[0]), weights(c)

    def function(x, weight):
        s = SparseTensor(x, coordinate_map_key=coarse, coordinate_manager=manager)
        kernel = Kernel.of(c.size, c.D, c.dilation)
        out = F.conv_transpose(s, weight, kernel=kernel, stride=c.stride, groups=c.groups, generative=generative)
        return out.features

    assert gradcheck(function, (x, weight), atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, (x, weight), atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_derivatives_of_depthwise(stride):
    coordinates = truth.random_voxels(7, 2, side=3)
    x, weight = values(len(coordinates), 3), torch.randn(9, 3, dtype=torch.float64, requires_grad=True)

    def function(x, weight):
        return F.depthwise(SparseTensor(x, coordinates), weight, kernel=3, stride=stride).features

    assert gradcheck(function, (x, weight), atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, (x, weight), atol=1e-8, rtol=1e-6)


ADJOINT = [case(1, 3, 2), case(2, 2, 2), case(2, (3, 4), (3, 1), 2), case(3, 3, 1), case(3, 3, 2), case(4, 2, 2)]


@pytest.mark.parametrize("c", ADJOINT)
def test_transposed_is_adjoint(c):
    """<A x, y> = <x, A^T y>, A^T the transposed layer with its weights' channels swapped, from coarse to fine."""
    coordinates, weight = voxels(c), weights(c).detach()
    x = values(len(coordinates), c.channels[0])
    s = SparseTensor(x, coordinates)
    kernel = Kernel.of(c.size, c.D, c.dilation)
    down = F.convolve(s, weight, kernel=kernel, stride=c.stride)
    y = torch.randn_like(down.features)
    up = F.conv_transpose(down.replace(y), weight.transpose(1, 2).contiguous(), kernel=kernel, stride=c.stride)
    assert up.coordinate_map_key == s.coordinate_map_key
    close((down.features * y).sum(), (x * up.features).sum())
    (by_autograd,) = grad(down.features, x, y)
    close(up.features, by_autograd)


@pytest.mark.parametrize("c", ADJOINT)
@pytest.mark.parametrize("steps", [1, -3, 1000, -(2**20), 2**40 + 12345])
def test_moves_with_its_input(c, steps):
    """Shifted by a multiple of the stride, the voxels' output is the same, in the same order, bit by bit."""
    coordinates, weight = voxels(c).long(), weights(c)
    shift = torch.tensor([0] + [steps * s for s in c.stride])
    kernel = Kernel.of(c.size, c.D, c.dilation)
    x = values(len(coordinates), c.channels[0])
    here, there = (
        F.convolve(SparseTensor(x, voxel), weight, kernel=kernel, stride=c.stride)
        for voxel in (coordinates, coordinates + shift)
    )
    rows = truth.match(there.coordinates.long() - shift, here.coordinates)
    assert torch.equal(there.features[rows], here.features)


@pytest.mark.parametrize("c", ADJOINT)
def test_order_of_rows_goes_in_as_it_goes_out(c):
    """Rows permuted, output rows permuted with them (stride 1), or the same (strided: sorted)."""
    coordinates, weight = voxels(c), weights(c)
    x, kernel = values(len(coordinates), c.channels[0]), Kernel.of(c.size, c.D, c.dilation)
    order = torch.randperm(len(x))
    plain = F.convolve(SparseTensor(x, coordinates), weight, kernel=kernel, stride=c.stride)
    shuffled = F.convolve(SparseTensor(x[order], coordinates[order]), weight, kernel=kernel, stride=c.stride)
    if max(c.stride) == 1:
        assert torch.equal(shuffled.coordinates, coordinates[order])
        assert torch.equal(shuffled.features, plain.features[order])
    else:
        assert torch.equal(shuffled.coordinates, plain.coordinates)
        assert torch.equal(shuffled.features, plain.features)


@pytest.mark.parametrize("c", ADJOINT)
def test_channels_may_be_renamed(c):
    coordinates, weight = voxels(c), weights(c).detach()
    x, kernel = values(len(coordinates), c.channels[0]).detach(), Kernel.of(c.size, c.D, c.dilation)
    p, q = torch.randperm(c.channels[0]), torch.randperm(c.channels[1])
    plain = F.convolve(SparseTensor(x, coordinates), weight, kernel=kernel, stride=c.stride).features
    renamed = F.convolve(
        SparseTensor(x[:, p], coordinates), weight[:, p][:, :, q], kernel=kernel, stride=c.stride
    ).features
    close(renamed, plain[:, q])


def test_batch_entries_do_not_see_each_other():
    """The same event under several ids, in one batch, gives the same as alone, bit by bit."""
    event, weight = truth.random_voxels(25, 3, batches=1), torch.randn(27, 2, 3, dtype=torch.float64)
    x = values(len(event), 2).detach()
    for stride in (1, 2):
        alone = F.convolve(SparseTensor(x, event), weight, kernel=3, stride=stride)
        ids = [0, 1, 5, 2**20 + 3]
        batch = torch.cat([event + torch.tensor([b, 0, 0, 0]) for b in ids])
        together = F.convolve(SparseTensor(x.repeat(len(ids), 1), batch), weight, kernel=3, stride=stride)
        for b in ids:
            assert torch.equal(together.features_at(b), alone.features)
            assert torch.equal(together.coordinates_at(b), alone.coordinates[:, 1:])


@pytest.mark.parametrize("mode", ["sum", "avg", "max"])
@pytest.mark.parametrize(
    "D, size, stride", [(1, 2, 2), (2, 3, 1), (2, 3, 3), (3, 2, 2), (4, 2, 2), (2, (2, 3), (1, 3))]
)
def test_pools_are_the_dense_ones_on_full_grids(D, size, stride, mode):
    """Windows that lie inside of a full grid are those of torch; as wide as the stride, they are cells."""
    size, stride = (v if isinstance(v, tuple) else (v,) * D for v in (size, stride))
    extent = (12, 6, 6, 4)[:D] if D < 4 else (4, 2, 4, 2)
    coordinates = truth.grid(extent)
    x = values(len(coordinates), 2)
    out = F.pool(SparseTensor(x, coordinates), mode, kernel=size, stride=stride)
    grid = to_grid(x, coordinates, [0] * D, [1] * D, extent, 2)
    down, up = dilated_reach(size, (1,) * D)
    if size == stride:
        down, up = [0] * D, [n - 1 for n in size]
    inside = torch.ones(len(out), dtype=torch.bool)
    for a in range(D):
        v = out.coordinates[:, 1 + a]
        inside &= (v - down[a] >= 0) & (v + up[a] < extent[a])
    assert inside.any()
    windows = grid
    for a in range(D):
        windows = windows.unfold(2 + a, size[a], 1)
    windows = windows.flatten(2 + D)
    dense = {"sum": windows.sum(-1), "avg": windows.mean(-1), "max": windows.amax(-1)}[mode]
    corner = out.coordinates[inside].clone()
    corner[:, 1:] -= torch.tensor(down, dtype=torch.int32)
    ours, theirs = out.features[inside], from_grid(dense, corner, [0] * D, [1] * D)
    close(ours, theirs)
    seed = torch.randn_like(ours)
    close(grad(ours, x, seed)[0], grad(theirs, x, seed)[0])
