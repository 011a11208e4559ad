"""Normalizing flows: fused bijections, layers, training, integration and inference."""

from .bases import Base as Base
from .bases import Normal as Normal
from .bases import Uniform as Uniform
from .coupling import Coupling as Coupling
from .elementwise import Affine as Affine
from .elementwise import Elementwise as Elementwise
from .elementwise import Spline as Spline
from .flow import Flow as Flow
from .integration import Channel as Channel
from .integration import IntegrationWarning as IntegrationWarning
from .integration import Integrator as Integrator
from .integration import integrate as integrate
from .networks import MLP as MLP
from .ready import nsf as nsf
from .spline import rational_quadratic_spline as rational_quadratic_spline
from .transform import Compose as Compose
from .transform import Inverse as Inverse
from .transform import Transform as Transform
