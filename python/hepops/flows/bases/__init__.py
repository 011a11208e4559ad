"""Base distributions: where a flow begins. All are drawn from by number and give log densities in float64."""

from .base import Base as Base
from .box import Uniform as Uniform
from .combined import Mixture as Mixture
from .combined import Product as Product
from .groups import Haar as Haar
from .normal import DiagonalNormal as DiagonalNormal
from .normal import MultivariateNormal as MultivariateNormal
from .normal import Normal as Normal
from .sphere import UniformSphere as UniformSphere
from .truncated import TruncatedNormal as TruncatedNormal
from .vonmises import VonMises as VonMises
