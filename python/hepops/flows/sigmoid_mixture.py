"""Mixtures of sigmoids: bijections of the real line."""

from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ._operator import apply, broadcast, register

FLOOR = 1e-3  # least slope of a component: csrc/flows/sigmoid_mixture.h


def sigmoid_mixture(x: Tensor, raw: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""The logit of a mixture of sigmoids, a bijection of the whole real line.

    .. math:: y = \mathrm{logit} \sum_k w_k\, \sigma(a_k x + b_k), \qquad
        a_k = \ln(1 + e^{\alpha_k}) + 10^{-3}, \quad w = \mathrm{softmax}(\omega)

    Args:
        x: Shape (...), float32 or float64; y where `inverse`.
        raw: :math:`\alpha_1 \ldots \alpha_K, b_1 \ldots b_K, \omega_1 \ldots \omega_K`, shape (..., 3 K) of any
            strides, float64 for a float64 `x`; float32, bfloat16 or float16 for a float32 one. Leading dimensions are
            broadcast with those of `x`. K is at most 48.
        inverse: Whether to give x from y, and :math:`\ln dx/dy`: by Newton's method with a bracket, at most 100
            evaluations, to rounding.

    Returns:
        (y, ln dy/dx), each of the shape and dtype of `x`. Computed in double, rounded once. Both tails are right
        however far: y and the slope follow the components that decide there, with nothing that underflows.

    Differentiable any number of times, with respect to `x` and `raw`: the second derivatives are made of torch's
    operators. Deterministic, element by element. NaN gives NaN.

    Raises:
        TypeError: `x` is neither float32 nor float64, or `raw` does not go with it.
        ValueError: another shape of `raw`.

    References:
        | J. Ho et al., Flow++, arXiv:1902.00275, section 3.1
        | C.-W. Huang et al., Neural autoregressive flows, arXiv:1804.00779, section 3.1

    Example:
        >>> y, logdet = sigmoid_mixture(torch.tensor([-2.0, 30.0]), torch.tensor([0.5, 2.0, -1.0, 1.0, 0.0, 0.0]))
        >>> sigmoid_mixture(y, torch.tensor([0.5, 2.0, -1.0, 1.0, 0.0, 0.0]), inverse=True)[0]
        tensor([-2., 30.])
    """
    return apply("flows_sigmoid_mixture", *broadcast(x, raw), inverse)


def formula(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """The same in torch's operators."""
    alpha, b, omega = raw.chunk(3, -1)
    a, log_w = softplus(alpha, threshold=40) + FLOOR, omega.log_softmax(-1)
    z = a * x[..., None] + b
    below, above = (log_w + logsigmoid(z)).logsumexp(-1), (log_w + logsigmoid(-z)).logsumexp(-1)
    return below - above, (log_w + a.log() + logsigmoid(z) + logsigmoid(-z)).logsumexp(-1) - below - above


register("flows_sigmoid_mixture", formula)
