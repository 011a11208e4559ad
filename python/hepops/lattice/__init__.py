"""Lattice field theory: actions and forces, samplers, flows and statistics, on CPU and GPU."""

from . import distributed as distributed
from . import gaugefiles as gaugefiles
from . import group as group
from . import observables as observables
from . import samplers as samplers
from .ensembles import EnsembleWriter as EnsembleWriter
from .ensembles import open_ensemble as open_ensemble
from .phi4 import Phi4 as Phi4
from .samplers import HMC as HMC
from .samplers import Heatbath as Heatbath
from .samplers import IndependenceMetropolis as IndependenceMetropolis
from .samplers import Metropolis as Metropolis
from .samplers import StochasticFlow as StochasticFlow
from .spectral import spectral as spectral
from .sun import SUN as SUN
from .theory import Theory as Theory
from .u1 import U1 as U1
