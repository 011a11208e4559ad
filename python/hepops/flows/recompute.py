"""Stacks of transforms that keep little for their backward and compute the rest again."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .sums import event_sum

Recompute = Literal["inputs", "inverse"] | None


class Step(NamedTuple):
    """One transform in one direction; `extra`: how many event dimensions the stack has beyond its own."""

    transform: nn.Module
    backwards: bool
    extra: int

    def __call__(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, logdet = (self.transform.inverse if self.backwards else self.transform)(x, context)  # type: ignore[operator]
        return y, event_sum(logdet, self.extra) if self.extra else logdet

    def undo(self, y: Tensor, context: Tensor | None) -> Tensor:
        return (self.transform if self.backwards else self.transform.inverse)(y, context)[0]  # type: ignore[operator]


def run(steps: Sequence[Step], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """All steps, and the sum of their log-determinants: float64, one for each event."""
    x, total = steps[0](x, context)
    for step in steps[1:]:
        x, logdet = step(x, context)
        total = total + logdet
    return x, total


def _groups(steps: Sequence[Step], every: int) -> list[Sequence[Step]]:
    return [steps[i : i + every] for i in range(0, len(steps), every)]


def run_from_inputs(steps: Sequence[Step], x: Tensor, context: Tensor | None, every: int) -> tuple[Tensor, Tensor]:
    """As :func:`run`, but of every group of `every` steps only the input is kept.

    The backward runs the group again, the same operations on the same numbers: gradients have the same bits, and have
    derivatives of their own.
    """
    total: Tensor | None = None
    for group in _groups(steps, every):
        # the layers draw no random numbers
        x, logdet = checkpoint(run, group, x, context, use_reentrant=False, preserve_rng_state=False)
        total = logdet if total is None else total + logdet
    assert total is not None
    return x, total


def run_inverting(steps: Sequence[Step], x: Tensor, context: Tensor | None, every: int) -> tuple[Tensor, Tensor]:
    """As :func:`run`, but of every group of `every` steps only the output is kept; the backward goes back from it."""
    total: Tensor | None = None
    for group in _groups(steps, every):
        weights = {id(p): p for step in group for p in step.transform.parameters() if p.requires_grad}
        x, logdet = _Inverting.apply(group, x, context, *weights.values())
        total = logdet if total is None else total + logdet
    assert total is not None
    return x, total


class _Inverting(torch.autograd.Function):
    """The steps, of which the output alone is saved."""

    @staticmethod
    def forward(
        ctx: Any, steps: Sequence[Step], x: Tensor, context: Tensor | None, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, total = run(steps, x, context)
        ctx.steps = steps
        ctx.autocast = torch.is_autocast_enabled(x.device.type), torch.get_autocast_dtype(x.device.type)
        ctx.save_for_backward(y, context, *weights)
        return y, total

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: what follows would enter it as a constant
            raise RuntimeError('Compose: recompute="inverse" is differentiable once, "inputs" as often as its layers')
        y, context, *weights = ctx.saved_tensors
        grads: dict[int, Tensor] = {}  # by the id of what they belong to: layers may share weights
        enabled, dtype = ctx.autocast
        with torch.autocast(y.device.type, dtype=dtype, enabled=enabled):
            for step in reversed(ctx.steps):
                with torch.no_grad():
                    y = step.undo(y, context)
                grad_y = _backward_of(step, y, context, grad_y, grad_total, grads)
        of_context = None if context is None else grads.get(id(context))
        return None, grad_y, of_context, *(grads.get(id(w)) for w in weights)


def _backward_of(
    step: Step, x: Tensor, context: Tensor | None, grad_y: Tensor, grad_total: Tensor, grads: dict[int, Tensor]
) -> Tensor:
    """One step run at x with its graph: gives the gradient of x, and adds those of context and weights to `grads`."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        local = context.detach().requires_grad_() if context is not None and context.requires_grad else context
        results = step(x, local)
    owners: list[Tensor] = [p for p in step.transform.parameters() if p.requires_grad]
    sources = list(owners)
    if local is not context:
        assert context is not None and local is not None
        owners, sources = [*owners, context], [*sources, local]
    seeds = [(out, seed) for out, seed in zip(results, (grad_y, grad_total), strict=True) if out.requires_grad]
    grad_x, *others = torch.autograd.grad(
        [out for out, _ in seeds], [x, *sources], [seed for _, seed in seeds], allow_unused=True
    )
    for owner, grad in zip(owners, others, strict=True):
        if grad is not None:
            grads[id(owner)] = grads[id(owner)] + grad if id(owner) in grads else grad
    return grad_x
