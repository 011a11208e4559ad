"""Integration: proposals on the unit cube, how they are learned, and the integrator that uses them."""

from .channels import Channels as Channels
from .channels import learn_shares as learn_shares
from .flow import FlowProposal as FlowProposal
from .gaussians import GaussianMixture as GaussianMixture
from .integrator import IntegrationWarning as IntegrationWarning
from .integrator import Integrator as Integrator
from .integrator import integrate as integrate
from .learn import Candidate as Candidate
from .learn import Learned as Learned
from .learn import learn as learn
from .pool import Pool as Pool
from .proposal import Mapped as Mapped
from .proposal import Proposal as Proposal
from .proposal import Uniform as Uniform
from .proposal import build as build
from .proposal import describe as describe
from .result import Result as Result
from .unweight import Events as Events
from .user import Channel as Channel
from .vegas import VegasMap as VegasMap
