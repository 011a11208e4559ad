"""Continuous flows: exact on linear fields, of fourth order on others, and back in time."""

import importlib.util
import math
import sys

import pytest
import torch
from hepops import flows
from hepops.flows.continuous import exact_divergence, probed_divergence
from torch import nn
from torch.testing import assert_close

f64 = torch.float64
needs_torchdiffeq = pytest.mark.skipif(not importlib.util.find_spec("torchdiffeq"), reason="needs torchdiffeq")


class Linear(flows.Field):
    def __init__(self, A, closed=False):
        super().__init__()
        self.A, self.closed = nn.Parameter(A), closed

    def forward(self, t, x, context=None):
        y = x @ self.A.T.to(x.dtype)
        return y if context is None else y + context

    def with_divergence(self, t, x, context=None):
        if self.closed:
            return self(t, x, context), self.A.trace().expand(x.shape[:-1])


def shaken(field, scale=0.5):
    generator = torch.Generator().manual_seed(3)
    field = field.double()
    with torch.no_grad():
        for p in field.parameters():
            p.add_(scale * torch.randn(p.shape, dtype=f64, generator=generator))
    return field


@pytest.mark.parametrize("closed", [False, True])
def test_a_linear_field_is_the_matrix_exponential(closed, dtype):
    A = torch.tensor([[0.1, 1.0, 0.0], [-1.0, 0.2, 0.5], [0.0, 0.3, -0.7]], dtype=f64)
    layer = flows.Continuous(Linear(A, closed), steps=64, times=(0.0, 2.0))
    x = torch.randn(4, 5, 3, dtype=dtype)
    y, logdet = layer(x)
    assert y.dtype == dtype
    assert logdet.dtype == f64
    assert logdet.shape == (4, 5)
    assert_close(y, (x.double() @ torch.matrix_exp(2 * A).T).to(dtype), rtol=1e-6, atol=1e-6)
    # the integral of a constant
    assert_close(
        logdet, torch.full((4, 5), 2 * A.trace().item(), dtype=f64), rtol=1e-6 if dtype != f64 else 1e-12, atol=0
    )
    back, logdet_back = layer.inverse(y)
    assert_close(back, x, rtol=1e-5, atol=2e-6)
    assert_close(logdet_back, -logdet, rtol=1e-6, atol=0)


def test_context_enters_the_field():
    layer = flows.Continuous(Linear(torch.zeros(2, 2, dtype=f64)), steps=2)
    y, _ = layer(torch.zeros(3, 2, dtype=f64), torch.ones(3, 2, dtype=f64))
    assert_close(y, torch.ones(3, 2, dtype=f64))
    field = flows.TimeMLP(2, (8,), context=3)
    y, _ = flows.Continuous(shaken(field))(torch.zeros(4, 2, dtype=f64), torch.randn(4, 3, dtype=f64))
    assert not torch.equal(y[0], y[1])


def test_the_log_determinant_is_that_of_the_jacobian():
    """The exact integral, and not the determinant of the discrete steps: they agree to the order of the steps."""
    layer = flows.Continuous(shaken(flows.TimeMLP(3, (16,))), steps=64)
    x = torch.randn(3, 3, dtype=f64)
    y, logdet = layer(x)
    for i in range(3):
        J = torch.autograd.functional.jacobian(lambda t: layer(t)[0], x[i])
        assert_close(logdet[i], torch.linalg.slogdet(J)[1], rtol=0, atol=1e-6)
    back, logdet_back = layer.inverse(y)
    assert_close(back, x, rtol=0, atol=1e-6)
    assert_close(logdet_back, -logdet, rtol=0, atol=1e-6)


def test_the_order_of_the_steps_is_four():
    field, x = shaken(flows.TimeMLP(2, (16,))), torch.randn(20, 2, dtype=f64)
    with torch.no_grad():
        exact = flows.Continuous(field, steps=512)(x)
        errors = []
        for steps in (8, 16, 32):
            y, logdet = flows.Continuous(field, steps=steps)(x)
            layer = flows.Continuous(field, steps=steps)
            back = layer.inverse(y)[0]
            errors.append([(y - exact[0]).norm(), (logdet - exact[1]).norm(), (back - x).norm()])
    errors = torch.tensor(errors)
    orders = (errors[:-1] / errors[1:]).log2()
    assert (orders[-1] > 3.6).all(), orders
    assert (orders[-1, :2] < 4.6).all(), orders


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("divergence", ["exact", "rademacher"])
def test_gradients(recompute, divergence):
    field = shaken(flows.TimeMLP(2, (4,), context=1))
    layer = flows.Continuous(field, steps=3, recompute=recompute, divergence=divergence, seed=1)
    x, context = torch.randn(2, 2, dtype=f64, requires_grad=True), torch.randn(2, 1, dtype=f64, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(x, context, *values, method):
        with torch.nn.utils.stateless._reparametrize_module(layer, dict(zip(names, values, strict=True))):
            return method(x, context)

    for method in (layer.forward, layer.inverse):
        assert torch.autograd.gradcheck(
            lambda *a, method=method: call(*a, method=method),
            (x, context, *values),
            eps=1e-6,
            atol=1e-6,
            fast_mode=True,
        )


def test_recomputing_gives_the_bits_of_keeping():
    field, x = shaken(flows.TimeMLP(2, (16,))), torch.randn(10, 2, dtype=f64)
    gradients = []
    for recompute in (False, True):
        field.zero_grad()
        y, logdet = flows.Continuous(field, steps=4, recompute=recompute)(x)
        (y.square().sum() + logdet.sum()).backward()
        gradients.append([p.grad.clone() for p in field.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_a_result_does_not_depend_on_the_batch_or_on_gradients():
    layer = flows.Continuous(shaken(flows.TimeMLP(2, (16,))), divergence="gaussian", probes=2, seed=5)
    x = torch.randn(8, 2, dtype=f64)
    y, logdet = layer(x)
    layer.first = 3
    y_part, logdet_part = layer(x[3:])
    assert_close(logdet_part, logdet[3:], rtol=1e-12, atol=1e-12)
    assert_close(y_part, y[3:], rtol=1e-12, atol=1e-12)
    assert y.requires_grad
    with torch.no_grad():
        layer.first = 0
        again = layer(x)
    assert torch.equal(again[0], y)
    assert torch.equal(again[1], logdet)
    assert not again[1].requires_grad
    for p in layer.parameters():
        p.requires_grad_(False)
    assert not layer(x)[0].requires_grad
    layer.step = 1
    assert not torch.equal(layer(x)[1], logdet)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_hutchinsons_estimate_is_unbiased(kind):
    A = torch.randn(4, 4, dtype=f64)
    n = 4000
    layer = flows.Continuous(Linear(A), steps=1, divergence=kind, seed=1)
    _, logdet = layer(torch.randn(1, 4, dtype=f64).expand(n, 4))
    S = A + A.T
    off = (A * S).sum() - (A * S).diagonal().sum()
    variance = off if kind == "rademacher" else (A * S).sum()
    assert abs(logdet.mean() - A.trace()) < 5 * (variance / n).sqrt()
    assert_close(logdet.var(), variance, rtol=0.2, atol=0)
    many = flows.Continuous(Linear(A), steps=1, divergence=kind, probes=4, seed=1)
    assert_close(many(torch.zeros(n, 4, dtype=f64))[1].var(), variance / 4, rtol=0.2, atol=0)


def test_signs_are_exact_for_a_diagonal_field():
    x = torch.randn(5, 3, dtype=f64)
    probes = torch.where(torch.rand(2, 5, 3) < 0.5, -1.0, 1.0).double()
    assert_close(probed_divergence(torch.sin, x, probes)[1], torch.cos(x).sum(-1))
    assert_close(exact_divergence(torch.sin, x)[1], torch.cos(x).sum(-1))
    constant = torch.ones(3, dtype=f64)
    assert exact_divergence(lambda x: constant.expand_as(x), x)[1].eq(0).all()


def test_a_new_flow_is_the_identity_and_a_flow_learns():
    """Two moons' little brother: a curved band, by forward KL."""
    flow = flows.Flow(flows.Continuous(flows.TimeMLP(2, (32,)), steps=6), flows.Normal(2))
    z = flows.Normal(2).draw(512, 1)
    x = torch.stack([z[:, 0], 0.3 * z[:, 1] + z[:, 0] ** 2 - 1], -1)
    truth = flows.Normal(2).log_prob(z).mean().item() - math.log(0.3)
    before = flow.log_prob(x).mean().item()
    assert_close(before, flows.Normal(2).log_prob(x).mean().item())
    optimiser = torch.optim.Adam(flow.parameters(), 0.03)
    for _ in range(60):
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()
    after = flow.log_prob(x).mean().item()
    assert truth - after < 0.3 * (truth - before)


@needs_torchdiffeq
@pytest.mark.parametrize("adjoint", [False, True])
def test_torchdiffeq_agrees_with_small_steps(adjoint, dtype):
    field = shaken(flows.TimeMLP(2, (16,), context=1)).to(dtype)
    x = torch.randn(5, 2, dtype=dtype)
    results = []
    for layer in (
        flows.Continuous(field, steps=64),
        flows.Continuous(field, method="dopri5", tolerance=1e-9, adjoint=adjoint),
    ):
        context = torch.ones(5, 1, dtype=dtype, requires_grad=True)
        field.zero_grad()
        y, logdet = layer(x, context)
        (y.sum() + logdet.sum()).backward()
        results.append([y, logdet, context.grad, *(p.grad.clone() for p in field.parameters())])
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype
        assert_close(a, b, rtol=1e-6 if dtype == f64 else 1e-3, atol=1e-6 if dtype == f64 else 1e-3)


def test_without_torchdiffeq_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match=r"pip install hepops\[ode\]"):
        flows.Continuous(flows.TimeMLP(2), method="dopri5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps and probes must be at least 1, got 0"),
        ({"times": (1.0, 1.0)}, "times must be two different numbers"),
        ({"divergence": "trace"}, "divergence must be exact, rademacher or gaussian, got 'trace'"),
        ({"method": "dopri5", "recompute": True}, "recompute is of rk4"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        flows.Continuous(flows.TimeMLP(2), **options)


def test_a_field_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"field must return shape \(1, 2\), got \(1, 1\)"):
        flows.Continuous(lambda t, x, context: x[..., :1])(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="features must be at least 1, got 0"):
        flows.TimeMLP(0)


def test_nan_stays_in_its_event():
    y, logdet = flows.Continuous(shaken(flows.TimeMLP(2, (8,))))(torch.tensor([[math.nan, 0.0], [0.0, 0.0]], dtype=f64))
    assert y[0].isnan().all()
    assert logdet.isnan().tolist() == [True, False]
    assert y[1].isfinite().all()


@pytest.mark.parametrize("divergence", ["exact", "rademacher"])
def test_vmap_and_derivatives_by_torch_func(divergence):
    field = flows.TimeMLP(3, (8,)).double()
    torch.nn.init.normal_(field.layers[-1].weight)
    layer = flows.Continuous(field, steps=3, divergence=divergence, seed=1)
    x = torch.randn(1, 3, dtype=torch.float64)
    f = lambda x: layer(x)[0].sum() + layer(x)[1].sum()  # noqa: E731
    assert_close(torch.vmap(f)(x[None]), f(x)[None])
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(leaf), leaf)
    assert_close(torch.func.grad(f)(x), slope)
    assert_close(torch.vmap(torch.func.grad(f))(x[None]), slope[None])


@pytest.mark.parametrize("divergence", ["exact", "rademacher", "gaussian"])
def test_no_events(divergence):
    y, logdet = flows.Continuous(flows.TimeMLP(3), steps=2, divergence=divergence)(torch.zeros(0, 3))
    assert y.shape == (0, 3) and logdet.shape == (0,)


def test_refuses_shapes_times_and_counts():
    with pytest.raises(ValueError, match=r"x must have shape \(\*batch, 3\), got \(2, 4\)"):
        flows.Continuous(flows.TimeMLP(3))(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="times must be two different numbers, both finite"):
        flows.Continuous(flows.TimeMLP(2), times=(0.0, math.nan))
    with pytest.raises(TypeError, match="steps and probes must be integers"):
        flows.Continuous(flows.TimeMLP(2), steps=2.5)
