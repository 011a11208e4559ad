"""Sparse convolutions on voxels in one to six dimensions."""
