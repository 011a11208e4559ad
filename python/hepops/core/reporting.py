"""How a loop says how far it is, whoever listens: the interface between trainings or fits and `hepops.runs`.

    with reporting.session("training", {"steps": 100, "lr": 1e-3}) as report:
        ...
        report(step, {"loss": 1.25})

Without a listener this costs a look at an empty tuple.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

Report = Callable[[int, Mapping[str, float]], None]


class Listener(Protocol):
    """Who wants to know."""

    def opened(self, name: str, parameters: Mapping[str, Any]) -> str:
        """A loop begins; the name under which its numbers shall stand."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step."""

    def artefact(self, path: Path) -> None:
        """A file that was written."""


_LISTENERS: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within, loops of this thread report to the listener as well."""
    token = _LISTENERS.set((*_LISTENERS.get(), listener))
    try:
        yield
    finally:
        _LISTENERS.reset(token)


@contextmanager
def session(name: str, parameters: Mapping[str, Any] | None = None, silent: bool = False) -> Iterator[Report]:
    """A loop that reports.

    Args:
        name: Of its kind: "training", "fit".
        parameters: What it was asked to do.
        silent: Report nothing; all ranks but the first are.

    Yields:
        A function of (step, numbers by name).
    """
    listeners = () if silent else _LISTENERS.get()
    names = [listener.opened(name, parameters or {}) for listener in listeners]

    def report(step: int, values: Mapping[str, float]) -> None:
        for listener, prefix in zip(listeners, names, strict=True):
            listener.metrics({f"{prefix}/{key}": value for key, value in values.items()}, step)

    yield report


def artefact(path: str | Path) -> None:
    """Tell the listeners of a file that belongs to the run."""
    for listener in _LISTENERS.get():
        listener.artefact(Path(path))
