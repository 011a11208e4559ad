"""Calorimetry: tracks whose energy loss is not given, from residual range and the laws of its fluctuations."""

from .landau import landau_cdf as landau_cdf
from .landau import landau_log_density as landau_log_density
from .landau import landau_quantile as landau_quantile
from .latent import LatentPosterior as LatentPosterior
from .latent import LatentSamples as LatentSamples
from .marginal import MarginalFit as MarginalFit
from .marginal import fit_charges as fit_charges
from .objective import HitObjective as HitObjective
from .objective import HitResiduals as HitResiduals
from .objective import Objective as Objective
from .objective import PixelCharges as PixelCharges
from .ranges import PARTICLES as PARTICLES
from .ranges import RangeTable as RangeTable
from .ranges import pdg_most_probable as pdg_most_probable
from .tracks import StoppingTrack as StoppingTrack
from .tracks import ThroughTrack as ThroughTrack
from .tracks import Tracks as Tracks
from .vavilov import vavilov as vavilov
