"""The active volume of a detector: the boxes of its TPCs."""

from typing import Any

import numpy as np

from .detector import Detector

Array = np.ndarray[Any, Any]
Vector = tuple[float, float, float]

_AROUND = 5.0  # tracks that scatter are followed so far outside [cm]


class Volume:
    """The active volume: the TPCs' boxes."""

    def __init__(self, detector: Detector) -> None:
        boxes = [[sorted((t.anode, t.cathode)), t.y, t.z] for t in detector.tpcs]
        self.low, self.high = np.array(boxes, np.float64).transpose(2, 0, 1)  # (num_tpcs, 3) each
        self.size = np.prod(self.high - self.low, axis=1)
        self.outer = self.low.min(0), self.high.max(0)

    def point(self, rng: np.random.Generator) -> Array:
        """Uniform in the TPCs."""
        i = rng.choice(len(self.size), p=self.size / self.size.sum())
        return rng.uniform(self.low[i], self.high[i])

    def entry(self, point: Array, direction: Array) -> Array:
        """Where a line to `point` enters the box around all TPCs."""
        with np.errstate(divide="ignore", invalid="ignore"):
            back = np.where(direction > 0, point - self.outer[0], point - self.outer[1]) / direction
        return point - np.nanmin(np.where(direction == 0, np.inf, back)) * direction

    def exit(self, point: Array, direction: Array) -> float:
        """The way to where a line leaves the box around all TPCs [cm]; 0 behind it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = np.where(direction > 0, self.outer[1] - point, self.outer[0] - point) / direction
        return max(float(np.nanmin(np.where(direction == 0, np.inf, ahead))), 0.0)

    def near(self, point: Vector) -> bool:
        """Inside the box around all TPCs, or not far from it: a track that scatters may come back."""
        low, high = self.outer
        return all(low[i] - _AROUND <= point[i] <= high[i] + _AROUND for i in range(3))

    def clip(self, points: Array, loss: Array, time: Array) -> dict[str, Array]:
        """The parts inside the TPCs of steps from point to point, each counted once where TPCs overlap.

        Args:
            points: (num_steps + 1, 3) [cm].
            loss: What each step deposits, (num_steps) [MeV].
            time: At the points, (num_steps + 1) [us].

        Returns:
            start, end [cm], dE [MeV], dEdx [MeV/cm], t0 [us], as in Segments.
        """
        a, b = points[:-1, None], points[1:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            faces = np.stack([(self.low - a) / (b - a), (self.high - a) / (b - a)])
        # A step parallel to a pair of faces is between them for ever, or never.
        parallel = np.broadcast_to(b == a, faces.shape[1:])
        between = (a >= self.low) & (a <= self.high)
        near = np.where(parallel, np.where(between, -np.inf, np.inf), faces.min(0)).max(-1)
        far = np.where(parallel, np.where(between, np.inf, -np.inf), faces.max(0)).min(-1)
        near, far = np.clip(near, 0, 1), np.clip(far, 0, 1)
        order = np.argsort(near, axis=1, kind="stable")
        near, far = np.take_along_axis(near, order, 1), np.take_along_axis(far, order, 1)
        reached = np.maximum.accumulate(far, axis=1)
        near[:, 1:] = np.maximum(near[:, 1:], reached[:, :-1])
        step, box = np.nonzero((far - near > 1e-12) & (loss > 0)[:, None])
        t0, t1 = near[step, box], far[step, box]
        first, move = points[step], np.diff(points, axis=0)[step]
        return dict(
            start=first + t0[:, None] * move,
            end=first + t1[:, None] * move,
            dE=loss[step] * (t1 - t0),
            dEdx=loss[step] / np.linalg.norm(move, axis=1),
            t0=time[step] + (t0 + t1) / 2 * np.diff(time)[step],
        )
