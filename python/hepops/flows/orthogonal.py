"""Orthogonal mixing of features: log-determinant 0, and the inverse is the transpose."""

from typing import Literal

import torch
from torch import Tensor, nn

from .mixing import _check_features, _times
from .transform import Transform


class _Orthogonal(Transform):
    """y = Q x with a matrix that the subclass makes."""

    def __init__(self, features: int) -> None:
        super().__init__()
        _check_features(type(self).__name__, features)
        self.event_shape, self.context_size = torch.Size([features]), 0

    def matrix(self) -> Tensor:
        """Q, shape (D, D)."""
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        return _times(x, self.matrix()), self.no_volume(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, name="y")
        return _times(y, self.matrix().t()), self.no_volume(y)


class Householder(_Orthogonal):
    r"""A product of K reflections, :math:`Q = H_1 \cdots H_K`, :math:`H_k = 1 - 2 v_k v_k^T / |v_k|^2`.

    All at once by their compact form, :math:`Q = 1 - V^T S^{-1} V`, :math:`S = \mathrm{striu}(V V^T) + \frac{1}{2}
    \mathrm{diag}(V V^T)`: two products and a triangular solve instead of K steps. It begins at the identity (the
    vectors come in equal pairs), up to one reflection if K is odd.

    Args:
        features: D.
        reflections: K; D - 1 or D reach every orthogonal matrix of their determinant.

    Raises:
        ValueError: One of them is not positive.

    References:
        | J. M. Tomczak, M. Welling, arXiv:1611.09630
        | compact form: T. Joffrain et al., ACM Trans. Math. Softw. 32 (2006) 169, doi:10.1145/1141885.1141886

    Example:
        >>> mix = hepops.flows.Householder(3, reflections=2)
        >>> Q = mix.matrix()
        >>> torch.allclose(Q @ Q.T, torch.eye(3), atol=1e-6)
        True
    """

    def __init__(self, features: int, reflections: int = 2) -> None:
        super().__init__(features)
        if reflections < 1:
            raise ValueError(f"Householder: reflections must be at least 1, got {reflections}")
        units = torch.eye(features)[torch.arange(reflections) // 2 % features]
        self.vectors = nn.Parameter(units)

    def matrix(self) -> Tensor:
        V = self.vectors
        with torch.autocast(V.device.type, enabled=False):
            gram = V @ V.t()
            S = gram.triu(1) + 0.5 * gram.diagonal().diag_embed()
            solved = torch.linalg.solve_triangular(S, V, upper=True)
            return torch.eye(V.shape[1], dtype=V.dtype, device=V.device) - V.t() @ solved


class Orthogonal(_Orthogonal):
    r"""A rotation made from a skew matrix :math:`A - A^T`, which begins at the identity.

    .. math:: Q = e^{A - A^T} \quad \text{or} \quad Q = (1 - A + A^T)^{-1} (1 + A - A^T)

    The exponential reaches every rotation; Cayley's form is cheaper, and reaches those without an angle of pi.

    Args:
        features: D.
        form: "exp" or "cayley".

    Raises:
        ValueError: `features` is not positive, or `form` another.

    References:
        | M. Lezcano-Casado, D. Martínez-Rubio, ICML (2019), arXiv:1901.08428

    Example:
        >>> Q = hepops.flows.Orthogonal(3, form="cayley").matrix()
        >>> torch.allclose(Q, torch.eye(3))
        True
    """

    def __init__(self, features: int, form: Literal["exp", "cayley"] = "exp") -> None:
        super().__init__(features)
        if form not in ("exp", "cayley"):
            raise ValueError(f'Orthogonal: form must be "exp" or "cayley", got {form!r}')
        self.form = form
        self.generator = nn.Parameter(torch.zeros(features, features))

    def matrix(self) -> Tensor:
        with torch.autocast(self.generator.device.type, enabled=False):
            skew = self.generator - self.generator.t()
            if self.form == "exp":
                return torch.linalg.matrix_exp(skew)
            one = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
            return torch.linalg.solve(one - skew, one + skew)
