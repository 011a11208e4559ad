"""Continuous flows: dx/dt = g(x, t), whose log-determinant is the integral of the divergence."""

from .divergence import exact_divergence as exact_divergence
from .divergence import probed_divergence as probed_divergence
from .field import Field as Field
from .field import TimeMLP as TimeMLP
from .flow import Continuous as Continuous
