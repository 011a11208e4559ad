import dataclasses

import pytest
import torch
from hepops.lartpc import Segments
from hypothesis import given
from hypothesis import strategies as st


def some(events, **changes):
    """Segments of the given events, one each, of different energies."""
    n = len(events)
    numbers = torch.arange(n, dtype=torch.float64)
    columns = dict(
        event=torch.tensor(events, dtype=torch.int64),
        start=torch.zeros(n, 3, dtype=torch.float64),
        end=torch.ones(n, 3, dtype=torch.float64),
        dE=1 + numbers,
        dEdx=2 + numbers,
        t0=numbers,
        pdg=torch.full((n,), 13),
        track=torch.arange(n),
    )
    return Segments(**columns | changes)


def test_an_index_selects_rows_of_every_column():
    segments = some([5, 5, 7])
    assert segments[1].dE.tolist() == [2.0] and segments[-1].dE.tolist() == [3.0]
    assert segments[1:].event.tolist() == [5, 7]
    assert segments[segments.dE > 1.5].start.shape == (2, 3)
    assert segments[torch.tensor([2, 0])].track.tolist() == [2, 0]


def test_events_are_selected_by_id_and_by_place():
    segments = some([2**40, 5, 7, 5])
    assert segments.events.tolist() == [5, 7, 2**40]
    assert segments.select([7, 2**40]).event.tolist() == [2**40, 7]
    assert segments.select(slice(0, 2)).event.tolist() == [5, 7, 5]
    with pytest.raises(ValueError, match="there is no event 6 among 3"):
        segments.select([5, 6])
    with pytest.raises(ValueError, match="selects none of 3 events"):
        segments.select(slice(3, 9))


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=20))
def test_sorting_keeps_rows_together_and_their_order(events):
    segments = some(events).sort()
    assert segments.event.tolist() == sorted(events)
    assert all(
        events[track] == event for track, event in zip(segments.track.tolist(), segments.event.tolist(), strict=True)
    )
    assert segments.track.tolist() == sorted(range(len(events)), key=events.__getitem__)


def test_parts_are_joined_and_their_counts_added():
    joined = Segments.cat([some([1], excluded={"a": 2}), some([2, 3], excluded={"a": 1, "b": 1}, notes={"c": 4})])
    assert joined.event.tolist() == [1, 2, 3]
    assert joined.excluded == {"a": 3, "b": 1} and joined.notes == {"c": 4}
    assert joined.report() == "3 segments of 3 events, 4 MeV; excluded: 3 a, 1 b; notes: 4 c"
    with pytest.raises(ValueError, match="at least one part"):
        Segments.cat([])


def test_gradients_reach_the_columns():
    energy = torch.ones(3, dtype=torch.float64, requires_grad=True)
    Segments.cat([some([1, 2, 3], dE=energy), some([4])])[torch.tensor([0, 2])].dE.sum().backward()
    assert energy.grad.tolist() == [1.0, 0.0, 1.0]


def test_is_immutable_and_refuses_shapes_that_do_not_fit():
    with pytest.raises(dataclasses.FrozenInstanceError):
        some([1]).dE = torch.ones(1)
    with pytest.raises(ValueError, match=r"start must have shape \(2, 3\), got \(2, 2\)"):
        some([1, 2], start=torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"dE must have shape \(2,\), got \(3,\)"):
        some([1, 2], dE=torch.zeros(3))


def test_moves_to_a_device(device):
    assert all(column.device.type == device for column in some([1, 2]).to(device).columns().values())
