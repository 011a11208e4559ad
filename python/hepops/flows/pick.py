"""Two parts of a vector by a mask, and the vector again: by views where the mask is a range, else by an index."""

import torch
from torch import Tensor, nn


class Pick(nn.Module):
    """Splits the last dimension into what a mask names and the rest, and joins them.

    Args:
        mask: Bool, shape (D).
    """

    active: Tensor
    passive: Tensor
    order: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        places = mask.nonzero()[:, 0].tolist()
        n, D = len(places), len(mask)
        # a and b as they come in x, for a contiguous range; every second number, for the two ways to alternate
        self.range = (places[0], places[-1] + 1) if n and places[-1] - places[0] == n - 1 else None
        self.parity = next((p for p in (0, 1) if D % 2 == 0 and places == list(range(p, D, 2))), None)
        active, passive = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        self.register_buffer("active", active, persistent=False)
        self.register_buffer("passive", passive, persistent=False)
        self.register_buffer("order", torch.cat([active, passive]).argsort(), persistent=False)  # puts (a, b) back

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # split and unbind rather than slices: the gradients of the parts are put together in one operation
        D = x.shape[-1]
        if self.range is not None:
            start, stop = self.range
            if start == 0:
                a, b = x.split([stop, D - stop], -1)
                return a, b
            if stop == D:
                b, a = x.split([start, D - start], -1)
                return a, b
            low, a, high = x.split([start, stop - start, D - stop], -1)
            return a, torch.cat([low, high], -1)
        if self.parity is not None:
            pair = x.unflatten(-1, (D // 2, 2)).unbind(-1)
            return pair[self.parity], pair[1 - self.parity]
        return x.index_select(-1, self.active), x.index_select(-1, self.passive)

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        if self.range is not None:
            start = self.range[0]
            if start == 0:
                return torch.cat([a, b], -1)
            return torch.cat([b, a] if start == b.shape[-1] else [b[..., :start], a, b[..., start:]], -1)
        if self.parity is not None:
            return torch.stack([a, b] if self.parity == 0 else [b, a], -1).flatten(-2)
        return torch.cat([a, b], -1).index_select(-1, self.order)
