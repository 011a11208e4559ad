"""Products along paths."""

from torch import Tensor

from ._operator import check_matrices


def chain(*factors: Tensor) -> Tensor:
    r"""The product of SU(N) matrices from left to right, :math:`A B \cdots Z`.

    Args:
        factors: One or more, shapes (..., N, N), complex, broadcast together; a link that is walked backwards is given
            as its :func:`adjoint`.

    Returns:
        The product, shape (..., N, N).

    Differentiable any number of times.

    Raises:
        TypeError: a factor is not complex.
        ValueError: no factor, or one of another shape.

    Example:
        >>> U = hepops.lattice.group.random(3, 4, seed=1)
        >>> chain(U[0], U[1], adjoint(U[2]), adjoint(U[3])).shape
        torch.Size([3, 3])
    """
    if not factors:
        raise ValueError("chain: factors must be one or more matrices, got none")
    product = factors[0]
    for factor in factors:
        n = check_matrices("chain", "factors", factor)
        if n != product.shape[-1]:
            raise ValueError(f"chain: factors must have shape (..., N, N) of one N, got {tuple(factor.shape)}")
    for factor in factors[1:]:
        product = product @ factor
    return product


def adjoint(U: Tensor) -> Tensor:
    r""":math:`U^\dagger`, the inverse of a unitary matrix: a view, shape (..., N, N).

    Raises:
        TypeError: `U` is not complex.
        ValueError: `U` is not (..., N, N).

    Example:
        >>> U = hepops.lattice.group.random(2, 1, seed=1)
        >>> (U @ adjoint(U))[0].real.round()
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    check_matrices("adjoint", "U", U)
    return U.mH
