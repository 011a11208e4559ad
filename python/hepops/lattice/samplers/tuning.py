"""A length that is tuned towards an acceptance."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

BLOCK = 5  # updates between two looks at the acceptance
UNIT = 1 << 30  # probabilities are summed as whole numbers of 2^-30: the same for any split of the chains


class Tuning:
    r"""Towards an acceptance p*, in blocks of updates; the result is the mean of the logarithms in the second half.

    HMC: :math:`p = \mathrm{erfc}(\sqrt{\langle dH \rangle} / 2)` and :math:`\langle dH \rangle \propto \epsilon^{2n}`
    (n the integrator's order) say which :math:`\epsilon` has p*; half of that way is gone, a factor of 2 at most.
    Metropolis: :math:`\ln w \leftarrow \ln w + 2 k^{-1/2} (p - p^*)`, k = 1, 2, ... (Robbins and Monro).
    """

    def __init__(self, target: float, group: "ProcessGroup | None" = None) -> None:
        self.target, self.group = target, group

    def mean(self, probability: Tensor) -> float:
        """The mean probability of all chains of all ranks; NaN counts as 0."""
        p = torch.nan_to_num(probability, nan=0.0).clamp(0, 1).double()
        sums = torch.stack([(p * UNIT).round().long().sum(), torch.tensor(p.numel(), device=p.device)])
        if self.group is not None:
            dist.all_reduce(sums, group=self.group)
        total, count = sums.tolist()
        return total / UNIT / count

    def factor(self, p: float, order: int) -> float:
        """What the step size of an integrator is to be multiplied with."""
        size = [torch.erfinv(torch.tensor(1 - min(max(q, 1e-3), 0.999), dtype=torch.float64)) for q in (self.target, p)]
        return min(max(float(size[0] / size[1]) ** (0.5 / order), 0.5), 2.0)

    def advance(self, length: float, p: float, settings: dict[str, float]) -> float:
        """The next length; what is remembered stands in `settings`, which a checkpoint keeps."""
        k = settings["tuning_blocks"] = settings.get("tuning_blocks", 0) + 1
        if p < 0.1:
            return length / 2
        return length * math.exp(2 * (p - self.target) / math.sqrt(k))

    @staticmethod
    def note(length: float, settings: dict[str, float]) -> None:
        settings["tuning_sum"] = settings.get("tuning_sum", 0.0) + math.log(length)
        settings["tuning_count"] = settings.get("tuning_count", 0) + 1

    @staticmethod
    def end(length: float, settings: dict[str, float]) -> float:
        """The mean of what was noted; the memory is cleared."""
        count, total = settings.pop("tuning_count", 0), settings.pop("tuning_sum", 0.0)
        settings.pop("tuning_blocks", None)
        return math.exp(total / count) if count else length


def checked_target(who: str, tune: float | None) -> float | None:
    if tune is not None and not 0 < tune < 1:
        raise ValueError(f"{who}: tune must be an acceptance in (0, 1), got {tune!r}")
    return tune


def checked_length(who: str, name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{who}: {name} must be positive and finite, got {value!r}")
    return float(value)


def checked_count(who: str, name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{who}: {name} must be a whole number of at least 1, got {value!r}")
    return value
