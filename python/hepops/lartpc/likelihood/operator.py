"""The operator: log P of every interval of many rows, and its derivatives."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call, once_differentiable

from .formula import Clock

Ops = torch.ops.hepops


class Outcome(NamedTuple):
    """What `hit_likelihood` returns; N intervals, those of a row being its hits in order, then the last."""

    log_probability: Tensor  # float64 (N)
    neglected: Tensor  # float64 (N)   bound on the relative error of P by histories that were left out


def hit_likelihood(
    currents: Tensor,
    offsets: Tensor,
    ticks: Tensor,
    first: Tensor,
    edges: Tensor,
    threshold: Tensor,
    noise: Tensor,
    clock: Clock | None = None,
    tolerance: float = 1e-4,
) -> Outcome:
    r"""log P of what self-triggering LArPix chips measured, given the current of each pixel.

    The chip is the sampled face of `frontend`. A measured hit fixes its state, so that a row is a product over
    intervals, each from the restart after a hit to the next hit, or to the end of the window. With q(s, t) the charge
    of ticks s ... t, r the charge of the reset, :math:`h_j = \Phi((q(s,j) + r - threshold)/\sigma_l)` the probability
    of a trigger at tick j, :math:`A_j = h_{j+18}` that its reading is accepted, and O the probability of the measured
    reading of a hit at tick k,

    .. math::
        U_j(r) = h_j\left((1 - A_j)\,V_{j+20} + [j = k]\,O\right) + (1 - h_j)\,U_{j+1}, \qquad
        V_s = \mathrm{E}_r[U_s], \qquad P = V_{start}

    sums silent resets to any depth (docs/likelihood.md). The integral over r is a sum over 32 nodes that are
    :math:`0.36\,\sigma_r` apart, about the integrand's maximum where that is far away: a hit may be as improbable as it
    likes.

    Args:
        currents: Of all rows, one after the other, float32 or float64 (total) [e/us].
        offsets: Where each row begins, int64 (rows + 1).
        ticks: Of the measured triggers, counted from the row's first, int64 (num_hits); in order within a row.
        first: The first hit of each row, int64 (rows + 1).
        edges: Of the charge that each reading may have had, float64 (2, num_hits) [e]; -inf and inf are allowed. Where
            both are equal the reading is known exactly and P is a density [1/e] in it.
        threshold: Of the discriminator, one number or one per row, float64 [e].
        noise: Standard deviations of reset, uncorrelated and discriminator noise, float64 (3) or (rows, 3) [e]. The
            reset's may be 0.
        clock: The chip's times; None: LArPix at 10 MHz.
        tolerance: A silent reset may be left unfollowed where that costs less than this share of P; where little charge
            flows restarts within 19 ticks and 20 e of each other are interpolated. 0: neither.

    Returns:
        `Outcome`: log P, float64, and a bound on the relative error of P by what was left unfollowed.

    Differentiable once, in log P, with respect to the currents, edges, threshold and noise: the derivatives are those
    of what is computed, in closed form. Accumulated in double; bit-identical from run to run and for any number of
    threads.

    Raises:
        TypeError: the currents are neither float32 nor float64, or another argument is of another type than stated.
        ValueError: a shape does not fit; and on the CPU, by row: a current that is not finite, ticks out of order,
            outside the window, or nearer than the dead time, a threshold or noise that is not positive, edges that
            fall.

    References:
        | D. A. Dwyer et al., JINST 13 (2018) P10007 (LArPix)
        | DUNE/larnd-sim, larndsim/fee.py (the chip's loop)

    Example:
        >>> current = torch.zeros(60, dtype=torch.float64)
        >>> current[10:30] = 5000.0
        >>> edges = torch.tensor([[9500.0], [10500.0]], dtype=torch.float64)
        >>> rows, noise = torch.tensor([0, 60]), torch.tensor([900.0, 500.0, 650.0], dtype=torch.float64)
        >>> bar = torch.tensor(5000.0, dtype=torch.float64)
        >>> hit_likelihood(current, rows, torch.tensor([19]), torch.tensor([0, 1]), edges, bar, noise)[0].exp()
        tensor([0.0918, 1.0000], dtype=torch.float64)
    """
    derivatives = torch.is_grad_enabled() and any(x.requires_grad for x in (currents, edges, threshold, noise))
    log_p, *_, neglected = evaluate(
        currents, offsets, ticks, first, edges, threshold, noise, clock or Clock(), tolerance, derivatives
    )
    return Outcome(log_p, neglected)


def evaluate(
    currents: Tensor,
    offsets: Tensor,
    ticks: Tensor,
    first: Tensor,
    edges: Tensor,
    threshold: Tensor,
    noise: Tensor,
    clock: Clock,
    tolerance: float,
    derivatives: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """log P, its slopes by currents, threshold, noise (of each interval) and edges, and what is neglected."""
    arguments = (currents, offsets, ticks, first, edges, threshold, noise)
    times = (clock.tick, clock.hold, clock.reset, clock.busy, clock.rise_time)
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
    result = call(Ops.hit_likelihood, *arguments, *times, tolerance, derivatives)
    return result


def scores(slopes: Tensor, tangents: Tensor, offsets: Tensor, ticks: Tensor, first: Tensor, clock: Clock) -> Tensor:
    """Derivative of each interval's log P along tangents (K, total) of the currents: float64 (N, K), in one pass."""
    result: Tensor = call(Ops._hit_scores, slopes, tangents, offsets, ticks, first, clock.hold, clock.reset)
    return result


@register_fake("hepops::hit_likelihood")
def _(
    values: Tensor,
    offsets: Tensor,
    ticks: Tensor,
    first: Tensor,
    edges: Tensor,
    threshold: Tensor,
    noise: Tensor,
    tick: float,
    hold: int,
    reset: int,
    busy: int,
    rise_time: float,
    tolerance: float,
    derivatives: bool,
) -> tuple[Tensor, ...]:
    intervals = offsets.shape[0] - 1 + ticks.shape[0]
    kept = intervals if derivatives else 0
    return (
        edges.new_empty(intervals),
        values.new_empty(values.shape[0] if derivatives else 0),
        edges.new_empty(kept),
        edges.new_empty(kept, 3),
        edges.new_empty(2, ticks.shape[0] if derivatives else 0),
        edges.new_empty(intervals),
    )


@register_fake("hepops::hit_likelihood_backward")
def _(
    grad: Tensor,
    values: Tensor,
    edges: Tensor,
    threshold: Tensor,
    noise: Tensor,
    per_current: Tensor,
    per_threshold: Tensor,
    per_noise: Tensor,
    per_edge: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (per_current, per_edge, per_threshold, per_noise))


@register_fake("hepops::_hit_scores")
def _(slopes: Tensor, tangents: Tensor, offsets: Tensor, ticks: Tensor, *rest: Any) -> Tensor:
    return slopes.new_empty((offsets.shape[0] - 1 + ticks.shape[0], tangents.shape[0]), dtype=torch.float64)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    values, offsets, ticks, first, edges, threshold, noise, _, hold, reset, *_, derivatives = inputs
    _, *slopes, neglected = output
    ctx.mark_non_differentiable(*slopes, neglected)
    ctx.save_for_backward(values, edges, threshold, noise, *slopes, offsets, ticks, first)
    ctx.clock, ctx.derivatives = (hold, reset), derivatives


def _backward(ctx: Any, grad: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    if not ctx.derivatives:
        raise RuntimeError("hepops::hit_likelihood was called without derivatives")
    saved = ctx.saved_tensors
    threshold, noise, first = saved[2], saved[3], saved[-1]
    per_current, per_threshold, per_noise, per_edge = saved[4:8]
    of_values, of_edges, of_threshold, of_noise = Ops.hit_likelihood_backward(
        grad, *saved[:4], per_current, per_threshold, per_noise, per_edge, *saved[8:], *ctx.clock
    )
    counts = first[1:] - first[:-1] + 1
    bar = _by_row(of_threshold, counts, threshold.shape, threshold.ndim == 0 or threshold.shape[0] == 1)
    sigma = _by_row(of_noise, counts, noise.shape, noise.ndim == 1)
    return of_values, None, None, None, of_edges, bar, sigma, *(None,) * 7


def _by_row(parts: Tensor, counts: Tensor, shape: torch.Size, common: bool) -> Tensor:
    """Sums over the intervals of each row, or over all, in their order."""
    if common:
        return parts.sum(0).reshape(shape)
    if not counts.shape[0]:
        return parts.reshape(shape)
    return torch.segment_reduce(parts, "sum", lengths=counts, axis=0).reshape(shape)


register_autograd("hepops::hit_likelihood", _backward, setup_context=_setup)
once_differentiable("hepops::hit_likelihood_backward")
