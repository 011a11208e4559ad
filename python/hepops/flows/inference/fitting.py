"""The training of a conditional density: Adam, a falling rate, a validation set, early stop, the best kept."""

import copy
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Training:
    """How to train.

    The rate falls as a cosine over `epochs`; the weights are averaged over the last `memory` epochs. Training ends
    before where the validation loss has not fallen for `patience` epochs. The weights of the best epoch are kept, those
    before the first step included: a density is never worse, on the validation set, than where it began.
    """

    epochs: int = 60
    batch: int = 256
    rate: float = 2e-3
    decay: float = 1e-4  # of the weights, decoupled
    validation: float = 0.1  # the share that is kept apart
    patience: int = 15
    clip: float = 5.0  # the largest norm of a gradient
    memory: float = 2.0  # epochs over which the weights are averaged; 0: the last ones are taken

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"training: {name} must be at least 1, got {getattr(self, name)}")
        for name in ("rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"training: {name} must be positive and finite, got {getattr(self, name)}")
        for name in ("decay", "memory"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"training: {name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.validation < 1:
            raise ValueError(f"training: validation must lie between 0 and 1, got {self.validation}")


@dataclass
class Fitted:
    """Losses of every epoch, the first of them before any step."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best: int = 0


def fit(loss: nn.Module, z: Tensor, c: Tensor, training: Training, seed: int) -> Fitted:
    """Minimise loss(z, c) over its parameters, in place.

    Deterministic for a seed, in whatever state torch's own generator is.

    Raises:
        ValueError: too few pairs for a validation set.
        FloatingPointError: the loss is not finite.
    """
    held = round(training.validation * len(z))
    if held < 1 or len(z) - held < 2:
        raise ValueError(f"training: {len(z)} simulations are too few for a validation set of {training.validation:g}")
    generator = torch.Generator().manual_seed(seed % 2**63)
    order = torch.randperm(len(z), generator=generator)
    test, learn = order[:held], order[held:]
    optimiser = torch.optim.AdamW(loss.parameters(), lr=training.rate, weight_decay=training.decay)
    result = Fitted([math.nan], [_measure(loss, z[test], c[test])])
    best = copy.deepcopy(loss.state_dict())
    steps = -(-len(learn) // training.batch)
    mean = copy.deepcopy(loss)
    keep = math.exp(-1 / (training.memory * steps)) if training.memory else 0.0
    for epoch in range(training.epochs):
        for group in optimiser.param_groups:
            group["lr"] = training.rate * (0.5 + 0.5 * math.cos(math.pi * epoch / training.epochs))
        rows = learn[torch.randperm(len(learn), generator=generator)]
        total = 0.0
        loss.train()
        for part in rows.split(training.batch):
            value = loss(z[part], c[part])
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(loss.parameters(), training.clip)
            optimiser.step()
            with torch.no_grad():
                for average, now in zip(mean.parameters(), loss.parameters(), strict=True):
                    average.lerp_(now, 1 - keep)
            total += float(value.detach()) * len(part)
        result.train.append(total / len(learn))
        result.validation.append(_measure(mean, z[test], c[test]))
        if not math.isfinite(result.validation[-1]):
            raise FloatingPointError(f"training: the loss is {result.validation[-1]} after epoch {epoch + 1}")
        if result.validation[-1] < result.validation[result.best]:
            result.best, best = len(result.validation) - 1, copy.deepcopy(mean.state_dict())
        elif len(result.validation) - 1 - result.best >= training.patience:
            break
    loss.load_state_dict(best)
    loss.eval()
    return result


@torch.no_grad()
def _measure(loss: nn.Module, z: Tensor, c: Tensor) -> float:
    loss.eval()
    return float(loss(z, c))
