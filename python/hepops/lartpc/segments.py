"""Energy deposits along straight segments of charged tracks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Straight segments of charged tracks in the file's frame, on any device.

    What a reader left out is counted in `excluded`, what it kept but noticed in `notes`: nothing is silent.
    An index (mask, slice, index tensor) gives the Segments that it selects.

    Raises:
        ValueError: a shape does not fit.
    """

    event: Tensor  # int64 (num_segments)       >= 0
    start: Tensor  # float64 (num_segments, 3)  x y z [cm]
    end: Tensor  # float64 (num_segments, 3)    x y z [cm]
    dE: Tensor  # float64 (num_segments)        energy deposited [MeV]
    dEdx: Tensor  # float64 (num_segments)      per length of the true path [MeV/cm]
    t0: Tensor  # float64 (num_segments)        time of the deposit [us]
    pdg: Tensor  # int64 (num_segments)         particle code of the Particle Data Group
    track: Tensor  # int64 (num_segments)
    excluded: dict[str, int] = field(default_factory=dict)  # reason -> segments left out
    notes: dict[str, int] = field(default_factory=dict)  # remark -> how many it concerns

    def __post_init__(self) -> None:
        n = self.event.shape[0] if self.event.ndim else -1
        for name, column in self.columns().items():
            shape = (n, 3) if name in ("start", "end") else (n,)
            if tuple(column.shape) != shape:
                raise ValueError(f"Segments: {name} must have shape {shape}, got {tuple(column.shape)}")

    def __len__(self) -> int:
        return self.event.shape[0]

    def __repr__(self) -> str:
        where = f"; {self.extent()}" if len(self) else ""
        return f"Segments({self.report()}{where}; {self.event.device})"

    def __getitem__(self, index: Any) -> Self:
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        return self._map(lambda column: column[index])

    def columns(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("excluded", "notes")}

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return self._map(lambda column: column.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        changes: dict[str, Any] = {name: change(column) for name, column in self.columns().items()}
        return replace(self, **changes)

    @property
    def events(self) -> Tensor:
        """The events' ids, sorted, each once, int64 (num_events)."""
        return torch.unique(self.event)

    def select(self, events: slice | Iterable[int]) -> Self:
        """The segments of some events.

        Args:
            events: Ids; or a slice, which counts in the sorted list of ids: slice(0, 10) is the first ten events.

        Raises:
            ValueError: an id that is not there, or no event selected.
            TypeError: a mask, which belongs in ``segments[mask]``.
        """
        known = self.events
        if isinstance(events, slice):
            wanted = known[events]
        elif isinstance(events, Tensor) and events.dtype == torch.bool:
            raise TypeError(f"events must be ids, got a mask of {len(events)}: segments[mask] selects by a mask")
        else:
            wanted = torch.tensor([int(e) for e in events], dtype=torch.int64, device=known.device)
            missing = wanted[~torch.isin(wanted, known)]
            if len(missing):
                raise ValueError(f"events: there is no event {int(missing[0])} among {len(known)}")
        if not len(wanted):
            raise ValueError(f"events: {events} selects none of {len(known)} events")
        return self[torch.isin(self.event, wanted)]

    def sort(self) -> Self:
        """By event, keeping the order within an event."""
        return self[torch.argsort(self.event, stable=True)]

    @classmethod
    def cat(cls, parts: Sequence["Segments"]) -> "Segments":
        """One after the other; counts are added."""
        if not parts:
            raise ValueError("Segments.cat: needs at least one part")
        columns = {name: torch.cat([p.columns()[name] for p in parts]) for name in parts[0].columns()}
        return cls(**columns, excluded=_add(p.excluded for p in parts), notes=_add(p.notes for p in parts))

    def extent(self) -> str:
        """The box of all finite positions, in words: to compare with a detector's, and to notice another unit."""
        ends = torch.cat([self.start, self.end]).detach()
        return box(
            [(float(c.min()), float(c.max())) for c in (column[column.isfinite()] for column in ends.T) if len(c)]
        )

    def report(self) -> str:
        """One line: how much there is, what was left out and what was noticed."""
        counts = lambda d: ", ".join(f"{n} {reason}" for reason, n in d.items()) or "none"  # noqa: E731
        energy = float(self.dE.sum()) if len(self) else 0.0
        head = f"{len(self)} segments of {len(self.events)} events, {energy:.6g} MeV"
        return f"{head}; excluded: {counts(self.excluded)}" + (f"; notes: {counts(self.notes)}" if self.notes else "")


def box(ranges: Sequence[tuple[float, float]]) -> str:
    """Ranges of x, y and z [cm] in words."""
    return (
        ", ".join(f"{axis} {low:.4g} ... {high:.4g}" for axis, (low, high) in zip("xyz", ranges, strict=False)) + " cm"
    )


def _add(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for d in counts:
        for reason, n in d.items():
            total[reason] = total.get(reason, 0) + n
    return total
