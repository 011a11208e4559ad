"""Functions of each feature by itself, and dropout: torch's, on voxels or points."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .common import MinkowskiModuleBase
from .layer import Input


class MinkowskiNonlinearityBase(MinkowskiModuleBase):
    """A torch module on the features; subclasses name it in MODULE."""

    MODULE: type[nn.Module] = nn.Identity

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.module = self.MODULE(*args, **kwargs)

    def forward(self, input: Input) -> Any:
        return input.replace(self.module(input.features))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.module.extra_repr()})"


def _named(name: str) -> type[MinkowskiNonlinearityBase]:
    doc = f"torch.nn.{name} on the features of a SparseTensor or TensorField."
    return type(f"Minkowski{name}", (MinkowskiNonlinearityBase,), _members(name, doc))


def _members(name: str, doc: str) -> dict[str, Any]:
    return {"MODULE": getattr(nn, name), "__doc__": doc, "__module__": __name__}


MinkowskiELU = _named("ELU")
MinkowskiHardshrink = _named("Hardshrink")
MinkowskiHardsigmoid = _named("Hardsigmoid")
MinkowskiHardtanh = _named("Hardtanh")
MinkowskiHardswish = _named("Hardswish")
MinkowskiLeakyReLU = _named("LeakyReLU")
MinkowskiLogSigmoid = _named("LogSigmoid")
MinkowskiPReLU = _named("PReLU")
MinkowskiReLU = _named("ReLU")
MinkowskiReLU6 = _named("ReLU6")
MinkowskiRReLU = _named("RReLU")
MinkowskiSELU = _named("SELU")
MinkowskiCELU = _named("CELU")
MinkowskiGELU = _named("GELU")
MinkowskiSigmoid = _named("Sigmoid")
MinkowskiSiLU = _named("SiLU")
MinkowskiSoftplus = _named("Softplus")
MinkowskiSoftshrink = _named("Softshrink")
MinkowskiSoftsign = _named("Softsign")
MinkowskiTanh = _named("Tanh")
MinkowskiTanhshrink = _named("Tanhshrink")
MinkowskiThreshold = _named("Threshold")
MinkowskiSoftmin = _named("Softmin")
MinkowskiSoftmax = _named("Softmax")
MinkowskiLogSoftmax = _named("LogSoftmax")
MinkowskiDropout = _named("Dropout")
MinkowskiAlphaDropout = _named("AlphaDropout")


class MinkowskiAdaptiveLogSoftmaxWithLoss(MinkowskiNonlinearityBase):
    """torch.nn.AdaptiveLogSoftmaxWithLoss; MinkowskiEngine's lacks the target, and cannot be called."""

    MODULE = nn.AdaptiveLogSoftmaxWithLoss

    def forward(self, input: Input, target: torch.Tensor) -> Any:  # type: ignore[override]
        """torch's named tuple (output, loss)."""
        return self.module(input.features, target)


class MinkowskiSinusoidal(MinkowskiModuleBase):
    """coef sin(features kernel + bias), kernel (in_channel, out_channel), bias and coef (1, out_channel)."""

    def __init__(self, in_channel: int, out_channel: int) -> None:
        super().__init__()
        self.in_channel, self.out_channel = in_channel, out_channel
        self.kernel = nn.Parameter(torch.rand(in_channel, out_channel))
        self.bias = nn.Parameter(torch.rand(1, out_channel))
        self.coef = nn.Parameter(torch.rand(1, out_channel))

    def forward(self, input: Input) -> Any:
        return input.replace(torch.sin(input.features @ self.kernel + self.bias) * self.coef)
