"""Continuous gauge flows: the divergence, the order of the integrator, the group, covariance, gradients."""

import math

import pytest
import torch
from hepops.lattice import SUN, group
from hepops.lattice.flows import ContinuousGauge, LoopField, continuous
from hepops.lattice.flows.continuous_gauge import KINDS
from torch.testing import assert_close

from lattice.jacobian import numeric_logdet
from lattice.test_flow_residual import gauge_transformed

f64 = torch.float64


def shaken(module, scale=0.05):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, dtype=f64, generator=generator).to(p.dtype))
    return module


def numeric_divergence(field, t, U, h=1e-3):
    """sum_a d/ds Z^a(e^(i s T^a) U) of every link, by eighth-order differences."""
    n, size = U.shape[-1], U.shape[-1] ** 2 - 1
    total = 0.0
    T = 1j * group.generators(n)
    for link in range(U[0].numel() // (n * n)):
        for step, weight in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), 1):
            for sign in (1, -1):
                moved = U.expand(size, *U.shape[1:]).clone()
                flat = moved.view(size, -1, n, n)
                flat[:, link] = torch.linalg.matrix_exp(sign * step * h * T) @ flat[:, link]
                Z = group.to_coordinates(field(t, moved)[0]).view(size, -1, size)[:, link]
                total += sign * weight / h * Z.diagonal().sum().item()
    return total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 2)], ids=str)
def test_divergence(n, shape, kind):
    if kind == "rectangle" and min(shape) < 3:
        shape = (3, 4)
    field = shaken(LoopField(n, shape, (kind,)), 1.0)
    U = SUN(n, shape, 1.0).random(1, seed=2)
    t = torch.tensor(0.4, dtype=f64)
    with torch.no_grad():
        exact = field(t, U)[1].item()
        assert abs(exact) > 0.1
        assert numeric_divergence(field, t, U) == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize("n", [2, 3])
def test_plaquettes_are_the_gradient_of_the_wilson_action(n):
    theory = SUN(n, (2, 4, 2), 2.0 * n)  # F = TA(U A)
    field = LoopField(n, theory.shape, ("plaquette",))
    torch.nn.init.ones_(field.weight)
    U = theory.random(2, seed=2)
    with torch.no_grad():
        Z, divergence = field(torch.tensor(0.2, dtype=f64), U)
    assert_close(Z, theory.force(U), rtol=1e-12, atol=1e-12)
    # every plaquette is counted at four links
    total = -theory.action(U) / (theory.beta / n)
    assert_close(divergence, 4 * (n * n - 1) / n * total, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    "n, shape, kinds",
    [
        (2, (2, 2), ("plaquette", "double")),
        (3, (2, 2), ("plaquette", "double", "square")),
        (2, (3, 3), ("rectangle",)),
        (2, (2, 2, 2), ("plaquette", "square")),
        (2, (2, 2, 2, 2), ("plaquette",)),
    ],
    ids=str,
)
def test_order_of_the_integrator(n, shape, kinds):
    """The numeric log-determinant of the steps is the integral of the divergence up to O(h^4); so is the way back."""
    U = SUN(n, shape, 1.0).random(1, seed=2)
    errors = []
    scale, pair = (0.06, (2, 4)) if "rectangle" in kinds else (0.08, (1, 2))  # rectangles are the stiffest
    for steps in pair:
        layer = ContinuousGauge(n, shape, kinds, steps=steps)
        torch.nn.init.constant_(layer.field.weight, scale / len(kinds) / (len(shape) - 1))
        with torch.no_grad():
            V, logdet = layer(U)
            numeric = numeric_logdet(lambda U, layer=layer: layer(U)[0], U)
            back, minus = layer.inverse(V)
        errors.append([abs(logdet.item() - numeric), (back - U).abs().max().item(), (logdet + minus).abs().item()])
    assert abs(logdet.item()) > 0.1
    for coarse, fine in zip(*errors, strict=True):
        assert fine < 1e-3
        assert math.log2(coarse / fine) > 3.4


@pytest.mark.parametrize("n", [2, 3])
def test_logdet_in_the_limit_of_small_steps(n):
    layer = ContinuousGauge(n, (2, 2), ("plaquette",), steps=24)
    torch.nn.init.constant_(layer.field.weight, 0.05)
    U = SUN(n, (2, 2), 1.0).random(1, seed=2)
    with torch.no_grad():
        assert numeric_logdet(lambda U: layer(U)[0], U) == pytest.approx(layer(U)[1].item(), abs=1e-8)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 2), (2, 2, 2, 2)], ids=str)
def test_the_group_and_covariance(n, shape, dtype, device):
    kinds = KINDS if min(shape) > 2 else KINDS[:3]
    theory = SUN(n, shape, 1.0)
    flow = shaken(continuous(theory, kinds=kinds, steps=3, dtype=dtype)).to(device)
    U = theory.random(2, seed=4, dtype=dtype, device=device)
    with torch.no_grad():
        V, logdet = flow.transform.inverse(U)
        turned, same = flow.transform.inverse(gauge_transformed(U))
        moved, shifted = flow.transform.inverse(U.roll(1, 2))
    eps = torch.finfo(dtype).eps
    assert (V - U).abs().max() > 0.01
    unit = torch.eye(n, device=device).to(V).expand_as(V)
    assert_close(V.mH @ V, unit, rtol=0, atol=200 * eps)
    assert_close(turned, gauge_transformed(V), rtol=0, atol=500 * eps)
    assert_close(moved, V.roll(1, 2), rtol=0, atol=500 * eps)
    for other in (same, shifted):
        assert_close(other, logdet, rtol=1e3 * eps, atol=1e3 * eps)


def test_gradients_by_recomputation():
    """Checkpoints: the same bits. By inversion: to what the steps lose on the way back."""
    theory = SUN(2, (2, 4), 2.2)
    results = []
    for mode in (None, "inputs", "inverse"):
        flow = shaken(continuous(theory, steps=6, recompute=mode))
        U, log_q = flow.rsample_and_log_prob(4, seed=1)
        (log_q + theory.action(U)).mean().backward()
        results.append(torch.cat([p.grad.flatten() for p in flow.parameters()]))
    assert_close(results[1], results[0], rtol=0, atol=0)
    assert (results[2] - results[0]).norm() < 1e-4 * results[0].norm()


def test_gradient_is_that_of_the_steps():
    theory = SUN(3, (2, 2), 4.0)
    flow = shaken(continuous(theory, steps=2))
    weight = flow.transform.transform.field.weight

    def loss():
        U, log_q = flow.rsample_and_log_prob(3, seed=1)
        return (log_q + theory.action(U)).mean()

    (slope,) = torch.autograd.grad(loss(), weight)
    direction = torch.randn_like(weight)
    h, values = 1e-4, []
    with torch.no_grad():
        for sign in (1, -1):
            weight.add_(sign * h * direction)
            values.append(loss().item())
            weight.sub_(sign * h * direction)
    assert (values[0] - values[1]) / (2 * h) == pytest.approx((slope * direction).sum().item(), rel=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n": 4}, "n must be 2 or 3, got 4"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"recompute": "all"}, "got 'all'"),
        ({"kinds": ("chair",)}, r"each once, got \('chair',\)"),
        ({"kinds": ("double", "double")}, "each once"),
        ({"kinds": ("rectangle",), "shape": (2, 4)}, r"extents 3 .* got 3, \(2, 4\)"),
        ({"shape": (1, 4)}, "extents 2"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        ContinuousGauge(**{"n": 3, "shape": (4, 4)} | options)
