"""What an adapter is given that its format does not like: it is all there afterwards, under a name that says so."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hepops.models import text
from hepops.runs import CSV, log, read_metrics
from hepops.runs.names import Names, shortened

NAMES = ["a", "a,b", 'q"uote', "line\nend", "car\rriage", "back\\slash", "back\\nslash", "../../x", "/abs", "a//b",
         "a/b", "nul\x00", "é" * 200, "k" * 400, ".", "x/", "a_b", "star*"]  # fmt: skip
VALUES = dict(zip(NAMES, [float(k) for k in range(len(NAMES))], strict=True))


# ---- CSV


def test_csv_takes_any_name_and_any_number(tmp_path):
    odd = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "small": 5e-324, "large": 1.7976931348623157e308}
    with log(tmp_path) as run:
        run.metrics(VALUES, 1)
        run.metrics(odd, 2)
        run.metrics({"late": 1.0}, 3)
    found = read_metrics(tmp_path)
    assert {name: found[name] for name in NAMES} == {name: {1: value} for name, value in VALUES.items()}
    assert math.isnan(found["nan"][2]) and all(found[n] == {2: odd[n]} for n in odd if n != "nan")
    assert found["late"] == {3: 1.0}
    lines = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(NAMES) + len(odd) + 1, "one line per number"
    with open(tmp_path / "metrics.csv", newline="", encoding="utf-8") as file:
        assert all(len(row) == 4 for row in csv.reader(file))


def test_csv_keeps_words_of_other_encodings(tmp_path, monkeypatch):
    """A file's name of Latin-1 on the command line has half characters, which UTF-8 has not."""
    monkeypatch.setattr(sys, "argv", ["train", os.fsdecode(b"caf\xe9.h5")])
    with log(tmp_path, parameters={"where": os.fsdecode(b"\xe9"), "name\udce9": 1, "list": ["\udce9"]}) as run:
        run.metrics({"m\udce9": 1.0}, 1)
    said = text.parse((tmp_path / "run.yaml").read_bytes(), "run.yaml")
    assert said["status"] == "finished" and r"caf\udce9.h5" in said["command"]
    assert said["parameters"] == {"where": r"\udce9", r"name\udce9": 1, "list": [r"\udce9"]}
    assert read_metrics(tmp_path) == {r"m\udce9": {1: 1.0}}


def test_artefacts_of_one_name_are_both_there(tmp_path):
    for k in ("a", "b"):
        (tmp_path / k).mkdir()
        (tmp_path / k / "fit.h5").write_text(k)
        (tmp_path / k / "dangling").symlink_to(tmp_path / "nowhere")
    with log(tmp_path / "r") as run:
        for place in ("a/fit.h5", "b/fit.h5", "a"):
            run.artefact(tmp_path / place)
        (tmp_path / "a" / "fit.h5").write_text("again")
        run.artefact(tmp_path / "a/fit.h5")
        (tmp_path / "a" / "more").write_text("x")
        (tmp_path / "a" / "fit.h5").unlink()
        run.artefact(tmp_path / "a")
    held = tmp_path / "r" / "artefacts"
    assert (held / "fit.h5").read_text() == "again" and (held / "fit.2.h5").read_text() == "b"
    assert [p.name for p in (held / "a").iterdir()] == ["more"], "as it was at last"
    assert sorted(p.name for p in held.iterdir()) == ["a", "fit.2.h5", "fit.h5"]
    said = text.parse((tmp_path / "r" / "run.yaml").read_bytes(), "run.yaml")
    assert sorted(said["artefacts"]) == ["a", "fit.2.h5", "fit.h5"]


def test_two_folders_with_csv_are_two_logs(tmp_path):
    with log(tmp_path / "r", [CSV(tmp_path / "a"), CSV(tmp_path / "b")]) as run:
        run.metrics({"x": 1.0}, 1)
    assert read_metrics(tmp_path / "a") == read_metrics(tmp_path / "b") == {"x": {1: 1.0}}


def test_a_run_that_is_killed_leaves_what_it_had(tmp_path):
    program = textwrap.dedent(
        """
        import os, signal, sys
        from hepops.runs import log
        with log(sys.argv[1]) as run:
            run.parameters({"depth": 2})
            for step in range(100):
                run.metrics({"loss, all": 0.125 * step}, step)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "r")])
    assert killed.returncode == -signal.SIGKILL
    assert read_metrics(tmp_path / "r") == {"loss, all": {step: 0.125 * step for step in range(100)}}
    said = text.parse((tmp_path / "r" / "run.yaml").read_bytes(), "run.yaml")
    assert said["status"] == "running" and said["parameters"] == {"depth": 2}


# ---- what every adapter is spared


@pytest.mark.parametrize(
    ("values", "step", "message"),
    [
        ({"a": 1.0}, 1.5, r"step must be a whole number, got 1\.5"),
        ({"a": 1.0}, None, "step must be a whole number, got None"),
        ({1: 1.0}, 1, "a name must be a word, got 1"),
        ({"": 1.0}, 1, "a name must be a word, got ''"),
    ],
)
def test_metrics_that_are_none(tmp_path, values, step, message):
    with log(tmp_path) as run, pytest.raises(TypeError, match=message):
        run.metrics(values, step)


def test_an_adapter_that_cannot_begin_is_named_and_what_it_opened_is_closed(tmp_path):
    class Half(CSV):
        def begin(self, name, record):
            super().begin(name, record)
            raise OSError(28, "No space left on device")

    half, trained = Half(tmp_path / "h"), []
    with pytest.raises(OSError, match="No space") as error, log(tmp_path / "r", ["csv", half]):
        trained.append(1)
    assert not trained and error.value.__notes__ == ["hepops: the log 'Half' could not begin"]
    assert half.file.closed
    for place in ("r", "h"):
        assert text.parse((tmp_path / place / "run.yaml").read_bytes(), "")["status"] == "failed"


# ---- names for MLflow


def test_every_name_has_a_key_of_its_own_that_a_file_store_takes():
    names = Names()
    keys = {name: names.key(name) for name in NAMES}
    assert len(set(keys.values())) == len(NAMES) and keys == {name: names.key(name) for name in NAMES}
    for name, key in keys.items():
        assert 0 < len(key.encode()) <= 250 and os.path.normpath(key) == key and not key.startswith(("/", ".."))
        assert not any(other.startswith(f"{key}/") for other in keys.values()), "no key is the folder of another"
        assert (names.changed.get(key, key)) == name, "what was changed is known"
    assert keys["a"] == "a" and keys["a_b"] == "a_b", "what is taken as it is stays"


def test_long_values_say_that_they_were_cut():
    assert shortened("x" * 500, 500, "w") == "x" * 500
    cut = shortened("x" * 501, 500, "w")
    assert len(cut) == 500 and cut.endswith("x... [501 characters, all in w]")


# ---- the packages, where they are installed


@pytest.fixture
def mlflow_run(tmp_path):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    def held(place):
        client = MlflowClient(tracking_uri=(place / "mlflow").as_uri())
        (run,) = client.search_runs([client.get_experiment_by_name("hepops").experiment_id])

        def read(name):
            return json.loads((tmp_path / client.download_artifacts(run.info.run_id, name, tmp_path)).read_text())

        return run, read

    return held


def test_mlflow_holds_all_parameters_whatever_they_are(tmp_path, mlflow_run, recwarn):
    many = {f"p{k}": k for k in range(250)}
    with log(tmp_path / "r", "mlflow", name="n" * 600, parameters={"long": "x" * 10_000}) as run:
        run.parameters(many)
        run.parameters(VALUES)
        run.parameters({"p0": 0, "p1": "other", "sizes": (1, 2)})
        run.parameters({"p1": "third", "sizes": (1, 2)})
    assert not [w for w in recwarn if "logs no more" in str(w.message)]
    run, read = mlflow_run(tmp_path / "r")
    params, keys = run.data.params, read("hepops/names.json")["parameters"]
    assert run.info.status == "FINISHED" and all(params[name] == str(value) for name, value in many.items())
    assert (params["p1"], params["p1.2"], params["p1.3"]) == ("1", "other", "third") and "p0.2" not in params
    assert params["sizes"] == "(1, 2)" and "sizes.2" not in params
    assert {keys.get(key, key): value for key, value in params.items()}.items() >= {
        name: str(value) for name, value in VALUES.items()
    }.items()
    assert len(params) == len(many) + len(VALUES) + 4
    assert params["long"].endswith("... [10000 characters, all in hepops/parameters.json]")
    assert read("hepops/parameters.json")["long"] == "x" * 10_000 and read("hepops/run.json")["name"] == "n" * 600


def test_mlflow_holds_all_metrics_whatever_their_names(tmp_path, mlflow_run, recwarn):
    many = {f"m{k}": float(k) for k in range(1500)}
    with log(tmp_path / "r", "mlflow") as run:
        run.metrics(many, 1)
        run.metrics(VALUES, 2)
        run.metrics({"a/b/c": 5.0, "nan": math.nan, "inf": math.inf}, 3)
    assert not [w for w in recwarn if "logs no more" in str(w.message)]
    run, read = mlflow_run(tmp_path / "r")
    keys = read("hepops/names.json")["metrics"]
    found = {keys.get(key, key): value for key, value in run.data.metrics.items()}
    assert math.isnan(found.pop("nan"))
    assert found == many | VALUES | {"a/b/c": 5.0, "inf": math.inf}


def test_mlflow_is_asked_for_no_more_than_it_takes_at_once(tmp_path, monkeypatch):
    """Versions before 2 do not divide a batch themselves, and a server answers with an error."""
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    log_batch, sizes = MlflowClient.log_batch, []

    def counted(self, run_id, metrics=(), params=(), tags=(), **options):
        sizes.append(len(metrics) + len(params) + len(tags))
        return log_batch(self, run_id, metrics=metrics, params=params, tags=tags, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    with log(tmp_path, "mlflow", parameters={f"p{k}": k for k in range(250)}) as run:
        run.metrics({f"m{k}": 1.0 for k in range(150)}, 1)
    assert sizes == [100, 100, 50, 100, 50]


def test_tensorboard_takes_any_name_and_any_number(tmp_path, recwarn):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    names = [name for name in NAMES if name != "nul\x00"]
    with log(tmp_path / "r", "tensorboard", parameters={"a|b": "one\ntwo"}) as run:
        run.metrics({name: VALUES[name] for name in names}, 1)
        run.metrics({"nan": math.nan, "inf": math.inf}, 2)
    assert not [w for w in recwarn if "logs no more" in str(w.message)]
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard"))
    events.Reload()
    assert math.isnan(events.Scalars("nan")[0].value) and events.Scalars("inf")[0].value == math.inf
    assert sorted(
        events.Scalars(tag)[0].value for tag in events.Tags()["scalars"] if tag not in ("nan", "inf")
    ) == sorted(VALUES[name] for name in names)
    (table,) = events.Tensors("parameters/text_summary")
    assert r"| a\|b | one<br>two |" in table.tensor_proto.string_val[0].decode()


def test_tensorboard_opens_nothing_before_the_run_begins(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(ValueError, match="options of 'paper'"), log(tmp_path / "r", "tensorboard", paper={}):
        pass
    assert not (tmp_path / "r").exists()


def test_wandb_takes_any_name_and_any_number(tmp_path, monkeypatch, recwarn):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "a b,ü.txt").write_text("x")
    with log(tmp_path / "r", "wandb", parameters={"p": math.nan}) as run:
        run.metrics(VALUES, 3)
        run.metrics({"ess": 0.5, "nan": math.nan}, 4)
        run.metrics({"loop/loss": 0.25}, 1)
        run.artefact(tmp_path / "a b,ü.txt")
        summary = dict(wandb.run.summary)
    assert not [w for w in recwarn if "logs no more" in str(w.message)]
    assert all(summary[name] == value for name, value in VALUES.items())
    assert summary["ess"] == 0.5 and summary["step"] == 4 and summary["loop/step"] == 1 and "/step" not in summary
