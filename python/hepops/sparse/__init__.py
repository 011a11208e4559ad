"""Sparse convolutions on voxels in one to six dimensions."""

from .interpolate import interpolate as interpolate
from .norm import moments as moments
from .norm import norm_act as norm_act
from .pool import pool as pool
from .segment import segment_broadcast as segment_broadcast
from .segment import segment_reduce as segment_reduce
