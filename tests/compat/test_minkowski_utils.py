"""Quantization, collation, initialisation, summaries."""

import hepops.compat.minkowski as ME
import numpy as np
import pytest
import torch
from torch.nn.utils import prune

from .test_minkowski_layers import network
from .test_minkowski_tensor import tensor

utils = ME.utils
POINTS = np.array([[0.1, 0.2], [0.9, 1.2], [0.3, 0.4], [-0.2, 0.1], [0.95, 1.9]])


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_sparse_quantize_returns_what_is_asked_for(kind):
    points, features = kind(POINTS), kind(np.arange(10.0).reshape(5, 2))
    voxels = utils.sparse_quantize(points)
    assert voxels.dtype == torch.int32 and voxels.tolist() == [[0, 0], [0, 1], [-1, 0]]
    assert utils.sparse_quantize(points, return_index=True)[1].tolist() == [0, 1, 3]
    c, f, index, inverse = utils.sparse_quantize(points, features, return_index=True, return_inverse=True)
    assert torch.equal(c, voxels) and inverse.tolist() == [0, 1, 0, 2, 1]
    assert type(f) is type(points) and f.tolist() == features[index.tolist()].tolist()
    assert utils.sparse_quantize(points, return_maps_only=True).tolist() == [0, 1, 3]
    maps = utils.sparse_quantize(points, return_maps_only=True, return_inverse=True)
    assert [m.tolist() for m in maps] == [[0, 1, 3], [0, 1, 0, 2, 1]]


def test_sparse_quantize_sizes():
    assert utils.sparse_quantize(POINTS, quantization_size=0.5).tolist() == [[0, 0], [1, 2], [-1, 0], [1, 3]]
    assert utils.sparse_quantize(POINTS, quantization_size=[1.0, 10.0]).tolist() == [[0, 0], [-1, 0]]
    assert utils.sparse_quantize(torch.tensor([[3, 5], [2, 4]]), quantization_size=2).tolist() == [[1, 2]]
    one = utils.sparse_quantize(torch.tensor([[3], [3]]))
    assert one.tolist() == [[3]]


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_conflicts_of_labels_are_marked_on_their_own_voxel(kind):
    labels = kind(np.array([4, 5, 4, 6, 7]))
    c, found = utils.sparse_quantize(kind(POINTS), labels=labels, ignore_label=-1)
    assert type(found) is type(labels) and found.tolist() == [4, -1, 6]
    c, f, found, index, inverse = utils.sparse_quantize(
        kind(POINTS), kind(POINTS), labels, return_index=True, return_inverse=True
    )
    assert found.tolist() == [4, -100, 6] and len(c) == len(f) == len(index) and len(inverse) == 5
    first, inverse, merged = utils.quantization.quantize_label(kind(np.array([[1], [1], [2]])), labels[[0, 1, 2]], -5)
    assert (first.tolist(), inverse.tolist(), merged.tolist()) == ([0, 2], [0, 0, 1], [-5, 4])


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((POINTS.tolist(),), TypeError, "coordinates must be a numpy array"),
        ((POINTS[0],), ValueError, r"\(N, D\)"),
        ((POINTS, POINTS[:2]), ValueError, "features has 2 rows"),
        ((POINTS, None, np.zeros(2)), ValueError, "labels has 2 rows"),
        ((POINTS * np.nan,), ValueError, "finite"),
        ((POINTS * 1e12,), ValueError, "below 2"),
        ((POINTS, None, None, 0, False, False, False, -1.0), ValueError, "positive"),
        ((POINTS, None, None, 0, False, False, False, [1.0, 1.0, 1.0]), ValueError, "quantization_size"),
        ((POINTS, None, None, 0, False, False, False, None, "meta"), ValueError, "device"),
    ],
)
def test_wrong_points_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        utils.sparse_quantize(*arguments)


def test_quantize_and_unique_maps():
    c = torch.tensor([[0, 1], [0, 2], [0, 1]])
    assert [x.tolist() for x in utils.quantization.quantize(c)] == [[0, 1], [0, 1, 0]]
    assert isinstance(utils.quantization.quantize(c.numpy())[0], np.ndarray)
    assert [x.tolist() for x in utils.unique_coordinate_map(c)] == [[0, 1], [0, 1, 0]]


def test_hashes_tell_rows_apart():
    g = np.random.default_rng(0)
    rows = np.unique(g.integers(-50, 50, (4000, 3)), axis=0)
    assert len(np.unique(utils.ravel_hash_vec(rows))) == len(rows)
    apart = rows[(rows >= 0).all(1)]
    assert len(np.unique(utils.fnv_hash_vec(apart))) == len(apart)
    assert utils.ravel_hash_vec(np.array([[1, 1], [0, 0], [1, 0]])).tolist() == [3, 0, 2]
    assert utils.ravel_hash_vec(np.zeros((0, 3))).shape == (0,)
    with pytest.raises(ValueError, match="more than 2"):
        utils.ravel_hash_vec(np.array([[0, 0, 0], [2**30, 2**30, 2**30]]))


def test_batches():
    a, b = np.array([[0.5, -0.5], [2, 3]]), torch.tensor([[7, 8]])
    c = utils.batched_coordinates([a, b])
    assert c.tolist() == [[0, 0, -1], [0, 2, 3], [1, 7, 8]] and c.dtype == torch.int32
    assert utils.batched_coordinates([a, b], dtype=torch.float32)[0].tolist() == [0, 0.5, -0.5]
    fa, fb = np.ones((2, 3)), torch.zeros(1, 3, dtype=torch.float64)
    coords, feats = utils.sparse_collate([a, b], [fa, fb])
    assert torch.equal(coords, c) and feats.shape == (3, 3)
    *_, labels = utils.sparse_collate([a, b], [fa, fb], [np.array([1, 2]), torch.tensor([3])])
    assert labels.tolist() == [1, 2, 3]
    assert utils.sparse_collate([a, b], [fa, fb], ["x", "y"])[2] == ["x", "y"]
    data = [(a, fa, np.array([1, 2])), (b, fb, np.array([3]))]
    assert utils.batch_sparse_collate(data)[2].tolist() == [1, 2, 3]
    assert torch.equal(utils.SparseCollation()(data)[0], c)
    with pytest.warns(UserWarning, match="1 of 2 events left out"):
        assert len(utils.SparseCollation(limit_numpoints=2)(data)[0]) == 2
    with pytest.raises(ValueError, match="limit_numpoints is 1"):
        utils.SparseCollation(limit_numpoints=1)(data)
    for wrong, error in [
        ((lambda: utils.batched_coordinates([a, np.ones((1, 3))])), ValueError),
        ((lambda: utils.batched_coordinates([a[0]])), ValueError),
        ((lambda: utils.batched_coordinates(3)), TypeError),
        ((lambda: utils.batched_coordinates([a], dtype=torch.int64)), TypeError),
        ((lambda: utils.sparse_collate([a, b], [fa])), ValueError),
        ((lambda: utils.sparse_collate([a], [fb])), ValueError),
        ((lambda: utils.sparse_collate([a], 3)), TypeError),
    ]:
        with pytest.raises(error):
            wrong()


def test_kaiming_normal():
    torch.manual_seed(0)
    kernel = torch.empty(27, 16, 64)
    for mode, fan in (("fan_in", 16 * 27), ("fan_out", 64 * 27)):
        utils.kaiming_normal_(kernel, mode=mode, nonlinearity="relu")
        assert float(kernel.std()) == pytest.approx((2 / fan) ** 0.5, rel=0.02)  # 27648 numbers: 0.4 %
    assert float(utils.kaiming_normal_(torch.empty(300, 400)).std()) == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    with pytest.raises(ValueError, match="fan_in or fan_out"):
        utils.kaiming_normal_(kernel, mode="in")
    with pytest.raises(ValueError, match="2 axes"):
        utils.kaiming_normal_(torch.empty(3))


def test_summary(capsys):
    net = network()
    total, trainable = utils.summary(net, tensor())
    assert total == trainable == sum(p.numel() for p in net.parameters())
    said = capsys.readouterr().out
    assert "MinkowskiConvolution-1" in said and f"Total params: {total:,}" in said
    net[0].requires_grad_(False)
    assert utils.summary(net, tensor())[1] == total - sum(p.numel() for p in net[0].parameters())
    prune.random_unstructured(net[0], "kernel", 0.5)
    assert utils.summary.__globals__["pruned_weight_sparsity_string"](net[0]) == pytest.approx(0.5, abs=0.01)


def test_gradcheck_takes_functions():
    x = tensor(n=10)
    layer = ME.MinkowskiConvolution(4, 2, 3, dimension=3).double()
    inputs = (x.F.requires_grad_(), layer.kernel, layer.kernel_generator, ME.ConvolutionMode.DEFAULT)
    rest = (x.coordinate_map_key, None, x.coordinate_manager)
    assert utils.gradcheck.gradcheck(ME.MinkowskiConvolutionFunction, inputs + rest)


def test_where_voxels_meet():
    x = tensor()
    y = ME.MinkowskiMaxPooling(2, 2, dimension=3)(x)
    fine, coarse = utils.coords.get_coords_map(x, y)
    assert torch.equal(torch.div(x.C[fine, 1:], 2, rounding_mode="floor") * 2, y.C[coarse, 1:])
    with pytest.raises(ValueError, match="different coordinate managers"):
        utils.coords.get_coords_map(x, tensor())
