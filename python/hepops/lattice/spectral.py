"""The spectral coupling: a bijection of SU(2) or SU(3) that moves eigenvalues and keeps eigenvectors."""

import math

import torch
from torch import Tensor

from hepops.core.ops import call
from hepops.flows.spline import rational_quadratic_spline_packed

from .group._operator import check_matrices, register
from .group.eigen import alcove


def spectral(W: Tensor, raw: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""A loop's eigenphases through splines: :math:`W' = V\, \mathrm{diag}(e^{i\theta'_k})\, V^\dagger`.

    The phases :math:`\theta_1 \le \theta_2 \le \theta_3 \le \theta_1 + 2\pi` of :math:`W = V\,
    \mathrm{diag}(e^{i\theta_k})\, V^\dagger`, with sum 0, have the gaps :math:`s_k = (\theta_{k+1} - \theta_k) / 2\pi`,
    :math:`s_1 + s_2 + s_3 = 1`, and the box coordinates a and b, each of which has a spline of [0, 1]:

    .. math::
        a &= s_1, \quad b = \frac{s_2}{1 - s_1}, \qquad a' = f_a(a), \quad b' = f_b(b) \\
        \ln J &= \ln f_a'(a) + \ln f_b'(b) + \ln\frac{1 - a'}{1 - a}
            + 2 \sum_{k=1}^3 \ln \frac{\sin \pi s'_k}{\sin \pi s_k}

    For SU(2), with phases :math:`\pm\theta`: :math:`a = \theta / \pi` and :math:`\ln J = \ln f_a'(a) + 2 \ln(\sin
    \theta' / \sin\theta)`.

    :math:`\ln J` is the logarithm of the Jacobian of :math:`W \to W'` in the Haar measure, and of a link U that stands
    in W once: :math:`U' = W' W^\dagger U`. Since W' commutes with W, :math:`(\Omega W \Omega^\dagger)' = \Omega W'
    \Omega^\dagger`.

    Args:
        W: Loops, shape (..., N, N), N = 2 or 3, complex64 or complex128, unitary with determinant 1; W' where
            `inverse`.
        raw: The splines, shape (..., N - 1, 3 K + 1): for a, then for b, K widths, K heights and K + 1 slopes, as
            :func:`hepops.flows.rational_quadratic_spline` takes them with `tails=None` (nflows' parametrisation).
            float32 or float64; leading dimensions are broadcast with those of `W`.
        inverse: Whether to give W from W', and minus its :math:`\ln J`.

    Returns:
        (W', ln J), of shapes (..., N, N) in the dtype of `W`, and (...) in float64. All is computed in double.

    Differentiable any number of times with respect to `W` and `raw`: once by a fused kernel that computes all anew from
    these, further by torch's operators (which want eigenvalues that differ). The gradient of `W` is along the group:
    :math:`i E W`, E hermitian and traceless. Nothing is divided by a difference of eigenvalues; where two of them meet
    W' is continuous and has one-sided derivatives, and where gaps are below 1e-14 the part of :math:`\ln J`'s gradient
    that grows as one over a gap is left out. Deterministic, loop by loop. A NaN makes NaN of its loop.

    W is taken as unitary: of a matrix that is off by :math:`\delta` (:func:`hepops.lattice.group.project` brings it
    back) the results are off by as much.

    Raises:
        TypeError: `W` is not complex, or `raw` not real.
        ValueError: other trailing dimensions of `W` or `raw`.

    References:
        | D. Boyda et al., arXiv:2008.05456

    Example:
        >>> W = hepops.flows.Haar("SU3", dtype=torch.float64).draw(5, seed=1)
        >>> image, logdet = hepops.lattice.spectral(W, torch.randn(5, 2, 25))
        >>> image.shape, logdet.shape
        (torch.Size([5, 3, 3]), torch.Size([5]))
    """
    result: tuple[Tensor, Tensor] = call(torch.ops.hepops.lattice_spectral.default, *_checked(W, raw), inverse)
    return result


def _checked(W: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the same leading dimensions."""
    n = check_matrices("spectral", "W", W)
    if n > 3:
        raise ValueError(f"spectral: W must have shape (..., N, N), N = 2 or 3, got {tuple(W.shape)}")
    if not isinstance(raw, Tensor) or not raw.is_floating_point():
        got = raw.dtype if isinstance(raw, Tensor) else type(raw).__name__
        raise TypeError(f"spectral: raw must be float32 or float64, got {got}")
    if raw.dim() < 2 or raw.shape[-2] != n - 1 or raw.shape[-1] % 3 != 1 or raw.shape[-1] < 4:
        raise ValueError(
            f"spectral: raw must have shape (..., N - 1, 3 K + 1) with N - 1 = {n - 1}, got {tuple(raw.shape)}"
        )
    try:
        shape = torch.broadcast_shapes(W.shape[:-2], raw.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"spectral: leading dimensions of raw must go with those of W, got {tuple(raw.shape)} and {tuple(W.shape)}"
        ) from None
    raw = raw.to(W.real.dtype)
    return W.expand(*shape, n, n), raw.expand(*shape, *raw.shape[-2:])


def _gaps(phases: Tensor) -> Tensor:
    """s_k of phases in the alcove, shape (..., N)."""
    return torch.diff(phases, append=phases[..., :1] + 2 * math.pi) / (2 * math.pi)


def formula(W: Tensor, raw: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """The same in torch's operators, differentiable where the eigenvalues differ."""
    n, bins = W.shape[-1], (raw.shape[-1] - 1) // 3
    values, vectors = torch.linalg.eig(W)
    phases, order = alcove(values.angle())
    vectors = vectors.gather(-1, order[..., None, :].expand_as(vectors))
    s = _gaps(phases)
    if n == 2:
        box = s[..., :1]
    else:
        box = torch.stack([s[..., 0], s[..., 1] / (1 - s[..., 0])], -1)
    moved, slopes = rational_quadratic_spline_packed(box, raw, bins=bins, tails=None, inverse=inverse)
    a = moved[..., 0]
    logdet = slopes.sum(-1)
    if n == 2:
        there = torch.stack([-math.pi * a, math.pi * a], -1)
        logdet = logdet + 2 * (torch.sin(math.pi * a) / torch.sin(math.pi * s[..., 0])).log()
    else:
        b = moved[..., 1]
        t = torch.stack([a, (1 - a) * b, (1 - a) * (1 - b)], -1)
        first = -2 * math.pi / 3 * (2 * t[..., 0] + t[..., 1])
        there = torch.stack([first, first + 2 * math.pi * t[..., 0], first + 2 * math.pi * (t[..., 0] + t[..., 1])], -1)
        logdet = logdet + ((1 - a) / (1 - box[..., 0])).log()
        logdet = logdet + 2 * (torch.sin(math.pi * t) / torch.sin(math.pi * s)).log().sum(-1)
    image = (vectors * torch.polar(torch.ones_like(there), there)[..., None, :]) @ torch.linalg.inv(vectors)
    return image, logdet.double()


def _fake(W: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    return W.new_empty(W.shape), W.new_empty(W.shape[:-2], dtype=torch.float64)


register("lattice_spectral", formula, _fake, tensors=2, on_group=True)
