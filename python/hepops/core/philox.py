"""Random numbers that have names: the same on every device, in any order, by any number of threads."""

import torch
from torch import Tensor
from torch.library import register_fake

from hepops.core.ops import call


def philox_uniform(
    index: Tensor, seed: int, step: int = 0, purpose: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Two uniform numbers in (0, 1) for every index.

    A number is named by (seed, index, step, purpose), and does not depend on anything else: one name is always the same
    number, two names are independent. float32 takes the leading 23 bits and float64 the leading 52 of the same
    words, so that both agree to the precision of float32.

    Args:
        index: What the numbers belong to (an event, a pixel, a site), any shape, int64.
        seed: In [0, 2^64).
        step: A step in time, in [0, 2^32).
        purpose: What the numbers are for, in [0, 2^32).
        dtype: float32 or float64.

    Returns:
        Numbers inside (0, 1), never 0 or 1, shape (..., 2) behind that of `index`.

    Not differentiable. The same bits on every CPU and GPU.

    Raises:
        TypeError: `index` is not int64, or `dtype` another.
        ValueError: `seed`, `step` or `purpose` is out of range.

    References:
        | Philox4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, SC'11 (2011) 16,
          doi:10.1145/2063384.2063405

    Example:
        >>> philox_uniform(torch.tensor([0, 1]), seed=1)
        tensor([[0.8903, 0.8947],
                [0.6720, 0.8741]])
    """
    return call(torch.ops.hepops.philox_uniform, index, _signed(seed), step, purpose, dtype)


def philox_normal(
    index: Tensor, seed: int, step: int = 0, purpose: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    r"""Two independent normal numbers, of mean 0 and variance 1, for every index.

    .. math:: \sqrt{-2 \ln u}\,(\cos 2\pi v, \sin 2\pi v)

    with u and v from the words that :func:`philox_uniform` takes; names and arguments are as there. float32 numbers
    reach 6.7 standard deviations, float64 numbers 9.4.

    Args:
        index: What the numbers belong to (an event, a pixel, a site), any shape, int64.
        seed: In [0, 2^64).
        step: A step in time, in [0, 2^32).
        purpose: What the numbers are for, in [0, 2^32).
        dtype: float32 or float64.

    Returns:
        Numbers, shape (..., 2) behind that of `index`.

    Not differentiable. The same bits on every CPU and GPU: logarithm, cosine and sine are series of our own with
    explicit roundings.

    Raises:
        TypeError: `index` is not int64, or `dtype` another.
        ValueError: `seed`, `step` or `purpose` is out of range.

    References:
        | G. E. P. Box, M. E. Muller, Ann. Math. Stat. 29 (1958) 610
        | Philox4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, SC'11 (2011) 16,
          doi:10.1145/2063384.2063405

    Example:
        >>> philox_normal(torch.tensor([0, 1]), seed=1)
        tensor([[ 0.3804, -0.2963],
                [ 0.6269, -0.6340]])
    """
    return call(torch.ops.hepops.philox_normal, index, _signed(seed), step, purpose, dtype)


def _signed(seed: int) -> int:
    """The 64 bits of the seed as the int64 of an operator's schema."""
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"philox: seed must be in [0, 2^64), got {seed}")
    return seed - (1 << 64) if seed >> 63 else seed


@register_fake("hepops::philox_uniform")
@register_fake("hepops::philox_normal")
def _(index: Tensor, seed: int, step: int, purpose: int, dtype: torch.dtype) -> Tensor:
    return index.new_empty((*index.shape, 2), dtype=dtype)
