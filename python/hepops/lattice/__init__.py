"""Lattice field theory: actions and forces, samplers, flows and statistics, on CPU and GPU."""

from . import distributed as distributed
from . import flows as flows
from . import group as group
from . import observables as observables
from .phi4 import Phi4 as Phi4
from .spectral import spectral as spectral
from .sun import SUN as SUN
from .theory import Theory as Theory
from .u1 import U1 as U1
