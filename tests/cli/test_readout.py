"""Several files of hits in one fit, their thresholds and channels, and modules that differ."""

import json

import numpy as np
import pytest
import torch
from hepops.cli.chain import Chain, made_with, parameters_of, truth_of
from hepops.cli.readout import chip_of
from hepops.lartpc import Channels, Detector, Parameters, Simulator, read_config, read_hits
from hepops.lartpc.fit import FitResult

from .test_cli import SHORT, done, refused

DETECTOR = Detector.module0()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four events; hits of the first and the last two with thresholds of 6500 e, another lifetime, without noise."""
    place = tmp_path_factory.mktemp("readout")
    done("gun", "-o", place / "tracks.h5", "-n", 4, "--seed", 3, *SHORT)
    for name, events in (("a", ":2"), ("b", "2:")):
        made = ["--dtype", "float64", "-p", "lifetime=1500", "--threshold", 6500, "--events", events, "-q"]
        done("simulate", place / "tracks.h5", "-o", place / f"{name}.h5", *made)
    return place


def test_a_fit_simulates_with_the_thresholds_of_the_hits(folder, tmp_path):
    words = ["--tracks", folder / "tracks.h5", "-o", tmp_path / "fit", "--fit", "lifetime", "--no-plots", "-q"]
    done("calibrate", folder / "a.h5", folder / "b.h5", *words)
    result = FitResult.load(tmp_path / "fit" / "result.h5")
    assert result["lifetime"] == pytest.approx(1500, rel=1e-6)
    assert result.counts["simulated_only"] == result.counts["measured_only"] == 0


def test_thresholds_that_differ_are_refused(folder, tmp_path):
    """By the first pixel, whether a number or a table of one pixel made them."""
    other = tmp_path / "other.h5"
    pixel = 3 * DETECTOR.tpcs[0].nx + 7
    np.savez(tmp_path / "table.npz", keys=np.array([pixel]), values=np.array([7000.0]), default=np.array(6500.0))
    made = ["--dtype", "float64", "--threshold", tmp_path / "table.npz", "--events", "2:", "-q"]
    done("simulate", folder / "tracks.h5", "-o", other, *made)
    words = ["--tracks", folder / "tracks.h5", "-o", tmp_path / "fit", "--fit", "lifetime"]
    said = refused("calibrate", folder / "a.h5", other, *words)
    assert f"{other}: threshold of pixel {pixel} (tpc 0, ix 7, iy 3) is 7000, in {folder / 'a.h5'} it is 6500" in said
    assert "(1 pixels differ)" in said
    np.savez(tmp_path / "table.npz", keys=np.array([pixel]), values=np.array([8000.0]), default=np.array(6500.0))
    said = refused("calibrate", other, *words)
    assert "table.npz: has changed since" in said and "other.h5 was simulated with it" in said


def test_channels_that_differ_are_refused(folder, tmp_path):
    """A dead channel has no constants to differ in; that it is dead differs."""
    plain = Channels.default(DETECTOR)
    status = plain.with_status([5], "dead")
    changed = {
        "same": status.replace(gain=torch.where(status.status == 1, 9.0, status.gain)),
        "dead": status.with_status([9], "dead"),
        "gain": status.replace(gain=torch.where(torch.arange(len(plain)) == 150, 4.2e-3, status.gain)),
    }
    hits = read_hits(folder / "a.h5")
    for name, channels in ({"first": status} | changed).items():
        channels.save(tmp_path / f"{name}.channels.npz")
        config = {"detector": DETECTOR, "seed": None, "measured": True, "channels": f"{name}.channels.npz"}
        hits.save(tmp_path / f"{name}.h5", config)

    def ask(*names):
        paths = [tmp_path / f"{name}.h5" for name in names]
        return chip_of(paths, [read_config(path) for path in paths], DETECTOR)

    assert ask("first", "same").masked.nonzero()[:, 0].tolist() == [5]
    with pytest.raises(
        ValueError, match=r"dead.h5: status of pixel 9 \(tpc 0, ix 9, iy 0\) is 1, in .*first.h5 it is 0"
    ):
        ask("first", "same", "dead")
    with pytest.raises(ValueError, match=r"gain.h5: gain of pixel 150 \(tpc 0, ix 10, iy 1\) is 0.0042, in .*first.h5"):
        ask("first", "gain")
    plain_config = [{"seed": 1}, {"measured": True, "channels": "first.channels.npz"}]
    with pytest.raises(ValueError, match=r"first.h5: status of pixel 5"):
        chip_of([tmp_path / "plain.h5", tmp_path / "first.h5"], plain_config, DETECTOR)
    assert chip_of([tmp_path / "plain.h5"], plain_config[:1], DETECTOR) is None


def test_files_of_another_kind_are_refused(folder, tmp_path):
    done("simulate", folder / "tracks.h5", "-o", tmp_path / "n.h5", "--events", "2:", "--seed", 1, "-q")
    words = ["--tracks", folder / "tracks.h5", "-o", tmp_path / "fit"]
    said = refused("calibrate", folder / "a.h5", tmp_path / "n.h5", *words)
    assert "n.h5: has another kind of hits (with noise, without) than" in said
    done("simulate", folder / "tracks.h5", "-o", tmp_path / "s.h5", "--events", "2:", "--step", 0.2, "-q")
    assert "s.h5: has another simulator than" in refused("calibrate", folder / "a.h5", tmp_path / "s.h5", *words)


def test_every_module_keeps_its_own_parameters(tmp_path):
    """In the file of hits, and from there to the simulator of a display; what they share is the truth of a fit."""
    detector = Detector.two_by_two()
    chain = Chain()
    own = {n: Parameters(lifetime=1000.0 + 100 * n, efield=0.49) for n in detector.module_numbers}
    config = parameters_of(chain.simulator(detector, ["birks_a=0.81"], own))
    assert "parameters" not in config and json.loads(json.dumps(config)) == config
    made = made_with(config)
    assert {n: p.lifetime for n, p in made.items()} == {1: 1100.0, 2: 1200.0, 3: 1300.0, 4: 1400.0}
    truth = truth_of(config)
    assert "lifetime" not in truth and truth["efield"] == 0.49 and truth["birks_a"] == 0.81
    again = chain.simulator(detector, parameters=made)
    assert [again.parameters_of(n).lifetime for n in (1, 4)] == [1100.0, 1400.0]
    assert Chain().simulator(detector.module(3), parameters=made).lifetime.item() == 1300.0
    plain = parameters_of(Simulator(DETECTOR, Parameters(lifetime=1500.0)))
    assert plain == {"parameters": Parameters(lifetime=1500.0)} and truth_of(plain)["lifetime"] == 1500.0
    assert truth_of({}) is None


def test_parameters_that_modules_do_not_share_are_not_fitted_together(tmp_path):
    from hepops.lartpc import fit, gun

    detector = Detector.two_by_two()
    own = {n: Parameters(lifetime=1000.0 + 100 * n) for n in detector.module_numbers}
    sim = Simulator(detector, own)
    segments = gun.shoot(detector.module(1), 1, "proton", topology="inside", energy=60.0, seed=1)
    with pytest.raises(ValueError, match="lifetime differs from module to module in this simulator"):
        fit(sim, segments, sim(segments), ["lifetime"])
