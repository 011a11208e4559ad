"""Discriminator thresholds pixel by pixel, from larnd-sim's tables."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from .detector import Detector

_E = 1.602176634e-19  # elementary charge [C], exact (SI 2019)


def read_thresholds(path: str | Path, detector: Detector) -> Tensor:
    """Thresholds of all pixels of a detector.

    Args:
        path: `.npz` with `keys` (pixel ids, ix + nx (iy + ny tpc)), `values`, and `default` for keys that are absent.
            Values below 1e-6 are Coulomb, as larnd-sim's first tables hold them, others electrons.
        detector: The detector of the ids.

    Returns:
        float64 (detector.num_pixels) [e], indexed by `detector.pixel_id(tpc, ix, iy)`.

    Raises:
        ValueError: not such a file, an id outside the detector or twice, a threshold that is not positive and finite.

    References:
        | larnd-sim: CudaDict.load, and pixel2id for the ids
    """
    try:
        with np.load(path) as file:
            keys, values, default = (file[name] for name in ("keys", "values", "default"))
    except FileNotFoundError:
        raise
    except (BadZipFile, KeyError, TypeError, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a table of thresholds with keys, values, default ({error})") from None
    if keys.ndim != 1 or keys.shape != values.shape or keys.dtype.kind not in "iu" or default.size != 1:
        raise ValueError(
            f"{path}: keys, values must be equally long lists, got {keys.shape}, {values.shape} {keys.dtype}"
        )
    outside = keys[(keys < 0) | (keys >= detector.num_pixels)]
    if outside.size:
        raise ValueError(f"{path}: pixel id {outside[0]} is outside {detector.name} of {detector.num_pixels} pixels")
    if np.unique(keys).size < keys.size:
        raise ValueError(f"{path}: a pixel id stands twice")
    thresholds = np.full(detector.num_pixels, _electrons(default.astype(np.float64).reshape(())))
    thresholds[keys] = _electrons(values.astype(np.float64))
    bad = np.flatnonzero(~(np.isfinite(thresholds) & (thresholds > 0)))
    if bad.size:
        raise ValueError(f"{path}: thresholds must be positive [e], got {thresholds[bad[0]]} for pixel id {bad[0]}")
    return torch.from_numpy(thresholds)


def _electrons(values: np.ndarray) -> np.ndarray:
    """A threshold of one electron is far below any, 1e-6 C far above."""
    return np.where(values < 1e-6, values / _E, values)
