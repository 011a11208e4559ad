r"""What a flow is worth: weights :math:`w = e^{-S(x)} / q(x)` of fresh samples, in double."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hepops.flows import Flow
from hepops.flows.weights import effective_sample_size, log_normaliser, ordered_sum, pareto_k

from ..theory import Theory

_STEP = (1 << 32) - 2  # of a seed's stream: no step of a training draws from it


@dataclass(frozen=True)
class Evaluation:
    """Numbers of N weights; prints as a table."""

    samples: int
    ess: float  # (sum w)^2 / (N sum w^2)
    log_z: float
    log_z_error: float
    acceptance: float  # of the independence Metropolis algorithm, in equilibrium
    pareto_k: float  # shape of the weights' tail: above 0.7 the other numbers are not to be believed
    kl: float  # <ln q + S> + ln Z: the reverse Kullback-Leibler divergence

    def __str__(self) -> str:
        return "\n".join(
            (
                f"samples     {self.samples}",
                f"ESS         {self.ess:.4f}",
                f"ln Z        {self.log_z:.5f} +- {self.log_z_error:.5f}",
                f"acceptance  {self.acceptance:.4f}",
                f"KL          {self.kl:.4f}",
                f"Pareto k    {self.pareto_k:.2f}",
            )
        )


def evaluate(
    flow: Flow, theory: Theory, samples: int = 65_536, *, batch: int = 2048, seed: int = 0, first: int = 0
) -> Evaluation:
    r"""ESS, ln Z and acceptance from fresh samples, drawn and weighted in double whatever the dtype of the flow.

    Args:
        flow: Of the theory's fields; it is copied, and left as it is.
        theory: S.
        samples: N.
        batch: Samples at a time.
        seed: Of the samples, which are independent of those of a training with the same seed.
        first: Number of the first sample.

    Raises:
        TypeError: what is no flow, or no theory.
        ValueError: samples or batch below 1, or the flow is of other fields.

    Example:
        >>> theory = hepops.lattice.U1((4, 4), beta=0.0)
        >>> round(evaluate(hepops.lattice.flows.u1_coupling(theory, layers=1), theory, samples=10).ess, 9)
        1.0
    """
    log_w = log_weights(flow, theory, samples, batch=batch, seed=seed, first=first)
    z, error = log_normaliser(log_w)
    return Evaluation(
        samples,
        float(effective_sample_size(log_w)),
        float(z),
        float(error),
        float(acceptance(log_w)),
        float(pareto_k(log_w)),
        float(z - ordered_sum(log_w) / samples),
    )


@torch.no_grad()
def log_weights(
    flow: Flow, theory: Theory, samples: int, *, batch: int = 2048, seed: int = 0, first: int = 0
) -> Tensor:
    """ln w = -S - ln q of fresh samples in double, (samples)."""
    for name, value in (("samples", samples), ("batch", batch)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"evaluate: {name} must be a whole number of at least 1, got {value!r}")
    check_fields("evaluate", flow, theory)
    double = copy.deepcopy(flow).double().eval()
    double.validate = False
    parts = []
    for start in range(0, samples, batch):
        x, log_q = double.sample_and_log_prob(min(batch, samples - start), seed=seed, first=first + start, step=_STEP)
        parts.append(theory.log_prob(x) - log_q)
    return torch.cat(parts)


def acceptance(log_w: Tensor) -> Tensor:
    r"""The mean of :math:`\min(1, w'/w)` in equilibrium: :math:`\langle \min(w, w') \rangle / \langle w \rangle`.

    Over all pairs of different samples, w and w' of independent proposals: no random numbers are used.

    Args:
        log_w: Shape (N), N at least 2; NaN is given for fewer.

    Raises:
        ValueError: another number of dimensions.

    Example:
        >>> acceptance(torch.tensor([0.0, 0.0]))
        tensor(1., dtype=torch.float64)
    """
    if log_w.dim() != 1:
        raise ValueError(f"acceptance: log_w must have shape (N), got {tuple(log_w.shape)}")
    n = len(log_w)
    if n < 2:
        return log_w.new_full((), math.nan, dtype=torch.float64)
    w = (log_w.double() - log_w.amax()).exp().sort().values
    pairs = torch.arange(n - 1, -1, -1, dtype=torch.float64, device=w.device)  # in which each is the lesser
    return 2 * (w * pairs).sum() / ((n - 1) * w.sum())


def check_fields(who: str, flow: Flow, theory: Theory) -> None:
    if not isinstance(flow, Flow) or not isinstance(theory, Theory):
        got = type(flow).__name__, type(theory).__name__
        raise TypeError(f"{who}: flow must be a Flow and theory a Theory, got {got[0]} and {got[1]}")
    if flow.event_shape != theory.event_shape:
        raise ValueError(f"{who}: flow is of fields {tuple(flow.event_shape)}, theory of {tuple(theory.event_shape)}")
