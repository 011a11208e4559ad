"""The oracle of log-determinants is right where the answer is known."""

import math

import pytest
import torch
from hepops.lattice import SUN, U1

from lattice.jacobian import numeric_logdet, numeric_logdet_of_angles


def test_of_numbers():
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)[None]
    assert numeric_logdet(lambda x: x + x**3 / 3, x) == pytest.approx((1 + x**2).log().sum().item(), abs=1e-10)


def test_of_angles_across_the_cut():
    theta = U1((2, 2), 1.0).random(1, seed=1)
    wrapped = lambda t: torch.remainder(t + 3 + 0.5 * t.sin() + math.pi, 2 * math.pi) - math.pi  # noqa: E731
    wanted = (1 + 0.5 * theta.cos()).log().sum().item()
    assert numeric_logdet_of_angles(wrapped, theta) == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize("n", [2, 3])
def test_products_with_fixed_links_keep_the_measure(n):
    U, V = (SUN(n, (2, 2), 1.0).random(1, seed=seed) for seed in (1, 2))
    assert numeric_logdet(lambda U: V @ U @ V, U) == pytest.approx(0, abs=1e-9)


def test_the_square_of_a_phase():
    """U -> U^2 in SU(2): by Weyl's formula |sin 2a / sin a|^2 |2| with eigenphases +-a, for each link."""
    U = SUN(2, (2, 1), 1.0).random(1, seed=3)
    a = torch.acos(U.diagonal(dim1=-2, dim2=-1).sum(-1).real / 2)
    wanted = (2 * (torch.sin(2 * a) / torch.sin(a)) ** 2).log().sum().item()
    assert numeric_logdet(lambda U: U @ U, U) == pytest.approx(wanted, abs=1e-8)
