import pytest
import torch
from hepops.lartpc import Detector
from hepops.lartpc.interactions import CLASSES, DELTA_RAY, MUON, PROTON, SHOWER, Mixture, interactions

MODULE0 = Detector.module0()


@pytest.fixture(scope="module")
def sample():
    return interactions(MODULE0, 20, seed=1)


def test_every_segment_has_the_class_of_what_began_it(sample):
    segments, label = sample
    assert label.shape == (len(segments),) and label.unique().tolist() == list(range(len(CLASSES)))
    assert set(segments.pdg[label == MUON].tolist()) == {13}
    assert set(segments.pdg[label == PROTON].tolist()) == {2212}
    assert set(segments.pdg[label == DELTA_RAY].tolist()) <= {11, -11}
    assert set(segments.pdg[label == SHOWER].tolist()) == {11, -11}
    per_track = torch.stack((segments.event, segments.track), 1)
    _, track = torch.unique(per_track, dim=0, return_inverse=True)
    for number in range(int(track.max()) + 1):
        assert len(label[track == number].unique()) == 1


def test_muon_protons_and_showers_come_from_one_vertex():
    alone = Mixture(cosmics=(0, 0), showers=(0, 0), protons=(2, 2))
    segments, label = interactions(MODULE0, 10, mixture=alone, seed=2)
    for event in segments.events.tolist():
        here, kind = segments.select([event]), label[segments.event == event]
        starts = []
        for track in here.track[(kind == MUON) | (kind == PROTON)].unique().tolist():
            starts.append(here.start[here.track == track][0])
        spread = (torch.stack(starts) - starts[0]).norm(dim=1)
        assert spread.max().item() < 1e-9 and len(starts) == 3


def test_delta_rays_begin_on_a_track():
    segments, label = interactions(MODULE0, 5, mixture=Mixture(showers=(0, 0), protons=(0, 0)), seed=3)
    muons = segments[label == MUON]
    first = segments[label == DELTA_RAY]
    starts = []
    for event, track in torch.stack((first.event, first.track), 1).unique(dim=0).tolist():
        starts.append((event, first.start[(first.event == event) & (first.track == track)][0]))
    near = 0
    for event, start in starts:
        line = muons[muons.event == event]
        a, d = line.start, line.end - line.start
        s = (((start - a) * d).sum(1) / (d * d).sum(1)).clamp(0, 1)
        near += (a + s[:, None] * d - start).norm(dim=1).min().item() < 1e-6
    assert len(starts) > 20 and near > 0.6 * len(starts)  # others are Compton electrons of their photons


def test_the_seed_decides_and_events_are_independent(sample):
    segments, label = sample
    again, kind = interactions(MODULE0, 2, seed=1, first_event=5)
    here = (segments.event == 5) | (segments.event == 6)
    assert torch.equal(segments.dE[here], again.dE) and torch.equal(label[here], kind)
    assert not torch.equal(interactions(MODULE0, 1, seed=2)[0].dE[:5], segments.dE[:5])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: interactions(MODULE0, 0), "events must be at least 1, got 0"),
        (lambda: interactions(MODULE0, 1, seed=-1), "seed must be at least 0, got -1"),
        (lambda: interactions(MODULE0, 1, first_event=-1), "first_event must be at least 0, got -1"),
        (lambda: Mixture(muons=(2, 1)), "muons must be two rising numbers"),
        (lambda: Mixture(shower_energy=(0.0, 10.0)), "shower_energy must be two rising numbers"),
        (lambda: Mixture(proton_energy=(10.0, float("nan"))), "proton_energy must be two rising numbers"),
    ],
)
def test_refuses_what_has_no_meaning(call, message):
    with pytest.raises(ValueError, match=message):
        call()
