"""Several modules that differ, simulated as one detector."""

import hepops
import numpy as np
import pytest
import torch
from hepops.lartpc import Detector, FrontEnd, ModularSimulator, Module, Parameters, Segments, Simulator, gun

ARRAY = Detector.two_by_two()
SHOT = Segments.cat(  # a track in each module, event by event
    [gun.shoot(ARRAY.module(n), 1, directions=(0.8, -0.6, 0.5), seed=7, first_event=n) for n in ARRAY.module_numbers]
)
OWN = {1: Parameters(lifetime=1500.0), 3: Parameters(lifetime=2500.0, efield=0.51)}


def make(**options):
    return ModularSimulator(ARRAY, dtype=torch.float64, **options)


@pytest.mark.parametrize("number", [1, 3])
def test_a_module_is_what_it_is_alone(number):
    whole = make(parameters=OWN)(SHOT)
    with pytest.warns(UserWarning, match="outside every drift volume"):  # the other modules
        alone = Simulator(ARRAY.module(number), OWN[number], dtype=torch.float64)(SHOT)
    first = next(i for i, t in enumerate(ARRAY.tpcs) if t.module == number)
    mine = whole[(whole.tpc == first) | (whole.tpc == first + 1)]
    assert len(alone) > 50
    assert torch.equal(mine.tpc - first, alone.tpc)
    for name in ("event", "ix", "iy", "rank", "x", "y", "z", "time", "charge", "adc"):
        assert torch.equal(getattr(mine, name), getattr(alone, name)), name


def test_alike_modules_are_as_in_one_detector():
    detector = Detector.two_by_two().replace(tpcs=tuple(t for t in ARRAY.tpcs if t.module != 3))
    segments = gun.shoot(detector, events=2, energy=2000.0, seed=3)
    for seed in (None, 7):
        one = Simulator(detector, dtype=torch.float64)(segments, seed)
        two = ModularSimulator(detector, per_module=("efield",), dtype=torch.float64)(segments, seed)
        for name in ("event", "tpc", "ix", "iy", "time", "charge"):
            assert torch.equal(getattr(one, name), getattr(two, name)), name
    charges = (two.reports[n] for n in ("electrons_arriving", "electrons_lost"))
    assert list(charges) == pytest.approx([one.reports[n] for n in ("electrons_arriving", "electrons_lost")], rel=1e-14)


def test_noise_differs_from_module_to_module():
    """TPC 0 of every module alone draws the same noise; in the whole each TPC has its own."""
    quiet = FrontEnd(threshold=300.0)
    box = Detector.two_by_two().replace(frontend=quiet)
    segments = gun.shoot(box, events=1, energy=2000.0, directions=(0.0, 0.0, 1.0), seed=1)
    hits = ModularSimulator(box)(segments, 3)
    assert len(torch.unique(hits.tpc)) >= 2
    charge = {int(t): set(hits.charge[hits.tpc == t].tolist()) for t in torch.unique(hits.tpc)}
    first, second = list(charge.values())[:2]
    assert not first & second


def test_tangents_are_those_of_reverse_mode():
    names = ("lifetime@1", "lifetime@3", "efield", "birks_a")
    sim = make(per_module=("lifetime",))
    forward = sim(SHOT, tangents=names)
    reverse = sim(SHOT)
    (reverse.charge.sum() + 1e3 * reverse.time.sum()).backward()
    for k, name in enumerate(names):
        along = forward.charge_tangents[k].sum() + 1e3 * forward.time_tangents[k].sum()
        torch.testing.assert_close(along, getattr(sim, name).grad, rtol=1e-9, atol=0)
    other = forward.charge_tangents[0][forward.tpc >= 2]
    assert len(other) and not other.any()  # the lifetime of module 1 moves no other module
    waves = sim.waveforms(SHOT, names)
    assert waves.tangents.shape == (4, len(waves.values)) and len(waves) == reverse.reports["pixels"]
    rows = torch.stack((waves.event, waves.tpc, waves.ix, waves.iy), 1)[reverse.row]
    assert torch.equal(rows, torch.stack((reverse.event, reverse.tpc, reverse.ix, reverse.iy), 1))


def test_a_fit_of_shared_parameters_and_of_one_module():
    segments = SHOT.select([1, 3])
    measured = make(parameters=OWN)(segments)
    third = measured[(measured.tpc == 4) | (measured.tpc == 5)]
    assert len(third) > 20 and int((measured.tpc < 4).sum()) > 20
    sim = make(per_module=("lifetime", "efield"))
    result = hepops.lartpc.fit(sim.module(3), segments, third, ["lifetime", "efield"])
    assert result.converged
    np.testing.assert_allclose(result.values, [2500.0, 0.51], rtol=1e-6)
    measured = make(parameters=Parameters(lifetime=1800.0))(segments)
    result = hepops.lartpc.fit(make(), segments, measured, ["lifetime"])
    assert result["lifetime"] == pytest.approx(1800.0, rel=1e-6)


def test_truth_and_drift_cover_all_modules():
    sim = make()
    hits = sim(SHOT, truth=True)
    share = torch.zeros(len(hits), dtype=torch.float64).index_add(0, hits.truth.hit, hits.truth.fraction)
    torch.testing.assert_close(share, torch.ones_like(share), rtol=1e-9, atol=0)
    deposits = sim.drift(SHOT)
    assert deposits.electrons.sum().item() == pytest.approx(hits.reports["electrons_arriving"], rel=1e-4)
    assert set(torch.unique(hits.tpc).tolist()) <= set(torch.unique(deposits.tpc).tolist())
    told = []
    sim(SHOT, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] and [d for d, _ in told] == sorted(d for d, _ in told)


def test_per_module_thresholds():
    high = ARRAY.replace(modules=(Module(number=1, frontend=FrontEnd(threshold=9000.0)),))
    table = torch.full((ARRAY.num_pixels,), 5000.0)
    table[: ARRAY.geometry.first_pixel[2]] = 9000.0
    by_pixel, by_module = make()(SHOT, threshold=table), ModularSimulator(high, dtype=torch.float64)(SHOT)
    own = by_pixel.tpc < 2
    assert int(own.sum()) > 20 and by_pixel.charge[own].min() > 8999 > by_pixel.charge[~own].min()
    assert torch.equal(by_pixel.charge[own], by_module.charge[by_module.tpc < 2])


def test_bad_input_is_named():
    table = np.zeros((25, 25, 50))
    table[:5, :5] = 1 / (50 * 0.1)
    for options, message in (
        (
            dict(response=table),
            r"a response table belongs to one pitch, and the modules of 2x2 have \[0.387975, 0.4434\]",
        ),
        (dict(parameters={9: Parameters()}), r"parameters names module 9, there are \[1, 2, 3, 4\]"),
        (dict(per_module=("lifetim",)), "per_module names 'lifetim'"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**options)
    sim = make(per_module=("lifetime",), response={3: table})
    assert sim.response(3).length == sim.response(1).length
    for name in ("lifetime", "lifetime@7", "efield@1"):
        with pytest.raises(ValueError, match=f"no parameter '{name}'"):
            sim(SHOT, tangents=(name,))
    with pytest.raises(ValueError, match="module must be one of"):
        sim.module(9)


def test_universes_are_those_of_one_module():
    sim = make()
    with pytest.raises(ValueError, match="modules of 2x2 differ; ask"):
        sim.universes({"efield": [0.49, 0.5]}, SHOT)
    with pytest.raises(ValueError, match="differ: take"):
        sim._waveforms(sim._pieces(SHOT))
    alone = sim.module(3).universes({"efield": [0.49, 0.5]}, SHOT)
    assert len(alone) == 2 and set(alone[0].tpc.tolist()) <= {4, 5}


def test_what_all_modules_have_of_their_own_is_taken():
    own = (Module(number=1, frontend=FrontEnd(threshold=9000.0), nominal=Parameters(lifetime=1500.0)),)
    sim = Simulator(Detector.module0().replace(modules=own))
    assert sim.lifetime.item() == 1500.0 and sim.detector.frontend.threshold == 9000.0
