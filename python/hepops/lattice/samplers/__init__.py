"""Samplers of lattice theories, batched over chains: HMC, heatbath, Metropolis, those that use a flow, resampling."""

from .chains import Chains as Chains
from .heatbath import Heatbath as Heatbath
from .hmc import HMC as HMC
from .hmc import Reversibility as Reversibility
from .independence import IndependenceMetropolis as IndependenceMetropolis
from .independence import metropolis_in_turn as metropolis_in_turn
from .langevin import Langevin as Langevin
from .metropolis import Metropolis as Metropolis
from .resampling import resample as resample
from .run import Run as Run
from .sampler import Sampler as Sampler
from .stochastic import Between as Between
from .stochastic import StochasticFlow as StochasticFlow
from .stochastic import Work as Work
