"""Sparse convolutions on voxels in one to six dimensions."""

from .convolve import convolve as convolve
from .depthwise import depthwise as depthwise
from .linear import linear as linear
from .weight_gradient import weight_gradient as weight_gradient
