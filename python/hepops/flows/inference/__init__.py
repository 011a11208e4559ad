"""Simulation-based inference: posteriors of a simulator's parameters, learned from simulations, and their tests.

`simulate` draws parameters of a prior and runs a simulator, `npe` learns the posterior and `nle` the likelihood, `sbc`
and `tarp` say whether what was learned is calibrated.
"""

from .coverage import SBC as SBC
from .coverage import TARP as TARP
from .coverage import sbc as sbc
from .coverage import tarp as tarp
from .fitting import Training as Training
from .importance import Reweighted as Reweighted
from .importance import Weighted as Weighted
from .importance import reweight as reweight
from .likelihood import NeuralLikelihood as NeuralLikelihood
from .likelihood import SampledPosterior as SampledPosterior
from .likelihood import nle as nle
from .plots import corner as corner
from .posterior import NeuralPosterior as NeuralPosterior
from .posterior import Posterior as Posterior
from .posterior import Summary as Summary
from .posterior import npe as npe
from .priors import Box as Box
from .priors import LogNormal as LogNormal
from .priors import Normal as Normal
from .priors import Prior as Prior
from .priors import Product as Product
from .sampler import Chain as Chain
from .sampler import ensemble as ensemble
from .simulations import Simulations as Simulations
from .simulations import noise as noise
from .simulations import simulate as simulate
