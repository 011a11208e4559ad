"""Lattice field theory: actions and forces, samplers, flows and statistics, on CPU and GPU."""

from hepops.core.constructors import recorded

from . import distributed as distributed
from . import exact as exact
from . import flows as flows
from . import gaugefiles as gaugefiles
from . import group as group
from . import observables as observables
from . import samplers as samplers
from . import statistics as statistics
from . import wilson_flow as wilson_flow
from .convolve import convolve as convolve
from .ensembles import EnsembleWriter as EnsembleWriter
from .ensembles import open_ensemble as open_ensemble
from .phi4 import Phi4 as Phi4
from .residual import residual as residual
from .residual import residual_inverse as residual_inverse
from .samplers import HMC as HMC
from .samplers import Heatbath as Heatbath
from .samplers import IndependenceMetropolis as IndependenceMetropolis
from .samplers import Metropolis as Metropolis
from .samplers import StochasticFlow as StochasticFlow
from .spectral import spectral as spectral
from .sun import SUN as SUN
from .theory import Theory as Theory
from .u1 import U1 as U1
from .wilson import loop_traces as loop_traces
from .wilson import wilson_action as wilson_action
from .wilson import wilson_action_and_force as wilson_action_and_force
from .wilson import wilson_force as wilson_force
from .wilson import wilson_staples as wilson_staples

recorded(Theory)
