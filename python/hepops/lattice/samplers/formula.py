"""Heatbath sweeps in torch's operators: the reference of csrc/lattice/heatbath.h, and its rival in benchmarks."""

import math
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from hepops.core import philox_uniform

from .. import random
from ..sun import SUN
from ..theory import Theory
from ..u1 import U1

# (numbers of the links, how many pairs each has drawn) -> the next pair of each, shape (links, 2)
Draw = Callable[[Tensor, Tensor], Tensor]


def named(seed: int, sweep: int) -> Draw:
    """The numbers of the operator."""

    def draw(link: Tensor, count: Tensor) -> Tensor:
        out = torch.empty(len(link), 2, dtype=torch.float64)
        for c in count.unique().tolist():
            at = count == c
            out[at] = philox_uniform(link[at], seed, sweep, random.HEATBATH + 256 * c, torch.float64)
        return out

    return draw


def colours(theory: Theory, mu: int) -> Tensor:
    """The colour of every site for links of direction mu (csrc/lattice/sweep.h)."""
    others = [nu for nu in range(theory.dims) if nu != mu]
    n = 2 if all(theory.shape[nu] % 2 == 0 or theory.shape[nu] == 1 for nu in others) else 3
    total = torch.zeros(theory.shape, dtype=torch.int64)
    for nu in others:
        x = torch.arange(theory.shape[nu])
        c = x % 2
        if theory.shape[nu] % 2 and theory.shape[nu] > 1:
            c[-1] = 2
        total = total + c.view(*(-1 if nu == d else 1 for d in range(theory.dims)))
    return total % n


def heatbath(theory: Theory, field: Tensor, draw: Draw, first: int = 0) -> Tensor:
    """One sweep of a U1 or an SUN, in float64."""
    field = field.clone()
    B, D = field.shape[:2]
    number = torch.arange(first * D * theory.sites, (first + B) * D * theory.sites).view(B, D, *theory.shape)
    for mu in range(D):
        colour = colours(theory, mu)
        for c in range(int(colour.max()) + 1):
            at = colour == c
            link = number[:, mu][:, at].flatten()
            if isinstance(theory, U1):
                A = _angles_around(theory, field, mu)[:, at].flatten()
                k = theory.beta * A.abs()
                centre = -A.angle() + (math.pi if theory.beta < 0 else 0)
                new = centre + von_mises(k.abs(), link, draw)
                new = math.pi - torch.remainder(math.pi - new, 2 * math.pi)
                field[:, mu][:, at] = new.view(B, -1)
            else:
                assert isinstance(theory, SUN)
                A = theory.staples(field)[:, mu][:, at].flatten(0, 1)
                U = field[:, mu][:, at].flatten(0, 1)
                field[:, mu][:, at] = su_n(U, A, theory.beta, link, draw).view(B, -1, theory.n, theory.n)
    return field


def _angles_around(theory: U1, theta: Tensor, mu: int) -> Tensor:
    total = torch.zeros_like(theta[:, mu]) * 1j
    for nu in range(theory.dims):
        if nu == mu or theory.shape[nu] == 1:
            continue
        at = lambda a, *steps: torch.roll(theta[:, a], [-s for s in steps], [1 + mu, 1 + nu])  # noqa: B023, E731
        total = total + torch.exp(1j * (at(nu, 1, 0) - at(mu, 0, 1) - at(nu, 0, 0)))
        total = total + torch.exp(1j * (at(nu, 0, -1) - at(mu, 0, -1) - at(nu, 1, -1)))
    return total


def von_mises(k: Tensor, link: Tensor, draw: Draw) -> Tensor:
    """Best and Fisher's rejection as the paper has it."""
    count, theta = torch.zeros_like(link), torch.zeros_like(k)
    tau = 1 + (1 + 4 * k * k).sqrt()  # the paper's r = tau / 2k, which k = 0 has not
    open_ = torch.ones_like(k, dtype=torch.bool)
    while open_.any():
        u, v = draw(link[open_], count[open_]), draw(link[open_], count[open_] + 1)
        count[open_] += 2
        z = (math.pi * u[:, 0]).cos()
        t, k2 = tau[open_], 2 * k[open_]
        f = (k2 + t * z) / (t + k2 * z)
        c = (t - k2 * f) / 2
        taken = (c / u[:, 1]).log() + 1 - c >= 0
        at = open_.nonzero()[:, 0][taken]
        theta[at] = torch.where(v[:, 0] < 0.5, -f.acos(), f.acos())[taken]
        open_[at] = False
    return theta


def su_n(U: Tensor, A: Tensor, beta: float, link: Tensor, draw: Draw) -> Tensor:
    """Cabibbo and Marinari; for N = 2 one subgroup, the whole group."""
    n = U.shape[-1]
    count = torch.zeros_like(link)
    for i, j in combinations(range(n), 2):
        W = U @ A
        w = W[:, [i, j]][:, :, [i, j]]
        q = torch.stack(
            [
                (w[:, 0, 0] + w[:, 1, 1]).real,
                (w[:, 0, 1] + w[:, 1, 0]).imag,
                (w[:, 0, 1] - w[:, 1, 0]).real,
                (w[:, 0, 0] - w[:, 1, 1]).imag,
            ],
            -1,
        )
        q = q / 2
        size = q.norm(dim=-1)
        unit = q / size[:, None] * (1 if beta >= 0 else -1)
        x = _su2(2 * abs(beta) / n * size, link, count, draw)
        g = torch.eye(n, dtype=U.dtype).repeat(len(U), 1, 1)
        block = _matrix(x) @ _matrix(unit).mH
        g[:, i, i], g[:, i, j], g[:, j, i], g[:, j, j] = block.flatten(1).unbind(1)
        U = g @ U
    return U


def _matrix(q: Tensor) -> Tensor:
    a, b = torch.complex(q[:, 0], q[:, 3]), torch.complex(q[:, 2], q[:, 1])
    return torch.stack([a, b, -b.conj(), a.conj()], -1).view(-1, 2, 2)


def _su2(a: Tensor, link: Tensor, count: Tensor, draw: Draw) -> Tensor:
    """X with the density e^{a tr X / 2}; `count` grows by the pairs that were drawn."""
    x0 = torch.zeros_like(a)
    open_ = torch.ones_like(a, dtype=torch.bool)
    large = a > 1.69
    while open_.any():
        for which in (open_ & large, open_ & ~large):
            if not which.any():
                continue
            k, r = a[which], draw(link[which], count[which])
            if large[which][0]:
                s = draw(link[which], count[which] + 1)
                x = 1 + (r[:, 0].log() + s[:, 0].log() * (2 * math.pi * r[:, 1]).cos().square()) / k
                taken = s[:, 1].square() <= (1 + x) / 2
            else:
                x = 1 + ((1 - r[:, 0]) * torch.expm1(-2 * k)).log1p() / k
                taken = r[:, 1].square() <= 1 - x * x
            count[which] += 2 if large[which][0] else 1
            at = which.nonzero()[:, 0][taken]
            x0[at] = x[taken]
            open_[at] = False
    r = draw(link, count)
    count += 1
    z, phi = 2 * r[:, 0] - 1, 2 * math.pi * r[:, 1]
    size = (1 - x0 * x0).clamp_min(0).sqrt()
    across = size * (1 - z * z).sqrt()
    return torch.stack([x0, across * phi.cos(), across * phi.sin(), size * z], -1)
