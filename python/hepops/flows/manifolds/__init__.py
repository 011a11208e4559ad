"""Flows on tori and spheres (D. J. Rezende et al., arXiv:2002.02428): densities with no seam and no edge."""

from .circle import CircularSpline as CircularSpline
from .circle import MoebiusMixture as MoebiusMixture
from .exponential import ExponentialMap as ExponentialMap
from .ready import sphere as sphere
from .ready import torus as torus
from .rotation import Rotation as Rotation
from .sphere import RecursiveSphere as RecursiveSphere
from .torus import RecursiveTorus as RecursiveTorus
