"""Gauge fields of other programs: NERSC files in and out, ILDG files in. Four dimensions, SU(3).

Direction 0 of a field U[B, mu, x, y, z, t] is the x of the file: `theory.shape` = (L_x, L_y, L_z, L_t).
"""

from .ildg import read_ildg as read_ildg
from .nersc import read_nersc as read_nersc
from .nersc import write_nersc as write_nersc
