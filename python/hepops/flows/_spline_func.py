"""The spline under torch.func: its transforms (grad, jacrev, hessian) want an autograd.Function, no custom operator."""

from typing import Any

import torch
from torch import Tensor


def transforms_active() -> bool:
    """Whether a torch.func transform is at work; a compiler, which sees through them by itself, gets the operator."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def batched(info: Any, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...], tensors: int) -> list[Any]:
    """The rule of vmap: the batch is one more leading dimension, of every tensor."""
    moved: list[Any] = [
        t if t is None else t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
        for t, d in zip(arguments[:tensors], in_dims[:tensors], strict=True)
    ]
    return [*moved, *arguments[tensors:]]


class Forward(torch.autograd.Function):
    """flows_rational_quadratic_spline: six tensors (or None), then numbers."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        return torch.ops.hepops.flows_rational_quadratic_spline.default(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:6])
        ctx.numbers = inputs[6:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        slopes = Backward.apply(*grads, *saved, *ctx.numbers)
        separate = 4 if saved[2] is not None else 2
        return *slopes[:separate], *(None,) * (12 - separate)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
        return Forward.apply(*batched(info, in_dims, arguments, 6)), (0, 0)


class Backward(torch.autograd.Function):
    """_flows_rational_quadratic_spline_backward: eight tensors (or None), then numbers."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return torch.ops.hepops._flows_rational_quadratic_spline_backward.default(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:8])
        ctx.numbers = inputs[8:]

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        from .spline import double_backward

        return double_backward(ctx, *v)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
        outputs = Backward.apply(*batched(info, in_dims, arguments, 8))
        packed = arguments[4] is None  # then the last two are empty
        return outputs, (0, 0, None, None) if packed else (0, 0, 0, 0)
