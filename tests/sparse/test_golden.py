"""All 239 cases that MinkowskiEngine gave in float64: values and gradients; where it is known to err, what is right."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import shared
from hepops.sparse import CoordinateManager, Kernel, SparseTensor, merge_labels, nn
from hepops.sparse import functional as F
from torch.testing import assert_close

from . import truth

TOTAL = 239


def load_index():
    try:
        return json.loads(shared("golden/sparse/index.json").read_text())
    except pytest.skip.Exception:
        return {}


INDEX = load_index()


class Case:
    """The arrays of one case; it knows which of them have been looked at."""

    def __init__(self, name):
        file = np.load(shared(f"golden/sparse/{name}.npz"))
        self.name, self.meta = name, INDEX[name]
        self.arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
        self.unseen = set(self.arrays)
        self.dimension = self.meta["D"]

    def __contains__(self, key):
        return key in self.arrays

    def __getitem__(self, key):
        self.unseen.discard(key)
        return self.arrays[key]

    def leaf(self, key):
        return self[key].clone().requires_grad_()

    def axes(self, key):
        return tuple(self.meta[key])

    def tensor(self, features="feats_in", coordinates="coords_in", stride=1, manager=None):
        return SparseTensor(self.leaf(features), self[coordinates], stride, coordinate_manager=manager)


def close(ours, theirs):
    assert_close(ours, theirs, rtol=0, atol=1e-10)


def compare(case, out, leaves, *, coordinates="coords_out", features="feats_out", grad_out="grad_out"):
    """Values, and the gradient with respect to each leaf (name of the stored gradient -> leaf)."""
    rows = truth.match(out.coordinates, case[coordinates])
    ours = out.features[rows]
    close(ours, case[features])
    if leaves:
        grads = torch.autograd.grad(ours, list(leaves.values()), case[grad_out])
        for name, grad in zip(leaves, grads, strict=True):
            close(grad, case[name].reshape(grad.shape))


def layer_of(case, kind=nn.Convolution, **options):
    """The layer that the stored state dict belongs to."""
    kernel = case["kernel"]
    state = {"kernel": kernel} | ({"bias": case["bias"]} if "bias" in case else {})
    channels = (kernel.shape[-2], kernel.shape[-1])
    layer = kind(*channels, bias="bias" in case, dimension=case.dimension, dtype=torch.float64, **options)
    layer.load_state_dict(state)
    return layer


def leaves_of(x, layer):
    named = {"grad_in": x.features, "grad_kernel": layer.kernel}
    return named | ({"grad_bias": layer.bias} if layer.bias is not None else {})


def conv(case):
    if case.meta.get("region") == "HYPER_CROSS":
        kernel = Kernel.of(5, case.dimension, shape="cross")
        assert [list(offset) for offset in kernel.offsets()] == case.meta["offsets"]
        layer, stride = layer_of(case, kernel_size=kernel), 1
    else:
        options = {"kernel_size": case.axes("ks"), "stride": case.axes("stride"), "dilation": case.axes("dilation")}
        layer, stride = layer_of(case, **options), case.axes("ts_in")
    x = case.tensor(stride=stride)
    out = layer(x)
    compare(case, out, leaves_of(x, layer))
    if "ts_out" in case.meta:
        assert out.stride == case.axes("ts_out")
    if out.stride == x.stride:  # submanifold: the caller's rows, in the caller's order
        assert torch.equal(out.coordinates, case["coords_in"])
        assert out.coordinate_map_key == x.coordinate_map_key


def conv_1d_k1_s2(case):
    """MinkowskiEngine forgets the stride here; its rows at even coordinates are right, the others should not be."""
    x, weight = case.tensor(), case.leaf("kernel")
    layer = nn.Convolution(*weight.shape, 1, stride=2, dimension=1, dtype=torch.float64)
    assert layer.kernel.shape == (1, *weight.shape)
    layer.load_state_dict({"kernel": weight.detach()[None]})
    out = layer(x)
    theirs = {c: row for c, row in zip(truth.listed(case["coords_out"]), case["feats_out"], strict=True)}
    coordinates = truth.listed(case["coords_in"])
    down = truth.strided(case["coords_in"], (2,))
    assert truth.listed(out.coordinates) == down and out.stride == (2,)
    assert 0 < sum(c in theirs for c in down) < len(down)
    close(out.features, torch.stack([theirs.get(c, torch.zeros(6, dtype=torch.float64)) for c in down]))
    upstream = {c: row for c, row in zip(coordinates, case["grad_out"], strict=True)}
    seed = torch.stack([upstream.get(c, torch.ones(6, dtype=torch.float64)) for c in down])
    grad_in, grad_kernel = torch.autograd.grad(out.features, [x.features, layer.kernel], seed)
    even = torch.tensor([[float(c[1] % 2 == 0)] for c in coordinates], dtype=torch.float64)
    close(grad_in, case["grad_in"] * even)  # its rows do not mix, so the even ones are right
    close(grad_kernel[0], (case["feats_in"] * even).T @ case["grad_out"])
    with pytest.raises(AssertionError):
        close(grad_kernel[0], case["grad_kernel"])


def given_coordinates(case):
    x, layer = case.tensor(), layer_of(case, kernel_size=3)
    out = layer(x, coordinates=case["coords_query"])
    assert torch.equal(out.coordinates, case["coords_query"])  # the caller's rows again
    compare(case, out, leaves_of(x, layer))


def conv_transpose(case):
    """As in a U-Net: the fine voxels come first, the coarse ones from them, and the layer finds its way back."""
    manager = CoordinateManager(case.dimension)
    fine = manager.insert(case["coords_fine"], case.axes("ts_out")).key
    coarse = manager.stride(fine, case.axes("stride"))
    assert coarse.stride == case.axes("ts_in")
    rows = truth.match(case["coords_in"], manager.coordinates(coarse))
    features = case.leaf("feats_in")
    layer = layer_of(
        case,
        nn.ConvolutionTranspose,
        kernel_size=case.axes("ks"),
        stride=case.axes("stride"),
        dilation=case.axes("dilation"),
    )
    out = layer(SparseTensor(features[rows], coordinate_map_key=coarse, coordinate_manager=manager))
    assert out.coordinate_map_key == fine
    compare(case, out, {"grad_in": features, "grad_kernel": layer.kernel})


def generative(case):
    x = case.tensor(stride=case.axes("ts_in"))
    options = {"kernel_size": case.axes("ks"), "stride": case.axes("stride")}
    for kind in (nn.GenerativeConvolutionTranspose, nn.ConvolutionTranspose):  # nothing finer is known to the latter
        layer = layer_of(case, kind, **options)
        out = layer(x if kind is nn.GenerativeConvolutionTranspose else case.tensor(stride=case.axes("ts_in")))
        if kind is nn.GenerativeConvolutionTranspose:
            compare(case, out, leaves_of(x, layer))
        assert out.stride == case.axes("ts_out")
        assert truth.listed(out.coordinates) == truth.order(truth.listed(case["coords_out"]), out.stride)


def pool(mode):
    def run(case):
        kind = {"max": nn.MaxPool, "avg": nn.AvgPool, "sum": nn.SumPool}[mode]
        x = case.tensor()
        layer = kind(case.axes("ks"), case.axes("stride"), dimension=case.dimension)
        compare(case, layer(x), {"grad_in": x.features})

    return run


def pool_transpose(case):
    manager = CoordinateManager(case.dimension)
    fine = manager.insert(case["coords_out"]).key
    coarse = manager.stride(fine, 2)
    features = case.leaf("feats_in")
    rows = truth.match(case["coords_in"], manager.coordinates(coarse))
    x = SparseTensor(features[rows], coordinate_map_key=coarse, coordinate_manager=manager)
    out = nn.PoolTranspose(2, 2, dimension=case.dimension)(x)
    assert out.coordinate_map_key == fine
    compare(case, out, {"grad_in": features})


def global_pool(mode):
    def run(case):
        kind = {"max": nn.GlobalMaxPool, "avg": nn.GlobalAvgPool, "sum": nn.GlobalSumPool}[mode]
        x = case.tensor()
        out = kind()(x)
        assert out.coordinates[:, 0].tolist() == sorted(set(case["coords_in"][:, 0].tolist()))
        # what MinkowskiEngine itself gave is wrong in 4D only, where the hash order of its batch ids is unlucky
        for theirs, right in [("feats_out", "feats_expected"), ("grad_in", "grad_in_expected")]:
            assert torch.allclose(case[theirs], case[right]) or (case.dimension == 4 and mode != "max")
        rows = truth.match(out.coordinates, case["coords_out"])
        close(out.features[rows], case["feats_expected"])
        (grad,) = torch.autograd.grad(out.features[rows], x.features, case["grad_out"])
        close(grad, case["grad_in_expected"])

    return run


def channelwise(case):
    kernel = case["kernel"]
    layer = nn.DepthwiseConvolution(kernel.shape[1], 3, dimension=case.dimension, dtype=torch.float64)
    layer.load_state_dict({"kernel": kernel})
    x = case.tensor()
    compare(case, layer(x), {"grad_in": x.features, "grad_kernel": layer.kernel})


def two(case):
    manager = CoordinateManager(case.dimension)
    return [case.tensor(f"feats_{name}", f"coords_{name}", manager=manager) for name in "ab"]


def union(case):
    a, b = two(case)
    out = nn.Union()(a, b)
    compare(case, out, {"grad_a": a.features, "grad_b": b.features})
    assert truth.listed(out.coordinates) == truth.order(truth.listed(case["coords_out"]), (1,) * case.dimension)


def arithmetic(op):
    def run(case):
        a, b = two(case)
        out = a + b if op == "add" else a - b
        compare(case, out, {})

    return run


def product(case):
    """MinkowskiEngine keeps rows that only a has, where a missing row of b should count as 0; its other rows hold."""
    a, b = two(case)
    out = a * b
    values = [dict(zip(truth.listed(x.coordinates), x.features.detach(), strict=True)) for x in (a, b)]
    zero = torch.zeros(4, dtype=torch.float64)
    c = truth.listed(case["coords_out"])
    expected = torch.stack([values[0].get(v, zero) * values[1].get(v, zero) for v in c])
    close(out.features[truth.match(out.coordinates, case["coords_out"])], expected)
    shared_rows = [i for i, v in enumerate(c) if v in values[1]]
    close(expected[shared_rows], case["feats_out"][shared_rows])
    assert len(shared_rows) < len(c) and bool(expected.any())


def prune(case):
    x, keep = case.tensor(), case["keep"]
    out = nn.Prune()(x, keep)
    compare(case, out, {"grad_in": x.features})
    assert torch.equal(out.coordinates, case["coords_in"][keep])  # relative order kept, which MinkowskiEngine does not


def broadcast(kind):
    def run(case):
        x, ids = case.tensor(), case["coords_glob"][:, 0].long()
        features, order = case["feats_glob"], ids.argsort()
        out = kind()(x, features[order])
        given = dict(zip(ids.tolist(), features, strict=True))
        mine = torch.stack([given[b] for b in case["coords_in"][:, 0].tolist()])
        assert torch.equal(out.coordinates, case["coords_in"])
        right = INDEX[case.name]["verified"]
        assert right or (case.dimension == 4 and kind in (nn.Broadcast, nn.BroadcastConcatenate))
        if kind in (nn.Broadcast, nn.BroadcastConcatenate):
            expected = mine if kind is nn.Broadcast else torch.cat([case["feats_in"], mine], 1)
            close(out.features, expected)
        if right:
            rows = truth.match(out.coordinates, case["coords_out"])
            close(out.features[rows], case["feats_out"])
            return
        # Here the global rows that MinkowskiEngine stored are those of other batch ids. Its broadcast undoes that, so
        # that what it gave is right for the means of the events, and ours must be right for them too.
        means = nn.GlobalAvgPool()(x)
        rows = truth.match(x.coordinates, case["coords_out"])
        close(kind()(x, means).features[rows], case["feats_out"])

    return run


def interpolation(case):
    x = case.tensor()
    ours = F.interpolate(x, case["query"])
    close(ours, case["feats_out"])
    close(torch.autograd.grad(ours, x.features, case["grad_out"])[0], case["grad_in"])


def duplicates(rule):
    def run(case):
        features = case.leaf("feats_in")
        out = SparseTensor(features, case["coords_in"], duplicates=rule)
        compare(case, out, {"grad_in": features})
        rows = truth.match(out.coordinates, case["coords_out"])  # our row of each of its rows
        assert torch.equal(out.unique_index[rows], case["unique_index"])
        assert torch.equal(out.inverse_mapping, rows[case["inverse"]])
        assert torch.equal(out.coordinates, case["coords_in"][out.unique_index])
        assert bool((out.unique_index.diff() > 0).all())  # first occurrences, in the caller's order

    return run


def quantize(case):
    cells = torch.floor(case["coords_cont"] / 0.5).int()
    made = CoordinateManager(case.dimension).insert(torch.cat([torch.zeros(len(cells), 1).int(), cells], 1))
    ours, conflicts = merge_labels(case["labels"], made.inverse, ignore_label=-100)
    rows = truth.match(cells[made.first], case["coords_out"])
    assert torch.equal(ours[rows].long(), case["labels_expected"])
    assert torch.equal(made.first[rows], case["index"])
    assert torch.equal(made.inverse, rows[case["inverse"]])
    assert torch.equal((case["labels_expected"] == -100).nonzero()[:, 0], (ours[rows] == -100).nonzero()[:, 0])
    assert sorted(conflicts.tolist()) == sorted(rows[case["labels_expected"] == -100].tolist())
    # MinkowskiEngine marks other voxels, as many as its meta says
    assert int((case["labels_out"] != case["labels_expected"]).sum()) == case.meta["me_label_bug_rows"]


def tensor_field(case):
    """Real coordinates into voxels (mean), a convolution, and back to the points."""
    features = case.leaf("feats_in")
    voxels = torch.cat([case["coords_cont"][:, :1], case["coords_cont"][:, 1:].floor()], 1)
    x = SparseTensor(features, voxels, duplicates="mean")
    rows = truth.match(x.coordinates, case["coords_sparse"])
    close(x.features[rows], case["feats_sparse"])
    out = layer_of(case, kernel_size=3)(x)
    close(out.features[rows], case["feats_conv"])
    close(out.features[x.inverse_mapping], case["feats_slice"])


RUNS = {
    r"1d_conv_k1_s2": conv_1d_k1_s2,
    r"conv_k3_given_coords": given_coordinates,
    r"(conv_k|hypercross_)\w+": conv,
    r"convtr_\w+": conv_transpose,
    r"gentr_\w+": generative,
    r"sumpool_\w+": pool("sum"),
    r"avgpool_\w+": pool("avg"),
    r"maxpool_\w+": pool("max"),
    r"pooltr_k2_s2": pool_transpose,
    r"globalsumpool": global_pool("sum"),
    r"globalavgpool": global_pool("avg"),
    r"globalmaxpool": global_pool("max"),
    r"channelwise_k3": channelwise,
    r"union": union,
    r"add_diffcoords": arithmetic("add"),
    r"sub_diffcoords": arithmetic("sub"),
    r"mul_diffcoords": product,
    r"prune": prune,
    r"broadcast": broadcast(nn.Broadcast),
    r"broadcast_add": broadcast(nn.BroadcastAdd),
    r"broadcast_mul": broadcast(nn.BroadcastMultiply),
    r"broadcast_cat": broadcast(nn.BroadcastConcatenate),
    r"interp": interpolation,
    r"quant_unweighted_sum": duplicates("sum"),
    r"quant_unweighted_average": duplicates("mean"),
    r"quant_random_subsample": duplicates("first"),
    r"sparse_quantize": quantize,
    r"tensorfield_slice": tensor_field,
}


def run_of(name):
    """The one test of a case: its whole name, else its name without the dimension."""
    short = re.fullmatch(r"[1-4]d_(?:neg_)?(\w+)", name).group(1)
    return next(run for pattern, run in RUNS.items() if name == pattern or re.fullmatch(pattern, short))


def test_no_case_is_left_out():
    shared("golden/sparse/index.json")
    files = {p.stem for p in shared("golden/sparse").glob("*.npz") if not p.stem.startswith("spine_")}
    assert set(INDEX) == files and len(files) == TOTAL
    assert all(callable(run_of(name)) for name in files)


@pytest.mark.parametrize("name", INDEX or [pytest.param("", marks=pytest.mark.skip(reason="needs ../shared/golden"))])
def test_case(name):
    case = Case(name)
    run_of(name)(case)
    assert not case.unseen, f"stored, but never compared: {case.unseen}"
