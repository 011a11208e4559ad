"""SU(N): exponential, projection, eigenphases, coordinates in the algebra."""

from .algebra import from_coordinates as from_coordinates
from .algebra import generators as generators
from .algebra import to_coordinates as to_coordinates
from .algebra import traceless_antihermitian as traceless_antihermitian
from .chain import adjoint as adjoint
from .chain import chain as chain
from .compress import compress as compress
from .compress import expand as expand
from .eigen import eig as eig
from .eigen import eigh as eigh
from .exponential import exp as exp
from .haar import haar_log_density as haar_log_density
from .haar import random as random
from .project import log as log
from .project import project as project
