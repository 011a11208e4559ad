"""Flows on a lattice: their layers go from the base to the fields, and `Flow` is given the inverse of their stack."""

from .networks import ConvNet as ConvNet
from .networks import EvenNet as EvenNet
from .networks import PeriodicConv as PeriodicConv
from .scalar import AffineCheckerboard as AffineCheckerboard
from .scalar import Checkerboards as Checkerboards
from .scalar import SplineCheckerboard as SplineCheckerboard
from .scalar import affine_flow as affine_flow
from .scalar import spline_flow as spline_flow
