r"""What a flow q is trained on, with p a target that is known up to a constant.

Every loss is a mean over samples and float64; its gradient, averaged over samples, is that of the law beside it.

| loss                | law                                                          | samples                        |
|---------------------|--------------------------------------------------------------|--------------------------------|
| `forward_kl`        | :math:`-\int p \ln q`: maximum likelihood                    | x of p                         |
| `reverse_kl`        | :math:`\int q \ln (q / p)`                                   | x(z) of q, differentiable      |
| `path_gradient`     | the same, less a term of mean 0                              | the flow draws them            |
| `forward_path`      | :math:`\int p \ln (p / q)`, less a term of mean 0            | x of p, ln p differentiable    |
| `reinforce`         | as `reverse_kl`, without the derivative of p                 | x of q, detached               |
| `alpha_divergence`  | :math:`\frac{1}{\alpha(\alpha-1)} (\int q (p/q)^\alpha - 1)` | x(z) of q, or detached         |
| `variance`          | :math:`\int f^2 / q - (\int f)^2`, f of either sign          | x(z) of q, or of another q     |
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..flow import Flow

Target = Callable[[Tensor], Tensor]


def forward_kl(log_q: Tensor, weights: Tensor | None = None) -> Tensor:
    r""":math:`-\frac1N \sum_i v_i \ln q(x_i)`, x of the data: maximum likelihood.

    Args:
        log_q: Of data, shape (N).
        weights: v of each, shape (N). Where they have mean 1 over all data, the gradient of any batch is unbiased.

    Returns:
        A scalar, float64.

    Example:
        >>> forward_kl(torch.tensor([-1.0, -3.0]))
        tensor(2., dtype=torch.float64)
    """
    log_q = log_q.to(torch.float64)
    return -(log_q if weights is None else weights * log_q).mean()


def reverse_kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    r""":math:`\frac1N \sum_i \ln q(x_i) - \ln p(x_i)`, x of q and differentiable (`rsample_and_log_prob`).

    Its minimum is -ln Z of p.

    Args:
        log_q: Shape (N).
        log_p: Of the same samples, up to a constant, with its derivative.

    Returns:
        A scalar, float64.

    Example:
        >>> reverse_kl(torch.tensor([-1.0]), torch.tensor([-3.0]))
        tensor(2., dtype=torch.float64)
    """
    return (log_q.to(torch.float64) - log_p).mean()


def path_gradient(
    flow: Flow,
    log_target: Target,
    n: int,
    context: Tensor | None = None,
    *,
    seed: int | None = None,
    first: int = 0,
    step: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""The reverse KL whose gradient goes through the samples alone.

    .. math:: \frac{d}{d\theta} \int q \ln\frac{q}{p} = \Big\langle \frac{\partial}{\partial x}
        \Big(\ln\frac{q_\theta(x)}{p(x)}\Big) \frac{\partial x_\theta(z)}{\partial \theta} \Big\rangle_z

    since the score :math:`\partial_\theta \ln q_\theta(x)` at fixed x has mean 0 and is dropped. Where q = p each
    sample's gradient is 0, not only their mean: no noise is left at the optimum. It costs one more pass of the flow.

    Args:
        flow: q.
        log_target: ln p of x, shape (n, *event) -> (n), up to a constant; differentiable.
        n: How many samples.
        context: Shape (C) or (1, C), one for all samples; or (n, C).
        seed, first, step: Names of the samples, as of `Flow.rsample_and_log_prob`.

    Returns:
        The loss, a scalar, and ln w = ln p - ln q of the samples, detached; float64.

    References:
        | L. Vaitl, K. A. Nicoli, S. Nakajima, P. Kessel, ICML 2022, arXiv:2207.08219
        | L. Vaitl, K. A. Nicoli, S. Nakajima, P. Kessel, Mach. Learn.: Sci. Technol. 3 (2022) 045006, arXiv:2206.09016

    Example:
        >>> flow = hepops.flows.nsf(2)  # begins as a normal density
        >>> loss, log_w = path_gradient(flow, lambda x: -x.square().sum(-1) / 2, 10, seed=1)
        >>> loss.backward()
        >>> max(float(p.grad.abs().max()) for p in flow.parameters()) < 1e-5
        True
    """
    x, _ = draw(flow, n, context, seed=seed, first=first, step=step)
    log_q = frozen(flow, "log_prob", x, context)
    log_p = log_target(x).to(torch.float64)
    return reverse_kl(log_q, log_p), (log_p - log_q).detach()


def forward_path(flow: Flow, x: Tensor, log_p: Target, context: Tensor | None = None) -> Tensor:
    r"""The forward KL of a known p, whose gradient goes through the flow's values z = f(x) alone.

    :math:`\int p \ln (p/q)` is a reverse KL in the space of the base: of :math:`\tilde p_\theta(z) = p(f^{-1}(z))
    |\det \partial f^{-1}|` against the base b,

    .. math:: \Big\langle \frac{\partial}{\partial z} \Big(\ln\frac{\tilde p_\theta(z)}{b(z)}\Big)
        \frac{\partial f_\theta(x)}{\partial \theta} \Big\rangle_{x \sim p}

    Where q = p each sample's gradient is 0, and overfitting is less than by maximum likelihood, since the derivative of
    p is learnt from.

    Args:
        flow: q; its base must be differentiable where the samples come to lie.
        x: Samples of p, shape (N, *event).
        log_p: ln p, shape (N, *event) -> (N), up to a constant; differentiable.
        context: Shape (N, C), or that broadcast to it.

    Returns:
        A scalar, float64: the mean of ln p - ln q.

    References:
        | L. Vaitl, L. Winkler, L. Richter, P. Kessel, ICLR 2024, arXiv:2403.15881

    Example:
        >>> flow = hepops.flows.nsf(2)
        >>> loss = forward_path(flow, torch.randn(10, 2), lambda x: -x.square().sum(-1) / 2)
        >>> round(loss.item(), 3)  # ln 2 pi, the constant that this target lacks
        1.838
    """
    z, _ = flow.transform(x, context)
    back, logdet = frozen(flow, "inverse", z, context)
    return (log_p(back) + logdet - flow.base.log_prob(z)).mean()


def reinforce(log_q: Tensor, log_p: Tensor) -> Tensor:
    r"""A loss whose gradient is that of the reverse KL, without a derivative of p.

    .. math:: \frac1N \sum_i (s_i - b_i) \frac{\partial \ln q(x_i)}{\partial \theta},
        \qquad s = \ln q - \ln p, \quad b_i = \frac{1}{N - 1} \sum_{j \ne i} s_j

    The baseline leaves one out, so that the mean is exact; where q = p each term is 0.

    Args:
        log_q: `flow.log_prob(x.detach())`, x of q, shape (N), N at least 2.
        log_p: Of the same samples, up to a constant; needs no derivative.

    Returns:
        A scalar, float64: its value is that of `reverse_kl`.

    Raises:
        ValueError: fewer than 2 samples.

    References:
        | P. Bialas, P. Korcyl, T. Stebel, arXiv:2308.13294 (Mach. Learn.: Sci. Technol. 5 (2024) 025053)
        | W. Kool, H. van Hoof, M. Welling, Buy 4 REINFORCE samples, get a baseline for free!, ICLR 2019 workshop

    Example:
        >>> log_q = torch.tensor([-1.0, -2.0], requires_grad=True)
        >>> reinforce(log_q, torch.tensor([-1.0, -4.0])).backward()
        >>> log_q.grad  # half of s - b = (0 - 2, 2 - 0)
        tensor([-1.,  1.])
    """
    n = log_q.shape[0]
    if n < 2:
        raise ValueError(f"reinforce needs at least 2 samples, got {n}")
    log_q = log_q.to(torch.float64)
    s = (log_q - log_p).detach()
    return s.mean() + ((s - s.mean()) * n / (n - 1) * (log_q - log_q.detach())).mean()


def alpha_divergence(
    log_q: Tensor, log_p: Tensor, alpha: float, *, log_z: float | Tensor | None = None, detached: bool = False
) -> Tensor:
    r""":math:`\frac{1}{\alpha (\alpha - 1)} \big(\langle (p / Zq)^\alpha \rangle_q - 1\big)`; alpha -> 0 is the reverse
    KL, 1 the forward one, 2 half the variance of the weights.

    Args:
        log_q: Of samples of q, shape (N).
        log_p: Of the same samples.
        alpha: Any number but 0 and 1: between them both modes and tails count, above 1 the tails.
        log_z: ln Z of p, where it is known: then value and gradient are unbiased. None: the loss is
            :math:`\frac{1}{\alpha(\alpha - 1)} \ln \langle (p/q)^\alpha \rangle_q`, with the same minimum, free of Z,
            and its gradient biased by O(1/N).
        detached: The samples carry no derivative (`flow.log_prob(x.detach())`): the gradient is by the score, and p
            needs no derivative. False: they do (`rsample_and_log_prob`), and ln p must be differentiable.

    Returns:
        A scalar, float64.

    Raises:
        ValueError: alpha is 0 or 1, for which there are `reverse_kl` and `forward_kl`, or not finite.

    References:
        | T. Minka, Divergence measures and message passing, MSR-TR-2005-173
        | L. I. Midgley, V. Stimper, G. N. C. Simm, B. Schölkopf, J. M. Hernández-Lobato, ICLR 2023, arXiv:2208.01893

    Example:
        >>> alpha_divergence(torch.zeros(2), torch.tensor([1.5, 0.5]).log(), 2.0, log_z=0.0)
        tensor(0.1250, dtype=torch.float64)
    """
    if alpha in (0, 1) or not math.isfinite(alpha):
        raise ValueError(f"alpha must be finite and neither 0 (reverse_kl) nor 1 (forward_kl), got {alpha}")
    log_q = log_q.to(torch.float64)
    u = alpha * (log_p.to(torch.float64) - log_q)
    if detached:
        # d/dt int q g(p/q) = <g d ln q> + <dg>: what the samples' motion gave comes as the score
        u = u + (log_q - log_q.detach())
    scale = 1 / (alpha * (alpha - 1))
    if log_z is None:
        return scale * (u.logsumexp(0) - math.log(u.shape[0]))
    return scale * ((u - alpha * log_z).exp().mean() - 1)


def variance(
    f: Tensor,
    log_q: Tensor,
    log_drawn: Tensor | None = None,
    *,
    channels: Tensor | None = None,
    number: int = 0,
    relative: bool = True,
) -> Tensor:
    r"""Variance of f/q: what an integral of f costs when q samples it.

    .. math:: V = \int \frac{f^2}{q} - I^2 \approx \frac1N \sum_i \frac{f_i^2}{q_i r_i}
        - \frac{(\sum w)^2 - \sum w^2}{N (N - 1)}, \qquad w = f / r

    with r the density that drew the samples; every term is unbiased, and for r = q this is the sample variance of f/q.

    With channels, the integrals :math:`I_k = \int f_k` of the parts of f are drawn :math:`N_k` times each; the sum then
    has variance :math:`\sum_k V_k / N_k`, of which the least, at :math:`N_k \propto \sqrt{V_k}`, is
    :math:`(\sum_k \sqrt{V_k})^2 / N`: that is returned (biased by O(1/N_k), as a root is).

    Args:
        f: The integrand's values at the samples, of either sign, 0 allowed, shape (N); of channel k's part, with
            channels.
        log_q: ln q there, shape (N); of the channel's own density, with channels.
        log_drawn: ln r, detached: the samples do not follow q's gradient (stop-gradient; q may have moved since they
            were drawn). None: r = q and samples, f and log_q are differentiable (`rsample_and_log_prob`).
        channels: Of each sample, int64 in [0, number), shape (N).
        number: How many channels.
        relative: Divide by the estimate of :math:`I^2`, held constant: a loss of order 1 whatever the unit of f.

    Returns:
        A scalar, float64. NaN for fewer than 2 samples (of a channel).

    Raises:
        ValueError: shapes that differ, or channels without their number.

    References:
        | T. Heimel et al. (MadNIS), SciPost Phys. 15 (2023) 141, arXiv:2212.06172; 17 (2024) 023, arXiv:2311.01548

    Example:
        >>> round(variance(torch.tensor([1.0, 3.0]), torch.zeros(2), relative=False).item(), 12)  # f/q of 1 and 3
        2.0
    """
    if f.shape != log_q.shape or f.dim() != 1:
        raise ValueError(f"f and log_q must have one shape (N), got {tuple(f.shape)} and {tuple(log_q.shape)}")
    if (channels is None) != (number == 0):
        raise ValueError(f"channels and their number go together, got number = {number}")
    zero = f == 0
    log_f = torch.where(zero, 1.0, f).to(torch.float64).abs().log()
    sign = torch.where(zero, 0.0, f.detach().sign())
    log_r = log_q if log_drawn is None else log_drawn.detach()
    # one scale for all: the largest weight is 1
    top = torch.where(zero, -math.inf, (log_f - log_r).detach()).amax()
    top = torch.where(top == -math.inf, 0.0, top)
    w = sign * torch.where(zero, 0.0, (log_f - log_r - top).exp())
    square = torch.where(zero, 0.0, (2 * (log_f - top) - log_q - log_r).exp())
    if channels is None:
        spread, mean = _variance(w, square, torch.ones_like(w))
        total = mean.detach().square()
    else:
        member = torch.nn.functional.one_hot(channels, number).to(torch.float64).T  # (number, N)
        each, means = _variance(w, square, member)
        # the root's slope is infinite at 0, and an estimate may lie below
        floor = 1e-12 * square.detach().mean()
        spread, total = each.clamp_min(floor).sqrt().sum().square(), means.detach().sum().square()
    # the scale is a constant: it goes out again, or stands in I^2 as well
    return spread / total if relative else spread * (2 * top).exp()


def _variance(w: Tensor, square: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """V and I of the samples that are members, shape (..., N) -> (...)."""
    n = member.sum(-1)
    first, second = (member * w).sum(-1), (member * w * w).sum(-1)
    return (member * square).sum(-1) / n - (first * first - second) / (n * (n - 1)), first / n


def draw(
    flow: Flow, n: int, context: Tensor | None, *, seed: int | None, first: int, step: int
) -> tuple[Tensor, Tensor]:
    """n samples and ln q: of one context, (C) or (1, C), or each of its own, (n, C)."""
    shape: tuple[int, ...] = (n,)
    if context is not None:
        if context.dim() == 2 and context.shape[0] not in (1, n):
            raise ValueError(f"context must be (C), (1, C) or ({n}, C), got shape {tuple(context.shape)}")
        shape = (n, 1) if context.dim() == 2 and context.shape[0] == 1 and n != 1 else (n,)
        shape = () if context.dim() == 2 and context.shape[0] == n else shape
    x, log_q = flow.rsample_and_log_prob(shape, context, seed=seed, first=first, step=step)
    return x.reshape(n, *flow.event_shape), log_q.reshape(n)


class _Call(nn.Module):
    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, what: str, x: Tensor, context: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
        return self.flow.log_prob(x, context) if what == "log_prob" else self.flow.transform.inverse(x, context)


def frozen(flow: Flow, what: str, x: Tensor, context: Tensor | None) -> Any:
    """`log_prob` or the transform's `inverse` at x with parameters that are constants: its gradient is that of x."""
    call = _Call(flow)
    return functional_call(call, {n: p.detach() for n, p in call.named_parameters()}, (what, x, context))
