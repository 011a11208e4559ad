"""The operators as functions."""

from .spline import rational_quadratic_spline as rational_quadratic_spline
from .spline import rational_quadratic_spline_packed as rational_quadratic_spline_packed
