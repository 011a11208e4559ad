"""A training ends with the same bits whether it was killed or not, alone or over ranks; and it learns."""

import math
import multiprocessing
import os
import signal
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hepops.flows import nsf
from hepops.flows.training import Average, Order, Trainer, alpha_divergence, fit, mean_log_prob, train_sampler
from hepops.flows.training.order import permutation
from torch import multiprocessing as mp


def _flow(features=2, context=0, seed=3):
    torch.manual_seed(seed)
    return nsf(features, context, layers=2, bins=4, hidden=(16,))


def _data(n=600):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(n, 2, generator=g)
    return torch.stack([x[:, 0], 0.3 * x[:, 1] + x[:, 0].square() - 1], 1)


def _target(x):
    return -0.5 * ((x[:, 0] ** 2) + ((x[:, 1] - 0.5 * x[:, 0] ** 2) / 0.7) ** 2)


def _bits(flow):
    return torch.cat([p.detach().flatten() for p in flow.parameters()])


def _same(one, other):
    """Two trainings, but for the clock."""
    for name in ("step", "loss", "lr", "norm", "ess"):
        a, b = (torch.tensor(t.history[name], dtype=torch.float64) for t in (one, other))
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert one.history.validation == other.history.validation
    assert (one.step, one.best_step, one.skipped, one.stopped) == (
        other.step,
        other.best_step,
        other.skipped,
        other.stopped,
    )


OPTIONS = {"batch": 100, "seed": 7, "ema": 0.9, "clip": 5.0, "validation": 0.2}


# It learns


def test_fit_learns_a_curved_density():
    flow, held = _flow(), _data(3000)[2000:]
    training = fit(flow, _data(3000)[:2000], epochs=25, batch=100, lr=1e-2, seed=1)
    # entropy of the data: that of N(0, 1) and N(0, .3)
    entropy = math.log(2 * math.pi * math.e) + math.log(0.3)
    assert -float(mean_log_prob(flow, held)) < entropy + 0.35  # one normal density: entropy + 1.57
    assert training.history["loss"][0] > entropy + 0.5
    assert training.best_step % 18 == 0  # validated at the ends of epochs


def test_fit_learns_a_dependence_on_its_context():
    flow = _flow(1, 1)
    c = torch.rand(2000, 1) * 2 - 1
    x = 2 * c + 0.3 * torch.randn(2000, 1)
    fit(flow, x, c, epochs=1, batch=50, lr=1e-2)  # one coupling changes nothing of a single number's conditions
    assert flow.log_prob(torch.tensor([[2.0]]), torch.tensor([[1.0]])) > flow.log_prob(
        torch.tensor([[2.0]]), torch.tensor([[-1.0]])
    )


@pytest.mark.parametrize("loss", ["path", "reverse_kl", "reinforce", "alpha"])
def test_train_sampler_learns(loss):
    flow = _flow()
    function = (lambda q, p: alpha_divergence(q, p, 0.5)) if loss == "alpha" else loss
    training = train_sampler(flow, _target, steps=250, batch=128, lr=1e-2, loss=function, seed=2, validation=2000)
    assert sum(training.history["ess"][-20:]) / 20 > 0.85
    # the reverse KL ends at -ln Z = -ln(2 pi .7)
    assert abs(training.best_validation + math.log(2 * math.pi * 0.7)) < 0.1


def test_weights_of_events_count():
    x = torch.cat([torch.randn(500, 1) - 2, torch.randn(500, 1) + 2])
    v = torch.cat([torch.full((500,), 3.0), torch.ones(500)])
    flow = _flow(1)
    fit(flow, x, weights=v, epochs=15, batch=100, lr=1e-2)
    left = flow.rsample_and_log_prob(4000, seed=1)[0] < 0
    assert abs(left.double().mean() - 0.74) < 0.05  # .75 of them, and what crosses 0


# The same end


class _Kill(Exception):
    pass


def _stop_at(n):
    def progress(step, steps, row):
        if step == n:
            raise _Kill

    return progress


@pytest.mark.parametrize("options", [{}, {"schedule": torch.optim.lr_scheduler.ReduceLROnPlateau}, {"chunks": 3}])
def test_resumes_with_the_same_bits(options, tmp_path):
    plain, resumed = _flow(), _flow()
    whole = fit(plain, _data(), epochs=8, **OPTIONS, **options)
    for stop in (3, 11, 17):
        with pytest.raises(_Kill):
            fit(
                resumed, _data(), epochs=8, folder=tmp_path, progress=_stop_at(stop), save_every=2, **OPTIONS, **options
            )
        resumed = _flow(seed=stop)  # what the module holds does not matter
    training = fit(resumed, _data(), epochs=8, folder=tmp_path, **OPTIONS, **options)
    assert torch.equal(_bits(plain), _bits(resumed))
    _same(whole, training)
    again = _flow(seed=1)  # finished: nothing is trained again
    _same(whole, fit(again, _data(), epochs=8, folder=tmp_path, **OPTIONS, **options))
    assert torch.equal(_bits(plain), _bits(again))


def _train_in(folder, slow):
    torch.set_num_threads(1)  # a forked process has no pool of threads

    calls = []

    def target(x):
        calls.append(1)
        time.sleep(slow if len(calls) < 10 else 15 * slow)  # however late the signal comes, steps are left
        return _target(x)

    train_sampler(_flow(), target, steps=40, batch=32, lr=1e-2, folder=folder, save_every=3, seed=9, ema=0.9)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_same_bits_after_a_kill(number, tmp_path):
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_train_in, args=(tmp_path / "killed", 0.02))
    process.start()
    while not (tmp_path / "killed" / "training.pt").exists():
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode != 0
    state = torch.load(tmp_path / "killed" / "training.pt", weights_only=True)
    assert 0 < state["numbers"]["step"] < 40
    if number != signal.SIGKILL:  # saved on the way out
        assert state["numbers"]["step"] == len(state["columns"]["step"])
    for name in ("killed", "whole"):
        _train_in(tmp_path / name, 0)
    a, b = (torch.load(tmp_path / name / "training.pt", weights_only=True) for name in ("killed", "whole"))
    assert a["numbers"] | {"spent": 0} == b["numbers"] | {"spent": 0}
    torch.testing.assert_close(a["weights"], b["weights"], rtol=0, atol=0)
    torch.testing.assert_close(a["average"]["mean"], b["average"]["mean"], rtol=0, atol=0)
    torch.testing.assert_close(a["columns"]["loss"], b["columns"]["loss"], rtol=0, atol=0)


def test_keyboard_interrupt_in_the_objective_saves(tmp_path):
    calls = []

    def target(x):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return _target(x)

    with pytest.raises(KeyboardInterrupt):
        train_sampler(_flow(), target, steps=10, batch=16, folder=tmp_path)
    assert torch.load(tmp_path / "training.pt", weights_only=True)["numbers"]["step"] == 5


def test_out_of_time_and_on_again(tmp_path):
    plain, flow = _flow(), _flow()
    train_sampler(plain, _target, steps=6, batch=16)
    stopped = []
    while "steps" not in stopped:
        stopped.append(train_sampler(flow, _target, steps=6, batch=16, folder=tmp_path, seconds=1e-6).stopped)
    assert stopped[0] == "seconds" and len(stopped) == 6
    assert torch.equal(_bits(plain), _bits(flow))


def _rank(rank, world, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    group = torch.distributed.group.WORLD
    for name, run in _DISTRIBUTED.items():
        flow = _flow(seed=rank)  # rank 0's is taken
        training = run(flow, {"chunks": 4, "group": group})
        torch.save([_bits(flow), training], f"{folder}/{name}{rank}.pt")
    torch.distributed.destroy_process_group()


_DISTRIBUTED = {
    "fit": lambda flow, o: fit(flow, _data(), epochs=2, batch=100, seed=7, validation=0.2, **o),
    "path": lambda flow, o: train_sampler(flow, _target, steps=10, batch=64, seed=7, ema=0.5, **o),
}


@pytest.mark.parametrize("world", [2, 4])
def test_the_same_bits_for_any_number_of_ranks(world, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    mp.start_processes(_rank, (world, str(tmp_path)), nprocs=world, start_method="fork")
    for name, run in _DISTRIBUTED.items():
        flow = _flow(seed=0)
        alone = run(flow, {"chunks": 4})
        for rank in range(world):
            bits, training = torch.load(tmp_path / f"{name}{rank}.pt", weights_only=False)
            assert torch.equal(bits, _bits(flow))
            _same(alone, training)
        plain = _flow(seed=0)
        run(plain, {})  # chunks change the rounding, not the samples
        torch.testing.assert_close(_bits(plain), _bits(flow), rtol=0, atol=3e-3)
        assert not torch.equal(_bits(plain), _bits(_flow(seed=0)))
    torch.set_num_threads(before)


def test_what_the_module_draws_repeats_and_leaves_the_generator_alone(tmp_path):
    def dropout():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))

    ends = []
    for stop in (3, 100):
        module, x = dropout(), torch.randn(10, 4, generator=torch.Generator().manual_seed(1))

        def objective(step, first, count, module=module, x=x):
            return module(x[first : first + count]).square().mean(), None

        torch.manual_seed(11)
        for last in (stop, 10):
            trainer = Trainer(10, batch=10, folder=tmp_path / str(stop), progress=_stop_at(last), save_every=1)
            try:
                trainer.run(module, objective)
            except _Kill:
                pass
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(11)))
        ends.append(_bits(module))
    assert torch.equal(*ends)


# Order, schedule, average, early stop


def test_an_epoch_is_a_permutation_and_the_next_another():
    order = Order(10, 3, seed=4)
    rows = torch.cat([order.rows(step) for step in range(3)])
    assert len(rows.unique()) == 9 and order.per_epoch == 3
    assert not torch.equal(rows, torch.cat([order.rows(step) for step in range(3, 6)]))
    assert torch.equal(torch.cat([order.rows(4, 0, 1), order.rows(4, 1, 2)]), order.rows(4))
    counts = torch.stack([permutation(4, seed, 0) for seed in range(4000)])
    assert all(abs((counts[:, i] == j).double().mean() - 0.25) < 0.035 for i in range(4) for j in range(4))


def test_schedule():
    trainer = Trainer(100, lr=2.0, warmup=0.1)
    rates = [trainer.rate_at(t) for t in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0) and rates[99] < 1e-2 and rates[10:] == sorted(rates[10:], reverse=True)
    assert Trainer(100, lr=2.0, warmup=0, schedule="constant").rate_at(99) == 2.0
    flow = _flow()
    t = train_sampler(flow, _target, steps=4, batch=8, lr=1.0, schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 2))
    assert t.history["lr"] == pytest.approx([1.0, 1.0, 0.1, 0.1])


def test_average_is_the_mean_it_says():
    module = torch.nn.Linear(1, 1, bias=False).double()
    average, expected = Average(module, 0.5), float(module.weight.detach())
    for t, value in enumerate((1.0, 5.0, -3.0)):
        torch.nn.init.constant_(module.weight, value)
        average.update()
        keep = min(0.5, (1 + t) / (10 + t))
        expected = keep * expected + (1 - keep) * value
    with average.in_place():
        assert float(module.weight.detach()) == pytest.approx(expected, rel=1e-15)
    assert float(module.weight.detach()) == -3


def test_the_best_weights_remain_and_patience_ends():
    flow, held = _flow(), _data()[400:]
    seen = {}
    training = fit(
        flow, _data()[:40], validation=held, steps=4000, batch=40, lr=3e-2, schedule="constant", patience=5,
        validate_every=10, progress=lambda step, steps, row: seen.setdefault(step, _bits(flow)),
    )  # fmt: skip
    assert training.stopped == "patience" and training.step == training.best_step + 50 < 4000
    assert torch.equal(_bits(flow), seen[training.best_step])
    assert training.best_validation == min(v for _, v in training.history.validation)
    assert training.best_validation == pytest.approx(-float(mean_log_prob(flow, held)), rel=1e-12)


# Bad input


def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path):
    def target(x):
        calls.append(1)
        return _target(x) * (math.nan if len(calls) in bad else 1.0)

    calls, bad, flow = [], {2, 3, 7}, _flow()
    training = train_sampler(flow, target, steps=10, batch=16)
    assert training.skipped == 3 and _bits(flow).isfinite().all() and "skipped     3" in str(training)
    assert [math.isfinite(v) for v in training.history["loss"]].count(False) == 3
    calls, bad, flow = [], set(range(4, 100)), _flow()
    with pytest.raises(FloatingPointError, match="not finite in 5 steps in a row, the last step 8"):
        train_sampler(flow, target, steps=100, batch=16, skip_limit=5, folder=tmp_path)
    assert _bits(flow).isfinite().all() and (tmp_path / "training.pt").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"data": torch.tensor([[0, math.nan], [1, 1], [math.inf, 0]])}, "data: 2 of 3 rows are NaN or infinite"),
        ({"data": torch.zeros(3, 3)}, r"data must have shape \(N, 2\), got \(3, 3\)"),
        ({"data": torch.zeros(0, 2)}, "data has no rows"),
        ({"data": torch.full((3, 2), 1e300, dtype=torch.float64)}, "3 of 3 rows are NaN or infinite in torch.float32"),
        ({"context": torch.zeros(3, 1)}, r"context must have shape \(600, C\)"),
        ({"weights": -torch.ones(600)}, "600 are negative"),
        ({"weights": torch.zeros(600)}, "all 600 are 0"),
        ({"weights": torch.ones(5)}, r"weights must have shape \(600\)"),
        ({"validation": 1.0}, r"validation must lie in \[0, 1\)"),
        ({"validation": torch.zeros(4, 3)}, "validation must have shape"),
        ({"steps": 3, "epochs": 3}, "one of steps and epochs"),
        ({"epochs": 0}, "epochs must be positive"),
        ({"batch": 0}, "batch"),
        ({"lr": -1.0}, "lr must be positive"),
        ({"lr": math.nan}, "lr must be positive"),
        ({"warmup": 1.0}, "warmup"),
        ({"ema": 1.0}, "ema"),
        ({"schedule": "linear"}, "schedule must be"),
        ({"seed": -1}, "seed must lie"),
        ({"chunks": 1000}, "cannot be cut into 1000 chunks"),
        ({"seed": None, "folder": "/nowhere"}, "needs a seed"),
    ],
)  # fmt: skip
def test_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        fit(_flow(), **{"data": _data(), "epochs": None, **change})


def test_a_target_of_wrong_shape_and_a_loss_that_is_none():
    with pytest.raises(ValueError, match=r"log_target must give a tensor of shape \(8,\), got \(8, 2\)"):
        train_sampler(_flow(), lambda x: -x.square(), steps=1, batch=8)
    with pytest.raises(ValueError, match="loss must be"):
        train_sampler(_flow(), _target, steps=1, loss="forward")
    with pytest.raises(ValueError, match="no parameters"):
        train_sampler(_flow().requires_grad_(False), _target, steps=1)


def test_checkpoints_of_others_are_refused(tmp_path):
    fit(_flow(), _data(), steps=2, folder=tmp_path)
    with pytest.raises(ValueError, match=r"another training, it differs in lr \(0.001, not 0.01\)"):
        fit(_flow(), _data(), steps=2, lr=1e-2, folder=tmp_path)
    with pytest.raises(ValueError, match="differs in data"):
        fit(_flow(), _data() + 1, steps=2, folder=tmp_path)
    with pytest.raises(ValueError, match="differs in module"):
        fit(nsf(2), _data(), steps=2, folder=tmp_path)
    (tmp_path / "training.pt").write_bytes((tmp_path / "training.pt").read_bytes()[:3000])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        fit(_flow(), _data(), steps=2, folder=tmp_path)


class _Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


def test_loading_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"version": 1, "mark": _Evil()}, tmp_path / "training.pt")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        fit(_flow(), _data(), steps=2, folder=tmp_path)
    assert not (tmp_path / "evil").exists()


def test_history_is_written_and_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    training = train_sampler(_flow(), _target, steps=5, batch=16, validation=10, validate_every=2)
    training.history.to_csv(tmp_path / "h.csv")
    rows = (tmp_path / "h.csv").read_text().splitlines()
    assert rows[0] == "step,loss,lr,norm,ess,seconds,validation" and len(rows) == 6
    assert [bool(r.rpartition(",")[2]) for r in rows[1:]] == [False, True, False, True, True]
    assert float(rows[3].split(",")[1]) == training.history["loss"][2]
    assert len(training.plot().axes) == 3


def test_masked_data_and_another_context_of_the_validation_are_refused(tmp_path):
    x, c, options = torch.randn(80, 2), torch.randn(80, 3), {"steps": 2, "batch": 20}
    with pytest.raises(ValueError, match="data: 1 values are masked"):
        fit(_flow(), np.ma.masked_array(x.numpy(), np.arange(160).reshape(80, 2) == 5), **options)
    for first, error in ((0, None), (20, "validation context")):
        flow = nsf(2, context=3, layers=1, hidden=(8,))
        pair = (x[:20], c[first : first + 20])
        with pytest.raises(ValueError, match=error) if error else nullcontext():
            fit(flow, x, c, validation=pair, folder=tmp_path, **options)
