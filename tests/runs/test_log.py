"""What trains or fits within a run is logged, wherever it was asked to go, and a log that fails does not end it."""

import json
import math
import subprocess

import hepops
import numpy as np
import pytest
import torch
import yaml
from hepops.runs import CSV, log, read_metrics
from hepops.runs.environment import differences, environment, git


def train(steps=3, seed=1, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow, data = hepops.flows.nsf(2, layers=1, hidden=(4,)), torch.randn(100, 2)
    return hepops.flows.fit(flow, data, steps=steps, batch=20, seed=seed, **options)


def record(folder):
    return yaml.safe_load((folder / "run.yaml").read_text())


def test_a_training_within_a_run_is_logged(tmp_path):
    (tmp_path / "table.txt").write_text("x")
    hepops.seed_everything(5)
    with log(tmp_path / "r", name="ring", parameters={"own": {"depth": 2}}) as run:
        training = train()
        run.metrics({"ess": 0.75}, step=3)
        run.artefact(tmp_path / "table.txt")
    found, said = read_metrics(tmp_path / "r"), record(tmp_path / "r")
    assert list(found["training/loss"].values()) == training.history["loss"]
    assert found["training/validation"] == dict(training.history.validation) and found["ess"] == {3: 0.75}
    assert "training/ess" not in found, "there were no weights"
    assert said["name"] == "ring" and said["status"] == "finished" and said["seconds"] > 0
    assert said["parameters"]["own/depth"] == 2 and said["parameters"]["training/steps"] == 3
    assert said["parameters"]["training/seed"] == 1 and said["environment"]["seed"] == 5
    assert said["environment"]["machine"]["processor"] and said["environment"]["torch"] == str(torch.__version__)
    assert (tmp_path / "r" / "artefacts" / "table.txt").read_text() == "x" and len(said["artefacts"]["table.txt"]) == 64


def test_outside_of_a_run_nothing_is_logged(tmp_path):
    with log(tmp_path / "r"):
        pass
    train()
    assert read_metrics(tmp_path / "r") == {}


def test_every_loop_has_a_name_of_its_own(tmp_path):
    with log(tmp_path / "r"):
        train(steps=1)
        train(steps=2)
    found = read_metrics(tmp_path / "r")
    assert list(found["training/loss"]) == [1] and list(found["training.2/loss"]) == [1, 2]


def test_what_is_logged_does_not_change_what_is_learned(tmp_path):
    plain = train()
    with log(tmp_path / "r"):
        logged = train()
    assert plain.history["loss"] == logged.history["loss"]


def test_a_fit_and_its_artefacts(tmp_path):
    from hepops.lartpc import Detector, Parameters, Simulator, gun

    detector = Detector.module0()
    tracks = gun.shoot(detector, 1, particle="proton", topology="inside", energy=(60.0, 70.0), seed=3)
    sim = Simulator(detector, dtype=torch.float64)
    with torch.no_grad():
        hits = Simulator(detector, Parameters(lifetime=1800.0), dtype=torch.float64)(tracks)
    with log(tmp_path / "r"):
        result = hepops.lartpc.fit(sim, tracks, hits, ["lifetime"], max_iterations=3, checkpoint=tmp_path / "fit")
    hepops.save(result, tmp_path / "model")
    assert torch.equal(hepops.load(tmp_path / "model").covariance, result.covariance)
    found, said = read_metrics(tmp_path / "r"), record(tmp_path / "r")
    assert list(found["fit/objective"].values()) == [step.value for step in result.trace]
    assert list(found["fit/lifetime"].values()) == [step.parameters[0] for step in result.trace]
    assert said["parameters"]["fit/parameters"] == ["lifetime"] and "result.h5" in said["artefacts"]


def test_a_network_and_its_folder(tmp_path):
    from hepops.segmentation import Plan, make, train

    events = make(2, seed=1)
    with log(tmp_path / "r"):
        trained = train(tmp_path / "s", events, events, Plan(epochs=1, batch=1, network={"filters": 4, "depth": 2}))
    found = read_metrics(tmp_path / "r")
    assert list(found["training/loss"].values()) == [row["loss"] for row in trained.history.steps]
    assert found["training/test_accuracy"] == {2: trained.history.epochs[0]["test_accuracy"]}
    card = hepops.models.verify(tmp_path / "s")[0]
    assert card.metrics["accuracy"] == trained.score.accuracy and card.more["training"]["plan"]["epochs"] == 1
    assert torch.equal(
        hepops.load(tmp_path / "s").label(events.coordinates, events.charge),
        trained.segmenter.label(events.coordinates, events.charge),
    )


def test_how_a_run_ended(tmp_path):
    for error, status in ((ValueError, "failed"), (KeyboardInterrupt, "interrupted")):
        with pytest.raises(error), log(tmp_path / status):
            raise error
        assert record(tmp_path / status)["status"] == status


def test_a_log_that_fails_is_left_out_by_name(tmp_path):
    class Full(CSV):
        def metrics(self, values, step):
            if step == 2:
                raise OSError(28, "No space left on device")

    with (
        pytest.warns(UserWarning, match="Full logs no more: OSError"),
        log(tmp_path / "r", ["csv", Full(tmp_path / "f")]),
    ):
        training = train()
    assert training.step == 3 and len(read_metrics(tmp_path / "r")["training/loss"]) == 3


def test_a_value_that_is_no_number_is_the_callers_mistake(tmp_path):
    with log(tmp_path / "run", name="r") as run:
        with pytest.raises(TypeError, match="metrics: a must be a number, got None"):
            run.metrics({"b": 1.0, "a": None}, 0)
        run.metrics({"a": np.float32(2.0)}, 1)
    assert [row for row in (tmp_path / "run" / "metrics.csv").read_text().splitlines() if ",1,a,2.0" in row]


def test_rows_after_a_kill(tmp_path):
    """The last row may be cut, even within its number; what a resumed training repeats counts once, the later one."""
    with log(tmp_path) as run:
        run.metrics({"x": 1.0}, 1)
        run.metrics({"x": 2.0}, 2)
    path = tmp_path / "metrics.csv"
    whole = path.read_text()
    for cut in ("0.3,3,x,4", "0.3,3,x", '0.3,3,"a,b', "0", "seconds,st"):
        path.write_text(whole + cut)
        assert read_metrics(tmp_path)["x"] == {1: 1.0, 2: 2.0}, "4 may have been 4.25"
    with log(tmp_path) as run:
        run.metrics({"x": 5.0, "y": math.nan}, 2)
    found = read_metrics(tmp_path)
    assert found["x"] == {1: 1.0, 2: 5.0} and math.isnan(found["y"][2])
    assert path.read_text().startswith(whole) and cut not in path.read_text().removeprefix(whole)
    path.write_text("seconds,st")  # cut within its head
    with log(tmp_path) as run:
        run.metrics({"x": 1.0}, 1)
    assert read_metrics(tmp_path) == {"x": {1: 1.0}} and path.read_text().startswith("seconds,step,name,value\n")


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="to must be of csv"), log(tmp_path, "paper"):
        pass
    with pytest.raises(ValueError, match="options of 'mlflow'"), log(tmp_path, mlflow={}):
        pass
    with log(tmp_path / "r") as run, pytest.raises(FileNotFoundError, match="nothing"):
        run.artefact(tmp_path / "nothing")
    for around in (tmp_path, tmp_path / "r"):
        with log(tmp_path / "r") as run, pytest.raises(ValueError, match="holds the run itself"):
            run.artefact(around)


def test_an_adapter_that_cannot_begin_or_go_on_is_closed(tmp_path):
    class Never(CSV):
        def begin(self, name, record):
            raise OSError(28, "No space left on device")

    class Once(CSV):
        def metrics(self, values, step):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), log(tmp_path / "r", ["csv", Never(tmp_path / "n")]):
        pass
    assert record(tmp_path / "r")["status"] == "failed", "nobody works on it"
    with pytest.warns(UserWarning, match="Once logs no more"), log(tmp_path / "s", Once(tmp_path / "o")) as run:
        run.metrics({"x": 1.0}, 1)
    assert record(tmp_path / "o")["status"] == "failed"


def test_numbers_of_numpy_are_parameters(tmp_path):
    with log(tmp_path) as run:
        run.parameters({"lr": np.float64(0.25), "steps": np.int64(3), "widths": [np.float64(2.0)]})
    assert record(tmp_path)["parameters"] == {"lr": 0.25, "steps": 3, "widths": [2.0]}


def test_the_revision_of_the_work_is_known(tmp_path):
    line = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*line, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*line, "add", "a"], check=True)
    subprocess.run([*line, "commit", "-qm", "a"], check=True)
    known = git(tmp_path)
    assert len(known["revision"]) == 40 and not known["changed"]
    git.cache_clear()
    (tmp_path / "a").write_text("2")
    assert git(tmp_path)["changed"]


def test_differences_between_machines_are_named():
    here = environment()
    there = json.loads(json.dumps(here))
    assert differences(here, there) == []
    there["torch"], there["machine"]["processor"], there["machine"]["cores"] = "2.0", "Z80", 1
    assert [line.split(":")[0] for line in differences(here, there)] == ["torch", "processor"]


def test_seed_everything_reaches_every_generator():
    import random

    import numpy as np

    drawn = []
    for _ in range(2):
        assert hepops.seed_everything(2**40 + 3) == 2**40 + 3
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    hepops.seed_everything(3)
    assert drawn[0] == drawn[1] != (random.random(), np.random.rand(), torch.rand(1).item())
    flow = hepops.flows.nsf(2, layers=1, hidden=(4,))
    hepops.seed_everything(4)
    first = flow.sample(2)
    hepops.seed_everything(4)
    assert torch.equal(first, flow.sample(2)), "a seed that is not given comes from torch's generator"
    for bad, error in ((-1, ValueError), (1 << 63, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="seed must"):
            hepops.seed_everything(bad)
    assert environment()["seed"] == 4


@pytest.mark.parametrize("package", ["tensorboard", "mlflow", "wandb"])
def test_an_adapter_that_is_not_installed_says_what_to_install(tmp_path, package, monkeypatch):
    import sys

    for name in (package, f"{package}.tracking", f"{package}.entities", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install hepops\[{package}\]"), log(tmp_path, package):
        pass


def test_tensorboard_holds_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with log(tmp_path, ["tensorboard", "csv"]) as run:
        training = train()
        run.artefact(tmp_path / "run.yaml")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = {e.step: e.value for e in events.Scalars("training/loss")}
    assert scalars == {k + 1: pytest.approx(v, rel=1e-6) for k, v in enumerate(training.history["loss"])}, "in float32"
    assert {"run/text_summary", "parameters/text_summary", "status/text_summary"} <= set(events.Tags()["tensors"])


def test_mlflow_holds_the_numbers(tmp_path):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    (tmp_path / "a.txt").write_text("x")
    with log(tmp_path / "r", "mlflow", name="ring", mlflow={"experiment": "rings"}) as run:
        training = train()
        run.artefact(tmp_path / "a.txt")
    client = MlflowClient(tracking_uri=(tmp_path / "r" / "mlflow").as_uri())
    (held,) = client.search_runs([client.get_experiment_by_name("rings").experiment_id])
    history = client.get_metric_history(held.info.run_id, "training/loss")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == list(
        enumerate(training.history["loss"], 1)
    )
    assert held.data.params["training/steps"] == "3" and held.info.status == "FINISHED"
    assert held.info.run_name == "ring" and [f.path for f in client.list_artifacts(held.info.run_id)] == ["a.txt"]


def test_wandb_holds_the_numbers_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with log(tmp_path, "wandb", name="ring") as run:
        training = train()
        run.artefact(__file__)
        assert wandb.run.settings.mode == "offline"
        summary = dict(wandb.run.summary)
    assert summary["training/loss"] == training.history["loss"][-1] and summary["training/step"] == 3
    assert list((tmp_path / "wandb" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_command_is_logged(tmp_path):
    from hepops.cli.app import app
    from typer.testing import CliRunner

    place = tmp_path / "run"
    words = ["--log", f"csv:{place}", "gun", "-o", str(tmp_path / "t.h5"), "-n", "1"]
    assert CliRunner().invoke(app, words).exit_code == 0
    said = record(place)
    assert said["status"] == "finished" and said["parameters"]["command"].startswith("hepops --log")
    made = CliRunner().invoke(app, words)  # the file is there already
    assert made.exit_code == 1 and record(place)["status"] == "failed"
    for bad in ("csv", "csv:", "paper:x"):
        made = CliRunner().invoke(app, ["--log", bad, "info"])
        assert made.exit_code == 1 and made.output.startswith("hepops: ") and made.output.count("\n") == 1


def test_an_earlier_record_is_kept(tmp_path):
    for number in range(3):
        with log(tmp_path / "r", parameters={"number": number}) as run:
            run.metrics({"x": float(number)}, step=number)
    kept = [yaml.safe_load((tmp_path / "r" / f"run{n}.yaml").read_text()) for n in (".1", ".2", "")]
    assert [record["parameters"]["number"] for record in kept] == [0, 1, 2]
    assert read_metrics(tmp_path / "r")["x"] == {0: 0.0, 1: 1.0, 2: 2.0}
