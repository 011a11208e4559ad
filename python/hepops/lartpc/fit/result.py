"""What a fit returns: values with errors and correlations, how it got there, and ways to look at it and keep it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hepops.core.files import atomic, open_hdf5

from .residuals import CHARGE, TIME
from .space import CHIP, TIME_OFFSET
from .state import Finish, Step, tuples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hepops.lartpc.simulator import Simulator

    from .target import Target
    from .team import Elsewhere

LAYOUT = "hepops.lartpc.fit 1"


@dataclass(frozen=True, eq=False)
class FitResult:
    """Values, covariance and history of a fit; tensors are float64 on the CPU, K the number of free parameters.

    The covariance is the inverse of the information at the end, priors included, nuisances left free. Of a likelihood
    it is honest. Of residuals it is where they are independent with the stated noise; of real, noisy hits, which silent
    resets and early triggers make correlated and biased, it is an estimate only.

    `target` is the likelihood itself, with the data: what `profile`, `contour`, `sandwich` and the like ask. It is not
    saved with the rest. Of a fit that processes shared, rank 0 has it; see `together`.
    """

    names: tuple[str, ...]  # the free parameters
    units: tuple[str, ...]
    values: Tensor  # (K) physical
    covariance: Tensor  # (K, K) physical; NaN where a method gives none
    fixed: dict[str, float]  # the parameters that were named but held
    converged: bool
    message: str
    iterations: int  # of the best start
    value: float  # the objective at the end
    chi2: float  # sum of the squared whitened residuals, unweighted; of a likelihood -2 log L
    ndof: int  # residuals less free parameters; 0 of a likelihood
    counts: dict[str, int]  # matched, simulated_only, measured_only, hits of unknown events, ...
    at_limit: tuple[str, ...]  # parameters at the end of their range
    best: int  # which start
    starts: tuple[Finish, ...]
    trace: tuple[Step, ...]  # every iteration of every start
    residuals: Tensor  # (n) whitened, at the end
    kinds: Tensor  # int64 (n) charge (0) or time (1)
    nuisance_names: tuple[str, ...] = ()
    nuisance_values: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))  # (M) deviations
    nuisance_errors: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))  # (M) NaN: no data
    config: dict[str, Any] = field(default_factory=dict)
    target: Target | Elsewhere | None = field(default=None, compare=False, repr=False)

    def __getitem__(self, name: str) -> float:
        """The value of a parameter, free or fixed."""
        if name in self.fixed:
            return self.fixed[name]
        if name not in self.names:
            raise KeyError(f"{name} is not in this fit: {', '.join((*self.names, *self.fixed))}")
        return float(self.values[self.names.index(name)])

    @property
    def errors(self) -> Tensor:
        """(K) one standard deviation."""
        return self.covariance.diagonal().sqrt()

    @property
    def correlations(self) -> Tensor:
        """(K, K)"""
        return self.covariance / (self.errors * self.errors[:, None])

    def nuisance(self, label: str) -> tuple[float, float]:
        """Value and error of a deviation, by its label, e.g. "lifetime[tpc 0]"."""
        if label not in self.nuisance_names:
            raise KeyError(f"{label} is not a nuisance of this fit: {', '.join(self.nuisance_names[:8]) or 'none'}")
        at = self.nuisance_names.index(label)
        return float(self.nuisance_values[at]), float(self.nuisance_errors[at])

    def pulls(self, truth: Mapping[str, float]) -> Tensor:
        """(K) (value - truth) / error.

        Raises:
            ValueError: the truth of a fitted parameter is not given.
        """
        missing = [name for name in self.names if name not in truth]
        if missing:
            raise ValueError(f"truth: {', '.join(missing)} is not given")
        return (self.values - torch.tensor([truth[n] for n in self.names], dtype=torch.float64)) / self.errors

    @property
    def outcome(self) -> str:
        """The message with the number of iterations, said once."""
        said = f"{self.iterations} iterations" in self.message
        return self.message if said else f"{self.message} after {self.iterations} iterations"

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why not to believe the values, converged or not: most of a side without partner, ends of ranges."""
        found = []
        matched = self.counts.get("matched", 0)
        for side, other in (("simulated", "measured"), ("measured", "simulated")):
            alone = self.counts.get(f"{side}_only", 0)
            if alone > matched:
                found.append(
                    f"{alone} of {alone + matched} {side} pixels or hits have no {other} partner: do tracks, events "
                    f"and detector belong to these hits?"
                )
        ends = [f"{name} = {self[name]:.6g}" for name in self.at_limit]
        return (*found, *(f"{end} is at the end of its range" for end in ends))

    def path(self, start: int | None = None) -> Tensor:
        """(iterations + 1, K) physical values of a start (the best one by default), its beginning first."""
        start = self.best if start is None else start
        rows = [self.starts[start].start, *(step.parameters for step in self.trace if step.start == start)]
        return torch.tensor(rows, dtype=torch.float64)

    def apply(self, sim: Simulator) -> None:
        """Write the fitted values into a simulator, in place; time offset and chip are no parameters of it."""
        with torch.no_grad():
            for name, value in zip(self.names, self.values.tolist(), strict=True):
                if name != TIME_OFFSET and name not in CHIP:
                    getattr(sim, name).fill_(value)

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """A table for the terminal."""
        width = max(map(len, (*self.names, *self.fixed)))
        lines = [f"{'':{width}}  {'value':>14} {'error':>11} {'relative':>9}  unit"]
        rows = zip(self.names, self.values.tolist(), self.errors.tolist(), self.units, strict=True)
        for name, value, error, unit in rows:
            note = "  at the end of its range" if name in self.at_limit else ""
            share = f"{100 * error / abs(value):8.3g}%" if value else f"{'':9}"
            lines.append(f"{name:{width}}  {value:14.8g} {error:11.3g} {share}  {unit}{note}")
        lines += [f"{name:{width}}  {value:14.8g} {'fixed':>11}" for name, value in self.fixed.items()]
        good = sum(finish.converged for finish in self.starts)
        lines.append(f"{self.outcome}; {good} of {len(self.starts)} starts converged")
        if self.ndof:
            lines.append(f"chi2 {self.chi2:.6g}, degrees of freedom {self.ndof}")
        else:
            lines.append(f"-2 log L = {self.chi2:.8g}")
        lines += self._nuisance_lines()
        lines.append(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in self.counts.items()))
        lines += [f"warning: {doubt}" for doubt in self.doubts]
        return "\n".join(lines)

    def _nuisance_lines(self) -> list[str]:
        """A few one by one, many as their spread."""
        rows = list(zip(self.nuisance_names, self.nuisance_values.tolist(), self.nuisance_errors.tolist(), strict=True))
        kinds = dict.fromkeys(name.rsplit(" ", 1)[0] + "]" for name, *_ in rows)
        lines = []
        for kind in kinds:
            mine = [row for row in rows if row[0].rsplit(" ", 1)[0] + "]" == kind]
            if len(mine) <= 8:
                lines += [f"  {name} = {value:.4g} +- {error:.2g}" for name, value, error in mine]
            else:
                v = torch.tensor([value for _, value, _ in mine])
                lines.append(f"  {len(mine)} {kind}: mean {float(v.mean()):.3g}, spread {float(v.std()):.3g}")
        return lines

    def plot(self) -> Figure:
        """Trace of the parameters, the objective, the correlation matrix and the residuals, in one figure."""
        from hepops.lartpc.plot import overview

        return overview(self)

    def save(self, path: str | Path) -> None:
        """Write one HDF5 file, whole or not at all."""
        with atomic(path) as part:
            self._write(part)

    def _write(self, path: Path) -> None:
        import h5py

        plain = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("trace", "starts", "target") and not isinstance(getattr(self, f.name), Tensor)
        }
        plain["trace"] = [dataclasses.asdict(step) for step in self.trace]
        plain["starts"] = [dataclasses.asdict(finish) for finish in self.starts]
        with h5py.File(path, "w") as file:
            file.attrs["layout"] = LAYOUT
            file.create_dataset("record", data=json.dumps(plain), dtype=h5py.string_dtype())
            for f in dataclasses.fields(self):
                if isinstance(getattr(self, f.name), Tensor):
                    file[f.name] = getattr(self, f.name).numpy()

    @classmethod
    def load(cls, path: str | Path) -> FitResult:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a fit's.
        """
        with open_hdf5(path) as file:
            if file.attrs.get("layout") != LAYOUT:
                raise ValueError(f"{path}: not the result of a fit, its layout is {file.attrs.get('layout')!r}")
            try:
                record = json.loads(file["record"][()])
                tensors: dict[str, Any] = {n: torch.from_numpy(data[()]) for n, data in file.items() if n != "record"}
            except KeyError as error:
                raise ValueError(f"{path}: incomplete, {error.args[0]}") from None
        record["trace"] = tuple(Step(**tuples(step)) for step in record["trace"])
        record["starts"] = tuple(Finish(**tuples(finish)) for finish in record["starts"])
        for name in ("names", "units", "at_limit", "nuisance_names"):
            record[name] = tuple(record[name])
        return cls(**record, **tensors)

    def residuals_of(self, kind: str) -> Tensor:
        """The whitened residuals of "charge" or "time"."""
        return self.residuals[self.kinds == {"charge": CHARGE, "time": TIME}[kind]]
