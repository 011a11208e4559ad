"""Exponential-map flows: a potential on the sphere, whose gradient says how far every point walks."""

import torch
from torch import Tensor, nn

from ..transform import Transform

STEPS = 30


class ExponentialMap(Transform):
    r"""Every point of :math:`S^d` walks along the gradient of a potential: :math:`y = \exp_x \nabla\phi(x)`.

    .. math::
        \phi(x) = \sum_k \frac{\alpha_k}{\beta_k} e^{\beta_k (x \cdot \mu_k - 1)}, \qquad
        y = x \cos|v| + \frac{v}{|v|} \sin|v|, \quad v = (1 - x x^T) \nabla \phi

    with :math:`\alpha_k > 0`, :math:`\sum_k \alpha_k < 1`, :math:`\beta_k > 0` and unit vectors :math:`\mu_k`: such
    maps are bijections (Sei). The log-determinant, with respect to the surface measure, is
    :math:`\tfrac12 \ln\det(E^T J^T J E)`, J the derivative in :math:`\mathbb{R}^{d+1}` and E a basis of the tangent
    space at x. Rotating all :math:`\mu_k` and x rotates y. There are no poles.

    The inverse has no closed form: Newton's iteration on the sphere, with its step halved while the residual grows,
    a fixed 30 times in double; its gradient is that of the implicit function.

    Args:
        d: Dimension of the sphere.
        components: K.
        seed: Of the directions in the beginning.

    Differentiable in x and the parameters; the inverse once. Deterministic.

    Raises:
        ValueError: d or components is below 1, or x has not d + 1 numbers.

    References:
        | T. Sei, A Jacobian inequality for gradient maps on the sphere and its application to directional statistics,
          arXiv:0906.0874
        | D. J. Rezende et al., Normalizing flows on tori and spheres, arXiv:2002.02428, 2.3.2

    Example:
        >>> layer = hepops.flows.ExponentialMap(2, components=3)
        >>> y, logdet = layer(torch.tensor([[0.6, 0.0, 0.8]]))
        >>> torch.allclose(layer.inverse(y)[0], torch.tensor([[0.6, 0.0, 0.8]]), atol=1e-6)
        True
    """

    def __init__(self, d: int, components: int = 8, seed: int = 0) -> None:
        super().__init__()
        if d < 1 or components < 1:
            raise ValueError(f"ExponentialMap: d and components must be at least 1, got {d} and {components}")
        self.d, self.event_shape, self.context_size = d, torch.Size([d + 1]), 0
        directions = torch.randn(components, d + 1, generator=torch.Generator().manual_seed(seed))
        self.directions = nn.Parameter(directions)
        self.logits = nn.Parameter(torch.zeros(components + 1))  # the last one is what is left of 1
        self.log_beta = nn.Parameter(torch.zeros(components))

    def _constrained(self) -> tuple[Tensor, Tensor, Tensor]:
        mu = self.directions.double()
        mu = mu / mu.norm(dim=-1, keepdim=True)
        return mu, self.logits.double().softmax(-1)[:-1], self.log_beta.double().exp()

    def _check(self, x: Tensor) -> Tensor:
        self.check(x)
        flat = x.double().reshape(-1, self.d + 1)
        return flat / flat.norm(dim=-1, keepdim=True)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, logdet, _ = _walk(self._check(x), *self._constrained())
        return y.reshape(x.shape).to(x.dtype), logdet.reshape(x.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        target, parameters = self._check(y), self._constrained()
        with torch.no_grad():
            x = _solve(target, *parameters)
        z, _, J = _walk(x, *parameters)
        # x is a root whatever the parameters are: one step of Newton's, with derivatives
        x = _normalised(x + torch.linalg.solve(J.detach(), target - z))
        logdet = -_walk(x, *parameters)[1]
        return x.reshape(y.shape).to(y.dtype), logdet.reshape(y.shape[:-1])


def _normalised(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def _walk(n: Tensor, mu: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, the log-determinant on the sphere, and J, for unit vectors n.

    With g the gradient of the potential, G its derivative, a = g.n, P = 1 - n n^T, L = |v|, s = sin L / L and
    q = (cos L - s) / L^2,

        v = g - a n,  V = (G - n n^T G - n g^T - a) P,  J = cos L P + s V + (q v - s n) v^T V + y n^T.

    J takes n to y, two unit vectors normal to the tangent spaces, and the tangent space at n to that at y: |det J| in
    the whole space is the determinant on the sphere.
    """
    w = alpha * torch.exp(beta * (n @ mu.T - 1))
    g, G = w @ mu, torch.einsum("nk,ki,kj->nij", w * beta, mu, mu)
    a = (g * n).sum(-1, keepdim=True)
    v = g - a * n
    square = v.square().sum(-1, keepdim=True)
    small = square < 1e-4
    length = torch.where(small, 1.0, square).sqrt()
    s = torch.where(small, 1 - square / 6 * (1 - square / 20 * (1 - square / 42)), length.sin() / length)
    c = torch.where(small, 1 - square / 2 * (1 - square / 12 * (1 - square / 30)), length.cos())
    q = torch.where(small, -1 / 3 + square / 30 * (1 - square / 28), (c - s) / length.square())
    y = c * n + s * v
    eye = torch.eye(n.shape[-1], dtype=n.dtype, device=n.device)
    P = eye - n[:, :, None] * n[:, None]
    V = (P @ G - n[:, :, None] * g[:, None] - a[..., None] * eye) @ P
    along = (q * v - s * n)[:, :, None] * (v[:, None] @ V)
    J = c[..., None] * P + s[..., None] * V + along + y[:, :, None] * n[:, None]
    return y, torch.linalg.slogdet(J)[1], J


def _solve(y: Tensor, mu: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """x of walk(x) = y; a step that leaves the residual larger is halved, for each point by itself."""
    x, step = y, torch.ones_like(y[:, :1])
    z, _, J = _walk(x, mu, alpha, beta)
    for _ in range(STEPS):
        trial = _normalised(x + step * torch.linalg.solve(J, y - z))
        z_trial, _, J_trial = _walk(trial, mu, alpha, beta)
        better = (y - z_trial).norm(dim=-1, keepdim=True) < (y - z).norm(dim=-1, keepdim=True)
        x, z = torch.where(better, trial, x), torch.where(better, z_trial, z)
        J = torch.where(better[..., None], J_trial, J)
        step = torch.where(better, torch.ones_like(step), step / 2)
    return x
