"""Gradients against differences."""

from __future__ import annotations

from typing import Any

import torch


def gradcheck(func: Any, inputs: Any, *args: Any, **kwargs: Any) -> bool:
    """torch.autograd.gradcheck of a function, or of the `apply` of one of the ...Function classes."""
    kwargs.pop("check_sparse_nnz", None)
    return torch.autograd.gradcheck(getattr(func, "apply", func), inputs, *args, **kwargs)
