"""Sparse convolutions on voxels in one to six dimensions."""

from . import functional as functional
from . import models as models
from . import nn as nn
from .convolve import convolve as convolve
from .kernel import Kernel as Kernel
from . import pytree as pytree
from .manager import CoordinateManager as CoordinateManager
from .manager import CoordinateMap as CoordinateMap
from .manager import CoordinateMapKey as CoordinateMapKey
from .pool import pool as pool
from .tensor import SparseTensor as SparseTensor
from .weight_gradient import weight_gradient as weight_gradient
