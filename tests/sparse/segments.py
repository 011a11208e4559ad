"""Segments of rows in random order, to test operators that read them."""

import torch


def random_segments(rows, number=7, index=torch.int32, device="cpu"):
    """Each row in one of a few segments, of which the last two are empty: order and starts."""
    owner = torch.randint(0, max(number - 2, 1), (rows,)).sort().values
    starts = torch.searchsorted(owner, torch.arange(number + 1))
    return torch.randperm(rows).to(device, index), starts.to(device)


def owners(order, starts):
    """The segment of each row."""
    owner = torch.repeat_interleave(torch.arange(len(starts) - 1, device=starts.device), starts.diff())
    return torch.empty_like(owner).index_put((order.long(),), owner)
