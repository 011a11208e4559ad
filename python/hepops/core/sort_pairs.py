"""A stable sort of integer keys with a payload."""

import torch
from torch import Tensor
from torch.library import register_fake

from hepops.core.ops import call


def sort_pairs(keys: Tensor, payload: Tensor | None = None, bits: int = 64) -> tuple[Tensor, Tensor]:
    """Sort keys stably, each with its payload, by their lowest bits.

    A radix sort: its time grows with the number of bits, so that a caller who knows the largest key names
    `bits = largest.bit_length()`.

    Args:
        keys: Shape (N), int64.
        payload: Shape (N), int64; without it 0, 1, ... N - 1, which makes the second result the sorting permutation.
        bits: How many bits of the keys count, 0 to 64. With 64 the order is that of signed numbers; with fewer, the
            bits above are carried along unseen.

    Returns:
        The sorted keys and their payload, shape (N) each, int64.

    Not differentiable. A stable sort has one result: the same for any number of threads and on every device.

    Raises:
        TypeError: `keys` or `payload` is not int64.
        ValueError: the shapes differ, `keys` is not of one dimension, or `bits` is not 0 to 64.

    References:
        | D. E. Knuth, The Art of Computer Programming 3, 2nd ed. (1998), 5.2.5
        | GPU: cub::DeviceRadixSort of CCCL

    Example:
        >>> sort_pairs(torch.tensor([3, 1, 3, 0]), bits=2)
        (tensor([0, 1, 3, 3]), tensor([3, 1, 0, 2]))
    """
    return call(torch.ops.hepops.sort_pairs, keys, payload, bits)


@register_fake("hepops::sort_pairs")
def _(keys: Tensor, payload: Tensor | None, bits: int) -> tuple[Tensor, Tensor]:
    return keys.new_empty(keys.shape), keys.new_empty(keys.shape)
