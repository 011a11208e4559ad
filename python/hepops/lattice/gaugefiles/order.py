"""Links in the order of files: t, z, y, x from slow to fast, then mu = x, y, z, t, row, column."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def from_file(values: np.ndarray, extents: Sequence[int], rows: int) -> Tensor:
    """Links (1, 4, Lx, Ly, Lz, Lt, 3, 3) of the numbers in a file, native; a missing third row is rebuilt."""
    x, y, z, t = extents
    dtype = np.complex64 if values.dtype.itemsize == 4 else np.complex128
    stored = torch.from_numpy(values.view(dtype).reshape(t, z, y, x, 4, rows, 3))
    links = stored.permute(4, 3, 2, 1, 0, 5, 6)
    if rows == 2:  # the third row is the conjugate of the cross product of the others
        links = torch.cat([links, torch.linalg.cross(links[..., 0, :], links[..., 1, :]).conj()[..., None, :]], -2)
    return links.resolve_conj()[None].contiguous()


def to_file(links: Tensor, rows: int) -> np.ndarray:
    """The numbers of one configuration (4, Lx, Ly, Lz, Lt, 3, 3) in the order of files, native."""
    stored = links[..., :rows, :].permute(4, 3, 2, 1, 0, 5, 6).contiguous()
    return torch.view_as_real(stored).detach().cpu().numpy().reshape(-1)
