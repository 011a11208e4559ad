import math

import pytest
import torch
from hepops.flows import (
    Additive,
    Affine,
    CircularMixture,
    CircularSpline,
    PiecewiseLinear,
    PiecewiseQuadratic,
    SigmoidMixture,
)
from torch.testing import assert_close

UNIT, LINE, CIRCLE = (0.01, 0.99), (-3.0, 3.0), (-3.0, 3.0)
FAMILIES = [
    (Additive(), LINE, 1e-12),
    *((Affine(scale), LINE, 1e-6) for scale in ("exp", "softclip", "tanh", "softplus")),
    (Affine("sigmoid"), LINE, 0.06),
    (CircularMixture(1), CIRCLE, 1e-12),
    (CircularMixture(4), CIRCLE, 0.02),
    (CircularMixture(4, weights=True), CIRCLE, 0.02),
    (CircularSpline(8), CIRCLE, 1e-6),
    (SigmoidMixture(1), LINE, 1e-6),
    (SigmoidMixture(8), LINE, 0.3),
    (PiecewiseLinear(16), UNIT, 1e-12),
    (PiecewiseQuadratic(16), UNIT, 1e-12),
]


@pytest.mark.parametrize(("family", "domain", "near"), FAMILIES, ids=lambda f: type(f).__name__)
def test_families(family, domain, near, device):
    x = domain[0] + (domain[1] - domain[0]) * torch.rand(40, 5, device=device, dtype=torch.float64)
    identity = family.identity().to(x)
    assert identity.shape == (family.size,)
    y, logdet = family.forward(x, identity.expand(*x.shape, -1))
    assert_close(y, x, rtol=0, atol=near)
    assert_close(logdet, torch.zeros_like(x), rtol=0, atol=near)

    raw = (identity + 0.5 * torch.randn(*x.shape, family.size, device=device)).requires_grad_()
    y, logdet = family.forward(x.requires_grad_(), raw)
    (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert_close(slope.log(), logdet, rtol=1e-9, atol=1e-9)
    back, inverse = family.inverse(y, raw)
    assert_close(back, x, rtol=1e-9, atol=1e-9)
    assert_close(inverse, -logdet, rtol=1e-7, atol=1e-7)
    assert y.shape == logdet.shape == x.shape


@pytest.mark.parametrize(("family", "domain", "near"), FAMILIES, ids=lambda f: type(f).__name__)
def test_wrong_counts_are_refused(family, domain, near):
    with pytest.raises(ValueError, match=r"parameters?"):
        family.forward(torch.full((3,), 0.5), torch.zeros(3, family.size + 7))


@pytest.mark.parametrize("family", [CircularMixture(4), CircularMixture(3, weights=True), SigmoidMixture(4)])
def test_components_begin_apart(family):
    """Components with equal parameters would have equal gradients, and never part."""
    x = torch.randn(100, dtype=torch.float64)
    raw = family.identity().double().requires_grad_()
    (y, logdet), K = family.forward(x, raw.expand(100, -1)), family.components
    (grad,) = torch.autograd.grad((y * x.sin() + logdet).sum(), raw)
    assert len(set(grad[:K].tolist())) == K


@pytest.mark.parametrize("kind", [CircularMixture, SigmoidMixture, PiecewiseLinear, PiecewiseQuadratic])
@pytest.mark.parametrize("count", [0, -1, 1000])
def test_refuses_counts(kind, count):
    with pytest.raises(ValueError, match=f"must be 1 to .*, got {count}"):
        kind(count)
    with pytest.raises(TypeError, match=r"must be an integer, got 2\.5"):
        kind(2.5)


def test_a_rotated_spline_moves_pi():
    family = CircularSpline(4)
    raw = family.identity()
    raw[-1] = 1.0
    y, logdet = family.forward(torch.tensor([math.pi, 3.0]), raw.expand(2, -1))
    assert_close(y, torch.tensor([1 - math.pi, 4 - 2 * math.pi]), rtol=0, atol=1e-5)
    assert_close(logdet, torch.zeros(2), rtol=0, atol=1e-5)
