"""The Haar measure: densities of eigenphases, random elements."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hepops.flows.bases import Haar


def haar_log_density(phases: Tensor) -> Tensor:
    r"""The Haar density of eigenphases: :math:`\ln \prod_{i<j} 4 \sin^2 \frac{\theta_i - \theta_j}{2}`.

    Not normalised: over the alcove, in the coordinates :math:`\theta_1 \ldots \theta_{N-1}`, the integral of the
    density is :math:`(2\pi)^{N-1}`.

    Args:
        phases: Shape (..., N), real.

    Returns:
        Shape (...), dtype of `phases`; -inf where two phases are equal.

    Differentiable any number of times. Deterministic.

    Raises:
        ValueError: less than two phases.

    References:
        | H. Weyl, The Classical Groups, Princeton (1939), chapter VII.4

    Example:
        >>> haar_log_density(torch.tensor([-1.0, 1.0]))
        tensor(1.0411)
    """
    n = phases.shape[-1] if phases.dim() else 0
    if n < 2:
        raise ValueError(
            f"haar_log_density: phases must have shape (..., N), N of 2 or more, got {tuple(phases.shape)}"
        )
    i, j = torch.triu_indices(n, n, 1, device=phases.device)
    halves = (phases[..., i] - phases[..., j]) / 2
    return 2 * (2 * halves.sin().abs()).log().sum(-1)


def random(n: int, shape: int | Sequence[int], *, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Elements of SU(n), uniform in the Haar measure (:class:`hepops.flows.Haar`).

    Args:
        n: N.
        shape: How many: the result is (*shape, N, N).
        seed: Of the counter-based generator: the same numbers on any device.
        dtype: float32 or float64, for complex64 and complex128.

    Example:
        >>> random(2, (4, 5), seed=1).shape
        torch.Size([4, 5, 2, 2])
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return Haar(f"SU{n}", shape, dtype).draw(1, seed=seed)[0]
