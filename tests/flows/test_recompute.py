"""Deep stacks: what is kept, and what the gradients are."""

import pytest
import torch
from hepops.flows import Compose, Coupling, Permutation, Spline
from torch.autograd import gradgradcheck
from torch.testing import assert_close

from .stock import C, contexts, events, flow, scatter, stack


def couplings(n, dtype=torch.float32, hidden=(32, 32), scale=0.03, bins=8):
    masks = [[True, True, False, False], [False, False, True, True]]
    layers = [Coupling(masks[i % 2], Spline(bins), hidden=hidden) for i in range(n)]
    return [scatter(layer, dtype, scale) for layer in layers]


def gradients(f, x, c=None):
    f.zero_grad()
    x = x.clone().requires_grad_()
    c = c if c is None else c.clone().requires_grad_()
    y, logdet = f(x, c)
    ((0.5 * y.square()).sum() - logdet.sum()).backward()
    return [x.grad, *([] if c is None else [c.grad]), *(p.grad for p in f.parameters())]


@pytest.mark.parametrize("every", [None, 2, 3])
@pytest.mark.parametrize("backwards", [False, True])
def test_gradients_from_inputs_have_the_same_bits(every, backwards, device, dtype):
    layers = [scatter(t, dtype).to(device) for t in stack(5)]
    layers.insert(2, Permutation([3, 1, 0, 2]).to(device))
    plain, less = Compose(layers), Compose(layers, "inputs", every)
    x, c = events(plain, 200, dtype=dtype, device=device), contexts(plain, 200, dtype=dtype, device=device)
    f, g = (plain.inv, less.inv) if backwards else (plain, less)
    assert_close(gradients(g, x, c), gradients(f, x, c), rtol=0, atol=0)


@pytest.mark.parametrize("every", [None, 8])
@pytest.mark.parametrize("dtype, error", [(torch.float32, 1e-3), (torch.float64, 1e-9)])
def test_gradients_by_inversion(dtype, error, every, device):
    """64 couplings that stretch some volumes by more than e^10: within the stated share of the gradient's norm."""
    layers = [t.to(device) for t in couplings(64, dtype)]
    plain, less = Compose(layers), Compose(layers, "inverse", every)
    x = 2 * torch.randn(500, 4, dtype=torch.float64).to(device, dtype)
    assert plain(x)[1].abs().max() > 10
    exact, ours = gradients(plain, x), gradients(less, x)
    exact, ours = (torch.cat([g.flatten() for g in grads]) for grads in (exact, ours))
    assert 0 < (ours - exact).norm() < error * exact.norm()


def test_gradients_by_inversion_of_shared_and_frozen_weights():
    layer = stack(1)[0].double()
    scatter(layer, torch.float64, 0.1)
    layer.network.layers[0].weight.requires_grad_(False)
    turn = Permutation([2, 3, 0, 1])
    layers = [layer, turn, layer, turn, layer]
    x, c = events(layer, 20), contexts(layer, 20)
    ours, plain = gradients(Compose(layers, "inverse"), x, c), gradients(Compose(layers), x, c)
    assert ours[2] is None or not ours[2].any()
    for a, b in zip(ours, plain, strict=True):
        assert (a is None and b is None) or (a - b).norm() <= 1e-10 * b.norm()


def measured(f, x):
    """The most bytes that live at once in a training step beyond what lived before, counted by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    def step():
        y, logdet = f(x)
        (y.square().sum() - logdet.sum()).backward()

    step()  # gradients exist
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        step()
    now = most = 0
    for event in p.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize("recompute", ["inputs", "inverse"])
def test_sixty_four_couplings_train_in_the_memory_of_four(recompute):
    x = torch.randn(1000, 4)
    four = measured(Compose(couplings(4)), x)
    deep = measured(Compose(couplings(64)), x)
    less = measured(Compose(couplings(64), recompute), x)
    assert four > 4 * 1000 * 4 * (32 + 32)  # the meter sees at least the hidden layers
    assert deep > 10 * four
    assert less <= four


def test_memory_by_inversion_does_not_grow_with_depth():
    x = torch.randn(4000, 4)
    two, many = (measured(Compose(couplings(n), "inverse"), x) for n in (2, 32))
    assert many < 1.2 * two


def test_second_derivatives_from_inputs_and_a_refusal_by_inversion():
    f = Compose([scatter(t, torch.float64) for t in stack(2)], "inputs")
    x, c = events(f, 2).requires_grad_(), contexts(f, 2)
    assert gradgradcheck(lambda x: f(x, c), x, atol=1e-8, rtol=1e-6)
    g = Compose(f.transforms, "inverse")
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(g(x, c)[1].sum(), x, create_graph=True)


def test_nothing_is_recomputed_without_gradients():
    f = Compose(stack(2), "inverse").double()
    with torch.no_grad():
        assert f(events(f, 3), contexts(f, 3))[0].grad_fn is None


@pytest.mark.parametrize("recompute", [None, "inputs", "inverse"])
def test_autocast_reaches_the_recomputation(recompute):
    q = flow("nsf", torch.float32, scale=0.1, recompute=recompute)
    x = torch.randn(50, 4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = -q.log_prob(x).mean()
    loss.backward()
    ours = [p.grad.clone() for p in q.parameters()]
    q.transform.recompute = None
    q.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        (-q.log_prob(x).mean()).backward()
    for a, b in zip(ours, q.parameters(), strict=True):
        assert (a - b.grad).norm() <= (0 if recompute != "inverse" else 0.02) * b.grad.norm()


def test_refuses_by_name():
    with pytest.raises(ValueError, match='recompute must be None, "inputs" or "inverse", got \'no\''):
        Compose([], "no")
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Compose([], "inputs", 0)
    with pytest.raises(ValueError, match=r"transform 1 wants events of \(3,\), not \(4,\)"):
        Compose([Permutation([0, 1, 2, 3]), Permutation([0, 1, 2])])
    assert Compose([]).inverse(torch.ones(3, 2))[1].shape == (3,) and C == 3
