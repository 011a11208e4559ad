"""Operators under torch.func: its transforms (grad, jacrev, hessian) want an autograd.Function, no custom operator."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hepops.core.ops import call


def transforms_active() -> bool:
    """Whether a torch.func transform is at work; a compiler, which sees through them by itself, gets the operator."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def function_of(
    op: Callable[..., Any],
    setup: Callable[..., None],
    backward: Callable[..., Any],
    vmap: Callable[..., Any],
    jvp: Callable[..., Any],
) -> type[torch.autograd.Function]:
    """The operator as an autograd.Function, of the rules that it is registered with, and one for forward mode."""

    def forward(*arguments: Any) -> Any:
        return call(op, *arguments)

    members = {"forward": forward, "setup_context": setup, "backward": backward, "vmap": vmap, "jvp": jvp}
    rules = {name: staticmethod(member) for name, member in members.items()}
    return type(getattr(op, "__name__", "Function"), (torch.autograd.Function,), rules)


def vjp(f: Callable[..., Any], *arguments: Any) -> tuple[Any, Callable[..., tuple[Any, ...]]]:
    """torch.func.vjp of a function without auxiliary results: what f gives, and the pullback."""
    pair: Any = torch.func.vjp(f, *arguments)
    return pair


def transposed(linear: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]], like: Any, v: Any) -> tuple[Tensor, ...]:
    """M v, where `linear` gives u M for u like `like`: the forward-mode derivative from the backward of the backward.

    v: One for each result of `linear`, None for zeros.
    """
    results, pull = vjp(linear, tuple(torch.zeros_like(t) for t in like))
    return pull(tuple(torch.zeros_like(r) if t is None else t for r, t in zip(results, v, strict=True)))[0]
