"""The flow of a density on columns of which some are circles: couplings of splines on lines and on circles."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import random
from .bases import Base
from .coupling import Coupling, Pointwise
from .elementwise import Spline
from .flow import Flow
from .networks import MLP
from .transform import Compose, Transform

_ANGLE = 18  # purpose of the numbers on circles: those of the lines come from the same words


class LinesAndCircles(Base):
    """Normal numbers on lines, uniform ones in (-pi, pi) on circles.

    Args:
        circle: Which of the D numbers, bool.
    """

    circle: Tensor

    def __init__(self, circle: Sequence[bool], dtype: torch.dtype | None = None) -> None:
        super().__init__(len(circle), dtype)
        self.register_buffer("circle", torch.tensor(list(circle)), persistent=False)

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        D, where = len(self.circle), {"dtype": self.reference.dtype, "device": self.reference.device}
        z = random.normal(n, D, seed, first=first, step=step, **where)  # type: ignore[arg-type]
        u = random.uniform(n, D, seed, first=first, step=step, purpose=_ANGLE, **where)  # type: ignore[arg-type]
        return torch.where(self.circle, math.pi * (2 * u - 1), z)

    def log_prob(self, z: Tensor) -> Tensor:
        z = z.to(torch.float64)
        line = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
        return torch.where(self.circle, -math.log(2 * math.pi), line).sum(-1)


class Conditioner(nn.Module):
    """An MLP of numbers on lines, and of cosine and sine of those on circles.

    Args:
        circle: Which of its inputs are on circles, bool.
        outputs: How many.
        hidden: Widths of the MLP.
    """

    lines: Tensor
    circles: Tensor

    def __init__(self, circle: Tensor, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        lines, circles = (~circle).nonzero()[:, 0], circle.nonzero()[:, 0]
        self.register_buffer("lines", lines, persistent=False)
        self.register_buffer("circles", circles, persistent=False)
        self.network = MLP(len(lines) + 2 * len(circles), outputs, hidden)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        angle = x.index_select(-1, self.circles)
        return self.network(torch.cat([x.index_select(-1, self.lines), angle.cos(), angle.sin()], -1))

    @property
    def last(self) -> nn.Linear:
        """The layer that `Coupling` starts at the identity."""
        return self.network.last


def density_flow(
    circle: Sequence[bool],
    *,
    layers: int = 6,
    bins: int = 8,
    hidden: Sequence[int] = (64, 64),
    bound: float = 6.0,
    dtype: torch.dtype = torch.float32,
) -> Flow:
    """Couplings of rational-quadratic splines, over normal numbers and uniform angles; it begins as the identity.

    In a layer first lines are changed, then circles. Which half: that with bit b of its number set, then the others,
    and b goes round, so that every two columns are soon in different halves.

    Args:
        circle: Which of the D columns are on circles, in (-pi, pi), bool.
        layers: How often lines and circles are changed.
        bins: Of each spline.
        hidden: Widths of the networks.
        bound: Splines on lines act in (-bound, bound), outside is the identity.
        dtype: Of parameters and samples.

    Raises:
        ValueError: no columns, or layers below 1.

    References:
        | C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, NeurIPS 2019, arXiv:1906.04032
        | D. J. Rezende et al., ICML 2020, arXiv:2002.02428: circular splines
        | C. Gao, J. Isaacson, C. Krause, Mach. Learn.: Sci. Technol. 1 (2020) 045023, arXiv:2001.05486: the masks

    Example:
        >>> flow = density_flow([False, False, True], layers=2)
        >>> round(flow.log_prob(torch.zeros(3)).item(), 4)  # -2 ln 2 pi: two lines and a circle
        -3.6758
    """
    if not circle or layers < 1:
        raise ValueError(f"density_flow: at least one column and one layer, got {len(circle)} and {layers}")
    on_circle = torch.tensor(list(circle))
    line_spline, circle_spline = Spline(bins, bound), Spline(bins, math.pi, tails="circular")
    couplings: list[Transform] = []
    for i in range(layers):
        for spline, kind in ((line_spline, ~on_circle), (circle_spline, on_circle)):
            members = kind.nonzero()[:, 0]
            if not len(members):
                continue
            mask = torch.zeros(len(circle), dtype=torch.bool)
            mask[members[_half(len(members), i)]] = True
            if bool(mask.all()):  # a single column: nothing to depend on
                couplings.append(Pointwise(spline, 1))
                continue
            network = Conditioner(on_circle[~mask], int(mask.sum()) * spline.size, hidden)
            couplings.append(Coupling(mask, spline, network))
    return Flow(Compose(couplings), LinesAndCircles(circle)).to(dtype)


def _half(n: int, layer: int) -> Tensor:
    """Which of n numbers a layer changes, bool; all of a single one."""
    number, bits = torch.arange(n), max((n - 1).bit_length(), 1)
    bit = ((number >> ((layer // 2) % bits)) & 1).bool()
    return torch.ones(1, dtype=torch.bool) if n == 1 else bit if layer % 2 else ~bit
