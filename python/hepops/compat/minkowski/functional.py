"""torch.nn.functional on the features of a SparseTensor or TensorField.

Those that make a tensor of the same rows give one back; the losses give what torch gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F

from .layer import wrap as _wrap_tensor

_KEEP_ROWS = (
    "threshold relu hardtanh hardswish relu6 elu selu celu leaky_relu prelu rrelu glu gelu logsigmoid hardshrink "
    "tanhshrink softsign softplus softmin softmax softshrink gumbel_softmax log_softmax tanh sigmoid hardsigmoid silu "
    "batch_norm normalize linear dropout alpha_dropout"
).split()
_LOSSES = (
    "binary_cross_entropy binary_cross_entropy_with_logits poisson_nll_loss cross_entropy hinge_embedding_loss kl_div "
    "l1_loss mse_loss multilabel_margin_loss multilabel_soft_margin_loss multi_margin_loss nll_loss smooth_l1_loss "
    "soft_margin_loss"
).split()


def _keeping(name: str) -> Callable[..., Any]:
    torch_function = getattr(F, name)

    def function(input: Any, *args: Any, **kwargs: Any) -> Any:
        return _wrap_tensor(input, torch_function(input.F, *args, **kwargs))

    function.__doc__ = f"torch.nn.functional.{name} of the features."
    function.__name__ = function.__qualname__ = name
    return function


def _loss(name: str) -> Callable[..., Any]:
    torch_function = getattr(F, name)

    def function(input: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        return torch_function(input.F, target, *args, **kwargs)

    function.__doc__ = f"torch.nn.functional.{name} of the features and a target tensor."
    function.__name__ = function.__qualname__ = name
    return function


globals().update({name: _keeping(name) for name in _KEEP_ROWS} | {name: _loss(name) for name in _LOSSES})

__all__ = ["_wrap_tensor", *_KEEP_ROWS, *_LOSSES]
