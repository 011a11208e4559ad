"""Random numbers of samples: each sample's own, whatever the batch, the thread or the rank that draws it."""

import torch
from torch import Tensor

from hepops.core import philox_normal, philox_uniform

# what numbers are for: the same seed, sample and step give independent numbers for each
BASE, CHANNEL, PICK, TRAIN, PROBE = range(5)


def fresh_seed() -> int:
    """A seed from torch's generator, for who gave none: under torch.manual_seed the run repeats."""
    return int(torch.randint(1 << 62, ()).item())


def _index(n: int, first: int, numbers: int, device: torch.device | str | None) -> Tensor:
    pairs = (numbers + 1) // 2
    if n < 0 or first < 0 or (first + n) * pairs >= 1 << 63:
        most = (1 << 63) // max(pairs, 1)
        raise ValueError(f"random: n and first must not be negative, first + n below {most}, got {n} and {first}")
    return torch.arange(first * pairs, (first + n) * pairs, device=device)


def uniform(
    n: int,
    numbers: int,
    seed: int,
    *,
    first: int = 0,
    step: int = 0,
    purpose: int = BASE,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Numbers in (0, 1), shape (n, numbers): row i belongs to sample first + i."""
    return philox_uniform(_index(n, first, numbers, device), seed, step, purpose, dtype).view(n, numbers + numbers % 2)[
        :, :numbers
    ]


def normal(
    n: int,
    numbers: int,
    seed: int,
    *,
    first: int = 0,
    step: int = 0,
    purpose: int = BASE,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Normal numbers of mean 0 and variance 1, shape (n, numbers): row i belongs to sample first + i."""
    return philox_normal(_index(n, first, numbers, device), seed, step, purpose, dtype).view(n, numbers + numbers % 2)[
        :, :numbers
    ]
