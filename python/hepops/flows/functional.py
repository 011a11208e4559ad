"""The operators as functions."""

from .affine import affine as affine
from .circular import circular as circular
from .piecewise import piecewise_linear as piecewise_linear
from .piecewise import piecewise_quadratic as piecewise_quadratic
from .sigmoid_mixture import sigmoid_mixture as sigmoid_mixture
from .spline import rational_quadratic_spline as rational_quadratic_spline
from .spline import rational_quadratic_spline_packed as rational_quadratic_spline_packed
from .squash import squash as squash
