"""Where the numbers of a run go: a folder with CSV, TensorBoard, MLflow's file store, Weights & Biases offline.

All take the same five calls. None needs a service; the packages of the last three are imported when they are asked for.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hepops.core.files import atomic

METRICS, RUN, ARTEFACTS = "metrics.csv", "run.yaml", "artefacts"


class Logger(Protocol):
    """What a run asks of an adapter; one of your own needs these five and nothing else."""

    def begin(self, name: str, record: Mapping[str, Any]) -> None:
        """The run's name, and what is known of it: command, environment, when it began."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Flat: numbers, words, or what is printed."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step, by names such as "training/loss"."""

    def artefact(self, path: Path) -> None:
        """A file, or a folder with all its files."""

    def end(self, status: str) -> None:
        """ "finished", "failed" or "interrupted"."""


class CSV:
    """A folder with `run.yaml` (who, what, where, with which parameters), `metrics.csv`, and copies of artefacts.

    Args:
        folder: Where. Rows are added to those that are there, and are whole after a kill but for the last one.

    One row per number: seconds, step, name, value. What a resumed training repeats stands there twice; `read_metrics`
    takes the later one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record: dict[str, Any] = {}

    def begin(self, name: str, record: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.record = {"format": "hepops.run", "version": 1, "name": name, **record, "status": "running"}
        self._write()
        self.file = open(self.folder / METRICS, "a", newline="", buffering=1)
        self.writer = csv.writer(self.file, lineterminator="\n")
        if self.file.tell() == 0:
            self.writer.writerow(["seconds", "step", "name", "value"])
        elif not _ends_with_a_line(self.folder / METRICS):
            self.file.write("\n")  # a kill cut the last one
        self.began = time.monotonic()

    def parameters(self, values: Mapping[str, Any]) -> None:
        self.record.setdefault("parameters", {}).update({name: _plain(value) for name, value in values.items()})
        self._write()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        spent = f"{time.monotonic() - self.began:.3f}"
        self.writer.writerows([spent, step, name, repr(float(value))] for name, value in values.items())

    def artefact(self, path: Path) -> None:
        from hepops.models.digests import of_data

        place = self.folder / ARTEFACTS / path.name
        if path.absolute() != place.absolute():
            place.parent.mkdir(exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, place, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, place)
        self.record.setdefault("artefacts", {})[path.name] = of_data(path.name, path)
        self._write()

    def end(self, status: str) -> None:
        self.file.close()
        self.record |= {"status": status, "seconds": round(time.monotonic() - self.began, 3)}
        self._write()

    def _write(self) -> None:
        from hepops.models.text import dump

        with atomic(self.folder / RUN) as part:
            part.write_text(dump(self.record))


class TensorBoard:
    """Event files for `tensorboard --logdir`; parameters and artefacts as text.

    Args:
        folder: Of the event files.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("TensorBoard logs need tensorboard: pip install hepops[tensorboard]") from None
        self.folder = Path(folder)
        self.writer: Any = SummaryWriter(str(self.folder))

    def begin(self, name: str, record: Mapping[str, Any]) -> None:
        self._text("run", {"name": name, **flat(record)})

    def parameters(self, values: Mapping[str, Any]) -> None:
        self._text("parameters", values)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def artefact(self, path: Path) -> None:
        from hepops.models.digests import of_data

        self._text(f"artefacts/{path.name}", {"path": str(path.absolute()), "sha256": of_data(path.name, path)})

    def end(self, status: str) -> None:
        self._text("status", {"status": status})
        self.writer.close()

    def _text(self, tag: str, values: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
        self.writer.add_text(tag, f"| | |\n|---|---|\n{rows}")


class MLflow:
    """A run in MLflow's file store, or on a tracking server.

    Args:
        folder: Of the store, or the server's URI.
        experiment: Its name in MLflow.

    Raises:
        ImportError: mlflow is not installed.
    """

    def __init__(self, folder: str | Path, experiment: str = "hepops") -> None:
        # MLflow counts its file store as kept for those who have it, and asks to be told that it is meant
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            from mlflow.entities import (  # type: ignore[import-not-found, unused-ignore]
                Metric,
                Param,
            )
            from mlflow.tracking import MlflowClient  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise ImportError("MLflow logs need mlflow: pip install hepops[mlflow]") from None
        uri = str(folder) if "://" in str(folder) else Path(folder).absolute().as_uri()
        self.client: Any = MlflowClient(tracking_uri=uri)
        self.make_metric, self.make_parameter = Metric, Param
        found = self.client.get_experiment_by_name(experiment)
        self.experiment = found.experiment_id if found else self.client.create_experiment(experiment)
        self.run = ""

    def begin(self, name: str, record: Mapping[str, Any]) -> None:
        tags = {key: str(value) for key, value in flat(record).items()}
        revision = (record.get("environment", {}).get("git") or {}).get("revision")
        tags |= {"mlflow.source.git.commit": revision} if revision else {}
        self.run = self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id

    def parameters(self, values: Mapping[str, Any]) -> None:
        rows = [self.make_parameter(_key(name), str(value)[:500]) for name, value in values.items()]
        self.client.log_batch(self.run, params=rows)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        rows = [self.make_metric(_key(name), float(value), now, step) for name, value in values.items()]
        self.client.log_batch(self.run, metrics=rows)

    def artefact(self, path: Path) -> None:
        if path.is_dir():
            self.client.log_artifacts(self.run, str(path), path.name)
        else:
            self.client.log_artifact(self.run, str(path))

    def end(self, status: str) -> None:
        self.client.set_terminated(self.run, {"finished": "FINISHED", "failed": "FAILED"}.get(status, "KILLED"))


class WandB:
    """A run of Weights & Biases, offline unless told otherwise: `wandb sync` uploads it later.

    Args:
        folder: For wandb's own folder.
        project: Its name there.
        mode: "offline" or "online".

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(self, folder: str | Path, project: str = "hepops", mode: str = "offline") -> None:
        try:
            import wandb  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise ImportError("Weights & Biases logs need wandb: pip install hepops[wandb]") from None
        self.wandb: Any = wandb
        self.folder, self.project, self.mode = Path(folder), project, mode
        self.run: Any = None
        self.known: set[str] = set()

    def begin(self, name: str, record: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {"project": self.project, "name": name, "dir": str(self.folder), "mode": self.mode}
        self.run = self.wandb.init(**settings, config=dict(flat(record)))

    def parameters(self, values: Mapping[str, Any]) -> None:
        self.run.config.update({name: _plain(value) for name, value in values.items()}, allow_val_change=True)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        # wandb's own step must not fall; every loop has a count of its own
        loops = {name.rpartition("/")[0] for name in values}
        for loop in loops - self.known:
            self.run.define_metric(f"{loop}/*", step_metric=f"{loop}/step")
        self.known |= loops
        self.run.log({**values, **{f"{loop}/step": step for loop in loops}})

    def artefact(self, path: Path) -> None:
        thing = self.wandb.Artifact(_key(path.name).replace("/", "_"), type="file")
        (thing.add_dir if path.is_dir() else thing.add_file)(str(path))
        self.run.log_artifact(thing)

    def end(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)


LOGGERS: dict[str, Any] = {"csv": CSV, "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def read_metrics(folder: str | Path) -> dict[str, dict[int, float]]:
    """The numbers of a run's `metrics.csv`: by name, then by step. A row that a kill has cut is left out.

    Raises:
        FileNotFoundError: no such run.
    """
    found: dict[str, dict[int, float]] = {}
    with open(Path(folder) / METRICS, newline="") as file:
        for row in csv.reader(file):
            try:
                _, step, name, value = row
                at, number = int(step), float(value)
            except ValueError:  # the head, or a row that was cut
                continue
            found.setdefault(name, {})[at] = number
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Mappings within mappings by names such as "environment/git/revision"."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}/")
        else:
            out[f"{prefix}{name}"] = value
    return out


def _plain(value: Any) -> Any:
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    for kind in (bool, int, float, str):  # YAML writes these, but none derived from them, such as numpy's float64
        if isinstance(value, kind):
            return kind(value) if type(value) is not kind else value
    if value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value)


def _key(name: str) -> str:
    """What MLflow and wandb allow in names."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)


def _ends_with_a_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
