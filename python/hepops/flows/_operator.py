"""What the operators of elementwise bijections share: fakes, both derivatives, vmap."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake, register_vmap

Formula = Callable[..., tuple[Tensor, Tensor]]


def broadcast(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """x, shape (...), and raw, shape (..., P), with the same leading dimensions."""
    if raw.shape[:-1] == x.shape or raw.dim() == 0:
        return x, raw
    shape = torch.broadcast_shapes(x.shape, raw.shape[:-1])
    return x.expand(shape), raw.expand(*shape, raw.shape[-1])


def plain_backward(
    formula: Formula, grad_value: Tensor, grad_logdet: Tensor, tensors: Sequence[Tensor], inverse: bool
) -> list[Tensor]:
    """The backward of a bijection (csrc/flows/bijection.h) in torch's operators, differentiable: `tensors` are x and
    the raw parameters, `formula` gives f(x) and l."""
    value, logdet = formula(*tensors)

    def slopes(outputs: list[Tensor], inputs: Sequence[Tensor], seeds: list[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(outputs, inputs, seeds, create_graph=True, allow_unused=True)
        return [g if g is not None else torch.zeros_like(x) for g, x in zip(found, inputs, strict=True)]

    if not inverse:
        return slopes([value, logdet], tensors, [grad_value, grad_logdet])
    one = torch.ones_like(logdet)
    along_x = slopes([logdet], tensors[:1], [one])[0] if logdet.requires_grad else torch.zeros_like(logdet)
    A = (grad_value - grad_logdet * along_x) / slopes([value], tensors[:1], [one])[0]
    return [A, *(slopes([value, logdet], tensors[1:], [-A, -grad_logdet]) if len(tensors) > 1 else [])]


def register(name: str, formula: Formula, tensors: int = 2) -> None:
    """Give `hepops::<name>(x[, raw], *options, inverse)` its Python side.

    Args:
        name: The operator's; its backward is `<name>_backward`.
        formula: f(x) and l from (x[, raw], *options), in torch's operators: its derivatives are the second ones.
        tensors: 2, or 1 where there are no raw parameters.
    """
    op = getattr(torch.ops.hepops, name).default
    backward_op = getattr(torch.ops.hepops, f"{name}_backward").default

    def fake(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return x.new_empty(x.shape), x.new_empty(x.shape)

    def fake_backward(grad_value: Tensor, grad_logdet: Tensor, *rest: Any) -> Any:
        grads = tuple(t.new_empty(t.shape) for t in rest[:tensors])
        return grads if tensors > 1 else grads[0]

    def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        inverse = inputs[-1]
        ctx.save_for_backward(output[0] if inverse else inputs[0], *inputs[1:tensors])
        ctx.options = inputs[tensors:]

    def backward(ctx: Any, grad_value: Tensor, grad_logdet: Tensor) -> tuple[Any, ...]:
        grads = backward_op(grad_value, grad_logdet, *ctx.saved_tensors, *ctx.options)
        return *(grads if tensors > 1 else (grads,)), *(None for _ in ctx.options)

    def setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[: 2 + tensors])
        ctx.options = inputs[2 + tensors :]

    def double_backward(ctx: Any, *seeds: Tensor) -> tuple[Any, ...]:
        *options, inverse = ctx.options
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            inputs = [t.detach().requires_grad_() if not t.requires_grad else t.view_as(t) for t in ctx.saved_tensors]
            wide = [t.to(torch.promote_types(t.dtype, inputs[2].dtype)) for t in inputs]  # halves are computed in full
            outputs = plain_backward(lambda *t: formula(*t, *options), wide[0], wide[1], wide[2:], inverse)
            outputs = [o.to(t.dtype) for o, t in zip(outputs, inputs[2:], strict=True)]
            pairs = [(o, s) for o, s in zip(outputs, seeds, strict=True) if o.requires_grad]
            grads = torch.autograd.grad(
                [o for o, _ in pairs], inputs, [s for _, s in pairs], create_graph=create, allow_unused=True
            )
        return *grads, *(None for _ in ctx.options)

    def batched(operator: Any, count: int) -> Callable[..., Any]:
        def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
            front = [
                t.movedim(d, 0) if d is not None else t.expand(info.batch_size, *t.shape)
                for t, d in zip(arguments[:count], in_dims, strict=False)
            ]
            result = operator(*front, *arguments[count:])
            return result, (tuple(0 for _ in result) if isinstance(result, tuple) else 0)

        return rule

    register_fake(f"hepops::{name}")(fake)
    register_fake(f"hepops::{name}_backward")(fake_backward)
    register_autograd(f"hepops::{name}", backward, setup_context=setup)
    register_autograd(f"hepops::{name}_backward", double_backward, setup_context=setup_backward)
    register_vmap(f"hepops::{name}")(batched(op, tensors))
    register_vmap(f"hepops::{name}_backward")(batched(backward_op, 2 + tensors))
