"""The continuous flow of scalar fields: symmetries, divergence, order, gradients."""

import math

import pytest
import torch
from hepops.flows.continuous import exact_divergence
from hepops.lattice import U1, Phi4
from hepops.lattice.flows import ContinuousScalar, SineField, continuous, continuous_scalar
from hepops.lattice.flows.continuous_scalar import orbits
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from lattice.jacobian import numeric_logdet

f64 = torch.float64
SHAPES = [(6,), (4, 4), (2, 8), (2, 3, 3), (2, 2, 2, 3)]


def shaken(module, scale=0.3):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, dtype=f64, generator=generator).to(p.dtype))
    return module


def test_orbits():
    names = orbits((4, 4))
    assert names.max() == 5
    assert names[0, 0] == 0
    assert names[1, 2] == names[2, 1] == names[3, 2] == names[2, 3]
    assert names[1, 2] != names[1, 1]
    strip = orbits((2, 4))  # axes of different extents are not exchanged
    assert strip[1, 0] != strip[0, 1]
    assert strip[0, 1] == strip[0, 3]
    assert sum(p.numel() for p in SineField((8, 8)).parameters()) == 683


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_field_against_a_loop(shape):
    """g = sum over y, a, f as it is written, and its divergence."""
    field = shaken(SineField(shape, sines=2, nodes=3))
    phi = torch.randn(2, *shape, dtype=f64)
    t = torch.tensor(0.3, dtype=f64)
    V = phi[0].numel()
    K = continuous_scalar.lagrange(t, field.node)
    sites = [tuple(s) for s in torch.cartesian_prod(*map(torch.arange, shape)).view(V, len(shape)).tolist()]
    multiplicity = torch.bincount(field.orbit)
    names = field.orbit.view(shape)
    wanted = torch.zeros_like(phi)
    for x in sites:
        for y in sites:
            o = names[tuple((a - b) % n for a, b, n in zip(x, y, shape, strict=True))]
            for f in range(3):
                value = phi[(..., *y)] if f == 0 else (field.frequencies[f - 1] * phi[(..., *y)]).sin()
                wanted[(..., *x)] += (K @ field.weight[:, f, o] / multiplicity[o] * value).detach()
    g, divergence = field.with_divergence(t, phi.flatten(1))
    assert_close(g.view_as(phi), wanted)
    assert_close(divergence, exact_divergence(lambda x: field(t, x), phi.flatten(1))[1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fourier_and_matrix_agree(shape, monkeypatch, device):
    dense = shaken(SineField(shape)).to(device)
    monkeypatch.setattr(continuous_scalar, "DENSE", 0)
    fourier = shaken(SineField(shape)).to(device)
    assert dense.dense and not fourier.dense
    phi = torch.randn(3, dense.shape.numel(), dtype=f64, device=device)
    t = torch.tensor(0.7, dtype=f64, device=device)
    assert_close(fourier.with_divergence(t, phi), dense.with_divergence(t, phi))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_symmetries(shape, dtype, device):
    """phi -> -phi, translations, reflections, exchanges of equal axes."""
    layer = shaken(ContinuousScalar(shape, steps=3, dtype=dtype), 0.1).to(device)
    phi = torch.randn(4, *shape, dtype=dtype, device=device)
    D = len(shape)
    moves = [lambda p: -p, lambda p: p.roll(1, 1 + D - 1), lambda p: p.flip(1)]
    if D > 1 and shape[-1] == shape[-2]:
        moves.append(lambda p: p.transpose(-1, -2))
    y, logdet = layer(phi)
    tolerance = {"rtol": 0, "atol": 300 * torch.finfo(dtype).eps}
    for move in moves:
        moved, same = layer(move(phi))
        assert_close(moved, move(y), **tolerance)
        assert_close(same, logdet, **tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_order_of_the_integrator(shape):
    """The log-determinant of the steps is the integral of the divergence up to O(h^4); so is the way back."""
    phi = torch.randn(1, *shape, dtype=f64)
    errors = []
    for steps in (8, 16):
        layer = shaken(ContinuousScalar(shape, steps=steps, sines=4), 0.15)
        with torch.no_grad():
            y, logdet = layer(phi)
            numeric = numeric_logdet(lambda x, layer=layer: layer(x)[0], phi)
            back, minus = layer.inverse(y)
        errors.append([abs(logdet.item() - numeric), (back - phi).abs().max().item(), (logdet + minus).abs().item()])
    assert abs(numeric) > 0.01
    for coarse, fine in zip(*errors, strict=True):
        assert fine < 1e-4
        assert coarse < 1e-9 or math.log2(coarse / fine) > 3.5


def test_logdet_in_the_limit_of_small_steps():
    phi = torch.randn(1, 3, 3, dtype=f64)
    layer = shaken(ContinuousScalar((3, 3), steps=64, sines=2), 0.1)
    with torch.no_grad():
        assert numeric_logdet(lambda x: layer(x)[0], phi) == pytest.approx(layer(phi)[1].item(), abs=1e-8)


def test_derivatives():
    layer = shaken(ContinuousScalar((2, 3), steps=2, sines=2, nodes=2))
    phi = torch.randn(2, 2, 3, dtype=f64, requires_grad=True)
    names = [n for n, _ in layer.named_parameters()]

    def function(phi, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (phi,))

    parameters = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert gradcheck(function, (phi, *parameters), atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, (phi, *parameters), atol=1e-7, rtol=1e-6)


def test_gradients_by_recomputation():
    """Checkpoints: the same bits. By inversion: to what the steps lose on the way back."""
    theory = Phi4((4, 4), m2=-4.0, lam=8.0)
    results = []
    for mode in (None, "inputs", "inverse"):
        flow = shaken(continuous(theory, steps=16, recompute=mode), 0.05)
        phi, log_q = flow.rsample_and_log_prob(16, seed=1)
        (log_q + theory.action(phi)).mean().backward()
        results.append(torch.cat([p.grad.flatten() for p in flow.parameters()]))
    assert_close(results[1], results[0], rtol=0, atol=0)
    assert (results[2] - results[0]).norm() < 1e-4 * results[0].norm()


def saved_bytes(layer, phi):
    total = 0

    def pack(t):
        nonlocal total
        total += t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(phi)
    return total


def test_memory_is_constant_in_steps():
    phi = torch.randn(64, 8, 8, dtype=f64)
    kept = {
        (mode, steps): saved_bytes(shaken(ContinuousScalar((8, 8), steps=steps, recompute=mode)), phi)
        for mode in (None, "inputs", "inverse")
        for steps in (2, 8)
    }
    assert kept["inverse", 8] == kept["inverse", 2] < 2.5 * phi.nbytes
    assert kept["inputs", 8] < 12 * phi.nbytes
    assert kept[None, 8] > 100 * phi.nbytes


def test_builder_begins_at_the_width_of_least_free_energy():
    theory = Phi4((4, 4), m2=-4.0, lam=8.0)
    with torch.no_grad():
        phi, _ = continuous(theory).rsample_and_log_prob(64, seed=1)
    z = theory.prior().draw(64, 1)
    width = (phi / z).mean().item()
    assert_close(phi, z * width, rtol=1e-9, atol=1e-9)

    def free_energy(s):
        _, a, b = theory.law
        return a * s**2 + 3 * b * s**4 - math.log(s)

    assert free_energy(width) < min(free_energy(width * 1.001), free_energy(width / 1.001))


def test_learns(device):
    """A strip of 2 x 4 sites, whose ln Z is known: 60 steps take the ESS from .2 to .7."""
    from hepops.flows.training import train_sampler

    theory = Phi4((2, 4), m2=-4.0, lam=8.0)
    flow = continuous(theory, steps=4).to(device)
    train_sampler(flow, theory.log_prob, steps=60, batch=128, lr=2e-2, clip=20.0, seed=1)
    with torch.no_grad():
        phi, log_q = flow.sample_and_log_prob(20_000, seed=7)
        log_w = theory.log_prob(phi) - log_q
    w = (log_w - log_w.max()).exp()
    ess = (w.mean().square() / w.square().mean()).item()
    log_z = (log_w.max() + w.mean().log()).item()
    assert ess > 0.7
    # three sigma, and what 4 Runge-Kutta steps leave
    assert abs(log_z - 1.4936526544175166) < 3 * math.sqrt((1 / ess - 1) / 20_000) + 2e-3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps and probes must be at least 1, got 0"),
        ({"recompute": "all"}, "got 'all'"),
        ({"sines": -1}, "got -1 and 5"),
        ({"nodes": 0}, "got 8 and 0"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        ContinuousScalar((4, 4), **options)


def test_refuses_fields_and_theories():
    layer = ContinuousScalar((4, 4))
    with pytest.raises(ValueError, match=r"x must have shape \(\*batch, 4, 4\)"):
        layer(torch.zeros(2, 4, 5, dtype=f64))
    with pytest.raises(TypeError, match="theory must be Phi4 or SUN, got U1"):
        continuous(U1((4, 4), 1.0))
    with pytest.raises(ValueError, match="width must be positive"):
        SineField((4, 4), width=0.0)
