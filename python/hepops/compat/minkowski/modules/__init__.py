"""Residual and squeeze-and-excitation blocks, as MinkowskiEngine.modules."""

from . import resnet_block as resnet_block
from . import senet_block as senet_block
