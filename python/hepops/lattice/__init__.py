"""Lattice field theory: actions and forces, samplers, flows and statistics, on CPU and GPU."""

from . import distributed as distributed
from . import group as group
from . import observables as observables
from .phi4 import Phi4 as Phi4
from .spectral import spectral as spectral
from .sun import SUN as SUN
from .theory import Theory as Theory
from .u1 import U1 as U1
from .wilson import loop_traces as loop_traces
from .wilson import wilson_action as wilson_action
from .wilson import wilson_action_and_force as wilson_action_and_force
from .wilson import wilson_force as wilson_force
from .wilson import wilson_staples as wilson_staples
