"""The command `hepops`: what it writes, what it refuses and how it says so."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import hepops
import pytest
import torch
from hepops.cli import app
from hepops.cli.options import parse_events, parse_shard
from hepops.lartpc import Detector, Parameters, Simulator, read_config, read_hits, read_segments
from hepops.lartpc.fit import FitResult
from typer.testing import CliRunner

SHORT = ["--particle", "proton", "--topology", "inside", "--energy", "60:120"]


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words):
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result


def refused(*words, code=1):
    """The one line on stderr."""
    result = run(*words)
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("hepops: "), result.stderr
    assert "Traceback" not in result.output and result.stdout == ""
    return lines[0]


def shell(*words, **more):
    """The command in a process of its own."""
    code = "from hepops.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, env=environment(), **more
    )


def environment():
    source = str(Path(hepops.__file__).parent.parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


def same(a, b):
    """Two files of hits hold the same bits."""
    a, b = read_hits(a), read_hits(b)
    for name, column in (a.columns() | a.truth._asdict()).items():
        other = getattr(b, name) if hasattr(b, name) else getattr(b.truth, name)
        assert column.dtype == other.dtype and torch.equal(column, other), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """tracks.h5 and noise-free hits.h5 of a detector with another lifetime and field."""
    place = tmp_path_factory.mktemp("cli")
    done("gun", "-o", place / "tracks.h5", "-n", 5, "--seed", 3, *SHORT)
    changed = ["-p", "lifetime=1500", "-p", "efield=0.49"]
    done("simulate", place / "tracks.h5", "-o", place / "hits.h5", "--dtype", "float64", *changed)
    return place


# ---- what it writes


def test_simulate_is_the_simulator(folder):
    segments = read_segments(folder / "tracks.h5")
    sim = Simulator(Detector.module0(), Parameters(lifetime=1500.0, efield=0.49), dtype=torch.float64)
    hits, expected = read_hits(folder / "hits.h5"), sim(segments, truth=True)
    for name, column in expected.columns().items():
        assert torch.equal(hits.columns()[name], column), name
    assert torch.equal(hits.truth.segment, expected.truth.segment)


def test_the_file_says_how_it_was_made(folder):
    config = read_config(folder / "hits.h5")
    assert config["parameters"] == Parameters(lifetime=1500.0, efield=0.49)
    assert config["detector"] == Detector.module0()
    assert config["simulator"]["dtype"] == "float64" and config["seed"] is None
    made = config["provenance"]
    assert made["command"].startswith("hepops simulate ") and "efield=0.49" in made["command"]
    assert made["hepops"] == hepops.__version__ and made["torch"] == torch.__version__
    with h5py.File(folder / "tracks.h5") as file:
        assert json.loads(file.attrs["provenance"])["command"].startswith("hepops gun ")


@pytest.mark.parametrize("noise", [[], ["--seed", 4]], ids=["continuous", "noisy"])
@pytest.mark.parametrize("shards", [2, 3, 7], ids=lambda n: f"{n} shards")
def test_shards_are_the_whole(folder, tmp_path, noise, shards):
    """Five events in up to seven shards, some of them empty: the same bits, noise, rows and truth included."""
    done("simulate", folder / "tracks.h5", "-o", tmp_path / "whole.h5", *noise)
    for i in range(shards):
        done("simulate", folder / "tracks.h5", "-o", tmp_path / f"{i}.h5", "--shard", f"{i}/{shards}", *noise)
    parts = [tmp_path / f"{i}.h5" for i in reversed(range(shards))]
    done("merge", *parts, "-o", tmp_path / "merged.h5")
    same(tmp_path / "whole.h5", tmp_path / "merged.h5")
    assert read_hits(tmp_path / "merged.h5").reports["rejected"] == read_hits(tmp_path / "whole.h5").reports["rejected"]


@pytest.mark.parametrize("after", [1, 3])
def test_simulate_goes_on_after_a_kill(folder, tmp_path, after):
    """Killed with -9 after some pieces and started again: nothing lost, nothing twice."""
    words = ["--seed", 5, "--piece", 1, "--overwrite"]
    done("simulate", folder / "tracks.h5", "-o", tmp_path / "once.h5", *words)
    line = ["simulate", folder / "tracks.h5", "-o", tmp_path / "twice.h5", *words[:-1]]
    code = (
        "import os, signal, hepops.lartpc.production.run as run\n"
        "from hepops.lartpc import Hits\n"
        "save, count = Hits.save, [0]\n"
        "def counted(self, path, config=None):\n"
        f"    if count[0] == {after}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    count[0] += 1; save(self, path, config)\n"
        "Hits.save = counted\n"
        "from hepops.cli import main; main()"
    )
    killed = subprocess.run([sys.executable, "-c", code, *map(str, line)], env=environment(), timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "twice.h5").exists()
    result = done(*line)
    assert f"({after} of 5 pieces from an earlier start)" in result.stdout
    same(tmp_path / "once.h5", tmp_path / "twice.h5")
    assert not (tmp_path / "twice.h5.parts").exists()


def test_merge_refuses_what_is_no_whole(folder, tmp_path):
    for i, seed in ((0, 1), (1, 2)):
        done("simulate", folder / "tracks.h5", "-o", tmp_path / f"{i}.h5", "--shard", f"{i}/2", "--seed", seed)
    out = ["-o", tmp_path / "m.h5"]
    assert "made with another seed" in refused("merge", tmp_path / "0.h5", tmp_path / "1.h5", *out)
    assert "but 1 files were given" in refused("merge", tmp_path / "0.h5", *out)
    assert "and so is" in refused("merge", tmp_path / "0.h5", tmp_path / "0.h5", *out)
    assert "not a shard" in refused("merge", folder / "hits.h5", *out)


def test_threads_do_not_matter(folder, tmp_path):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            target = tmp_path / f"{threads}.h5"
            done("simulate", folder / "tracks.h5", "-o", target, "--seed", 1, "--threads", threads)
    finally:
        torch.set_num_threads(before)
    same(tmp_path / "1.h5", tmp_path / "2.h5")


def test_events_keep_their_segment_numbers(folder, tmp_path):
    done("simulate", folder / "tracks.h5", "-o", tmp_path / "last.h5", "--events", "-1:", "--dtype", "float64")
    hits, segments = read_hits(tmp_path / "last.h5"), read_segments(folder / "tracks.h5")
    assert torch.unique(hits.event).tolist() == [4]
    assert torch.unique(segments.event[hits.truth.segment]).tolist() == [4]


def test_calibrate_finds_the_detector(folder, tmp_path):
    target = tmp_path / "fit"
    result = done(
        "calibrate", folder / "hits.h5", "--tracks", folder / "tracks.h5", "-o", target, "--fit", "lifetime,efield"
    )
    values = json.loads((target / "parameters.json").read_text())["parameters"]
    assert abs(values["lifetime"]["value"] / 1500 - 1) < 1e-6
    assert abs(values["efield"]["value"] / 0.49 - 1) < 1e-8
    assert "true" in result.stdout and (target / "summary.txt").read_text().strip() in result.stdout
    assert FitResult.load(target / "result.h5").converged
    for name in ("overview", "trace", "correlations", "residuals"):
        assert (target / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    made = json.loads((target / "provenance.json").read_text())
    assert made["provenance"]["command"].startswith("hepops calibrate")
    again = ["calibrate", folder / "hits.h5", "--tracks", folder / "tracks.h5", "-o", target]
    assert "holds a finished fit" in refused(*again)
    # as a kill leaves it between the end of the fit and that of the tidying
    (target / "starts.json").write_text(json.dumps(made["run"]["starts"]))
    assert "was finished by an earlier start" in done(*again).stdout
    assert not (target / "starts.json").exists() and not (target / "lock").exists()
    (worker,) = made["run"]["starts"][-1]["workers"]
    assert 0 < worker["processor"] and 0 < worker["seconds"] < made["run"]["seconds"]


def test_calibrate_goes_on_after_a_kill(folder, tmp_path):
    """Killed after its first iteration and started again, it ends with the bits of a fit that was never stopped."""
    words = ["--tracks", folder / "tracks.h5", "--no-plots", "-q", "--start", "random", "--starts", "3", "--seed", "2"]
    once, twice = tmp_path / "once", tmp_path / "twice"
    done("calibrate", folder / "hits.h5", "-o", once, *words)
    code = "from hepops.cli import main; main()"
    line = [sys.executable, "-c", code, "calibrate", folder / "hits.h5", "-o", twice, *words]
    process = subprocess.Popen([str(word) for word in line], env=environment())
    deadline = time.monotonic() + 120
    while not (twice / "state.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (twice / "provenance.json").exists(), "it ended before it was killed"
    done("calibrate", folder / "hits.h5", "-o", twice, *words)
    a, b = FitResult.load(once / "result.h5"), FitResult.load(twice / "result.h5")
    assert torch.equal(a.values, b.values) and torch.equal(a.covariance, b.covariance) and a.trace == b.trace
    first, second = json.loads((twice / "provenance.json").read_text())["run"]["starts"]
    assert first["found"] == 0 < second["found"] and first["interrupted"] and second["seconds"] > 0
    assert not (twice / "lock").exists() and not (twice / "starts.json").exists() and not list(twice.glob(".*"))


def test_two_fits_do_not_share_a_folder(folder, tmp_path):
    from hepops.lartpc.production import record

    target = tmp_path / "fit"
    target.mkdir()
    with record.locked(target / "lock"):
        words = ["calibrate", folder / "hits.h5", "--tracks", folder / "tracks.h5", "-o", target, "--no-plots"]
        assert "another process is at work" in refused(*words)


def test_info_says_how_a_file_was_made(folder, tmp_path):
    hits = tmp_path / "hits.h5"
    done("simulate", folder / "tracks.h5", "-o", hits, "--seed", 5, "-q")
    text = done("info", hits, folder / "tracks.h5").stdout
    assert "hepops simulate" in text and "hepops gun" in text and "--seed 5" in text
    made = json.loads(done("info", "--json", hits).stdout)[str(hits)]
    assert made["hits"] == len(read_hits(hits)) and made["seed"] == 5 and len(made["source"]["digests"]) == 1
    (start,) = made["run"]["starts"]
    assert start["processes"] == 1 and 0 < start["seconds"] == made["run"]["seconds"] and made["run"]["pieces"] == 1
    assert "does not say how it was made" in refused("info", _foreign(tmp_path / "foreign.h5"))
    assert "holds no finished fit" in refused("info", tmp_path)


def _foreign(path):
    with h5py.File(path, "w") as file:
        file["x"] = [1]
    return path


def test_an_output_that_stood_before_its_start_was_killed_is_finished(folder, tmp_path, monkeypatch):
    from hepops.lartpc.production import run

    out = tmp_path / "hits.h5"
    monkeypatch.setattr(run, "remove", lambda folder: None)
    done("simulate", folder / "tracks.h5", "-o", out)
    monkeypatch.undo()
    assert (tmp_path / "hits.h5.parts").exists()
    assert "was finished by an earlier start" in done("simulate", folder / "tracks.h5", "-o", out).stdout
    assert not (tmp_path / "hits.h5.parts").exists()
    assert "exists already" in refused("simulate", folder / "tracks.h5", "-o", out)


def test_a_detector_of_modules_that_differ(tmp_path):
    """The whole 2x2, whose third module has another pitch: shot at, simulated, one parameter of one module fitted."""
    whole = ["--detector", "2x2"]
    done("gun", "-o", tmp_path / "tracks.h5", "-n", 6, "--seed", 1, *SHORT, *whole)
    words = ["-o", tmp_path / "hits.h5", "--dtype", "float64", *whole]
    done("simulate", tmp_path / "tracks.h5", *words)
    detector = read_config(tmp_path / "hits.h5")["detector"]
    assert not detector.is_uniform and len(read_hits(tmp_path / "hits.h5").tpc.unique()) > 2
    fit = ["--tracks", tmp_path / "tracks.h5", "-o", tmp_path / "fit", "--fit", "birks_a", "--start", "birks_a=0.82"]
    done("calibrate", tmp_path / "hits.h5", *fit, "--no-plots")
    found = FitResult.load(tmp_path / "fit" / "result.h5")
    assert found["birks_a"] == pytest.approx(detector.nominal.birks_a, rel=1e-6)


def test_calibrate_of_hits_with_noise(folder, tmp_path):
    """By the likelihood; who compares hits is warned."""
    done("simulate", folder / "tracks.h5", "-o", tmp_path / "noisy.h5", "--noise")
    words = [tmp_path / "noisy.h5", "--tracks", folder / "tracks.h5", "--iterations", 1, "--no-plots"]
    result = done("calibrate", *words, "-o", tmp_path / "fit")
    assert "carry noise" not in result.stderr and "time_offset" in result.stdout
    config = json.loads((tmp_path / "fit" / "provenance.json").read_text())["fit"]
    assert "ikelihood" in config["objectives"][-1]
    result = done("calibrate", *words, "-o", tmp_path / "hits", "--residual", "hits")
    assert "carry noise" in result.stderr and "time_offset" in result.stdout


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_display(folder, tmp_path, kind):
    target = tmp_path / f"event.{kind}"
    done("display", folder / "hits.h5", "--tracks", folder / "tracks.h5", "-o", target)
    assert target.read_bytes()[:4] in (b"\x89PNG", b"%PDF", b"<?xm")


def test_display_of_several_events(folder, tmp_path):
    done("display", folder / "hits.h5", "--events", ":", "-o", tmp_path / "all.pdf")
    assert (tmp_path / "all.pdf").read_bytes().count(b"/Type /Page ") == 5
    assert "need a .pdf" in refused("display", folder / "hits.h5", "--events", ":", "-o", tmp_path / "all.png")


def test_info():
    facts = json.loads(done("info", "--json").stdout)
    assert facts["hepops"] == hepops.__version__ and facts["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert any(name.startswith("libhepops_cpu") for name in facts["libraries"])
    assert "CPU level" in done("info").stdout
    assert done("--version").stdout.strip() == hepops.__version__


def test_demo(tmp_path):
    """The main job in a process of its own: all six parameters to 0.1 %, and the pictures."""
    run = shell("demo", "-o", tmp_path / "demo", "--threads", 1, timeout=600)
    assert run.returncode == 0, run.stderr
    values = json.loads((tmp_path / "demo" / "parameters.json").read_text())["parameters"]
    hidden = json.loads((tmp_path / "demo" / "demo.json").read_text())["hidden"]
    assert tuple(values) == Parameters.SIX
    for name in Parameters.SIX:
        assert abs(values[name]["value"] / hidden[name] - 1) < 1e-3
        assert abs(hidden[name] / Parameters.SPEC[name].nominal - 1) > 1e-3  # there was something to find
        assert name in run.stdout
    assert {"trace.png", "overview.png", "tracks.h5", "hits.h5"} <= {
        path.name for path in (tmp_path / "demo").iterdir()
    }
    assert "exists already" in refused("demo", "-o", tmp_path / "demo")


# ---- what it refuses


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.h5", "-o", "OUT"], "nowhere.h5: no such file"),
        (["TRACKS", "-o", "HITS"], "exists already; --overwrite replaces it"),
        (["TRACKS", "-o", "DIR"], "is a folder"),
        (["TRACKS", "-o", "OUT/deep.h5"], "there is no folder"),
        (["HITS", "-o", "OUT"], "segments"),
        (["TRACKS", "-o", "OUT", "-p", "lifetim=1"], "did you mean 'lifetime'"),
        (["TRACKS", "-o", "OUT", "-p", "lifetime=-1"], "lifetime must lie in"),
        (["TRACKS", "-o", "OUT", "-p", "lifetime"], "--parameter must be name=value, got 'lifetime'"),
        (["TRACKS", "-o", "OUT", "-p", "efield=0.5", "-p", "efield=0.4"], "names efield twice"),
        (["TRACKS", "-o", "OUT", "--events", "3"], "--events must be a:b"),
        (["TRACKS", "-o", "OUT", "--events", "9:"], "selects none of 5 events"),
        (["TRACKS", "-o", "OUT", "--shard", "2/2"], "--shard must be i/n"),
        (["TRACKS", "-o", "OUT", "--offset", "1,2"], "--offset must be three numbers"),
        (["TRACKS", "-o", "OUT", "--device", "tpu"], "--device must be cpu, cuda or cuda:N"),
        (["TRACKS", "-o", "OUT", "--device", "cuda:99"], "--device cuda:99"),
        (["TRACKS", "-o", "OUT", "--threads", "0"], "--threads must be at least 1"),
        (["TRACKS", "-o", "OUT", "--no-noise", "--seed", "1"], "nothing to draw"),
        (["TRACKS", "-o", "OUT", "--seed", "-1"], "--seed must lie between 0 and 2**63 - 1, got -1"),
        (["TRACKS", "-o", "OUT", "--seed", str(2**63)], "--seed must lie between 0 and"),
        (["TRACKS", "TRACKS", "-o", "OUT"], "--same-event merge or renumber decides"),
        (["TRACKS", "-o", "OUT", "--detector", "module9"], "--detector must be module0"),
        (["TRACKS", "-o", "OUT", "--layout", "a.yaml"], "--properties and --layout belong together"),
        (["TRACKS", "-o", "OUT", "--module", "7"], "module must be one of"),
        (["TRACKS", "-o", "OUT", "--response", "none.npy"], "none.npy"),
        (["TRACKS", "-o", "OUT", "--model", "bricks"], "model must be one of"),
        (["TRACKS", "-o", "OUT", "--step", "2"], "step must be in"),
        (["TRACKS", "-o", "OUT", "--threshold", "high"], "--threshold must be a number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_simulate_refuses(folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    places = {"TRACKS": folder / "tracks.h5", "HITS": folder / "hits.h5", "DIR": tmp_path, "OUT": tmp_path / "out.h5"}
    words = [places.get(w, places["OUT"] / "deep.h5" if w == "OUT/deep.h5" else w) for w in words]
    assert message in refused("simulate", *words)
    assert not list(tmp_path.iterdir()), "something was left behind"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["HITS", "--fit", "lifetime,efeld"], "efeld"),
        (["HITS", "--start", "lifetime=9e9"], "outside its range"),
        (["HITS", "--start", "lifetime"], "--start must be name=value"),
        (["HITS", "--prior", "lifetime=3"], "--prior must be name=a:b"),
        (["HITS", "--bounds", "lifetime=3:x"], "--bounds must be name=a:b"),
        (["HITS", "--starts", "0"], "starts must be at least 1"),
        (["HITS", "--fit", "w_ion,birks_a"], "degenerate"),
        (["TRACKS"], "not a file of hits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_calibrate_refuses(folder, tmp_path, words, message):
    words = [{"HITS": folder / "hits.h5", "TRACKS": folder / "tracks.h5"}.get(word, word) for word in words]
    assert message in refused("calibrate", *words, "--tracks", folder / "tracks.h5", "-o", tmp_path / "fit")


def test_calibrate_refuses_the_state_of_another_fit(folder, tmp_path):
    words = ["calibrate", folder / "hits.h5", "--tracks", folder / "tracks.h5", "-o", tmp_path / "fit", "--no-plots"]
    done(*words, "--fit", "efield")
    (tmp_path / "fit" / "provenance.json").unlink()  # as if it had been killed before its end
    assert "belongs to another fit" in refused(*words, "--fit", "lifetime")
    done(*words, "--fit", "lifetime", "--overwrite")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--event", "77"], "no hit of event 77"),
        (["--pixel", "0,1,2"], "--pixel needs --tracks"),
        (["-o", "picture.bmp"], "must end in .png"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_display_refuses(folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused("display", folder / "hits.h5", *words)


@pytest.mark.parametrize(
    "words", [["simulte"], ["simulate"], ["info", "--colour"], ["gun", "-n", "many", "-o", "x.h5"]]
)
def test_a_wrong_line_is_one_line_and_code_2(words):
    refused(*words, code=2)


def test_no_command_is_help():
    result = done()
    assert "simulate" in result.stdout and "calibrate" in result.stdout


def test_an_interrupted_write_leaves_nothing(folder, tmp_path, monkeypatch):
    """The disk fills while the hits are written: neither the file nor a part of it is there, an old one still is."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    done("simulate", folder / "tracks.h5", "-o", tmp_path / "old.h5")
    before = (tmp_path / "old.h5").read_bytes()
    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    assert "no space left" in refused("simulate", folder / "tracks.h5", "-o", tmp_path / "new.h5")
    assert "no space left" in refused("simulate", folder / "tracks.h5", "-o", tmp_path / "old.h5", "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["old.h5"]
    assert (tmp_path / "old.h5").read_bytes() == before


@pytest.mark.parametrize("link", ["", "symbolic", "hard"])
def test_an_input_is_never_the_output(folder, tmp_path, link):
    """Not with --overwrite either, and through no link."""
    files = {}
    for name in ("tracks.h5", "hits.h5"):
        source = tmp_path / name
        source.write_bytes((folder / name).read_bytes())
        files[name] = (source, source.read_bytes(), source if not link else tmp_path / f"link_{name}")
    tracks, _, out_tracks = files["tracks.h5"]
    hits, _, out_hits = files["hits.h5"]
    picture = tmp_path / "picture.png"
    (tmp_path / "fit").mkdir()
    fitted = tmp_path / "fit" / "result.h5"
    if link == "hard":
        picture.hardlink_to(hits)
        fitted.hardlink_to(hits)
    else:
        picture.symlink_to(hits)
        fitted.symlink_to(hits)
    if link:
        for source, target in ((tracks, out_tracks), (hits, out_hits)):
            target.symlink_to(source) if link == "symbolic" else target.hardlink_to(source)
    for words in (
        ["simulate", tracks, "-o", out_tracks],
        ["merge", hits, "-o", out_hits],
        ["display", hits, "-o", picture],
        ["calibrate", hits, "--tracks", tracks, "-o", tmp_path / "fit"],
    ):
        assert "is the input" in refused(*words, "--overwrite")
        assert all(source.read_bytes() == before for source, before, _ in files.values())
    assert fitted.exists()


@pytest.mark.parametrize("command", ["gun", "demo", "calibrate"])
@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_have_63_bits(folder, tmp_path, command, seed):
    words = [folder / "hits.h5", "--tracks", folder / "tracks.h5"] if command == "calibrate" else []
    message = refused(command, *words, "-o", tmp_path / "out", "--seed", seed)
    assert f"--seed must lie between 0 and 2**63 - 1, got {seed}" in message
    assert not list(tmp_path.iterdir())


def test_the_largest_seed_is_one(folder, tmp_path):
    done("gun", "-o", tmp_path / "tracks.h5", "-n", 1, "--seed", 2**63 - 1, *SHORT)
    done("simulate", tmp_path / "tracks.h5", "-o", tmp_path / "hits.h5", "--seed", 2**63 - 1)
    words = ["--tracks", tmp_path / "tracks.h5", "--start", "random", "--iterations", 1, "--no-plots"]
    done("calibrate", tmp_path / "hits.h5", "-o", tmp_path / "fit", "--seed", 2**63 - 1, *words)


def test_losses_are_said_whatever_their_size(folder, tmp_path):
    inside = done("simulate", folder / "tracks.h5", "-o", tmp_path / "a.h5", "--dtype", "float64")
    report = read_hits(tmp_path / "a.h5").reports
    assert f"{report['electrons_lost']:.4g} electrons lost beside the plane" in inside.stdout
    assert ("outside every drift volume" in inside.stdout) == (report["energy_outside"] > 0)
    done("gun", "-o", tmp_path / "muons.h5", "-n", 2, "--seed", 1)
    shifted = done("simulate", tmp_path / "muons.h5", "-o", tmp_path / "b.h5", "--offset", "0,0.5,0")
    report = read_hits(tmp_path / "b.h5").reports
    assert report["energy_outside"] > 0
    assert f"{report['energy_outside']:.4g} of " in shifted.stdout
    assert "MeV outside every drift volume" in shifted.stdout


def test_calibrate_warns_of_other_tracks_and_of_ends_of_ranges(folder, tmp_path):
    words = ["calibrate", folder / "hits.h5", "--fit", "lifetime", "--no-plots"]
    moved = ["--tracks", folder / "tracks.h5", "--offset", "0,0,0.9"]
    wrong = done(*words, *moved, "-o", tmp_path / "wrong")
    assert "hepops: warning: " in wrong.stderr and "have no measured partner" in wrong.stderr
    assert "have no measured partner" in (tmp_path / "wrong" / "summary.txt").read_text()
    ends = ["--tracks", folder / "tracks.h5", "--bounds", "lifetime=500:1400", "--start", "lifetime=1000"]
    end = done(*words, *ends, "-o", tmp_path / "end")
    assert "hepops: warning: lifetime = 1399" in end.stderr and "is at the end of its range" in end.stderr
    right = done(*words, "--tracks", folder / "tracks.h5", "--fit", "lifetime,efield", "-o", tmp_path / "right")
    assert "warning" not in right.output


def test_a_fit_that_does_not_end_says_so_once(folder, tmp_path):
    words = ["--tracks", folder / "tracks.h5", "-o", tmp_path / "fit", "--iterations", 1, "--no-plots"]
    result = done("calibrate", folder / "hits.h5", *words)
    assert "hepops: warning: not converged after 1 iterations\n" in result.stderr
    assert "iterations after" not in result.output


# ---- in a process of its own


def test_a_start_does_not_import_the_compiler():
    """torch._dynamo takes as long as torch itself; one decorator in hepops would import it for every command."""
    code = (
        "import sys, torch, hepops.cli, hepops.sparse.lists as lists\n"
        "assert not [name for name in sys.modules if name.startswith(('torch._dynamo', 'torch._inductor', 'sympy'))]\n"
        "def f(): pass\n"
        "assert vars(torch.compiler.assume_constant_result(f)).items() <= vars(lists._tf32_switch).items()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert run.returncode == 0, run.stderr


def test_errors_take_one_line_of_the_terminal(tmp_path):
    run = shell("simulate", "nowhere.h5", "-o", tmp_path / "hits.h5")
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr == "hepops: nowhere.h5: no such file\n"


def test_debug_shows_where(tmp_path):
    run = shell("simulate", "nowhere.h5", "-o", tmp_path / "hits.h5", "--debug")
    assert run.returncode == 1 and "Traceback" in run.stderr and "FileNotFoundError" in run.stderr


def test_energy_outside_is_warned_about_in_one_line(folder, tmp_path):
    run = shell("simulate", folder / "tracks.h5", "-o", tmp_path / "hits.h5", "--offset", "0,500,0", "-q")
    assert run.returncode == 0
    assert run.stderr.startswith("hepops: warning: 100% of the energy lies outside") and run.stderr.count("\n") == 1


# ---- the parts


def test_events_are_a_slice():
    assert (
        parse_events("2:5") == slice(2, 5)
        and parse_events(":") == slice(None)
        and parse_events("-3:") == slice(-3, None)
    )


def test_shards_are_named_from_zero():
    assert parse_shard("0/3") == (0, 3) and parse_shard(None) == (0, 1)
    for text in ("3/3", "1", "-1/3", "a/b", "1/0"):
        with pytest.raises(ValueError, match="--shard"):
            parse_shard(text)
