"""The divergence of a vector field: exact, or probed with random vectors.

Both go through reverse mode, which every operator has; forward mode some have not. Every event must be independent of
the others of its batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hepops.core.func import transforms_active, vjp


def _prepared(x: Tensor) -> tuple[Tensor, bool]:
    """x as something to be differentiated in, and whether the result shall be differentiable."""
    graph = torch.is_grad_enabled()
    if x.requires_grad and graph:
        return x, graph
    return x.detach().requires_grad_(), graph


def exact_divergence(g: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    r"""g(x) and :math:`\sum_i \partial g_i / \partial x_i`: D passes backward.

    Args:
        g: From (*batch, D) to (*batch, D), each event by itself.
        x: Shape (*batch, D).

    Returns:
        dx/dt, shape (*batch, D), and the divergence, shape (*batch), both in the dtype of x.

    Differentiable, as often as g; deterministic. Under torch.no_grad nothing is kept.

    References:
        | W. Grathwohl et al., FFJORD, arXiv:1810.01367, 2.1

    Example:
        >>> hepops.flows.continuous.exact_divergence(lambda x: x**2, torch.tensor([[1.0, 2.0]]))
        (tensor([[1., 4.]], grad_fn=...), tensor([6.], grad_fn=...))
    """
    if transforms_active():
        y, pull = vjp(g, x)
        units = torch.eye(x.shape[-1], dtype=y.dtype, device=y.device)
        return y, torch.stack([pull(e.expand_as(y))[0][..., i] for i, e in enumerate(units)], -1).sum(-1)
    x, graph = _prepared(x)
    with torch.enable_grad():
        y = g(x)
        if not y.requires_grad:  # g does not depend on x
            return y, torch.zeros_like(y[..., 0])
        parts = []
        for i in range(x.shape[-1]):
            last = i == x.shape[-1] - 1
            (row,) = torch.autograd.grad(
                y[..., i].sum(), x, create_graph=graph, retain_graph=graph or not last, materialize_grads=True
            )
            parts.append(row[..., i])
        divergence = torch.stack(parts, -1).sum(-1)
    return (y, divergence) if graph and _learns(y, divergence) else (y.detach(), divergence.detach())


def probed_divergence(g: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    r"""g(x) and Hutchinson's estimate of its divergence, :math:`\frac1P \sum_p \epsilon_p^T J \epsilon_p`.

    Unbiased for independent components of mean 0 and variance 1; signs (Rademacher) have the least variance,
    :math:`\sum_{i \ne j} J_{ij} (J_{ij} + J_{ji}) / P`, and are exact for a diagonal Jacobian.

    Args:
        g: From (*batch, D) to (*batch, D), each event by itself.
        x: Shape (*batch, D).
        probes: :math:`\epsilon`, shape (P, *batch, D).

    Returns:
        dx/dt, shape (*batch, D), and the estimate, shape (*batch), both in the dtype of x.

    Differentiable, as often as g; deterministic for given probes.

    References:
        | M. F. Hutchinson, Commun. Stat. Simul. Comput. 19 (1990) 433, doi:10.1080/03610919008812866
        | W. Grathwohl et al., FFJORD, arXiv:1810.01367, 3.1

    Example:
        >>> probes = torch.tensor([[[1.0, -1.0]]])
        >>> with torch.no_grad():
        ...     hepops.flows.continuous.probed_divergence(lambda x: x**2, torch.tensor([[1.0, 2.0]]), probes)
        (tensor([[1., 4.]]), tensor([6.]))
    """
    if transforms_active():
        y, pull = vjp(g, x)
        return y, torch.stack([(pull(probe)[0] * probe).sum(-1) for probe in probes]).mean(0)
    x, graph = _prepared(x)
    with torch.enable_grad():
        y = g(x)
        if not y.requires_grad:
            return y, torch.zeros_like(y[..., 0])
        estimates = []
        for p, probe in enumerate(probes):
            last = p == len(probes) - 1
            (row,) = torch.autograd.grad(
                y, x, probe, create_graph=graph, retain_graph=graph or not last, materialize_grads=True
            )
            estimates.append((row * probe).sum(-1))
        divergence = torch.stack(estimates).mean(0)
    return (y, divergence) if graph and _learns(y, divergence) else (y.detach(), divergence.detach())


def _learns(*results: Tensor) -> bool:
    return any(r.requires_grad for r in results)
