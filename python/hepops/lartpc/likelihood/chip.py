"""What a likelihood knows of the chips: thresholds, noise, ADC, clock, and the rate of hits that nobody explains."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from hepops.lartpc._model import nearest
from hepops.lartpc.detector import Detector

from .formula import Clock

Value = float | Tensor

# What may be fitted of a chip, in the units of its fields.
FITTED = ("threshold", "gain", "pedestal", "reset_noise", "uncorrelated_noise", "discriminator_noise")
NOISE = FITTED[3:]


@dataclass(frozen=True)
class Chip:
    """The chips of a detector. What is a `Value` is one number, or a tensor of one per pixel, by `Detector.pixel_id`.

    Raises:
        ValueError: a number that is impossible, by name.

    Example:
        >>> chip = Chip.of(Detector.module0())
        >>> chip.threshold, round(chip.width, 1)
        (5000.0, 975.0)
        >>> chip.with_values(threshold=5200.0).threshold
        5200.0
    """

    threshold: Value  # discriminator [e]
    reset_noise: Value  # standard deviation [e]
    uncorrelated_noise: Value  # [e]
    discriminator_noise: Value  # [e]
    gain: Value  # [mV/e]
    pedestal: Value  # V_ped [mV]
    v_cm: float  # the ADC's zero [mV]
    v_ref: float  # the ADC's full scale [mV]
    adc_bits: int  # 0: no ADC, charges are known as they are
    clock: Clock
    foreign_rate: float = 1e-7  # hits that nothing explains, of any code alike [1/(pixel us)]
    silence: float = 1e-12  # probability that a stretch without hits has none for another reason (dead, lost)

    def __post_init__(self) -> None:
        for name in FITTED:
            value = torch.as_tensor(getattr(self, name), dtype=torch.float64)
            low = -math.inf if name == "pedestal" else 0.0
            if value.ndim > 1 or not bool((value.isfinite() & (value >= low)).all()):
                raise ValueError(f"Chip: {name} must be finite and not negative, got {_worst(value, low)}")
            if name not in ("pedestal", "reset_noise") and bool((value == 0).any()):
                raise ValueError(
                    f"Chip: {name} must be positive, got 0: the probability would be a step, no likelihood"
                )
        if not self.v_ref > self.v_cm:
            raise ValueError(f"Chip: v_ref must exceed v_cm [mV], got {self.v_ref} and {self.v_cm}")
        if not 0 <= self.adc_bits <= 24:
            raise ValueError(f"Chip: adc_bits must be 0 to 24, got {self.adc_bits}")
        if not (math.isfinite(self.foreign_rate) and self.foreign_rate >= 0):
            raise ValueError(f"Chip: foreign_rate must not be negative [1/(pixel us)], got {self.foreign_rate}")

        if not 0 <= self.silence < 1:
            raise ValueError(f"Chip: silence must be in [0, 1), got {self.silence}")

    @classmethod
    def of(cls, detector: Detector, **changes: Any) -> "Chip":
        """The chip that a detector states; `changes` are fields of other values."""
        chip = detector.frontend
        stated = {
            "threshold": chip.threshold,
            "reset_noise": chip.reset_noise,
            "uncorrelated_noise": chip.uncorrelated_noise,
            "discriminator_noise": chip.discriminator_noise,
            "gain": chip.gain,
            "pedestal": chip.v_ped,
            "v_cm": chip.v_cm,
            "v_ref": chip.v_ref,
            "adc_bits": chip.adc_bits,
            "clock": Clock(detector.tick, chip.integration, chip.reset, chip.busy, chip.buffer_risetime),
        }
        known = [f.name for f in fields(cls)]
        for name in changes:
            if name not in known:
                raise ValueError(f"Chip: unknown name {name!r}, {nearest(name, known)}")
        return cls(**{**stated, **changes})

    def with_values(self, **values: Value) -> "Chip":
        """A copy with other values of what may be fitted."""
        for name in values:
            if name not in FITTED:
                raise ValueError(f"Chip: {name!r} cannot be fitted, {nearest(name, list(FITTED))}")
        changes: dict[str, Any] = dict(values)
        return replace(self, **changes)

    def values(self) -> Mapping[str, Value]:
        """What may be fitted, by name."""
        return {name: getattr(self, name) for name in FITTED}

    @property
    def codes(self) -> int:
        """Number of ADC codes."""
        return 1 << self.adc_bits

    @property
    def width(self) -> float:
        """Of one ADC code, at the mean gain [e]."""
        gain = float(torch.as_tensor(self.gain, dtype=torch.float64).mean())
        return (self.v_ref - self.v_cm) / self.codes / gain

    def foreign_probability(self) -> float:
        """Of a foreign hit at one tick with one code (all codes alike); without an ADC per e, up to its full scale."""
        per_tick = self.foreign_rate * self.clock.tick
        if self.adc_bits == 0:
            return per_tick * float(torch.as_tensor(self.gain).mean()) / (self.v_ref - self.v_cm)
        return per_tick / self.codes

    def at(self, name: str, pixel: Tensor) -> Tensor:
        """A `Value` for each of some pixels (`Detector.pixel_id`), float64 (1) where it is one number."""
        value = torch.as_tensor(getattr(self, name), dtype=torch.float64, device=pixel.device).reshape(-1)
        if value.numel() == 1:
            return value
        if pixel.numel() and int(pixel.max()) >= value.numel():
            raise ValueError(f"Chip: {name} has {value.numel()} values, there is none for pixel id {int(pixel.max())}")
        return value[pixel]

    def edges(self, adc: Tensor, charge: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Edges of the charge of readings, and their slopes.

        The ADC rounds (q gain + V_ped - V_cm) 256 / (V_ref - V_cm), so that code c holds c - 1/2 to c + 1/2; code 0
        reaches down to -inf and the last one up to inf.

        Args:
            adc: Codes (num_hits).
            charge: Used in place of the code where adc_bits is 0 (num_hits) [e].
            pixel: Of each reading (num_hits).

        Returns:
            Edges (2, num_hits) [e], their derivative with respect to the gain and to the pedestal, (2, num_hits);
            0 where an edge is infinite.

        Raises:
            ValueError: a code that the ADC has not.
        """
        if self.adc_bits == 0:
            q = charge.detach().double()
            if not bool(q.isfinite().all()):
                raise ValueError("measured: charges must be finite where there is no ADC")
            zero = q.new_zeros(2, len(q))
            return q.expand(2, -1).contiguous(), zero, zero
        code = adc.detach().double().round()
        bad = (~(code >= 0) | ~(code < self.codes)).nonzero()[:, 0]
        if len(bad):
            raise ValueError(f"measured: adc must be 0 to {self.codes - 1}, got {float(adc[bad[0]]):g}")
        gain, pedestal = self.at("gain", pixel), self.at("pedestal", pixel)
        volts = (code + code.new_tensor([[-0.5], [0.5]])) * ((self.v_ref - self.v_cm) / self.codes)
        q = (volts + self.v_cm - pedestal) / gain
        per_gain, per_pedestal = -q / gain, (-1 / gain).expand_as(q)
        ends = torch.stack([code == 0, code == self.codes - 1])
        infinite = code.new_tensor([[-torch.inf], [torch.inf]]).expand_as(q)
        return (
            torch.where(ends, infinite, q).contiguous(),
            torch.where(ends, 0.0, per_gain),
            torch.where(ends, 0.0, per_pedestal),
        )


def _worst(value: Tensor, low: float) -> float:
    flat = value.reshape(-1)
    bad = ~(flat.isfinite() & (flat >= low))
    return float(flat[bad][0]) if bool(bad.any()) else float("nan")
