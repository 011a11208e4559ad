"""Networks of sparse convolutions, with the options and the state dicts of SPINE's."""

from pathlib import Path

from torch import nn

from hepops.core.constructors import recorded

from ._units import PixelNorm as PixelNorm
from ._units import make_activation as make_activation
from ._units import make_norm as make_norm
from ._units import unfused as unfused
from .backbones import FPN as FPN
from .backbones import LatticePhase as LatticePhase
from .backbones import MobileNetV3 as MobileNetV3
from .backbones import SENet as SENet
from .backbones import UResNetBackbone as UResNetBackbone
from .backbones import UResNetDecoder as UResNetDecoder
from .backbones import UResNetEncoder as UResNetEncoder
from .backbones import UResNeXt as UResNeXt
from .blocks import ASPP as ASPP
from .blocks import SPP as SPP
from .blocks import AtrousBlock as AtrousBlock
from .blocks import CascadeDilationBlock as CascadeDilationBlock
from .blocks import ConvolutionBlock as ConvolutionBlock
from .blocks import MBConv as MBConv
from .blocks import MBResConv as MBResConv
from .blocks import MBResConvSE as MBResConvSE
from .blocks import ResidualBlock as ResidualBlock
from .blocks import ResNeXtBlock as ResNeXtBlock
from .blocks import SEBlock as SEBlock
from .blocks import SEResNetBlock as SEResNetBlock
from .configuration import Configuration as Configuration
from .configuration import read
from .encoder import ResidualEncoder as ResidualEncoder
from .encoder import from_table as from_table
from .uresnet import UResNet as UResNet

for _part in list(vars().values()):  # a file's path is kept as what stands in the file
    if isinstance(_part, type) and issubclass(_part, nn.Module):
        recorded(_part, {"config": lambda given: read(given) if isinstance(given, (str, Path)) else given})
