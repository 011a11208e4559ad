"""What observables ask of a field before they work."""

import torch
from torch import Tensor

LINKS = (torch.complex64, torch.complex128)


def checked_links(who: str, U: Tensor, least: int = 2, name: str = "U") -> int:
    """D of links (B, D, L_1, ..., L_D, N, N).

    Raises:
        TypeError: not complex64 or complex128.
        ValueError: another shape.
    """
    if not isinstance(U, Tensor) or U.dtype not in LINKS:
        got = U.dtype if isinstance(U, Tensor) else type(U).__name__
        raise TypeError(f"{who}: {name} must be complex64 or complex128, for float32 or float64, got {got}")
    dims = U.dim() - 4
    if not least <= dims <= 4 or U.shape[1] != dims or U.shape[-1] != U.shape[-2] or U.shape[-1] < 1:
        raise ValueError(
            f"{who}: {name} must have shape (B, D, L_1, ..., L_D, N, N), D = {least} ... 4, got {tuple(U.shape)}"
        )
    return dims


def check_unitary(who: str, U: Tensor) -> None:
    r"""Refuse links that are far from unitary. On a GPU nothing is read back.

    Raises:
        ValueError: an entry of :math:`U U^\dagger - 1` beyond 1e-3 (complex64) or 1e-6 (complex128, which may
            have come from a file of single precision).
    """
    if U.device.type != "cpu" or U.numel() == 0 or torch.compiler.is_compiling():
        return
    with torch.no_grad():
        one = torch.eye(U.shape[-1], dtype=U.dtype)
        worst = (U @ U.mH - one).abs().amax().item()
    if not worst <= (1e-3 if U.dtype == torch.complex64 else 1e-6):
        raise ValueError(f"{who}: the links are not unitary: U U^+ differs from 1 by {worst:.3g}; project them first")


def checked_angles(who: str, theta: Tensor, least: int = 2) -> int:
    """D of angles (B, D, L_1, ..., L_D).

    Raises:
        TypeError: not float32 or float64.
        ValueError: another shape.
    """
    if not isinstance(theta, Tensor) or theta.dtype not in (torch.float32, torch.float64):
        got = theta.dtype if isinstance(theta, Tensor) else type(theta).__name__
        raise TypeError(f"{who}: angles must be float32 or float64, got {got}")
    dims = theta.dim() - 2
    if not least <= dims <= 4 or theta.shape[1] != dims:
        raise ValueError(
            f"{who}: angles must have shape (B, D, L_1, ..., L_D), D = {least} ... 4, got {tuple(theta.shape)}"
        )
    return dims


def checked_scalar(who: str, phi: Tensor) -> int:
    """D of a scalar field (B, L_1, ..., L_D).

    Raises:
        TypeError: not float32 or float64.
        ValueError: another shape, an empty batch.
    """
    if not isinstance(phi, Tensor) or phi.dtype not in (torch.float32, torch.float64):
        got = phi.dtype if isinstance(phi, Tensor) else type(phi).__name__
        raise TypeError(f"{who}: phi must be float32 or float64, got {got}")
    if not 2 <= phi.dim() <= 5 or phi.shape[0] == 0:
        raise ValueError(f"{who}: phi must have shape (B, L_1, ..., L_D), D = 1 ... 4, B >= 1, got {tuple(phi.shape)}")
    return phi.dim() - 1


def checked_directions(who: str, directions: tuple[int, ...], dims: int) -> tuple[int, ...]:
    """Directions, each below D.

    Raises:
        ValueError: another.
    """
    for mu in directions:
        if not isinstance(mu, int) or not 0 <= mu < dims:
            raise ValueError(f"{who}: directions must be integers from 0 to {dims - 1}, got {mu!r}")
    return directions


def as_links(U: Tensor) -> Tensor:
    """Angles of U(1) as 1 x 1 matrices; links as they are."""
    if isinstance(U, Tensor) and U.is_floating_point():
        checked_angles("links", U)
        return torch.polar(torch.ones_like(U), U)[..., None, None]
    return U
