"""Layers: layouts, options, gradients, state dicts, refusals."""

import copy
import io
import pickle

import hepops.compat.minkowski as ME
import hepops.sparse as sparse
import pytest
import torch
from torch.testing import assert_close

from .test_minkowski_tensor import field, tensor, unique


def check_gradients(function, *leaves):
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


# Convolutions


@pytest.mark.parametrize(
    ("layer", "kernel", "bias"),
    [
        (lambda: ME.MinkowskiConvolution(2, 5, 3, dimension=3), (27, 2, 5), None),
        (lambda: ME.MinkowskiConvolution(2, 5, [3, 1, 2], bias=True, dimension=3), (6, 2, 5), (1, 5)),
        (lambda: ME.MinkowskiConvolution(2, 5, 1, bias=True, dimension=3), (2, 5), (1, 5)),
        (lambda: ME.MinkowskiConvolution(2, 5, 1, 2, dimension=3), (1, 2, 5), None),
        (lambda: ME.MinkowskiConvolution(2, 5, 1, 2, dimension=1), (1, 2, 5), None),
        (lambda: ME.MinkowskiConvolutionTranspose(2, 5, 2, 2, dimension=4), (16, 2, 5), None),
        (lambda: ME.MinkowskiGenerativeConvolutionTranspose(2, 5, 4, 2, dimension=3), (64, 2, 5), None),
        (lambda: ME.MinkowskiChannelwiseConvolution(5, 3, bias=True, dimension=2), (9, 5), (1, 5)),
    ],
)
def test_weights_lie_as_in_checkpoints(layer, kernel, bias):
    made = layer()
    shapes = {name: tuple(p.shape) for name, p in made.state_dict().items()}
    assert shapes == ({"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias})
    assert made.use_mm is (len(kernel) == 2 and "Channelwise" not in type(made).__name__)
    bound = (kernel[-2] * kernel[0] if len(kernel) == 3 else kernel[0]) ** -0.5
    assert float(made.kernel.detach().abs().max()) <= max(bound, 1.0)


def test_attributes_of_a_convolution():
    layer = ME.MinkowskiConvolution(2, 5, [3, 5], [1, 2], 2, dimension=2)
    generator = layer.kernel_generator
    assert (layer.in_channels, layer.out_channels, layer.dimension, layer.is_transpose) == (2, 5, 2, False)
    assert (generator.kernel_size, generator.kernel_stride, generator.kernel_dilation) == ([3, 5], [1, 2], [2, 2])
    assert generator.kernel_volume == 15 and generator.requires_strided_coordinates is False
    assert generator.region_type is ME.RegionType.HYPER_CUBE and layer.bias is None
    assert isinstance(layer, sparse.nn.Convolution) and isinstance(layer, ME.MinkowskiModuleBase)
    assert repr(layer) == "MinkowskiConvolution(in=2, out=5, kernel_size=[3, 5], stride=[1, 2], dilation=[2, 2])"
    assert ME.MinkowskiConvolutionTranspose(2, 5, 2, 2, dimension=2).is_transpose is True


def test_initial_weights_have_the_width_of_the_fan():
    torch.manual_seed(0)
    for kind, fan in ((ME.MinkowskiConvolution, 16), (ME.MinkowskiConvolutionTranspose, 64)):
        layer = kind(16, 64, 3, bias=True, dimension=3)
        bound = (fan * 27) ** -0.5
        assert 0.99 * bound < float(layer.kernel.detach().max()) <= bound
        layer.reset_parameters()
        assert float(layer.bias.detach().abs().max()) <= bound


def test_custom_regions_work():
    """MinkowskiEngine raises here."""
    offsets = torch.tensor([[0, 0], [1, 0], [-1, 2]], dtype=torch.int32)
    generator = ME.KernelGenerator(region_type=ME.RegionType.CUSTOM, region_offsets=offsets, dimension=2)
    layer = ME.MinkowskiConvolution(4, 3, kernel_generator=generator, dimension=2).double()
    x = tensor(D=2)
    place = {tuple(c): f for c, f in zip(x.C.tolist(), x.F, strict=True)}
    expected = torch.stack(
        [
            sum(
                place[(b, u + p, v + q)] @ layer.kernel[k]
                for k, (p, q) in enumerate(offsets.tolist())
                if (b, u + p, v + q) in place
            )
            for b, u, v in x.C.tolist()
        ]
    )
    assert_close(layer(x).F, expected)
    assert "kernel_volume=3" in repr(layer)
    assert ME.get_kernel_volume(ME.RegionType.CUSTOM, None, offsets, None, 2) == 3
    kind, given, volume = generator.get_kernel([1, 1], False)
    assert (kind, volume) == (ME.RegionType.CUSTOM, 3) and torch.equal(given, offsets)


def test_expanded_coordinates_reach_as_far_as_the_kernel():
    x = ME.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 4, 4]]).int())
    y = ME.MinkowskiConvolution(1, 1, 3, expand_coordinates=True, dimension=2)(x)
    assert sorted(map(tuple, y.C[:, 1:].tolist())) == [(a, b) for a in (3, 4, 5) for b in (3, 4, 5)]
    z = ME.MinkowskiConvolution(1, 1, 3, stride=2, expand_coordinates=True, dimension=2)(x)
    assert z.C.tolist() == [[0, 4, 4]] and z.tensor_stride == [2, 2]
    layer = ME.MinkowskiConvolution(1, 1, 3, stride=2, expand_coordinates=True, dimension=2)
    odd = layer(ME.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 5, 5]]).int()))
    assert sorted(map(tuple, odd.C[:, 1:].tolist())) == [(4, 4), (4, 6), (6, 4), (6, 6)]


def test_evaluating_elsewhere():
    x = tensor(D=2)
    layer = ME.MinkowskiConvolution(4, 3, 3, dimension=2).double()
    everywhere = ME.dense_coordinates((3, 1, 4, 4))
    y = layer(x, everywhere)
    assert torch.equal(y.C, everywhere)
    assert torch.equal(layer(x, y).F, y.F) and torch.equal(layer(x, y.coordinate_map_key).F, y.F)
    down = ME.MinkowskiConvolution(4, 4, 2, 2, dimension=2).double()(x)
    odd = layer(down, everywhere)  # not on the grid of stride 2: taken at stride 1
    assert odd.tensor_stride == [1, 1] and torch.equal(odd.C, everywhere)
    one = ME.MinkowskiConvolution(4, 3, 1, dimension=2).double()
    z = one(x, everywhere)  # MinkowskiEngine ignores the coordinates of a kernel of one offset
    assert torch.equal(z.C, everywhere)
    wide = ME.MinkowskiChannelwiseConvolution(4, 3, dimension=2).double()
    assert torch.equal(wide(x, everywhere).C, everywhere)


def test_transposed_layers_return_to_their_own_voxels():
    """MinkowskiEngine's return to the first map of that stride, whichever tensor it belongs to."""
    a = tensor(seed=1)
    b = ME.SparseTensor(
        torch.rand(len(unique(seed=2)), 4).double(), unique(seed=2), coordinate_manager=a.coordinate_manager
    )
    down, up = ME.MinkowskiConvolution(4, 3, 2, 2, dimension=3).double(), None
    up = ME.MinkowskiConvolutionTranspose(3, 4, 2, 2, dimension=3).double()
    assert up(down(a)).coordinate_map_key == a.coordinate_map_key
    assert up(down(b)).coordinate_map_key == b.coordinate_map_key


def test_transposed_layers_after_pruning_return_to_the_first_map():
    x = tensor()
    y = ME.MinkowskiConvolution(4, 3, 2, 2, dimension=3).double()(x)
    pruned = ME.MinkowskiPruning()(y, torch.arange(len(y)) % 2 == 0)
    z = ME.MinkowskiConvolutionTranspose(3, 4, 2, 2, dimension=3).double()(pruned)
    assert z.coordinate_map_key == x.coordinate_map_key


@pytest.mark.parametrize("kind", ["MinkowskiConvolution", "MinkowskiConvolutionTranspose", "Generative", "Channelwise"])
def test_gradients_of_any_order(kind):
    c = unique(12, 2, extent=3)
    features = torch.rand(len(c), 2).double()
    layer = {
        "MinkowskiConvolution": lambda: ME.MinkowskiConvolution(2, 2, 3, 2, bias=True, dimension=2),
        "MinkowskiConvolutionTranspose": lambda: ME.MinkowskiConvolutionTranspose(2, 2, 3, 1, dimension=2),
        "Generative": lambda: ME.MinkowskiGenerativeConvolutionTranspose(2, 2, 2, 2, dimension=2),
        "Channelwise": lambda: ME.MinkowskiChannelwiseConvolution(2, 3, dimension=2),
    }[kind]().double()
    stride = 2 if kind == "Generative" else 1
    if kind == "Generative":
        c = c * torch.tensor([1, 2, 2])

    def run(f, k):
        out = torch.func.functional_call(layer, {"kernel": k}, (ME.SparseTensor(f, c, stride),))
        return out.F

    check_gradients(run, features, layer.kernel)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: ME.MinkowskiConvolution(2, 3, 3), ValueError, "dimension must be given"),
        (lambda: ME.MinkowskiConvolution(2, 3, dimension=3), ValueError, "kernel_size"),
        (lambda: ME.MinkowskiConvolution(0, 3, 3, dimension=3), ValueError, "in_channels"),
        (lambda: ME.MinkowskiConvolution(2, 3, [3, 3], dimension=3), ValueError, "kernel_size must be one number or 3"),
        (lambda: ME.MinkowskiConvolution(2, 3, 3, 0, dimension=3), ValueError, "stride"),
        (lambda: ME.KernelGenerator(4, region_type=ME.RegionType.HYPER_CROSS, dimension=2), ValueError, "odd"),
        (lambda: ME.KernelGenerator(3, region_type=ME.RegionType.CUSTOM, dimension=2), ValueError, "region_offsets"),
        (lambda: ME.KernelGenerator(3, region_offsets=torch.zeros(1, 2), dimension=2), ValueError, "region_offsets"),
        (lambda: ME.KernelGenerator(3), ValueError, "dimension"),
        (lambda: ME.MinkowskiGlobalPooling(ME.PoolingMode.LOCAL_SUM_POOLING), ValueError, "GLOBAL PoolingMode"),
        (lambda: ME.MinkowskiGlobalPooling("sum"), ValueError, "GLOBAL PoolingMode"),
        (lambda: ME.MinkowskiMaxPooling(2, 2), ValueError, "dimension must be given"),
        (lambda: conv()(tensor(D=2)), ValueError, "2 axes, the layer 3"),
        (lambda: conv()(field()), TypeError, "SparseTensor, got TensorField"),
        (lambda: conv()(torch.rand(3, 4)), TypeError, "SparseTensor, got Tensor"),
        (lambda: conv()(tensor(channels=3)), ValueError, "input has 3 channels"),
        (lambda: conv()(tensor(), tensor(seed=1)), ValueError, "coordinate manager"),
        (lambda: ME.MinkowskiConvolutionTranspose(4, 2, 2, 2, dimension=3).double()(tensor()), ValueError, "stride"),
        (lambda: ME.MinkowskiPruning()(tensor(), torch.ones(3)), TypeError, "bool"),
        (lambda: ME.MinkowskiPruning()(tensor(), torch.ones(3, dtype=torch.bool)), ValueError, "keep must be"),
        (lambda: ME.MinkowskiUnion()(tensor()), ValueError, "at least 2"),
        (lambda: ME.MinkowskiUnion()(tensor(), tensor()), ValueError, "different coordinate managers"),
        (lambda: ME.cat(tensor(), tensor()), ValueError, "different coordinate managers"),
        (lambda: ME.cat(tensor()), ValueError, "at least 2"),
        (lambda: ME.cat(1, 2), TypeError, "SparseTensors or TensorFields"),
        (lambda: ME.MinkowskiToFeature()(torch.rand(2, 2)), TypeError, "SparseTensor or a TensorField"),
        (lambda: ME.MinkowskiToSparseTensor()(3), TypeError, "TensorField or a torch.Tensor"),
        (lambda: ME.to_sparse(torch.rand(2, 2)), ValueError, r"\(B, C, X, ...\)"),
        (lambda: ME.to_sparse(torch.rand(2, 2, 2), format="CBX"), ValueError, "format"),
        (lambda: ME.dense_coordinates((2, 2)), ValueError, r"\(B, C, X, ...\)"),
        (lambda: ME.modules.resnet_block.BasicBlock(2, 2), ValueError, "dimension"),
    ],
)
def test_wrong_use_is_refused_by_name(make, error, match):
    with pytest.raises(error, match=match):
        make()


def conv():
    return ME.MinkowskiConvolution(4, 2, 3, dimension=3).double()


# Pools and broadcasts


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_pool_as_large_as_its_stride_parts_the_voxels(size):
    x = tensor(D=2)
    y = ME.MinkowskiSumPooling(size, size, dimension=2)(x)
    assert_close(y.F.sum(0), x.F.sum(0))
    cells = {}
    for (b, *c), f in zip(x.C.tolist(), x.F, strict=True):
        cells.setdefault((b, *(v // size * size for v in c)), []).append(f)
    rows = {tuple(c): i for i, c in enumerate(y.C.tolist())}
    assert rows.keys() == cells.keys()
    most, mean = ME.MinkowskiMaxPooling(size, size, dimension=2)(x), ME.MinkowskiAvgPooling(size, size, dimension=2)(x)
    for cell, members in cells.items():
        assert torch.equal(most.F[rows[cell]], torch.stack(members).amax(0))
        assert_close(mean.F[rows[cell]], torch.stack(members).mean(0))
    back = ME.MinkowskiPoolingTranspose(size, size, dimension=2)(mean)
    assert back.coordinate_map_key == x.coordinate_map_key
    assert_close(ME.MinkowskiAvgPooling(size, size, dimension=2)(back).F, mean.F)


def test_the_mean_of_a_pool_transpose_is_over_what_contributes():
    """As MinkowskiEngine documents it; its code adds up."""
    x = ME.SparseTensor(torch.tensor([[1.0], [3.0]]), torch.tensor([[0, 0], [0, 2]]).int(), tensor_stride=2)
    y = ME.MinkowskiPoolingTranspose(3, 2, expand_coordinates=True, dimension=1)(x)
    assert dict(zip(y.C[:, 1].tolist(), y.F[:, 0].tolist(), strict=True)) == {-1: 1.0, 0: 1.0, 1: 2.0, 2: 3.0, 3: 3.0}


def test_global_pools_have_a_row_per_event_in_order():
    x = tensor()
    for kind, op in [
        (ME.MinkowskiGlobalSumPooling, lambda f: f.sum(0)),
        (ME.MinkowskiGlobalAvgPooling, lambda f: f.mean(0)),
        (ME.MinkowskiGlobalMaxPooling, lambda f: f.amax(0)),
        (ME.MinkowskiGlobalPooling, lambda f: f.mean(0)),
    ]:
        y = kind()(x)
        assert y.C.tolist() == [[b, 0, 0, 0] for b in range(3)] and y.tensor_stride == [0, 0, 0]
        assert_close(y.F, torch.stack([op(f) for f in x.decomposed_features]))
    assert "GLOBAL_MAX_POOLING" in repr(ME.MinkowskiGlobalMaxPooling())


def test_pooled_rows_of_several_levels_can_be_joined():
    x = tensor()
    y = ME.MinkowskiConvolution(4, 3, 2, 2, dimension=3).double()(x)
    joined = ME.cat(ME.MinkowskiGlobalMaxPooling()(x), ME.MinkowskiGlobalAvgPooling()(y))
    assert joined.shape == (3, 7)


def test_an_event_without_voxels_keeps_its_row():
    x = tensor()
    keep = x.C[:, 0] != 1
    y = ME.MinkowskiPruning()(x, keep)
    pooled = ME.MinkowskiGlobalAvgPooling()(y)
    assert pooled.C[:, 0].tolist() == [0, 1, 2] and float(pooled.F[1].abs().max()) == 0
    assert_close(ME.MinkowskiBroadcast()(y, pooled).F, ME.MinkowskiBroadcast()(x, pooled).F[keep])
    nothing = ME.MinkowskiPruning()(x, torch.zeros(len(x), dtype=torch.bool))
    assert nothing.shape == (0, 4) and ME.MinkowskiGlobalMaxPooling()(nothing).F.tolist() == [[0.0] * 4] * 3


def test_thousands_of_events():
    """SPINE hands over its clusters as batch ids."""
    ids = torch.randperm(5000)
    c = torch.cat([ids[:, None], torch.zeros(5000, 3)], 1).int()
    x = ME.SparseTensor(ids[:, None].double(), c)
    assert torch.equal(ME.MinkowskiGlobalSumPooling()(x).F[:, 0], torch.arange(5000.0).double())


def test_fields_are_pooled_too():
    x = field()
    y = ME.MinkowskiGlobalMaxPooling()(x)
    assert_close(y.F, torch.stack([f.amax(0) for f in x.decomposed_features]))
    assert_close(ME.MinkowskiGlobalAvgPooling()(x).F, torch.stack([f.mean(0) for f in x.decomposed_features]))
    assert_close(ME.MinkowskiGlobalSumPooling()(x).F, torch.stack([f.sum(0) for f in x.decomposed_features]))


def test_broadcasts():
    x = tensor()
    g = ME.MinkowskiGlobalMaxPooling()(x)
    rows = g.F[x.C[:, 0].long()]
    assert torch.equal(ME.MinkowskiBroadcast()(x, g).F, rows)
    assert torch.equal(ME.MinkowskiBroadcastAddition()(x, g).F, x.F + rows)
    assert torch.equal(ME.MinkowskiBroadcastMultiplication()(x, g).F, x.F * rows)
    assert torch.equal(ME.MinkowskiBroadcastConcatenation()(x, g).F, torch.cat([x.F, rows], 1))
    assert repr(ME.MinkowskiBroadcastAddition()) == "MinkowskiBroadcastAddition()"


# Norms


def test_batch_norm_is_that_of_torch():
    x = tensor()
    layer = ME.MinkowskiBatchNorm(4, eps=1e-4, momentum=0.01).double()
    same = copy.deepcopy(layer.bn)
    assert_close(layer(x).F, same(x.F))
    assert_close(layer.bn.running_var, same.running_var)
    assert sorted(layer.state_dict()) == [f"bn.{n}" for n in sorted(same.state_dict())]
    assert repr(layer).startswith("MinkowskiBatchNorm(4, eps=0.0001, momentum=0.01")
    layer.eval(), same.eval()
    assert_close(layer(x).F, same(x.F))
    assert_close(layer(field()).F, same(field().F))


def test_sync_batch_norm_keeps_weights_and_statistics():
    net = torch.nn.Sequential(
        ME.MinkowskiConvolution(4, 4, 3, dimension=3), ME.MinkowskiBatchNorm(4), ME.MinkowskiReLU()
    ).double()
    net(tensor())
    before = net.state_dict()
    made = ME.MinkowskiSyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(made[1], ME.MinkowskiSyncBatchNorm) and isinstance(made[1].bn, torch.nn.SyncBatchNorm)
    assert made.state_dict().keys() == before.keys()
    assert all(torch.equal(a, before[name]) for name, a in made.state_dict().items())
    assert_close(made.eval()(tensor(seed=1)).F, net.eval()(tensor(seed=1)).F)
    assert float(made.train()(tensor()).F.detach().min()) == 0  # one process needs no other


@pytest.mark.parametrize("kind", ["MinkowskiInstanceNorm", "MinkowskiStableInstanceNorm"])
def test_instance_norms_normalise_each_event(kind):
    x = tensor()
    layer = getattr(ME, kind)(4).double()
    assert {n: tuple(p.shape) for n, p in layer.state_dict().items()} == {"weight": (1, 4), "bias": (1, 4)}
    y = layer(x)
    eps = 1e-8 if kind == "MinkowskiInstanceNorm" else 1e-6
    for f, g in zip(x.decomposed_features, y.decomposed_features, strict=True):
        assert_close(g, (f - f.mean(0)) / (f.var(0, correction=0) + eps).sqrt())
    with torch.no_grad():
        layer.weight.fill_(2.0), layer.bias.fill_(1.0)
    assert_close(layer(x).F, 2 * y.F + 1)
    c = unique(8, 2, extent=2)
    check_gradients(lambda f: layer(ME.SparseTensor(f, c)).F, torch.rand(len(c), 4).double())


# Functions


def test_functions_are_the_layers():
    x = tensor()
    cm, key = x.coordinate_manager, x.coordinate_map_key
    layer = ME.MinkowskiConvolution(4, 3, 3, 2, dimension=3).double()
    out, default = ME.CoordinateMapKey(4), submode()
    y = ME.MinkowskiConvolutionFunction().apply(x.F, layer.kernel, layer.kernel_generator, default, key, out, cm)
    assert torch.equal(y, layer(x).F) and out == layer(x).coordinate_map_key
    up = ME.MinkowskiConvolutionTranspose(3, 4, 3, 2, dimension=3).double()
    z = ME.MinkowskiConvolutionTransposeFunction.apply(y, up.kernel, up.kernel_generator, default, out, key, cm)
    assert torch.equal(z, up(layer(x)).F)
    pool = ME.MinkowskiMaxPooling(2, 2, dimension=3)
    mode = ME.PoolingMode.LOCAL_MAX_POOLING
    assert torch.equal(
        ME.MinkowskiLocalPoolingFunction.apply(x.F, mode, pool.kernel_generator, key, None, cm), pool(x).F
    )
    spread = ME.MinkowskiPoolingTranspose(2, 2, dimension=3)
    assert torch.equal(
        ME.MinkowskiLocalPoolingTransposeFunction.apply(y, mode, spread.kernel_generator, out, key, cm),
        spread(layer(x)).F,
    )
    glob = ME.CoordinateMapKey(4)
    mode = ME.PoolingMode.GLOBAL_AVG_POOLING_DEFAULT
    g = ME.MinkowskiGlobalPoolingFunction.apply(x.F, mode, key, glob, cm)
    assert torch.equal(g, ME.MinkowskiGlobalAvgPooling()(x).F)
    add = ME.MinkowskiBroadcastFunction.apply(x.F, g, ME.BroadcastMode.ELEMENTWISE_ADDITON, key, glob, cm)
    assert torch.equal(add, x.F + g[x.C[:, 0].long()])
    norm = ME.MinkowskiInstanceNorm(4).double()
    fresh = ME.CoordinateMapKey(4)
    assert torch.equal(ME.MinkowskiInstanceNormFunction.apply(x.F, key, fresh, cm), norm(x).F) and fresh == glob
    keep = torch.arange(len(x)) % 3 == 0
    pruned = ME.CoordinateMapKey(4)
    assert torch.equal(ME.MinkowskiPruningFunction.apply(x.F, keep, key, pruned, cm), x.F[keep])
    assert torch.equal(cm.get_coordinates(pruned), x.C[keep])
    union = ME.CoordinateMapKey(4)
    total = ME.MinkowskiUnionFunction.apply([key, pruned], union, cm, x.F, x.F[keep])
    assert_close(total.sum(0), x.F.sum(0) + x.F[keep].sum(0))
    q = torch.cat([x.C[:5, :1], x.C[:5, 1:] + 0.25], 1).double()
    value, rows, samples, weights = ME.MinkowskiInterpolationFunction.apply(x.F, q, key, cm)
    assert_close(value, x.features_at_coordinates(q)) and len(rows) == len(samples) == len(weights)


def submode():
    return ME.ConvolutionMode.DEFAULT


def test_direct_max_pooling():
    f = torch.tensor([[1.0, 5.0], [4.0, 5.0], [2.0, torch.nan]]).double()
    y = ME.MinkowskiDirectMaxPoolingFunction.apply(torch.tensor([0, 1, 2]), torch.tensor([0, 0, 2]), f, 4)
    assert torch.equal(y[:2], torch.tensor([[4.0, 5.0], [0.0, 0.0]]).double())
    assert float(y[2, 0]) == 2 and bool(y[2, 1].isnan()) and float(y[3].abs().max()) == 0
    leaf = f[:2].clone().requires_grad_()
    out = ME.MinkowskiDirectMaxPoolingFunction.apply(torch.tensor([0, 1]), torch.tensor([0, 0]), leaf, 1)
    (gradient,) = torch.autograd.grad(out.sum(), leaf)
    assert gradient.tolist() == [[0, 1], [1, 0]]  # a tie goes to the first


def test_products_with_sparse_matrices():
    rows, cols = torch.tensor([0, 2, 0, 1]), torch.tensor([1, 0, 1, 2])
    vals, mat = torch.rand(4).double(), torch.rand(3, 2).double()
    dense = torch.zeros(4, 3).double().index_put((rows, cols), vals, accumulate=True)
    assert_close(ME.spmm(rows, cols, vals, (4, 3), mat), dense @ mat)
    check_gradients(lambda v, m: ME.MinkowskiSPMMFunction.apply(rows, cols, v, (4, 3), m), vals, mat)
    mean = ME.MinkowskiSPMMAverageFunction.apply(rows.int(), cols.int(), (4, 3), mat)
    assert_close(mean, torch.stack([mat[1], mat[2], mat[0], mat[0] * 0]))
    with pytest.raises(ValueError, match="equally long"):
        ME.spmm(rows[:2], cols, vals, (4, 3), mat)
    with pytest.raises(TypeError, match="float32"):
        ME.spmm(rows, cols, vals.float(), (4, 3), mat)
    with pytest.raises(ValueError, match="3 rows"):
        ME.spmm(rows, cols, vals, (4, 3), mat[:2])


# Dense and stacked


def test_dense_layers():
    x = torch.rand(2, 3, 4, 4).double() * (torch.rand(2, 1, 4, 4) < 0.4)
    sparse_x = ME.MinkowskiToSparseTensor()(x)
    assert len(sparse_x) == int((x != 0).any(1).sum())
    assert torch.equal(ME.MinkowskiToDenseTensor(x.shape)(sparse_x), x)
    assert len(ME.MinkowskiToSparseTensor(remove_zeros=False)(x)) == 32  # MinkowskiEngine's refuses
    cells = ME.dense_coordinates(x.shape)
    full = ME.MinkowskiToSparseTensor(coordinates=cells)(x)
    assert torch.equal(full.C, cells) and torch.equal(full.dense(x.shape)[0], x)
    assert torch.equal(ME.to_sparse(x.movedim(1, -1), format="BXXC").F, sparse_x.F)
    assert torch.equal(ME.to_sparse(x, coordinates=sparse_x.C[:3]).F, sparse_x.F[:3])
    assert type(ME.MinkowskiToSparseTensor()(field())) is ME.SparseTensor
    assert torch.equal(ME.MinkowskiToFeature()(sparse_x), sparse_x.F)
    leaf = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda d: ME.MinkowskiToDenseTensor(x.shape)(ME.to_sparse_all(d)), (leaf,))


def test_stacks():
    x = tensor()
    parts = [ME.MinkowskiLinear(4, 3).double() for _ in range(3)]
    out = torch.stack([p(x).F for p in parts])
    assert torch.equal(ME.MinkowskiStackCat(*parts)(x).F, torch.cat(list(out), 1))
    assert_close(ME.MinkowskiStackSum(*parts)(x).F, out.sum(0))
    assert_close(ME.MinkowskiStackMean(*parts)(x).F, out.mean(0))
    assert_close(ME.MinkowskiStackVar(*parts)(x).F, out.var(0, correction=0))
    tensors = [p(x) for p in parts]
    assert_close(ME.sum(tensors).F, out.sum(0)) and assert_close(ME.var(*tensors).F, out.var(0, correction=0))


def test_sinusoidal():
    x = tensor()
    layer = ME.MinkowskiSinusoidal(4, 6).double()
    assert_close(layer(x).F, torch.sin(x.F @ layer.kernel + layer.bias) * layer.coef)
    assert sorted(layer.state_dict()) == ["bias", "coef", "kernel"]
    assert layer(field()).shape == (60, 6)


# Keeping


def network():
    block = ME.modules.resnet_block.BasicBlock(8, 8, dimension=3)
    return torch.nn.Sequential(
        ME.MinkowskiConvolution(4, 8, 3, bias=True, dimension=3),
        ME.MinkowskiBatchNorm(8),
        ME.MinkowskiPReLU(),
        block,
        ME.MinkowskiChannelwiseConvolution(8, 3, dimension=3),
        ME.modules.senet_block.SELayer(8, 2),
        ME.MinkowskiInstanceNorm(8),
        ME.MinkowskiMaxPooling(2, 2, dimension=3),
        ME.MinkowskiConvolutionTranspose(8, 4, 2, 2, dimension=3),
        ME.MinkowskiLinear(4, 2),
    ).double()


def test_state_dicts_go_round():
    net = network().eval()
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = network().eval()
    assert not torch.equal(net(tensor()).F, other(tensor()).F)
    assert other.load_state_dict(torch.load(file)).missing_keys == []
    assert torch.equal(net(tensor()).F, other(tensor()).F)


def test_modules_can_be_pickled_and_copied():
    net = network().eval()
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert torch.equal(net(tensor()).F, other(tensor()).F)


def test_one_dimensional_checkpoints_of_kernel_one_load():
    """MinkowskiEngine's 1D layer of kernel 1 ignores its stride and keeps a matrix."""
    layer = ME.MinkowskiConvolution(4, 3, 1, 2, dimension=1)
    matrix = torch.rand(4, 3)
    layer.load_state_dict({"kernel": matrix})
    assert torch.equal(layer.kernel[0], matrix)


def test_layers_of_hepops_take_these_tensors():
    x = tensor()
    y = sparse.nn.Convolution(4, 3, 3, stride=2).double()(x)
    assert type(y) is ME.SparseTensor and y.tensor_stride == [2, 2, 2]
    assert type(sparse.nn.GlobalAvgPool()(y)) is ME.SparseTensor


def test_blocks():
    x = tensor(channels=8)
    for kind, channels in [("BasicBlock", 8), ("Bottleneck", 32)]:
        down = torch.nn.Sequential(
            ME.MinkowskiConvolution(8, channels, 1, 2, dimension=3), ME.MinkowskiBatchNorm(channels)
        )
        block = getattr(ME.modules.resnet_block, kind)(8, 8, stride=2, downsample=down, dimension=3).double()
        assert block(x).tensor_stride == [2, 2, 2] and block(x).shape[1] == channels
        assert block.expansion * 8 == channels and block.conv1.kernel_generator.kernel_size[0] in (1, 3)
    names = set(ME.modules.senet_block.SEBottleneck(8, 2, D=3).state_dict())
    assert {"conv1.kernel", "norm3.bn.weight", "se.fc.0.linear.weight", "se.fc.2.linear.bias"} <= names
    assert ME.modules.senet_block.SEBottleneck(8, 2, reduction=4).double()(x).shape == x.shape
    assert ME.modules.senet_block.SEBasicBlock(8, 8, reduction=4, D=3).double()(x).shape == x.shape
