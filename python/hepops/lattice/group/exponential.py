"""The exponential map."""

import torch
from torch import Tensor


def exp(X: Tensor) -> Tensor:
    """e^X of X in su(N), shape (..., N, N)."""
    return torch.linalg.matrix_exp(X)
