"""Flows of lattice fields: transforms from the base to the data, and builders of whole flows."""

from .continuous import continuous as continuous
from .continuous_gauge import ContinuousGauge as ContinuousGauge
from .continuous_gauge import LoopField as LoopField
from .continuous_scalar import ContinuousScalar as ContinuousScalar
from .continuous_scalar import SineField as SineField
from .residual import Residual as Residual
from .residual import residual as residual
