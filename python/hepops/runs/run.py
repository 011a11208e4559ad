"""A run: within it, every training and fit of hepops is logged, without being told."""

from __future__ import annotations

import operator
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hepops.core import reporting

from .environment import environment
from .loggers import CSV, Logger, TensorBoard, flat, words
from .services import MLflow, WandB

LOGGERS: dict[str, Any] = {"csv": CSV, "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


class Run:
    """What a run offers; `hepops.runs.log` makes one.

    An adapter that fails within the run is warned of, by name, and left out from then on: a training of days does not
    end because a log's disk is full. One that cannot begin ends the run before anything is trained (`log`).
    """

    def __init__(self, name: str, loggers: Mapping[str, Logger], folder: Path | None = None) -> None:
        self.name, self._loggers, self._folder = name, dict(loggers), folder
        self._opened: dict[str, int] = {}

    def parameters(self, values: Mapping[str, Any]) -> None:
        """What was asked for: numbers, words, sequences, or mappings of them."""
        self._each("parameters", flat(values))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step, by name; NaN and infinities are numbers.

        Raises:
            TypeError: a value that is no number, a name that is no word, or a step that is no whole number.
        """
        try:
            step = operator.index(step)
        except TypeError:
            raise TypeError(f"metrics: step must be a whole number, got {step!r:.80}") from None
        numbers = {}
        for name, value in values.items():
            if not isinstance(name, str) or not name:
                raise TypeError(f"metrics: a name must be a word, got {name!r:.80}")
            name = words(name)
            try:
                numbers[name] = float(value)
            except (TypeError, ValueError):
                raise TypeError(f"metrics: {name} must be a number, got {value!r:.80}") from None
        if numbers:
            self._each("metrics", numbers, step)

    def artefact(self, path: str | Path) -> None:
        """A file, or a folder, that belongs to the run.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a folder that holds the run's own: it cannot be copied into itself.
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such file")
        if self._folder is not None and self._folder.resolve().is_relative_to(Path(path).resolve()):
            raise ValueError(f"{path}: holds the run itself, and cannot be copied into it")
        self._each("artefact", Path(path))

    def opened(self, name: str, parameters: Mapping[str, Any]) -> str:
        """A loop of hepops begins; the second training of a run is called "training.2"."""
        count = self._opened[name] = self._opened.get(name, 0) + 1
        full = name if count == 1 else f"{name}.{count}"
        if parameters:
            self._each("parameters", flat(parameters, f"{full}/"))
        return full

    def _each(self, what: str, *arguments: Any) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                getattr(logger, what)(*arguments)
            except Exception as error:
                del self._loggers[name]
                text = " ".join(str(error).split())[:200]
                warnings.warn(f"hepops: {name} logs no more: {type(error).__name__}: {text}", stacklevel=3)
                if what != "end":
                    with suppress(Exception):  # its files are closed, and its run does not stand as running for ever
                        logger.end("failed")


@contextmanager
def log(
    folder: str | Path,
    to: str | Sequence[str | Logger] = ("csv",),
    *,
    name: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    **options: Mapping[str, Any],
) -> Iterator[Run]:
    """Log whatever trains or fits within: metrics, parameters, artefacts, git revision, versions, machine, seed.

    Args:
        folder: Of the run. CSV stands in it; the others in `tensorboard`, `mlflow` and `wandb` within it.
        to: "csv", "tensorboard", "mlflow", "wandb", or a `Logger` of your own; one or several.
        name: Of the run; None: that of the folder.
        parameters: What else is worth knowing.
        options: Of an adapter, by its name: ``mlflow={"experiment": "ring"}``; `folder` sends it elsewhere.

    Yields:
        `Run`, for parameters, metrics and artefacts of your own.

    Raises:
        ValueError: an adapter that is none.
        ImportError: its package is not installed.
        Exception: whatever keeps an adapter from beginning, such as OSError for a folder that cannot be written. Those
            that had begun are closed as failed. Nothing has been trained yet: better to hear it now than to find no log
            later. Once the run has begun, an adapter that fails is warned of and left out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with hepops.runs.log(folder, name="ring") as run:
        ...         flow = hepops.flows.nsf(2, layers=2, hidden=(8,))
        ...         training = hepops.flows.fit(flow, torch.randn(200, 2), steps=3, batch=50, seed=1)
        ...         run.metrics({"ess": 0.9}, step=3)
        ...     sorted(hepops.runs.read_metrics(folder))
        ['ess', 'training/loss', 'training/lr', 'training/norm', 'training/validation']
    """
    folder = Path(folder)
    loggers = _loggers(folder, (to,) if isinstance(to, str) or not isinstance(to, Sequence) else to, options)
    run = Run(words(name or folder.absolute().name), loggers, folder)
    record = {
        "command": words(shlex.join(sys.argv)),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
    }
    _begin(loggers, run.name, record)
    if parameters:
        run.parameters(parameters)
    status = "failed"
    try:
        with reporting.listening(run):
            yield run
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        run._each("end", status)


def _begin(loggers: Mapping[str, Logger], name: str, record: Mapping[str, Any]) -> None:
    """All of them, or none: what has begun is closed where one cannot."""
    begun: list[Logger] = []
    for kind, logger in loggers.items():
        begun.append(logger)
        try:
            logger.begin(name, record)
        except BaseException as error:
            error.add_note(f"hepops: the log {kind!r} could not begin")
            for one in begun:
                with suppress(Exception):
                    one.end("failed")
            raise


def _loggers(folder: Path, to: Sequence[str | Logger], options: dict[str, Mapping[str, Any]]) -> dict[str, Logger]:
    made: dict[str, Logger] = {}
    for one in to:
        if not isinstance(one, str):
            kind = type(one).__name__
            count = sum(name.partition(".")[0] == kind for name in made)
            made[f"{kind}.{count + 1}" if count else kind] = one  # two folders with CSV are two
            continue
        if one not in LOGGERS:
            raise ValueError(f"to must be of {', '.join(LOGGERS)}, or a Logger, got {one!r}")
        own = dict(options.get(one, {}))
        place = own.pop("folder", folder if one == "csv" else folder / one)
        made[one] = LOGGERS[one](place, **own)
    if strange := options.keys() - made.keys():
        raise ValueError(f"options of {sorted(strange)[0]!r}, which is not among {', '.join(made)}")
    return made
