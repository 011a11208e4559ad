"""The drift of ionisation electrons to the anode."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops import _core
from hepops.core.ops import call, once_differentiable, pack


class Arrival(NamedTuple):
    """What reaches the anode: four tensors of one shape."""

    survival: Tensor  # fraction of the electrons that is not captured on the way [1]
    time: Tensor  # after the creation of the electrons [us]
    sigma_t: Tensor  # spread across the field [cm]
    sigma_l: Tensor  # spread along the field [cm]


def velocity(field: float, temperature: float = 87.17) -> float:
    r"""Drift velocity of electrons in liquid argon [cm/us], of a field [kV/cm] and a temperature [K].

    :math:`v = \mu(E, T)\,E`, with the mobility of `drift`; a number for hosts, not a tensor.

    Raises:
        ValueError: `field` or `temperature` is not positive.

    References:
        | Y. Li et al., Nucl. Instrum. Meth. A 816 (2016) 160

    Example:
        >>> round(velocity(0.5), 7)
        0.1596452
    """
    if not field > 0:
        raise ValueError(f"velocity: field must be positive [kV/cm], got {field}")
    if not temperature > 0:
        raise ValueError(f"velocity: temperature must be positive [K], got {temperature}")
    return _core.drift_velocity(field, temperature)


def drift(
    distance: Tensor,
    lifetime: float | Tensor = 2200.0,
    field: float | Tensor = 0.50,
    transverse_diffusion: float | Tensor = 8.8e-6,
    longitudinal_diffusion: float | Tensor = 4.0e-6,
    temperature: float | Tensor = 87.17,
) -> Arrival:
    r"""What survives the drift to the anode, when it arrives and how far it has spread.

    .. math::
        t &= d / v, \qquad S = e^{-t/\tau}, \qquad \sigma_T = \sqrt{2 D_T t}, \qquad \sigma_L = \sqrt{2 D_L t} \\
        v &= \mu E, \qquad
        \mu = \frac{a_0 + a_1 E + a_2 E^{3/2} + a_3 E^{5/2}}{1 + (a_1/a_0) E + a_4 E^2 + a_5 E^3}
              \left(\frac{T}{89\,\mathrm{K}}\right)^{-3/2}

    Args:
        distance: From the anode, :math:`d \ge 0`, any shape, float32 or float64 [cm]. A negative one has NaN spreads.
        lifetime: Electron lifetime :math:`\tau`, a number or a tensor of one number [us].
        field: Drift field :math:`E`, likewise [kV/cm].
        transverse_diffusion: :math:`D_T`, likewise [cm²/us]. Diffusion does not follow the field here (a convention).
        longitudinal_diffusion: :math:`D_L`, likewise [cm²/us].
        temperature: Of the argon, likewise [K].

    Returns:
        Arrival(survival [1], time [us], sigma_t [cm], sigma_l [cm]), each of the shape and dtype of `distance`.

    Differentiable twice, with respect to `distance` and all parameters. At a spread of exactly 0, where the slope of
    the root is infinite, it is taken as 0. The gradients of the parameters are sums over all elements, taken in double
    and in a fixed order: bit-identical from run to run and for any number of threads, on a CPU and on a GPU. Parameters
    are brought to the dtype and device of `distance`; values on a GPU are never read back, so that the ranges of
    parameters are checked on the CPU alone.

    Raises:
        TypeError: `distance` is neither float32 nor float64.
        ValueError: a parameter of more than one number or (on the CPU) out of its range.

    References:
        | Mobility: Y. Li et al., Nucl. Instrum. Meth. A 816 (2016) 160

    Example:
        >>> drift(torch.tensor([30.0])).time
        tensor([187.9167])
    """
    parameters = pack(
        distance,
        lifetime=lifetime,
        field=field,
        transverse_diffusion=transverse_diffusion,
        longitudinal_diffusion=longitudinal_diffusion,
        temperature=temperature,
    )
    return Arrival(*call(torch.ops.hepops.drift, distance, parameters))


@register_fake("hepops::drift")
def _(distance: Tensor, parameters: Tensor) -> tuple[Tensor, ...]:
    return tuple(distance.new_empty(distance.shape) for _ in range(4))


@register_fake("hepops::drift_backward")
def _(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    *_grads, distance, parameters = inputs
    return distance.new_empty(distance.shape), parameters.new_empty(5)


@register_fake("hepops::drift_double_backward")
def _(*inputs: Tensor) -> tuple[Tensor, ...]:
    *grads, distance, parameters, _v_distance, _v_parameters = inputs
    return *(g.new_empty(g.shape) for g in grads), distance.new_empty(distance.shape), parameters.new_empty(5)


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
    return torch.ops.hepops.drift_backward(*grads, *ctx.saved_tensors)


def _double_backward(ctx: Any, *v: Tensor) -> tuple[Tensor, ...]:
    return torch.ops.hepops.drift_double_backward(*ctx.saved_tensors, *v)


register_autograd("hepops::drift", _backward, setup_context=_setup)
register_autograd("hepops::drift_backward", _double_backward, setup_context=_setup)
once_differentiable("hepops::drift_double_backward")
