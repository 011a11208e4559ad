"""The simulator of a detector whose modules differ: in pixel pitch, front end, response or physical parameters."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .detector import Detector
from .field_map import FieldMap
from .hits import Hits
from .parameters import Parameters
from .pieces import Pieces, count_nodes
from .response import Response, Table
from .segments import Segments
from .simulator import NAMES, Block, Deposits, Simulator, _join
from .waveforms import Waveforms

Source = str | Path | np.ndarray[Any, Any] | Tensor | Table


class _Group(Simulator):
    """Modules that are alike: they simulate what the whole has cut for them, in the whole's numbering."""

    def __init__(self, detector: Detector, modules: tuple[int, ...], *arguments: Any, **options: Any):
        super().__init__(detector, *arguments, **options)
        self.modules_of = modules
        self.tpcs_of = torch.tensor([i for i, t in enumerate(detector.tpcs) if t.module in modules])

    def _pieces(self, segments: Segments | Pieces) -> Pieces:
        """Those of the group; the whole hands over what it has cut once for all."""
        return segments if isinstance(segments, Pieces) else self.own(super()._pieces(segments))

    def own(self, pieces: Pieces) -> Pieces:
        return pieces.select(self.holds(pieces.tpc))

    def holds(self, tpc: Tensor) -> Tensor:
        return torch.isin(tpc, self.tpcs_of.to(tpc.device))

    def drift(self, segments: Segments) -> Deposits:
        every = super().drift(segments)
        mine = self.holds(every.tpc)
        names = ("segment", "event", "tpc", "electrons", "time", "sigma_t", "sigma_l")
        columns: dict[str, Any] = {name: getattr(every, name)[mine] for name in names}
        return replace(every, **columns)


class ModularSimulator(Simulator):
    """A `Simulator` of several modules that differ, with global numbers of TPCs.

    Args:
        detector: Any number of modules.
        parameters: For all modules; or by number of the module; None: the nominal ones of each module.
        response: As for `Simulator`, for all modules; or by number of the module. A table belongs to a pitch: where
            pitches differ it must be given by module.
        dtype: Of currents and hits, float32 or float64.
        per_module: Names of parameters that every module has for itself: they are called "lifetime@3" for module 3, in
            the simulator and in `tangents`. None: those whose given values differ. All others are shared.
        options: The other arguments of `Simulator`.

    Every module is simulated as it is alone, bit by bit, but for the noise, which is named by the TPC's number in the
    whole. `row` of the hits counts group after group of modules, in the order of `waveforms`; hits are sorted as ever.

    Raises:
        ValueError: an unknown name or module, or one table for pixels of several pitches.

    Example:
        >>> from hepops.lartpc import Detector, ModularSimulator
        >>> sim = ModularSimulator(Detector.two_by_two(), per_module=("lifetime",))
        >>> [name for name, _ in sim.named_parameters()][:2], len(sim.groups)
        (['lifetime@1', 'lifetime@2'], 4)
    """

    def __init__(
        self,
        detector: Detector,
        parameters: Parameters | Mapping[int, Parameters] | None = None,
        response: "Source | Mapping[int, Source]" = "builtin",
        dtype: torch.dtype = torch.float32,
        *,
        per_module: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        nn.Module.__init__(self)
        numbers = detector.module_numbers
        values = _by_module("parameters", parameters, numbers, lambda n: detector.view(n).nominal)
        sources = _by_module("response", response, numbers, lambda n: "builtin")
        _refuse_one_table(detector, response)
        own = _differing(values) if per_module is None else tuple(per_module)
        for name in own:
            if name not in NAMES:
                raise ValueError(f"Simulator: per_module names {name!r}; there are {list(NAMES)}")
        self.per_module = own
        self.detector, self.dtype = detector, dtype
        groups: dict[Any, list[int]] = {}
        for n in numbers:
            view = detector.view(n)
            key = (view.pixel_pitch, view.frontend, id(sources[n]), n if own else None)
            groups.setdefault(key, []).append(n)
        self.groups = nn.ModuleList()
        made = [
            _Group(detector.view(ns[0]), tuple(ns), values[ns[0]], sources[ns[0]], dtype, **options)
            for ns in groups.values()
        ]
        for name in NAMES:  # in front of the groups, so that they bear these names
            for group in made:
                if name in own:
                    self.register_parameter(f"{name}@{group.modules_of[0]}", getattr(group, name))
                else:
                    group.register_parameter(name, getattr(made[0], name))
            if name not in own:
                self.register_parameter(name, getattr(made[0], name))
        self.groups.extend(made)
        first = made[0]
        self.table = None
        self.model, self.step, self.reach, self.length = first.model, first.step, first.reach, first.length
        self.lead, self.chunk, self.far_field = first.lead, first.chunk, first.far_field
        self.attachment, self.density_law = first.attachment, first.density_law

    @property
    def field_map(self) -> tuple[FieldMap, ...] | None:
        """One map for each TPC of the whole, or None."""
        return next(self._groups).field_map

    @field_map.setter
    def field_map(self, maps: FieldMap | Sequence[FieldMap] | None) -> None:
        for group in self._groups:
            group.field_map = maps

    @property
    def _groups(self) -> Iterator[_Group]:
        return iter(cast(list[_Group], list(self.groups)))

    def module(self, number: int) -> Simulator:
        """The simulator of one module, or of those that are simulated with it, in the numbering of the whole.

        It shares its parameters with the whole; a fit of it alone to hits of these modules is a fit per module.

        Raises:
            ValueError: there is no such module.
        """
        for group in self._groups:
            if number in group.modules_of:
                return group
        raise ValueError(f"module must be one of {list(self.detector.module_numbers)}, got {number}")

    def parameters_of(self, module: int) -> Parameters:
        """The present values of one module, detached."""
        return self.module(module).parameters_now

    @property
    def parameters_now(self) -> Parameters:
        """The present values where all modules share them; where they do not, those of the first module."""
        return next(self._groups).parameters_now

    def extra_repr(self) -> str:
        own = f", per_module={list(self.per_module)}" if self.per_module else ""
        return f"{self.detector.name}, {len(self.detector.module_numbers)} modules, dtype={self.dtype}{own}"

    def response(self, module: int | None = None) -> Response:
        """The response of a module, by default of the first."""
        return self.module(self.detector.module_numbers[0] if module is None else module).response()

    def _vector(self) -> Tensor:
        values = [group._vector() for group in self._groups]  # each refuses what is out of range
        return values[0]

    def drift(self, segments: Segments) -> Deposits:
        """As `Simulator.drift`, group after group of modules."""
        parts = [group.drift(segments) for group in self._groups]
        names = ("segment", "event", "tpc", "electrons", "time", "sigma_t", "sigma_l")
        columns: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return replace(parts[0], **columns)

    def waveforms(self, segments: Segments, tangents: Sequence[str] = ()) -> Waveforms:
        """As `Simulator.waveforms`; rows are sorted within each group of modules, and the groups follow each other."""
        pieces = self._pieces(segments)
        parts = []
        for group in self._groups:
            names, rows = self._directions(group, tangents)
            waves = group.waveforms(cast(Segments, group.own(pieces)), names)
            slopes = _spread(waves.tangents, rows, len(tangents), waves.values)
            parts.append(replace(waves, tangents=slopes, tangent_names=tuple(tangents)))
        return _joined(parts, self._reports(pieces))

    def _blocks(self, segments: Segments, tangents: Sequence[str]) -> Iterator[Block]:
        """Group after group of modules."""
        pieces = self._pieces(segments)
        for group in self._groups:
            names, rows = self._directions(group, tangents)
            for chunk in group._chunks(group.own(pieces)):
                waves = group._waveforms(chunk, names)[0]
                slopes = _spread(waves.tangents, rows, len(tangents), waves.values)
                whole = replace(waves, tangents=slopes, tangent_names=tuple(tangents))
                yield Block(group.detector, whole, group.tpcs_of)

    def _waveforms(self, pieces: Pieces, tangents: Sequence[str] = ()) -> Any:
        raise ValueError(
            f"ModularSimulator: this works on modules that are alike, {self.detector.name}'s differ: take sim.module(n)"
        )

    def forward(
        self,
        segments: Segments,
        seed: int | None = None,
        *,
        tangents: Sequence[str] = (),
        threshold: float | Tensor | None = None,
        truth: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Hits:
        """As `Simulator.forward`."""
        pieces = self._pieces(segments)
        total, done, rows = int(count_nodes(pieces, self.step).sum()), 0, 0
        parts: list[Hits] = []
        for group in self._groups:
            own = group.own(pieces)
            names, at = self._directions(group, tangents)
            told = None if progress is None else _shifted(progress, done, total)
            hits: Hits = group(own, seed, tangents=names, threshold=threshold, truth=truth, progress=told)
            parts.append(
                replace(
                    hits,
                    row=hits.row + rows,
                    time_tangents=_spread(hits.time_tangents, at, len(tangents), hits.time),
                    charge_tangents=_spread(hits.charge_tangents, at, len(tangents), hits.charge),
                    tangent_names=tuple(tangents),
                )
            )
            rows, done = rows + hits.reports["pixels"], done + int(count_nodes(own, self.step).sum())
        sums = {n: math.fsum(p.reports[n] for p in parts) for n in ("electrons_arriving", "electrons_lost")}
        hits = _join(parts, self._reports(pieces) | sums)
        return replace(hits, reports=hits.reports | self._reports(pieces)).sort()

    def universes(
        self, parameters: "Sequence[Parameters] | Mapping[str, Any]", segments: Segments, **options: Any
    ) -> Any:
        """Not of modules that differ.

        Raises:
            ValueError: always; `sim.module(n).universes(...)` are those of one module.
        """
        raise ValueError(
            f"Simulator.universes: the modules of {self.detector.name} differ; ask sim.module(n).universes(...) for one"
        )

    def _directions(self, group: _Group, tangents: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
        """The tangents that move a group, by the group's own names, and which of all they are."""
        names, rows = [], []
        for k, name in enumerate(tangents):
            base, at, number = name.partition("@")
            if (base in self.per_module) != bool(at) or (at and name not in self._parameters):
                raise ValueError(f"Simulator: no parameter {name!r}; there are {[*self._parameters, 'time_offset']}")
            if not at or number == str(group.modules_of[0]):
                names.append(base)
                rows.append(k)
        return tuple(names), rows


def _by_module(what: str, given: Any, numbers: Sequence[int], default: Callable[[int], Any]) -> dict[int, Any]:
    if given is None:
        return {n: default(n) for n in numbers}
    if not isinstance(given, Mapping):
        return dict.fromkeys(numbers, given)
    for n in given:
        if n not in numbers:
            raise ValueError(f"Simulator: {what} names module {n}, there are {list(numbers)}")
    return {n: given[n] if n in given else default(n) for n in numbers}


def _refuse_one_table(detector: Detector, response: Any) -> None:
    pitches = sorted({detector.view(n).pixel_pitch for n in detector.module_numbers})
    one = not isinstance(response, Mapping) and not (isinstance(response, str) and response == "builtin")
    if len(pitches) > 1 and one:
        raise ValueError(
            f"Simulator: a response table belongs to one pitch, and the modules of {detector.name} have {pitches} cm: "
            f"give response={{module: table}}"
        )


def _differing(values: Mapping[int, Parameters]) -> tuple[str, ...]:
    return tuple(name for name in NAMES if len({getattr(p, name) for p in values.values()}) > 1)


def _spread(slopes: Tensor | None, rows: list[int], count: int, like: Tensor) -> Tensor | None:
    """Tangents along all directions, zero along those that do not move this module."""
    if not count:
        return None
    result = like.detach().new_zeros(count, like.shape[0])
    if slopes is not None:
        result[rows] = slopes
    return result


def _shifted(progress: Callable[[int, int], None], begin: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: progress(begin + done, total)


def _joined(parts: list[Waveforms], reports: dict[str, Any]) -> Waveforms:
    """Rows after rows."""
    names = ("event", "tpc", "ix", "iy", "first_tick", "values")
    columns: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    ends, offsets = 0, [parts[0].offsets[:1]]
    for part in parts:
        offsets.append(part.offsets[1:] + ends)
        ends += part.values.shape[0]
    slopes = [part.tangents for part in parts if part.tangents is not None]
    sums = {n: math.fsum(p.reports[n] for p in parts) for n in ("electrons_arriving", "electrons_lost")}
    return replace(
        parts[0],
        **columns,
        offsets=torch.cat(offsets),
        t0=torch.cat([cast(Tensor, part.t0) for part in parts]),
        tangents=torch.cat(slopes, 1) if slopes else None,
        reports=reports | sums,
    )
