"""Sparse convolutions on voxels in one to six dimensions."""

from .pool import pool as pool
