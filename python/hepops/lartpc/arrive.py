"""From energy deposits to charge at the anode: recombination and drift in one pass."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call, once_differentiable

MODELS = {"birks": 0, "box": 1, "ellipsoid": 2}
DEPOSIT_FIELDS = ("dE", "dEdx", "cos2", "depth", "width", "t0")
LOCAL_FIELD = "ratio"  # the row that may follow: the field where the charge is made over the parameter efield [1]
ARRIVAL_FIELDS = ("charge", "time", "sigma", "sigma_time", "width_time")
NUM_PARAMETERS = 12


def arrive(deposits: Tensor, parameters: Tensor, model: str = "birks") -> Tensor:
    r"""Electrons that reach the anode, when, and how far they spread on the way.

    .. math:: q = R\,\frac{\mathrm{d}E}{W} e^{-t_d/\tau}, \quad t = t_0 + t_d, \quad t_d = \mathrm{depth}/v,
              \quad \sigma = \sqrt{2 D_T t_d}, \quad \sigma_t = \sqrt{2 D_L t_d} / v

    with the surviving fraction :math:`R` of `recombine` and the drift of `drift`.

    Args:
        deposits: float64 (6, N): energy [MeV], dE/dx [MeV/cm], squared cosine of the angle to the field (of use to the
            ellipsoidal box alone), distance to the anode [cm], extent along the field [cm], time t0 [us]. Or (7, N):
            with the ratio of the field where the charge is made, in which it recombines, to the parameter efield, which
            drives the drift; the distance is then velocity times the time of drift. Without it the ratio is 1.
        parameters: float64 (12), in the order of `Parameters`.
        model: "birks", "box" or "ellipsoid".

    Returns:
        float64 (5, N): charge [e], time of arrival [us], sigma across the field [cm], sigma in time [us], extent in
        time [us].

    Differentiable once with respect to `deposits` and `parameters`; the gradients of the parameters are sums in a fixed
    order, the same for any number of threads. At depth 0, where the slope of the square root is infinite, the slopes of
    both sigmas count as 0. `arrive_tangents` is the forward mode.

    Raises:
        TypeError: a tensor is not float64.
        ValueError: a shape does not fit, or `model` is unknown.

    References:
        | S. Amoruso et al. (ICARUS), Nucl. Instrum. Meth. A 523 (2004) 275
        | Y. Li et al., Nucl. Instrum. Meth. A 816 (2016) 160

    Example:
        >>> from hepops.lartpc import Parameters
        >>> p = Parameters()
        >>> values = torch.tensor([getattr(p, name) for name in Parameters.SPEC], dtype=torch.float64)
        >>> one_mip_cm = torch.tensor([[2.1], [2.1], [0.0], [15.0], [0.0], [0.0]], dtype=torch.float64)
        >>> [round(x, 4) for x in arrive(one_mip_cm, values)[:, 0].tolist()]
        [59421.0465, 93.9583, 0.0407, 0.1717, 0.0]
    """
    if model not in MODELS:
        raise ValueError(f"arrive: model must be one of {list(MODELS)}, got {model!r}")
    result: Tensor = call(torch.ops.hepops.arrive, deposits, parameters, MODELS[model])
    return result


def arrive_tangents(deposits: Tensor, parameters: Tensor, seeds: Tensor, model: str = "birks") -> Tensor:
    """Derivatives of `arrive` along K directions of the parameters, float64 (K, 12), in one pass: (K, 5, N)."""
    result: Tensor = call(torch.ops.hepops.arrive_jvp, deposits, parameters, seeds, MODELS[model])
    return result


@register_fake("hepops::arrive")
def _(deposits: Tensor, parameters: Tensor, model: int) -> Tensor:
    return deposits.new_empty(len(ARRIVAL_FIELDS), deposits.shape[1])


@register_fake("hepops::arrive_backward")
def _(grad: Tensor, deposits: Tensor, parameters: Tensor, model: int) -> tuple[Tensor, Tensor]:
    return deposits.new_empty(deposits.shape), deposits.new_empty(NUM_PARAMETERS)


@register_fake("hepops::arrive_jvp")
def _(deposits: Tensor, parameters: Tensor, seeds: Tensor, model: int) -> Tensor:
    return deposits.new_empty(seeds.shape[0], len(ARRIVAL_FIELDS), deposits.shape[1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    deposits, parameters, ctx.model = inputs
    ctx.save_for_backward(deposits, parameters)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    deposits, parameters = ctx.saved_tensors
    grad_deposits, grad_parameters = torch.ops.hepops.arrive_backward(grad, deposits, parameters, ctx.model)
    return grad_deposits, grad_parameters.reshape(parameters.shape), None


register_autograd("hepops::arrive", _backward, setup_context=_setup)
once_differentiable("hepops::arrive_backward")
once_differentiable("hepops::arrive_jvp")
