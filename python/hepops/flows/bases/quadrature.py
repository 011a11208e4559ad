"""Gauss and Legendre's quadrature."""

from functools import cache

import numpy as np
import torch
from torch import Tensor


@cache
def legendre(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """n nodes in (-1, 1) and their weights, float64: made once, so that a CUDA graph finds them there."""
    with torch.inference_mode(False):
        x, w = np.polynomial.legendre.leggauss(n)
        return torch.tensor(x, device=device), torch.tensor(w, device=device)
