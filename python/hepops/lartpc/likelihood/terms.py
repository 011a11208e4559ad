"""log P of every interval of many rows, with its derivatives, by the operator or by the formula."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hepops.lartpc.frontend import Windows

from .formula import Clock, formula
from .matching import Match
from .operator import evaluate, scores


@dataclass(frozen=True)
class Terms:
    """N intervals: those of a row are its hits, then the last. Derivatives are zero where they were not asked for."""

    log_probability: Tensor  # float64 (N)
    per_current: Tensor  # (total)             d log P / d current, of the interval that holds the tick
    per_threshold: Tensor  # float64 (N)
    per_noise: Tensor  # float64 (N, 3)
    per_edge: Tensor  # float64 (2, num_hits)
    neglected: Tensor  # float64 (N)


def by_formula(
    waves: Windows,
    found: Match,
    edges: Tensor,
    threshold: Tensor,
    noise: Tensor,
    clock: Clock,
    tolerance: float,
    derivatives: bool,
) -> Terms:
    """Row by row in plain torch; exact, whatever the tolerance."""
    values = waves.values.double()
    rows, offsets, first = len(waves.offsets) - 1, waves.offsets.tolist(), found.first.tolist()
    total = rows + len(found.tick)
    result = Terms(
        values.new_zeros(total),
        torch.zeros_like(values),
        values.new_zeros(total),
        values.new_zeros(total, 3),
        torch.zeros_like(edges),
        values.new_zeros(total),
    )
    for row in range(rows):
        hits, at = slice(first[row], first[row + 1]), slice(first[row] + row, first[row + 1] + row + 1)
        ticks = slice(offsets[row], offsets[row + 1])
        with torch.set_grad_enabled(derivatives):
            bar = threshold[row if threshold.numel() > 1 else 0]
            sigma = noise[row] if noise.ndim > 1 else noise
            inputs = [
                x.detach().clone().requires_grad_(derivatives)
                for x in (
                    values[ticks],
                    edges[:, hits],
                    bar.expand(at.stop - at.start),
                    sigma.expand(at.stop - at.start, 3),
                )
            ]
            log_p = formula(inputs[0], found.tick[hits].tolist(), inputs[1], inputs[2], inputs[3], clock)
            result.log_probability[at] = log_p.detach()
            if derivatives and log_p.requires_grad:
                slopes = torch.autograd.grad(log_p.sum(), inputs, allow_unused=True, materialize_grads=True)
                result.per_current[ticks], result.per_edge[:, hits] = slopes[0], slopes[1]
                result.per_threshold[at], result.per_noise[at] = slopes[2], slopes[3]
    return result


def by_operator(
    waves: Windows,
    found: Match,
    edges: Tensor,
    threshold: Tensor,
    noise: Tensor,
    clock: Clock,
    tolerance: float,
    derivatives: bool,
) -> Terms:
    """All rows at once."""
    return Terms(
        *evaluate(
            waves.values.detach(),
            waves.offsets,
            found.tick,
            found.first,
            edges,
            threshold,
            noise,
            clock,
            tolerance,
            derivatives,
        )
    )


def contract(terms: Terms, waves: Windows, found: Match, clock: Clock) -> Tensor:
    """Derivatives of log P along the waveforms' tangents, float64 (N, num_tangents)."""
    assert waves.tangents is not None
    slopes = terms.per_current.to(waves.tangents.dtype)
    return scores(slopes, waves.tangents, waves.offsets, found.tick, found.first, clock)
