"""The transform that follows a vector field."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .. import random
from ..transform import Transform
from .divergence import exact_divergence, probed_divergence
from .field import TimeMLP
from .integrators import odeint, rk4_step

FIXED = ("euler", "midpoint", "heun2", "heun3", "explicit_adams", "implicit_adams")  # of torchdiffeq's methods

Divergence = Literal["exact", "rademacher", "gaussian"]


class Continuous(Transform):
    r"""x at time :math:`t_0` becomes y at :math:`t_1` along a vector field.

    .. math:: \frac{dx}{dt} = g(t, x, c), \qquad \ln|\det| = \int_{t_0}^{t_1} \nabla \cdot g\, dt

    The inverse follows the field from :math:`t_1` to :math:`t_0`. With "rk4" both take steps of the fourth-order rule
    and x comes back to :math:`O(h^4)`, not to rounding: take more steps where density and samples must agree closely.

    The default integrator is our own, of fixed steps: a result does not depend on the other events of the batch (an
    adaptive step is chosen for all of them together), its bits repeat, nothing is read back from a GPU, and it can go
    into a CUDA graph. Any other method is one of torchdiffeq's, adaptive ones among them: `pip install hepops[ode]`.

    Args:
        field: g: called as field(t, x, context); its `with_divergence`, where it has one that does not give None, takes
            the place of automatic differentiation.
        steps: Steps of "rk4" between the two times.
        times: :math:`(t_0, t_1)`, data first.
        method: "rk4", or a method of torchdiffeq ("dopri5", "dopri8", "bosh3", "midpoint", ...).
        divergence: "exact" (D passes backward), or Hutchinson's estimate by probes of "rademacher" signs or "gaussian"
            numbers, one set for the whole path of an event. The log-determinant is then unbiased, the density is not.
        probes: How many.
        seed: Of the probes: event i of a batch has the numbers of (seed, `first` + i, `step`), whatever the batch.
            `first` and `step` are attributes to be set between calls. Where None, every call takes a seed from torch's
            generator.
        recompute: Keep one state per step of "rk4" and evaluate the field again on the way back.
        tolerance: rtol and atol of torchdiffeq's adaptive methods.
        adjoint: Gradients of torchdiffeq's methods by its adjoint equation, of memory that does not grow with the steps
            (accurate to the tolerance), and not through the steps.

    Differentiable in x, context and parameters (second derivatives of g are needed for those of the log-determinant).
    The log-determinant is summed in float64. Deterministic.

    Raises:
        ValueError: steps or probes is below 1, times are equal, or divergence is none of the three.
        ImportError: The method needs torchdiffeq, and it is not installed.

    References:
        | R. T. Q. Chen et al., Neural ordinary differential equations, arXiv:1806.07366
        | W. Grathwohl et al., FFJORD, arXiv:1810.01367
        | https://github.com/rtqichen/torchdiffeq

    Example:
        >>> layer = hepops.flows.Continuous(lambda t, x, context: -x, steps=16)
        >>> layer(torch.ones(1, 2))  # exp(-1), and a log-determinant of -2
        (tensor([[0.3679, 0.3679]], grad_fn=...), tensor([-2.], dtype=torch.float64))
    """

    def __init__(
        self,
        field: Callable[..., Tensor],
        *,
        steps: int = 16,
        times: Sequence[float] = (0.0, 1.0),
        method: str = "rk4",
        divergence: Divergence = "exact",
        probes: int = 1,
        seed: int | None = None,
        recompute: bool = False,
        tolerance: float = 1e-6,
        adjoint: bool = False,
    ) -> None:
        super().__init__()
        if steps < 1 or probes < 1:
            raise ValueError(f"Continuous: steps and probes must be at least 1, got {steps} and {probes}")
        if isinstance(steps, float) or isinstance(probes, float):
            raise TypeError(f"Continuous: steps and probes must be integers, got {steps} and {probes}")
        if len(times) != 2 or times[0] == times[1] or not all(map(math.isfinite, times)):
            raise ValueError(f"Continuous: times must be two different numbers, both finite, got {tuple(times)}")
        if divergence not in ("exact", "rademacher", "gaussian"):
            raise ValueError(f"Continuous: divergence must be exact, rademacher or gaussian, got {divergence!r}")
        if recompute and method != "rk4":
            raise ValueError(
                f"Continuous: recompute is of rk4, got method {method!r}; adjoint=True is torchdiffeq's way"
            )
        if method != "rk4":
            odeint(adjoint)  # is it there?
        self.field = field
        if isinstance(field, TimeMLP):
            self.event_shape, self.context_size = torch.Size([field.features]), field.context
        self.steps, self.times, self.method = steps, (float(times[0]), float(times[1])), method
        self.divergence, self.probes, self.seed, self.recompute = divergence, probes, seed, recompute
        self.tolerance, self.adjoint = tolerance, adjoint
        self.first, self.step = 0, 0

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        return self._follow(x, context, *self.times)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, context, "y")
        return self._follow(y, context, self.times[1], self.times[0])

    def _noise(self, x: Tensor) -> Tensor | None:
        if self.divergence == "exact":
            return None
        seed = random.fresh_seed() if self.seed is None else self.seed
        n, D = x.shape[:-1].numel(), x.shape[-1]
        draw = random.uniform if self.divergence == "rademacher" else random.normal
        names: dict[str, Any] = {"first": self.first, "step": self.step, "purpose": random.PROBE}
        z = draw(n, self.probes * D, seed, dtype=x.dtype, device=x.device, **names)
        if self.divergence == "rademacher":
            z = torch.where(z < 0.5, -1.0, 1.0).to(x.dtype)
        return z.reshape(*x.shape[:-1], self.probes, D).movedim(-2, 0)

    def _rate(self, noise: Tensor | None, context: Tensor | None) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The right side of the equations of x and of the log-determinant."""
        closed = getattr(self.field, "with_divergence", None)

        def rate(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            known = closed(t, x, context) if closed is not None else None
            if known is None:

                def g(z: Tensor) -> Tensor:
                    dx = self.field(t, z, context)
                    if dx.shape != z.shape:
                        raise ValueError(f"Continuous: field must return shape {tuple(z.shape)}, got {tuple(dx.shape)}")
                    return dx

                known = exact_divergence(g, x) if noise is None else probed_divergence(g, x, noise)
            return known[0], known[1].to(torch.float64)

        return rate

    def _learns(self, x: Tensor, context: Tensor | None) -> bool:
        """Whether anything here wants a gradient; what a plain function holds is not known, and may."""
        if not isinstance(self.field, nn.Module):
            return True
        given = [x] if context is None else [x, context]
        return any(p.requires_grad for p in (*given, *self.field.parameters()))

    def _follow(self, x: Tensor, context: Tensor | None, start: float, end: float) -> tuple[Tensor, Tensor]:
        if x.dim() < 1:
            raise ValueError(f"Continuous: x must have shape (..., D), got {tuple(x.shape)}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._learns(x, context)):
            return self._integrate(x, context, start, end)

    def _integrate(self, x: Tensor, context: Tensor | None, start: float, end: float) -> tuple[Tensor, Tensor]:
        rate = self._rate(self._noise(x), context)
        logdet = x.new_zeros(x.shape[:-1], dtype=torch.float64)
        if self.method != "rk4":
            return self._torchdiffeq(rate, x, context, logdet, start, end)
        # times are made on the host, in double: no rounding of a running sum
        h = (end - start) / self.steps
        for i in range(self.steps):
            t = start + i * h
            if self.recompute and torch.is_grad_enabled():
                x, logdet = checkpoint(rk4_step, rate, t, h, x, logdet, use_reentrant=False, preserve_rng_state=False)
            else:
                x, logdet = rk4_step(rate, t, h, x, logdet)
        return x, logdet

    def _torchdiffeq(
        self, rate: Callable[..., Any], x: Tensor, context: Tensor | None, logdet: Tensor, start: float, end: float
    ) -> tuple[Tensor, Tensor]:
        def system(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            dx, divergence = rate(t, state[0].to(x.dtype))
            return dx.double(), divergence

        t = torch.tensor([start, end], dtype=torch.float64, device=x.device)
        arguments: dict[str, Any] = {"method": self.method, "rtol": self.tolerance, "atol": self.tolerance}
        if self.method in FIXED:
            arguments["options"] = {"step_size": abs(end - start) / self.steps}
        if self.adjoint:
            learnt = [*self.parameters(), *([] if context is None else [context])]
            arguments["adjoint_params"] = tuple(p for p in learnt if p.requires_grad)
        xs, logdets = odeint(self.adjoint)(system, (x.double(), logdet), t, **arguments)
        return xs[-1].to(x.dtype), logdets[-1]
