"""Sparse tensors: whose rows they hold, what becomes of duplicates, what they refuse."""

import copy
import io
import math
import re

import pytest
import torch
from hepops.sparse import CoordinateManager, CoordinateMapKey, Kernel, SparseTensor, merge_labels, nn
from hepops.sparse import functional as F
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from . import truth


def some(n=40, D=2, C=3, seed=0, **options):
    coordinates = truth.random_voxels(n, D, seed=seed, side=7)
    torch.manual_seed(seed)
    return SparseTensor(torch.randn(len(coordinates), C, dtype=torch.float64), coordinates, **options)


def with_duplicates(n=50, D=2, C=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    c = torch.randint(-2, 3, (n, D), generator=generator)
    c = torch.cat([torch.randint(0, 2, (n, 1), generator=generator), c], 1).int()
    return torch.randn(n, C, dtype=torch.float64, generator=generator), c


def groups_of(coordinates):
    """Voxel -> the rows that hold it, in the order of first occurrence."""
    groups = {}
    for row, c in enumerate(truth.listed(coordinates)):
        groups.setdefault(c, []).append(row)
    return groups


# Rows


@pytest.mark.parametrize("D", [1, 2, 3, 6])
def test_rows_are_the_callers(D):
    coordinates = truth.random_voxels(50, D)
    features = torch.randn(len(coordinates), 4)
    x = SparseTensor(features, coordinates)
    assert x.features is features and torch.equal(x.coordinates, coordinates)
    assert torch.equal(x.unique_index, torch.arange(len(x)))
    assert torch.equal(x.inverse_mapping, torch.arange(len(x)))
    assert (x.dimension, x.stride, x.shape, len(x)) == (D, (1,) * D, features.shape, len(features))
    assert x.F is x.features and x.D == D and torch.equal(x.C, coordinates)


@pytest.mark.parametrize("rule", ["sum", "mean", "first", "max"])
def test_duplicates_stand_where_the_first_of_them_was(rule):
    features, coordinates = with_duplicates()
    x = SparseTensor(features, coordinates, duplicates=rule)
    groups = groups_of(coordinates)
    assert len(groups) < len(coordinates)
    assert truth.listed(x.coordinates) == list(groups)
    assert x.unique_index.tolist() == [rows[0] for rows in groups.values()]
    reduce = {
        "sum": lambda v: v.sum(0),
        "mean": lambda v: v.mean(0),
        "first": lambda v: v[0],
        "max": lambda v: v.amax(0),
    }[rule]
    expected = torch.stack([reduce(features[rows]) for rows in groups.values()])
    assert_close(x.features, expected, rtol=1e-14, atol=1e-14)
    place = {c: i for i, c in enumerate(groups)}
    assert x.inverse_mapping.tolist() == [place[c] for c in truth.listed(coordinates)]
    assert torch.equal(x.coordinates[x.inverse_mapping], coordinates)


@pytest.mark.parametrize("rule", ["sum", "mean", "first", "max"])
def test_merged_rows_get_their_share_of_the_gradient(rule):
    features, coordinates = with_duplicates(14)
    features.requires_grad_()
    x = SparseTensor(features, coordinates, duplicates=rule)
    seed = torch.randn_like(x.features)
    ours = grad(x.features, features, seed)[0]
    expected = torch.zeros_like(features)
    for voxel, rows in enumerate(groups_of(coordinates).values()):
        for c in range(features.shape[1]):
            if rule == "max":
                best = max(rows, key=lambda r: features[r, c].item())
                expected[best, c] = seed[voxel, c]
            elif rule == "first":
                expected[rows[0], c] = seed[voxel, c]
            else:
                expected[rows, c] = seed[voxel, c] / (len(rows) if rule == "mean" else 1)
    assert_close(ours, expected, rtol=1e-14, atol=1e-14)

    def function(f):
        return SparseTensor(f, coordinates, duplicates=rule).features

    assert gradcheck(function, features, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, features, atol=1e-8, rtol=1e-6)


def test_equal_maxima_give_the_gradient_to_the_first():
    features = torch.tensor([[1.0], [2.0], [2.0], [-1.0]], requires_grad=True)
    x = SparseTensor(features, torch.tensor([[0, 5]] * 3 + [[0, 6]]), duplicates="max")
    assert grad(x.features.sum(), features)[0].flatten().tolist() == [0, 1, 0, 1]


def test_a_maximum_may_be_negative_or_minus_infinity():
    features = torch.tensor([[-3.0], [-2.0], [-math.inf]])
    x = SparseTensor(features, torch.tensor([[0, 5], [0, 5], [0, 6]]), duplicates="max")
    assert x.features.flatten().tolist() == [-2.0, -math.inf]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rule", ["sum", "mean", "first", "max"])
def test_merging_keeps_the_dtype(rule, dtype):
    features, coordinates = with_duplicates()
    features = features.to(dtype)
    x = SparseTensor(features, coordinates, duplicates=rule)
    assert x.dtype == dtype
    exact = SparseTensor(features.double(), coordinates, duplicates=rule).features
    eps = torch.finfo(dtype).eps
    assert_close(x.features.double(), exact, rtol=2 * eps, atol=8 * eps)


def test_merging_is_the_same_for_any_number_of_threads():
    features, coordinates = with_duplicates(20_000, C=5)
    features, threads = features.float(), torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 2, 4):
            torch.set_num_threads(n)
            results.append([SparseTensor(features, coordinates, duplicates=r).features for r in ("sum", "mean", "max")])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


# Labels


def test_labels_agree_or_are_ignored():
    _, coordinates = with_duplicates()
    labels = torch.randint(0, 2, (len(coordinates),))
    x = SparseTensor(torch.zeros(len(coordinates), 1), coordinates, duplicates="sum")
    ours, conflicts = merge_labels(labels, x.inverse_mapping, ignore_label=-1)
    expected = [
        labels[rows[0]].item() if len(set(labels[rows].tolist())) == 1 else -1
        for rows in groups_of(coordinates).values()
    ]
    assert ours.tolist() == expected
    assert conflicts.tolist() == [i for i, v in enumerate(expected) if v == -1]
    assert 0 < len(conflicts) < len(expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_keep_their_dtype(dtype):
    labels, conflicts = merge_labels(
        torch.tensor([3, 3, 1, 2], dtype=dtype), torch.tensor([0, 0, 1, 1]), 255 if dtype == torch.uint8 else -7
    )
    assert labels.dtype == dtype and labels.tolist() == [3, 255 if dtype == torch.uint8 else -7]
    assert conflicts.tolist() == [1]


def test_labels_of_nothing():
    labels, conflicts = merge_labels(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert labels.shape == conflicts.shape == (0,)
    assert merge_labels(torch.tensor([5]), torch.tensor([1]), num_voxels=3).labels.tolist() == [-100, 5, -100]


# Extents


@pytest.mark.parametrize("D", [1, 2, 3, 4, 5, 6])
def test_far_voxels_are_not_mixed_up(D):
    """Coordinates that differ in one axis by a power of two, up to what 32 bits (128 in all) hold."""
    high = {1: 31, 2: 31, 3: 31, 4: 28, 5: 22, 6: 18}[D]
    rows = [[0] * (D + 1)]
    for axis in range(1, D + 1):
        for power in range(high):
            for sign in (1, -1):
                rows.append([0] * (D + 1))
                rows[-1][axis] = sign << power
    coordinates = torch.tensor(rows)[torch.randperm(len(rows))]
    x = SparseTensor(torch.randn(len(rows), 1, dtype=torch.float64), coordinates)
    assert len(x) == len(rows) and torch.equal(x.coordinates, coordinates)
    # a kernel of 3 sees what the dictionary sees, and nothing that merely looks alike
    offsets = truth.cross((3,) * D, (1,) * D)
    weight = torch.randn(len(offsets), 1, 1, dtype=torch.float64)
    out = F.convolve(x, weight, kernel=Kernel.of(3, D, shape="cross"))
    found = truth.triples(coordinates, coordinates, offsets)
    assert_close(out.features, truth.convolve(x.features, weight, found, len(rows)), rtol=1e-13, atol=1e-13)
    for stride in (2, 3, 1024):
        down = F.pool(x, "sum", kernel=1, stride=stride)
        assert truth.listed(down.coordinates) == truth.strided(coordinates, (stride,) * D)


def test_full_int32_range_in_three_axes_and_a_million_batches():
    """What the docs promise: 96 bits of coordinates and 20 of batch ids, in keys of 128."""
    low, high = -(2**31), 2**31 - 1
    corners = [[b, x, y, z] for b in (0, 2**20 - 1) for x in (low, high) for y in (low, high) for z in (low, high)]
    coordinates = torch.tensor(corners)[torch.randperm(len(corners))]
    for given in (coordinates, coordinates.int()):
        x = SparseTensor(torch.arange(16.0)[:, None], given)
        assert len(x) == 16
        found = x.coordinate_manager.find(x.coordinate_map_key, given)
        assert found.tolist() == list(range(16))
        near = given.long() + torch.tensor([0, 1, 0, 0])
        assert x.coordinate_manager.find(x.coordinate_map_key, near.clamp(low, high)).tolist().count(-1) == 8


@pytest.mark.parametrize("first", [0, 2**20, 2**24 + 1, 2**31 - 2**12, -(2**31)])
def test_many_batch_ids(first):
    """Thousands of ids, as of clusters, anywhere in the range of int32."""
    n = 3000
    ids = first + torch.randperm(n)
    coordinates = torch.stack([ids, *torch.randint(-5, 5, (2, n))], 1).int()
    x = SparseTensor(torch.randn(n, 2, dtype=torch.float64), coordinates)
    total = F.global_pool(x, "sum")
    assert total.coordinates[:, 0].tolist() == list(range(first, first + n))
    assert torch.equal(total.features, x.features[ids.argsort()])


def test_ids_beyond_a_million_do_not_touch_their_neighbours():
    coordinates = torch.tensor([[2**20, 0, 0], [2**20 + 1, 1, 0], [2**20, 1, 0], [2**25, 0, 0]])
    x = SparseTensor(torch.tensor([[1.0], [10.0], [100.0], [1000.0]]), coordinates)
    assert F.pool(x, "sum", kernel=3).features.flatten().tolist() == [101, 10, 101, 1000]


# Section D: bad input


SQUARE = torch.tensor([[0, 1, 2], [0, 4, 2], [1, 5, -3]])
TWO = torch.rand(3, 2)
WEIGHT = torch.rand(9, 2, 4)


def square(**options):
    return SparseTensor(TWO, SQUARE, **options)


def change(row, column, value, dtype):
    c = SQUARE.to(dtype)
    c[row, column] = value
    return c


def below(x):
    return F.pool(x, "sum", kernel=2, stride=2)


FAR = torch.tensor([[0] + [-(2**62)] * 3, [0] + [2**62] * 3])
BOTTOM = torch.tensor([[0, -(2**31), 0]], dtype=torch.int32)

REFUSED = {
    # coordinates
    "fraction": (
        lambda: SparseTensor(TWO, change(1, 2, 2.5, torch.float32)),
        ValueError,
        r"coordinates.*whole.*2\.5.*row 1",
    ),
    "NaN coordinate": (
        lambda: SparseTensor(TWO, change(1, 2, math.nan, torch.float32)),
        ValueError,
        "coordinates.*whole",
    ),
    "infinite coordinate": (
        lambda: SparseTensor(TWO, change(1, 2, math.inf, torch.float64)),
        ValueError,
        "coordinates",
    ),
    "float32 batch id": (
        lambda: SparseTensor(TWO, change(2, 0, 2.0**24 + 2, torch.float32)),
        ValueError,
        r"coordinates.*float32.*16777216",
    ),
    "float32 coordinate": (
        lambda: SparseTensor(TWO, change(2, 1, -(2.0**24) - 2, torch.float32)),
        ValueError,
        r"coordinates.*float32.*16777216",
    ),
    "float64 coordinate": (
        lambda: SparseTensor(TWO, change(2, 1, 2.0**60, torch.float64)),
        ValueError,
        r"coordinates.*float64",
    ),
    "half coordinate": (
        lambda: SparseTensor(TWO, change(2, 1, 4096, torch.float16)),
        ValueError,
        r"coordinates.*float16.*2048",
    ),
    "bool coordinates": (lambda: SparseTensor(TWO, SQUARE.bool()), TypeError, r"coordinates.*bool"),
    "complex coordinates": (
        lambda: SparseTensor(TWO, SQUARE.to(torch.complex64)),
        TypeError,
        r"coordinates.*complex64",
    ),
    "list of coordinates": (
        lambda: SparseTensor(TWO, SQUARE.tolist()),
        TypeError,
        "coordinates must be a tensor.*list",
    ),
    "beyond 128 bits": (lambda: SparseTensor(TWO[:2], FAR), ValueError, r"coordinates.*128.*4611686018427387904"),
    "no axis": (lambda: SparseTensor(TWO, SQUARE[:, :1]), ValueError, r"coordinates.*\(3, 1\)"),
    "seven axes": (lambda: SparseTensor(TWO, torch.zeros(3, 8).int()), ValueError, r"coordinates.*\(3, 8\)"),
    "vector of coordinates": (lambda: SparseTensor(TWO, SQUARE[:, 0]), ValueError, r"coordinates.*\(3,\)"),
    "off the stride": (lambda: SparseTensor(TWO, SQUARE, 2), ValueError, r"coordinates.*multiples of the stride.*2, 2"),
    "strided below int32": (
        lambda: F.pool(SparseTensor(TWO[:1], BOTTOM), "sum", kernel=1, stride=3),
        ValueError,
        r"-2147483648",
    ),
    # duplicates
    "duplicates": (
        lambda: SparseTensor(TWO, SQUARE[[0, 2, 2]]),
        ValueError,
        r"coordinates has 1 duplicates.*row 2.*\[1, 5, -3\]",
    ),
    "unknown rule": (
        lambda: SparseTensor(TWO, SQUARE, duplicates="median"),
        ValueError,
        "duplicates must be.*'median'",
    ),
    "duplicates among targets": (
        lambda: F.convolve(square(), WEIGHT, kernel=3, coordinates=SQUARE[[0, 1, 0]]),
        ValueError,
        r"coordinates has 1 duplicates.*row 2",
    ),
    # stride
    "stride 0": (lambda: square(stride=0), ValueError, "stride must be at least 1, got 0"),
    "negative stride": (lambda: square(stride=(1, -2)), ValueError, r"stride must be at least 1, got \(1, -2\)"),
    "fractional stride": (lambda: square(stride=1.5), TypeError, "stride must be integer, got 1.5"),
    "three strides": (lambda: square(stride=(1, 1, 1)), ValueError, r"stride must be one number or 2, got \(1, 1, 1\)"),
    "layer of stride 0": (
        lambda: F.convolve(square(), WEIGHT, kernel=3, stride=0),
        ValueError,
        "stride must be at least 1, got 0",
    ),
    "module of stride 0": (lambda: nn.Convolution(2, 4, 3, stride=0), ValueError, "stride must be at least 1, got 0"),
    "pool of stride 0": (
        lambda: nn.MaxPool(2, (1, 0), dimension=2),
        ValueError,
        r"stride must be at least 1, got \(1, 0\)",
    ),
    "kernel of size 0": (lambda: nn.Convolution(2, 4, 0), ValueError, "kernel_size must be at least 1, got 0"),
    "dilation 0": (lambda: nn.Convolution(2, 4, 3, dilation=0), ValueError, "dilation must be at least 1, got 0"),
    "transposed past stride 1": (
        lambda: F.conv_transpose(square(), WEIGHT, kernel=3, stride=2),
        ValueError,
        r"stride of a transposed layer.*\(1, 1\).*\(2, 2\)",
    ),
    # lengths
    "fewer features": (lambda: SparseTensor(TWO[:2], SQUARE), ValueError, "features has 2 rows, coordinates 3"),
    "fewer features for a key": (
        lambda: SparseTensor(
            TWO[:2], coordinate_map_key=square().coordinate_map_key, coordinate_manager=square().coordinate_manager
        ),
        ValueError,
        "features has 2 rows.*3",
    ),
    "replaced by fewer": (lambda: square().replace(TWO[:1]), ValueError, "features has 1 rows.*3"),
    "mask too short": (
        lambda: F.prune(square(), torch.ones(2, dtype=torch.bool)),
        ValueError,
        r"keep must be \(3,\), got \(2,\)",
    ),
    "mask of floats": (lambda: F.prune(square(), torch.ones(3)), TypeError, "keep must be.*bool.*float32"),
    "mask as list": (lambda: F.prune(square(), [True, False, True]), TypeError, "keep must be.*bool.*list"),
    "global rows": (
        lambda: F.broadcast(square(), torch.rand(3, 2)),
        ValueError,
        "global features must have 2 rows, got 3",
    ),
    # features
    "integer features": (lambda: SparseTensor(SQUARE, SQUARE), TypeError, "features must be.*floating-point.*int64"),
    "vector of features": (
        lambda: SparseTensor(TWO[:, 0], SQUARE),
        ValueError,
        r"features must be \(N, C\), got shape \(3,\)",
    ),
    "list of features": (lambda: SparseTensor(TWO.tolist(), SQUARE), TypeError, "features must be.*list"),
    # channels
    "channels": (lambda: nn.Convolution(3, 4, 3, dimension=2)(square()), ValueError, "2 channels.*expects 3"),
    "channels of groups": (
        lambda: F.convolve(square(), WEIGHT, kernel=3, groups=2),
        ValueError,
        "2 channels.*expects 4",
    ),
    "channels of depthwise": (
        lambda: nn.DepthwiseConvolution(3, 3, dimension=2)(square()),
        ValueError,
        r"weight must be \(9, 2\).*\(9, 3\)",
    ),
    "channels of linear": (lambda: nn.Linear(5, 1)(square()), ValueError, "2 channels.*expects 5"),
    "channels of batch norm": (lambda: nn.BatchNorm(5)(square()), ValueError, "2 channels.*5"),
    "channels of a sum": (
        lambda: (lambda x: x + x.replace(torch.rand(3, 5)))(square()),
        ValueError,
        r"channels.*\[2, 5\]",
    ),
    "channels of a union": (
        lambda: (lambda x: F.union(x, x.replace(torch.rand(3, 5))))(square()),
        ValueError,
        r"channels.*\[2, 5\]",
    ),
    "channels of a broadcast": (lambda: F.broadcast_add(square(), torch.rand(2, 5)), ValueError, "2 channels.*5"),
    "kernel volume": (lambda: F.convolve(square(), WEIGHT, kernel=2), ValueError, r"weight must be \(4, .*\(9, 2, 4\)"),
    "weight as vector": (
        lambda: F.convolve(square(), WEIGHT[0, 0], kernel=3),
        ValueError,
        r"weight must be \(9, .*\(4,\)",
    ),
    "bias": (lambda: F.convolve(square(), WEIGHT, torch.rand(3), kernel=3), ValueError, r"bias.*3.*4"),
    "dtype of the weight": (
        lambda: F.convolve(square(), WEIGHT.double(), kernel=3),
        TypeError,
        "weight.*(Double|float64)",
    ),
    "no channel": (lambda: nn.Convolution(0, 4, 3), ValueError, "in_channels must be at least 1, got 0"),
    "groups": (lambda: nn.Convolution(3, 4, 3, groups=2), ValueError, "groups must divide.*3.*4.*2"),
    # axes
    "axes of a layer": (lambda: nn.Convolution(2, 4, 3)(square()), ValueError, "input has 2 axes.*3"),
    "axes of a pool": (lambda: nn.MaxPool(2, 2)(square()), ValueError, "input has 2 axes.*3"),
    "axes of a kernel": (
        lambda: F.convolve(square(), WEIGHT, kernel=Kernel.of(3, 3)),
        ValueError,
        "kernel has 3 axes.*2",
    ),
    "axes of the manager": (lambda: square(coordinate_manager=CoordinateManager(3)), ValueError, "2 axes.*3"),
    "axes of the targets": (
        lambda: F.convolve(square(), WEIGHT, kernel=3, coordinates=SQUARE[:, :2]),
        ValueError,
        r"coordinates must be \(N, 3\), got \(3, 2\)",
    ),
    "dimension of a manager": (lambda: CoordinateManager(7), ValueError, "dimension must be 1 to 6, got 7"),
    "kind of dimension": (lambda: CoordinateManager(2.0), TypeError, "dimension must be.*2.0"),
    # devices, managers, maps
    "devices": (lambda: SparseTensor(TWO.to("meta"), SQUARE), ValueError, "coordinates are on cpu, features on meta"),
    "managers": (lambda: square() + square(), ValueError, "different coordinate managers"),
    "managers of a cat": (lambda: F.cat(square(), square()), ValueError, "different coordinate managers"),
    "managers of a union": (lambda: F.union(square(), square()), ValueError, "different coordinate managers"),
    "manager of the targets": (
        lambda: F.convolve(square(), WEIGHT, kernel=3, coordinates=square()),
        ValueError,
        "different coordinate managers",
    ),
    "voxels of a cat": (
        lambda: (lambda x: F.cat(x, F.prune(x, torch.tensor([True, False, True]))))(square()),
        ValueError,
        "cat needs the same voxels.*pruned",
    ),
    "strides of a sum": (lambda: (lambda x: x + below(x))(square()), ValueError, r"equal strides.*\(1, 1\).*\(2, 2\)"),
    "unknown key": (
        lambda: SparseTensor(
            TWO, coordinate_map_key=CoordinateMapKey((7, 7)), coordinate_manager=square().coordinate_manager
        ),
        ValueError,
        r"coordinate_map_key.*7, 7.*not in this manager",
    ),
    "unknown target": (
        lambda: F.convolve(square(), WEIGHT, kernel=3, coordinates=CoordinateMapKey((1, 1), "x")),
        ValueError,
        "'x'.*not in this manager",
    ),
    "neither": (lambda: SparseTensor(TWO), ValueError, "either coordinates or coordinate_map_key"),
    "both": (
        lambda: SparseTensor(TWO, SQUARE, coordinate_map_key=CoordinateMapKey((1, 1))),
        ValueError,
        "either coordinates or coordinate_map_key",
    ),
    "key alone": (
        lambda: SparseTensor(TWO, coordinate_map_key=CoordinateMapKey((1, 1))),
        ValueError,
        "needs its coordinate_manager",
    ),
    "nothing to unite": (lambda: F.union(), ValueError, "inputs.*none"),
    "nothing to join": (lambda: F.cat(), ValueError, "inputs.*none"),
    "a plain tensor": (lambda: F.cat(square(), TWO), TypeError, "inputs.*Tensor"),
    # batch entries
    "batch id beyond the size": (
        lambda: F.global_pool(square(batch_size=1), "sum"),
        ValueError,
        r"batch ids.*\[0, 1\).*0 to 1",
    ),
    "negative size": (lambda: CoordinateManager(2, -1), ValueError, "batch_size.*-1"),
    # interpolation, dense
    "queries": (
        lambda: F.interpolate(square(), torch.rand(4, 2)),
        ValueError,
        r"coordinates must be \(Q, 3\), got \(4, 2\)",
    ),
    "fractional batch ids": (
        lambda: F.interpolate(square(), torch.rand(4, 3) + 0.1),
        ValueError,
        "batch ids must be integral",
    ),
    "NaN queries": (
        lambda: F.interpolate(square(), torch.full((1, 3), math.nan)),
        ValueError,
        "coordinates must be finite",
    ),
    "small grid": (lambda: F.to_dense(square(), (2, 2, 3, 3)), ValueError, "outside of the grid"),
    "channels of the grid": (
        lambda: F.to_dense(square(), (2, 7, 9, 9), (0, -3)),
        ValueError,
        r"\(B, 2, .*\(2, 7, 9, 9\)",
    ),
    "corner off the stride": (
        lambda: F.to_dense(below(square()), None, (1, 0)),
        ValueError,
        r"min_coordinate \[1, 0\].*multiple",
    ),
    "corner of other axes": (
        lambda: F.to_dense(square(), None, (1, 0, 0)),
        ValueError,
        "min_coordinate must have 2 entries, got 3",
    ),
    "pool mode": (lambda: F.pool(square(), "median", kernel=2), ValueError, "mode.*'median'"),
    # labels
    "float labels": (
        lambda: merge_labels(torch.rand(2), torch.tensor([0, 0])),
        TypeError,
        "labels must be integer, got torch.float32",
    ),
    "lengths of labels": (
        lambda: merge_labels(torch.tensor([1, 2]), torch.tensor([0])),
        ValueError,
        "labels has 2 entries, inverse 1",
    ),
    "voxel of a label": (
        lambda: merge_labels(torch.tensor([1]), torch.tensor([3]), num_voxels=2),
        ValueError,
        r"inverse must be in \[0, 2\)",
    ),
    # kernels
    "even cross": (lambda: Kernel.of(2, 2, shape="cross"), ValueError, r"odd, got \(2, 2\)"),
    "offsets of other axes": (lambda: Kernel.of(1, 2, offsets=[[1, 2, 3]]), ValueError, r"offsets must be \(K, 2\)"),
    "fractional offsets": (lambda: Kernel.of(1, 2, offsets=[[1, 2.5]]), TypeError, "offsets must be integer"),
    "no offsets": (lambda: Kernel.of(1, 2, offsets=[]), ValueError, "offsets"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_by_name(name):
    attempt, kind, message = REFUSED[name]
    with pytest.raises(kind) as caught:
        attempt()
    assert type(caught.value) is kind  # and not a class under it, such as UnicodeError or NotImplementedError
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)


def test_refusing_leaves_the_manager_as_it_was():
    x = square()
    manager, maps = x.coordinate_manager, list(x.coordinate_manager.maps)
    for bad, options in [(SQUARE[[0, 0, 1]], {}), (SQUARE + 0.5, {}), (SQUARE, {"stride": 2})]:
        with pytest.raises(ValueError):
            SparseTensor(TWO, bad, coordinate_manager=manager, **options)
    assert list(manager.maps) == maps
    assert square(coordinate_manager=manager).coordinate_map_key.name == "1"  # and the next name is the next one


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32, torch.float64, torch.float16])
def test_whole_numbers_of_any_kind_are_coordinates(dtype):
    x = SparseTensor(TWO, SQUARE.to(dtype))
    assert not x.coordinates.is_floating_point()
    assert truth.listed(x.coordinates) == truth.listed(SQUARE)


def test_minus_zero_is_zero():
    with pytest.raises(ValueError, match="1 duplicates"):
        SparseTensor(TWO[:2], torch.tensor([[0.0, -0.0], [0.0, 0.0]]))


def test_float32_is_taken_as_far_as_it_tells_whole_numbers_apart():
    c = torch.tensor([[2.0**24 - 1, 1 - 2.0**24], [0.0, 2.0**24 - 1]])
    assert SparseTensor(TWO[:2], c).coordinates.tolist() == [[2**24 - 1, 1 - 2**24], [0, 2**24 - 1]]
    for far in ([[2.0**24 + 1, 0.0]], [[0.0, 2.0**24 + 1]]):  # which are 2^24 already
        with pytest.raises(ValueError, match="16777216"):
            SparseTensor(TWO[:1], torch.tensor(far))


def test_nan_features_reach_the_voxels_that_see_them_and_no_others():
    coordinates = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 3, 0], [0, 4, 1], [1, 0, 0]])
    features = torch.ones(5, 2)
    features[0, 1] = math.nan
    x = SparseTensor(features, coordinates)
    seen = [True, True, False, False, False]
    out = F.convolve(x, torch.ones(9, 2, 3), kernel=3)
    assert out.features.isnan().all(1).tolist() == seen == out.features.isnan().any(1).tolist()
    for mode in ("sum", "avg", "max"):
        nan = F.pool(x, mode, kernel=3).features.isnan()
        assert nan[:, 1].tolist() == seen and not nan[:, 0].any()
        assert F.global_pool(x, mode).features.isnan().tolist() == [[False, True], [False, False]]
    for rule in ("sum", "mean", "max"):
        merged = SparseTensor(features, torch.zeros(5, 3).int(), duplicates=rule).features
        assert merged.isnan().tolist() == [[False, True]]
    assert F.union(x, x).features.isnan().sum() == 1
    assert F.to_dense(x)[0].isnan().sum() == 1


def test_nan_does_not_leak_through_rows_that_are_not_there():
    """0 stands for a missing row, not 0 times what lies elsewhere in memory."""
    x = SparseTensor(torch.full((2, 3), math.nan), torch.tensor([[0, 0], [0, 9]]))
    out = F.convolve(x, torch.ones(3, 3, 2), kernel=3, coordinates=torch.tensor([[0, 5], [0, 1]]))
    assert out.features.isnan().any(1).tolist() == [False, True]
    assert not out.features[0].any()


# Events


@pytest.mark.parametrize("batch_size", [None, 3, 5])
def test_events_apart(batch_size):
    """Ids 0 and 2 have voxels, 1 has none: it is there where the batch size says so."""
    coordinates = torch.tensor([[2, 5, 5], [0, 1, 1], [2, -4, 0], [0, 0, 3], [2, 1, 1]])
    features = torch.arange(10.0).reshape(5, 2)
    x = SparseTensor(features, coordinates, batch_size=batch_size)
    ids = [0, 2] if batch_size is None else list(range(batch_size))
    rows = {b: [i for i, c in enumerate(coordinates.tolist()) if c[0] == b] for b in ids}
    assert [f.tolist() for f in x.decomposed_features] == [features[rows[b]].tolist() for b in ids]
    assert [c.tolist() for c in x.decomposed_coordinates] == [coordinates[rows[b], 1:].tolist() for b in ids]
    both = x.decomposed_coordinates_and_features
    assert [len(c) for c in both[0]] == [len(f) for f in both[1]] == [len(rows[b]) for b in ids]
    for b in (0, 1, 2, 7):
        here = [i for i, c in enumerate(coordinates.tolist()) if c[0] == b]
        assert torch.equal(x.features_at(b), features[here])
        assert torch.equal(x.coordinates_at(b), coordinates[here, 1:])
    for mode, value in [("sum", 26.0), ("avg", 26.0 / 2), ("max", 7.0)]:
        pooled = F.global_pool(x, mode)
        assert pooled.coordinates[:, 0].tolist() == ids and pooled.stride == (0, 0)
        first = [0, 2].index(0)
        assert pooled.features[first].tolist() == {"sum": [8, 10], "avg": [4, 5], "max": [6, 7]}[mode]
        assert not pooled.features[[b not in (0, 2) for b in ids]].any(), value


def test_a_batch_size_given_later_counts():
    x = square()
    assert len(F.global_pool(x, "sum")) == 2
    y = SparseTensor(TWO, SQUARE + 1, coordinate_manager=x.coordinate_manager, batch_size=4)
    assert len(F.global_pool(y, "sum")) == 4 and len(F.global_pool(x, "sum")) == 4


# Copies


def test_copies_share_voxels():
    x = some()
    for y, dtype in [
        (x.float(), torch.float32),
        (x.half(), torch.float16),
        (x.bfloat16(), torch.bfloat16),
        (x.double(), torch.float64),
        (x.to(torch.float32), torch.float32),
        (x.cpu(), torch.float64),
        (x.to("cpu"), torch.float64),
    ]:
        assert y.dtype == dtype and y.coordinate_map_key == x.coordinate_map_key
        assert y.coordinate_manager is x.coordinate_manager
        assert_close(y.features, x.features.to(dtype), rtol=0, atol=0)
    x.requires_grad_()
    assert x.requires_grad and not x.detach().requires_grad and (x * 2).requires_grad
    assert x.replace(torch.zeros(len(x), 9, dtype=torch.float64)).num_channels == 9


def test_merging_information_survives_a_replacement():
    features, coordinates = with_duplicates()
    x = SparseTensor(features, coordinates, duplicates="mean")
    y = x.replace(x.features * 2)
    assert torch.equal(y.inverse_mapping, x.inverse_mapping) and torch.equal(y.unique_index, x.unique_index)


@pytest.mark.parametrize("how", ["deepcopy", "save"])
def test_a_tensor_can_be_copied_and_saved(how):
    x = some()
    layer = nn.Convolution(3, 2, 3, stride=2, dimension=2).double()
    before = layer(x)
    if how == "deepcopy":
        y = copy.deepcopy(x)
    else:
        file = io.BytesIO()
        torch.save(x, file)
        file.seek(0)
        y = torch.load(file, weights_only=False)
    assert y.coordinate_manager is not x.coordinate_manager
    assert torch.equal(y.features, x.features) and torch.equal(y.coordinates, x.coordinates)
    after = layer(y)
    assert torch.equal(after.features, before.features) and torch.equal(after.coordinates, before.coordinates)
    up = nn.ConvolutionTranspose(2, 3, 2, 2, dimension=2).double()(after)
    assert up.coordinate_map_key == y.coordinate_map_key  # the copied manager knows the way back


def test_its_text_says_what_it_is():
    assert repr(square()) == "SparseTensor(3 voxels x 2 channels, 2D, 2 events, stride 1, torch.float32, cpu)"
    assert repr(below(square())).startswith("SparseTensor(3 voxels x 2 channels, 2D, 2 events, stride 2,")
    one = SparseTensor(torch.zeros(1, 1), torch.zeros(1, 2).int())
    assert repr(one).startswith("SparseTensor(1 voxel x 1 channel, 1D, 1 event, stride 1,")
    assert "2 events" in repr(F.global_pool(square(), "sum"))


# Arithmetic


@pytest.mark.parametrize(
    "op",
    [
        lambda x: x + 2, lambda x: 2 + x, lambda x: x - 3, lambda x: 3 - x, lambda x: x * 4, lambda x: 4 * x,
        lambda x: x / 5, lambda x: 5 / x, lambda x: -x, lambda x: x**2,
    ],
)  # fmt: skip
def test_numbers_act_on_the_features(op):
    x = some()
    y = op(x)
    assert y.coordinate_map_key == x.coordinate_map_key and torch.equal(y.features, op(x.features))


def test_tensors_act_on_the_features():
    x = some()
    for v in (
        torch.rand(3).double(),
        torch.rand(len(x), 1).double(),
        torch.rand(len(x), 3).double(),
        torch.tensor(2.0).double(),
    ):
        for op in (torch.add, torch.sub, torch.mul, torch.div):
            symbol = {torch.add: "__add__", torch.sub: "__sub__", torch.mul: "__mul__", torch.div: "__truediv__"}[op]
            assert torch.equal(getattr(x, symbol)(v).features, op(x.features, v))
            assert torch.equal(getattr(x, "__r" + symbol[2:])(v).features, op(v, x.features))
    assert torch.equal((v - x).features, v - x.features)  # torch leaves the left-hand form to us


def test_other_things_do_not_act():
    for other in ("a", None, [1, 2]):
        with pytest.raises(TypeError, match="unsupported operand"):
            square() + other


OPERATIONS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
}


@pytest.mark.parametrize("D", [1, 2, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_arithmetic_is_over_the_union_and_a_missing_row_is_zero(name, D):
    op, manager = OPERATIONS[name], CoordinateManager(D)
    tensors, tables = [], []
    for seed in (1, 2):
        c = truth.random_voxels((8, 40, 60)[D - 1], D, seed=seed, side=(9, 6, 4)[D - 1])
        f = torch.randn(len(c), 2, dtype=torch.float64, requires_grad=True)
        tensors.append(SparseTensor(f, c, coordinate_manager=manager))
        tables.append(dict(zip(truth.listed(c), f, strict=True)))
    out = op(*tensors)
    voxels = truth.order(set(tables[0]) | set(tables[1]), (1,) * D)
    assert set(tables[0]) - set(tables[1]) and set(tables[1]) - set(tables[0]) and set(tables[0]) & set(tables[1])
    assert truth.listed(out.coordinates) == voxels
    zero = torch.zeros(2, dtype=torch.float64)
    expected = torch.stack([op(tables[0].get(v, zero), tables[1].get(v, zero)) for v in voxels])
    assert_close(out.features, expected, rtol=0, atol=0, equal_nan=True)  # a / 0 is infinite, 0 / b is 0
    if name != "div":
        leaves, seed = [t.features for t in tensors], torch.randn_like(expected)
        assert_close(grad(out.features, leaves, seed), grad(expected, leaves, seed), rtol=1e-15, atol=1e-15)


def test_second_derivatives_of_a_product_over_the_union():
    manager = CoordinateManager(1)
    keys = [manager.insert(torch.tensor([[0, i] for i in rows])).key for rows in ([1, 5, 3], [3, 2, 5])]

    def function(a, b):
        x, y = (
            SparseTensor(f, coordinate_map_key=k, coordinate_manager=manager) for f, k in zip((a, b), keys, strict=True)
        )
        return (x * y + x * x).features

    leaves = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in keys]
    assert gradcheck(function, leaves, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, leaves, atol=1e-8, rtol=1e-6)


def test_same_voxels_stay_as_they_are():
    x = some()
    y = x + x.replace(x.features * 2)
    assert y.coordinate_map_key == x.coordinate_map_key and torch.equal(y.features, 3 * x.features)


def test_one_channel_goes_with_many():
    x = some()
    gate = F.prune(x.replace(x.features[:, :1]), torch.arange(len(x)) % 2 == 0)
    out = x * gate
    assert out.num_channels == 3
    rows = truth.match(out.coordinates, x.coordinates)
    even = (torch.arange(len(x)) % 2 == 0)[:, None]
    assert torch.equal(out.features[rows], torch.where(even, x.features * x.features[:, :1], torch.zeros(()).double()))
