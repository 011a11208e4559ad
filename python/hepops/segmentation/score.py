"""How well voxels are told apart: the confusion matrix and what follows from it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .sample import CLASSES


@dataclass(frozen=True)
class Score:
    """Counts of voxels by (true class, class given), noise left out."""

    matrix: Tensor  # int64 (num_classes, num_classes)

    @classmethod
    def of(cls, label: Tensor, given: Tensor) -> "Score":
        """Of labels (n), -1 where there is none, and the classes given (n)."""
        known, n = label >= 0, len(CLASSES)
        return cls(torch.bincount(label[known] * n + given[known], minlength=n * n).reshape(n, n))

    @property
    def accuracy(self) -> float:
        """Share of all voxels that are right."""
        return float(self.matrix.diagonal().sum()) / max(int(self.matrix.sum()), 1)

    @property
    def recall(self) -> list[float]:
        """Accuracy class by class: share of the voxels of a true class that are right; NaN where there is none."""
        return self._shares(1)

    @property
    def precision(self) -> list[float]:
        """Share of the voxels given a class that are right; NaN where there is none."""
        return self._shares(0)

    @property
    def balanced(self) -> float:
        """Mean of the recalls of the classes that occur."""
        there = [r for r in self.recall if r == r]
        return sum(there) / max(len(there), 1)

    def _shares(self, axis: int) -> list[float]:
        shares: list[float] = (self.matrix.diagonal().double() / self.matrix.sum(axis).double()).tolist()
        return shares

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        table = lambda shares: {name: s if s == s else None for name, s in zip(CLASSES, shares, strict=True)}  # noqa: E731
        return {
            "voxels": int(self.matrix.sum()),
            "accuracy": self.accuracy,
            "mean of the classes": self.balanced,
            "accuracy by class": table(self.recall),
            "precision by class": table(self.precision),
            "matrix (true, given)": self.matrix.tolist(),
        }

    def table(self) -> str:
        """Some lines of text."""
        rows = [f"{'':8}  {'voxels':>8}  {'accuracy':>8}  {'precision':>9}"]
        for name, number, r, p in zip(CLASSES, self.matrix.sum(1).tolist(), self.recall, self.precision, strict=True):
            rows.append(f"{name:8}  {number:8}  {100 * r:7.1f}%  {100 * p:8.1f}%")
        total = f"{'all':8}  {int(self.matrix.sum()):8}  {100 * self.accuracy:7.1f}%"
        return "\n".join([*rows, total, f"{'mean of the classes':19} {100 * self.balanced:7.1f}%"])
