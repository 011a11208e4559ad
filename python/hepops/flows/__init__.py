"""Normalizing flows: fused bijections, layers, training, integration and inference."""

from .bases import Base as Base
from .bases import DiagonalNormal as DiagonalNormal
from .bases import Haar as Haar
from .bases import Mixture as Mixture
from .bases import MultivariateNormal as MultivariateNormal
from .bases import Normal as Normal
from .bases import Product as Product
from .bases import TruncatedNormal as TruncatedNormal
from .bases import Uniform as Uniform
from .bases import UniformSphere as UniformSphere
from .bases import VonMises as VonMises
from .coupling import Coupling as Coupling
from .elementwise import Affine as Affine
from .elementwise import Elementwise as Elementwise
from .elementwise import Spline as Spline
from .flow import Flow as Flow
from .networks import MLP as MLP
from .ready import nsf as nsf
from .spline import rational_quadratic_spline as rational_quadratic_spline
from .transform import Compose as Compose
from .transform import Inverse as Inverse
from .transform import Transform as Transform
