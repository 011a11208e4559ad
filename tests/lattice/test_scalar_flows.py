"""Checkerboards of scalar fields: log-determinants, gradients, symmetries, memory, and a small flow that is trained."""

import json

import pytest
import torch
from conftest import shared
from hepops.flows import Affine, MaskedCoupling, checkerboard
from hepops.flows.training import train_sampler
from hepops.flows.weights import effective_sample_size, log_normaliser
from hepops.lattice import Phi4
from hepops.lattice.flows import (
    AffineCheckerboard,
    Checkerboards,
    ConvNet,
    EvenNet,
    PeriodicConv,
    SplineCheckerboard,
    affine_flow,
    spline_flow,
)
from torch.testing import assert_close

from lattice.jacobian import numeric_logdet

LATTICES = [(4,), (4, 4), (2, 4), (2, 2, 4), (2, 2, 2, 2)]
GENERAL = {"odd": False, "activation": "leaky_relu"}


def randomised(layer, size=0.3):
    """A layer far from the identity, in double."""
    layer = layer.double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(size * torch.randn_like(p))
    return layer


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("shape", LATTICES)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [{}, GENERAL])
def test_affine_jacobian_at_every_site(shape, parity, fused, kind):
    layer = randomised(AffineCheckerboard(shape, parity, hidden=(3, 2), fused=fused, **kind), 0.2)
    phi = torch.randn(1, *shape).double()
    with torch.no_grad():
        logdet = layer(phi)[1].item()
        assert abs(logdet) > 1e-3
        assert numeric_logdet(lambda phi: layer(phi)[0], phi) == pytest.approx(logdet, abs=1e-8)
        assert layer.inverse(layer(phi)[0])[1].item() == pytest.approx(-logdet, abs=1e-12)


@pytest.mark.parametrize("shape", LATTICES)
@pytest.mark.parametrize("odd", [True, False])
def test_spline_jacobian_at_every_site(shape, odd):
    layer = randomised(SplineCheckerboard(shape, 1, bins=3, hidden=(3,), odd=odd))
    phi = 0.5 * torch.randn(1, *shape).double()
    with torch.no_grad():
        logdet = layer(phi)[1].item()
        assert abs(logdet) > 1e-3
        # a spline has a second derivative that jumps at its knots: the step must stay between two of them
        assert numeric_logdet(lambda phi: layer(phi)[0], phi, 1e-4) == pytest.approx(logdet, abs=1e-8)


def test_a_leaked_site_fails_the_jacobian():
    layer = randomised(AffineCheckerboard((4, 4), hidden=(3,), fused=False))
    phi = torch.randn(1, 4, 4).double()
    leaked = layer.mask.clone()
    seen = leaked.clone()
    seen[0, 0] = False  # an active site that the network sees
    with torch.no_grad():
        right = layer(phi)[1].item()
        assert numeric_logdet(lambda phi: layer(phi)[0], phi) == pytest.approx(right, abs=1e-8)

        def leaking(phi):
            layer.mask = seen
            s, t = layer.conditioner(phi)
            layer.mask = leaked
            return torch.where(leaked, phi * s.exp() + t, phi)

        layer.mask = seen
        s = layer.conditioner(phi)[0]
        layer.mask = leaked
        claimed = torch.where(leaked, s, 0).sum().item()
        assert abs(numeric_logdet(leaking, phi) - claimed) > 1e-4


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4, 4), {}),
        ((4, 6), {"hidden": (9, 13), "kernel": 5}),
        ((4, 4), GENERAL | {"limit": None}),
        ((8,), {"kernel": 5}),
        ((2, 2, 4), {"hidden": ()}),
        ((2, 4), GENERAL | {"hidden": ()}),
        ((2, 2, 2, 2), {"hidden": (3, 3)}),
    ],
)
def test_fused_is_the_plain_form(shape, options, inverse, device, dtype):
    layer = randomised(AffineCheckerboard(shape, 1, **options), 0.1).to(device, dtype)
    x = torch.randn(19, *shape, device=device, dtype=dtype, requires_grad=True)
    G, g = torch.randn_like(x), torch.randn(19, device=device).double()
    results = []
    for fused in (True, False):
        layer.fused = fused
        y, logdet = layer.inverse(x) if inverse else layer(x)
        results.append((y, logdet, *torch.autograd.grad([y, logdet], [x, layer.parameters_], [G, g])))
    for ours, plain in zip(*results, strict=True):
        scale = plain.abs().max()  # sums over configurations and sites
        assert_close(ours / scale, plain / scale, rtol=0, atol=100 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("make", [AffineCheckerboard, SplineCheckerboard])
def test_sign_and_translations(make, device, dtype):
    """Layers commute with phi -> -phi and with translations that keep the colours: affine ones bit for bit."""
    layer = randomised(make((4, 6), hidden=(4,))).to(device, dtype)
    phi = torch.randn(20, 4, 6, device=device, dtype=dtype)
    tolerance = {
        "rtol": 0,
        "atol": 0 if make is AffineCheckerboard else 100 * torch.finfo(dtype).eps,
    }  # of splines with slopes of 5
    with torch.no_grad():
        y, logdet = layer(phi)
        minus, same = layer(-phi)
        assert_close(minus, -y, **tolerance)
        assert_close(same, logdet, rtol=0, atol=24 * tolerance["atol"])
        moved, again = layer(phi.roll((1, 3), (1, 2)))
        assert torch.equal(moved, y.roll((1, 3), (1, 2)))
        assert_close(again, logdet, rtol=1e-13, atol=1e-13)  # a sum in another order


def test_samples_do_not_depend_on_the_batch(device, dtype):
    layer = randomised(AffineCheckerboard((4, 4), fused=True)).to(device, dtype)
    phi = torch.randn(35, 4, 4, device=device, dtype=dtype)
    with torch.no_grad():
        y, logdet = layer(phi)
        some, parts = layer(phi[7:12])
    assert torch.equal(some, y[7:12]) and torch.equal(parts, logdet[7:12])


def test_threads_do_not_matter(device):
    layer = randomised(AffineCheckerboard((4, 4), fused=True)).to(device)
    phi, threads = torch.randn(3000, 4, 4, device=device).double(), torch.get_num_threads()
    results = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            y, logdet = layer(phi)
            results.append(torch.autograd.grad(y.square().sum() + logdet.sum(), layer.parameters_)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def saved_bytes(flow, batch):
    sizes = {}

    def keep(t):
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    weights = {p.untyped_storage().data_ptr() for p in flow.parameters()}
    z = torch.randn(batch, *flow.event_shape)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        x, logdet = flow.transform.inverse(z)
        loss = (x.sum() + logdet.sum()).mean()
    assert loss.requires_grad
    return sum(n for p, n in sizes.items() if p not in weights)


def test_memory_kept_for_the_backward():
    theory, batch, sites = Phi4((8, 8), -4.0, 8.0), 64, 64 * 64
    layers = {n: saved_bytes(affine_flow(theory, n), batch) for n in (8, 16)}
    per_site_and_layer = (layers[16] - layers[8]) / 8 / sites
    assert 4 <= per_site_and_layer <= 5  # a layer's input; the bar is 24
    constant = {n: saved_bytes(affine_flow(theory, n, recompute="inverse"), batch) for n in (8, 16)}
    assert constant[8] == constant[16] <= 2 * 4 * sites


@pytest.mark.parametrize("backwards", [False, True])
def test_undoing_gives_the_same_gradients(backwards, device):
    layers = [randomised(AffineCheckerboard((4, 4), n), 0.1) for n in range(8)]
    z, results = torch.randn(20, 4, 4, device=device).double().requires_grad_(), []
    for recompute in (None, "inputs", "inverse"):
        stack = Checkerboards(layers, recompute).to(device)
        y, logdet = stack.inverse(z) if backwards else stack(z)
        results.append(torch.autograd.grad((y.square().sum() + logdet.sum()), [z, *stack.parameters()]))
    for plain, inputs, inverse in zip(*results, strict=True):
        assert torch.equal(plain, inputs)
        assert_close(inverse, plain, rtol=1e-10, atol=1e-10 * plain.abs().max().item())


def test_undoing_in_float32():
    """16 layers are undone to 1e-4 of the gradient's norm."""
    torch.manual_seed(3)
    layers, results = [randomised(AffineCheckerboard((8, 8), n), 0.05).float() for n in range(16)], []
    z = torch.randn(64, 8, 8)
    for recompute in (None, "inverse"):
        stack = Checkerboards(layers, recompute)
        y, logdet = stack(z)
        grads = torch.autograd.grad((y.square().sum() + logdet.sum()), list(stack.parameters()))
        results.append(torch.cat(grads))
    assert (results[0] - results[1]).norm() < 1e-4 * results[0].norm()


def test_second_derivatives_of_the_plain_form_only():
    layer = randomised(AffineCheckerboard((2, 2), hidden=(2,), fused=False))
    phi = torch.randn(4, 2, 2).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda phi: layer(phi), phi, atol=1e-7)
    layer.fused = True
    y, _ = layer(phi)
    (slope,) = torch.autograd.grad(y.square().sum(), phi, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        slope.sum().backward()


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_networks_in_a_masked_coupling(dims):
    mask, at = checkerboard((4,) * dims), torch.randn(2, *(4,) * dims)
    for network in (ConvNet(1, 2, (3,), dims=dims), EvenNet(1, 2, (3,), dims=dims)):
        layer = MaskedCoupling(mask, Affine(), network)
        y, logdet = layer(at)
        assert torch.equal(y, at) and torch.equal(logdet, torch.zeros(2).double())
    sees = ConvNet(1, 2, (3,), dims=dims, context=3)
    assert sees(at[:, None], torch.randn(2, 3)).shape == (2, 2, *(4,) * dims)


@pytest.mark.parametrize("make", [affine_flow, spline_flow])
def test_a_flow_knows_the_density_of_its_samples(make, dtype):
    flow = make(Phi4((4, 4), -4.0, 8.0), layers=4, dtype=dtype)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.05 * torch.randn_like(p))
        phi, log_q = flow.rsample_and_log_prob(50, seed=1)
        assert_close(flow.log_prob(phi), log_q, rtol=0, atol=1e-3 if dtype == torch.float32 else 1e-9)


def test_log_z_of_a_trained_flow():
    """2 x 8, m2 = -4, lam = 8: against the transfer matrix."""
    golden = json.loads(shared("golden/flows/scalar_exact.json").read_text())["interacting_exact_convA"]
    exact, theory = golden["2D_2x8_m2_-4.0_lam_8.0"]["lnZ"], Phi4((2, 8), -4.0, 8.0)
    torch.manual_seed(1)
    flow = affine_flow(theory, 6, (6,), recompute="inverse")
    train_sampler(flow, theory.log_prob, steps=400, batch=256, lr=1e-2, loss="reverse_kl", seed=1, clip=10.0)
    flow = flow.double()
    flow.base = theory.prior(torch.float64)
    with torch.no_grad():
        phi, log_q = flow.rsample_and_log_prob(16384, seed=2)
        log_w = theory.log_prob(phi) - log_q
    assert effective_sample_size(log_w) > 0.5
    z = log_normaliser(log_w)
    assert abs(z.value - exact) < 3 * z.error
    assert z.error < 0.01


@pytest.mark.parametrize("make", [AffineCheckerboard, SplineCheckerboard])
def test_refuses_odd_extents(make):
    with pytest.raises(ValueError, match=r"a checkerboard needs even extents, got \(4, 3\)"):
        make((4, 3))
    with pytest.raises(ValueError, match="kernel must be odd, got 2"):
        make((4, 4), kernel=2)
    with pytest.raises(ValueError, match=r"x must have shape \(\*batch, 4, 4\), got \(2, 4, 6\)"):
        make((4, 4))(torch.zeros(2, 4, 6))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AffineCheckerboard((4, 4), activation="leaky_relu"), "activation must be 'tanh', got 'leaky_relu'"),
        (lambda: AffineCheckerboard((4, 4), odd=False, activation="silu"), "or 'leaky_relu', got 'silu'"),
        (lambda: AffineCheckerboard((4, 4), limit=0.0), "limit must be positive, or None, got 0.0"),
        (lambda: AffineCheckerboard((4, 4), hidden=(0,)), r"hidden must hold positive .* got \(0,\)"),
        (lambda: ConvNet(1, 1, dims=5), "dims must be 1 to 4, got 5"),
        (lambda: PeriodicConv(1, 1, activation="elu"), "activation must be .* got 'elu'"),
        (lambda: affine_flow(Phi4((3, 4), 1.0, 1.0)), r"even extents, got \(3, 4\)"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_operator_refuses_odd_extents():
    op = torch.ops.hepops._lattice_checkerboard_affine.default
    with pytest.raises(RuntimeError, match="needs even extents"):
        op(torch.zeros(2, 3, 4), torch.zeros(19), [3, 3], [], 0, 2, True, 0.0, False)
