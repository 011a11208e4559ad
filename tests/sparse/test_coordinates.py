import subprocess
import sys

import pytest
import torch
from core.contract import assert_same_bits
from hepops.sparse.coordinates import Index, coarsen, find, generate, index, union
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse import brute
from sparse.events import events

forms = pytest.mark.parametrize("plain", [False, True], ids=["tuned", "plain"])


@st.composite
def sets(draw, max_rows=40):
    """Coordinates (N, 1 + D) on a stride, with duplicates, around zero or far away, and the stride."""
    D = draw(st.integers(1, 6))
    kind = draw(st.sampled_from([torch.int32, torch.int64]))
    stride = draw(st.lists(st.sampled_from([1, 1, 2, 3, 4, 5, 8]), min_size=D, max_size=D))
    span = draw(st.sampled_from([1, 3, 30, 1 << 18]))
    far = 1 << (28 if kind == torch.int32 else 50)
    origin = draw(st.lists(st.sampled_from([0, 0, -span // 2, -span, 511, -far, far - 2]), min_size=D, max_size=D))
    last_batch = draw(st.sampled_from([0, 2, 1 << 21]))
    row = st.tuples(st.integers(0, last_batch), *(st.integers(x, x + span) for x in origin))
    some = draw(st.lists(row, max_size=max_rows))
    some += draw(st.lists(st.sampled_from(some), max_size=5)) if some else []
    on_stride = [[b, *(c // s * s for c, s in zip(rest, stride, strict=True))] for b, *rest in some]
    return torch.tensor(on_stride, dtype=kind).reshape(-1, 1 + D), tuple(stride)


def assert_same_index(ours: Index, theirs: Index) -> None:
    assert ours.stride == theirs.stride
    for a, b in zip(
        (ours.packing, ours.keys, ours.schedule), (theirs.packing, theirs.keys, theirs.schedule), strict=True
    ):
        assert_same_bits(a.cpu(), b.cpu())


@forms
@given(sets())
def test_rows_keep_their_order_and_the_schedule_is_canonical(plain, sample):
    c, stride = sample
    made, first, inverse = index(c, stride, plain=plain)
    some = brute.rows(c)
    merged = list(dict.fromkeys(some))  # by first occurrence
    assert [some[i] for i in first.tolist()] == merged and first.tolist() == sorted(first.tolist())
    assert [merged[i] for i in inverse.tolist()] == some
    assert [merged[i] for i in made.schedule.tolist()] == brute.in_canonical_order(merged, stride)
    assert made.schedule.dtype == torch.int32 and first.dtype == inverse.dtype == torch.int64
    words = [tuple(x % (1 << 64) for x in key) for key in made.keys.tolist()]
    assert words == sorted(set(words))


@given(sets())
def test_every_device_and_form_makes_the_same(sample):
    c, stride = sample
    for ours, theirs in [(index(c, stride), index(c, stride, plain=True))]:
        assert_same_index(ours[0], theirs[0])
        assert_same_bits(ours[1:], theirs[1:])


@forms
@given(sets(), st.lists(st.integers(1, 5), min_size=6, max_size=6), st.booleans())
def test_cells_are_floors_in_canonical_order(plain, sample, factor, equal):
    c, stride = sample
    made, first, _ = index(c, stride)
    factor = (2 ** (factor[0] - 1),) * len(stride) if equal else tuple(factor[: len(stride)])
    out, coarse = coarsen(c[first], made, factor, plain=plain)
    wide = tuple(s * f for s, f in zip(stride, factor, strict=True))
    assert coarse.stride == wide and out.dtype == c.dtype
    assert brute.rows(out) == brute.cells(brute.rows(c), wide)
    assert coarse.schedule.tolist() == list(range(len(out)))
    assert find(coarse, out).tolist() == list(range(len(out)))


@given(sets(), st.integers(0, 3))
def test_find_is_a_dictionary(sample, shift):
    c, stride = sample
    made, first, _ = index(c, stride)
    rows = {row: i for i, row in enumerate(brute.rows(c[first]))}
    moved = c.long() + torch.tensor([0] + [shift] * len(stride))
    ends = torch.tensor([[0] + [x] * len(stride) for x in (torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max)])
    queries = torch.cat([c.long(), moved, moved.flip(1), ends])
    assert find(made, queries).tolist() == [rows.get(row, -1) for row in brute.rows(queries)]


@forms
@given(sets(max_rows=12), st.data())
def test_generate_makes_all_sums(plain, sample, data):
    c, stride = sample
    offset = st.tuples(*(st.integers(-2, 2).map(lambda i, s=s: i * s) for s in stride))
    offsets = data.draw(st.lists(offset, max_size=6))
    out, made = generate(c, torch.tensor(offsets, dtype=torch.int64).reshape(-1, len(stride)), stride, plain=plain)
    sums = [(row[0], *(a + b for a, b in zip(row[1:], o, strict=True))) for row in brute.rows(c) for o in offsets]
    assert brute.rows(out) == brute.in_canonical_order(sums, stride) and out.dtype == c.dtype
    assert find(made, out).tolist() == list(range(len(out)))


@forms
@given(sets(max_rows=15), st.data())
def test_union_holds_every_row_once(plain, sample, data):
    c, stride = sample
    pick = data.draw(st.lists(st.integers(0, max(len(c) - 1, 0)), max_size=8)) if len(c) else []
    parts = [c[pick], c, c[:0], c.flip(0)]
    out, made, places = union(parts, stride, plain=plain)
    assert brute.rows(out) == brute.in_canonical_order(brute.rows(c), stride)
    for part, place in zip(parts, places, strict=True):
        assert_same_bits(out[place], part)
    assert_same_bits(made.schedule, torch.arange(len(out), dtype=torch.int32))


@given(sets())
def test_order_does_not_depend_on_the_company(sample):
    """Any part of a set is in the order that it has in the whole: keys may differ, their order may not."""
    c, stride = sample
    made, first, _ = index(c, stride)
    whole = c[first][made.schedule.long()]
    for part in (whole[::2], whole[len(whole) // 3 :], whole[whole[:, 0] == whole[:1, 0]]):
        part = part.flip(0)
        mine, _, _ = index(part, stride)
        assert_same_bits(part[mine.schedule.long()], part.flip(0))


def test_order_moves_along_with_the_voxels():
    """By a power of two that is wider than the set, on the aligned side: the same planes vary."""
    c = events(3000, seed=1)
    base = index(c, (1, 1, 1))[0].schedule
    for step in ([1024, 0, 0], [0, -1024, 2048], [1 << 20, -(1 << 20), -1024]):
        assert_same_bits(index(c + torch.tensor([0, *step], dtype=torch.int32), (1, 1, 1))[0].schedule, base)


def test_coarsening_in_steps_is_coarsening_at_once(device):
    """A coarse map of a coarse map, and of a union the union of the coarse maps."""
    c = events(5000, seed=3, batch=3).to(device) - torch.tensor([0, 300, 0, 700], device=device, dtype=torch.int32)
    made, _, _ = index(c, (1, 1, 1))
    half, half_index = coarsen(c, made, (2, 2, 2))
    for factor, steps in [(4, 2), (6, 3)]:
        at_once, _ = coarsen(c, made, (factor,) * 3)
        assert_same_bits(coarsen(half, half_index, (steps,) * 3)[0], at_once)
    a, b = c[:3000], c[2000:]
    parts = [coarsen(x, index(x, (1, 1, 1))[0], (2, 2, 2))[0] for x in (a, b)]
    assert_same_bits(union(parts, (2, 2, 2))[0], half)


@pytest.mark.parametrize("batch", [1, 2, 64])
@forms
def test_events(device, plain, batch):
    """As many voxels as there are in one event: several sorts' worth of digits, checked by torch."""
    c = events(30_000, seed=2, batch=batch)
    c = torch.cat([c, c[::3]])[torch.randperm(40_000)].to(device)
    made, first, inverse = index(c, (1, 1, 1), plain=plain)
    unique, counts = torch.unique(c, dim=0, return_counts=True)
    assert len(first) == 30_000 == len(unique) and int(counts.max()) == 2
    assert_same_bits(c[first][inverse], c)
    assert_same_bits(find(made, c), inverse)
    assert bool((made.keys[1:, 0] > made.keys[:-1, 0]).all())  # fewer than 63 bits
    half, _ = coarsen(c[first], made, (2, 2, 2), plain=plain)
    floors = torch.cat([unique[:, :1], unique[:, 1:] >> 1 << 1], 1).unique(dim=0)
    assert_same_bits(half.unique(dim=0), floors)
    assert len(half) == len(floors)


def test_threads_do_not_matter():
    c = torch.cat([events(60_000, seed=5), events(20_000, seed=5)])
    results, threads = [], torch.get_num_threads()
    try:
        for n in (1, 2, 2):
            torch.set_num_threads(n)
            made, first, inverse = index(c, (1, 1, 1))
            plain = index(c, (1, 1, 1), plain=True)
            assert_same_index(made, plain[0])
            cells, _ = coarsen(c[first], made, (2, 2, 2))
            results.append((made.keys, made.schedule, first, inverse, cells, *plain[1:]))
    finally:
        torch.set_num_threads(threads)
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[1], results[2])


def test_wide_schedules():
    c = events(500, seed=1)
    ours, theirs = index(c, (1, 1, 1), wide=True)[0], index(c, (1, 1, 1))[0]
    assert ours.schedule.dtype == torch.int64
    assert_same_bits(ours.schedule, theirs.schedule.long())
    assert coarsen(c, ours, (2, 2, 2))[1].schedule.dtype == torch.int64


@forms
def test_many_batches_and_two_words(plain):
    """2^20 batches, and coordinates that need more than 64 bits."""
    b = torch.randperm(1 << 20)[:5000]
    c = torch.cat([b[:, None], torch.randint(-(1 << 20), 1 << 20, (5000, 3))], 1)
    made, first, _ = index(c, (1, 1, 1), plain=plain)
    assert made.keys.shape[1] == 2 and len(first) == 5000
    order = sorted(range(5000), key=lambda i: brute.canonical_key(c[i].tolist(), (1, 1, 1)))
    assert made.schedule.tolist() == order
    one = index(c[:, :2], (1,), plain=plain)[0]
    assert one.keys.shape[1] == 1


def test_what_stands_around_a_high_power_of_two_is_cheap():
    """Six axes around 2^30: what they have in common is not in the keys."""
    c = torch.tensor([[0] + [(1 << 30) - 1 + i % 2] * 6 for i in range(3)] + [[0] + [(1 << 30) + 5] * 6])
    made, first, _ = index(c, (1,) * 6)
    assert made.keys.shape[1] == 1 and len(first) == 3 and made.schedule.tolist() == [0, 1, 2]


@pytest.mark.parametrize("D", range(1, 7))
@forms
def test_nothing_and_one_voxel(device, plain, D):
    empty = torch.empty(0, 1 + D, dtype=torch.int32, device=device)
    made, first, inverse = index(empty, (1,) * D, plain=plain)
    assert len(made) == len(first) == len(inverse) == 0
    cells, coarse = coarsen(empty, made, (2,) * D, plain=plain)
    assert cells.shape == (0, 1 + D) and len(coarse) == 0
    assert find(made, torch.ones(2, 1 + D, dtype=torch.int32, device=device)).tolist() == [-1, -1]
    assert generate(empty, torch.zeros(1, D, dtype=torch.int64), (1,) * D, plain=plain)[0].shape == (0, 1 + D)
    one = torch.full((1, 1 + D), -7, dtype=torch.int32, device=device)
    made, first, inverse = index(one, (7,) * D, plain=plain)
    assert find(made, one).tolist() == [0] == first.tolist() == inverse.tolist()
    assert coarsen(one, made, (2,) * D, plain=plain)[0].tolist() == [[-7] + [-14] * D]


def test_whole_floats_are_coordinates():
    c = events(100, seed=1)
    for kind in (torch.float32, torch.float64, torch.int16):
        assert_same_index(index(c.to(kind), (1, 1, 1))[0], index(c, (1, 1, 1))[0])


LARGE = 1 << 40


@pytest.mark.parametrize(
    ("coordinates", "stride", "error", "message"),
    [
        (torch.tensor([[0, 1.0], [0, 1.5]]), (1,), ValueError, r"whole numbers, got \[0.0, 1.5\] in row 1"),
        (torch.tensor([[0, float("nan")]]), (1,), ValueError, "whole numbers"),
        (torch.tensor([[2.0**24 + 2, 1.0]]), (1,), ValueError, "batch ids apart below 16777216, got 16777218"),
        (torch.tensor([[0, -(2.0**25)]]), (1,), ValueError, "whole numbers apart below 16777216"),
        (torch.zeros(3), (1,), ValueError, r"\(N, 1 \+ D\).*got shape \(3,\)"),
        (torch.zeros(3, 1, dtype=torch.int32), (), ValueError, "D from 1 to 6"),
        (torch.zeros(3, 8, dtype=torch.int32), (1,) * 7, ValueError, "D from 1 to 6"),
        (torch.zeros(3, 3, dtype=torch.int32), (1, 0), ValueError, r"2 positive numbers, got \(1, 0\)"),
        (torch.zeros(3, 3, dtype=torch.int32), (1, -2), ValueError, "positive"),
        (torch.zeros(3, 3, dtype=torch.int32), (1,), ValueError, "2 positive numbers"),
        (torch.zeros(3, 3, dtype=torch.bool), (1, 1), TypeError, "int32 or int64.*bool"),
        (torch.zeros(3, 3, dtype=torch.complex64), (1, 1), TypeError, "int32 or int64"),
        (torch.tensor([[0, 1, 2]]), (1, 4), ValueError, r"multiples of the stride \(1, 4\)"),
        (
            torch.tensor([[0] + [-LARGE] * 4, [0] + [LARGE] * 4]),
            (1,) * 4,
            ValueError,
            "need 1[67].* bits, of which there are 128: batch 0 to 0, axis 0 -1099511627776 to 1099511627776",
        ),
    ],
)
def test_refuses_by_name(coordinates, stride, error, message):
    for plain in (False, True):
        with pytest.raises(error, match=message):
            index(coordinates, stride, plain=plain)


def test_refuses_what_leaves_the_integers():
    last = torch.iinfo(torch.int32).max
    c = torch.tensor([[0, last, 0], [0, -last - 1, 0]], dtype=torch.int32)
    made, _, _ = index(c, (1, 1))
    with pytest.raises(ValueError, match=r"plus offsets from 1 to 1 leave torch.int32 on axis 0"):
        generate(c, torch.tensor([[1, 0]]), (1, 1))
    with pytest.raises(ValueError, match="rounded down to a multiple of 3 leaves Int"):
        coarsen(c, made, (3, 1))
    assert coarsen(c, made, (4, 4))[0].tolist() == [[0, -last - 1, 0], [0, last - 3, 0]]
    with pytest.raises(ValueError, match="factor must be 2 positive numbers"):
        coarsen(c, made, (0, 1))
    with pytest.raises(ValueError, match="queries must have 3 columns"):
        find(made, c[:, :2])
    with pytest.raises(ValueError, match="one dimension"):
        union([c, c[:, :2]], (1, 1))
    with pytest.raises(ValueError, match="no sets"):
        union([], (1, 1))


@settings(max_examples=3)
@given(st.integers(0, 1000))
def test_events_are_what_they_say(seed):
    c = events(4000, seed, batch=2)
    assert c.shape == (4000, 4) and len(c.unique(dim=0)) == 4000 and c.dtype == torch.int32
    assert_same_bits(c, events(4000, seed, batch=2))


@pytest.mark.parametrize("level", ["v2", "v3"])
def test_every_level_of_processor_makes_the_same(level):
    """In a process of its own, where the level is built: keys by bit deposit, and by a loop."""
    program = (
        "import hashlib, sys; sys.path.insert(0, 'tests')\n"
        "from sparse.events import events; from hepops.sparse.coordinates import index, coarsen\n"
        "from hepops.sparse.kernel_map import build_pyramid\n"
        "p = build_pyramid(events(4000, 1, batch=2), levels=3)\n"
        "lists = [x for m in p.submanifold + p.strided for x in (*m.forward, *m.backward)]\n"
        "print(hashlib.sha256(b''.join(x.numpy().tobytes() for x in lists)).hexdigest())"
    )
    import os

    from hepops.core.libraries import DIRECTORY

    if not (DIRECTORY / f"libhepops_cpu_{level}.so").exists():
        pytest.skip(f"level {level} is not built")
    outputs = set()
    for env in ({}, {"HEPOPS_CPU_LEVEL": level}):
        run = subprocess.run([sys.executable, "-c", program], env=os.environ | env, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        outputs.add(run.stdout)
    assert len(outputs) == 1
