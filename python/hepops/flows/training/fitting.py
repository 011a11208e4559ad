"""A flow fitted to data, and a flow that learns to sample a density."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor

from ..flow import Flow
from ..weights import ordered_sum
from .history import Training
from .losses import Target, draw, forward_kl, path_gradient, reinforce, reverse_kl
from .order import SPLIT, Order, permutation
from .trainer import Options, Trainer, named_seed

_ROWS = 4096  # of a validation at a time
_HELD_OUT = (1 << 32) - 1  # the step whose samples validate

Loss = Literal["path", "reverse_kl", "reinforce"] | Callable[[Tensor, Tensor], Tensor]


def fit(
    flow: Flow,
    data: Tensor | np.ndarray,
    context: Tensor | np.ndarray | None = None,
    *,
    weights: Tensor | np.ndarray | None = None,
    validation: float | Tensor | tuple[Tensor, Tensor] = 0.1,
    steps: int | None = None,
    epochs: float | None = None,
    batch: int = 512,
    lr: float = 1e-3,
    seed: int | None = 0,
    **options: Unpack[Options],
) -> Training:
    r"""Maximum likelihood: :math:`-\sum_i v_i \ln q(x_i | c_i) / \sum_i v_i` over data, in place.

    Args:
        flow: To be trained, in its dtype and on its device.
        data: Shape (N, *event), finite.
        context: Shape (N, C), finite, for a flow that is conditioned.
        weights: v of each datum, shape (N), not negative: with negative ones the likelihood has no maximum.
        validation: Share of the data that is held out, drawn by (seed); or data to validate with, (M, *event), or a
            pair of them and their context. 0 for none. After every epoch, or `validate_every`, the flow is validated;
            the best weights remain.
        steps, epochs: How long; one of them, by default 20 epochs.
        batch: Data in a step, cut to what there is. An epoch is a permutation named by (seed, epoch), and its rest that
            fills no batch is left out.
        lr: The highest learning rate.
        seed: In [0, 2^64); None draws one, where there is no folder.
        **options: Of `Trainer`: schedule, clip, ema, patience, folder, progress, group ...

    Returns:
        `Training`. The same bits for the same seed (and number of threads), interrupted or not.

    Raises:
        ValueError: NaN or infinite data (with their count), shapes that do not fit, negative weights, a number out of
            range, a checkpoint of another training.
        FloatingPointError: the loss was not finite in `skip_limit` steps in a row.

    Example:
        >>> flow = hepops.flows.nsf(2, layers=2, hidden=(16,))
        >>> training = fit(flow, torch.randn(500, 2), epochs=2, batch=100, seed=1)
        >>> training.step, training.stopped
        (8, 'steps')
    """
    seed = named_seed(seed, options.get("folder"))
    like = next(flow.parameters())
    data = _table("data", data, like, flow.event_shape)
    context = None if context is None else _table("context", context, like, None, len(data))
    v = None if weights is None else _weights(weights, like, len(data))
    kept, held, held_context, held_v = _split(flow, data, context, v, validation, seed, like)
    if batch < 1:
        raise ValueError(f"batch must be a whole number of at least 1, got {batch!r}")
    batch = min(batch, len(kept))
    order = Order(len(kept), batch, seed)
    if steps is not None and epochs is not None:
        raise ValueError(f"one of steps and epochs, got steps = {steps} and epochs = {epochs}")
    if steps is None:
        epochs = 20 if epochs is None else epochs
        if not epochs > 0:
            raise ValueError(f"epochs must be positive, got {epochs!r}")
        steps = max(math.ceil(epochs * order.per_epoch), 1)
    if v is not None:
        v = v * (len(kept) / ordered_sum(v[kept.to(v.device)]))

    def objective(step: int, first: int, count: int) -> tuple[Tensor, None]:
        rows = kept[order.rows(step, first, count)].to(like.device)
        log_q = flow.log_prob(data[rows], None if context is None else context[rows])
        return forward_kl(log_q, None if v is None else v[rows]), None

    def validate() -> float:
        return -float(mean_log_prob(flow, held, held_context, held_v))

    if options.get("validate_every") is None:
        options["validate_every"] = order.per_epoch
    mark: dict[str, Any] = {}
    if options.get("folder") is not None:
        mark = {"data": data, "context": context, "weights": v, "validation": held}
        mark |= {} if held_context is None else {"validation context": held_context}
    trainer = Trainer(steps=steps, batch=batch, lr=lr, seed=seed, **options)
    with _unchecked(flow):
        return trainer.run(flow, objective, validate=validate if len(held) else None, mark=mark)


def train_sampler(
    flow: Flow,
    log_target: Target,
    *,
    steps: int,
    batch: int = 512,
    lr: float = 1e-3,
    loss: Loss = "path",
    context: Tensor | None = None,
    seed: int | None = 0,
    validation: int = 0,
    **options: Unpack[Options],
) -> Training:
    r"""Reverse KL: the flow learns to sample a density that is known up to a constant, in place.

    Sample i of a batch in step t is named by (seed, t, i): ranks and chunks draw the same samples as one process.

    Args:
        flow: To be trained.
        log_target: ln p of x, (n, *event) -> (n). Differentiable, but for "reinforce".
        steps: How many.
        batch: Samples in a step.
        lr: The highest learning rate.
        loss: "path" (`path_gradient`: no noise at the optimum), "reverse_kl", "reinforce" (needs no derivative of
            the target), or a function of (ln q, ln p) of differentiable samples, such as an `alpha_divergence`.
        context: One for all samples, shape (C).
        seed: In [0, 2^64); None draws one, where there is no folder.
        validation: So many samples, always the same, measure the reverse KL every `validate_every` steps; the best
            weights remain. 0: none.
        **options: Of `Trainer`: schedule, clip, ema, patience, folder, progress, group ...

    Returns:
        `Training`, with the effective sample size of each batch. A checkpoint knows the target by its name only.

    Raises:
        ValueError: a number out of range, another loss, a target of wrong shape, a checkpoint of another training.
        FloatingPointError: the loss was not finite in `skip_limit` steps in a row.

    Example:
        >>> flow = hepops.flows.nsf(2, layers=2, hidden=(16,))
        >>> training = train_sampler(flow, lambda x: -x.square().sum(-1), steps=3, batch=64, seed=1)
        >>> len(training.history["ess"])
        3
    """
    if not callable(loss) and loss not in ("path", "reverse_kl", "reinforce"):
        raise ValueError(f"loss must be 'path', 'reverse_kl', 'reinforce' or a function, got {loss!r}")
    if validation < 0:
        raise ValueError(f"validation must not be negative, got {validation}")
    seed = named_seed(seed, options.get("folder"))

    def target(x: Tensor) -> Tensor:
        log_p = log_target(x)
        if not isinstance(log_p, Tensor) or log_p.shape != x.shape[:1]:
            got = tuple(log_p.shape) if isinstance(log_p, Tensor) else type(log_p).__name__
            raise ValueError(f"log_target must give a tensor of shape {tuple(x.shape[:1])}, got {got}")
        return log_p.to(torch.float64)

    def objective(step: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        names = {"seed": seed, "first": first, "step": step}
        if loss == "path":
            return path_gradient(flow, target, count, context, **names)
        if loss == "reinforce":
            with torch.no_grad():
                x, _ = draw(flow, count, context, **names)
                log_p = target(x)
            log_q = flow.log_prob(x, context)
            return reinforce(log_q, log_p), log_p - log_q.detach()
        x, log_q = draw(flow, count, context, **names)
        log_p = target(x)
        function = reverse_kl if loss == "reverse_kl" else loss
        assert callable(function)
        return function(log_q, log_p), (log_p - log_q).detach()

    def validate() -> float:
        parts = []
        for first in range(0, validation, _ROWS):
            count = min(_ROWS, validation - first)
            x, log_q = draw(flow, count, context, seed=seed, first=first, step=_HELD_OUT)
            parts.append(log_q - target(x))
        return float(ordered_sum(torch.cat(parts)) / validation)

    mark = {"loss": loss, "target": log_target, "context": context, "validation": validation}
    trainer = Trainer(steps=steps, batch=batch, lr=lr, seed=seed, **options)
    with _unchecked(flow):
        return trainer.run(flow, objective, validate=validate if validation else None, mark=mark)


@contextmanager
def _unchecked(flow: Flow) -> Iterator[None]:
    """Nothing is refused within: data were looked at before, and a step that is not finite is skipped and counted."""
    before, flow.validate = flow.validate, False
    try:
        yield
    finally:
        flow.validate = before


@torch.no_grad()
def mean_log_prob(flow: Flow, data: Tensor, context: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """The (weighted) mean of ln q over data, some rows at a time: float64."""
    parts = [
        flow.log_prob(data[i : i + _ROWS], None if context is None else context[i : i + _ROWS])
        for i in range(0, len(data), _ROWS)
    ]
    log_q = torch.cat(parts)
    if weights is None:
        return ordered_sum(log_q) / len(log_q)
    return ordered_sum(weights * log_q) / ordered_sum(weights)


def _table(
    name: str, given: Tensor | np.ndarray, like: Tensor, event: torch.Size | None, rows: int | None = None
) -> Tensor:
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise ValueError(f"{name}: {np.ma.count_masked(given)} values are masked")
    table = torch.as_tensor(given)
    if table.dim() < 1 or (event is not None and table.shape[1:] != event):
        raise ValueError(f"{name} must have shape (N, {', '.join(map(str, event or ()))}), got {tuple(table.shape)}")
    if event is None and (table.dim() != 2 or table.shape[0] != rows):
        raise ValueError(f"{name} must have shape ({rows}, C), got {tuple(table.shape)}")
    if not len(table):
        raise ValueError(f"{name} has no rows")
    table = table.to(device=like.device, dtype=like.dtype)
    bad = int((~table.flatten(1).isfinite()).any(1).sum()) if table.dim() > 1 else int((~table.isfinite()).sum())
    if bad:
        raise ValueError(f"{name}: {bad} of {len(table)} rows are NaN or infinite in {like.dtype}")
    return table.contiguous()


def _weights(given: Tensor | np.ndarray, like: Tensor, rows: int) -> Tensor:
    v = torch.as_tensor(given).to(device=like.device, dtype=torch.float64)
    if v.shape != (rows,):
        raise ValueError(f"weights must have shape ({rows}), got {tuple(v.shape)}")
    bad, negative = int((~v.isfinite()).sum()), int((v < 0).sum())
    if bad or negative:
        raise ValueError(f"weights: {bad} of {rows} are not finite and {negative} are negative")
    if not bool((v > 0).any()):
        raise ValueError(f"weights: all {rows} are 0")
    return v


def _split(
    flow: Flow,
    data: Tensor,
    context: Tensor | None,
    v: Tensor | None,
    validation: float | Tensor | tuple[Tensor, Tensor],
    seed: int,
    like: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Rows to learn from; data, context and weights to validate with."""
    everything = torch.arange(len(data))
    if isinstance(validation, (Tensor, tuple, np.ndarray)):
        held, held_context = validation if isinstance(validation, tuple) else (validation, None)
        if (held_context is None) != (context is None):
            raise ValueError("validation: data and their context go together with those of the training")
        held = _table("validation", held, like, flow.event_shape)
        if held_context is not None:
            held_context = _table("validation context", held_context, like, None, len(held))
        return everything, held, held_context, None
    if not 0 <= validation < 1:
        raise ValueError(f"validation must lie in [0, 1), got {validation!r}")
    count = round(validation * len(data))
    if count == 0:
        return everything, data[:0], None, None
    if count == len(data):
        raise ValueError(f"validation = {validation} of {len(data)} data leaves none to learn from")
    order = permutation(len(data), seed, 0, SPLIT)
    rows, kept = order[:count].to(data.device), order[count:]
    return kept, data[rows], None if context is None else context[rows], None if v is None else v[rows]
