"""Layers: their parameters and names, their dtypes, and that they can be copied, saved and loaded."""

import copy
import io
import itertools
import math

import pytest
import torch
from hepops.sparse import Kernel, SparseTensor, nn
from hepops.sparse import functional as F
from torch.testing import assert_close

from . import truth

HALVES = [torch.float16, torch.bfloat16]


def some(n=60, D=3, C=4, dtype=torch.float32, seed=0, side=5, **options):
    coordinates = truth.random_voxels(n, D, seed=seed, side=side)
    generator = torch.Generator().manual_seed(seed)
    return SparseTensor(torch.randn(len(coordinates), C, generator=generator).to(dtype), coordinates, **options)


# Parameters


@pytest.mark.parametrize(
    "layer, shapes",
    [
        (nn.Convolution(3, 5, 3), {"kernel": (27, 3, 5)}),
        (nn.Convolution(3, 5, (3, 2, 1), bias=True), {"kernel": (6, 3, 5), "bias": (1, 5)}),
        (nn.Convolution(3, 5, 1), {"kernel": (3, 5)}),
        (nn.Convolution(3, 5, 1, stride=2), {"kernel": (1, 3, 5)}),
        (nn.Convolution(3, 5, 1, stride=(1, 2, 1)), {"kernel": (1, 3, 5)}),
        (nn.Convolution(3, 5, 1, stride=2, dimension=1), {"kernel": (1, 3, 5)}),
        (nn.Convolution(3, 5, 1, dimension=1, bias=True), {"kernel": (3, 5), "bias": (1, 5)}),
        (nn.Convolution(4, 6, 2, groups=2, dimension=2), {"kernel": (4, 2, 6)}),
        (nn.Convolution(3, 5, 2, dimension=6), {"kernel": (64, 3, 5)}),
        (nn.Convolution(3, 5, Kernel.of(3, 3, shape="cross")), {"kernel": (7, 3, 5)}),
        (nn.Convolution(3, 5, Kernel.of(1, 2, offsets=[[0, 1]]), dimension=2), {"kernel": (1, 3, 5)}),
        (nn.ConvolutionTranspose(3, 5, 2, 2, bias=True), {"kernel": (8, 3, 5), "bias": (1, 5)}),
        (nn.GenerativeConvolutionTranspose(3, 5, 2, 2), {"kernel": (8, 3, 5)}),
        (nn.DepthwiseConvolution(4, 3, bias=True), {"kernel": (27, 4), "bias": (1, 4)}),
        (nn.Linear(3, 5), {"linear.weight": (5, 3), "linear.bias": (5,)}),
        (nn.Linear(3, 5, bias=False), {"linear.weight": (5, 3)}),
        (
            nn.BatchNorm(4),
            {
                "bn.weight": (4,), "bn.bias": (4,), "bn.running_mean": (4,), "bn.running_var": (4,),
                "bn.num_batches_tracked": (),
            },
        ),
        (nn.MaxPool(2, 2), {}),
        (nn.ReLU(), {}),
    ],
    ids=str,
)  # fmt: skip
def test_state_dicts_have_the_names_of_the_fields_checkpoints(layer, shapes):
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == shapes


@pytest.mark.parametrize("size", [1, 2, 3, (3, 1, 2)])
def test_convolutions_begin_within_their_fan(size):
    """Uniform within 1 / sqrt(channels x offsets), and not all alike."""
    torch.manual_seed(0)
    for kind, fan in [(nn.Convolution, 16), (nn.ConvolutionTranspose, 64)]:
        layer = kind(16, 64, size, bias=True)
        bound = 1 / math.sqrt(fan * Kernel.of(size, 3).volume)
        for p in layer.parameters():
            assert p.abs().max() <= bound and p.abs().max() > 0.9 * bound * (p.numel() > 100)
            assert p.std() > 0.4 * bound
    before = layer.kernel.clone()
    layer.reset_parameters()
    assert not torch.equal(layer.kernel, before)


def test_layers_say_what_they_are():
    for layer, text in [
        (nn.Convolution(1, 8, 3), "Convolution(1, 8, kernel_size=(3, 3, 3))"),
        (
            nn.Convolution(2, 4, 2, (2, 1), 3, True, 2, groups=2),
            "Convolution(2, 4, kernel_size=(2, 2), stride=(2, 1), dilation=(3, 3), groups=2, bias=True)",
        ),
        (nn.MaxPool(2, 2, dimension=2), "MaxPool(kernel_size=(2, 2), stride=(2, 2))"),
        (nn.LeakyReLU(0.33), "LeakyReLU(negative_slope=0.33)"),
    ]:
        assert repr(layer).splitlines()[0].rstrip("(") == text or text in repr(layer)


def test_a_layer_gives_what_its_function_gives():
    x = some(dtype=torch.float64)
    layer = nn.Convolution(4, 6, (3, 2, 3), (1, 2, 1), (1, 1, 2), True, 3, groups=2, dtype=torch.float64)
    kernel = Kernel.of((3, 2, 3), 3, (1, 1, 2))
    other = F.convolve(x, layer.kernel, layer.bias, kernel=kernel, stride=(1, 2, 1), groups=2)
    assert torch.equal(layer(x).features, other.features)
    up = nn.ConvolutionTranspose(6, 2, 2, (1, 2, 1), dtype=torch.float64)
    assert torch.equal(up(other).features, F.conv_transpose(other, up.kernel, kernel=2, stride=(1, 2, 1)).features)
    flat = nn.Linear(4, 3, dtype=torch.float64)
    assert_close(flat(x).features, flat.linear(x.features), rtol=1e-13, atol=1e-13)


def test_layers_write_to_given_coordinates():
    x = some(dtype=torch.float64)
    target = SparseTensor(
        torch.zeros(2, 1), torch.tensor([[0, 1, 0, 0], [1, 9, 9, 9]]), coordinate_manager=x.coordinate_manager
    )
    layer = nn.Convolution(4, 2, 3, dtype=torch.float64)
    for given in (target, target.coordinate_map_key, target.coordinates + 0):
        out = layer(x, given)
        assert torch.equal(out.coordinates, target.coordinates)
        found = truth.triples(x.coordinates, target.coordinates, truth.box((3,) * 3, (1,) * 3))
        assert_close(out.features, truth.convolve(x.features, layer.kernel, found, 2), rtol=1e-13, atol=1e-13)
    assert layer(x, target).coordinate_map_key == target.coordinate_map_key


# Point by point


ACTIVATIONS = {
    nn.ReLU: (), nn.ReLU6: (), nn.LeakyReLU: (0.33,), nn.PReLU: (), nn.ELU: (0.7,), nn.SELU: (), nn.CELU: (0.7,),
    nn.GELU: (), nn.SiLU: (), nn.Sigmoid: (), nn.Tanh: (), nn.Hardtanh: (-0.5, 0.7), nn.Softplus: (), nn.Softmax: (1,),
}  # fmt: skip


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_are_torchs(kind):
    x = some(dtype=torch.float64)
    layer = kind(*ACTIVATIONS[kind]).double()
    out = layer(x)
    assert out.coordinate_map_key == x.coordinate_map_key
    theirs = getattr(torch.nn, kind.__name__)(*ACTIVATIONS[kind]).double()
    assert_close(out.features, theirs(x.features), rtol=1e-14, atol=1e-14)


def test_an_activation_in_place_changes_its_input_and_says_so():
    x = some()
    before = x.features.clone()
    nn.ReLU(inplace=True)(x)
    assert torch.equal(x.features, before.clamp(min=0)) and "inplace" in repr(nn.ReLU(inplace=True))


def test_dropout_drops_in_training_only():
    x = some(500, side=20)
    layer = nn.Dropout(0.5)
    assert 0.4 < (layer(x).features == 0).double().mean() < 0.6
    assert torch.equal(layer.eval()(x).features, x.features)


# dtypes


def reference_layers(D=3, C=4):
    return {
        "conv": nn.Convolution(C, 6, 3, bias=True, dimension=D),
        "strided": nn.Convolution(C, 6, 2, 2, dimension=D),
        "point": nn.Convolution(C, 6, 1, dimension=D),
        "groups": nn.Convolution(C, 6, 3, groups=2, dimension=D),
        "depthwise": nn.DepthwiseConvolution(C, 3, bias=True, dimension=D),
        "generative": nn.GenerativeConvolutionTranspose(C, 6, 2, 1, dimension=D),
        "max": nn.MaxPool(2, 2, dimension=D),
        "avg": nn.AvgPool(3, 1, dimension=D),
        "sum": nn.SumPool(3, 2, dimension=D),
        "global max": nn.GlobalMaxPool(),
        "global avg": nn.GlobalAvgPool(),
        "global sum": nn.GlobalSumPool(),
        "linear": nn.Linear(C, 6),
        "relu": nn.ReLU(),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
@pytest.mark.parametrize("name", reference_layers())
def test_features_keep_their_dtype_and_halves_are_summed_in_single(name, dtype):
    """Every layer in its own dtype: near the layer in float64 of the same rounded numbers, gradients too."""
    torch.manual_seed(1)
    layer = reference_layers()[name].to(dtype)
    exact = copy.deepcopy(layer).double()
    x, y = some(dtype=dtype), some(dtype=dtype).double()
    for t in (x, y):
        t.features = t.features.detach().requires_grad_()
    out, ideal = layer(x), exact(y)
    assert out.dtype == dtype
    eps = torch.finfo(dtype).eps
    bound = {"rtol": 2 * eps, "atol": 4 * eps} if dtype in HALVES else {"rtol": 64 * eps, "atol": 64 * eps}
    assert_close(out.features.double(), ideal.features, **bound)
    seed = torch.randn_like(ideal.features).to(dtype)
    leaves = [[t.features, *m.parameters()] for t, m in ((x, layer), (y, exact))]
    ours = torch.autograd.grad(out.features, leaves[0], seed)
    theirs = torch.autograd.grad(ideal.features, leaves[1], seed.double())
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        scale = max(1.0, b.abs().max().item())  # rounded once, at the end
        assert_close(a.double() / scale, b / scale, **bound)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_convolution_of_halves_may_keep_its_weights_in_single(dtype):
    """And then their gradient is not rounded to the half."""
    x = some(200, C=8, dtype=dtype, side=7)
    weight = torch.randn(27, 8, 5, requires_grad=True)
    out = F.convolve(x, weight, kernel=3)
    assert out.dtype == dtype
    exact = weight.detach().double().requires_grad_()
    ideal = F.convolve(x.double(), exact, kernel=3)
    # the weights may be rounded to the half on their way in
    assert_close(
        out.features.double(), ideal.features, rtol=2**-6, atol=2**-5 * (1 if dtype == torch.bfloat16 else 0.2)
    )
    seed = torch.randn_like(out.features)
    (ours,) = torch.autograd.grad(out.features, weight, seed)
    (theirs,) = torch.autograd.grad(ideal.features, exact, seed.double())
    assert ours.dtype == torch.float32
    assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_sums_do_not_stagnate(dtype):
    """4096 ones: in the half they would stop at 256 or 2048."""
    n = 4096
    x = SparseTensor(torch.ones(n, 1, dtype=dtype), torch.tensor([[0, i, 0] for i in range(n)]))
    assert F.global_pool(x, "sum").features.item() == n
    assert F.global_pool(x, "avg").features.item() == 1
    assert F.pool(x, "sum", kernel=(n, 1), stride=(n, 1)).features.item() == n
    assert F.convolve(x, torch.ones(n, 1, 1, dtype=dtype), kernel=(n, 1), stride=(n, 1)).features.item() == n
    weight = torch.ones(1, 1, dtype=torch.float32, requires_grad=True)
    F.convolve(x, weight, kernel=1).features.sum(dtype=torch.float32).backward()
    assert weight.grad.item() == n
    merged = SparseTensor(torch.ones(n, 1, dtype=dtype), torch.zeros(n, 2).int(), duplicates="sum")
    assert merged.features.item() == n


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_features_and_leaves_parameters(dtype):
    x = some(C=4)
    x.requires_grad_()
    net = torch.nn.Sequential(
        nn.Convolution(4, 8, 3, bias=True), nn.ReLU(), nn.Convolution(8, 8, 2, 2), nn.ConvolutionTranspose(8, 4, 2, 2)
    )
    with torch.autocast("cpu", dtype=dtype):
        out = net(x)
    assert out.dtype == dtype
    out.features.float().square().sum().backward()
    for p in net.parameters():
        assert p.dtype == p.grad.dtype == torch.float32 and bool(p.grad.isfinite().all())
    assert x.features.grad.dtype == torch.float32
    exact = net(x)
    assert exact.dtype == torch.float32
    eps = torch.finfo(dtype).eps
    assert_close(out.features.float(), exact.features, rtol=8 * eps, atol=8 * eps)
    grads = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    exact.features.square().sum().backward()
    for a, p in zip(grads, net.parameters(), strict=True):
        assert (a - p.grad).norm() < 16 * eps * p.grad.norm()


def test_autocast_leaves_double_alone():
    x = some(dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.Convolution(4, 2, 3, dtype=torch.float64)(x).dtype == torch.float64


def test_single_precision_is_true_single_precision():
    """Sums of 27 x 64 products, at the rounding of float32 and not of tf32 or bfloat16."""
    x = some(400, C=64, side=8)
    weight = torch.randn(27, 64, 8)
    ours = F.convolve(x, weight, kernel=3).features.double()
    exact = F.convolve(x.double(), weight.double(), kernel=3).features
    assert (ours - exact).norm() / exact.norm() < 1e-6


# Norms over voxels: batch norm


def ordinary(bn):
    """The same as a layer of torch."""
    other = torch.nn.BatchNorm1d(bn.bn.num_features, bn.bn.eps, bn.bn.momentum, bn.bn.affine, bn.bn.track_running_stats)
    other.double().load_state_dict(bn.bn.state_dict())
    return other.train(bn.training)


@pytest.mark.parametrize(
    "affine, track, momentum, training",
    list(itertools.product([True, False], [True, False], [0.1, 0.01, None], [True, False])),
)
def test_batch_norm_is_torchs(affine, track, momentum, training):
    torch.manual_seed(0)
    bn = nn.BatchNorm(4, 1e-4, momentum, affine, track).double().train(training)
    with torch.no_grad():
        for t in [*bn.parameters(), *(b for b in bn.buffers() if b.is_floating_point())]:
            t.uniform_(0.5, 2)
    other = ordinary(bn)
    for step in range(3):
        x = some(dtype=torch.float64, seed=step)
        x.requires_grad_()
        y = x.features.detach().clone().requires_grad_()
        ours, theirs = bn(x), other(y)
        assert ours.coordinate_map_key == x.coordinate_map_key
        assert_close(ours.features, theirs, rtol=1e-12, atol=1e-12)
        seed = torch.randn_like(theirs)
        a = torch.autograd.grad(ours.features, [x.features, *bn.parameters()], seed)
        b = torch.autograd.grad(theirs, [y, *other.parameters()], seed)
        assert_close(a, b, rtol=1e-11, atol=1e-11)
        for k, v in other.state_dict().items():
            assert_close(bn.bn.state_dict()[k], v, rtol=1e-13, atol=1e-13)


def test_batch_norm_does_not_cancel():
    """Values around 10^4 with a spread of 10^-2, in single precision."""
    x = some(2000, side=20)
    x.features = 1e4 + 1e-2 * x.features
    out = nn.BatchNorm(4, eps=0.0)(x).features.double()
    v = x.features.double()
    assert_close(out, (v - v.mean(0)) / v.std(0, correction=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_second_derivatives_of_batch_norm(training):
    coordinates = truth.random_voxels(8, 1, side=9)
    bn = nn.BatchNorm(2).double().train(training)
    torch.manual_seed(0)
    with torch.no_grad():
        bn.bn.running_var.uniform_(0.5, 2)
    x = torch.randn(len(coordinates), 2, dtype=torch.float64, requires_grad=True)

    def function(x, weight, bias):
        state = {"bn.weight": weight, "bn.bias": bias, **{k: v.clone() for k, v in bn.named_buffers()}}
        return torch.func.functional_call(bn, state, (SparseTensor(x, coordinates),)).features

    leaves = (x, *(p.detach().clone().uniform_(0.5, 2).requires_grad_() for p in bn.parameters()))
    assert torch.autograd.gradcheck(function, leaves, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradgradcheck(function, leaves, atol=1e-8, rtol=1e-6)


def norms(C=4):
    return {
        "batch": nn.BatchNorm(C).double(),
        "instance": nn.InstanceNorm(C).double(),
        "layer": nn.LayerNorm(C).double(),
        "group": nn.GroupNorm(2, C).double(),
        "sync": nn.SyncBatchNorm(C).double(),
    }


def by_torch(name, layer, x, coordinates):
    """The same norm of torch, event by event where it is one of events."""
    weight, bias = (getattr(layer, n).reshape(-1) for n in ("weight", "bias"))
    if name == "layer":
        return torch.nn.functional.layer_norm(x, x.shape[1:], weight, bias, layer.eps)
    out = torch.zeros_like(x)
    for b in coordinates[:, 0].unique():
        rows = (coordinates[:, 0] == b).nonzero()[:, 0]
        event = x[rows].T[None]  # (1, C, voxels)
        groups = layer.num_groups if name == "group" else x.shape[1]
        out = out.index_copy(0, rows, torch.nn.functional.group_norm(event, groups, weight, bias, layer.eps)[0].T)
    return out


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("name", ["instance", "layer", "group"])
def test_norms_of_events_and_of_voxels_are_torchs(name, batch_size):
    torch.manual_seed(0)
    layer = norms()[name]
    with torch.no_grad():
        for p in layer.parameters():
            p.uniform_(0.5, 2)
    coordinates = truth.random_voxels(60, 2, batches=3, side=7)
    x = torch.randn(len(coordinates), 4, dtype=torch.float64, requires_grad=True)
    out = layer(SparseTensor(x, coordinates, batch_size=batch_size))
    expected = by_torch(name, layer, x, coordinates)
    assert_close(out.features, expected, rtol=1e-12, atol=1e-12)
    seed, leaves = torch.randn_like(expected), [x, *layer.parameters()]
    ours, theirs = (torch.autograd.grad(y, leaves, seed) for y in (out.features, expected))
    assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["instance", "layer", "group"])
def test_second_derivatives_of_other_norms(name):
    coordinates = truth.random_voxels(8, 1, side=9)
    layer = norms()[name]
    x = torch.randn(len(coordinates), 4, dtype=torch.float64, requires_grad=True)

    def function(x, weight, bias):
        state = {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, state, (SparseTensor(x, coordinates),)).features

    leaves = (x, *(p.detach().clone().uniform_(0.5, 2).requires_grad_() for p in layer.parameters()))
    assert torch.autograd.gradcheck(function, leaves, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradgradcheck(function, leaves, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("name", norms())
def test_norms_of_no_voxel_and_of_one(name, n, training):
    """Nothing is normalised to nothing, and leaves no trace in the statistics; one voxel has variance 0."""
    layer = norms()[name].train(training)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    x = torch.full((n, 4), 3.0, dtype=torch.float64, requires_grad=True)
    out = layer(SparseTensor(x, torch.zeros(n, 3).int(), batch_size=2))
    assert out.shape == (n, 4)
    out.features.sum().backward()
    assert x.grad.shape == (n, 4) and bool(x.grad.isfinite().all())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in layer.parameters())
    expected = 3.0 / math.sqrt(1 + 1e-5) if name in ("batch", "sync") and not training else 0.0
    assert_close(out.features, torch.full_like(out.features, expected), rtol=1e-12, atol=1e-12)
    after = layer.state_dict()
    if n == 0 or not training:
        assert all(torch.equal(v, after[k]) for k, v in before.items())
    elif "bn.running_mean" in after:
        assert_close(after["bn.running_mean"], torch.full((4,), 0.3, dtype=torch.float64))
        assert_close(after["bn.running_var"], torch.full((4,), 0.9, dtype=torch.float64))


def test_the_norm_of_an_event_does_not_see_the_others():
    one, two = (truth.random_voxels(30, 2, batches=1, side=8, seed=s) for s in (1, 2))
    both = torch.cat([one, two + torch.tensor([1, 0, 0], dtype=torch.int32)])
    x = torch.randn(len(both), 4)
    for name in ("instance", "group", "layer"):
        layer = norms()[name].float()
        assert torch.equal(
            layer(SparseTensor(x, both)).features[: len(one)], layer(SparseTensor(x[: len(one)], one)).features
        )


def test_a_residual_of_other_voxels_is_refused():
    """Voxels of another manager are others, though their key may read the same."""
    from hepops.sparse.unit import infer, unit

    x = some()
    other = SparseTensor(x.features, x.coordinates + 1)
    assert x.coordinate_map_key == other.coordinate_map_key and x.shape == other.shape
    bn, layer = nn.BatchNorm(4).bn, nn.Convolution(4, 4, 3)
    for act in (
        lambda: F.batch_norm(x, bn, residual=other),
        lambda: unit(x, bn, 0.0, layer, other),
        lambda: infer(x, layer, other),
    ):
        with pytest.raises(ValueError, match=r"residual.*another"):
            act()
    pruned = F.prune(x, torch.ones(len(x), dtype=torch.bool))
    with pytest.raises(ValueError, match="residual"):
        F.batch_norm(x, nn.BatchNorm(4).bn, residual=pruned)


def test_moments_are_those_of_the_features_that_are_there():
    """A tensor's moments, summed by the layer that made it, do not outlive a change of its features."""
    from hepops.sparse.unit import unit

    x = some(300, side=8)
    bn, layer = nn.BatchNorm(4), nn.Convolution(4, 4, 3)
    y = unit(x, bn.bn, 0.0, layer)
    assert y.moments is not None
    with torch.no_grad():
        expected = nn.BatchNorm(4)(some(300, side=8).replace(y.features * 3 + 7)).features
        y.features = y.features * 3 + 7
        assert_close(nn.BatchNorm(4)(y).features, expected)
        z = unit(x, bn.bn, 0.0, layer)
        z.features.mul_(3).add_(7)
        assert_close(nn.BatchNorm(4)(z).features, expected)


def test_synchronised_batch_norm_takes_the_place_of_batch_norm():
    torch.manual_seed(0)
    net = torch.nn.Sequential(nn.Convolution(4, 4, 3), nn.BatchNorm(4), torch.nn.Sequential(nn.BatchNorm(4)))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    alone = net(some()).features
    net.load_state_dict(before)
    other = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert list(other.state_dict()) == list(before)
    assert [type(m) for m in other.modules()].count(nn.SyncBatchNorm) == 2
    assert torch.equal(other(some()).features, alone)


# Copied, saved, loaded


def network():
    return torch.nn.Sequential(
        nn.Convolution(4, 8, 3, bias=True),
        nn.BatchNorm(8),
        nn.LeakyReLU(0.33),
        nn.Convolution(8, 8, Kernel.of(3, 3, shape="cross")),
        nn.Convolution(8, 8, 2, 2),
        nn.ConvolutionTranspose(8, 8, 2, 2),
        nn.DepthwiseConvolution(8, 3),
        nn.MaxPool(2, 2),
        nn.PoolTranspose(2, 2),
        nn.PReLU(),
        nn.Linear(8, 5),
        nn.Dropout(0.1),
        nn.GlobalAvgPool(),
    )


@pytest.mark.parametrize("how", ["deepcopy", "save", "state_dict", "weights_only"])
def test_a_network_copied_or_saved_gives_the_same(how):
    torch.manual_seed(0)
    net = network()
    net(some(seed=3))  # running statistics that are not the first ones
    net.eval()
    if how == "deepcopy":
        other = copy.deepcopy(net)
    elif how == "save":
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    else:
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        other = network().eval()
        assert (
            str(other.load_state_dict(torch.load(file, weights_only=how == "weights_only")))
            == "<All keys matched successfully>"
        )
    x = some()
    assert torch.equal(net(x).features, other(x).features)
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(net.parameters(), other.parameters(), strict=True))
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert not torch.equal(net(x).features, other(x).features)


def test_a_layer_learns():
    """Gradient descent on a convolution finds the weights that made its data."""
    torch.manual_seed(0)
    x = some(200, side=8, dtype=torch.float64)
    truth_layer, layer = (nn.Convolution(4, 2, 2, bias=True, dtype=torch.float64) for _ in range(2))
    wanted = truth_layer(x).features.detach()
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = (layer(x).features - wanted).square().mean()
        value.backward()
        return value

    begin = loss().item()
    optimizer.step(loss)
    assert loss().item() < 1e-7 * begin
