"""What the operators on matrices share: fakes, both derivatives, arguments that are refused."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.func import vjp

from .algebra import check_matrices as check_matrices
from .algebra import traceless_antihermitian


def tuple_of(outputs: Any) -> tuple[Any, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def tangent(grad: Tensor, U: Tensor) -> Tensor:
    r"""The part of a gradient along the group: :math:`\mathrm{TA}(G U^\dagger)\, U`."""
    return traceless_antihermitian(grad @ U.mH) @ U


def register(
    name: str, formula: Callable[..., Any], fake: Callable[..., Any], tensors: int = 1, on_group: bool = False
) -> None:
    """Give `hepops::<name>(*tensors, *options)` its Python side.

    Args:
        name: The operator's; its backward is `<name>_backward(*grads, *tensors, *options)`.
        formula: The same in torch's operators: its second derivatives are the operator's.
        fake: Empty outputs for the arguments.
        tensors: How many of the arguments are tensors.
        on_group: Whether the first of them lies on the group, and its gradient is along it.
    """
    backward_op = getattr(torch.ops.hepops, f"{name}_backward").default
    outputs = len(getattr(torch.ops.hepops, name).default._schema.returns)

    def fake_backward(*arguments: Any) -> Any:
        grads = tuple(t.new_empty(t.shape) for t in arguments[outputs : outputs + tensors])
        return grads if tensors > 1 else grads[0]

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.options = inputs[tensors:]

    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return *tuple_of(backward_op(*grads, *ctx.saved_tensors, *ctx.options)), *(None for _ in ctx.options)

    def setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[: outputs + tensors])
        ctx.options = inputs[outputs + tensors :]

    def twice(ctx: Any, *seeds: Tensor) -> tuple[Any, ...]:
        def once(*inputs: Tensor) -> tuple[Tensor, ...]:
            _, pull = vjp(lambda *t: formula(*t, *ctx.options), *inputs[outputs:])
            grads = pull(inputs[:outputs] if outputs > 1 else inputs[0])
            return (tangent(grads[0], inputs[outputs]), *grads[1:]) if on_group else grads

        return *vjp(once, *ctx.saved_tensors)[1](tuple_of(seeds)), *(None for _ in ctx.options)

    register_fake(f"hepops::{name}")(fake)
    register_fake(f"hepops::{name}_backward")(fake_backward)
    register_autograd(f"hepops::{name}", backward, setup_context=setup)
    register_autograd(f"hepops::{name}_backward", twice, setup_context=setup_backward)
