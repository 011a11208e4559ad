r"""Noise of the electronics with a given spectrum.

A spectrum file holds the moduli |X_f| of the discrete Fourier transform of n_0 samples, f = 0 ... n_0 / 2, one row per
channel. For n samples at another spacing the power per frequency is kept,

    |X'(f)|^2 = |X(f)|^2 (n / n_0) (spacing / spacing'),

linear between the file's frequencies and 0 beyond them, and the phases are random: named by (seed, event, channel,
frequency). With `gaussian` the moduli fluctuate as well (Rayleigh), as those of stationary Gaussian noise do.
"""

import math
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from hepops.core import philox_normal

from .poisson import PHASES

FREQUENCIES = 1 << 24  # names of frequencies


class NoiseSpectrum:
    """Moduli of a noise spectrum, channel by channel.

    Args:
        modulus: (channels, n_0 / 2 + 1), of samples in units of `scale`.
        spacing: Of those samples [us].
        scale: Size of the unit [ADC].
        gaussian: Also let the moduli fluctuate; else every noise has exactly this spectrum, as in larnd-sim.

    Raises:
        ValueError: a modulus is negative or not finite, or there are fewer than two frequencies.

    Example:
        >>> noise = NoiseSpectrum.white(channels=2, rms=3.0, spacing=0.01)
        >>> noise.sample(torch.tensor([0, 1]), 1000, 0.01, seed=1).shape, noise.rms
        (torch.Size([2, 1000]), tensor([3.0000, 3.0000], dtype=torch.float64))
    """

    def __init__(
        self,
        modulus: "Tensor | np.ndarray[Any, Any]",
        spacing: float,
        scale: float = 1.0,
        gaussian: bool = False,
    ) -> None:
        self.modulus = torch.as_tensor(modulus, dtype=torch.float64)
        if self.modulus.dim() != 2 or self.modulus.shape[1] < 2:
            raise ValueError(f"noise: modulus must be (channels, frequencies >= 2), got {tuple(self.modulus.shape)}")
        bad = ~(torch.isfinite(self.modulus) & (self.modulus >= 0))
        if bool(bad.any()):
            channel, frequency = torch.nonzero(bad)[0].tolist()
            value = self.modulus[channel, frequency].item()
            raise ValueError(
                f"noise: the modulus of channel {channel}, frequency {frequency} is {value}, expected >= 0"
            )
        if not 0 < spacing < math.inf:
            raise ValueError(f"noise: spacing must be positive [us], got {spacing}")
        self.spacing, self.scale, self.gaussian = spacing, scale, gaussian

    @property
    def channels(self) -> int:
        """Channels of all TPCs."""
        return len(self.modulus)

    @property
    def rms(self) -> Tensor:
        """Root mean square of each channel's samples, float64 (channels) [ADC]."""
        return self.scale * _power(self.modulus).sum(1).sqrt()

    @classmethod
    def read(cls, path: str | Path, spacing: float = 0.01, scale: float = 1.0, **options: Any) -> Self:
        """larnd-sim's light_noise files: .npy (channels, frequencies).

        Of module0's file the unit is one of the 16-bit scale (its quietest channels have an rms of 30, half a count of
        10 bits); larnd-sim since its pull request 150 multiplies by 2^(16 - bits), for files in counts.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            modulus = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path}: not a readable .npy file, truncated or foreign ({error})") from None
        try:
            return cls(modulus, spacing, scale, **options)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def white(
        cls, channels: int, rms: float, spacing: float, corner: float = 0.0, n: int = 1024, gaussian: bool = True
    ) -> Self:
        """Built in: power 1 + corner / f up to the samples' Nyquist frequency, of a total rms [ADC], without a mean.

        Args:
            channels: How many, all alike.
            rms: Of the samples [ADC].
            spacing: Of the samples [us].
            corner: Where the 1/f part equals the white one [1/us].
            n: Samples of the spectrum; below the frequency 1 / (n spacing) it is flat.
            gaussian: As above.
        """
        if not rms >= 0 or not corner >= 0:
            raise ValueError(f"noise: rms and corner must be >= 0, got {rms} and {corner}")
        frequency = torch.fft.rfftfreq(n, spacing, dtype=torch.float64)
        shape = (1 + corner / frequency.clamp(min=frequency[1].item())).sqrt()
        shape[0] = 0
        shape = shape * (rms / _power(shape[None]).sum().sqrt())
        return cls(shape.expand(channels, -1), spacing, 1.0, gaussian)

    def moduli(self, channel: Tensor, ticks: int, tick: float) -> Tensor:
        """|X'(f)| for `ticks` samples at a spacing `tick`, float64 (rows, some of ticks / 2 + 1) [ADC].

        As far as the file's frequencies reach; beyond them there is no noise.
        """
        modulus = self.modulus.to(channel.device)[channel]
        last = modulus.shape[1] - 1
        ratio = ticks * tick / (2 * last * self.spacing)  # frequencies of the noise to one of the file
        some = min(ticks // 2, int(last * ratio + 1e-9)) + 1
        x = torch.arange(some, dtype=torch.float64, device=channel.device) / ratio
        first = x.floor().long().clamp(max=last - 1)
        value = modulus[:, first] + (x - first) * (modulus[:, first + 1] - modulus[:, first])
        return self.scale * math.sqrt(ticks / (2 * last) * self.spacing / tick) * value

    def sample(self, channel: Tensor, ticks: int, tick: float, seed: int, index: Tensor | None = None) -> Tensor:
        """Noise on `ticks` ticks, float64 (rows, ticks) [ADC].

        Args:
            channel: Whose spectrum each row has, int64 (rows).
            ticks: How many; an odd number has no Nyquist frequency, all have what belongs to them.
            tick: Their length [us].
            seed: In [0, 2^64).
            index: The rows' names, int64 (rows) below 2^39; None: the channels.

        Raises:
            ValueError: a channel that the spectrum has not.
        """
        if len(channel) and int(channel.max()) >= self.channels:
            raise ValueError(f"noise: there is no channel {int(channel.max())}, the spectrum has {self.channels}")
        modulus = self.moduli(channel, ticks, tick)
        frequencies = torch.arange(modulus.shape[1], device=channel.device)
        name = (channel if index is None else index)[:, None] * FREQUENCIES + frequencies
        z = torch.view_as_complex(philox_normal(name, seed, 0, PHASES, dtype=torch.float64))
        real = torch.zeros(modulus.shape[1], dtype=torch.bool, device=channel.device)
        real[0] = True  # of these the transform is real, and a phase would lose power
        real[-1] |= 2 * (len(real) - 1) == ticks
        if self.gaussian:
            factor = torch.where(real, z.real.to(z.dtype), z / math.sqrt(2))
        else:
            factor = torch.where(real, torch.sign(z.real).to(z.dtype), z / z.abs())
        return torch.fft.irfft(modulus * factor, ticks)


def _power(modulus: Tensor) -> Tensor:
    """What each frequency adds to the mean square of an even number of samples."""
    n = 2 * (modulus.shape[1] - 1)
    power = 2 * modulus**2 / n**2
    power[:, 0] /= 2
    power[:, -1] /= 2
    return power
