"""Integration: proposals on the unit cube, how they are learned, and the integrator that uses them."""

from .channels import Channels as Channels
from .learn import Candidate as Candidate
from .learn import Learned as Learned
from .learn import learn as learn
from .proposal import Mapped as Mapped
from .proposal import Proposal as Proposal
from .proposal import Uniform as Uniform
from .proposal import build as build
from .proposal import describe as describe
