"""Sparse convolutions on voxels in one to six dimensions."""

from . import functional as functional
from . import models as models
from . import nn as nn
from . import weights as weights
from .kernel import Kernel as Kernel
from .manager import CoordinateManager as CoordinateManager
from .manager import CoordinateMap as CoordinateMap
from .manager import CoordinateMapKey as CoordinateMapKey
from .tensor import SparseTensor as SparseTensor
