"""Where each of many parts begins."""

import torch
from torch import Tensor
from torch.library import register_fake

from hepops.core.ops import call


def exclusive_scan(counts: Tensor) -> Tensor:
    r"""Offsets of parts that lie one after the other, from their counts.

    .. math:: o_i = \sum_{j < i} c_j, \qquad i = 0 \ldots N

    Args:
        counts: :math:`c`, shape (N), int64.

    Returns:
        Offsets, shape (N + 1), int64: part i is the range from `offsets[i]` to `offsets[i + 1]`; the total is last.

    Not differentiable. Integers: the same for any number of threads and on every device. Sums that leave int64 wrap.

    Raises:
        TypeError: `counts` is not int64.
        ValueError: `counts` has more or less than one dimension.

    References:
        | G. E. Blelloch, Prefix sums and their applications, CMU-CS-90-190 (1990)
        | GPU: cub::DeviceScan of CCCL

    Example:
        >>> exclusive_scan(torch.tensor([2, 0, 3]))
        tensor([0, 2, 2, 5])
    """
    return call(torch.ops.hepops.exclusive_scan, counts)


@register_fake("hepops::exclusive_scan")
def _(counts: Tensor) -> Tensor:
    return counts.new_empty(counts.shape[0] + 1)
