"""Runs: what they record, that they resume with the same bits, and that a kill at any moment leaves a whole state."""

import signal
import subprocess
import sys

import pytest
import torch
from hepops.lattice import HMC, SUN, U1, Heatbath, Metropolis, Phi4, open_ensemble
from hepops.lattice.ensembles import EnsembleWriter

PHI4 = Phi4((4, 4), m2=-4.0, lam=8.0)
SAMPLERS = {
    "hmc": lambda: HMC(PHI4, 0.1, 4, tune=0.8),
    "heatbath": lambda: Heatbath(SUN(2, (2, 2), 2.0), overrelax=1, project_every=3),
    "metropolis": lambda: Metropolis(U1((2, 3), 1.0), 1.0, tune=0.5),
}


def run(name, n=10, **options):
    sampler = SAMPLERS[name]()
    observables = {"S": sampler.theory.action, "field": lambda f: f.abs()}
    return sampler.run(n, chains=3, seed=7, thermalise=12, every=2, observables=observables, **options)


def same(a, b):
    assert torch.equal(a.chains.field, b.chains.field) and a.chains.step == b.chains.step
    for x, y in ((a.history, b.history), (a.thermalisation, b.thermalisation), (a.observables, b.observables)):
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    assert a.steps == b.steps and a.settings == b.settings


@pytest.mark.parametrize("name", SAMPLERS)
def test_records(name):
    result = run(name)
    assert result.steps == [14, 16, 18, 20, 22] and result.chains.step == 22
    assert result.observables["S"].shape == (5, 3)
    assert result.observables["field"].shape == (5, 3, *SAMPLERS[name]().theory.event_shape)
    assert all(table.shape == (10, 3) for table in result.history.values())
    assert all(table.shape == (12, 3) for table in result.thermalisation.values())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [3, 5, 12, 17])
@pytest.mark.parametrize("name", SAMPLERS)
def test_resumes_with_the_same_bits(name, at, tmp_path):
    """Interrupted within an update, during tuning or after, the checkpoint is some updates old."""
    whole, path = run(name), tmp_path / "run.safetensors"
    sampler = SAMPLERS[name]()
    update, calls = sampler.update, []

    def killed(chains):
        calls.append(0)
        if len(calls) > at:
            raise Killed
        return update(chains)

    sampler.update = killed
    observables = {"S": sampler.theory.action, "field": lambda f: f.abs()}
    with pytest.raises(Killed):
        sampler.run(
            10,
            chains=3,
            seed=7,
            thermalise=12,
            every=2,
            observables=observables,
            checkpoint=path,
            save_every=2,
        )
    assert path.exists() and not list(tmp_path.glob(".*"))
    same(run(name, checkpoint=path), whole)
    same(run(name, checkpoint=path), whole)  # a finished one is read
    same(run(name, n=14, checkpoint=path), run(name, n=14))  # and may be prolonged


PROGRAM = """
import os, pathlib, signal, sys, time
from hepops.lattice import HMC, Phi4, EnsembleWriter, open_ensemble

folder = pathlib.Path(sys.argv[1])
theory = Phi4((4, 4), m2=-4.0, lam=8.0)
for _ in range(2):
    child = os.fork()
    if not child:
        with EnsembleWriter(folder / "ensemble.h5", theory, seed=7) as ensemble:
            HMC(theory, 0.02, 4).run(10**9, chains=2, seed=7, checkpoint=folder / "run.safetensors", save_every=7,
                                     ensemble=ensemble)
    written, seen, deadline = None, 0, time.monotonic() + 60
    while seen < 4 and time.monotonic() < deadline:  # until it has written several times
        path = folder / "run.safetensors"
        now = path.stat().st_mtime_ns if path.exists() else None
        seen, written = seen + (now != written), now
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open_ensemble(folder / "ensemble.h5") as saved:
        assert saved.interrupted and len(saved) >= 7 and saved[-1].isfinite().all()
        assert saved.steps == list(range(1, len(saved) + 1))
print(len(saved))
"""


def test_survives_a_kill(tmp_path):
    """SIGKILL again and again: files stay readable, and the end is that of an undisturbed run, ensemble included."""
    out = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    done = int(out.stdout)
    theory = Phi4((4, 4), m2=-4.0, lam=8.0)
    n = max(40, done + 5)
    with EnsembleWriter(tmp_path / "ensemble.h5", theory, seed=7) as ensemble:
        hmc = HMC(theory, 0.02, 4)
        resumed = hmc.run(n, chains=2, seed=7, checkpoint=tmp_path / "run.safetensors", ensemble=ensemble)
    whole = HMC(theory, 0.02, 4).run(n, chains=2, seed=7)
    same(resumed, whole)
    with open_ensemble(tmp_path / "ensemble.h5") as saved:
        assert not saved.interrupted and saved.steps == list(range(1, n + 1))
        assert torch.equal(saved[-1], whole.chains.field)
        first = HMC(theory, 0.02, 4).run(30, chains=2, seed=7)
        assert torch.equal(saved[29], first.chains.field)


def test_interrupts_save(tmp_path):
    path = tmp_path / "run.safetensors"

    def stop(field):
        signal.raise_signal(signal.SIGINT)
        return field.flatten(1).sum(1)

    with pytest.raises(KeyboardInterrupt):
        HMC(PHI4, 0.01, 2).run(50, chains=2, seed=1, observables={"x": stop}, checkpoint=path)
    assert path.exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    HMC(PHI4, 0.01, 2).run(2, chains=2, seed=1, checkpoint=path)
    others = {
        r"theory .*'lam': 8.0.*, not .*'lam': 7.0": (HMC(Phi4((4, 4), m2=-4.0, lam=7.0), 0.01, 2), {"seed": 1}),
        r"sampler .*'step_size': 0.01.*, not .*'step_size': 0.02": (HMC(PHI4, 0.02, 2), {"seed": 1}),
        r"chains \(\[1, 0.*, not \[2, 0": (HMC(PHI4, 0.01, 2), {"seed": 2}),
    }
    for text, (sampler, options) in others.items():
        with pytest.raises(ValueError, match=f"belongs to another run, it differs in {text}"):
            sampler.run(2, chains=2, checkpoint=path, **options)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a readable checkpoint of a run"):
        HMC(PHI4, 0.01, 2).run(2, chains=2, seed=1, checkpoint=path)


def test_progress(capsys):
    HMC(PHI4, 0.01, 2).run(3, chains=2, seed=1, progress=True)
    assert "3/3" in capsys.readouterr().err

    class Bar:
        updates = 0

        def __init__(self, total, initial):
            assert (total, initial) == (3, 0)

        def update(self, n):
            Bar.updates += n

        def close(self):
            Bar.closed = True

    HMC(PHI4, 0.01, 2).run(3, chains=2, seed=1, progress=Bar)
    assert Bar.updates == 3 and Bar.closed


def test_errors_of_few_chains_know_their_autocorrelation():
    """One chain, an AR(1) series of known tau_int: the error of binning is that of the theory."""
    from hepops.lattice.samplers.run import Run

    a, n = 0.9, 1 << 14
    g = torch.Generator().manual_seed(1)
    noise = torch.randn(n, generator=g, dtype=torch.float64)
    x = [0.0]
    for e in noise.tolist():
        x.append(a * x[-1] + e)
    table = torch.tensor(x[1:], dtype=torch.float64)[:, None]
    made = Run(None, {}, {"x": table}, [], {}, {})
    exact = (1 / (1 - a)) / n**0.5  # sigma sqrt(2 tau / n)
    assert float(made.mean("x").error) == pytest.approx(exact, rel=0.4)
    with pytest.raises(ValueError, match="has no error"):
        Run(None, {}, {"x": table[:1]}, [], {}, {}).mean("x")


def test_a_tuned_sampler_may_run_again(tmp_path):
    """The file knows what the step size was before; the same object, tuned since, is still its sampler."""
    path, sampler = tmp_path / "run.safetensors", SAMPLERS["hmc"]()
    sampler.run(4, chains=2, seed=1, thermalise=12, checkpoint=path)
    longer = sampler.run(8, chains=2, seed=1, thermalise=12, checkpoint=path)
    same(longer, SAMPLERS["hmc"]().run(8, chains=2, seed=1, thermalise=12))
    with pytest.raises(ValueError, match="n = 5 is below the 8 that"):
        sampler.run(5, chains=2, seed=1, thermalise=12, checkpoint=path)


def test_an_observable_that_raises_costs_what_was_not_saved(tmp_path):
    path, calls = tmp_path / "run.safetensors", []

    def total(field):
        calls.append(0)
        if len(calls) == 6:
            raise RuntimeError("boom")
        return field.flatten(1).sum(1)

    def go(**options):
        return HMC(PHI4, 0.01, 2).run(8, chains=2, seed=1, observables={"x": total}, **options)

    with pytest.raises(RuntimeError, match="boom"):
        go(checkpoint=path, save_every=4)
    same(go(checkpoint=path), go())


@pytest.mark.parametrize(
    ("observables", "error", "text"),
    [
        ([PHI4.action], TypeError, "observables must be a mapping of names to functions, got list"),
        ({"S": 3}, TypeError, "observable 'S' must be a function of fields, got int"),
        ({"S": lambda f: 1.0}, TypeError, "observable 'S' must give a tensor, got float"),
        ({"S": lambda f: f * 1j}, TypeError, "observable 'S' is complex"),
        ({"S": lambda f: f.mean()}, ValueError, r"a number for each of 3 chains, got \(\)"),
        ({"S": lambda f: f[0, 0]}, ValueError, r"a number for each of 3 chains, got \(4,\)"),
    ],
)
def test_refuses_observables(observables, error, text):
    with pytest.raises(error, match=text):
        HMC(PHI4, 0.01, 2).run(1, chains=3, seed=1, observables=observables)


def test_refuses_names_and_theories(tmp_path):
    hmc = HMC(PHI4, 0.01, 2)
    for seed, error in ((1 << 64, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match=rf"seed must be .* got {seed}"):
            hmc.run(1, chains=2, seed=seed)
    assert hmc.run(1, chains=2, seed=(1 << 64) - 1).dH.shape == (1, 2)
    with pytest.raises(TypeError, match=r"theory must be a hepops\.lattice\.Theory, got str"):
        HMC("phi4", 0.01, 2)
    for name in ("dH", "S"):
        with pytest.raises(KeyError, match=f"'{name}' was not recorded; there are: none"):
            run = Heatbath(U1((2, 2), 1.0)).run(1, seed=1)
            _ = run.dH if name == "dH" else run.mean(name)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):  # at once, not at the first save
        hmc.run(1, seed=1, checkpoint=tmp_path / "file" / "run")


def test_conjugated_views_are_links(device):
    theory = SUN(3, (2, 2), 2.0)
    U = theory.random(2, seed=1).to(device).conj()
    for sampler in (HMC(theory, 0.1, 2), Heatbath(theory)):
        assert torch.equal(
            sampler.run(2, U, seed=1).chains.field, sampler.run(2, U.resolve_conj(), seed=1).chains.field
        )
