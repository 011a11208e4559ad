"""What every sampler does: starting chains, running them, measuring, resuming."""

import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from hepops.flows.training.interrupts import Interrupts

from ..theory import Theory
from . import run as files
from .chains import Chains, check_name, check_start, describe
from .run import Record, Run

if TYPE_CHECKING:
    from ..ensembles import EnsembleWriter

Observables = Mapping[str, Callable[[Tensor], Tensor]]
Start = Literal["hot", "cold"]


class Sampler(ABC):
    """A Markov chain of a theory's fields, many chains at once.

    Subclasses have `update`, and `settings`: the numbers of theirs that are tuned and kept.
    """

    theory: Theory
    settings: dict[str, Any]

    @abstractmethod
    def update(self, chains: Chains) -> dict[str, Tensor]:
        """One step of all chains, in place, without waiting for a GPU: what it reports, shapes (B)."""

    def adapt(self, rows: dict[str, list[Tensor]], done: int, total: int) -> None:  # noqa: B027
        """Called after each update of the thermalisation: a sampler that tunes itself does so here."""

    def ready(self, thermalise: int) -> None:  # noqa: B027
        """Called before a run: a sampler that is not fit for it says so."""

    def prepare(self, chains: Chains) -> None:  # noqa: B027
        """Fill `chains.state`, where a sampler keeps something: before a run."""

    def identity(self) -> dict[str, Any]:
        """What a sampler is beside its plain attributes, as JSON has it: a checkpoint of another one is refused."""
        return {}

    def exchange(self, chains: Chains) -> Tensor:
        r"""One update within a stochastic flow: :math:`Q = S(\\phi') - S(\\phi)`, shape (B), float64."""
        before = self.theory.action(chains.field)
        self.update(chains)
        return self.theory.action(chains.field) - before

    @torch.no_grad()
    def start(
        self,
        chains: int | Tensor,
        seed: int,
        *,
        first: int = 0,
        start: Start = "hot",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> Chains:
        """Chains to run.

        Args:
            chains: How many; or their fields, (B, *event_shape).
            seed: Of all their random numbers.
            first: The number of the first chain.
            start: "hot": configurations of `theory.random`, or "cold".
            dtype, device: Of the fields.

        Raises:
            TypeError, ValueError: a field that is none of the theory's; non-unitary links, with their deviation.
        """
        who = type(self).__name__
        check_name(seed, first)
        if isinstance(chains, Tensor):
            check_start(who, self.theory, chains)
            made = Chains(chains.detach().resolve_conj().clone(), seed, first)
        else:
            if isinstance(chains, bool) or not isinstance(chains, int) or chains < 1:
                raise ValueError(f"{who}: chains must be a whole number of at least 1, got {chains!r}")
            if start not in ("hot", "cold"):
                raise ValueError(f"{who}: start must be 'hot' or 'cold', got {start!r}")
            if start == "hot":
                field = self.theory.random(chains, seed, first=first, dtype=dtype, device=device)
            else:
                field = self.theory.cold(chains, dtype=dtype, device=device)
            made = Chains(field, seed, first)
        self.prepare(made)
        return made

    def run(
        self,
        n: int,
        chains: int | Tensor | Chains = 1,
        *,
        seed: int = 0,
        first: int = 0,
        start: Start = "hot",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        thermalise: int = 0,
        every: int = 1,
        observables: Observables | None = None,
        ensemble: "EnsembleWriter | None" = None,
        checkpoint: str | Path | None = None,
        save_every: int = 100,
        progress: bool | Callable[..., Any] = False,
    ) -> Run:
        """Thermalise, then make n updates and measure.

        Args:
            n: Updates after thermalisation.
            chains: How many to start, the fields to start from, or chains to go on with (whose seed, first and step
                then count).
            seed, first, start, dtype, device: Of chains to start, see `start`.
            thermalise: Updates before anything is measured; tuning happens here and ends here.
            every: Updates between measurements.
            observables: name -> function of fields (B, *event_shape), giving (B) or (B, ...).
            ensemble: Takes the fields of every measurement: a writer of this theory, seed and first chain. Those that
                the checkpoint does not know are forgotten and made again.
            checkpoint: A file. Where it exists the run goes on from it and ends with the bits of a run that was never
                killed; n may have grown. Written at the start, every `save_every` updates, at the end, and on Ctrl-C
                and SIGTERM.
            save_every: See there.
            progress: True: a bar; or what makes one, called as tqdm is.

        Returns:
            `Run`.

        Warns:
            RuntimeWarning: all updates of a stretch were rejected.

        Raises:
            TypeError: observables that are no mapping of functions, one that gives no tensor or a complex one.
            ValueError: a number out of range, a checkpoint or an ensemble of another run, an observable whose first
                dimension is not the chains', an n below what the checkpoint has. An ensemble that holds measurements
                after the chains' step, where no checkpoint says that they are this run's.
        """
        who = type(self).__name__
        for name, value, least in (("n", n, 0), ("thermalise", thermalise, 0), ("every", every, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{who}: {name} must be a whole number of at least {least}, got {value!r}")
        if isinstance(save_every, bool) or not isinstance(save_every, int) or save_every < 1:
            raise ValueError(f"{who}: save_every must be a whole number of at least 1, got {save_every!r}")
        named = _checked(who, observables)
        where = {"first": first, "start": start, "dtype": dtype, "device": device}
        begun = chains if isinstance(chains, Chains) else self.start(chains, seed, **where)  # type: ignore[arg-type]
        if begun is chains:
            self.theory.check(begun.field)
            with torch.no_grad():
                self.prepare(begun)
        made = self.__dict__.setdefault("_made", dict(self.settings))  # before any tuning
        marks = [self._mark(begun, thermalise, every, named, settings) for settings in (self.settings, made)]
        path, record, total = None if checkpoint is None else Path(checkpoint), Record(), thermalise + n
        resumed = path is not None and path.exists()
        if path is not None and resumed:
            begun, record, settings = files.read(path, marks, begun.field.device)
            if record.done > total:
                raise ValueError(f"{who}: n = {n} is below the {record.done - thermalise} that {path} has")
            self.settings.update(settings)
        self.ready(thermalise)
        if ensemble is not None:
            ensemble.belong(self.theory, begun.seed, begun.first)
            ensemble.rewind(begun.step, forget=resumed)
        if path is not None and not resumed:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, marks[0], begun, record, self.settings)
        bar = _bar(progress, total, record.done)
        with torch.no_grad(), bar as tick, Interrupts(path is not None) as interrupts:
            while record.done < total:
                self._advance(begun, record, thermalise, every, named, ensemble)
                tick(record)
                due = record.done % save_every == 0 or record.done == total or interrupts.caught is not None
                if path is not None and due:
                    files.write(path, marks[0], begun, record, self.settings)
                interrupts.pass_on()
        return self._result(begun, record)

    def _mark(
        self, chains: Chains, thermalise: int, every: int, named: dict[str, Any], settings: dict[str, Any]
    ) -> dict[str, Any]:
        """All that the numbers of a run follow from."""
        return {
            "theory": describe(self.theory),
            "sampler": describe(self) | settings | self.identity(),
            "chains": [chains.seed, chains.first, list(chains.field.shape), str(chains.field.dtype)],
            "thermalise": thermalise,
            "every": every,
            "observables": sorted(named),
        }

    def _advance(
        self,
        chains: Chains,
        record: Record,
        thermalise: int,
        every: int,
        named: dict[str, Any],
        ensemble: "EnsembleWriter | None",
    ) -> None:
        row = self.update(chains)
        record.done += 1
        warm = record.done <= thermalise
        rows = record.thermalisation if warm else record.history
        for name, value in row.items():
            rows.setdefault(name, []).append(value[None])
        if warm:
            self.adapt(rows, record.done, thermalise)
        elif (record.done - thermalise) % every == 0:
            record.steps.append(chains.step)
            for name, function in named.items():
                value = _measured(type(self).__name__, name, function(chains.field), len(chains))
                record.observables.setdefault(name, []).append(value[None])
            if ensemble is not None:
                ensemble.append(chains.field, chains.step)

    def _result(self, chains: Chains, record: Record) -> Run:
        tables = record.tables()
        result = Run(
            chains,
            tables["history"],
            tables["observables"],
            record.steps,
            tables["thermalisation"],
            dict(self.settings),
        )
        for stretch in (result.thermalisation, result.history):
            accepted = stretch.get("accepted")
            if accepted is not None and accepted.numel() and not bool((accepted != 0).any()):
                settings = ", ".join(f"{k} = {v}" for k, v in self.settings.items()) or "no settings"
                text = f"{type(self).__name__}: all {accepted.numel()} updates were rejected, with {settings}"
                if "dH" in stretch:
                    text += f"; {int((~(stretch['dH'].abs() < files.HUGE)).sum())} diverged (dH NaN or above 1000)"
                warnings.warn(text, RuntimeWarning, stacklevel=3)
                break
        return result


def _checked(who: str, observables: Observables | None) -> dict[str, Callable[[Tensor], Tensor]]:
    if observables is None:
        return {}
    if not isinstance(observables, Mapping):
        raise TypeError(f"{who}: observables must be a mapping of names to functions, got {type(observables).__name__}")
    for name, function in observables.items():
        if not callable(function):
            raise TypeError(f"{who}: observable {name!r} must be a function of fields, got {type(function).__name__}")
    return dict(observables)


def _measured(who: str, name: str, value: Tensor, chains: int) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{who}: observable {name!r} must give a tensor, got {type(value).__name__}")
    if value.is_complex():
        raise TypeError(f"{who}: observable {name!r} is complex: measure its real and imaginary part, or its modulus")
    if value.dim() == 0 or value.shape[0] != chains:
        raise ValueError(
            f"{who}: observable {name!r} must give a number for each of {chains} chains, got {tuple(value.shape)}"
        )
    return value.detach().to(torch.float64)


@contextmanager
def _bar(progress: bool | Callable[..., Any], total: int, done: int) -> Iterator[Callable[[Record], None]]:
    """A bar that is looked at (and waits for a GPU) once a second at most."""
    if progress is False:
        yield lambda record: None
        return
    make: Any = progress
    if progress is True:
        from tqdm import tqdm

        make = tqdm
    bar = make(total=total, initial=done)
    shown, seen = 0.0, done

    def tick(record: Record) -> None:
        nonlocal shown, seen
        now = time.monotonic()
        if now - shown < 1 and record.done < total:
            return
        rows = (record.history or record.thermalisation).get("accepted")
        share = float(rows[-1].double().mean()) if rows else math.nan
        bar.update(record.done - seen)
        if hasattr(bar, "set_postfix"):
            bar.set_postfix(accepted=f"{share:.2f}")
        shown, seen = now, record.done

    try:
        yield tick
    finally:
        bar.close()


def checked_project_every(who: str, project_every: int) -> int:
    if isinstance(project_every, bool) or not isinstance(project_every, int) or project_every < 1:
        raise ValueError(f"{who}: project_every must be a whole number of at least 1, got {project_every!r}")
    return project_every
