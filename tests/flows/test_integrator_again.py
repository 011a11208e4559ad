"""Integrations that are killed, stored, or shared by ranks arrive at the same bits."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from hepops.flows import Channel, Integrator, integrate
from hepops.flows.integration import integrands, storage

RUN = {"seed": 11}
MAP = {"candidates": ("map",)}


def same(a, b):
    assert torch.equal(torch.as_tensor(a.mean), torch.as_tensor(b.mean))
    assert torch.equal(torch.as_tensor(a.sdev), torch.as_tensor(b.sdev))
    assert torch.equal(a.samples, b.samples) and torch.equal(a.weights, b.weights)
    for name in ("chi2", "ess", "neval", "max_weight", "zeros", "excluded", "proposal", "probing", "learning"):
        assert getattr(a, name) == getattr(b, name), name


class Interrupted(Exception):
    pass


def failing(f, after):
    """f, until it has seen so many points."""
    seen = 0

    def g(x):
        nonlocal seen
        seen += len(x)
        if seen > after:
            raise Interrupted
        return f(x)

    return g


@pytest.mark.parametrize("after", [2_000, 20_000, 40_000])
def test_an_interrupted_run_goes_on_to_the_same_bits(after, tmp_path, monkeypatch):
    """Within learning, within the look, and within the estimate."""
    monkeypatch.setattr("hepops.flows.integration.run.PAUSE", 0.0)
    f, state = integrands.camel(2), tmp_path / "state"
    whole = integrate(f, 2, 60_000, **RUN, **MAP)
    with pytest.raises(Interrupted):
        integrate(failing(f, after), 2, 60_000, checkpoint=state, **RUN, **MAP)
    calls = []

    def counted(x):
        calls.append(len(x))
        return f(x)

    result = integrate(counted, 2, 60_000, checkpoint=state, **RUN, **MAP)
    same(result, whole)
    assert sum(calls) < result.neval - after / 3, "what was evaluated before is not evaluated again"
    again = integrate(
        failing(f, 0), 2, 60_000, checkpoint=state, **MAP
    )  # the seed is the file's; nothing is left to do
    same(again, whole)


SCRIPT = """
import sys, time, torch
torch.set_num_threads(1)
from hepops.flows import integrate
from hepops.flows.integration import integrands
f = integrands.camel(2)
def slow(x):
    time.sleep(0.01)
    return f(x)
integrate(slow, 2, 60_000, seed=11, candidates=("map",), checkpoint=sys.argv[1])
"""


def test_kill_9_loses_nothing(tmp_path):
    state = tmp_path / "state"
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(state)], env=os.environ)
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and state.exists()
    same(integrate(integrands.camel(2), 2, 60_000, checkpoint=state, **RUN, **MAP),
         integrate(integrands.camel(2), 2, 60_000, **RUN, **MAP))  # fmt: skip


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    state = tmp_path / "state"
    integrate(integrands.camel(2), 2, 5_000, checkpoint=state, **RUN, **MAP)
    with pytest.raises(ValueError, match="the checkpoint of another run"):
        integrate(integrands.camel(2), 2, 6_000, checkpoint=state, **RUN, **MAP)
    with pytest.raises(ValueError, match="over other bounds"):
        integrate(integrands.camel(2), [(0, 1), (0, 2)], 5_000, checkpoint=state, **RUN, **MAP)


def test_a_run_that_goes_another_way_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("hepops.flows.integration.run.PAUSE", 0.0)
    state = tmp_path / "state"
    with pytest.raises(Interrupted):
        integrate(failing(integrands.camel(2), 8_000), 2, 60_000, checkpoint=state, **RUN, **MAP)
    data, tensors = storage.read(state)
    tensors["journal.0"] = tensors["journal.0"] + 1
    storage.write(state, data, tensors)
    with pytest.raises(ValueError, match="went another way"):
        integrate(integrands.camel(2), 2, 60_000, checkpoint=state, **RUN, **MAP)


@pytest.mark.parametrize("kind", ["cut", "foreign", "missing"])
def test_broken_files(kind, tmp_path):
    path = tmp_path / "state"
    if kind == "cut":
        integrate(integrands.camel(2), 2, 5_000, checkpoint=path, **RUN, **MAP)
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "foreign":
        path.write_bytes(b"no safetensors")
    with pytest.raises(FileNotFoundError if kind == "missing" else ValueError):
        Integrator.load(path, integrands.camel(2))


@pytest.mark.parametrize("candidates", [("map",), ("mixture",), ("flow",)])
def test_a_saved_integrator_gives_the_same_samples(candidates, tmp_path):
    f = integrands.camel(2)
    integrator = Integrator(f, [(0, 1), (0, 1)], candidates=candidates)
    integrator.integrate(30_000, seed=1, probe_share=0)
    integrator.save(tmp_path / "it")
    loaded = Integrator.load(tmp_path / "it", f)
    x, w = integrator.sample(5000, seed=3)
    y, v = loaded.sample(5000, seed=3)
    assert torch.equal(x, y) and torch.equal(w, v)
    same(*(i.integrate(20_000, seed=2, learn=False) for i in (integrator, loaded)))


def test_samples_are_numbered():
    integrator = Integrator(integrands.camel(2), 2, **MAP)
    integrator.integrate(10_000, seed=1)
    x, w = integrator.sample(9000, seed=3)
    y, v = integrator.sample(1000, seed=3, first=5000)
    assert torch.equal(x[5000:6000], y) and torch.equal(w[5000:6000], v)


def test_discrete_probabilities_and_channels_are_saved(tmp_path):
    def f(x):
        return torch.where(x[:, 1] == 1, 9.0, 1.0)

    integrator = Integrator(f, 2, discrete={1: 3}, **MAP)
    integrator.integrate(10_000, seed=1)
    integrator.save(tmp_path / "it")
    loaded = Integrator.load(tmp_path / "it", f)
    assert torch.equal(loaded.domain.probabilities[1], integrator.domain.probabilities[1])
    assert torch.equal(loaded.sample(100, seed=1)[1], integrator.sample(100, seed=1)[1])

    channel = Channel(lambda u: u.sqrt(), lambda x: (2 * x[:, 0]).log())
    integrator = Integrator(lambda x: x[:, 0], 1, channels=[channel], candidates=("mixture",))
    integrator.integrate(10_000, seed=1)
    integrator.save(tmp_path / "it")
    loaded = Integrator.load(tmp_path / "it", integrator.f, channels=[channel])
    assert torch.equal(loaded.sample(100, seed=1)[1], integrator.sample(100, seed=1)[1])
    if "UserChannel" in (tmp_path / "it").read_bytes().decode("latin1"):
        with pytest.raises(ValueError, match="must be given again"):
            Integrator.load(tmp_path / "it", integrator.f)


def test_loading_executes_nothing(tmp_path):
    integrator = Integrator(integrands.camel(2), 2, **MAP)
    integrator.integrate(10_000, seed=1)
    integrator.save(tmp_path / "it")
    data, tensors = storage.read(tmp_path / "it")
    data["prepared"]["proposal"]["kind"] = "os.system"
    storage.write(tmp_path / "it", data, tensors)
    with pytest.raises(ValueError, match="kind must be one of"):
        Integrator.load(tmp_path / "it", integrands.camel(2))


RANK = """
import sys, torch, torch.distributed as dist
torch.set_num_threads(1)
rank, world, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=world)
from hepops.flows import Integrator
from hepops.flows.integration import integrands
calls = 0
def f(x):
    global calls
    calls += len(x)
    return integrands.camel(2)(x)
integrator = Integrator(f, 2, candidates=("map", "mixture"))
result = integrator.integrate(60_000, seed=11)
events = integrator.sample_unweighted(100, seed=3)
def nan(x):
    return torch.where(x[:, 0] > 2.0 * rank - 1, float("nan"), 1.0)
try:
    Integrator(nan, 2).integrate(60_000, seed=1)
    failed = "no"
except (ValueError, RuntimeError) as error:
    failed = type(error).__name__
torch.save({"mean": result.mean, "sdev": result.sdev, "chi2": result.chi2, "neval": result.neval, "calls": calls,
            "x": events.x, "failed": failed}, f"{place}/{rank}.pt")
dist.destroy_process_group()  # threads of gloo that live on at the exit may abort it
"""


def test_two_ranks_give_the_bits_of_one(tmp_path):
    children = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), "2", str(tmp_path)], env=os.environ) for rank in (0, 1)
    ]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    integrator = Integrator(integrands.camel(2), 2, candidates=("map", "mixture"))
    one = integrator.integrate(60_000, seed=11)
    events = integrator.sample_unweighted(100, seed=3)
    for rank in ranks:
        assert (rank["mean"], rank["sdev"], rank["chi2"], rank["neval"]) == (one.mean, one.sdev, one.chi2, one.neval)
        assert torch.equal(rank["x"], events.x)
    assert sum(rank["calls"] for rank in ranks) == one.neval + events.neval, "each point is evaluated on one rank"
    assert [rank["failed"] for rank in ranks] == ["ValueError", "RuntimeError"], "no rank waits for one that failed"
