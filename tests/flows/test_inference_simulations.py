"""Simulations: named by number, resumed, failures counted."""

import json
import math

import pytest
import torch
from hepops.flows.inference import Box, noise, simulate

PRIOR = Box([-1.0, 0.0], [1.0, 2.0])


def model(theta, seeds):
    return torch.cat([theta, noise(seeds, 3)], 1)


class Killed(BaseException):
    pass


def dying(after):
    calls = []

    def run(theta, seeds):
        calls.append(len(theta))
        if len(calls) > after:
            raise Killed
        return model(theta, seeds)

    return run


def equal(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("theta", "x", "number"))


def test_the_batch_and_the_processes_make_no_difference():
    one = simulate(PRIOR, model, 230, seed=3)
    assert equal(one, simulate(PRIOR, model, 230, seed=3, batch=17))
    assert equal(one[:50], simulate(PRIOR, model, 50, seed=3, batch=8))
    assert not torch.equal(one.theta, simulate(PRIOR, model, 230, seed=4).theta)
    assert one.x[:, 2:].std() == pytest.approx(1, abs=0.1) and abs(float(torch.corrcoef(one.x[:, 2:].T)[0, 1])) < 0.2


def test_processes_give_the_same_bits():
    alone = simulate(PRIOR, model, 60, seed=3, batch=20)
    assert equal(alone, simulate(PRIOR, model, 60, seed=3, batch=20, workers=1))


def test_a_killed_run_goes_on(tmp_path):
    with pytest.raises(Killed):
        simulate(PRIOR, dying(3), 230, seed=3, batch=40, checkpoint=tmp_path)
    assert len(list(tmp_path.glob("batch_*"))) == 3 and not list(tmp_path.glob(".*"))
    told, again = [], dying(3)  # 6 batches, 3 of them are there
    made = simulate(PRIOR, again, 230, 3, batch=40, checkpoint=tmp_path, progress=lambda *now: told.append(now))
    assert equal(made, simulate(PRIOR, model, 230, seed=3))
    assert told == [(160, 230), (200, 230), (230, 230)]
    longer = simulate(PRIOR, dying(3), 300, 3, batch=40, checkpoint=tmp_path)  # the short batch and two more
    assert equal(longer, simulate(PRIOR, model, 300, seed=3))


def test_a_checkpoint_of_others_is_refused(tmp_path):
    simulate(PRIOR, model, 10, seed=3, checkpoint=tmp_path, name="m")
    for change in ({"seed": 4}, {"name": "n"}, {"batch": 9}, {"prior": Box([-1.0, 0.0], [1.0, 3.0])}):
        arguments = {"prior": PRIOR, "simulator": model, "n": 10, "seed": 3, "name": "m"} | change
        with pytest.raises(ValueError, match=f"other simulations, they differ in {next(iter(change))}"):
            simulate(**arguments, checkpoint=tmp_path)
    next(tmp_path.glob("batch_*")).write_bytes(b"cut")
    with pytest.raises(ValueError, match="damaged"):
        simulate(PRIOR, model, 10, seed=3, checkpoint=tmp_path, name="m")
    (tmp_path / "simulations.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        simulate(PRIOR, model, 10, seed=3, checkpoint=tmp_path, name="m")


def bad(theta, seeds):
    x = model(theta, seeds)
    x[theta[:, 0] > 0.9, 1] = math.nan
    if bool((theta[:, 1] > 1.9).any()):
        raise ValueError("no such detector")
    return x


def test_failures_are_counted_and_left_out():
    with pytest.warns(UserWarning, match="of 1000 simulations failed"):
        made = simulate(PRIOR, bad, 1000, seed=1, batch=50, on_error="exclude")
    theta = PRIOR.sample(1000, seed=1)
    raised, nan = theta[:, 1] > 1.9, (theta[:, 0] > 0.9) & (theta[:, 1] <= 1.9)
    assert made.failures == {"raised an error": int(raised.sum()), "not finite": int(nan.sum())}
    assert torch.equal(made.theta, theta[~raised & ~nan]) and bool(torch.isfinite(made.x).all())
    assert torch.equal(made.number, (~raised & ~nan).nonzero()[:, 0])
    assert f"left out: {int(nan.sum())} not finite, {int(raised.sum())} raised an error" in made.report()
    with pytest.raises(ValueError, match="no such detector"):
        simulate(PRIOR, bad, 1000, seed=1)
    with pytest.raises(ValueError, match="none of 10 simulations succeeded"):
        simulate(PRIOR, lambda theta, seeds: theta * math.nan, 10, seed=1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"batch": 0}, ValueError, "batch must be at least 1"),
        ({"workers": -1}, ValueError, "workers must be at least 0"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"on_error": "ignore"}, ValueError, "on_error must be"),
        ({"simulator": lambda theta, seeds: theta[:, 0]}, TypeError, "at least two dimensions"),
        ({"simulator": lambda theta, seeds: theta[:3]}, TypeError, r"must return a real tensor \(10, ...\)"),
        ({"simulator": lambda theta, seeds: None}, TypeError, "got NoneType"),
    ],
)
def test_what_has_no_meaning_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        simulate(**{"prior": PRIOR, "simulator": model, "n": 10, "seed": 1} | change)


def test_split_and_manifest(tmp_path):
    made = simulate(PRIOR, model, 30, seed=3, checkpoint=tmp_path)
    learn, test = made.split(10)
    assert len(learn) == 20 and torch.equal(test.number, torch.arange(20, 30))
    with pytest.raises(ValueError, match="held_out must lie between 1 and 29"):
        made.split(30)
    assert json.loads((tmp_path / "simulations.json").read_text())["prior"]["kind"] == "Box"


def test_a_simulator_may_overwrite_its_arguments():
    def careless(theta, seeds):
        x = model(theta, seeds)
        theta.zero_()
        return x

    plain, made = (simulate(PRIOR, simulator, 20, 1) for simulator in (model, careless))
    assert torch.equal(made.theta, plain.theta) and torch.equal(made.x, plain.x)


def test_batches_of_other_simulations_are_refused(tmp_path):
    made = simulate(PRIOR, model, 40, 1, batch=20, checkpoint=tmp_path)
    first, second = sorted(tmp_path.glob("batch_*"))
    kept = second.read_bytes()
    second.write_bytes(first.read_bytes())  # put into the wrong place
    with pytest.raises(ValueError, match="batch 20 is of other simulations"):
        simulate(PRIOR, model, 40, 1, batch=20, checkpoint=tmp_path)
    second.write_bytes(kept)
    assert torch.equal(simulate(PRIOR, model, 40, 1, batch=20, checkpoint=tmp_path).x, made.x)
    (tmp_path / "simulations.json").unlink()  # nothing says whose they are
    with pytest.raises(ValueError, match="batch 0 is of other simulations"):
        simulate(PRIOR, model, 40, 2, batch=20, checkpoint=tmp_path)


@pytest.mark.parametrize("on_error", ["raise", "exclude"])
def test_data_of_one_shape_and_real(on_error):
    def growing(theta, seeds):
        if len(theta) > 1:
            raise ValueError("one at a time")
        return torch.zeros(1, 1 + int(theta[0, 0] > 0))

    with pytest.raises(ValueError, match="data of one shape"):
        simulate(PRIOR, growing, 20, 1, batch=1 if on_error == "raise" else 20, on_error=on_error)
    for bad in (lambda theta, seeds: theta * 1j, lambda theta, seeds: theta[:, :0]):
        with pytest.raises(TypeError, match="real tensor"):
            simulate(PRIOR, bad, 20, 1, on_error=on_error)
