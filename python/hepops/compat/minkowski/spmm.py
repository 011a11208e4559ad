"""Products with sparse matrices given as rows, columns and values; sums in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hepops.core import scatter_add


def spmm(
    rows: Tensor,
    cols: Tensor,
    vals: Tensor,
    size: Sequence[int],
    mat: Tensor,
    is_sorted: bool = False,
    cuda_spmm_alg: int = 1,
) -> Tensor:
    """The product (size[0], C) of a sparse matrix and a dense one.

    Args:
        rows, cols: integer (n). vals: (n), dtype of `mat`.
        size: rows and columns of the sparse matrix.
        mat: (size[1], C).
        is_sorted, cuda_spmm_alg: taken and without effect.

    Differentiable any number of times in `vals` and `mat`. Deterministic.

    Raises:
        ValueError: lengths, sizes or devices differ. TypeError: dtypes differ.
    """
    if not len(rows) == len(cols) == len(vals):
        raise ValueError(f"rows, cols and vals must be equally long, got {len(rows)}, {len(cols)} and {len(vals)}")
    if vals.dtype != mat.dtype:
        raise TypeError(f"vals is {vals.dtype}, mat {mat.dtype}")
    if len(mat) != size[1]:
        raise ValueError(f"mat must have {size[1]} rows, got {len(mat)}")
    product: Tensor = scatter_add(rows.long(), vals[:, None] * mat[cols.long()], int(size[0]))
    return product


def spmm_average(
    rows: Tensor, cols: Tensor, size: Sequence[int], mat: Tensor, cuda_spmm_alg: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of the rows of `mat` that each row of the matrix takes: (means, its entries (2, n), their weights)."""
    if len(rows) != len(cols):
        raise ValueError(f"rows and cols must be equally long, got {len(rows)} and {len(cols)}")
    order = rows.argsort(stable=True)
    entries = torch.stack([rows[order], cols[order]]).long()
    weights = 1 / torch.bincount(entries[0], minlength=int(size[0])).to(mat)[entries[0]]
    return spmm(entries[0], entries[1], weights, size, mat), entries, weights


class MinkowskiSPMMFunction:
    """`spmm` as a function."""

    @staticmethod
    def apply(
        rows: Tensor, cols: Tensor, vals: Tensor, size: Sequence[int], mat: Tensor, cuda_spmm_alg: int = 1
    ) -> Tensor:
        """The product."""
        return spmm(rows, cols, vals, size, mat)


class MinkowskiSPMMAverageFunction:
    """`spmm_average` as a function."""

    @staticmethod
    def apply(rows: Tensor, cols: Tensor, size: Sequence[int], mat: Tensor, cuda_spmm_alg: int = 1) -> Tensor:
        """The means."""
        return spmm_average(rows, cols, size, mat)[0]


EPS = 1e-10
