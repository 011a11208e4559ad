"""What each channel makes of a charge, and back: pedestal, gain, threshold, dead and noisy channels.

    adc = min(round(max(q gain + pedestal - v_cm, 0) 256 / (v_ref - v_cm)), 255)
    q = (adc (v_ref - v_cm) / 256 + v_cm - pedestal) / gain                                [e]

larnd-sim's `fee.digitize`, with constants per pixel; all tensors are indexed by `Detector.pixel_id`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from ..detector import Detector
from ..hits import Hits
from .channel_map import ChannelMap

if TYPE_CHECKING:
    from ..likelihood.chip import Chip

GOOD, DEAD, NOISY = 0, 1, 2
SILENT = 1e12  # threshold of a dead channel whose own means nothing: no charge reaches it [e]
STATUS = ("good", "dead", "noisy")
UNITS = {"gain": "mV/e", "pedestal": "mV", "v_cm": "mV", "v_ref": "mV", "threshold": "e"}
_SOURCES = {"gain": "gain", "pedestal": "v_ped", "v_cm": "v_cm", "v_ref": "v_ref", "threshold": "threshold"}
Missing = Literal["raise", "default", "dead"]


@dataclass(frozen=True)
class Channels:
    """Constants of every channel of a detector.

    `Channels.default(detector)` has those of its front end for all, `Channels.load` those of a file.

    Raises:
        ValueError: a shape does not fit, or a number is without meaning, with the first pixel that has it.

    Example:
        >>> channels = Channels.default(hepops.lartpc.Detector.module0())
        >>> charge, pixel = torch.tensor([20_000.0, 40_000.0]), torch.tensor([0, 1])
        >>> channels.digitise(charge, pixel)
        tensor([ 96, 117])
        >>> channels.calibrate(torch.tensor([96, 117]), pixel).round()
        tensor([19673., 40149.], dtype=torch.float64)
    """

    gain: Tensor  # float64 (num_pixels) [mV/e]
    pedestal: Tensor  # float64 (num_pixels) [mV]
    v_cm: Tensor  # float64 (num_pixels)  the ADC's zero [mV]
    v_ref: Tensor  # float64 (num_pixels)  the ADC's full scale [mV]
    threshold: Tensor  # float64 (num_pixels)  for sim(segments, threshold=...); a dead one without meaning is 1e12 [e]
    status: Tensor  # int64 (num_pixels)    0 good, 1 dead, 2 noisy
    counts: int = 256  # codes of the ADC
    notes: dict[str, int] = field(default_factory=dict)  # remark of a reader -> channels it concerns

    def __post_init__(self) -> None:
        n = self.gain.shape[0] if self.gain.ndim else -1
        for name, column in self.columns().items():
            if tuple(column.shape) != (n,):
                raise ValueError(f"Channels: {name} must have shape ({n},), got {tuple(column.shape)}")
        if self.status.dtype != torch.int64:
            raise ValueError(f"Channels: status must be int64, got {self.status.dtype}")
        alive = self.status != DEAD
        if bool((~alive & ~((self.threshold > 0) & torch.isfinite(self.threshold))).any()):
            object.__setattr__(self, "threshold", torch.where(alive, self.threshold, SILENT))
        for name, good in {
            "status": (self.status >= 0) & (self.status < len(STATUS)),
            "gain": (self.gain > 0) & torch.isfinite(self.gain) | ~alive,
            "threshold": (self.threshold > 0) & torch.isfinite(self.threshold) | ~alive,
            "pedestal": torch.isfinite(self.pedestal) | ~alive,
            "v_ref": torch.isfinite(self.v_ref) & torch.isfinite(self.v_cm) & (self.v_ref > self.v_cm) | ~alive,
        }.items():
            if not bool(good.all()):
                pixel = int(torch.nonzero(~good)[0])
                raise ValueError(
                    f"Channels: {name} of pixel {pixel} is {getattr(self, name)[pixel].item():g}, of "
                    f"{int((~good).sum())} pixels without meaning"
                )

    def __len__(self) -> int:
        return self.gain.shape[0]

    def columns(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("counts", "notes")}

    def replace(self, **changes: Any) -> Self:
        """A copy with some columns changed, checked anew."""
        return replace(self, **changes)

    # ---- makers

    @classmethod
    def default(cls, detector: Detector, threshold: Tensor | None = None) -> Self:
        """The front end of each pixel's module, good all of them.

        Args:
            detector: The detector.
            threshold: Per pixel, such as `read_thresholds` gives, float64 (detector.num_pixels) [e].
        """
        chips = [detector.frontend_of(i) for i in range(len(detector.tpcs))]
        counts = {chip.adc_counts for chip in chips}
        if len(counts) > 1:
            raise ValueError(f"Channels: the modules of {detector.name} have ADCs of {sorted(counts)} codes")
        pixels = torch.tensor([t.nx * t.ny for t in detector.tpcs])
        columns: dict[str, Any] = {
            name: torch.tensor([getattr(c, source) for c in chips], dtype=torch.float64).repeat_interleave(pixels)
            for name, source in _SOURCES.items()
        }
        if threshold is not None:
            columns["threshold"] = threshold.to(torch.float64)
        status = torch.zeros(detector.num_pixels, dtype=torch.int64)
        return cls(**columns, status=status, counts=counts.pop())

    @classmethod
    def load(
        cls,
        path: str | Path,
        detector: Detector,
        channel_map: ChannelMap | None = None,
        *,
        missing: Missing = "raise",
    ) -> "Channels":
        """Channels of a file: our .npz, .json or .csv, larnd-sim's and the modules' files; see docs/file-formats.md.

        Args:
            path: The file.
            detector: The detector of the pixels; columns that the file lacks are its front end's.
            channel_map: Needed where the file names channels instead of pixels.
            missing: Pixels that the file lacks: refuse, take the detector's constants and count, or call them dead.

        Raises:
            ValueError: an unknown column, a pixel outside the detector or twice, or one that is missing.
        """
        from .channels_files import load

        return load(cls.default(detector), Path(path), channel_map, missing)

    def save(self, path: str | Path) -> None:
        """Write .npz, .json or .csv, by the path's ending; `load` gives the same numbers back.

        Raises:
            ValueError: another ending.
        """
        from .channels_files import save

        save(self, Path(path))

    def with_status(self, pixels: Tensor | Iterable[int], status: Literal["good", "dead", "noisy"]) -> Self:
        """A copy in which some pixels (by `Detector.pixel_id`) are good, dead or noisy."""
        if status not in STATUS:
            raise ValueError(f"Channels: status must be one of {STATUS}, got {status!r}")
        index = pixels if isinstance(pixels, Tensor) else torch.tensor([int(p) for p in pixels], dtype=torch.int64)
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(self):
            raise ValueError(f"Channels: pixels must be 0 ... {len(self) - 1}, got {index.tolist()!s:.60}")
        changed = self.status.clone()
        changed[index] = STATUS.index(status)
        return replace(self, status=changed)

    # ---- charge and ADC

    def digitise(self, charge: Tensor, pixel: Tensor) -> Tensor:
        """ADC codes, int64 (num_hits), of charges [e] on pixels (by `Detector.pixel_id`). Not differentiable."""
        scale = self.counts / (self.v_ref - self.v_cm)[pixel]
        voltage = charge.detach() * self.gain[pixel] + (self.pedestal - self.v_cm)[pixel]
        return (voltage.clamp(min=0) * scale).round().clamp(max=self.counts - 1).long()

    def calibrate(self, adc: Tensor, pixel: Tensor) -> Tensor:
        """Charges [e], float64 (num_hits), in the middle of what the ADC code stands for.

        Differentiable in gain, pedestal and the references. A code 0 or `counts` - 1 may stand for any charge beyond.
        """
        step = (self.v_ref - self.v_cm)[pixel] / self.counts
        return (adc * step + (self.v_cm - self.pedestal)[pixel]) / self.gain[pixel]

    def apply(
        self, hits: Hits, detector: Detector, *, noisy: Literal["keep", "drop"] = "keep", digitise: bool = True
    ) -> Hits:
        """Hits as this readout gives them: those of dead channels left out, ADC codes with each channel's constants.

        Args:
            hits: Of `Simulator` or a reader.
            detector: Their detector.
            noisy: Whether hits of noisy channels stay (`status` tells them) or are left out.
            digitise: Compute the codes anew from the charges; False keeps those that the hits have.

        Returns:
            Hits; `reports["channels"]` counts what was left out and what saturates.
        """
        pixel = detector.pixel_id(hits.tpc, hits.ix, hits.iy)
        status = self.status[pixel]
        out = {"dead": status == DEAD, "noisy": status == NOISY}
        keep = ~out["dead"] & (~out["noisy"] if noisy == "drop" else torch.ones_like(out["dead"]))
        kept = hits[keep]
        adc = self.digitise(kept.charge, pixel[keep]) if digitise else kept.adc
        counts = {
            "on dead channels": int(out["dead"].sum()),
            "on noisy channels" + (", kept" if noisy == "keep" else ""): int(out["noisy"].sum()),
            "saturated, kept": int((adc >= self.counts - 1).sum()),
        }
        counts = {name: n for name, n in counts.items() if n}
        return replace(kept, adc=adc, reports={**hits.reports, "channels": counts})

    def chip(self, detector: Detector, *, noisy: Literal["mask", "keep"] = "mask", **changes: Any) -> "Chip":
        """The chips as `HitLikelihood(chip=...)` takes them: these constants per pixel, dead channels masked.

        Neither hits nor silence of masked pixels enter the likelihood. References of the ADC that differ from pixel to
        pixel are expressed by gain and pedestal, to the same codes.

        Args:
            detector: The detector of the pixels; noise and clock are its front end's.
            noisy: Whether noisy channels are masked, too.
            changes: Fields of `Chip` of other values, such as the noise.

        Raises:
            ValueError: another number of pixels, an ADC of another number of codes, or what `Chip.of` refuses.
        """
        from ..likelihood.chip import Chip, rescaled

        front = detector.frontends[0]
        if len(self) != detector.num_pixels:
            raise ValueError(f"Channels: {len(self)} channels, {detector.name} has {detector.num_pixels} pixels")
        if self.counts != front.adc_counts:
            raise ValueError(f"Channels: {self.counts} codes, the ADC of {detector.name} has {front.adc_counts}")
        if noisy not in ("mask", "keep"):
            raise ValueError(f"Channels: noisy must be 'mask' or 'keep', got {noisy!r}")
        good, nominal = self.status != DEAD, Channels.default(detector)
        columns = {n: torch.where(good, c, getattr(nominal, n)) for n, c in self.columns().items() if n != "status"}
        scale = (front.v_cm, front.v_ref)
        gain, pedestal = rescaled(columns["gain"], columns["pedestal"], columns["v_cm"], columns["v_ref"], scale)
        given: dict[str, Any] = {
            "threshold": columns["threshold"], "gain": gain, "pedestal": pedestal, "v_cm": scale[0], "v_ref": scale[1],
            "masked": ~good | (self.status == NOISY) & (noisy == "mask"),
        }  # fmt: skip
        return Chip.of(detector, **{**given, **changes})

    def report(self) -> str:
        """One line."""
        number = ", ".join(f"{int((self.status == k).sum())} {name}" for k, name in enumerate(STATUS))
        return f"{len(self)} channels: {number}" + "".join(f"; {n} {text}" for text, n in self.notes.items())
