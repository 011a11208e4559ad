"""Sparse convolutions on voxels in one to six dimensions."""

from . import functional as functional
from . import models as models
from . import nn as nn
from . import plot as plot
from . import pytree as pytree
from . import weights as weights
from .convolve import convolve as convolve
from .depthwise import depthwise as depthwise
from .interpolate import interpolate as interpolate
from .kernel import Kernel as Kernel
from .labels import MergedLabels as MergedLabels
from .labels import merge_labels as merge_labels
from .linear import linear as linear
from .manager import CoordinateManager as CoordinateManager
from .manager import CoordinateMap as CoordinateMap
from .manager import CoordinateMapKey as CoordinateMapKey
from .norm import moments as moments
from .norm import norm_act as norm_act
from .pool import pool as pool
from .segment import segment_broadcast as segment_broadcast
from .segment import segment_reduce as segment_reduce
from .tensor import SparseTensor as SparseTensor
from .weight_gradient import weight_gradient as weight_gradient
