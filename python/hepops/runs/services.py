"""Run logs for MLflow and for Weights & Biases, without their servers: a file store, and the offline mode."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .loggers import flat, plain
from .names import Names, shortened

# MLflow refuses a batch with more, and longer values; of its versions the strictest.
_AT_ONCE, _VALUE, _TAG = 100, 500, 5000
_WHOLE, _NAMES = "hepops/parameters.json", "hepops/names.json"  # artefacts


class MLflow:
    """A run in MLflow's file store, or on a tracking server.

    Args:
        folder: Of the store, or the server's URI.
        experiment: Its name in MLflow.

    All parameters and metrics are logged, whatever their number, some at a time. MLflow's limits are met so: a value of
    more than 500 characters is cut, and says so; a parameter that is given another value stands there as "name.2"
    beside the first; a name that MLflow does not take gets a key that resembles it. The whole values and names are
    artefacts, `hepops/parameters.json` and `hepops/names.json`, where anything was changed.

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
        self.metric_names, self.parameter_names, self.tag_names = Names(), Names(), Names()
        self.given: dict[str, str] = {}  # parameters, whole
        self.cut = False  # whether one of them does not stand there whole

    def begin(self, name: str, record: Mapping[str, Any]) -> None:
        where = "hepops/run.json"
        known = flat(record)
        tags = {self.tag_names.key(key): shortened(str(value), _TAG, where) for key, value in known.items()}
        revision = (record.get("environment", {}).get("git") or {}).get("revision")
        tags |= {"mlflow.source.git.commit": revision} if revision else {}
        self.run = self.client.create_run(self.experiment, run_name=name[:_VALUE], tags=tags).info.run_id
        if any(len(str(value)) > _TAG for value in known.values()) or len(name) > _VALUE:
            self._write({"name": name, **{key: plain(value) for key, value in known.items()}}, where)

    def parameters(self, values: Mapping[str, Any]) -> None:
        rows = []
        for name, value in values.items():
            text = str(value)
            name = self._free(name, text)
            if name in self.given:
                continue  # the same value again
            self.given[name] = text
            self.cut |= len(text) > _VALUE
            rows.append(self.make_parameter(self.parameter_names.key(name), shortened(text, _VALUE, _WHOLE)))
        for k in range(0, len(rows), _AT_ONCE):
            self.client.log_batch(self.run, params=rows[k : k + _AT_ONCE])
        if rows and self.cut:
            self._write(self.given, _WHOLE)
        self._write_names()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        now, known = int(1000 * time.time()), len(self.metric_names.changed)
        rows = [self.make_metric(self.metric_names.key(n), float(value), now, step) for n, value in values.items()]
        for k in range(0, len(rows), _AT_ONCE):
            self.client.log_batch(self.run, metrics=rows[k : k + _AT_ONCE])
        if len(self.metric_names.changed) > known:
            self._write_names()

    def artefact(self, path: Path) -> None:
        if path.is_dir():
            self.client.log_artifacts(self.run, str(path), path.name)
        else:
            self.client.log_artifact(self.run, str(path))

    def end(self, status: str) -> None:
        self.client.set_terminated(self.run, {"finished": "FINISHED", "failed": "FAILED"}.get(status, "KILLED"))

    def _free(self, name: str, text: str) -> str:
        """The name, or with a number where it has another value already: MLflow's do not change."""
        one, count = name, 1
        while one in self.given and self.given[one] != text:
            count += 1
            one = f"{name}.{count}"
        return one

    def _write_names(self) -> None:
        changed = {
            kind: names.changed
            for kind, names in (("metrics", self.metric_names), ("parameters", self.parameter_names))
            if names.changed
        }
        if changed:
            self._write(changed, _NAMES)

    def _write(self, content: Mapping[str, Any], where: str) -> None:
        self.client.log_dict(self.run, dict(content), where)


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
        self.run = self.wandb.init(**settings, config={key: plain(value) for key, value in flat(record).items()})

    def parameters(self, values: Mapping[str, Any]) -> None:
        self.run.config.update({name: plain(value) for name, value in values.items()}, allow_val_change=True)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        # wandb's own step must not fall; every loop has a count of its own, and so has what belongs to none
        counts = {name: f"{loop}/step" if (loop := name.rpartition("/")[0]) else "step" for name in values}
        for name in counts.keys() - self.known:
            if "*" not in name:  # which wandb takes for a pattern
                self.run.define_metric(name, step_metric=counts[name])
        self.known |= counts.keys()
        self.run.log({**dict.fromkeys(counts.values(), step), **values})

    def artefact(self, path: Path) -> None:
        thing = self.wandb.Artifact(re.sub(r"[^A-Za-z0-9_.-]", "_", path.name)[:128] or "_", type="file")
        (thing.add_dir if path.is_dir() else thing.add_file)(str(path))
        self.run.log_artifact(thing)

    def end(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)
