r"""The field's losses between two sets of hits, as functions with gradients: chamfer, soft-DTW, MMD plus charge.

They stand here for comparison: a fit on residuals (residuals.py) needs a hundredth of their iterations, and only
residuals give a covariance. All are differentiable by autograd, hold blocks of pairs rather than all of them, and add
in one order: the same bits from run to run.

References:
    | H. G. Barrow et al., Parametric correspondence and chamfer matching, IJCAI (1977) 659
    | H. Sakoe, S. Chiba, Dynamic programming for spoken word recognition, IEEE TASSP 26 (1978) 43
    | M. Cuturi, M. Blondel, Soft-DTW: a differentiable loss function for time-series, ICML (2017), arXiv:1703.01541
    | A. Gretton et al., A kernel two-sample test, JMLR 13 (2012) 723
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from hepops.lartpc.hits import Hits

PAIRS = 1 << 22  # pairs of points held at once: 32 MB per float64 matrix


def chamfer(
    a: Tensor, b: Tensor, batch_a: Tensor | None = None, batch_b: Tensor | None = None, *, pairs: int = PAIRS
) -> Tensor:
    r"""Chamfer distance of two clouds of points, per cloud.

    .. math:: C = \frac1N \sum_i \min_j |a_i - b_j|^2 + \frac1M \sum_j \min_i |a_i - b_j|^2

    Args:
        a: Points (N, D), float32 or float64, in units that make the axes comparable.
        b: Points (M, D), the dtype of `a`.
        batch_a: Cloud of each point (N), int64, in any order; None: one cloud.
        batch_b: Cloud of each point (M), int64.
        pairs: Most pairs of points held at once; neighbours are sought without a graph, so this bounds the memory.

    Returns:
        (clouds), in rising order of the ids.

    Differentiable with respect to `a` and `b` any number of times, away from ties between neighbours (where it takes
    the first). Deterministic on the CPU.

    Raises:
        ValueError: a cloud stands on one side only, or shapes do not fit.

    References:
        | H. G. Barrow et al., Parametric correspondence and chamfer matching, IJCAI (1977) 659

    Example:
        >>> chamfer(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([50.])
    """
    return torch.stack([_chamfer(a[i], b[j], pairs) for i, j in _clouds("chamfer", a, b, batch_a, batch_b)])


def _chamfer(a: Tensor, b: Tensor, pairs: int) -> Tensor:
    return _to_nearest(a, b, pairs) + _to_nearest(b, a, pairs)


def _to_nearest(a: Tensor, b: Tensor, pairs: int) -> Tensor:
    """Mean squared distance of each `a` to its nearest `b`."""
    rows = max(1, pairs // len(b))
    with torch.no_grad():  # which one is nearest has no derivative
        nearest = torch.cat([torch.cdist(part, b).argmin(1) for part in a.split(rows)])
    return ((a - b[nearest]) ** 2).sum(1).mean()


def mmd(
    a: Tensor,
    b: Tensor,
    weight_a: Tensor | None = None,
    weight_b: Tensor | None = None,
    batch_a: Tensor | None = None,
    batch_b: Tensor | None = None,
    *,
    bandwidths: Sequence[float] = (1.0,),
    pairs: int = PAIRS,
) -> Tensor:
    r"""Squared maximum mean discrepancy of two weighted clouds of points, per cloud.

    .. math:: \sum_{ii'} u_i u_{i'} k(a_i, a_{i'}) + \sum_{jj'} v_j v_{j'} k(b_j, b_{j'})
        - 2 \sum_{ij} u_i v_j k(a_i, b_j), \quad k(x, y) = \sum_h e^{-|x - y|^2 / 2 h^2}

    with the weights scaled to sum to one: the biased form, which is never negative.

    Args:
        a: Points (N, D), float32 or float64.
        b: Points (M, D), the dtype of `a`.
        weight_a: Weight of each point (N), such as its charge, with a positive sum; None: all equal.
        weight_b: Weight of each point (M).
        batch_a: Cloud of each point (N), int64; None: one cloud.
        batch_b: Cloud of each point (M), int64.
        bandwidths: The widths :math:`h`, in the units of the points.
        pairs: Most pairs held at once, backward included (it recomputes them).

    Returns:
        (clouds), in rising order of the ids.

    Differentiable with respect to the points and the weights, twice. Deterministic on the CPU.

    Raises:
        ValueError: a cloud stands on one side only, a bandwidth is not positive, or shapes do not fit.

    References:
        | A. Gretton et al., A kernel two-sample test, JMLR 13 (2012) 723, eq. 5

    Example:
        >>> mmd(torch.zeros(1, 3), torch.zeros(1, 3))
        tensor([0.])
    """
    if not bandwidths or min(bandwidths) <= 0:
        raise ValueError(f"mmd: bandwidths must be positive, got {tuple(bandwidths)}")
    u = a.new_ones(len(a)) if weight_a is None else weight_a
    v = b.new_ones(len(b)) if weight_b is None else weight_b
    clouds = _clouds("mmd", a, b, batch_a, batch_b)
    return torch.stack([_mmd(a[i], b[j], u[i] / u[i].sum(), v[j] / v[j].sum(), bandwidths, pairs) for i, j in clouds])


def _mmd(a: Tensor, b: Tensor, u: Tensor, v: Tensor, widths: Sequence[float], pairs: int) -> Tensor:
    def overlap(x: Tensor, y: Tensor, p: Tensor, q: Tensor) -> Tensor:
        """The sum over pairs p_i q_j k(x_i, y_j), block by block."""
        rows = max(1, pairs // len(y))
        blocks = zip(x.split(rows), p.split(rows), strict=True)
        # each block is computed again in the backward: the memory is that of one block
        parts = [checkpoint(_block, xs, y, ps, q, tuple(widths), use_reentrant=False) for xs, ps in blocks]
        return torch.stack(parts).sum()

    return overlap(a, a, u, u) + overlap(b, b, v, v) - 2 * overlap(a, b, u, v)


def _block(x: Tensor, y: Tensor, p: Tensor, q: Tensor, widths: tuple[float, ...]) -> Tensor:
    squares = ((x[:, None] - y) ** 2).sum(-1)
    return p @ torch.stack([torch.exp(-squares / (2 * h * h)) for h in widths]).sum(0) @ q


def mmd_charge(
    a: Tensor,
    b: Tensor,
    charge_a: Tensor,
    charge_b: Tensor,
    batch_a: Tensor | None = None,
    batch_b: Tensor | None = None,
    *,
    bandwidths: Sequence[float] = (1.0,),
    charge_weight: float = 1.0,
    pairs: int = PAIRS,
) -> Tensor:
    r"""MMD of two charge distributions plus the difference of their totals, per cloud.

    .. math:: \mathrm{MMD}^2(a, q^a; b, q^b) + w \left(\frac{\sum_i q^a_i}{\sum_j q^b_j} - 1\right)^2

    The MMD alone does not see the total charge, since its weights are scaled to one.

    Args:
        a: Simulated points (N, D), float32 or float64.
        b: Measured points (M, D), the dtype of `a`.
        charge_a: Charge of each point (N) [e].
        charge_b: Charge of each point (M) [e].
        batch_a: Cloud of each point (N), int64; None: one cloud.
        batch_b: Cloud of each point (M), int64.
        bandwidths: As in :func:`mmd`.
        charge_weight: The weight :math:`w` of the second term.
        pairs: Most pairs held at once.

    Returns:
        (clouds), in rising order of the ids.

    Differentiable with respect to points and charges, twice. Deterministic on the CPU.

    Raises:
        ValueError: as :func:`mmd`.

    References:
        | A. Gretton et al., A kernel two-sample test, JMLR 13 (2012) 723

    Example:
        >>> point, charge = torch.zeros(1, 3), torch.tensor([1000.0])
        >>> mmd_charge(point, point, 1.5 * charge, charge)
        tensor([0.2500])
    """
    shape = mmd(a, b, charge_a, charge_b, batch_a, batch_b, bandwidths=bandwidths, pairs=pairs)
    clouds = _clouds("mmd_charge", a, b, batch_a, batch_b)
    totals = torch.stack([charge_a[i].sum() / charge_b[j].sum() for i, j in clouds])
    return shape + charge_weight * (totals - 1) ** 2


def soft_dtw(
    a: Tensor,
    b: Tensor,
    gamma: float = 1.0,
    length_a: Tensor | None = None,
    length_b: Tensor | None = None,
    *,
    pairs: int = PAIRS,
) -> Tensor:
    r"""Soft dynamic time warping of two batches of sequences.

    .. math:: R_{ij} = |a_i - b_j|^2
        - \gamma \ln \left( e^{-R_{i-1,j-1}/\gamma} + e^{-R_{i-1,j}/\gamma} + e^{-R_{i,j-1}/\gamma} \right)

    whose last element is returned; :math:`\gamma \to 0` gives the cheapest alignment (DTW). It can be negative.

    Args:
        a: Sequences (B, N, D), float32 or float64.
        b: Sequences (B, M, D), the dtype of `a`.
        gamma: Width of the soft minimum, positive, in the units of the squared distance.
        length_a: Elements in use of each sequence (B), int64, at least 1; None: N. What lies beyond has no influence.
        length_b: Elements in use (B); None: M.
        pairs: Most pairs held at once: the batch is cut accordingly. One sequence pair takes 3 N M numbers.

    Returns:
        (B).

    Differentiable once, with respect to `a` and `b`. Deterministic.

    Raises:
        ValueError: `gamma` is not positive, a length is out of range, or shapes do not fit.

    References:
        | M. Cuturi, M. Blondel, ICML (2017), arXiv:1703.01541, algorithms 1 and 2

    Example:
        >>> soft_dtw(torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[0.0], [0.0], [1.0]]]), gamma=1e-4)
        tensor([0.])
    """
    if not gamma > 0:
        raise ValueError(f"soft_dtw: gamma must be positive, got {gamma}")
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[2]:
        raise ValueError(
            f"soft_dtw: a and b must be (B, N, D) and (B, M, D), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    n, m = _lengths("length_a", length_a, a), _lengths("length_b", length_b, b)
    step = max(1, pairs // max(1, a.shape[1] * b.shape[1]))
    parts = zip(*(x.split(step) for x in (a, b, n, m)), strict=True)
    return torch.cat([_SoftDTW.apply(_squares(x, y), float(gamma), i, j) for x, y, i, j in parts])


def _lengths(name: str, given: Tensor | None, sequences: Tensor) -> Tensor:
    batch, longest = sequences.shape[:2]
    lengths = torch.full((batch,), longest, device=sequences.device) if given is None else given
    if lengths.shape != (batch,) or (batch and (int(lengths.min()) < 1 or int(lengths.max()) > longest)):
        raise ValueError(f"soft_dtw: {name} must be ({batch},) numbers from 1 to {longest}, got {lengths.tolist()}")
    return lengths


def _squares(x: Tensor, y: Tensor) -> Tensor:
    return ((x[:, :, None] - y[:, None]) ** 2).sum(-1)


def _diagonals(n: int, m: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The index pairs (i, j) of an (n, m) matrix, one anti-diagonal after the other."""
    for d in range(n + m - 1):
        i = torch.arange(max(0, d - m + 1), min(n - 1, d) + 1, device=device)
        yield i, d - i


class _SoftDTW(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, D: Tensor, gamma: float, n: Tensor, m: Tensor) -> Tensor:
        batch, N, M = D.shape
        R = D.new_full((batch, N + 1, M + 1), math.inf)
        R[:, 0, 0] = 0
        for i, j in _diagonals(N, M, D.device):
            before = torch.stack((R[:, i, j], R[:, i, j + 1], R[:, i + 1, j]))
            R[:, i + 1, j + 1] = D[:, i, j] - gamma * torch.logsumexp(before / -gamma, 0)
        ctx.save_for_backward(D, R, n, m)
        ctx.gamma = gamma
        return R[torch.arange(batch, device=D.device), n, m]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Alignment.apply(grad, ctx.gamma, *ctx.saved_tensors), None, None, None


class _Alignment(torch.autograd.Function):
    """The expected alignment: E_ij = sum over successors s of E_s exp((R_s - D_s - R_ij) / gamma)."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, gamma: float, D: Tensor, R: Tensor, n: Tensor, m: Tensor) -> Tensor:
        batch, N, M = D.shape
        # a border of -inf after the last row and column: its weight is zero
        R = torch.nn.functional.pad(R[:, 1:, 1:], (0, 1, 0, 1), value=-math.inf)
        D = torch.nn.functional.pad(D, (0, 1, 0, 1))
        E = torch.zeros_like(D)
        E[torch.arange(batch, device=D.device), n - 1, m - 1] = grad
        for i, j in reversed(list(_diagonals(N, M, D.device))):
            for k, h in ((i + 1, j + 1), (i + 1, j), (i, j + 1)):
                E[:, i, j] += E[:, k, h] * torch.exp((R[:, k, h] - D[:, k, h] - R[:, i, j]) / gamma)
        return E[:, :N, :M]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        raise RuntimeError("soft_dtw is differentiable once")


def _clouds(
    who: str, a: Tensor, b: Tensor, batch_a: Tensor | None, batch_b: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """Indices of the points of each cloud, on both sides."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise ValueError(f"{who}: a and b must be (N, D) and (M, D), not empty, got {tuple(a.shape)}, {tuple(b.shape)}")
    if batch_a is None and batch_b is None:
        return [(torch.arange(len(a), device=a.device), torch.arange(len(b), device=b.device))]
    if batch_a is None or batch_b is None or batch_a.shape != a.shape[:1] or batch_b.shape != b.shape[:1]:
        raise ValueError(f"{who}: batch_a and batch_b must be ({len(a)},) and ({len(b)},), or both None")
    (ids, first), (others, second) = _groups(batch_a), _groups(batch_b)
    if not torch.equal(ids, others):
        alone = sorted(set(ids.tolist()) ^ set(others.tolist()))
        raise ValueError(f"{who}: every cloud needs points on both sides, one side only: {alone[:5]}")
    return list(zip(first, second, strict=True))


def _groups(batch: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    order = torch.argsort(batch, stable=True)
    ids, counts = torch.unique_consecutive(batch[order], return_counts=True)
    return ids, order.split(counts.tolist())


@dataclass(frozen=True)
class HitLoss:
    """A loss between simulated and measured hits, for ``fit(method="adam")`` and for comparison with the field.

    Hits become points (time / `time_scale`, y / `length_scale`, z / `length_scale`, charge / `charge_scale`), one cloud
    per event and anode. Chamfer sees all four; soft-DTW compares sequences in the order of time of (time, charge);
    MMD sees the first three with the charge as weight. Clouds on one side only have no distance: each adds `missing`.

    Args:
        kind: Which of the three.
        time_scale: [us]
        length_scale: [cm]
        charge_scale: [e]
        gamma: Width of the soft minimum of soft-DTW.
        bandwidths: Widths of the kernels of the MMD.
        charge_weight: Weight of the total charge beside the MMD.
        missing: What a cloud on one side only adds.

    Calling it with simulated and measured hits returns the sum over clouds, a tensor of one number. Differentiable
    once with respect to the simulated times and charges. Deterministic on the CPU.

    Example:
        >>> HitLoss("chamfer", time_scale=2.0).time_scale
        2.0
    """

    kind: Literal["chamfer", "soft_dtw", "mmd_charge"] = "chamfer"
    time_scale: float = 1.0
    length_scale: float = 0.4434
    charge_scale: float = 5000.0
    gamma: float = 0.1
    bandwidths: tuple[float, ...] = (1.0, 4.0, 16.0, 64.0)
    charge_weight: float = 1.0
    missing: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {self.kind!r}")
        for name in ("time_scale", "length_scale", "charge_scale", "gamma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def __call__(self, simulated: Hits, measured: Hits) -> Tensor:
        ours, theirs, alone = _common_clouds(simulated, measured)
        loss = simulated.charge.sum() * 0 + self.missing * alone
        return loss + _KINDS[self.kind](self, ours, theirs).sum() if len(ours.cloud) else loss

    def points(self, cloud: _Cloud) -> Tensor:
        """(H, 4): time, y, z and charge in the units of the scales."""
        scaled = (cloud.time / self.time_scale, cloud.y / self.length_scale, cloud.z / self.length_scale)
        return torch.stack((*scaled, cloud.charge / self.charge_scale), 1)


@dataclass(frozen=True)
class _Cloud:
    cloud: Tensor
    time: Tensor
    y: Tensor
    z: Tensor
    charge: Tensor


def _common_clouds(simulated: Hits, measured: Hits) -> tuple[_Cloud, _Cloud, int]:
    """Hits of the (event, tpc) present on both sides, numbered; and how many stand on one side only."""
    pairs = torch.cat([torch.stack((h.event, h.tpc), 1) for h in (simulated, measured)])
    ids, number = torch.unique(pairs, dim=0, return_inverse=True)
    sides = number.split([len(simulated.event), len(measured.event)])
    present = [torch.bincount(side, minlength=len(ids)) > 0 for side in sides]
    both = present[0] & present[1]

    def cloud(side: Tensor, *columns: Tensor) -> _Cloud:
        keep = both[side]
        return _Cloud(side[keep], *(column[keep].to(simulated.charge.dtype) for column in columns))

    ours, theirs = ((h.time, h.y, h.z, h.charge) for h in (simulated, measured))
    alone = int((present[0] ^ present[1]).sum())
    return cloud(sides[0], *ours), cloud(sides[1], *(column.detach() for column in theirs)), alone


def _chamfer_of(loss: HitLoss, a: _Cloud, b: _Cloud) -> Tensor:
    return chamfer(loss.points(a), loss.points(b), a.cloud, b.cloud)


def _mmd_of(loss: HitLoss, a: _Cloud, b: _Cloud) -> Tensor:
    options: dict[str, Any] = {"bandwidths": loss.bandwidths, "charge_weight": loss.charge_weight}
    x, y = loss.points(a)[:, :3], loss.points(b)[:, :3]
    return mmd_charge(x, y, a.charge, b.charge, a.cloud, b.cloud, **options)


def _soft_dtw_of(loss: HitLoss, a: _Cloud, b: _Cloud) -> Tensor:
    """Sequences in the order of time: the order itself has no derivative."""
    sides = [loss.points(side)[:, [0, 3]] for side in (a, b)]
    losses = []
    for indices in zip(_groups(a.cloud)[1], _groups(b.cloud)[1], strict=True):
        x, y = (
            points[index[torch.argsort(points[index, 0].detach(), stable=True)]]
            for points, index in zip(sides, indices, strict=True)
        )
        losses.append(soft_dtw(x[None], y[None], loss.gamma))
    return torch.cat(losses)


_KINDS: dict[str, Callable[[HitLoss, _Cloud, _Cloud], Tensor]] = {
    "chamfer": _chamfer_of,
    "soft_dtw": _soft_dtw_of,
    "mmd_charge": _mmd_of,
}
