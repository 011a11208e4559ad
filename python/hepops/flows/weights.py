r"""What log-weights say: effective sample size, ln Z, reweighted means, the tail; in double and in one order.

For samples x_1 ... x_N of q and :math:`w_i = p(x_i) / q(x_i)`, p with or without its constant:

| of N weights     |                                                                                    |
|------------------|------------------------------------------------------------------------------------|
| ln Z             | :math:`\ln \frac1N \sum w_i`, error :math:`\sqrt{(1/\mathrm{ESS} - 1) / (N - 1)}`  |
| ESS              | :math:`(\sum w_i)^2 / (N \sum w_i^2)`, in [1/N, 1]                                 |
| <O>              | :math:`\bar O = \sum w_i O_i / \sum w_i`, error                                   |
|                  | :math:`\sqrt{\sum w_i^2 (O_i - \bar O)^2} / \sum w_i`                             |

**Order.** A sum of N terms is cut into chunks of `CHUNK` terms; each is folded in halves, and so are the sums of the
chunks, in their order. Threads and vector widths have no part in it. With `group` the ranks' samples follow each other
in the order of the ranks, sums of chunks are gathered and folded by every rank: all ranks hold the same bits, from run
to run. Where every rank but the last holds a multiple of `CHUNK` samples, they are the bits of one process that
holds all samples, for any number of ranks. Elsewhere they agree with those to rounding.

**Weights that are no weights.** -inf is a weight of 0: counted among the N. NaN and +inf are a ValueError that says how
many; on a GPU nothing is read back, and they make the result NaN. `summary` can leave them out and say how many.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

CHUNK = 4096  # terms: 12 halvings; ranks that hold multiples of it sum to the same bits


class LogZ(NamedTuple):
    """ln Z and its standard error, float64."""

    value: Tensor
    error: Tensor


class Mean(NamedTuple):
    """A reweighted mean and its standard error, float64."""

    value: Tensor
    error: Tensor


def log_mean_exp(log_w: Tensor, *, group: "dist.ProcessGroup | None" = None) -> Tensor:
    r""":math:`\ln \frac1N \sum_i e^{\ln w_i}`, the estimate of ln Z.

    Args:
        log_w: Logarithms of weights, shape (..., N).
        group: Sum over its ranks too, whose samples follow each other; None: this process alone.

    Returns:
        float64, shape (...); -inf where every weight is 0. Differentiable without a group. Deterministic, see above.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: no weights, NaN or +inf among them.

    Example:
        >>> log_mean_exp(torch.tensor([1000.0, 1000.0]))
        tensor(1000., dtype=torch.float64)
    """
    log_w = _checked(log_w)
    top = _top(log_w, group)
    (total,) = _sums([_weights(log_w, top)], group)
    return total.log() - math.log(_count(log_w, group)) + _finite(top)


def effective_sample_size(log_w: Tensor, *, group: "dist.ProcessGroup | None" = None) -> Tensor:
    r""":math:`(\sum w)^2 / (N \sum w^2)`: the share of N samples of p that would be worth as much.

    Args:
        log_w: Logarithms of weights, shape (..., N).
        group: Sum over its ranks too, whose samples follow each other; None: this process alone.

    Returns:
        float64, shape (...), in [1/N, 1]; 0 where every weight is 0. Differentiable without a group. Deterministic.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: no weights, NaN or +inf among them.

    References:
        | A. Kong, J. S. Liu, W. H. Wong, J. Am. Stat. Assoc. 89 (1994) 278

    Example:
        >>> effective_sample_size(torch.tensor([0.0, 0.0, -torch.inf, -torch.inf]))
        tensor(0.5000, dtype=torch.float64)
    """
    log_w = _checked(log_w)
    w = _weights(log_w, _top(log_w, group))
    first, second = _sums([w, w * w], group)
    return first.square() / (second * _count(log_w, group)).clamp_min(torch.finfo(torch.float64).tiny)


def log_normaliser(
    log_w: Tensor,
    *,
    method: Literal["delta", "jackknife"] = "delta",
    blocks: int = 100,
    group: "dist.ProcessGroup | None" = None,
) -> LogZ:
    r"""ln Z with its standard error.

    delta: :math:`\sqrt{(1/\mathrm{ESS} - 1)/(N - 1)}`, the standard deviation of w over its mean and :math:`\sqrt N`.
    jackknife: from the B values of ln Z that leave out one of B contiguous blocks,
    :math:`\sigma^2 = \frac{B-1}{B} \sum_b (\ln Z_b - \overline{\ln Z_b})^2`, and the value
    :math:`B \ln Z - (B - 1) \overline{\ln Z_b}`, free of the bias of order 1/N; blocks longer than the
    autocorrelation give the error of a Markov chain too.

    Args:
        log_w: Logarithms of weights, shape (..., N).
        method: Where the error comes from.
        blocks: B, from 2 to N; the first blocks are longer by one where N is no multiple.
        group: Ranks to sum over, for "delta" only.

    Returns:
        `LogZ(value, error)`, float64, shape (...). The error is NaN for a single weight.

    Raises:
        ValueError: no weights, NaN or +inf among them; `blocks` out of range; "jackknife" with a group.

    Example:
        >>> value, error = log_normaliser(torch.tensor([0.0, 1.0]).log())
        >>> value.exp(), error
        (tensor(0.5000, dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    if method == "delta":
        n = _count(_checked(log_w), group)
        ess = effective_sample_size(log_w, group=group)
        return LogZ(log_mean_exp(log_w, group=group), ((1 / ess - 1).clamp_min(0) / (n - 1 or math.nan)).sqrt())
    if method != "jackknife":
        raise ValueError(f"method must be 'delta' or 'jackknife', got {method!r}")
    if group is not None:
        raise ValueError("log_normaliser: the jackknife is for one process, group must be None")
    log_w = _checked(log_w)
    n = log_w.shape[-1]
    if not 2 <= blocks <= n:
        raise ValueError(f"blocks must lie between 2 and the number of weights {n}, got {blocks}")
    top = _top(log_w, None)
    w, long = _weights(log_w, top), n % blocks  # the first blocks are longer by one
    cut = long * (n // blocks + 1)
    parts = w[..., :cut].unflatten(-1, (long, -1 if long else 0)), w[..., cut:].unflatten(-1, (blocks - long, -1))
    sums = torch.cat(_sums([*parts], None), -1)
    # the others are added up, since S - s_b would cancel where one block holds nearly all
    rest = (sums[..., None, :] * (1 - torch.eye(blocks, dtype=sums.dtype, device=sums.device))).sum(-1)
    left = n - n // blocks - (torch.arange(blocks, device=sums.device) < long).to(sums.dtype)
    each = (rest / left).log() + _finite(top)[..., None]
    mean = each.mean(-1)
    value = blocks * log_mean_exp(log_w) - (blocks - 1) * mean
    return LogZ(value, ((each - mean[..., None]).square().sum(-1) * (blocks - 1) / blocks).sqrt())


def reweighted_mean(
    observable: Tensor, log_w: Tensor, *, double_double: bool = False, group: "dist.ProcessGroup | None" = None
) -> Mean:
    r""":math:`\bar O = \sum w_i O_i / \sum w_i` and its error :math:`\sqrt{\sum w_i^2 (O_i - \bar O)^2} / \sum w_i`.

    Args:
        observable: O, shape (..., N), or broadcast with `log_w`.
        log_w: Logarithms of weights, shape (N) or (..., N).
        double_double: Carry the rounding of every addition along (TwoSum): for signed observables whose sum cancels.
        group: Sum over its ranks too, whose samples follow each other; None: this process alone.

    Returns:
        `Mean(value, error)`, float64, shape (...): of the ratio estimator, biased by O(1/N). NaN where all weights
        are 0. Differentiable without a group. Deterministic, see above.

    Raises:
        TypeError: not floating-point tensors.
        ValueError: shapes that do not fit, no weights, NaN or +inf among them.

    Example:
        >>> reweighted_mean(torch.tensor([1.0, 5.0, 7.0]), torch.tensor([0.0, 0.0, -torch.inf])).value
        tensor(3., dtype=torch.float64)
    """
    log_w = _checked(log_w)
    if observable.shape[-1:] != log_w.shape[-1:]:
        raise ValueError(
            f"observable must have as many samples as log_w, {log_w.shape[-1]}, got shape {tuple(observable.shape)}"
        )
    w, observable = _weights(log_w, _top(log_w, group)), observable.to(torch.float64)
    norm, total = _sums([w, torch.where(w > 0, w * observable, 0.0)], group, double_double)
    mean = total / norm
    (spread,) = _sums([torch.where(w > 0, (w * (observable - mean[..., None])).square(), 0.0)], group, double_double)
    return Mean(mean, spread.sqrt() / norm)


def max_weight(log_w: Tensor, *, group: "dist.ProcessGroup | None" = None) -> Tensor:
    """The largest weight over the mean weight, float64, shape (...): N if one sample carries all.

    Args:
        log_w: Logarithms of weights, shape (..., N).
        group: Over its ranks too; None: this process alone.

    Raises:
        ValueError: no weights, NaN or +inf among them.

    Example:
        >>> max_weight(torch.tensor([0.0, -torch.inf]))
        tensor(2., dtype=torch.float64)
    """
    return (_top(_checked(log_w), group) - log_mean_exp(log_w, group=group)).exp()


def pareto_k(log_w: Tensor) -> Tensor:
    r"""Shape of a generalised Pareto law fitted to the largest weights: they have 1/k finite moments.

    Below .5 the error of ln Z is right; to .7 estimates are still good; above, neither the error nor the effective
    sample size can be believed, since the weights that matter were not drawn. The tail is the largest
    :math:`\min(N/5, 3 \sqrt N)` weights, the fit that of Zhang and Stephens with the prior of PSIS on k.

    Args:
        log_w: Logarithms of weights, shape (N).

    Returns:
        k, float64, a scalar; NaN where fewer than 5 weights make the tail, -inf where the tail has no spread.

    Raises:
        ValueError: not one dimension, no weights, NaN or +inf among them.

    References:
        | A. Vehtari, D. Simpson, A. Gelman, Y. Yao, J. Gabry, J. Mach. Learn. Res. 25 (2024) 72, arXiv:1507.02646
        | J. Zhang, M. A. Stephens, Technometrics 51 (2009) 316

    Example:
        >>> bool(pareto_k(-2.0 * torch.linspace(1e-3, 1, 1000).log()) > 0.7)  # w = u^-2 has no mean
        True
    """
    log_w = _checked(log_w)
    if log_w.dim() != 1:
        raise ValueError(f"pareto_k: log_w must have one dimension, got shape {tuple(log_w.shape)}")
    count = math.ceil(min(len(log_w) / 5, 3 * math.sqrt(len(log_w))))
    if count < 5:
        return log_w.new_full((), math.nan)
    w = _weights(log_w, log_w.max()).sort().values
    x = w[-count:] - w[-count - 1]
    # Zhang and Stephens: a weighted mean of b = k / sigma over a grid, weights by the profile likelihood
    m = 30 + int(math.sqrt(count))
    grid = torch.arange(1, m + 1, dtype=x.dtype, device=x.device) - 0.5
    quarter = x[int(count / 4 + 0.5) - 1].clamp_min(torch.finfo(x.dtype).tiny)
    b = (1 - (m / grid).sqrt()) / (3 * quarter) + 1 / x[-1]
    k = torch.log1p(-b[:, None] * x).mean(1)
    likelihood = count * ((-b / k).log() - k - 1)
    b = (b * likelihood.softmax(0)).sum()
    k = torch.log1p(-b * x).mean()
    return torch.where(x[-1] > 0, (count * k + 5) / (count + 10), -math.inf)


@dataclass(frozen=True)
class Summary:
    """What a sample of weights is worth; prints as a table."""

    count: int  # N
    zeros: int  # of these, weights of 0
    excluded: int  # NaN and +inf, not counted in N
    log_z: float
    log_z_error: float
    ess: float  # share of N
    max_weight: float  # over the mean
    pareto_k: float

    def __str__(self) -> str:
        k = self.pareto_k
        verdict = "good" if k < 0.5 else "errors are too small" if k < 0.7 else "not to be used"
        verdict = "too few weights" if math.isnan(k) else verdict
        return "\n".join(
            (
                f"weights     {self.count} ({self.zeros} of them 0, {self.excluded} excluded)",
                f"ln Z        {self.log_z:.6g} +- {self.log_z_error:.2g}",
                f"ESS         {self.ess:.2%} of N",
                f"max weight  {self.max_weight:.4g} times the mean",
                f"Pareto k    {self.pareto_k:.2f} ({verdict})",
            )
        )


def summary(log_w: Tensor, *, invalid: Literal["refuse", "exclude"] = "refuse") -> Summary:
    """All of the above of one sample of weights, read back to the host.

    Args:
        log_w: Logarithms of weights, shape (N).
        invalid: What becomes of NaN and +inf: a ValueError, or left out of N and counted.

    Raises:
        ValueError: no weights, `invalid` is neither, or NaN or +inf with "refuse".

    Example:
        >>> print(summary(torch.tensor([0.0, 0.0, -torch.inf, torch.nan]), invalid="exclude"))
        weights     3 (1 of them 0, 1 excluded)
        ln Z        -0.405465 +- 0.5
        ESS         66.67% of N
        max weight  1.5 times the mean
        Pareto k    nan (too few weights)
    """
    if invalid not in ("refuse", "exclude"):
        raise ValueError(f"invalid must be 'refuse' or 'exclude', got {invalid!r}")
    log_w = log_w.detach().cpu()
    keep = ~(log_w.isnan() | (log_w == math.inf))
    excluded = int((~keep).sum()) if invalid == "exclude" else 0
    log_w = _checked(log_w[keep] if excluded else log_w)
    z, error = log_normaliser(log_w)
    return Summary(
        len(log_w),
        int((log_w == -math.inf).sum()),
        excluded,
        float(z),
        float(error),
        float(effective_sample_size(log_w)),
        float(max_weight(log_w)),
        float(pareto_k(log_w)),
    )


def ordered_sum(x: Tensor, *, double_double: bool = False, group: "dist.ProcessGroup | None" = None) -> Tensor:
    """The sum over the last dimension in the order that this page states: float64, shape (...).

    Args:
        x: Numbers, shape (..., N), N may be 0.
        double_double: Carry the rounding of every addition along (TwoSum).
        group: Sum over its ranks too, whose terms follow each other; None: this process alone.

    Example:
        >>> x = torch.tensor([1e16, -1e16, 1.0], dtype=torch.float64)
        >>> ordered_sum(x), ordered_sum(x, double_double=True)
        (tensor(0., dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    return _sums([x.to(torch.float64)], group, double_double)[0]


def _checked(log_w: Tensor) -> Tensor:
    if not isinstance(log_w, Tensor) or not log_w.is_floating_point():
        raise TypeError(f"log_w must be a floating-point tensor, got {getattr(log_w, 'dtype', type(log_w).__name__)}")
    if log_w.dim() == 0 or log_w.shape[-1] == 0:
        raise ValueError(f"log_w must hold at least one weight, got shape {tuple(log_w.shape)}")
    if log_w.device.type == "cpu":
        nan, infinite = int(log_w.isnan().sum()), int((log_w == math.inf).sum())
        if nan or infinite:
            raise ValueError(f"log_w: {nan} of {log_w.numel()} are NaN and {infinite} are +inf")
    return log_w.to(torch.float64)


def _top(log_w: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """The largest, exact whatever the order."""
    top = log_w.detach().amax(-1)
    if group is not None:
        dist.all_reduce(top, dist.ReduceOp.MAX, group)
    return top


def _finite(top: Tensor) -> Tensor:
    return torch.where(top == -math.inf, 0.0, top)


def _weights(log_w: Tensor, top: Tensor) -> Tensor:
    return (log_w - _finite(top)[..., None]).exp()


def _count(log_w: Tensor, group: "dist.ProcessGroup | None") -> int:
    if group is None:
        return log_w.shape[-1]
    return sum(_lengths(log_w.shape[-1], group, log_w.device))


def _lengths(length: int, group: "dist.ProcessGroup", device: torch.device) -> list[int]:
    mine = torch.tensor([length], device=device)
    all_ = [torch.zeros_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(all_, mine, group)
    return torch.cat(all_).tolist()


def _sums(terms: list[Tensor], group: "dist.ProcessGroup | None", double_double: bool = False) -> list[Tensor]:
    """The sum of each (..., N) over N: chunks, then the chunks of all ranks."""
    out = []
    for x in terms:
        chunk = min(CHUNK, _power_of_two(x.shape[-1]))  # a shorter one appends fewer zeros: the same bits
        chunks = -(-x.shape[-1] // chunk)
        x = torch.nn.functional.pad(x, (0, chunks * chunk - x.shape[-1])).unflatten(-1, (chunks, chunk))
        high, low = _fold(x, torch.zeros_like(x) if double_double else None)
        if group is not None:
            high, low = _gathered(high, group), None if low is None else _gathered(low, group)
        extra = _power_of_two(high.shape[-1]) - high.shape[-1]
        high, low = _fold(*(None if v is None else torch.nn.functional.pad(v, (0, extra)) for v in (high, low)))
        out.append(high if low is None else high + low)
    return out


def _power_of_two(n: int) -> int:
    """The least that is not below n."""
    return 1 << (max(n, 1) - 1).bit_length()


def _fold(high: Tensor | None, low: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Halves onto halves until one number is left, with the rounding of each addition where `low` is given."""
    assert high is not None
    while high.shape[-1] > 1:
        a, b = high.chunk(2, -1)
        high = a + b
        if low is not None:  # TwoSum: a + b = high + error, exactly
            c = high - a
            error = (a - (high - c)) + (b - c)
            low = low.chunk(2, -1)[0] + low.chunk(2, -1)[1] + error
    return high[..., 0], None if low is None else low[..., 0]


def _gathered(mine: Tensor, group: "dist.ProcessGroup") -> Tensor:
    """Every rank's (..., C), one after the other in the order of the ranks."""
    lengths = _lengths(mine.shape[-1], group, mine.device)
    padded = torch.nn.functional.pad(mine.detach(), (0, max(lengths) - mine.shape[-1])).contiguous()
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded, group)
    return torch.cat([part[..., :length] for part, length in zip(parts, lengths, strict=True)], -1)
