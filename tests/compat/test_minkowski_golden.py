"""What MinkowskiEngine 0.5.4 computed, through its names: every stored case, in float64."""

import json

import hepops.compat.minkowski as ME
import numpy as np
import pytest
import torch
from conftest import shared
from torch.testing import assert_close

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}  # both sum a few dozen doubles, in other orders
MODES = ME.SparseTensorQuantizationMode


def names():
    try:
        return sorted(json.loads(shared("golden/sparse/index.json").read_text()))
    except (pytest.skip.Exception, pytest.fail.Exception):
        return ["(none)"]


class Case:
    def __init__(self, name):
        with np.load(shared(f"golden/sparse/{name}.npz")) as file:
            arrays = {key: file[key] for key in file.files}
        self.name, self.meta = name, json.loads(str(arrays.pop("meta")))
        self.arrays = {key: torch.from_numpy(value) for key, value in arrays.items()}

    def __getattr__(self, name):
        try:
            return self.arrays[name]
        except KeyError:
            raise AttributeError(name) from None

    def has(self, name):
        return name in self.arrays

    def input(self, suffix="in", **options):
        features = getattr(self, f"feats_{suffix}").clone().requires_grad_()
        stride = options.pop("stride", self.meta.get("ts_in", 1))
        return features, ME.SparseTensor(features, getattr(self, f"coords_{suffix}"), stride, **options)


def rows_of(coordinates, queries):
    """The row of each query among the coordinates."""
    place = {tuple(row): i for i, row in enumerate(coordinates.tolist())}
    assert len(place) == len(coordinates)
    return torch.tensor([place[tuple(row)] for row in queries.tolist()], dtype=torch.int64)


def check(case, y, expected="feats_out", leaves=()):
    """Output voxels and features match those stored, row by coordinate; and so do the gradients of the leaves."""
    assert len(y) == len(case.coords_out)
    rows = rows_of(y.C, case.coords_out)
    assert_close(y.F[rows], getattr(case, expected), **TOLERANCE)
    if not leaves:
        return
    gradients = torch.autograd.grad((y.F[rows] * case.grad_out).sum(), [leaf for leaf, _ in leaves])
    for gradient, (_, stored) in zip(gradients, leaves, strict=True):
        assert_close(gradient, stored, **TOLERANCE)


def filled(layer, case):
    layer = layer.double()
    with torch.no_grad():
        layer.kernel.copy_(case.kernel.reshape(layer.kernel.shape))
        if case.has("bias"):
            layer.bias.copy_(case.bias)
    leaves = [(layer.kernel, case.grad_kernel.reshape(layer.kernel.shape))]
    return layer, leaves + ([(layer.bias, case.grad_bias)] if case.has("bias") else [])


def geometry(case, default_kernel=3):
    meta = case.meta
    return {
        "kernel_size": meta.get("ks", default_kernel),
        "stride": meta.get("stride", 1),
        "dilation": meta.get("dilation", 1),
        "dimension": meta["D"],
    }


def size_of(case, letter):
    """k and s of a name such as 3d_maxpool_k2_s2."""
    return next((int(part[1:]) for part in case.name.split("_") if part[0] == letter and part[1:].isdigit()), 1)


def convolution(case):
    shape = geometry(case)
    generator = None
    if case.meta.get("region") == "HYPER_CROSS":
        generator = ME.KernelGenerator(5, region_type=ME.RegionType.HYPER_CROSS, dimension=case.meta["D"])
    channels = case.kernel.shape[-2:]
    layer = ME.MinkowskiConvolution(*channels, **shape, bias=case.has("bias"), kernel_generator=generator)
    layer, leaves = filled(layer, case)
    features, x = case.input()
    if case.name == "1d_conv_k1_s2":  # MinkowskiEngine ignores the stride; ours keeps the voxels at even places, halved
        y = layer(x)
        assert sorted(map(tuple, y.C.tolist())) == sorted({(b, c - c % 2) for b, c in case.coords_in.tolist()})
        even = case.coords_in[:, 1] % 2 == 0
        found = rows_of(y.C, case.coords_in[even])
        assert_close(y.F[found], case.feats_in[even] @ case.kernel, **TOLERANCE)
        return
    y = layer(x)
    assert y.tensor_stride == [s * f for s, f in zip(case.meta.get("ts_in", [1] * x.D), y_stride(case), strict=True)]
    check(case, y, leaves=[(features, case.grad_in), *leaves])


def y_stride(case):
    stride = case.meta.get("stride", 1)
    return stride if isinstance(stride, list) else [stride] * case.meta["D"]


def coarse(case, fine):
    """A tensor on the coarse voxels that `fine` is strided to, with the stored features."""
    features = case.feats_in.clone().requires_grad_()
    key = fine.coordinate_manager.stride(fine.coordinate_map_key, 2)
    stored = rows_of(case.coords_in, fine.coordinate_manager.get_coordinates(key))
    x = ME.SparseTensor(features[stored], coordinate_map_key=key, coordinate_manager=fine.coordinate_manager)
    return features, x


def fine_tensor(case):
    c = case.coords_fine if case.has("coords_fine") else case.coords_out
    return ME.SparseTensor(torch.zeros(len(c), 1, dtype=torch.float64), c)


def transposed(case):
    shape = geometry(case) | {"kernel_size": size_of(case, "k"), "stride": 2}
    layer, leaves = filled(ME.MinkowskiConvolutionTranspose(*case.kernel.shape[-2:], **shape), case)
    fine = fine_tensor(case)
    features, x = coarse(case, fine)
    y = layer(x)
    assert y.coordinate_map_key == fine.coordinate_map_key
    check(case, y, leaves=[(features, case.grad_in), *leaves])


def generative(case):
    shape = geometry(case) | {"kernel_size": size_of(case, "k"), "stride": 2}
    layer, leaves = filled(ME.MinkowskiGenerativeConvolutionTranspose(*case.kernel.shape[-2:], **shape), case)
    features, x = case.input(stride=2)
    check(case, layer(x), leaves=[(features, case.grad_in), *leaves])


def local_pool(kind):
    def run(case):
        features, x = case.input()
        y = kind(kernel_size=size_of(case, "k"), stride=size_of(case, "s"), dimension=case.meta["D"])(x)
        check(case, y, leaves=[(features, case.grad_in)])

    return run


def global_pool(kind):
    def run(case):
        features, x = case.input()
        y = kind()(x)
        assert y.C[:, 0].tolist() == sorted(set(case.coords_in[:, 0].tolist()))
        expected = "feats_expected" if case.has("feats_expected") else "feats_out"
        gradient = case.grad_in_expected if case.has("grad_in_expected") else case.grad_in
        check(case, y, expected, leaves=[(features, gradient)])

    return run


def pool_transpose(case):
    features, x = coarse(case, fine_tensor(case))
    y = ME.MinkowskiPoolingTranspose(kernel_size=2, stride=2, dimension=case.meta["D"])(x)
    check(case, y, leaves=[(features, case.grad_in)])


def channelwise(case):
    layer, leaves = filled(ME.MinkowskiChannelwiseConvolution(case.kernel.shape[1], 3, dimension=case.meta["D"]), case)
    features, x = case.input()
    check(case, layer(x), leaves=[(features, case.grad_in), *leaves])


def pair(case):
    a_features, a = case.input("a")
    b_features, b = case.input("b", coordinate_manager=a.coordinate_manager)
    return a_features, a, b_features, b


def union(case):
    a_features, a, b_features, b = pair(case)
    check(case, ME.MinkowskiUnion()(a, b), leaves=[(a_features, case.grad_a), (b_features, case.grad_b)])


def arithmetic(case):
    op = case.name.split("_")[-2]
    _, a, _, b = pair(case)
    y = {"add": a + b, "sub": a - b, "mul": a * b}[op]
    if op != "mul":
        check(case, y)
        return
    # MinkowskiEngine keeps a where b has no voxel; here a missing row is 0 in products too.
    rows = rows_of(y.C, case.coords_out)
    both = {tuple(r) for r in case.coords_a.tolist()} & {tuple(r) for r in case.coords_b.tolist()}
    shared_rows = torch.tensor([tuple(r) in both for r in case.coords_out.tolist()])
    expected = torch.where(shared_rows[:, None], case.feats_out, 0.0)
    assert_close(y.F[rows], expected, **TOLERANCE)


def prune(case):
    features, x = case.input()
    y = ME.MinkowskiPruning()(x, case.keep)
    assert torch.equal(y.C, case.coords_in[case.keep])  # in their order
    check(case, y, leaves=[(features, case.grad_in)])


def broadcast(kind):
    def run(case):
        _, x = case.input()
        g = ME.MinkowskiGlobalAvgPooling()(x)
        stored = rows_of(case.coords_glob[:, :1], g.C[:, :1])
        rows = case.feats_glob[stored]
        g = ME.SparseTensor(rows, coordinate_map_key=g.coordinate_map_key, coordinate_manager=g.coordinate_manager)
        y = kind()(x, g)
        if case.meta.get("verified", True):
            check(case, y)
            return
        batch = rows_of(g.C[:, :1], case.coords_out[:, :1])  # MinkowskiEngine's rows are permuted here
        C = case.feats_in.shape[1]
        expected = rows[batch] if kind is ME.MinkowskiBroadcast else torch.cat([y.F[:, :C], rows[batch]], 1)
        assert_close(y.F[rows_of(y.C, case.coords_out)], expected, **TOLERANCE)

    return run


def interpolate(case):
    features, x = case.input()
    y = x.features_at_coordinates(case.query)
    assert_close(y, case.feats_out, **TOLERANCE)
    (gradient,) = torch.autograd.grad((y * case.grad_out).sum(), features)
    assert_close(gradient, case.grad_in, **TOLERANCE)
    assert_close(ME.MinkowskiInterpolation()(x, case.query), case.feats_out, **TOLERANCE)


def given_coordinates(case):
    layer, leaves = filled(ME.MinkowskiConvolution(*case.kernel.shape[-2:], 3, dimension=case.meta["D"]), case)
    features, x = case.input()
    y = layer(x, case.coords_query)
    assert torch.equal(y.C, case.coords_query)
    check(case, y, leaves=[(features, case.grad_in), *leaves])


def merged(case):
    mode = MODES[case.meta["op"].split()[-1]]
    features, x = case.input(quantization_mode=mode)
    assert torch.equal(x.unique_index, case.unique_index)
    assert torch.equal(x.C[x.inverse_mapping], case.coords_in)
    check(case, x, leaves=[(features, case.grad_in)])


def quantize(case):
    voxels, labels, index, inverse = ME.utils.sparse_quantize(
        case.coords_cont.numpy(),
        labels=case.labels.numpy(),
        ignore_label=-100,
        quantization_size=0.5,
        return_index=True,
        return_inverse=True,
    )
    assert (voxels == case.coords_out.numpy()).all()
    assert (labels == case.labels_expected.numpy()).all()
    assert (index == case.index.numpy()).all()
    assert (inverse == case.inverse.numpy()).all()


def field(case):
    x = ME.TensorField(case.feats_in, case.coords_cont)
    y = x.sparse()
    rows = rows_of(y.C, case.coords_sparse)
    assert_close(y.F[rows], case.feats_sparse, **TOLERANCE)
    layer = ME.MinkowskiConvolution(*case.kernel.shape[-2:], 3, dimension=case.meta["D"]).double()
    with torch.no_grad():
        layer.kernel.copy_(case.kernel)
    z = layer(y)
    assert_close(z.F[rows], case.feats_conv, **TOLERANCE)
    assert_close(z.slice(x).F, case.feats_slice, **TOLERANCE)


CHECKS = {
    "conv": convolution,
    "conv_transpose": transposed,
    "generative_conv_transpose": generative,
    "sum_pool": local_pool(ME.MinkowskiSumPooling),
    "avg_pool": local_pool(ME.MinkowskiAvgPooling),
    "max_pool": local_pool(ME.MinkowskiMaxPooling),
    "global_sum": global_pool(ME.MinkowskiGlobalSumPooling),
    "global_avg": global_pool(ME.MinkowskiGlobalAvgPooling),
    "global_max": global_pool(ME.MinkowskiGlobalMaxPooling),
    "pool_transpose": pool_transpose,
    "channelwise_conv": channelwise,
    "union(sum)": union,
    "add": arithmetic,
    "sub": arithmetic,
    "mul": arithmetic,
    "prune": prune,
    "broadcast": broadcast(ME.MinkowskiBroadcast),
    "broadcast_add": broadcast(ME.MinkowskiBroadcastAddition),
    "broadcast_mul": broadcast(ME.MinkowskiBroadcastMultiplication),
    "broadcast_cat": broadcast(ME.MinkowskiBroadcastConcatenation),
    "features_at_coordinates:": interpolate,
    "conv evaluated on user coordinates": given_coordinates,
    "SparseTensor": merged,
    "sparse_quantize(quantization_size=0.5,": quantize,
    "TensorField(avg).sparse()": field,
}


@pytest.mark.parametrize("name", names())
def test_gives_what_minkowski_engine_gave(name):
    case = Case(name)
    op = case.meta["op"]
    CHECKS.get(op, CHECKS.get(op.split()[0]))(case)
