"""Random numbers of chains and sites: named by (seed, chain, site, step, purpose), whatever the batch or the rank."""

import torch
from torch import Tensor

from hepops.core import philox_normal, philox_uniform

# what numbers are for: one seed gives independent numbers for each (flows.random has those below 16)
MOMENTA, ACCEPT, HEATBATH, METROPOLIS, PICK, NOISE = range(16, 22)


def names(chains: int, numbers: int, first: int = 0, device: torch.device | str | None = None) -> Tensor:
    """int64 names of `numbers` pairs in each chain, shape (chains, numbers): chain c has c * numbers ... ."""
    return torch.arange(first * numbers, (first + chains) * numbers, device=device).view(chains, numbers)


def normal(
    chains: int,
    numbers: int,
    seed: int,
    *,
    first: int = 0,
    step: int = 0,
    purpose: int = MOMENTA,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """Normal numbers, shape (chains, numbers)."""
    pairs = (numbers + 1) // 2
    index = names(chains, pairs, first, device)
    return philox_normal(index, seed, step, purpose, dtype).view(chains, 2 * pairs)[:, :numbers]


def uniform(
    chains: int,
    numbers: int,
    seed: int,
    *,
    first: int = 0,
    step: int = 0,
    purpose: int = ACCEPT,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """Uniform numbers in (0, 1), shape (chains, numbers)."""
    pairs = (numbers + 1) // 2
    index = names(chains, pairs, first, device)
    return philox_uniform(index, seed, step, purpose, dtype).view(chains, 2 * pairs)[:, :numbers]


def normal_at(
    number: Tensor,
    numbers: int,
    chains: int,
    seed: int,
    *,
    first: int = 0,
    step: int = 0,
    purpose: int = MOMENTA,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Some of the numbers of :func:`normal`, shape (chains, n): columns `number`, (n), int64, of its `numbers`."""
    pairs = (numbers + 1) // 2
    chain = torch.arange(first, first + chains, device=number.device)[:, None] * pairs
    both = philox_normal(chain + number // 2, seed, step, purpose, dtype)
    return torch.where(number % 2 == 0, both[..., 0], both[..., 1])
