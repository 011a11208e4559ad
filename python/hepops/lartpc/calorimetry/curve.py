"""Tabulated functions of one variable, once continuously differentiable and monotone where the table is."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]


class Curve:
    """Cubic Hermite interpolation of y(x) with given slopes.

    With slopes of the function itself the error is h^4/384 of its fourth derivative. Where the values rise, slopes are
    cut to three times the smaller of the neighbouring chords, which keeps the curve monotone (F. N. Fritsch, R. E.
    Carlson, SIAM J. Numer. Anal. 17 (1980) 238). Outside the table it goes on along a straight line.
    """

    def __init__(self, x: Array, y: Array, slope: Array, monotone: bool = False) -> None:
        chord = np.diff(y) / np.diff(x)
        if monotone:
            if not (chord > 0).all():
                raise ValueError("Curve: the values of a monotone curve must rise")
            most = 3 * np.minimum(np.append(chord[:1], chord), np.append(chord, chord[-1:]))
            slope = np.clip(slope, 0, most)
        self._x, self._y, self._slope = (torch.from_numpy(np.array(a, np.float64)) for a in (x, y, slope))

    @property
    def ends(self) -> tuple[float, float]:
        return float(self._x[0]), float(self._x[-1])

    def __call__(self, q: Tensor) -> Tensor:
        """y at q, any shape, float64; differentiable in q as often as torch is."""
        x, y, slope = (a.to(q.device) for a in (self._x, self._y, self._slope))
        k = (torch.searchsorted(x, q.detach().contiguous()) - 1).clamp(0, len(x) - 2)
        h = x[k + 1] - x[k]
        t = (q - x[k]) / h
        inside = t.clamp(0, 1)
        u = 1 - inside
        value = u * u * ((1 + 2 * inside) * y[k] + inside * h * slope[k])
        value = value + inside * inside * ((1 + 2 * u) * y[k + 1] - u * h * slope[k + 1])
        beyond = torch.where(t < 0, t * h * slope[k], torch.where(t > 1, (t - 1) * h * slope[k + 1], 0.0))
        return value + beyond
