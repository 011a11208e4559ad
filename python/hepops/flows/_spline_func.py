"""The spline under torch.func: its transforms (grad, jacrev, hessian) want an autograd.Function, no custom operator."""

from typing import Any

import torch
from torch import Tensor

from hepops.core.func import transposed


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
        ctx.save_for_forward(*inputs[:6])
        ctx.numbers = inputs[6:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        slopes = Backward.apply(*grads, *saved, *ctx.numbers)
        separate = 4 if saved[2] is not None else 2
        return *slopes[:separate], *(None,) * (12 - separate)

    @staticmethod
    def jvp(ctx: Any, *v: Any) -> tuple[Tensor, ...]:
        from .spline import gradients_of

        saved = ctx.saved_tensors
        given = [n for n in range(4) if saved[n] is not None]
        gradients, point = gradients_of(saved, ctx.numbers), tuple(saved[n] for n in given)
        return transposed(lambda seeds: gradients(*seeds, *point), saved[:1] * 2, [v[n] for n in given])

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
        ctx.save_for_forward(*inputs[:8])
        ctx.numbers = inputs[8:]

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        from .spline import double_backward

        return double_backward(ctx, *v)

    @staticmethod
    def jvp(ctx: Any, *v: Any) -> tuple[Tensor, ...]:
        from .spline import gradients_of

        saved = ctx.saved_tensors
        given = [n for n in range(6) if saved[n] is not None]
        point = tuple(saved[n] for n in given)
        pull = torch.func.vjp(gradients_of(saved[2:], ctx.numbers), *point)[1]
        slopes = transposed(pull, point[2:], [v[n] for n in given])
        return *slopes, *(saved[3].new_zeros(0) for _ in range(6 - len(given)))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
        outputs = Backward.apply(*batched(info, in_dims, arguments, 8))
        packed = arguments[4] is None  # then the last two are empty
        return outputs, (0, 0, None, None) if packed else (0, 0, 0, 0)
