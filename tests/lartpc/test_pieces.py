import dataclasses

import pytest
import torch
from hepops.lartpc.pieces import count_nodes, cut, divide
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from .scenes import MODULE0, OFFSET, differentiable, segments

A, C = 30.431, 0.15875  # |x| of anodes and cathodes [cm]


def random_segments(n, seed=1, size=1.1):
    """All over the detector and beyond its edges."""
    random = torch.Generator().manual_seed(seed)
    box = size * torch.tensor([A, 62.076, 31.038], dtype=torch.float64)
    ends = [box * (2 * torch.rand(n, 3, generator=random, dtype=torch.float64) - 1) for _ in range(2)]
    return segments(*ends, dE=1 + torch.rand(n, generator=random, dtype=torch.float64), event=torch.arange(n) % 7)


def test_nothing_is_lost_in_silence():
    s = random_segments(500)
    pieces = cut(s, MODULE0)
    assert float(pieces.dE.sum()) + pieces.energy_outside == pytest.approx(float(s.dE.sum()), rel=1e-12)
    seen = torch.zeros(len(s), dtype=torch.bool)
    seen[pieces.segment] = True
    assert pieces.segments_outside == int((~seen).sum()) > 0
    assert pieces.energy_outside > float(s.dE[~seen].sum())


def test_pieces_lie_in_their_volumes_and_on_their_segments():
    s = random_segments(300)
    p = cut(s, MODULE0)
    for ends in (p.start, p.end):
        assert bool((ends >= -1e-9).all())
        assert bool((ends[:, 0] <= 140 * 0.4434 + 1e-9).all() and (ends[:, 1] <= 280 * 0.4434 + 1e-9).all())
        assert bool((ends[:, 2] <= A - C + 1e-9).all())
    whole, part = (s.end - s.start)[p.segment], p.end - p.start
    sign = torch.where(p.tpc == 0, 1.0, -1.0)  # depth grows away from the anode: +x in TPC 0, -x in TPC 1
    direction = torch.stack([part[:, 2] * sign, part[:, 1], part[:, 0]], 1)
    assert_close(torch.linalg.cross(direction, whole), torch.zeros_like(whole), rtol=0, atol=1e-9)
    assert bool(((direction * whole).sum(1) > 0).all())
    assert_close(p.dE, s.dE[p.segment] * part.norm(dim=1) / whole.norm(dim=1), rtol=1e-12, atol=0)
    order = [tuple(row) for row in torch.stack([p.event, p.tpc, p.segment], 1).tolist()]
    assert order == sorted(order)


def test_frame_of_a_plane():
    p = cut(segments([[-20.0, 10.0, 5.0], [20.0, 10.0, 5.0]]), MODULE0)
    assert p.tpc.tolist() == [0, 1]
    assert_close(p.start, torch.tensor([[5 + 31.038, 10 + 62.076, A - 20]] * 2, dtype=torch.float64))


def test_a_track_through_the_cathode_is_two_pieces():
    p = cut(segments([[-10.0, 0.0, 0.0]], [[10.0, 0.0, 0.0]], dE=20.0), MODULE0)
    assert p.tpc.tolist() == [0, 1] and p.segment.tolist() == [0, 0]
    assert_close(p.dE, torch.full((2,), 10 - C, dtype=torch.float64))
    assert p.energy_outside == pytest.approx(2 * C) and p.segments_outside == 0
    assert_close(p.start[:, 2], torch.tensor([A - 10, A - C], dtype=torch.float64))
    assert_close(p.end[:, 2], torch.tensor([A - C, A - 10], dtype=torch.float64))


@pytest.mark.parametrize("axis", range(3))
def test_flat_segments(axis):
    """Along one axis the other two have no extent: inside or outside, never NaN."""
    start = torch.tensor([[-12.0, 3.0, 4.0], [-12.0, 3.0, 99.0], [-12.0, 99.0, 4.0]], dtype=torch.float64)
    end = start.clone()
    end[:, axis] -= 1.5
    p = cut(segments(start, end), MODULE0)
    assert p.segment.tolist() == [0] and p.segments_outside == 2
    assert torch.isfinite(p.start).all() and torch.isfinite(p.end).all()


def test_points():
    """A point is inside once, also on a border that it shares with what lies beside it; outside it is counted."""
    inside = [[-12.0, 3.0, 4.0], [-A, -62.076, -31.038]]
    outside = [[0.0, 0.0, 0.0], [-12.0, 62.076, 0.0], [-12.0, 0.0, 31.038], [-40.0, 0.0, 0.0]]
    p = cut(segments(inside + outside), MODULE0)
    assert p.segment.tolist() == [0, 1] and p.segments_outside == 4
    assert p.energy_outside == pytest.approx(4 * 1.5)
    assert_close(p.dE, torch.full((2,), 1.5, dtype=torch.float64))


def test_no_segments_and_none_inside():
    for s in (random_segments(0), segments([[99.0, 0, 0]], [[98.0, 0, 0]])):
        p = cut(s, MODULE0)
        assert len(p) == 0 and p.segments_outside == len(s) and p.energy_outside == pytest.approx(float(s.dE.sum()))
        piece, share, middle = divide(p, 0.1)
        assert len(piece) == len(share) == len(middle) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_positions_that_are_not_finite_lie_outside(bad):
    for axis in range(3):
        start = torch.tensor([[-12.0, 3.0, 4.0]] * 2, dtype=torch.float64)
        start[1, axis] = bad
        p = cut(segments(start, start + 0.1), MODULE0)
        assert p.segment.tolist() == [0] and p.segments_outside == 1
        assert p.energy_outside == pytest.approx(1.5)


def test_derivatives_of_the_cut():
    """Through the borders: their place is fixed, the share of the energy moves."""
    s = random_segments(40)
    kept = cut(s, MODULE0)

    def parts(start, end, dE, dEdx, t0):
        p = cut(dataclasses.replace(s, start=start, end=end, dE=dE, dEdx=dEdx, t0=t0), MODULE0)
        assert torch.equal(p.segment, kept.segment)
        return p.start, p.end, p.dE, p.dEdx, p.t0

    leaves = differentiable(s)
    args = (leaves.start, leaves.end, leaves.dE, leaves.dEdx, leaves.t0)
    assert torch.autograd.gradcheck(parts, args, atol=1e-7, rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(length=st.floats(1e-6, 30), step=st.floats(0.01, 0.44))
def test_nodes_fill_a_piece(length, step):
    p = cut(segments([[-28.0, 0.0, 0.0]], [[-28.0, 0.0 + length, 0.0]]), MODULE0)
    piece, share, middle = divide(p, step)
    n = len(piece)
    assert n == int(count_nodes(p, step)) and length / n <= step * (1 + 2e-6)
    assert n == 1 or length / (n - 1) > step * (1 - 2e-6)
    assert_close((1 / share).sum(), torch.ones((), dtype=torch.float64))
    assert_close(middle, (torch.arange(n, dtype=torch.float64) + 0.5) / n)


def test_offset_of_dune():
    assert OFFSET[1] == 21.8236
    s = segments([[-12.0, -80.0, 0.0]])
    assert cut(s, MODULE0).segments_outside == 1
    moved = dataclasses.replace(s, start=s.start + torch.tensor(OFFSET), end=s.end + torch.tensor(OFFSET))
    assert cut(moved, MODULE0).segments_outside == 0
