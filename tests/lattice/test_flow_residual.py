"""Residual gauge flows: exact log-determinants, covariance, the way back."""

import pytest
import torch
from hepops.flows.transform import Compose
from hepops.lattice import SUN
from hepops.lattice.flows import Residual, residual
from hepops.lattice.flows.residual import frozen_loops, staples
from torch.testing import assert_close

from lattice.jacobian import numeric_logdet

SHAPES = [(2, 4), (2, 2, 2), (2, 2, 2, 2)]


def shaken(module, scale=0.5):
    """Parameters off their start, the same in every run."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, dtype=torch.float64, generator=generator))
    return module


def gauge_transformed(U, seed=5):
    """U_mu(x) -> g(x) U_mu(x) g(x + mu)^+, of random g."""
    D, n = U.shape[1], U.shape[-1]
    g = SUN(n, U.shape[2:-2], 1.0).random(U.shape[0], seed=seed, dtype=U.real.dtype)[:, 0].to(U.device)
    rows = [g @ U[:, mu] @ g.roll(-1, 1 + mu).mH for mu in range(D)]
    return torch.stack(rows, 1)


@pytest.mark.parametrize("conditioner", ["constants", "loops"])
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logdet_is_that_of_the_numeric_jacobian(n, shape, conditioner):
    if (n, len(shape), conditioner) == (3, 4, "constants"):
        pytest.skip("as the one with a conditioner, which holds more")
    layer = shaken(Residual(n, shape, len(shape) - 1, 1, conditioner=conditioner))
    U = SUN(n, shape, 1.0).random(1, seed=2)
    with torch.no_grad():
        exact = layer(U)[1].item()
        assert abs(exact) > 0.05
        assert numeric_logdet(lambda U: layer(U)[0], U) == pytest.approx(exact, abs=1e-8)


class Leaking(Residual):
    """A layer whose coefficients know a passive loop: a plaquette through the active link."""

    def epsilon(self, U):
        loop = (U[:, self.mu] @ staples(U, self.mu)[0]).flatten(1, -3)[:, self.active]
        trace = loop.diagonal(dim1=-2, dim2=-1).sum(-1).real / self.n
        return super().epsilon(U) * (1 + 0.3 * trace[..., None, None])


def test_a_leak_is_seen():
    layer = shaken(Leaking(2, (2, 4), 0, 0))
    U = SUN(2, (2, 4), 1.0).random(1, seed=2)
    with torch.no_grad():
        assert abs(numeric_logdet(lambda U: layer(U)[0], U) - layer(U)[1].item()) > 1e-3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_network_sees_no_active_link(shape):
    mu = 1
    U = SUN(3, shape, 1.0).random(1, seed=2).requires_grad_()
    layer = Residual(3, shape, mu, 0, conditioner="loops")
    (grad,) = torch.autograd.grad(frozen_loops(U, mu).flatten(2)[..., layer.active].square().sum(), U)
    touched = grad[:, mu].flatten(1, -3)[:, layer.active]
    assert touched.abs().max() == 0
    assert grad.abs().max() > 0.01


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_covariance(shape, dtype, device):
    theory = SUN(3, shape, 1.0)
    flow = shaken(residual(theory, conditioner="loops", dtype=dtype)).to(device)
    U = theory.random(3, seed=4, dtype=dtype, device=device)
    with torch.no_grad():
        V, logdet = flow.transform.inverse(U)
        turned, same = flow.transform.inverse(gauge_transformed(U))
    eps = torch.finfo(dtype).eps
    assert_close(turned, gauge_transformed(V), rtol=0, atol=200 * eps)
    assert_close(same, logdet, rtol=1e3 * eps, atol=1e3 * eps)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("shape", [(4, 6), (2, 2, 4, 2)], ids=str)
def test_there_and_back(n, shape, dtype, device):
    """Every layer is undone to 1e-13 r / (1 - r), r = 1 - 1/D, and to the rounding of what is stored."""
    theory = SUN(n, shape, 1.0)
    flow = shaken(residual(theory, dtype=dtype), 2.0).to(device)
    U = theory.random(2, seed=4, dtype=dtype, device=device)
    with torch.no_grad():
        V, logdet = flow.transform.inverse(U)
        back, minus = flow.transform(V)
    assert_close(back, U, rtol=0, atol=2e-11 if dtype == torch.float64 else 2e-3)
    assert_close(minus, -logdet, rtol=0, atol=2e-10 if dtype == torch.float64 else 2e-2)
    unit = torch.eye(n, device=device).to(V).expand_as(V)
    assert_close(V.mH @ V, unit, rtol=0, atol=1e3 * torch.finfo(dtype).eps)


def test_gradients_by_recomputation():
    theory = SUN(3, (4, 4), 4.0)
    results = []
    for mode in (None, "inputs", "inverse"):
        torch.manual_seed(1)
        flow = shaken(residual(theory, 4, recompute=mode, conditioner="loops"))
        U, log_q = flow.rsample_and_log_prob(4, seed=1)
        (log_q + theory.action(U)).mean().backward()
        results.append(torch.cat([p.grad.flatten() for p in flow.parameters()]))
    assert_close(results[1], results[0], rtol=0, atol=0)
    assert_close(results[2], results[0], rtol=1e-9, atol=1e-10)


def test_log_prob_is_that_of_the_sample():
    theory = SUN(3, (4, 4), 4.0)
    flow = shaken(residual(theory, 8))
    U, log_q = flow.sample_and_log_prob(5, seed=1)
    z, logdet = flow.transform(U)
    assert_close(flow.base.log_prob(z) + logdet, log_q, rtol=0, atol=1e-9)


def test_layers_cover_every_link():
    flow = residual(SUN(2, (2, 4, 2), 1.0))
    stack = flow.transform.transform
    assert isinstance(stack, Compose)
    assert sorted((layer.mu, layer.parity) for layer in stack.transforms) == [(m, p) for m in range(3) for p in (0, 1)]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n": 4}, "n must be 2 or 3, got 4"),
        ({"shape": (4, 3)}, r"even extents, got \(4, 3\)"),
        ({"shape": (4,)}, "2 to 4 even extents"),
        ({"mu": 2}, r"mu must lie in \[0, 2\)"),
        ({"parity": 2}, "parity be 0 or 1"),
        ({"limit": 0.5}, r"limit must lie in \(0, 1 / 2\), got 0.5"),
        ({"conditioner": "cnn"}, "got 'cnn'"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        Residual(**{"n": 3, "shape": (4, 4), "mu": 0, "parity": 0} | change)


def test_what_does_not_come_to_rest_is_reported():
    layer = shaken(Residual(3, (4, 4), 0, 0, iterations=2))
    with pytest.raises(ArithmeticError, match="have not come to rest in 2 iterations"):
        layer.inverse(SUN(3, (4, 4), 1.0).random(1, seed=1))


def test_builder_refuses():
    from hepops.lattice import Phi4

    with pytest.raises(TypeError, match="theory must be SUN, got Phi4"):
        residual(Phi4((4, 4), m2=1.0, lam=1.0))
    with pytest.raises(ValueError, match="layers must be a whole number of at least 1"):
        residual(SUN(2, (4, 4), 1.0), 0)
