r"""Continuous flows of scalar fields that keep every symmetry of the lattice.

.. math:: \dot\phi_x = g_x(\phi, t) = \sum_{y, a, f} W_{x-y, a, f}\, K_a(t)\, s_f(\phi_y), \qquad
    \frac{d \ln q}{dt} = -\sum_x \frac{\partial g_x}{\partial \phi_x}
    = -\sum_{x, a, f} W_{0, a, f}\, K_a(t)\, s_f'(\phi_x)

with :math:`s_0 = \phi` and :math:`s_f = \sin \omega_f \phi` (M. Gerdes, P. de Haan, C. Rainone, R. Bondesan, M. C. N.
Cheng, arXiv:2207.00283). W has one number for each orbit of x - y under the reflections of the axes and the exchanges
of axes of one extent: translations, the point group and :math:`\phi \to -\phi` commute with the flow.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hepops.flows.continuous import Continuous, Field
from hepops.flows.recompute import Step, run_inverting
from hepops.flows.sums import event_sum

from ..geometry import checked_shape

Recompute = Literal["inputs", "inverse"] | None

LOWEST = 0.4  # first frequency: sines that turn often over the base's width make the equations stiff
DENSE = 144  # sites up to which the convolution is a product with a V x V matrix; beyond, it goes by Fourier transforms


def orbits(shape: Sequence[int]) -> Tensor:
    """The number of the orbit of every offset, int64, of the lattice's shape; offset 0 is orbit 0.

    Offsets are one orbit where reflections, and exchanges of axes of equal extent, lead from one to the other.
    """
    names: dict[tuple[int, ...], int] = {}
    result = torch.empty(tuple(shape), dtype=torch.int64)
    for offset in torch.cartesian_prod(*[torch.arange(n) for n in shape]).view(-1, len(shape)).tolist():
        short = [min(d, n - d) for d, n in zip(offset, shape, strict=True)]
        ordered: list[int] = []
        for extent in sorted(set(shape)):
            ordered += sorted(d for d, n in zip(short, shape, strict=True) if n == extent)
        result[tuple(offset)] = names.setdefault(tuple(ordered), len(names))
    return result


def lagrange(t: Tensor, nodes: Tensor) -> Tensor:
    """The polynomials that are 1 at one node and 0 at the others, at time t: shape (nodes)."""
    apart = nodes[:, None] - nodes
    same = torch.eye(len(nodes), dtype=torch.bool, device=nodes.device)
    ratio = torch.where(same, 1.0, (t - nodes) / torch.where(same, 1.0, apart))
    return ratio.prod(-1)


class SineField(Field):
    r"""The vector field g of :class:`ContinuousScalar`, with its divergence in closed form.

    The kernel is as wide as the lattice, and a weight is that of its orbit, shared by the sites in it. :math:`K_a` are
    the Lagrange polynomials of the Chebyshev nodes of [0, 1]: g is smooth in t, so that an integrator has its order.

    Args:
        shape: (L_1, ..., L_D).
        sines: How many; their frequencies :math:`\omega` are learned, and begin at 0.4, 0.8, ....
        nodes: Polynomials of t have this many coefficients.
        width: At the start :math:`\dot\phi = \phi \ln` width, which multiplies fields by that from t = 0 to 1.
        dtype: Of the parameters.

    Differentiable as often as wanted; deterministic.

    Raises:
        ValueError: a shape that is none, sines, nodes or width out of range.

    Example:
        >>> field = hepops.lattice.flows.SineField((8, 8))
        >>> sum(p.numel() for p in field.parameters())
        683
    """

    orbit: Tensor
    pairs: Tensor
    scale: Tensor
    node: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        sines: int = 8,
        nodes: int = 5,
        width: float = 1.0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.shape = checked_shape("SineField", shape)
        if not 0 < width < math.inf:
            raise ValueError(f"SineField: width must be positive and finite, got {width}")
        if sines < 0 or nodes < 1:
            raise ValueError(f"SineField: sines must not be negative and nodes at least 1, got {sines} and {nodes}")
        orbit = orbits(self.shape)
        count = int(orbit.max()) + 1
        self.frequencies = nn.Parameter(LOWEST * torch.arange(1, sines + 1, dtype=dtype))
        weight = torch.zeros(nodes, sines + 1, count, dtype=dtype)
        weight[:, 0, 0] = math.log(width)
        self.weight = nn.Parameter(weight)
        at = (1 - torch.cos(math.pi * (torch.arange(nodes) + 0.5) / nodes)) / 2
        self.register_buffer("orbit", orbit.flatten(), persistent=False)
        self.register_buffer("scale", orbit.flatten().bincount().to(dtype) ** -1.0, persistent=False)
        self.register_buffer("node", at.to(dtype), persistent=False)
        self.dense = self.shape.numel() <= DENSE
        if self.dense:
            self.register_buffer("pairs", self._pairs(orbit, count).to(dtype), persistent=False)

    def _pairs(self, orbit: Tensor, count: int) -> Tensor:
        """1 where sites y and x are apart by an offset of the orbit, shape (orbits, V V)."""
        sites = torch.cartesian_prod(*[torch.arange(n) for n in self.shape]).view(-1, len(self.shape))
        offset = torch.remainder(sites - sites[:, None], torch.tensor(self.shape))
        names = orbit[tuple(offset.unbind(-1))]
        return nn.functional.one_hot(names.flatten(), count).T

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.with_divergence(t, x)[0]

    def with_divergence(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kernel = self._kernel(t)
        own = kernel[:, 0]
        sines, slope = _Sines.apply(x, self.frequencies, own[1:])
        return self._convolve(x, sines, kernel), slope + own[0].double() * x.shape[-1]

    def _kernel(self, t: Tensor) -> Tensor:
        """The weight of every function and orbit at a time, shape (1 + sines, orbits)."""
        return torch.tensordot(lagrange(t.to(self.node.dtype), self.node), self.weight * self.scale, 1)

    def _convolve(self, x: Tensor, sines: Tensor, kernel: Tensor) -> Tensor:
        V = x.shape[-1]
        if self.dense:
            M = (kernel @ self.pairs).view(-1, V, V)
            return x @ M[0] + sines.flatten(-2) @ M[1:].reshape(-1, V)
        D = len(self.shape)
        axes = tuple(range(-D, 0))
        functions = torch.cat([x[..., None, :], sines], -2).unflatten(-1, self.shape)
        # even under reflections: the spectrum is real
        spectrum = torch.fft.rfftn(kernel[:, self.orbit].unflatten(-1, self.shape), dim=axes).real
        modes = (torch.fft.rfftn(functions, dim=axes) * spectrum).sum(-1 - D)
        return torch.fft.irfftn(modes, s=self.shape, dim=axes).flatten(-D)


class _Sines(torch.autograd.Function):
    r""":math:`\sin \omega_f x_i`, shape (..., F, V), and :math:`\sum_{f i} c_f \omega_f \cos \omega_f x_i`, float64.

    Sines and cosines are each other's slopes: they are computed once for both directions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, frequencies: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        angle = x[..., None, :] * frequencies[:, None]
        sine, cosine = angle.sin(), angle.cos()
        ctx.save_for_backward(x, frequencies, c, sine, cosine)
        return sine, event_sum((c * frequencies) @ cosine, 1)

    @staticmethod
    def backward(ctx: Any, grad_sine: Tensor, grad_slope: Tensor) -> tuple[Tensor, ...]:
        x, frequencies, c, sine, cosine = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives: as functions of x and the frequencies
            angle = x[..., None, :] * frequencies[:, None]
            sine, cosine = angle.sin(), angle.cos()
        g = grad_slope.to(x.dtype)[..., None]
        scale = c * frequencies
        # of the angle
        grad = grad_sine * cosine - (g * scale)[..., None] * sine
        sums = (g * cosine.sum(-1)).flatten(0, -2).sum(0)
        grad_frequencies = (grad * x[..., None, :]).flatten(0, -3).sum((0, -1)) + c * sums
        return frequencies @ grad, grad_frequencies, frequencies * sums


class ContinuousScalar(Continuous):
    r"""A scalar field that follows :class:`SineField` from t = 0 (the base) to 1 (the data), by steps of the
    fourth-order Runge-Kutta rule.

    Args:
        shape: (L_1, ..., L_D). Fields have shape (*batch, L_1, ..., L_D).
        sines, nodes, width: Of the field.
        steps: Of the integrator. The map and its log-determinant are right to :math:`O(\mathrm{steps}^{-4})`, and the
            inverse comes back to within that, not to rounding.
        recompute: What is kept for the backward. None: all. "inputs": one field for each step. "inverse": the last
            field alone, from which the steps are undone one by one: memory is constant in steps, and gradients are
            those at points that are :math:`O(\mathrm{steps}^{-4})` off.
        dtype: Of the parameters; fields must have it.

    Differentiable in fields and parameters, as often as wanted but for "inverse". Log-determinants are float64.
    Deterministic.

    Raises:
        ValueError: a shape that is none, steps below 1, or another `recompute`.

    References:
        | M. Gerdes, P. de Haan, C. Rainone, R. Bondesan, M. C. N. Cheng, SciPost Phys. 15 (2023) 238, arXiv:2207.00283

    Example:
        >>> layer = hepops.lattice.flows.ContinuousScalar((4, 4))
        >>> y, logdet = layer(torch.ones(2, 4, 4, dtype=torch.float64))
        >>> y.shape, logdet
        (torch.Size([2, 4, 4]), tensor([0., 0.], dtype=torch.float64, grad_fn=...))
    """

    def __init__(
        self,
        shape: Sequence[int],
        sines: int = 8,
        nodes: int = 5,
        width: float = 1.0,
        steps: int = 8,
        recompute: Recompute = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if recompute not in (None, "inputs", "inverse"):
            raise ValueError(f'ContinuousScalar: recompute must be None, "inputs" or "inverse", got {recompute!r}')
        field = SineField(shape, sines, nodes, width, dtype)
        super().__init__(field, steps=steps, recompute=recompute == "inputs")
        self.by_inversion = recompute == "inverse"
        self.event_shape, self.event_dim, self.context_size = field.shape, len(field.shape), 0

    def _follow(self, x: Tensor, context: Tensor | None, start: float, end: float) -> tuple[Tensor, Tensor]:
        y, logdet = super()._follow(x.flatten(-self.event_dim), context, start, end)
        return y.view(x.shape), logdet

    def _integrate(self, x: Tensor, context: Tensor | None, start: float, end: float) -> tuple[Tensor, Tensor]:
        if not self.by_inversion or not torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            return super()._integrate(x, context, start, end)
        times = [start + i * (end - start) / self.steps for i in range(self.steps + 1)]
        layers = [Continuous(self.field, steps=1, times=pair) for pair in pairwise(times)]
        return run_inverting([Step(layer, False, 0) for layer in layers], x, context, self.steps)
