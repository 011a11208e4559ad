"""Metropolis with proposals from a flow."""

import math
import zlib
from typing import Any

import torch
from torch import Tensor

from hepops.flows import Flow

from .. import random
from ..theory import Theory
from .chains import Chains, check_start, checked_theory
from .sampler import Sampler, Start


class IndependenceMetropolis(Sampler):
    r"""Independence Metropolis: configurations of a flow, accepted with :math:`\min(1, w'/w)`, exact for any flow.

    .. math:: \ln w = -S(\phi) - \ln q(\phi)

    The weights stay in double with the chains, as the flow gave them with the sample: x and ln q agree to much better
    than 1, or the chain would not be exact. Chains that another sampler moved, or that stood with other weights of the
    flow, get theirs anew. A NaN weight is a rejection.

    Args:
        flow: Of the theory's fields; its dtype is that of the chains.
        theory: What is sampled.

    The history has "accepted" and "log_w" of each proposal. Proposal t of chain c is the flow's sample c of
    (seed, step t + 1).

    Raises:
        TypeError: no theory.
        ValueError: the flow has other events than the theory, or a context.

    References:
        | M. S. Albergo, G. Kanwar, P. E. Shanahan, Phys. Rev. D 100 (2019) 034515, arXiv:1904.12072

    Example:
        >>> theory = hepops.lattice.Phi4((4,), m2=1.0, lam=0.5)
        >>> flow = hepops.flows.Flow(hepops.flows.Compose([]), theory.prior())  # not trained
        >>> run = hepops.lattice.IndependenceMetropolis(flow, theory).run(50, chains=8, seed=1)
        >>> 0.1 < run.acceptance < 1
        True
    """

    def __init__(self, flow: Flow, theory: Theory) -> None:
        if flow.event_shape != checked_theory("IndependenceMetropolis", theory).event_shape:
            raise ValueError(
                f"IndependenceMetropolis: the flow has events {tuple(flow.event_shape)}, "
                f"{type(theory).__name__} has {tuple(theory.event_shape)}"
            )
        if flow.context_size:
            raise ValueError(f"IndependenceMetropolis: the flow must have no context, it wants {flow.context_size}")
        self.flow, self.theory = flow, theory
        self.settings: dict[str, Any] = {}

    def propose(self, n: int, seed: int, first: int, step: int) -> tuple[Tensor, Tensor]:
        """Samples of the flow and ln w, float64."""
        x, log_q = self.flow.sample_and_log_prob(n, seed=seed, first=first, step=step)
        return x, self.theory.log_prob(x).double() - log_q

    @torch.no_grad()
    def start(
        self,
        chains: int | Tensor,
        seed: int,
        *,
        first: int = 0,
        start: Start = "hot",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> Chains:
        """Chains that start at samples of the flow (in its dtype, on its device), or at given fields."""
        if not isinstance(chains, Tensor):
            if isinstance(chains, bool) or not isinstance(chains, int) or chains < 1:
                raise ValueError(f"IndependenceMetropolis: chains must be a whole number of at least 1, got {chains!r}")
            field, log_w = self.propose(chains, seed, first, 0)
            return Chains(field, seed, first, state={"log_w": log_w, "flow": self._flow(log_w)})
        check_start("IndependenceMetropolis", self.theory, chains)
        made = Chains(chains.detach().clone(), seed, first)
        self.prepare(made)
        return made

    def prepare(self, chains: Chains) -> None:
        """The weights of where the chains stand, unless they have them by this very flow."""
        known = chains.state.get("flow")
        if known is not None and bool((known == self._flow(known)).all()):
            return
        log_w = self.theory.log_prob(chains.field).double() - self.flow.log_prob(chains.field)
        chains.state = {"log_w": log_w, "flow": self._flow(log_w)}

    def _flow(self, like: Tensor) -> Tensor:
        """A number that names the flow's weights, for each chain: a flow that is trained further is another."""
        return torch.full(like.shape, fingerprint(self.flow), dtype=torch.int64, device=like.device)

    def identity(self) -> dict[str, Any]:
        return {"flow": fingerprint(self.flow)}

    def update(self, chains: Chains) -> dict[str, Tensor]:
        if "log_w" not in chains.state:
            self.prepare(chains)
        n, seed, step, first = len(chains), chains.seed, chains.step, chains.first
        x, log_w = self.propose(n, seed, first, step + 1)
        u = random.uniform(n, 1, seed, first=first, step=step, device=x.device)[:, 0]
        old = chains.state["log_w"]
        accepted = (u.log() < log_w - old) | (old.isnan() & ~log_w.isnan())
        kept = {"log_w": torch.where(accepted, log_w, old), "flow": chains.state["flow"]}
        chains.advance(torch.where(accepted.view(-1, *(1,) * (x.dim() - 1)), x, chains.field), **kept)
        return {"accepted": accepted, "log_w": log_w}


def fingerprint(flow: Flow) -> int:
    """The CRC-32 of the bytes of a flow's parameters and buffers."""
    value = 0
    for name, tensor in flow.state_dict().items():
        if isinstance(tensor, Tensor):
            plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            value = zlib.crc32(plain.numpy().tobytes(), zlib.crc32(name.encode(), value))
    return value


def metropolis_in_turn(log_w: Tensor, seed: int, *, start: float | None = None, step: int = 0) -> Tensor:
    """One chain through N proposals, one after the other: which proposal it stands at after each.

    Args:
        log_w: ln w of the proposals, shape (N).
        seed: Of the decisions.
        start: ln w of where the chain stands before (index -1 in the result); None: it starts at the first proposal.
        step: A further name of the decisions, for the next N proposals of the same chain.

    Returns:
        int64, shape (N), on the CPU.

    Raises:
        ValueError: log_w is not of one dimension.

    Example:
        >>> hepops.lattice.samplers.metropolis_in_turn(torch.tensor([0.0, -50.0, 1.0, -50.0]), seed=1)
        tensor([0, 0, 2, 2])
    """
    if log_w.dim() != 1:
        raise ValueError(f"metropolis_in_turn: log_w must have shape (N), got {tuple(log_w.shape)}")
    u = random.uniform(1, max(len(log_w), 1), seed, step=step)[0].log().tolist()
    at, value = -1, -math.inf if start is None else float(start)
    out = []
    for i, w in enumerate(log_w.double().tolist()):
        if (at == -1 and start is None) or value != value or u[i] < w - value:
            at, value = i, w
        out.append(at)
    return torch.tensor(out, dtype=torch.int64)
