"""One lattice over many ranks: halos, sums in a fixed order, theories and couplings on a part of the lattice."""

from .coupling import DecomposedCoupling as DecomposedCoupling
from .grid import Grid as Grid
from .halo import halo as halo
from .theory import Decomposed as Decomposed
