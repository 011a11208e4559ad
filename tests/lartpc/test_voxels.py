from dataclasses import replace

import pytest
import torch
from hepops.lartpc import Detector, Hits, Segments, Simulator, corner, gun, voxel_labels, voxelize
from hepops.lartpc.hits import Truth
from hepops.lartpc.voxels import NO_TRUTH

MODULE0 = Detector.module0()
PITCH = MODULE0.pixel_pitch


def hits_at(places, charge, event=None, truth=None):
    n = len(places)
    x, y, z = torch.tensor(places, dtype=torch.float64).reshape(-1, 3).T
    zeros = torch.zeros(n, dtype=torch.int64)
    event = zeros if event is None else torch.tensor(event)
    charge = torch.as_tensor(charge, dtype=torch.float64)
    return Hits(event, zeros, zeros, zeros, x, y, z, x, charge, charge, zeros, zeros, truth=truth)


def test_hits_fall_into_the_cubes_they_lie_in():
    places = [(0.1, 0.1, 0.1), (0.4, 0.4, 0.4), (-0.1, 0.1, 0.1), (0.6, 0.1, -0.6), (0.1, 0.1, 0.1)]
    voxels = voxelize(hits_at(places, [1.0, 2.0, 4.0, 8.0, 16.0], event=[3, 3, 3, 3, 7]), 0.5)
    assert voxels.coordinates.tolist() == [[3, -1, 0, 0], [3, 0, 0, 0], [3, 1, 0, -2], [7, 0, 0, 0]]
    assert voxels.charge.tolist() == [4.0, 3.0, 8.0, 16.0]
    assert voxels.num_hits.tolist() == [1, 2, 1, 1] and voxels.voxel.tolist() == [1, 1, 0, 2, 3]
    assert voxels.centres()[0].tolist() == [-0.25, 0.25, 0.25]


def test_a_shift_of_the_origin_shifts_the_cubes():
    places = torch.rand(200, 3, dtype=torch.float64).tolist()
    a, b = (voxelize(hits_at(places, torch.rand(200)), 0.1, (s, -s, 2 * s)) for s in (0.0, 0.3))
    assert torch.equal(a.coordinates[:, 1:] - torch.tensor([3, -3, 6]), b.coordinates[:, 1:])
    assert torch.equal(a.voxel, b.voxel)


@pytest.fixture(scope="module")
def scene():
    """A muon alone, a proton alone, and both far from one another in one event."""
    muon = gun.shoot(MODULE0, 1, energy=3000.0, directions=(0.0, 0.0, 1.0), seed=4)
    proton = gun.shoot(MODULE0, 1, "proton", energy=120.0, topology="inside", seed=9)
    segments = Segments.cat([muon, proton])
    label = torch.cat([torch.zeros(len(muon), dtype=torch.int64), torch.ones(len(proton), dtype=torch.int64)])
    with torch.no_grad():
        hits = Simulator(MODULE0)(segments, seed=1, truth=True)
    return segments, label, hits


def test_pixels_are_columns_of_voxels(scene):
    _, _, hits = scene
    voxels = voxelize(hits, PITCH, corner(MODULE0))
    assert torch.equal(voxels.coordinates[voxels.voxel][:, 2:], torch.stack((hits.iy, hits.ix), 1))
    assert int(voxels.coordinates[:, 1:].min()) >= 0
    torch.testing.assert_close(voxels.charge.double().sum(), hits.charge.double().sum(), rtol=1e-6, atol=0)


def test_labels_are_right_where_tracks_are_apart(scene):
    """A voxel within a pixel of one track, and five away from the other, is that track's."""
    segments, label, hits = scene
    voxels = voxelize(hits, PITCH, corner(MODULE0))
    given = voxel_labels(hits, voxels, label, 2)
    centres = voxels.centres()
    distance = []
    for kind in (0, 1):
        line = segments[label == kind]
        d = line.end - line.start
        s = (((centres[:, None] - line.start) * d).sum(2) / (d * d).sum(1)).clamp(0, 1)
        distance.append((line.start + s[..., None] * d - centres[:, None]).norm(dim=2).min(1).values)
    for kind in (0, 1):
        sure = (distance[kind] < 2 * PITCH) & (distance[1 - kind] > 5 * PITCH)
        assert int(sure.sum()) > 15 and bool((given[sure] == kind).all())


def test_the_class_with_most_of_the_charge_wins():
    truth = Truth(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 0, 2, 1]), torch.tensor([0.6, 0.4, 0.1, 0.9, 1.0]))
    hits = hits_at([(0.1, 0.1, 0.1)] * 2 + [(0.9, 0.1, 0.1)], [10.0, 1.0, 5.0], truth=truth)
    voxels = voxelize(hits, 0.5)
    # first voxel: segment 0 gave 6.1, segment 1 4.0, segment 2 0.9
    assert voxel_labels(hits, voxels, torch.tensor([0, 1, 1]), 2).tolist() == [0, 1]
    assert voxel_labels(hits, voxels, torch.tensor([2, 0, 0]), 3).tolist() == [2, 0]
    assert voxel_labels(hits, voxels, torch.tensor([2, 1, 0]), 3).tolist() == [2, 1]


def test_noise_alone_has_no_class():
    empty = Truth(torch.tensor([1]), torch.tensor([0]), torch.tensor([1.0]))
    hits = hits_at([(0.1, 0.1, 0.1), (0.9, 0.1, 0.1)], [1.0, 1.0], truth=empty)
    assert voxel_labels(hits, voxelize(hits, 0.5), torch.tensor([1]), 2).tolist() == [NO_TRUTH, 1]


def test_the_charge_is_differentiable():
    hits = hits_at(torch.rand(30, 3).tolist(), torch.rand(30))
    charge = hits.charge.clone().requires_grad_()
    weight = torch.rand(len(voxelize(hits, 0.3).charge), dtype=torch.float64)
    (voxelize(replace(hits, charge=charge), 0.3).charge * weight).sum().backward()
    assert torch.equal(charge.grad, weight[voxelize(hits, 0.3).voxel])


def test_no_hits_make_no_voxels():
    voxels = voxelize(hits_at([], []), 0.5)
    assert voxels.coordinates.shape == (0, 4) and len(voxels.charge) == 0


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_size_that_is_none(size):
    with pytest.raises(ValueError, match="size must be positive and finite"):
        voxelize(hits_at([(0.0, 0.0, 0.0)], [1.0]), size)


@pytest.mark.parametrize("x", [float("nan"), float("inf"), 1e12])
def test_refuses_positions_that_are_none(x):
    with pytest.raises(ValueError, match="hit 1 lies at"):
        voxelize(hits_at([(0.0, 0.0, 0.0), (x, 0.0, 0.0)], [1.0, 1.0]), 0.5)


def test_labels_refuse_what_does_not_fit(scene):
    _, label, hits = scene
    voxels = voxelize(hits, PITCH)
    with pytest.raises(ValueError, match="truth=True"):
        voxel_labels(replace(hits, truth=None), voxels, label, 2)
    with pytest.raises(ValueError, match="label must be"):
        voxel_labels(hits, voxels, label[:3], 2)
    with pytest.raises(ValueError, match=r"label must lie in 0 \.\.\. 0"):
        voxel_labels(hits, voxels, label, 1)
