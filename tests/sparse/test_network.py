"""Whole networks: the same bits in every run, one node for a unit, compiled and exported with the maps given."""

import copy
import hashlib

import pytest
import torch
from hepops.sparse import SparseTensor, models, nn, pytree
from hepops.sparse.kernel import Kernel
from hepops.sparse.unit import norm_act_convolve
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import cross_entropy

from .events import events


def uresnet(filters=8, depth=3, reps=1):
    torch.manual_seed(0)
    leaky = {"name": "lrelu", "negative_slope": 0.33}
    return models.UResNet(num_input=1, num_classes=5, filters=filters, depth=depth, reps=reps, activation=leaky)


def event(size, seed=1):
    random = torch.Generator().manual_seed(seed)
    x = SparseTensor(torch.rand(size, 1, generator=random), events(size, seed))
    return x, torch.randint(0, 5, (size,), generator=random)


def step(network, x, labels):
    network.zero_grad()
    logits = network(x).features
    cross_entropy(logits.float(), labels).backward()
    return logits.detach(), [p.grad.clone() for p in network.parameters()]


def test_twenty_training_steps_on_one_and_two_threads_give_the_same_bits():
    threads, found = torch.get_num_threads(), set()
    coordinates = event(2000)[0].coordinates
    try:
        for run in range(20):
            torch.set_num_threads(1 + run % 2)
            network = uresnet(filters=16)
            x, labels = event(2000)
            logits, grads = step(network, SparseTensor(x.features, coordinates), labels)
            bits = hashlib.sha256()
            for tensor in [logits, *grads, *network.buffers()]:
                bits.update(tensor.numpy().tobytes())
            found.add(bits.hexdigest())
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_the_unit_has_first_and_second_derivatives(through, transposed):
    torch.manual_seed(0)
    coordinates = torch.cat([torch.zeros(9, 1, dtype=torch.int32), torch.randint(0, 3, (9, 2)).int()], 1).unique(dim=0)
    x = SparseTensor(torch.rand(len(coordinates), 2).double(), coordinates)
    manager, key = x.coordinate_manager, x.coordinate_map_key
    kernel_map = manager.kernel_map(key, manager.stride(key, 2), Kernel.of(2, 2))
    if transposed:
        kernel_map = kernel_map.transposed()
    n = kernel_map.num_in
    tensors = [torch.randn(*shape).double() for shape in [(n, 2), (2,), (2,), (4, 2, 3), (3,), (kernel_map.num_out, 3)]]
    fixed = torch.rand(2).double(), torch.rand(2).double() + 0.5

    def function(features, gamma, beta, weight, bias, residual):
        with torch.no_grad():
            moments = (features.mean(0), features.var(0, correction=0)) if through else fixed
        return norm_act_convolve(
            features, *moments, gamma, beta, weight, kernel_map, bias, residual, slope=0.3, through=through
        )[0]

    inputs = [t.requires_grad_() for t in tensors]
    assert gradcheck(function, inputs, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, inputs, atol=1e-8, rtol=1e-6)


def test_the_moments_of_a_unit_are_those_of_its_result():
    from hepops.sparse.norm import combine_moments, moments

    x, _ = event(700)
    kernel_map = x.coordinate_manager.kernel_map(x.coordinate_map_key, x.coordinate_map_key, Kernel.of(3, 3))
    mean, variance = moments(x.features)
    y, tiles = norm_act_convolve(x.features, mean, variance, None, None, torch.randn(27, 1, 6), kernel_map)
    for ours, theirs in zip(combine_moments(tiles, y), moments(y), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_unit_keeps_its_input_and_not_what_it_can_compute_again():
    x, _ = event(3000)
    network = torch.nn.Sequential(nn.Convolution(1, 16, 3))
    x = network(x)
    block = models.ResidualBlock(16, 16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        block(x)
    rows = {t.data_ptr() for t in kept if t.shape == (3000, 16) and t.is_floating_point()}
    assert len(rows) == 2  # the input of each of the two units


def test_ten_events_compile_at_most_twice_and_match_eager():
    network = uresnet()
    twin = copy.deepcopy(network)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(twin, fullgraph=True, backend=counter)
    for seed, size in enumerate([600, 900, 700, 1500, 1000, 2000, 800, 1234, 777, 3000]):
        x, labels = event(size, seed)
        eager = step(network, x, labels)  # builds the maps
        pytree.mark_dynamic(x)
        torch.testing.assert_close(step(compiled, x, labels), eager, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(list(twin.buffers()), list(network.buffers()))
    assert counter.frame_count <= 2


def test_compiled_training_under_autocast_matches_eager():
    network = uresnet()
    twin = copy.deepcopy(network)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x, labels = event(600)
    with torch.autocast("cpu", torch.bfloat16):
        logits, grads = step(network, x, labels)
        theirs, their_grads = step(compiled, x, labels)
    assert logits.dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in grads)
    torch.testing.assert_close(theirs, logits, rtol=0, atol=0)
    torch.testing.assert_close(their_grads, grads, rtol=1e-6, atol=1e-7)


def test_an_exported_network_runs_on_events_of_other_sizes():
    network = uresnet().eval()
    x, _ = event(700)
    with torch.no_grad():
        network(x)  # builds the maps
        exported = torch.export.export(network, (x,), dynamic_shapes=pytree.dynamic_shapes((x,)), strict=False)
        for size in (700, 1300):
            y, _ = event(size, 3)
            expected = network(y)
            assert torch.equal(exported.module()(y).features, expected.features)


def test_half_precision_inference_is_near_float32():
    network = uresnet(filters=16).eval()
    x, _ = event(1500)
    with torch.no_grad():
        exact = network(x).features
        for dtype in (torch.bfloat16, torch.float16):
            low = copy.deepcopy(network).to(dtype)(x.to(dtype)).features
            assert low.dtype == dtype
            assert (low - exact).abs().max() < 20 * torch.finfo(dtype).eps * exact.abs().max()
