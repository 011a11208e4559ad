"""One seed for every generator that a program draws from, remembered so that outputs can say it."""

import random

_LAST: list[int] = []  # none or one


def seed_everything(seed: int, *, deterministic: bool = False) -> int:
    """Seed Python's, NumPy's and torch's generators, on all devices, and remember the seed for every output.

    What hepops draws is named by a seed of its own: `seed=None` takes one from torch's generator, which this sets.
    Saved models, hit files, fits and run logs written afterwards say the seed.

    Args:
        seed: In [0, 2^63).
        deterministic: Let torch refuse operations that do not give the same bits twice on a GPU
            (`torch.use_deterministic_algorithms`); those of hepops do as they are.

    Returns:
        The seed.

    Raises:
        ValueError: out of range.
        TypeError: no whole number.

    Example:
        >>> hepops.seed_everything(7)
        7
        >>> first = torch.rand(2)
        >>> _ = hepops.seed_everything(7)
        >>> torch.equal(first, torch.rand(2))
        True
    """
    import numpy
    import torch

    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"seed must lie in [0, 2^63), got {seed}")
    random.seed(seed)
    numpy.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # its seeds are words of 32 bits
    torch.manual_seed(seed)  # of the GPUs as well
    if deterministic:
        torch.use_deterministic_algorithms(True)
    _LAST[:] = [seed]
    return seed


def last_seed() -> int | None:
    """What `seed_everything` was last called with; None if it never was."""
    return _LAST[0] if _LAST else None
