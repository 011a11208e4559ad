import math

import pytest
import torch
from hepops.flows import (
    AffineFixed,
    Compose,
    Logit,
    Sigmoid,
    Softplus,
    Standardise,
    Tanh,
    Wrap,
)
from torch.testing import assert_close


def jacobian_logdet(transform, x):
    return torch.stack([torch.autograd.functional.jacobian(lambda v: transform(v)[0], row).slogdet()[1] for row in x])


@pytest.mark.parametrize(
    "transform",
    [
        Softplus(),
        Tanh(),
        Sigmoid(),
        Logit(),
        AffineFixed(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.1, 2.0, 30.0])),
        AffineFixed(0.3, 2.5),
        Standardise(torch.randn(50, 3) * torch.tensor([1.0, 10.0, 0.01])),
        Compose([AffineFixed(0.0, 0.2), Sigmoid(), Logit(), Tanh()]),
    ],
    ids=lambda t: type(t).__name__,
)
def test_logdet_is_that_of_the_jacobian(transform, dtype):
    x = 0.05 + 0.9 * torch.rand(6, 3, dtype=torch.float64)
    y, logdet = transform(x)
    total = logdet.sum(-1) if transform.event_dim == 0 else logdet
    assert_close(total, jacobian_logdet(transform, x), rtol=1e-10, atol=1e-10)
    back, inverse = transform.inverse(y)
    assert_close(back, x, rtol=1e-12, atol=1e-12)
    assert_close(inverse, -logdet, rtol=1e-12, atol=1e-12)
    y, logdet = transform(x.to(dtype))
    assert y.dtype == dtype
    assert logdet.dtype == (dtype if transform.event_dim == 0 else torch.float64)


def test_learned_scales_have_gradients():
    transform = AffineFixed(torch.zeros(2), torch.ones(2), learned=True)
    y, logdet = transform(torch.tensor([[1.0, 2.0]]))
    (y.sum() + logdet.sum()).backward()
    assert transform.log_scale.grad.tolist() == [2.0, 3.0]  # x e^s and 1
    assert transform.shift.grad.tolist() == [1.0, 1.0]
    assert not list(AffineFixed(0.0, 1.0).parameters())


def test_standardised_features():
    sample = torch.randn(1000, 2, dtype=torch.float64) * torch.tensor([3.0, 1e-3]) + torch.tensor([100.0, -1.0])
    y, _ = Standardise(sample)(sample)
    assert_close(y.mean(0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-10)
    assert_close(y.std(0), torch.ones(2, dtype=torch.float64), rtol=1e-10, atol=0)


def test_wrap_leaves_what_is_inside(dtype):
    x = torch.tensor([-3.1, 0.0, 3.1], dtype=dtype)
    assert torch.equal(Wrap()(x)[0], x)
    y, logdet = Wrap()(x + 4 * math.pi)
    assert_close(y, x, rtol=0, atol=1e-5)
    assert not logdet.any()
    assert torch.equal(Wrap(0.0, 1.0)(torch.tensor([-0.25, 1.0, 2.5]))[0], torch.tensor([0.75, 0.0, 0.5]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AffineFixed(0.0, 0.0), r"scale must be positive and finite, got 0.0"),
        (
            lambda: AffineFixed(0.0, torch.tensor([1.0, math.nan])),
            r"scale must be positive and finite, got \[1",
        ),
        (lambda: AffineFixed(math.inf), "shift must be finite, got inf"),
        (lambda: AffineFixed(torch.zeros(2, 2)), r"of shape \(D\), got shapes \(2, 2\)"),
        (lambda: Standardise(torch.ones(5, 2)), r"features \[0, 1\] do not vary"),
        (lambda: Standardise(torch.ones(1, 2)), "at least two events"),
        (lambda: Wrap(period=0.0), "period must be positive and finite, got 0.0"),
        (lambda: Wrap(low=math.nan), "low must be finite, got nan"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
