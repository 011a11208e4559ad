import csv
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import hepops
import numpy as np
import pytest
import torch
from hepops.lartpc.interactions import Mixture
from hepops.segmentation import CLASSES, Plan, Sample, Segmenter, make, train
from hepops.segmentation.training import batch, cross_entropy, evaluate, ordered_sum

NETWORK = {"filters": 4, "depth": 3, "reps": 1}
PLAN = Plan(epochs=2, batch=2, seed=3, network=NETWORK)


@pytest.fixture(scope="module")
def sample():
    return make(5, seed=1)


@pytest.fixture(scope="module")
def test():
    return make(2, seed=2)


class Killed(Exception):
    pass


def kill_at(step):
    def progress(done, total, measured):
        if done == step:
            raise Killed

    return progress


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


# ---- it learns


def test_a_short_training_learns(tmp_path):
    """Muons and protons alone differ by their charge per voxel: 30 steps tell them apart."""
    easy = Mixture(
        showers=(0, 0), cosmics=(0, 0), protons=(2, 2), muon_energy=(500.0, 800.0), proton_energy=(60.0, 120.0)
    )
    learn, test = make(10, seed=1, mixture=easy), make(4, seed=2, mixture=easy)
    plan = Plan(epochs=6, batch=2, seed=0, network={"filters": 8, "depth": 4, "reps": 1}, rate=1e-2)
    done = train(tmp_path, learn, test, plan)
    losses = [row["loss"] for row in done.history.steps]
    assert done.finished and len(losses) == 30
    assert np.mean(losses[-5:]) < 0.65 * losses[0]
    recall = dict(zip(CLASSES, done.score.recall, strict=True))
    assert recall["muon"] > 0.8 and recall["proton"] > 0.8 and done.score.accuracy > 0.8  # by chance: a quarter


# ---- it goes on


@pytest.fixture(scope="module")
def whole(sample, test, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, sample, test, PLAN)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_killed_training_ends_with_the_same_bits(step, sample, test, whole, tmp_path):
    folder, done = whole
    with pytest.raises(Killed):
        train(tmp_path, sample, test, PLAN, save_every=0.0, progress=kill_at(step))
    assert not (tmp_path / "model.safetensors").exists()
    again = train(tmp_path, sample, test, PLAN)
    assert again.finished and again.history.to_csv() == done.history.to_csv()
    assert torch.equal(again.score.matrix, done.score.matrix)
    for name in ("model.safetensors", "history.csv", "metrics.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_process_that_is_killed_hard_goes_on(sample, test, whole, tmp_path):
    """SIGKILL at any moment leaves a checkpoint that is whole."""
    code = (
        "import sys, hepops.segmentation as s; from pathlib import Path\n"
        "plan = s.Plan(epochs=2, batch=2, seed=3, network={'filters': 4, 'depth': 3, 'reps': 1})\n"
        "def say(step, *rest): print(step, flush=True)\n"
        "s.train(sys.argv[1], s.make(5, seed=1), s.make(2, seed=2), plan, save_every=0.0, progress=say)\n"
    )
    source = str(Path(hepops.__file__).parent.parent)
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    )
    assert child.stdout.readline().strip() == "1" and child.stdout.readline().strip() == "2"
    time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert (tmp_path / "state.pt").exists()
    first = []
    again = train(tmp_path, sample, test, PLAN, progress=lambda step, *rest: first.append(step))
    assert first[0] in (2, 3, 4, 5) and again.finished  # not from the beginning
    assert weights(tmp_path) == weights(whole[0])


def test_interruption_and_minutes_leave_a_checkpoint(sample, test, whole, tmp_path):
    def interrupt(done, total, measured):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, sample, test, PLAN, save_every=1e9, progress=interrupt)
    part = train(tmp_path, sample, test, PLAN, minutes=1e-9)
    assert not part.finished and part.step == 2 and not (tmp_path / "model.safetensors").exists()
    assert train(tmp_path, sample, test, PLAN).finished
    assert weights(tmp_path) == weights(whole[0])


def test_threads_do_not_matter(sample, test, whole, tmp_path):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            train(tmp_path / str(threads), sample, test, PLAN)
    finally:
        torch.set_num_threads(before)
    assert weights(tmp_path / "1") == weights(tmp_path / "2") == weights(whole[0])


def test_the_seed_decides(sample, test, whole, tmp_path):
    train(tmp_path, sample, test, replace(PLAN, seed=4))
    assert weights(tmp_path) != weights(whole[0])


def test_a_checkpoint_of_another_training_is_refused(sample, test, whole, tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, sample, test, PLAN, save_every=0.0, progress=kill_at(2))
    with pytest.raises(ValueError, match=r"belongs to another training, it differs in epochs \(2, not 3\)"):
        train(tmp_path, sample, test, replace(PLAN, epochs=3))
    with pytest.raises(ValueError, match="it differs in sample"):
        train(tmp_path, test, test, PLAN)
    (tmp_path / "state.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"state.pt: not a readable checkpoint"):
        train(tmp_path, sample, test, PLAN)


# ---- what it writes


def test_the_history_has_a_row_per_step(whole):
    folder, done = whole
    with open(folder / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 7)) == [row["step"] for row in done.history.steps]
    assert float(rows[3]["loss"]) == done.history.steps[3]["loss"]
    filled = [row["test_accuracy"] != "" for row in rows]
    assert filled == [False, False, True, False, False, True]


def test_the_saved_network_labels_as_the_trained_one(test, whole):
    folder, done = whole
    loaded = Segmenter.load(folder)
    assert torch.equal(loaded.label(test.coordinates, test.charge), done.segmenter.label(test.coordinates, test.charge))
    score, _ = evaluate(loaded, test, torch.ones(len(CLASSES)))
    assert torch.equal(score.matrix, done.score.matrix)


# ---- its parts


def test_a_batch_holds_the_events_reflected_and_shifted(sample):
    events = sample.split()[:2]
    coordinates, charge, label = batch(events, np.random.default_rng(0))
    assert coordinates[:, 0].unique().tolist() == [0, 1]
    assert torch.equal(charge, torch.cat([e.charge for e in events])) and len(label) == len(charge)
    for number, event in enumerate(events):
        c = coordinates[coordinates[:, 0] == number][:, 1:].double()
        d = event.coordinates[:, 1:].double()
        pairs = torch.randint(len(c), (2, 200))
        torch.testing.assert_close((c[pairs[0]] - c[pairs[1]]).norm(dim=1), (d[pairs[0]] - d[pairs[1]]).norm(dim=1))
        assert torch.equal(
            (c[pairs[0]] - c[pairs[1]])[:, 0].abs(), (d[pairs[0]] - d[pairs[1]])[:, 0].abs()
        )  # the drift


def test_the_loss_is_torchs_and_leaves_noise_out():
    logits, label = torch.randn(5000, 4, dtype=torch.float64), torch.randint(-1, 4, (5000,))
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(logits, label, weight, ignore_index=-1)
    torch.testing.assert_close(cross_entropy(logits, label, weight), expected, rtol=1e-12, atol=0)


def test_sums_keep_their_order():
    x = torch.randn(100_001)
    torch.testing.assert_close(ordered_sum(x), x.double().sum(), rtol=1e-9, atol=1e-9)
    assert float(ordered_sum(x[:0])) == 0.0


def test_the_rate_rises_once_and_falls():
    plan = Plan(rate=1.0 - 1e-9, warm=0.1)
    rates = [plan.rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25, rel=1e-6) and max(rates) == rates[10] == pytest.approx(1, rel=1e-6)
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:])) and rates[-1] < 2e-3
    assert all(math.isfinite(Plan().rate_at(step, 1)) for step in range(2))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(epochs=0), "epochs must be at least 1, got 0"),
        (dict(batch=0), "batch must be at least 1, got 0"),
        (dict(seed=-1), "seed must be at least 0, got -1"),
        (dict(rate=0.0), "rate must lie between 0 and 1, got 0.0"),
        (dict(rate=float("nan")), "rate must lie between"),
        (dict(decay=-1.0), "decay must lie between 0 and 1, got -1.0"),
        (dict(warm=1.0), "warm must lie between"),
    ],
)
def test_refuses_a_plan_without_meaning(options, message):
    with pytest.raises(ValueError, match=message):
        Plan(**options)


def test_refuses_no_events(sample, tmp_path):
    with pytest.raises(ValueError, match="sample must hold events with voxels, got none"):
        train(tmp_path, Sample.cat([]), sample, PLAN)
    with pytest.raises(ValueError, match="test must hold events"):
        train(tmp_path, sample, Sample.cat([]), PLAN)
    with pytest.raises(ValueError, match="minutes must be positive, got 0"):
        train(tmp_path, sample, sample, PLAN, minutes=0)
