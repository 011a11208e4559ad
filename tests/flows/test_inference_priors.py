"""Priors: their densities, and their maps to normal numbers."""

import math

import pytest
import torch
from hepops.flows.inference import Box, LogNormal, Normal, Prior, Product
from torch.testing import assert_close

COVARIANCE = [[1.0, 0.3], [0.3, 0.5]]
PRIORS = [
    Box([-1.0, 500.0], [2.0, 5000.0], ["a", "b"], ["cm", "us"]),
    Normal([1.0, -2.0], [0.5, 3.0]),
    Normal([1.0, -2.0], COVARIANCE),
    LogNormal([2200.0, 0.1], [0.3, 0.8]),
    Product([Box([0.0], [1.0], ["x"]), LogNormal([3.0], [0.5], ["y"], ["MeV"])]),
]
EVERY = pytest.mark.parametrize("prior", PRIORS, ids=lambda p: type(p).__name__)


def reference(prior):
    """torch's distribution of the same law."""
    D = torch.distributions
    if isinstance(prior, Box):
        return D.Independent(D.Uniform(prior.low, prior.high), 1)
    if isinstance(prior, LogNormal):
        return D.Independent(D.LogNormal(prior.mean, prior.factor.diagonal()), 1)
    return D.MultivariateNormal(prior.mean, scale_tril=prior.factor)


@pytest.mark.parametrize("prior", PRIORS[:4], ids=lambda p: type(p).__name__)
def test_density_is_that_of_torch(prior):
    theta = prior.sample(1000, seed=3)
    assert_close(prior.log_prob(theta), reference(prior).log_prob(theta), rtol=1e-12, atol=1e-11)


def test_product_adds():
    prior = PRIORS[-1]
    theta = prior.sample(100, seed=1)
    parts = [part.log_prob(theta[:, i : i + 1]) for i, part in enumerate(prior.parts)]
    assert_close(prior.log_prob(theta), parts[0] + parts[1])
    assert prior.names == ("x", "y") and prior.units == ("", "MeV")


@EVERY
def test_map_and_its_inverse_agree_with_autograd(prior):
    theta = prior.sample(50, seed=2)
    u, logdet = prior.to_normal(theta)
    back, inverse = prior.from_normal(u)
    assert_close(back, theta, rtol=1e-12, atol=1e-12)
    assert_close(logdet, -inverse, rtol=1e-9, atol=1e-9)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda t: prior.to_normal(t)[0]))(theta)
    assert_close(jacobian.logdet(), logdet, rtol=1e-9, atol=1e-9)


@EVERY
def test_samples_are_named_and_of_the_law(prior):
    theta = prior.sample(20_000, seed=4)
    assert torch.equal(prior.sample(7, seed=4, first=1000), theta[1000:1007])
    assert bool(prior.inside(theta).all())
    u, _ = prior.to_normal(theta)
    assert_close(u.mean(0), torch.zeros(2).double(), rtol=0, atol=4 / math.sqrt(20_000))
    assert_close(torch.cov(u.T), torch.eye(2).double(), rtol=0, atol=6 / math.sqrt(20_000))


def test_nothing_leaves_the_support():
    box = PRIORS[0]
    far = torch.tensor([[-60.0, 60.0], [9.0, -9.0]])
    theta, _ = box.from_normal(far)
    assert bool(box.inside(theta).all())
    outside = torch.tensor([[-1.001, 600.0], [0.0, 5001.0], [math.nan, 600.0]])
    assert bool((box.log_prob(outside) == -math.inf).all())
    assert float(PRIORS[3].log_prob(torch.tensor([-1.0, 0.1]))) == -math.inf
    border = torch.stack([box.low, box.high])
    assert_close(box.log_prob(border), -(box.high - box.low).log().sum().expand(2))


def test_a_box_around_a_point_stays_inside():
    box = PRIORS[0].around([1.5, 2000.0], [1.0, 300.0])
    assert box.low.tolist() == [0.5, 1700.0] and box.high.tolist() == [2.0, 2300.0]
    assert box.names == ("a", "b") and box.units == ("cm", "us")
    with pytest.raises(ValueError, match="low must be below high"):
        PRIORS[0].around([9.0, 2000.0], [1.0, 300.0])


@EVERY
def test_json_gives_it_back(prior):
    again = Prior.from_dict(prior.to_dict())
    theta = prior.sample(20, seed=1)
    assert type(again) is type(prior) and again.names == prior.names and again.units == prior.units
    assert_close(again.log_prob(theta), prior.log_prob(theta), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box([0.0], [0.0]), "low must be below high"),
        (lambda: Box([0.0], [math.inf]), "low must be below high"),
        (lambda: Box([math.nan], [1.0]), "low must be below high"),
        (lambda: Box([0.0, 1.0, 2.0], [3.0, 4.0]), "vectors of one length, got .3, 2"),
        (lambda: Box([0.0, 0.0], [1.0, 1.0], ["a", "a"]), "names must differ"),
        (lambda: Box([0.0], [1.0], ["a", "b"]), "names must hold 1 texts"),
        (lambda: Normal([0.0], [0.0]), "sigma must be positive"),
        (lambda: Normal([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
        (lambda: Normal([math.nan], [1.0]), "mean must be finite"),
        (lambda: LogNormal([-1.0], [1.0]), "median must be positive"),
        (lambda: Product([]), "at least one prior"),
        (lambda: Prior.from_dict({"kind": "os.system"}), "kind must be one of"),
        (lambda: PRIORS[0].log_prob(torch.zeros(3)), r"shape \(..., 2\), got \(3,\)"),
        (lambda: PRIORS[0].sample(-1, seed=1), "n must not be negative"),
    ],
)
def test_what_has_no_meaning_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
