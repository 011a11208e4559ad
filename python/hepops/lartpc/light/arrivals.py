"""Scintillation photons on the ticks of the light detectors' clock."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call, once_differentiable


def light_arrivals(
    photons: Tensor,
    time: Tensor,
    share: Tensor,
    tau: Tensor,
    offset: Tensor,
    begin: Tensor,
    ticks: int,
    tick: float,
) -> Tensor:
    r"""Expected photons on each tick of each channel: deposits with singlet and triplet tails, integrated exactly.

    .. math:: N_k = \sum_i n_i \int_k \left[\frac{s_i}{\tau_s} e^{-(t' - t_i)/\tau_s}
              + \frac{1 - s_i}{\tau_t} e^{-(t' - t_i)/\tau_t}\right]_{t' > t_i} \mathrm{d}t'

    Args:
        photons: float64 (channels, N): what each deposit sends to each channel, :math:`n_i`.
        time: float64 (channels, N): when the first of them arrive, :math:`t_i` [us].
        share: float64 (N): of the singlet, :math:`s_i`.
        tau: float64 (2): decay times of singlet and triplet [us].
        offset: int64 (groups + 1): group g has the deposits offset[g] to offset[g + 1]; a group is what is read out
            together, the deposits of one event in one TPC.
        begin: int64 (groups): the first tick of each group's window, counted from time 0.
        ticks: How many ticks a window has.
        tick: Their length [us].

    Returns:
        float64 (groups, channels, ticks + 2): photons before the window, on its ticks, and after it. The sum over the
        last axis is that of the photons, to rounding.

    Differentiable once with respect to `photons` (in which it is linear), `time`, `share` and `tau`. Deterministic: the
    same bits for any number of threads. The cost is one visit per photon entry and one pass over the ticks, whatever
    the length of the tails.

    Raises:
        TypeError: a tensor is of another dtype.
        ValueError: a shape does not fit, a time constant or the tick is not positive, or `offset` is no partition.

    References:
        | A. Hitachi et al., Phys. Rev. B 27 (1983) 5279
        | Light in larnd-sim: A. Abed Abud et al. (DUNE), JINST 18 (2023) P04034

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> group, begin = torch.tensor([0, 1]), torch.tensor([0])
        >>> tau = torch.tensor([0.007, 1.6], dtype=torch.float64)
        >>> n = light_arrivals(100 * one, 0.05 * one, 0.3 * one[0], tau, group, begin, ticks=4, tick=0.1)
        >>> [round(x, 3) for x in n[0, 0].tolist()]
        [0.0, 32.13, 4.134, 3.862, 3.628, 56.247]
    """
    result: Tensor = call(torch.ops.hepops.light_arrivals, photons, time, share, tau, offset, begin, ticks, tick)
    return result


def light_arrivals_in_torch(
    photons: Tensor,
    time: Tensor,
    share: Tensor,
    tau: Tensor,
    offset: Tensor,
    begin: Tensor,
    ticks: int,
    tick: float,
) -> Tensor:
    """`light_arrivals` as plain torch: every deposit on every tick; the oracle, O(N channels ticks) in memory."""
    group = torch.repeat_interleave(offset.diff())
    edge = (begin[:, None] + torch.arange(ticks + 1, device=begin.device)).double() * tick  # (groups, ticks + 1)
    edges = edge[group] - time[..., None]
    left = torch.where(edges[..., None] > 0, torch.exp(-edges.clamp(min=0)[..., None] / tau), torch.ones_like(tau))
    components = torch.stack((share, 1 - share), -1)[None, :, None]
    alive = photons[..., None] * (left * components).sum(-1)  # (channels, N, ticks + 1)
    columns = torch.cat((photons[..., None] - alive[..., :1], -alive.diff(dim=-1), alive[..., -1:]), -1)
    out = columns.new_zeros(len(begin), len(photons), ticks + 2)
    return out.index_add(0, group, columns.transpose(0, 1))


@register_fake("hepops::light_arrivals")
def _(
    photons: Tensor, time: Tensor, share: Tensor, tau: Tensor, offset: Tensor, begin: Tensor, ticks: int, tick: float
) -> Tensor:
    return photons.new_empty(begin.shape[0], photons.shape[0], ticks + 2)


@register_fake("hepops::light_arrivals_backward")
def _(
    grad: Tensor,
    photons: Tensor,
    time: Tensor,
    share: Tensor,
    tau: Tensor,
    offset: Tensor,
    begin: Tensor,
    ticks: int,
    tick: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = photons.new_empty(photons.shape)
    return like, torch.empty_like(like), torch.empty_like(like), photons.new_empty(begin.shape[0], photons.shape[0], 2)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.ticks, ctx.tick = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    backward = torch.ops.hepops.light_arrivals_backward
    grad_photons, grad_time, grad_share, grad_tau = backward(grad, *ctx.saved_tensors, ctx.ticks, ctx.tick)
    # Sums of the rows' contributions, in torch's order, which is the same for any number of threads of the operator.
    return grad_photons, grad_time, grad_share.sum(0), grad_tau.sum((0, 1)), None, None, None, None


register_autograd("hepops::light_arrivals", _backward, setup_context=_setup)
once_differentiable("hepops::light_arrivals_backward")
