r"""The answer of a SiPM and its amplifier to one photoelectron, of area 1, and convolutions with it.

Built in: h(t) = (tau^2 + w^2) / (w tau^2) e^{-t/tau} sin(t/w), a damped circuit, whose integral is known,

    H(t) = 1 - e^{-t/tau} [cos(t/w) + (w/tau) sin(t/w)]

Measured: samples, taken as constant over their length. A photoelectron counts as being at the middle of its tick, so
that tick k of the kernel is H((k + 1/2) tick) - H((k - 1/2) tick): its sum is 1 whatever the tick.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

NEGLIGIBLE = 1e-17  # what the built-in impulse leaves behind its end: below the rounding of its sum


class Impulse:
    """A SiPM's impulse response of area 1.

    Example:
        >>> kernel = Impulse.damped(0.055, 0.095).kernel(0.001)
        >>> round(kernel.sum().item(), 12)
        1.0
    """

    def __init__(self, time: Tensor, area: Tensor) -> None:
        """From points of the integrated response: times [us] and areas, linear between them. Use the constructors."""
        self._time, self._area = time, area
        self._damped: tuple[float, float] | None = None

    @classmethod
    def damped(cls, response_time: float = 0.055, oscillation_period: float = 0.095) -> "Impulse":
        """The built-in one: decay time tau and w, the period in radians [us]."""
        for name, value in (("response_time", response_time), ("oscillation_period", oscillation_period)):
            if not 0 < value < math.inf:
                raise ValueError(f"Impulse: {name} must be positive [us], got {value}")
        impulse = cls(torch.zeros(1), torch.zeros(1))
        impulse._damped = (float(response_time), float(oscillation_period))
        return impulse

    @classmethod
    def measured(cls, samples: "Tensor | np.ndarray[Any, Any]", spacing: float) -> "Impulse":
        """From samples at a spacing [us]; normalised to area 1."""
        values = torch.as_tensor(samples, dtype=torch.float64)
        if values.dim() != 1 or len(values) < 1 or not bool(torch.isfinite(values).all()):
            raise ValueError(f"Impulse: samples must be a list of finite numbers, got shape {tuple(values.shape)}")
        if not 0 < spacing < math.inf:
            raise ValueError(f"Impulse: spacing must be positive [us], got {spacing}")
        total = values.sum()
        if not total.abs() > 1e-9 * values.abs().sum():
            raise ValueError(f"Impulse: the samples' sum must not vanish, got {total.item():.3g}")
        area = torch.cat((torch.zeros(1, dtype=torch.float64), torch.cumsum(values / total, 0)))
        return cls(torch.arange(len(area), dtype=torch.float64) * spacing, area)

    @classmethod
    def read(cls, path: str | Path, spacing: float = 0.01) -> "Impulse":
        """From a .npy file of samples, larnd-sim's sipm_impulse.npy (spacing 0.01 us)."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            samples = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path}: not a readable .npy file, truncated or foreign ({error})") from None
        try:
            return cls.measured(samples, spacing)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None

    @property
    def length(self) -> float:
        """Until when the response lasts [us]."""
        if self._damped is None:
            return float(self._time[-1])
        return -self._damped[0] * math.log(NEGLIGIBLE)

    def area(self, time: Tensor) -> Tensor:
        """The share of the area before a time [us], H(t)."""
        if self._damped is not None:
            tau, w = self._damped
            t = time.clamp(min=0)
            ringing = torch.cos(t / w) + w / tau * torch.sin(t / w)
            return torch.where(time > 0, 1 - torch.exp(-t / tau) * ringing, torch.zeros_like(t))
        last = len(self._time) - 1
        x = (time / self._time[1]).clamp(0, last)
        first = x.floor().long().clamp(max=last - 1)
        return self._area[first] + (x - first) * (self._area[first + 1] - self._area[first])

    def kernel(self, tick: float, device: "torch.device | None" = None) -> Tensor:
        """Areas on successive ticks of a photoelectron at the middle of the first, float64 (ticks); the sum is 1."""
        ticks = max(1, math.ceil(self.length / tick + 0.5))
        edges = (torch.arange(ticks + 1, dtype=torch.float64) - 0.5) * tick
        kernel = self.area(edges).diff()
        return (kernel / kernel.sum()).to(device)


def convolve(signal: Tensor, kernel: Tensor, full: bool = False) -> Tensor:
    """signal (..., ticks) with a causal kernel (length); with `full` the tail behind the last tick is kept.

    By Fourier transforms of float64, padded so that nothing wraps around: linear, and differentiable in both. The
    rounding is 1e-16 of the largest value of a row.
    """
    ticks = signal.shape[-1]
    total = ticks + len(kernel) - 1
    padded = _fast_length(total)
    spectrum = torch.fft.rfft(signal, padded) * torch.fft.rfft(kernel, padded)
    return torch.fft.irfft(spectrum, padded)[..., : total if full else ticks]


def _fast_length(n: int) -> int:
    """The least 2^a 3^b 5^c that is even and not below n."""
    best = 1 << max(1, (n - 1).bit_length())
    five = 1
    while five < best:
        three = five
        while three < best:
            x = three * (1 << max(1, math.ceil(math.log2(n / three)))) if three < n else three * 2
            if n <= x < best:
                best = x
            three *= 3
        five *= 5
    return best
