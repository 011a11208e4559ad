"""The operators of phi^4: S = sum_x [hop phi sum_mu phi(x+mu) + square phi^2 + quartic phi^4], and its derivatives.

Bytes per site in float64: action 8, force 16, both 16, Hessian 24, each stage of a trajectory 32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from .geometry import neighbour

_ops = torch.ops.hepops


def ahead(phi: Tensor) -> Tensor:
    """The sum over mu of phi(x+mu), in torch's operators."""
    dims = phi.dim() - 1
    return torch.stack([neighbour(phi, mu, dims) for mu in range(dims)]).sum(0)


def behind(phi: Tensor) -> Tensor:
    """The sum over mu of phi(x-mu), in torch's operators."""
    dims = phi.dim() - 1
    return torch.stack([neighbour(phi, mu, dims, -1) for mu in range(dims)]).sum(0)


def density_formula(phi: Tensor, hop: Any, square: Any, quartic: Any) -> Tensor:
    """The operators' laws in torch's: what tests and benchmarks compare with."""
    return hop * phi * ahead(phi) + square * phi**2 + quartic * phi**4


def action_formula(phi: Tensor, hop: Any, square: Any, quartic: Any) -> Tensor:
    return density_formula(phi, hop, square, quartic).double().flatten(1).sum(-1)


def force_formula(phi: Tensor, hop: Any, square: Any, quartic: Any) -> Tensor:
    return hop * (ahead(phi) + behind(phi)) + 2 * square * phi + 4 * quartic * phi**3


def _each(grad: Tensor, field: Tensor) -> Tensor:
    """A number of each configuration times its field."""
    return grad.to(field.dtype).view(-1, *[1] * (field.dim() - 1)) * field


@register_fake("hepops::_lattice_phi4_action")
def _(phi: Tensor, hop: float, square: float, quartic: float, wide: bool, accurate: bool) -> Tensor:
    return phi.new_empty(phi.shape[:1], dtype=torch.float64)


@register_fake("hepops::_lattice_phi4_density")
def _(phi: Tensor, hop: float, square: float, quartic: float) -> Tensor:
    return phi.new_empty(phi.shape)


@register_fake("hepops::_lattice_phi4_force")
def _(phi: Tensor, hop: float, square: float, quartic: float, wide: bool) -> Tensor:
    return phi.new_empty(phi.shape)


@register_fake("hepops::_lattice_phi4_action_and_force")
def _(phi: Tensor, hop: float, square: float, quartic: float, wide: bool, accurate: bool) -> tuple[Tensor, Tensor]:
    return phi.new_empty(phi.shape[:1], dtype=torch.float64), phi.new_empty(phi.shape)


@register_fake("hepops::_lattice_phi4_hessian")
def _(phi: Tensor, v: Tensor, hop: float, square: float, quartic: float, wide: bool) -> Tensor:
    return phi.new_empty(phi.shape)


@register_fake("hepops::_lattice_phi4_trajectory")
def _(phi: Tensor, momenta: Tensor, plan: Tensor, hop: float, square: float, quartic: float) -> tuple[Tensor, Tensor]:
    return phi.new_empty(phi.shape), phi.new_empty(phi.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    ctx.save_for_backward(*tensors)
    ctx.law = inputs[len(tensors) : len(tensors) + 3]
    ctx.wide = inputs[len(tensors) + 3] if len(inputs) > len(tensors) + 3 else False


# the gradient of the action is the force
def _action_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (phi,) = ctx.saved_tensors
    return _each(grad, _ops._lattice_phi4_force(phi, *ctx.law, ctx.wide)), None, None, None, None, None


# each bond belongs to the site behind it
def _density_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (phi,) = ctx.saved_tensors
    hop, square, quartic = ctx.law
    slope = grad * (hop * ahead(phi) + 2 * square * phi + 4 * quartic * phi**3) + hop * behind(grad * phi)
    return slope, None, None, None


# the Hessian is symmetric
def _force_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (phi,) = ctx.saved_tensors
    return _ops._lattice_phi4_hessian(phi, grad, *ctx.law, ctx.wide), None, None, None, None


def _both_backward(ctx: Any, grad: Tensor, grad_force: Tensor) -> tuple[Any, ...]:
    (phi,) = ctx.saved_tensors
    force = _ops._lattice_phi4_force(phi, *ctx.law, ctx.wide)
    slope = _each(grad, force) + _ops._lattice_phi4_hessian(phi, grad_force, *ctx.law, ctx.wide)
    return slope, None, None, None, None, None


# only phi^4 has a third derivative: 24 quartic phi
def _hessian_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    phi, v = ctx.saved_tensors
    along_v = _ops._lattice_phi4_hessian(phi, grad, *ctx.law, ctx.wide)
    return 24 * ctx.law[2] * phi * v * grad, along_v, None, None, None, None


register_autograd("hepops::_lattice_phi4_action", _action_backward, setup_context=_keep)
register_autograd("hepops::_lattice_phi4_density", _density_backward, setup_context=_keep)
register_autograd("hepops::_lattice_phi4_force", _force_backward, setup_context=_keep)
register_autograd("hepops::_lattice_phi4_action_and_force", _both_backward, setup_context=_keep)
register_autograd("hepops::_lattice_phi4_hessian", _hessian_backward, setup_context=_keep)
