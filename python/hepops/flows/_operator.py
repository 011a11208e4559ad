"""What the operators of elementwise bijections share: fakes, both derivatives, vmap."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake, register_vmap

from hepops.core.func import function_of, transforms_active, transposed, vjp
from hepops.core.ops import call

Formula = Callable[..., tuple[Tensor, Tensor]]


def broadcast(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """x, shape (...), and raw, shape (..., P), with the same leading dimensions."""
    if raw.shape[:-1] == x.shape or raw.dim() == 0:
        return x, raw
    shape = torch.broadcast_shapes(x.shape, raw.shape[:-1])
    return x.expand(shape), raw.expand(*shape, raw.shape[-1])


def plain_backward(
    formula: Formula, grad_value: Tensor, grad_logdet: Tensor, tensors: Sequence[Tensor], inverse: bool
) -> tuple[Tensor, ...]:
    """The backward of a bijection (csrc/flows/bijection.h) in torch's operators, differentiable: `tensors` are x and
    the raw parameters, `formula` gives f(x) and l."""
    if not inverse:
        return vjp(formula, *tensors)[1]((grad_value, grad_logdet))
    x, *raw = tensors
    (_, logdet), along_x = vjp(lambda x: formula(x, *raw), x)
    one, zero = torch.ones_like(logdet), torch.zeros_like(logdet)
    A = (grad_value - grad_logdet * along_x((zero, one))[0]) / along_x((one, zero))[0]
    return A, *(vjp(lambda *raw: formula(x, *raw), *raw)[1]((-A, -grad_logdet)) if raw else ())


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
        point = output[0] if inverse else inputs[0], *inputs[1:tensors]
        ctx.save_for_backward(*point)
        ctx.save_for_forward(*point)
        ctx.options = inputs[tensors:]

    def backward(ctx: Any, grad_value: Tensor, grad_logdet: Tensor) -> tuple[Any, ...]:
        apply = backward_function.apply if transforms_active() else backward_op
        grads = apply(grad_value, grad_logdet, *ctx.saved_tensors, *ctx.options)
        return *(grads if tensors > 1 else (grads,)), *(None for _ in ctx.options)

    def setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[: 2 + tensors])
        ctx.save_for_forward(*inputs[: 2 + tensors])
        ctx.options = inputs[2 + tensors :]

    def gradients(ctx: Any) -> Callable[..., tuple[Tensor, ...]]:
        """The backward operator of its tensors in torch's operators; halves are computed in full."""
        *options, inverse = ctx.options

        def plain(*inputs: Tensor) -> tuple[Tensor, ...]:
            wide = [t.to(torch.promote_types(t.dtype, inputs[2].dtype)) for t in inputs]
            outputs = plain_backward(lambda *t: formula(*t, *options), wide[0], wide[1], wide[2:], inverse)
            return tuple(o.to(t.dtype) for o, t in zip(outputs, inputs[2:], strict=True))

        return plain

    def double_backward(ctx: Any, *seeds: Tensor) -> tuple[Any, ...]:
        return *vjp(gradients(ctx), *ctx.saved_tensors)[1](seeds), *(None for _ in ctx.options)

    def jvp(ctx: Any, *v: Any) -> tuple[Tensor, ...]:
        point, plain = ctx.saved_tensors, gradients(ctx)
        return transposed(lambda seeds: plain(*seeds, *point), point[:1] * 2, v[:tensors])

    def jvp_backward(ctx: Any, *v: Any) -> Any:
        point = ctx.saved_tensors
        slopes = transposed(vjp(gradients(ctx), *point)[1], point[2:], v[: 2 + tensors])
        return slopes if tensors > 1 else slopes[0]

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
    backward_rule = batched(lambda *a: backward_function.apply(*a), 2 + tensors)
    backward_function: Any = function_of(backward_op, setup_backward, double_backward, backward_rule, jvp_backward)
    function: Any = function_of(op, setup, backward, batched(lambda *a: function.apply(*a), tensors), jvp)
    _functions[name] = function


def apply(name: str, *arguments: Any) -> tuple[Tensor, Tensor]:
    """The operator `hepops::<name>`, in the form that what surrounds it can differentiate."""
    if transforms_active():
        return _functions[name].apply(*arguments)
    return call(getattr(torch.ops.hepops, name).default, *arguments)


_functions: dict[str, Any] = {}
