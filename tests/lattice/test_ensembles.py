"""Ensembles on disk."""

import subprocess
import sys

import h5py
import pytest
import torch
from hepops.lattice import HMC, SUN, EnsembleWriter, Phi4, open_ensemble

THEORY = Phi4((2, 4), m2=1.0, lam=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("theory", [THEORY, SUN(2, (2, 2), 1.0)], ids=["phi4", "su2"])
def test_comes_back(tmp_path, theory, dtype):
    fields = [theory.random(3, seed=i, dtype=dtype) for i in range(4)]
    with EnsembleWriter(tmp_path / "e.h5", theory, seed=5, first=2) as ensemble:
        for i, field in enumerate(fields):
            ensemble.append(field, 10 * i)
    with open_ensemble(tmp_path / "e.h5") as saved:
        assert saved.shape == (4, 3, *theory.event_shape) and saved.steps == [0, 10, 20, 30]
        assert all(torch.equal(a, b) for a, b in zip(saved, fields, strict=True))
        assert torch.equal(saved[1:3], torch.stack(fields[1:3])) and torch.equal(saved[-1], fields[-1])
        assert (
            saved.head["seed"] == 5 and saved.head["first"] == 2 and set(saved.head["versions"]) == {"hepops", "torch"}
        )
        assert saved.head["theory"]["class"] == type(theory).__name__
        with pytest.raises(IndexError, match="has 4 measurements, got 4"):
            saved[4]
    with h5py.File(tmp_path / "e.h5") as file:
        assert file["field"].chunks is not None


def test_goes_on(tmp_path):
    path = tmp_path / "e.h5"
    for start in (0, 3):
        with EnsembleWriter(path, THEORY, seed=5) as ensemble:
            for step in range(start, start + 3):
                ensemble.append(THEORY.random(2, seed=step), step)
    with open_ensemble(path) as saved:
        assert saved.steps == list(range(6)) and torch.equal(saved[4], THEORY.random(2, seed=4))
    with EnsembleWriter(path, THEORY, seed=5) as ensemble:
        ensemble.rewind(3)
        ensemble.append(THEORY.random(2, seed=9), 9)
    with open_ensemble(path) as saved:
        assert saved.steps == [0, 1, 2, 3, 9] and torch.equal(saved[3], THEORY.random(2, seed=3))


def test_can_be_read_while_it_grows(tmp_path):
    path = tmp_path / "e.h5"
    with EnsembleWriter(path, THEORY, seed=5) as ensemble:
        for step in range(3):
            ensemble.append(THEORY.random(2, seed=step), step)
        with open_ensemble(path) as saved:
            assert len(saved) == 3
        program = "import sys, h5py; f = h5py.File(sys.argv[1], swmr=True); print(f['field'].shape, f['step'][:])"
        out = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
        assert out.stdout.strip() == "(3, 2, 2, 4) [0 1 2]", out.stderr


def test_only_every_measurement(tmp_path):
    with EnsembleWriter(tmp_path / "e.h5", THEORY, seed=1) as ensemble:
        HMC(THEORY, 0.1, 3).run(7, chains=2, seed=1, thermalise=2, every=3, ensemble=ensemble)
    with open_ensemble(tmp_path / "e.h5") as saved:
        assert saved.steps == [5, 8]


def test_refuses(tmp_path):
    path = tmp_path / "e.h5"
    with EnsembleWriter(path, THEORY, seed=5) as ensemble:
        ensemble.append(THEORY.random(2, seed=1), 3)
        with pytest.raises(ValueError, match="has step 3 already, got 3"):
            ensemble.append(THEORY.random(2, seed=1), 3)
        with pytest.raises(ValueError, match="holds fields of"):
            ensemble.append(THEORY.random(3, seed=1), 4)
        with pytest.raises(ValueError, match="field must have shape"):
            ensemble.append(torch.zeros(2, 3, dtype=torch.float64), 4)
    with pytest.raises(ValueError, match=r"belongs to another ensemble, it differs in seed \(5, not 6\)"):
        EnsembleWriter(path, THEORY, seed=6)
    with pytest.raises(ValueError, match="it differs in theory"):
        EnsembleWriter(path, Phi4((2, 4), m2=2.0, lam=0.5), seed=5)
    with pytest.raises(FileNotFoundError):
        open_ensemble(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ValueError, match="not a readable HDF5 file"):
        open_ensemble(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(ValueError, match="is no ensemble of version 1"):
        open_ensemble(tmp_path / "other.h5")


def test_nothing_is_lost_that_no_checkpoint_knows(tmp_path):
    """A run that begins anew, or meets a writer that was closed, does not cut what is there."""
    path, hmc = tmp_path / "e.h5", HMC(THEORY, 0.1, 3)
    with EnsembleWriter(path, THEORY, seed=1) as ensemble:
        first = hmc.run(4, chains=2, seed=1, ensemble=ensemble)
    for make in (lambda: ensemble, lambda: EnsembleWriter(path, THEORY, seed=1)):
        with (
            make() as writer,
            pytest.raises(ValueError, match="holds measurements up to step 4, the chains stand at 0"),
        ):
            hmc.run(2, chains=2, seed=1, ensemble=writer)
    with ensemble:  # closed, and open again: the chains go on
        hmc.run(2, first.chains, ensemble=ensemble)
    ensemble.append(THEORY.random(2, seed=1), 9)
    ensemble.close()
    with open_ensemble(path) as saved:
        assert saved.steps == [1, 2, 3, 4, 5, 6, 9]


def test_an_ensemble_of_another_run_is_refused(tmp_path):
    ensemble = EnsembleWriter(tmp_path / "e.h5", THEORY, seed=1)
    with pytest.raises(ValueError, match=r"it differs in seed \(1, not 7\)"):
        HMC(THEORY, 0.1, 3).run(1, seed=7, ensemble=ensemble)
    with pytest.raises(ValueError, match="it differs in theory"):
        HMC(Phi4((2, 4), m2=2.0, lam=0.5), 0.1, 3).run(1, seed=1, ensemble=ensemble)
    assert not (tmp_path / "e.h5").exists()


def test_indices(tmp_path):
    with EnsembleWriter(tmp_path / "e.h5", THEORY, seed=1) as ensemble:
        ensemble.append(THEORY.random(2, seed=1), 1)
        with pytest.raises(TypeError, match=r"step must be an integer, got 2\.5"):
            ensemble.append(THEORY.random(2, seed=1), 2.5)
    with open_ensemble(tmp_path / "e.h5") as saved:
        assert saved[1:].shape == (0, 2, 2, 4) and saved[1:0].shape == (0, 2, 2, 4)
        with pytest.raises(IndexError, match="a slice must go forward, got step -1"):
            saved[::-1]
        with pytest.raises(TypeError, match=r"an index must be an integer or a slice, got 0\.0"):
            saved[0.0]
