"""Functions of each feature by itself, and dropout."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..tensor import SparseTensor


class Activation(nn.Module):
    """A torch module applied to the features; subclasses name it."""

    torch_module: type[nn.Module] = nn.Identity

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.module = self.torch_module(*args, **kwargs)

    def forward(self, input: SparseTensor) -> SparseTensor:
        return input.replace(self.module(input.features))

    def extra_repr(self) -> str:
        return self.module.extra_repr()


class ReLU(Activation):
    torch_module = nn.ReLU


class ReLU6(Activation):
    torch_module = nn.ReLU6


class LeakyReLU(Activation):
    torch_module = nn.LeakyReLU


class PReLU(Activation):
    torch_module = nn.PReLU


class ELU(Activation):
    torch_module = nn.ELU


class SELU(Activation):
    torch_module = nn.SELU


class CELU(Activation):
    torch_module = nn.CELU


class GELU(Activation):
    torch_module = nn.GELU


class SiLU(Activation):
    torch_module = nn.SiLU


class Sigmoid(Activation):
    torch_module = nn.Sigmoid


class Tanh(Activation):
    torch_module = nn.Tanh


class Hardtanh(Activation):
    torch_module = nn.Hardtanh


class Softplus(Activation):
    torch_module = nn.Softplus


class Softmax(Activation):
    torch_module = nn.Softmax


class Dropout(Activation):
    torch_module = nn.Dropout
