"""Functions of sparse tensors against dictionaries and loops; nothing, one voxel, and the whole of a small U-Net."""

import itertools
import math

import pytest
import torch
from hepops.sparse import CoordinateManager, Kernel, SparseTensor, nn
from hepops.sparse import functional as F
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from . import truth


def close(ours, theirs):
    assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def some(n=50, D=2, C=3, seed=0, side=7, batches=2, requires_grad=True, **options):
    coordinates = truth.random_voxels(n, D, seed=seed, side=side, batches=batches)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(coordinates), C, dtype=torch.float64, generator=generator)
    return SparseTensor(x.requires_grad_(requires_grad), coordinates, **options)


def assert_same_gradient(ours, theirs, *leaves):
    close(ours, theirs)
    seed = torch.randn_like(ours)
    close(grad(ours, leaves, seed), grad(theirs, leaves, seed))


# Pools


POOLS = [
    (1, 2, 2, 1), (1, 3, 1, 2), (1, 5, 3, 1), (2, 2, 2, 1), (2, 3, 1, 1), (2, 3, 2, 1), (2, (3, 2), (1, 3), (1, 2)),
    (2, 4, 4, 1), (3, 2, 2, 1), (3, 3, 1, 1), (3, 3, 2, 1), (4, 2, 2, 1), (5, 2, 2, 1),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["sum", "avg", "max"])
@pytest.mark.parametrize("D, size, stride, dilation", POOLS)
def test_pools_see_the_active_neighbours(D, size, stride, dilation, mode):
    x = some(40, D, 2, side=(40, 7, 5, 4, 3)[D - 1])
    size, stride, dilation = (v if isinstance(v, tuple) else (v,) * D for v in (size, stride, dilation))
    out = F.pool(x, mode, kernel=Kernel.of(size, D, dilation), stride=stride)
    found = truth.triples(x.coordinates, out.coordinates, truth.box(size, dilation))
    assert_same_gradient(out.features, truth.pool(x.features, found, len(out), mode), x.features)


@pytest.mark.parametrize("mode", ["sum", "avg", "max"])
@pytest.mark.parametrize("D, size", [(1, 3), (1, 5), (2, 3), (2, (2, 3)), (3, 3)])
def test_pools_as_wide_as_their_stride_part_the_voxels_into_cells(D, size, mode):
    """Of odd sizes too, where a centred box would miss some voxels and share others. So does the way back."""
    x = some(60, D, 2, side=(60, 11, 7)[D - 1])
    size = size if isinstance(size, tuple) else (size,) * D
    out = F.pool(x, mode, kernel=size, stride=size)
    assert truth.listed(out.coordinates) == truth.strided(x.coordinates, size)
    points = [tuple(p) for p in itertools.product(*(range(n) for n in size))]
    points.sort(key=lambda p: p[::-1])  # the first axis fastest: the lowest offset wins a tie
    found = truth.triples(x.coordinates, out.coordinates, points)
    assert sorted(found[:, 0].tolist()) == list(range(len(x)))  # each voxel once
    assert_same_gradient(out.features, truth.pool(x.features, found, len(out), mode), x.features)
    back = F.pool_transpose(out.replace(out.features.detach()), kernel=size, stride=size)
    assert torch.equal(back.features[found[:, 0]], out.features[found[:, 1]])


@pytest.mark.parametrize("mode", ["sum", "avg", "max"])
def test_second_derivatives_of_pools(mode):
    coordinates = truth.random_voxels(9, 2, side=3)
    x = torch.randn(len(coordinates), 2, dtype=torch.float64, requires_grad=True)

    def function(x):
        return F.pool(SparseTensor(x, coordinates), mode, kernel=3, stride=2).features.square()

    assert gradcheck(function, x, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, x, atol=1e-8, rtol=1e-6)


def test_ties_of_a_maximum_go_to_the_lowest_offset():
    coordinates = torch.tensor([[0, 2], [0, 0], [0, 1]])
    x = torch.tensor([[5.0], [5.0], [5.0]], requires_grad=True)
    out = F.pool(SparseTensor(x, coordinates), "max", kernel=3)
    # voxel 2 sees 1 first; 0 has nothing below itself; 1 sees 0 first
    assert grad(out.features, x, torch.tensor([[1.0], [10.0], [100.0]]))[0].flatten().tolist() == [0, 110, 1]


@pytest.mark.parametrize("D, size, stride", [(1, 2, 2), (2, 2, 2), (2, 3, 2), (3, 2, 2), (3, 3, 2), (2, 3, 1)])
def test_pool_transpose_gives_each_fine_voxel_the_mean_of_those_that_see_it(D, size, stride):
    fine = some(40, D, side=(40, 7, 5)[D - 1])
    coarse = F.pool(fine, "sum", kernel=1, stride=stride)
    x = coarse.replace(torch.randn(len(coarse), 2, dtype=torch.float64, requires_grad=True))
    out = F.pool_transpose(x, kernel=size, stride=stride)
    assert out.coordinate_map_key == fine.coordinate_map_key
    found = truth.triples(coarse.coordinates, fine.coordinates, truth.box((size,) * D, (1,) * D), transposed=True)
    assert_same_gradient(out.features, truth.pool(x.features, found, len(fine), "avg"), x.features)


@pytest.mark.parametrize("mode", ["sum", "avg", "max"])
@pytest.mark.parametrize("batch_size", [None, 6])
def test_global_pools_give_a_row_per_event(mode, batch_size):
    coordinates = truth.random_voxels(60, 2, batches=4)
    coordinates = coordinates[coordinates[:, 0] != 1]  # one id without voxels in between
    x = torch.randn(len(coordinates), 3, dtype=torch.float64, requires_grad=True)
    out = F.global_pool(SparseTensor(x, coordinates, batch_size=batch_size), mode)
    ids = [0, 2, 3] if batch_size is None else range(6)
    assert out.coordinates.tolist() == [[b, 0, 0] for b in ids] and out.stride == (0, 0)
    rows = [x[coordinates[:, 0] == b] for b in ids]
    reduce = {"sum": lambda v: v.sum(0), "avg": lambda v: v.mean(0), "max": lambda v: v.amax(0)}[mode]
    expected = torch.stack([reduce(v) if len(v) else x.new_zeros(3) for v in rows])
    assert_same_gradient(out.features, expected, x)


def test_global_sums_do_not_cancel_in_single_precision():
    x = torch.tensor([[1e8], [1.0], [-1e8], [1.0]])
    out = F.global_pool(SparseTensor(x, torch.tensor([[0, i] for i in range(4)])), "sum")
    assert out.features.item() == 2.0  # summed in double; in float, in this order, it would be 1 or 0


@pytest.mark.parametrize("mode", ["sum", "avg", "max"])
def test_second_derivatives_of_global_pools(mode):
    coordinates = truth.random_voxels(9, 2, side=3)
    x = torch.randn(len(coordinates), 2, dtype=torch.float64, requires_grad=True)

    def function(x):
        return F.global_pool(SparseTensor(x, coordinates), mode).features.square()

    assert gradcheck(function, x, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, x, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_broadcasts_give_each_voxel_its_events_row(batch_size, as_tensor):
    x = some(batches=3, batch_size=batch_size)
    ids = x.coordinates[:, 0].tolist()
    rows = sorted(set(ids)) if batch_size is None else list(range(batch_size))
    g = torch.randn(len(rows), 3, dtype=torch.float64, requires_grad=True)
    given = g if as_tensor else F.global_pool(x, "sum").replace(g)
    mine = g[[rows.index(b) for b in ids]]
    for ours, theirs in [
        (F.broadcast(x, given), mine),
        (F.broadcast_add(x, given), x.features + mine),
        (F.broadcast_multiply(x, given), x.features * mine),
        (F.broadcast_concatenate(x, given), torch.cat([x.features, mine], 1)),
    ]:
        assert ours.coordinate_map_key == x.coordinate_map_key
        close(ours.features, theirs)
        seed = torch.randn_like(theirs)
        a, b = (grad(y, [x.features, g], seed, allow_unused=True, retain_graph=True) for y in (ours.features, theirs))
        for left, right in zip(a, b, strict=True):
            close(0 if left is None else left, 0 if right is None else right)


def test_a_broadcast_of_other_events_is_refused():
    x, y = some(batches=2), some(batches=3, seed=1)
    with pytest.raises(ValueError, match=r"batch ids \[0, 1\].*\[0, 1, 2\]"):
        F.broadcast(x, F.global_pool(y, "sum"))


# Union, cat, prune


def test_union_of_three_adds_what_is_there():
    manager = CoordinateManager(2)
    inputs = [some(seed=s, coordinate_manager=manager) for s in range(3)]
    out = F.union(*inputs)
    table = {}
    for x in inputs:
        for c, row in zip(truth.listed(x.coordinates), x.features, strict=True):
            table[c] = table.get(c, 0) + row
    voxels = truth.order(table, (1, 1))
    assert truth.listed(out.coordinates) == voxels
    assert_same_gradient(out.features, torch.stack([table[c] for c in voxels]), *(x.features for x in inputs))


def test_union_of_one_and_of_the_same_voxels_keeps_the_rows():
    x = some()
    assert torch.equal(F.union(x).features, x.features)
    out = F.union(x, x.replace(x.features * 2), x)
    assert out.coordinate_map_key == x.coordinate_map_key
    close(out.features, 4 * x.features)


def test_cat_joins_channels():
    x = some()
    y = x.replace(torch.randn(len(x), 5, dtype=torch.float64, requires_grad=True))
    out = F.cat(x, y, x)
    assert out.coordinate_map_key == x.coordinate_map_key and out.num_channels == 11
    assert_same_gradient(out.features, torch.cat([x.features, y.features, x.features], 1), x.features, y.features)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_prune_keeps_rows_in_their_order(share):
    x = some()
    keep = torch.rand(len(x), generator=torch.Generator().manual_seed(1)) < share
    out = F.prune(x, keep)
    assert torch.equal(out.coordinates, x.coordinates[keep])
    assert_same_gradient(out.features, x.features[keep], x.features)


# Interpolation


def multilinear(x, coordinates, stride, queries):
    """By a dictionary, differentiable in features and queries."""
    rows, D = truth.rows_of(coordinates), len(stride)
    out = []
    for query in queries:
        low = [math.floor(v.item() / s) for v, s in zip(query[1:], stride, strict=True)]
        total = x.new_zeros(x.shape[1])
        for corner in itertools.product((0, 1), repeat=D):
            c = (int(query[0]), *((a + b) * s for a, b, s in zip(low, corner, stride, strict=True)))
            if c in rows:
                weight = x.new_ones(())
                for axis, (a, b, s) in enumerate(zip(low, corner, stride, strict=True)):
                    f = query[1 + axis] / s - a
                    weight = weight * (f if b else 1 - f)
                total = total + weight * x[rows[c]]
        out.append(total)
    return torch.stack(out)


@pytest.mark.parametrize("D, stride", [(1, 1), (1, 3), (2, 1), (2, (2, 3)), (3, 1), (3, 2), (4, 1), (6, 1)])
def test_interpolation_is_multilinear_and_zero_where_nothing_is(D, stride):
    stride = stride if isinstance(stride, tuple) else (stride,) * D
    coordinates = truth.random_voxels(80, D, side=(9, 5, 4, 3, 2, 2)[D - 1])
    coordinates = coordinates * torch.tensor([1, *stride], dtype=torch.int32)
    x = torch.randn(len(coordinates), 2, dtype=torch.float64, requires_grad=True)
    queries = torch.randn(30, D + 1, dtype=torch.float64) * 2 * max(stride)
    queries[:, 0] = torch.randint(0, 3, (30,))  # id 2 has no voxels
    queries.requires_grad_()
    ours = F.interpolate(SparseTensor(x, coordinates, stride), queries)
    theirs = multilinear(x, coordinates, stride, queries)
    assert theirs.abs().sum() > 0
    close(ours, theirs)
    seed = torch.randn_like(ours)
    a, b = (grad(y, [x, queries], seed) for y in (ours, theirs))
    close(a[0], b[0])
    close(a[1][:, 1:], b[1][:, 1:])


def test_interpolation_at_a_voxel_is_its_value():
    x = some(D=3, requires_grad=False)
    close(F.interpolate(x, x.coordinates), x.features)
    close(x.features_at_coordinates(x.coordinates.double()), x.features)
    assert F.interpolate(x, torch.zeros(0, 4)).shape == (0, 3)


def test_derivatives_of_interpolation():
    """In the features any number of times; in the coordinates between the voxels' planes."""
    coordinates = truth.random_voxels(12, 2, side=3)
    x = torch.randn(len(coordinates), 2, dtype=torch.float64, requires_grad=True)
    queries = torch.tensor([[0, 0.3, -0.6], [1, 0.8, 0.1], [0, -1.45, 1.7], [1, 5.5, 5.5]], dtype=torch.float64)

    def function(x, place):
        return F.interpolate(SparseTensor(x, coordinates), torch.cat([queries[:, :1], place], 1))

    place = queries[:, 1:].clone().requires_grad_()
    assert gradcheck(function, (x, place), atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, (x, place), atol=1e-8, rtol=1e-6)


# Dense


@pytest.mark.parametrize("D", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_dense_and_back(D, stride):
    coordinates = truth.random_voxels(40, D, side=(20, 6, 4, 3)[D - 1]) * torch.tensor([1] + [stride] * D).int()
    x = SparseTensor(torch.rand(len(coordinates), 2, dtype=torch.float64) + 0.1, coordinates, stride)
    x.requires_grad_()
    dense, corner, steps = F.to_dense(x)
    assert steps == (stride,) * D
    assert corner.tolist() == coordinates[:, 1:].amin(0).tolist()
    extent = ((coordinates[:, 1:].amax(0) - coordinates[:, 1:].amin(0)) // stride + 1).tolist()
    assert dense.shape == (2, 2, *extent)
    expected = torch.zeros(2, *extent, 2, dtype=torch.float64)
    for row, c in enumerate(truth.listed(coordinates)):
        place = tuple((v - a) // stride for v, a in zip(c[1:], corner.tolist(), strict=True))
        expected[(c[0], *place)] = x.features[row].detach()
    assert torch.equal(dense.movedim(1, -1), expected)
    back = F.from_dense(dense, stride=stride, min_coordinate=corner.tolist())
    rows = truth.match(back.coordinates, coordinates)
    assert torch.equal(back.features[rows], x.features) and back.stride == x.stride
    seed = torch.randn_like(back.features)
    assert torch.equal(grad(back.features, x.features, seed)[0], seed[rows])
    assert torch.equal(x.dense()[0], dense)


def test_a_grid_of_given_shape_and_corner():
    x = SparseTensor(torch.tensor([[1.0], [2.0]]), torch.tensor([[1, 0, 2], [0, 3, -1]]))
    dense, corner, _ = F.to_dense(x, (4, 1, 5, 6), (-1, -2))
    assert corner.tolist() == [-1, -2] and dense.nonzero().tolist() == [[0, 0, 4, 1], [1, 0, 1, 4]]
    for shape, start in [((4, 1, 4, 6), (-1, -2)), ((1, 1, 5, 6), (-1, -2)), ((4, 1, 5, 6), None)]:
        with pytest.raises(ValueError, match="outside of the grid"):
            F.to_dense(x, shape, start)


def test_from_dense_takes_what_it_is_told():
    dense = torch.zeros(2, 1, 3, 3)
    dense[0, 0, 1, 2], dense[1, 0, 0, 0] = 5, 7
    assert F.from_dense(dense).coordinates.tolist() == [[0, 1, 2], [1, 0, 0]]
    where = torch.zeros(2, 3, 3, dtype=torch.bool)
    where[0, 0, 0] = where[1, 0, 0] = True
    x = F.from_dense(dense, where=where, stride=4, min_coordinate=[-8, 4])
    assert x.coordinates.tolist() == [[0, -8, 4], [1, -8, 4]] and x.features.flatten().tolist() == [0, 7]
    assert len(F.from_dense(torch.zeros(3, 2, 4))) == 0


# Nothing, and next to nothing


def layers(D, C=2):
    common = {"dimension": D, "dtype": torch.float64}
    return {
        "conv": nn.Convolution(C, 3, 3, bias=True, **common),
        "conv k1": nn.Convolution(C, 3, 1, bias=True, **common),
        "conv strided": nn.Convolution(C, 3, 2, 2, **common),
        "conv cross": nn.Convolution(C, 3, Kernel.of(3, D, shape="cross"), **common),
        "conv groups": nn.Convolution(C, 4, 3, groups=2, **common),
        "depthwise": nn.DepthwiseConvolution(C, 3, 1, bias=True, **common),
        "generative": nn.GenerativeConvolutionTranspose(C, 3, 2, 1, **common),
        "transposed": nn.ConvolutionTranspose(C, 3, 3, 1, **common),
        "max": nn.MaxPool(2, 2, dimension=D),
        "avg": nn.AvgPool(3, 1, dimension=D),
        "sum": nn.SumPool(2, 2, dimension=D),
        "pool transpose": nn.PoolTranspose(2, 1, dimension=D),
        "global max": nn.GlobalMaxPool(),
        "global avg": nn.GlobalAvgPool(),
        "global sum": nn.GlobalSumPool(),
        "linear": nn.Linear(C, 3, dtype=torch.float64),
        "relu": nn.ReLU(),
        "leaky": nn.LeakyReLU(0.1),
        "prelu": nn.PReLU().double(),
        "softmax": nn.Softmax(1),
        "dropout": nn.Dropout(0.5),
        "batch norm": nn.BatchNorm(C).double().eval(),
        "cat": lambda x: nn.Cat()(x, x),
        "union": lambda x: nn.Union()(x, x),
        "union of two": lambda x: nn.Union()(x, F.prune(x, torch.ones(len(x), dtype=torch.bool))),
        "product of two": lambda x: x * F.prune(x, torch.ones(len(x), dtype=torch.bool)),
        "prune": lambda x: nn.Prune()(x, torch.ones(len(x), dtype=torch.bool)),
        "broadcast": lambda x: nn.BroadcastMultiply()(x, nn.GlobalAvgPool()(x)),
        "down and up": lambda x: F.pool_transpose(F.pool(x, "max", kernel=2, stride=2), kernel=2, stride=2),
        "given": lambda x: F.pool(x, "sum", kernel=3, coordinates=torch.zeros(0, D + 1).int()),
        "dense and back": lambda x: F.from_dense(F.to_dense(x)[0]),
    }  # fmt: skip


@pytest.mark.parametrize("D", [1, 3, 6])
@pytest.mark.parametrize("name", layers(1))
def test_no_voxel_at_all(name, D):
    """0 rows through every layer, forward and backward; the parameters get a gradient of 0."""
    torch.manual_seed(0)
    layer = layers(D)[name]
    features = torch.zeros(0, 2, dtype=torch.float64, requires_grad=True)
    x = SparseTensor(features, torch.zeros(0, D + 1).int())
    out = layer(x)
    assert len(out) == 0 and out.features.dtype == torch.float64
    out.features.sum().backward()
    assert features.grad.shape == (0, 2)
    for p in layer.parameters() if isinstance(layer, torch.nn.Module) else []:
        assert p.grad is not None and not p.grad.any()
    assert "0 voxels" in repr(out)
    assert len(out.decomposed_features) == (name == "dense and back")  # a grid has one entry at least


@pytest.mark.parametrize("D", [1, 3, 6])
@pytest.mark.parametrize("name", [n for n in layers(1) if n not in ("given", "dropout", "dense and back")])
def test_one_voxel(name, D):
    """What a single voxel gives is known: the kernel's centre, or the corner that it lies in."""
    torch.manual_seed(0)
    layer = layers(D)[name]
    features = torch.tensor([[0.5, -2.0]], dtype=torch.float64, requires_grad=True)
    x = SparseTensor(features, torch.tensor([[3] + [-5] * D]))
    out = layer(x)
    x64 = features.detach()
    if name.startswith("conv") or name == "transposed":
        kernel = layer.kernel.detach().reshape(-1, *layer.kernel.shape[-2:])
        # -5 is 1 above -6: the last child of its cell; else the centre
        k = {"conv strided": -1, "conv cross": 0, "conv k1": 0}.get(name, len(kernel) // 2)
        if name == "conv groups":
            expected = torch.cat([x64[:, :1] @ kernel[k][:, :2], x64[:, 1:] @ kernel[k][:, 2:]], 1)
        else:
            expected = x64 @ kernel[k]
        bias = 0 if layer.bias is None else layer.bias.detach()
        assert_close(out.features, expected + bias, rtol=1e-14, atol=1e-14)
        assert out.coordinates.tolist() == [[3] + [-6 if name == "conv strided" else -5] * D]
    elif name in (
        "max",
        "avg",
        "sum",
        "global max",
        "global avg",
        "global sum",
        "union of two",
        "prune",
        "down and up",
    ):
        factor = 2 if name == "union of two" else 1
        assert torch.equal(out.features, factor * x64)
    elif name in ("broadcast", "product of two"):
        assert torch.equal(out.features, x64 * x64)
    out.features.sum().backward()
    assert features.grad.shape == (1, 2) and bool(features.grad.isfinite().all())


# SPINE's trap: output rows are paired with input rows without looking


def little_unet(dtype=torch.float64):
    """Down twice, up twice, with skips; every layer that a UResNet has."""
    torch.manual_seed(3)
    kw = {"dimension": 3, "dtype": dtype}
    return {
        "stem": nn.Convolution(2, 4, 3, **kw),
        "down1": nn.Convolution(4, 6, 2, 2, **kw),
        "middle1": nn.Convolution(6, 6, 3, **kw),
        "down2": nn.Convolution(6, 8, 2, 2, **kw),
        "middle2": nn.Convolution(8, 8, 3, **kw),
        "up2": nn.ConvolutionTranspose(8, 6, 2, 2, **kw),
        "join1": nn.Convolution(12, 6, 3, **kw),
        "up1": nn.ConvolutionTranspose(6, 4, 2, 2, **kw),
        "join0": nn.Convolution(8, 3, 3, bias=True, **kw),
    }


def run_unet(net, x):
    a = nn.LeakyReLU(0.3)(net["stem"](x))
    b = net["middle1"](nn.ReLU()(net["down1"](a)))
    c = net["middle2"](nn.ReLU()(net["down2"](b)))
    b = net["join1"](F.cat(b, net["up2"](c)))
    return net["join0"](F.cat(a, net["up1"](b)))


def unet_of_dictionaries(net, x, coordinates):
    """The same network by brute force: features by voxel, for the voxels of `coordinates` in their order."""
    levels = [coordinates] + [torch.tensor(truth.strided(coordinates, (s,) * 3)) for s in (2, 4)]
    box3, box2 = truth.box((3,) * 3, (1,) * 3), truth.box((2,) * 3, (1,) * 3)

    def same(name, x, level):
        points = [tuple(v * 2**level for v in p) for p in box3]
        found = truth.triples(levels[level], levels[level], points)
        return truth.convolve(x, net[name].kernel, found, len(levels[level]), net[name].bias)

    def down(name, x, level):
        points = [tuple(v * 2**level for v in p) for p in box2]
        found = truth.triples(levels[level], levels[level + 1], points)
        return truth.convolve(x, net[name].kernel, found, len(levels[level + 1]))

    def up(name, x, level):
        points = [tuple(v * 2**level for v in p) for p in box2]
        found = truth.triples(levels[level + 1], levels[level], points, transposed=True)
        return truth.convolve(x, net[name].kernel, found, len(levels[level]))

    a = torch.nn.functional.leaky_relu(same("stem", x, 0), 0.3)
    b = same("middle1", torch.relu(down("down1", a, 0)), 1)
    c = same("middle2", torch.relu(down("down2", b, 1)), 2)
    b = same("join1", torch.cat([b, up("up2", c, 1)], 1), 1)
    return same("join0", torch.cat([a, up("up1", b, 0)], 1), 0)


def test_shuffled_voxels_keep_their_rows_through_a_unet():
    coordinates = truth.random_voxels(60, 3, side=6, seed=4)
    net = little_unet()
    x = torch.randn(len(coordinates), 2, dtype=torch.float64, requires_grad=True)
    out = run_unet(net, SparseTensor(x, coordinates))
    assert torch.equal(out.coordinates, coordinates)
    expected = unet_of_dictionaries(net, x, coordinates)
    leaves = [x, *(layer.kernel for layer in net.values()), net["join0"].bias]
    assert_same_gradient(out.features, expected, *leaves)
    order = torch.randperm(len(x))
    shuffled = run_unet(net, SparseTensor(x[order], coordinates[order]))
    assert torch.equal(shuffled.coordinates, coordinates[order])
    close(shuffled.features, out.features[order])


def test_merged_voxels_keep_their_rows_through_a_unet():
    """Duplicates in a shuffled input: a label for every row that was put in finds its prediction."""
    unique = truth.random_voxels(40, 3, side=6, seed=4)
    generator = torch.Generator().manual_seed(5)
    pick = torch.cat([torch.arange(len(unique)), torch.randint(0, len(unique), (30,), generator=generator)])
    pick = pick[torch.randperm(len(pick), generator=generator)]
    given = unique[pick]
    values = torch.randn(len(given), 2, dtype=torch.float64)
    net = little_unet()
    for rule in ("sum", "mean", "first", "max"):
        x = SparseTensor(values, given, duplicates=rule)
        out = run_unet(net, x)
        assert torch.equal(out.coordinates[x.inverse_mapping], given)  # what SPINE assumes
        assert torch.equal(out.coordinates, given[x.unique_index])
        expected = unet_of_dictionaries(net, x.features, out.coordinates)
        close(out.features, expected)


# The same bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_bits_in_every_run_and_for_any_number_of_threads(dtype):
    coordinates = truth.random_voxels(3000, 3, side=16, seed=4)
    torch.manual_seed(0)
    values, seed = torch.randn(len(coordinates), 2).to(dtype), None
    net, threads, results = little_unet(dtype), torch.get_num_threads(), []
    leaves = [*(layer.kernel for layer in net.values()), net["join0"].bias]
    try:
        for n in (1, 2, 4, 2):
            torch.set_num_threads(n)
            x = values.clone().requires_grad_()
            out = run_unet(net, SparseTensor(x, coordinates))
            pooled = F.global_pool(out, "avg").features
            seed = torch.randn_like(out.features) if seed is None else seed
            results.append((out.features, pooled, *grad((out.features * seed).sum() + pooled.sum(), [x, *leaves])))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_voxel_does_not_change_by_company():
    """An event alone and in a batch gives the same bits, single precision included."""
    one = truth.random_voxels(300, 3, side=9, batches=1, seed=1)
    two = truth.random_voxels(400, 3, side=9, batches=1, seed=2) + torch.tensor([1, 0, 0, 0], dtype=torch.int32)
    values = torch.randn(len(one) + len(two), 2)
    net = little_unet(torch.float32)
    alone = run_unet(net, SparseTensor(values[: len(one)], one))
    both = run_unet(net, SparseTensor(values, torch.cat([one, two])))
    assert torch.equal(both.features[: len(one)], alone.features)
