"""The exponential map."""

import torch
from torch import Tensor

from hepops.core.ops import call

from ._operator import check_matrices, register
from .algebra import traceless_antihermitian


def exp(X: Tensor) -> Tensor:
    r"""The exponential map of su(N) to SU(N): :math:`e^X`.

    By Cayley and Hamilton, with :math:`X = iQ`, :math:`c_1 = \frac12 \mathrm{tr}\,Q^2`, :math:`c_0 = \det Q`:

    .. math::
        \mathrm{SU(2):}\quad e^X &= \cos\sqrt{c_1} + \frac{\sin\sqrt{c_1}}{\sqrt{c_1}}\, X \\
        \mathrm{SU(3):}\quad e^X &= f_0 + f_1 Q + f_2 Q^2

    The :math:`f_j` are entire functions of :math:`c_0, c_1` and are summed as series (after halvings of X that bring
    its eigenvalues below 2), so that neither the result nor its gradient is singular anywhere. N above 3:
    `torch.linalg.matrix_exp`.

    Args:
        X: Shape (..., N, N), complex64 or complex128. It is taken to su(N) first: the traceless anti-hermitian part
            of a matrix is used, the rest has no influence and no gradient.

    Returns:
        e^X, shape and dtype of `X`. complex64 is computed in double and rounded once.

    Differentiable any number of times: once by a closed form, further by torch's operators. Deterministic, matrix by
    matrix. A NaN in that part makes NaN of its matrix.

    Raises:
        TypeError: `X` is not complex.
        ValueError: `X` is not (..., N, N).

    References:
        | C. Morningstar, M. Peardon, hep-lat/0311018, section III

    Example:
        >>> X = hepops.lattice.group.from_coordinates(torch.tensor([0.0, 0.0, torch.pi]), 2)
        >>> hepops.lattice.group.exp(X)
        tensor([[-4.3711e-08+1.j,  0.0000e+00+0.j],
                [ 0.0000e+00+0.j, -4.3711e-08-1.j]])
    """
    n = check_matrices("exp", "X", X)
    result: Tensor = call(torch.ops.hepops._lattice_exp.default, X) if n < 4 else formula(X)
    return result


def formula(X: Tensor) -> Tensor:
    """The same in torch's operators, for any N."""
    return torch.linalg.matrix_exp(traceless_antihermitian(X))


register("_lattice_exp", formula, torch.empty_like)
