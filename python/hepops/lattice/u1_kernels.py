"""The operators of compact U(1), and its derivatives. Planes stand in the order 01, 02, ..., 12, ... ."""

import math
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from .geometry import neighbour

_ops = torch.ops.hepops


def angles_formula(theta: Tensor) -> Tensor:
    """theta_P in torch's operators, shape (B, planes, L...)."""
    d, link = theta.shape[1], theta.unbind(1)
    return torch.stack(
        [
            link[mu] + neighbour(link[nu], mu, d) - neighbour(link[mu], nu, d) - link[nu]
            for mu, nu in combinations(range(d), 2)
        ],
        1,
    )


def gather_formula(planes: Tensor, d: int) -> Tensor:
    """The transposed map, of planes to links, in torch's operators."""
    links = [torch.zeros_like(planes[:, 0]) for _ in range(d)]
    for k, (mu, nu) in enumerate(combinations(range(d), 2)):
        s = planes[:, k]
        links[mu] = links[mu] + s - neighbour(s, nu, d, -1)
        links[nu] = links[nu] - s + neighbour(s, mu, d, -1)
    return torch.stack(links, 1)


def density_formula(theta: Tensor, beta: Any) -> Tensor:
    """The operators' laws in torch's: what tests and benchmarks compare with."""
    return -beta * angles_formula(theta).cos().sum(1)


def action_formula(theta: Tensor, beta: Any) -> Tensor:
    return density_formula(theta, beta).double().flatten(1).sum(-1)


def force_formula(theta: Tensor, beta: Any) -> Tensor:
    return gather_formula(beta * angles_formula(theta).sin(), theta.shape[1])


def _each(grad: Tensor, field: Tensor) -> Tensor:
    """A number of each configuration times its field."""
    return grad.to(field.dtype).view(-1, *[1] * (field.dim() - 1)) * field


@register_fake("hepops::_lattice_u1_action")
def _(theta: Tensor, beta: float, wide: bool, accurate: bool) -> Tensor:
    return theta.new_empty(theta.shape[:1], dtype=torch.float64)


@register_fake("hepops::_lattice_u1_density")
def _(theta: Tensor, beta: float) -> Tensor:
    return theta.new_empty(theta.shape[:1] + theta.shape[2:])


@register_fake("hepops::_lattice_u1_force")
def _(theta: Tensor, beta: float, wide: bool) -> Tensor:
    return theta.new_empty(theta.shape)


@register_fake("hepops::_lattice_u1_action_and_force")
def _(theta: Tensor, beta: float, wide: bool, accurate: bool) -> tuple[Tensor, Tensor]:
    return theta.new_empty(theta.shape[:1], dtype=torch.float64), theta.new_empty(theta.shape)


@register_fake("hepops::_lattice_u1_hessian")
def _(theta: Tensor, v: Tensor, beta: float, wide: bool) -> Tensor:
    return theta.new_empty(theta.shape)


@register_fake("hepops::_lattice_u1_third")
def _(theta: Tensor, v: Tensor, w: Tensor, beta: float, wide: bool) -> Tensor:
    return theta.new_empty(theta.shape)


@register_fake("hepops::_lattice_u1_angles")
def _(theta: Tensor) -> Tensor:
    d = theta.dim() - 2
    return theta.new_empty((theta.shape[0], math.comb(d, 2), *theta.shape[2:]))


@register_fake("hepops::_lattice_u1_angles_backward")
def _(planes: Tensor) -> Tensor:
    return planes.new_empty((planes.shape[0], planes.dim() - 2, *planes.shape[2:]))


@register_fake("hepops::_lattice_u1_trajectory")
def _(theta: Tensor, momenta: Tensor, plan: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    return theta.new_empty(theta.shape), theta.new_empty(theta.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    ctx.save_for_backward(*tensors)
    ctx.rest = inputs[len(tensors) :]


# the gradient of the action is the force
def _action_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (theta,) = ctx.saved_tensors
    return _each(grad, _ops._lattice_u1_force(theta, *ctx.rest[:2])), None, None, None


# S = -beta sum cos P, each plane with the gradient of its site
def _density_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (theta,) = ctx.saved_tensors
    sine = ctx.rest[0] * _ops._lattice_u1_angles(theta).sin()
    return _ops._lattice_u1_angles_backward(grad[:, None] * sine), None


# the Hessian is symmetric
def _force_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (theta,) = ctx.saved_tensors
    return _ops._lattice_u1_hessian(theta, grad, *ctx.rest), None, None


def _both_backward(ctx: Any, grad: Tensor, grad_force: Tensor) -> tuple[Any, ...]:
    (theta,) = ctx.saved_tensors
    law = ctx.rest[:2]
    slope = _each(grad, _ops._lattice_u1_force(theta, *law)) + _ops._lattice_u1_hessian(theta, grad_force, *law)
    return slope, None, None, None


# the third derivative is symmetric too
def _hessian_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    theta, v = ctx.saved_tensors
    along_theta = _ops._lattice_u1_third(theta, v, grad, *ctx.rest)
    return along_theta, _ops._lattice_u1_hessian(theta, grad, *ctx.rest), None, None


def _third_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    theta, v, w = ctx.saved_tensors
    angles = _ops._lattice_u1_angles
    fourth = -ctx.rest[0] * angles(theta).cos() * angles(v) * angles(w) * angles(grad)
    along_v = _ops._lattice_u1_third(theta, grad, w, *ctx.rest)
    along_w = _ops._lattice_u1_third(theta, v, grad, *ctx.rest)
    return _ops._lattice_u1_angles_backward(fourth), along_v, along_w, None, None


# angles are a linear map, and its transpose
def _angles_backward(ctx: Any, grad: Tensor) -> Tensor:
    return _ops._lattice_u1_angles_backward(grad)


def _gather_backward(ctx: Any, grad: Tensor) -> Tensor:
    return _ops._lattice_u1_angles(grad)


register_autograd("hepops::_lattice_u1_action", _action_backward, setup_context=_keep)
register_autograd("hepops::_lattice_u1_density", _density_backward, setup_context=_keep)
register_autograd("hepops::_lattice_u1_force", _force_backward, setup_context=_keep)
register_autograd("hepops::_lattice_u1_action_and_force", _both_backward, setup_context=_keep)
register_autograd("hepops::_lattice_u1_hessian", _hessian_backward, setup_context=_keep)
register_autograd("hepops::_lattice_u1_third", _third_backward, setup_context=_keep)
register_autograd("hepops::_lattice_u1_angles", _angles_backward)
register_autograd("hepops::_lattice_u1_angles_backward", _gather_backward)
