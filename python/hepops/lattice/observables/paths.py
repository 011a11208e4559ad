r"""Ordered products of links along paths: the one operator under loops, clover leaves, staples and densities.

A path is a sequence of directions from a site x: `mu` goes forward and multiplies by :math:`U_\mu` where the walk
stands, `~mu` goes back, multiplies by :math:`U_\mu^\dagger` of the site it reaches. So (0, 1, ~0, ~1) is the plaquette
:math:`U_0(x) U_1(x+\hat0) U_0(x+\hat1)^\dagger U_1(x)^\dagger`.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call, once_differentiable

from ..geometry import neighbour
from ._checks import checked_links

MATRICES, ANTIHERMITIAN, TRACES = range(3)
LONGEST = 4096  # steps of a path: more than any loop that has a signal

Step = tuple[int, bool, tuple[int, ...]]  # field, whether its adjoint, displacement d
Outputs = tuple[tuple[tuple[Step, ...], ...], ...]  # for each output the paths that it is the sum of


def walk(path: Sequence[int], dims: int) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """The steps of a path of links, and where it ends.

    Raises:
        ValueError: an empty or very long path, a direction that the lattice has not.
    """
    if not 1 <= len(path) <= LONGEST:
        raise ValueError(f"paths: a path must have 1 to {LONGEST} steps, got {len(path)}")
    at, steps = [0] * dims, []
    for direction in path:
        mu = direction if direction >= 0 else ~direction
        if mu >= dims:
            raise ValueError(f"paths: directions must be mu or ~mu with mu below {dims}, got {direction}")
        if direction < 0:
            at[mu] -= 1
        steps.append((mu, direction < 0, tuple(at)))
        if direction >= 0:
            at[mu] += 1
    return tuple(steps), tuple(at)


@functools.lru_cache(maxsize=256)
def program(outputs: Outputs, shape: tuple[int, ...], fields: int, device: torch.device) -> Tensor:
    """The row of integers that csrc/lattice/paths.h reads."""
    paths_of, steps_of, output_of = [0], [0], []
    steps: list[Step] = []
    for o, paths in enumerate(outputs):
        for path in paths:
            steps += path
            steps_of.append(len(steps))
            output_of.append(o)
        paths_of.append(len(output_of))
    uses: list[list[int]] = [[] for _ in range(fields)]
    for p in range(len(output_of)):
        for s in range(steps_of[p], steps_of[p + 1]):
            uses[steps[s][0]] += [p, s]
    uses_of = [0]
    for use in uses:
        uses_of.append(uses_of[-1] + len(use) // 2)
    row = [len(outputs), len(output_of), len(steps), fields, *paths_of, *steps_of]
    for field, adjoint, displacement in steps:
        wrapped = [d % extent for d, extent in zip(displacement, shape, strict=True)]
        row += [field, int(adjoint), *wrapped, *[0] * (4 - len(shape))]
    row += [*output_of, *uses_of, *(number for use in uses for number in use)]
    return torch.tensor(row, dtype=torch.int64, device=device)


def products(fields: Tensor, outputs: Outputs, kind: int = MATRICES, scale: float = 1.0) -> Tensor:
    r"""scale times the sums of the paths' products, shape (B, O, L..., N, N), or of their traces, (B, O, L...).

    Args:
        fields: F, shape (B, K, L..., N, N), complex.
        outputs: For each output its paths, each a tuple of steps (field, adjoint, displacement).
        kind: MATRICES, ANTIHERMITIAN (the traceless antihermitian part) or TRACES.
        scale: A factor.

    Returns:
        Of the dtype of the fields; traces complex128.

    N = 2, 3 by the operator, which computes in double and is differentiable once; other N by `formula`.
    """
    if fields.shape[-1] not in (2, 3):
        return formula(fields, outputs, kind, scale)
    shape = tuple(fields.shape[2:-2])
    row = program(outputs, shape, fields.shape[1], fields.device)
    result: Tensor = call(torch.ops.hepops._lattice_paths.default, fields, row, len(outputs), kind, scale)
    return result


def formula(fields: Tensor, outputs: Outputs, kind: int = MATRICES, scale: float = 1.0) -> Tensor:
    """The same in plain torch, any N: what the operator is tested with."""
    dims = fields.dim() - 4

    def factor(step: Step) -> Tensor:
        field, adjoint, displacement = step
        F = fields[:, field]
        for mu, steps in enumerate(displacement):
            if steps:
                F = neighbour(F, mu, dims, steps, behind=2)
        return F.mH if adjoint else F

    results = []
    for paths in outputs:
        M = sum(functools.reduce(torch.matmul, [factor(step) for step in path]) for path in paths)
        assert isinstance(M, Tensor)
        if kind == ANTIHERMITIAN:
            M = (M - M.mH) / 2
            trace = M.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
            M = M - trace / M.shape[-1] * torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
        if kind == TRACES:
            M = M.diagonal(dim1=-2, dim2=-1).to(torch.complex128).sum(-1)
        results.append(scale * M)
    return torch.stack(results, 1)


def path_products(U: Tensor, paths: Sequence[Sequence[int]]) -> Tensor:
    r"""The product of links along each path from each site.

    Args:
        U: Links, shape (B, D, L..., N, N), complex64 or complex128.
        paths: Sequences of directions, `mu` forward and `~mu` back; they need not be closed.

    Returns:
        Shape (B, paths, L..., N, N), the dtype of U. Differentiable once (N = 2, 3), computed in double. Deterministic:
        every number is summed in one order.

    Raises:
        TypeError: `U` of another dtype.
        ValueError: `U` of another shape, an empty path, a direction that the lattice has not.

    References:
        | I. Montvay, G. Muenster, Quantum Fields on a Lattice, Cambridge 1994, section 3.2

    Example:
        >>> theory = hepops.lattice.SUN(2, (4, 4), beta=2.0)
        >>> plaquette = hepops.lattice.observables.path_products(theory.random(1, seed=1), [(0, 1, ~0, ~1)])
        >>> plaquette.shape
        torch.Size([1, 1, 4, 4, 2, 2])
    """
    dims = checked_links("path_products", U)
    return products(U, tuple((walk(path, dims)[0],) for path in paths))


def loop_traces(U: Tensor, paths: Sequence[Sequence[int]]) -> Tensor:
    r"""tr of the product of links around each closed path from each site, over N: any Wilson loop.

    Args:
        U: Links, shape (B, D, L..., N, N), complex64 or complex128.
        paths: Sequences of directions, `mu` forward and `~mu` back, that return to their site (round the lattice too).

    Returns:
        :math:`\frac1N \mathrm{tr} \prod U`, shape (B, paths, L...), complex128. Differentiable once (N = 2, 3).
        Deterministic.

    Raises:
        TypeError: `U` of another dtype.
        ValueError: `U` of another shape, a path that does not close.

    Example:
        >>> theory = hepops.lattice.SUN(3, (4, 4, 4), beta=6.0)
        >>> chair = (0, 1, ~0, 2, ~1, ~2)
        >>> hepops.lattice.observables.loop_traces(theory.cold(1), [chair]).real.mean()
        tensor(1., dtype=torch.float64)
    """
    dims = checked_links("loop_traces", U)
    outputs = []
    for path in paths:
        steps, end = walk(path, dims)
        if any(d % extent for d, extent in zip(end, U.shape[2:-2], strict=True)):
            raise ValueError(f"loop_traces: the path {tuple(path)} ends at x + {end}: it must return to x")
        outputs.append((steps,))
    return products(U, tuple(outputs), TRACES, 1 / U.shape[-1])


@register_fake("hepops::_lattice_paths")
def _(U: Tensor, program: Tensor, outputs: int, kind: int, scale: float) -> Tensor:
    shape = [U.shape[0], outputs, *U.shape[2:]]
    if kind == TRACES:
        return U.new_empty(shape[:-2], dtype=torch.complex128)
    return U.new_empty(shape)


@register_fake("hepops::_lattice_paths_backward")
def _(grad: Tensor, U: Tensor, program: Tensor, outputs: int, kind: int, scale: float) -> Tensor:
    return U.new_empty(U.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    U, row, *ctx.options = inputs
    ctx.save_for_backward(U, row)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return torch.ops.hepops._lattice_paths_backward(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None


register_autograd("hepops::_lattice_paths", _backward, setup_context=_setup)
once_differentiable("hepops::_lattice_paths_backward")


def total(density: Tensor) -> Tensor:
    """The sum over all but the first dimension, float64 or complex128, in one order."""
    from hepops.flows.sums import event_sum

    if density.is_complex():
        return torch.complex(event_sum(density.real, density.dim() - 1), event_sum(density.imag, density.dim() - 1))
    return event_sum(density, density.dim() - 1)


def volume(U: Tensor) -> int:
    """Sites of the lattice of links U."""
    return math.prod(U.shape[2:-2])
