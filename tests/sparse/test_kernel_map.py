from itertools import product

import pytest
import torch
from core.contract import assert_same_bits
from hepops.sparse.coordinates import coarsen, find, index
from hepops.sparse.kernel_map import TILE_ON_CPU, WAYS, KernelMap, Pairs, build, build_pyramid, regroup, tile_rows
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparse import brute
from sparse.events import events

forms = pytest.mark.parametrize("plain", [False, True], ids=["tuned", "plain"])


def box(size, unit=None, centred=True):
    """Offsets (K, D), the first axis fastest."""
    unit = unit or (1,) * len(size)
    axes = [[u * (i - (k // 2 if k % 2 and centred else 0)) for i in range(k)] for k, u in zip(size, unit, strict=True)]
    return torch.tensor([row[::-1] for row in product(*axes[::-1])], dtype=torch.int64).reshape(-1, len(size))


@st.composite
def problems(draw, dimension=None, max_rows=60):
    """Source, target (itself, cells of it, finer ones, or others), and the offsets of a kernel."""
    D = dimension or draw(st.integers(1, 6))
    kind = draw(st.sampled_from([torch.int32, torch.int64]))
    stride = draw(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=D, max_size=D))
    equal = draw(st.booleans())
    stride = tuple(stride[:1] * D if equal else stride)
    span = draw(st.sampled_from([1, 3, 6]))
    origin = draw(st.sampled_from([0, -2, 510, (1 << 29) - 2 if kind == torch.int32 else 1 << 45]))
    row = st.tuples(st.sampled_from([0, 0, 1, 1 << 20]), *(st.integers(origin, origin + span).map(lambda i: i),) * D)
    some = draw(st.lists(row, unique=True, max_size=max_rows))
    scale = torch.tensor([1, *stride])
    c = (torch.tensor(some, dtype=torch.int64).reshape(-1, 1 + D) * scale).to(kind)
    source, first, _ = index(c, stride)
    c = c[first]
    to = draw(st.sampled_from(["itself", "itself", "cells", "finer", "others"]))
    target_c, target = c, source
    if to == "cells":
        factor = draw(st.sampled_from([(2,) * D, (4,) * D, (3,) * D, tuple(1 + a % 3 for a in range(D))]))
        target_c, target = coarsen(c, source, factor)
    if to == "finer":
        target_c = (c + torch.tensor([0] + [a % 2 for a in range(D)])).to(kind)[::2]
        target = index(target_c, (1,) * D)[0]
    if to == "others":
        target_c = (c + torch.tensor([0] + [2 * s for s in stride]).to(kind))[1::2].flip(0)
        target = index(target_c, stride)[0]
    shape = draw(st.sampled_from(["box", "box", "cell", "cross", "custom"]))
    if shape == "custom":
        at = st.tuples(*(st.integers(-5, 5),) * D)
        offsets = torch.tensor(draw(st.lists(at, min_size=1, max_size=9)), dtype=torch.int64).reshape(-1, D)
        offsets = offsets * torch.tensor(draw(st.sampled_from([stride, (1,) * D])))
    elif shape == "cross":
        arms = [[x * s * (a == b) for b in range(D)] for a, s in enumerate(stride) for x in (1, 2, -2, -1)]
        offsets = torch.tensor([[0] * D, *arms])
    elif shape == "cell":
        ratio = tuple(max(1, t // s) for s, t in zip(stride, target.stride, strict=True))
        offsets = box(ratio, stride, centred=False)
    else:
        size = draw(st.lists(st.integers(1, (9, 7, 5, 3, 2, 2)[D - 1]), min_size=D, max_size=D))
        dilation = draw(st.sampled_from([1, 1, 2, 3]))
        offsets = box(size, tuple(dilation * s for s in stride), centred=draw(st.booleans()))
    return c, source, target_c, target, offsets


def expected(problem):
    c, _, target_c, _, offsets = problem
    return brute.triples(brute.rows(c), brute.rows(target_c), brute.rows(offsets))


@pytest.mark.parametrize("wide", [False, True], ids=["int32", "int64"])
@pytest.mark.parametrize("way", WAYS)
@forms
@settings(max_examples=60)
@given(problem=problems())
def test_every_way_finds_what_a_dictionary_finds(way, plain, wide, problem):
    c, source, target_c, target, offsets = problem
    try:
        pairs = build(source, target_c, target, offsets, way=way, plain=plain, wide=wide)
    except ValueError as error:
        assert way == "box" and "no box" in str(error)
        assume(False)
    assert pairs.pairs.dtype == (torch.int64 if wide else torch.int32)
    assert brute.check_list(pairs, TILE_ON_CPU, len(c)) == expected(problem)
    assert_same_bits(pairs.schedule.long(), target.schedule.long())


@settings(max_examples=150)
@given(problem=problems(dimension=3, max_rows=120))
def test_three_axes(problem):
    c, source, target_c, target, offsets = problem
    pairs = build(source, target_c, target, offsets)
    assert brute.check_list(pairs, TILE_ON_CPU, len(c)) == expected(problem)


@settings(max_examples=150)
@given(problem=problems(), volume_is_known=st.booleans())
def test_regrouped_lists_hold_the_same_triples(problem, volume_is_known):
    c, source, target_c, target, offsets = problem
    forward = build(source, target_c, target, offsets)
    backward = regroup(forward, source.schedule, len(offsets) if volume_is_known else None)
    found = brute.check_list(backward, TILE_ON_CPU, len(target_c))
    assert found == {(o, i, k) for i, o, k in expected(problem)}
    assert_same_bits(regroup(backward, target.schedule, len(offsets)), forward)
    # the other list is also that of the opposite offsets
    assert_same_bits(build(target, c, source, -offsets), backward)


def assert_same_lists(ours: Pairs, theirs: Pairs) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert_same_bits(a, b)


EVENT = events(5000, seed=4, batch=2)
KERNELS = {
    "3^3": box((3, 3, 3)),
    "3^3 dilated by 4": box((3, 3, 3), (4, 4, 4)),
    "5 x 1 x 7": box((5, 1, 7)),
    "2^3": box((2, 2, 2)),
    "9^3": box((9, 9, 9)),
    "backwards": box((3, 3, 3)).flip(0),
    "with a twin": torch.cat([box((3, 3, 3)), box((1, 1, 1))]),
    "between the cells": box((3, 3, 3)) * 3,
    "out of reach": torch.tensor([[5, 0, 0], [0, 0, -17], [1, 1, 1]]),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shift", [0, -384])
def test_events(kernel, shift):
    """Many tiles: the tuned forms and the plain ones, onto itself, onto cells, and back."""
    c = EVENT + torch.tensor([0, shift, 0, shift], dtype=torch.int32)
    offsets = KERNELS[kernel]
    own, _, _ = index(c, (1, 1, 1))
    half_c, half = coarsen(c, own, (2, 2, 2))
    third_c, third = coarsen(c, own, (3, 3, 3))
    part_c = c[::3] + torch.tensor([0, 1, 0, 0], dtype=torch.int32)
    part = index(part_c, (1, 1, 1))[0]
    twice = 2 * offsets
    for source, target_c, target, o in [
        (own, c, own, offsets),
        (own, half_c, half, offsets),
        (half, half_c, half, twice),
        (half, c, own, offsets),
        (own, third_c, third, offsets),
        (own, part_c, part, offsets),
        (part, c, own, offsets),
    ]:
        pairs = build(source, target_c, target, o)
        assert_same_lists(pairs, build(source, target_c, target, o, plain=True))
        assert_same_lists(pairs, build(source, target_c, target, o, way="probe", plain=True))
        wide = build(source, target_c, target, o, wide=True)
        assert_same_lists(wide, Pairs(*(x.long() for x in pairs)))


def test_a_mirrored_map_is_its_own_backward_list():
    own, _, _ = index(EVENT, (1, 1, 1))
    offsets = box((3, 3, 3))
    pairs = build(own, EVENT, own, offsets)
    triples = brute.check_list(pairs, TILE_ON_CPU, len(EVENT))
    assert triples == {(o, i, 26 - k) for i, o, k in triples}
    other = brute.check_list(regroup(pairs, own.schedule, 27), TILE_ON_CPU, len(EVENT))
    assert other == {(i, o, 26 - k) for i, o, k in triples}


def test_kernel_maps():
    own, _, _ = index(EVENT, (1, 1, 1))
    half_c, half = coarsen(EVENT, own, (2, 2, 2))
    offsets = box((3, 3, 3))
    forward = build(own, half_c, half, offsets)
    layer = KernelMap(forward, own.schedule, 27)
    back = layer.transposed()
    assert (
        (layer.num_in, layer.num_out, layer.volume) == (len(EVENT), len(half_c), 27) == (back.num_out, back.num_in, 27)
    )
    assert layer.forward is forward and back.backward is forward and not layer.mirrored and not back.flip
    assert back.forward is layer.backward  # made once
    assert_same_lists(back.forward, regroup(forward, own.schedule, 27))
    assert back.transposed().forward is forward
    assert "5000" in repr(layer) and "27 offsets" in repr(layer)

    mirrored = KernelMap(build(own, EVENT, own, offsets), own.schedule, 27, mirrored=True)
    assert mirrored.backward is mirrored.forward and mirrored.mirrored and not mirrored.flip
    assert mirrored.transposed().flip and mirrored.transposed().forward is mirrored.forward
    assert not mirrored.transposed().transposed().flip


@pytest.mark.parametrize("D", [1, 2, 3, 4])
def test_pyramids_are_their_parts(D):
    c = torch.cat([events(2000, seed=1, batch=3, D=D), events(2000, seed=1, batch=3, D=D)[:50]])
    c = c - torch.tensor([0] + [300] * D, dtype=torch.int32)
    pyramid = build_pyramid(c, levels=4)
    made, first, inverse = index(c, (1,) * D)
    assert_same_bits((pyramid.first, pyramid.inverse, pyramid.coordinates[0]), (first, inverse, c[first]))
    level_c = c[first]
    for level in range(4):
        assert_same_bits(pyramid.coordinates[level], level_c)
        assert pyramid.indices[level].stride == (2**level,) * D
        assert_same_bits(pyramid.indices[level].keys, made.keys)
        own = pyramid.submanifold[level]
        assert_same_lists(own.forward, build(made, level_c, made, 2**level * box((3,) * D), plain=True))
        assert own.mirrored and own.volume == 3**D
        if level == 3:
            break
        coarse_c, coarse = coarsen(level_c, made, (2,) * D)
        offsets = 2**level * box((2,) * D)
        down = build(made, coarse_c, coarse, offsets, plain=True)
        assert_same_lists(pyramid.strided[level].forward, down)
        assert_same_lists(pyramid.strided[level].backward, regroup(down, made.schedule, 2**D))
        assert len(down.pairs) == len(level_c)  # every row has one parent
        level_c, made = coarse_c, coarse
    assert len(pyramid.strided) == 3


@pytest.mark.parametrize("factor", [3, (2, 1, 4)])
def test_pyramids_of_other_strides(factor):
    pyramid = build_pyramid(EVENT, levels=3, factor=factor, size=(3, 1, 3), wide=True)
    by = (factor,) * 3 if isinstance(factor, int) else factor
    stride = (1, 1, 1)
    for level, strided in enumerate(pyramid.strided):
        rows, parents = pyramid.coordinates[level], pyramid.coordinates[level + 1]
        offsets = box(by, stride, centred=False)
        found = brute.check_list(strided.forward, TILE_ON_CPU, len(rows))
        assert found == brute.triples(brute.rows(rows), brute.rows(parents), brute.rows(offsets))
        assert_same_lists(
            strided.backward, regroup(strided.forward, pyramid.indices[level].schedule.long(), len(offsets))
        )
        stride = tuple(s * f for s, f in zip(stride, by, strict=True))
    assert pyramid.submanifold[0].volume == 9 and pyramid.submanifold[0].forward.pairs.dtype == torch.int64


@forms
def test_kernels_as_wide_as_their_stride_hold_what_is_there(plain):
    """48^3 offsets: one pair a voxel, entries for them alone."""
    own, _, _ = index(EVENT, (1, 1, 1))
    cells, coarse = coarsen(EVENT, own, (48, 48, 48))
    offsets = box((48, 48, 48), centred=False)
    pairs = build(own, cells, coarse, offsets, plain=plain)
    assert len(pairs.pairs) == len(EVENT) >= len(pairs.entries) - 1
    brute.check_list(pairs, TILE_ON_CPU, len(EVENT))
    k = torch.repeat_interleave(pairs.entries[:-1, 1], pairs.entries.diff(dim=0)[:, 0]).long()
    read, written = EVENT[pairs.pairs[:, 0].long()], cells[pairs.schedule[pairs.pairs[:, 1].long()].long()]
    assert_same_bits(read[:, 1:].long() - written[:, 1:], offsets[k])
    assert_same_bits(read[:, 0], written[:, 0])
    assert_same_lists(regroup(regroup(pairs, own.schedule), coarse.schedule), pairs)


@forms
def test_more_offsets_than_voxels(plain):
    """By pairs of voxels, each once."""
    c = EVENT[:60]
    own, _, _ = index(c, (1, 1, 1))
    pairs = build(own, c, own, box((41, 41, 41)), plain=plain)
    rows = brute.rows(c)
    near = sum(a[0] == b[0] and max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 20 for a in rows for b in rows)
    assert len(brute.check_list(pairs, TILE_ON_CPU, 60)) == near > 60


def test_threads_do_not_matter():
    c = events(40_000, seed=6)
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 2):
            torch.set_num_threads(n)
            pyramid = build_pyramid(c, levels=3)
            maps = pyramid.submanifold + pyramid.strided
            wider = build(pyramid.indices[0], c, pyramid.indices[0], box((5, 5, 5)))
            plain = build(pyramid.indices[0], c, pyramid.indices[0], box((3, 3, 3)), plain=True)
            results.append([*(x for m in maps for x in (*m.forward, *m.backward)), *wider, *plain])
    finally:
        torch.set_num_threads(threads)
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[1], results[2])


@forms
@pytest.mark.parametrize("n", [0, 1, 255, 256, 257])
def test_few_rows(device, plain, n):
    c = events(max(n, 1), seed=8)[:n].to(device)
    own, _, _ = index(c, (1, 1, 1))
    offsets = box((3, 3, 3))
    pairs = build(own, c, own, offsets, plain=plain)
    found = brute.check_list(Pairs(*(x.cpu() for x in pairs)), tile_rows(c.device), n)
    assert found == brute.triples(brute.rows(c), brute.rows(c), brute.rows(offsets))
    none = build(own, c, own, offsets[:0], plain=plain)
    assert len(none.pairs) == 0 and none.entries.tolist() == [[0, -1]]
    empty, _, _ = index(c[:0], (1, 1, 1))
    assert len(build(empty, c, own, offsets, plain=plain).pairs) == 0
    assert len(build(own, c[:0], empty, offsets, plain=plain).tiles) == 1


def test_the_ends_of_the_integers():
    """c + offset beyond int64 is nowhere; nothing wraps around."""
    last = torch.iinfo(torch.int64).max
    c = torch.tensor([[0, last], [0, last - 3], [0, -last - 1], [0, 7]])
    own, _, _ = index(c, (1,))
    offsets = torch.tensor([[0], [1], [-1], [3], [last], [-last]])
    expected = brute.triples(brute.rows(c), brute.rows(c), brute.rows(offsets))
    for plain, way in product([False, True], ["auto", "probe", "pairwise"]):
        pairs = build(own, c, own, offsets, plain=plain, way=way)
        assert brute.check_list(pairs, TILE_ON_CPU, 4) == expected


def test_two_words():
    """2^20 batches and 2^21 voxels a side: more than 64 bits."""
    c = torch.cat([torch.randint(0, 1 << 20, (600, 1)), torch.randint(-(1 << 20), 1 << 20, (600, 3))], 1)
    c = torch.cat([c, c + torch.tensor([0, 1, 0, -1])])
    own, first, _ = index(c, (1, 1, 1))
    assert own.keys.shape[1] == 2
    c = c[first]
    half_c, half = coarsen(c, own, (2, 2, 2))
    for offsets, target_c, target in [(box((3, 3, 3)), c, own), (box((2, 2, 2)), half_c, half)]:
        expected = brute.triples(brute.rows(c), brute.rows(target_c), brute.rows(offsets))
        for plain, way in product([False, True], ["auto", "probe", "box"]):
            pairs = build(own, target_c, target, offsets, plain=plain, way=way)
            assert brute.check_list(pairs, TILE_ON_CPU, len(c)) == expected
    assert find(half, half_c).tolist() == list(range(len(half_c)))


def test_refuses_by_name():
    own, _, _ = index(EVENT, (1, 1, 1))
    flat, _, _ = index(EVENT[:, :3], (1, 1))
    offsets = box((3, 3, 3))
    with pytest.raises(ValueError, match=r"way must be one of .*'guess'"):
        build(own, EVENT, own, offsets, way="guess")
    with pytest.raises(ValueError, match="10 target coordinates do not belong to an index of 5000"):
        build(own, EVENT[:10], own, offsets)
    with pytest.raises(ValueError, match="source has 3 dimensions, target 2"):
        build(own, EVENT[: len(flat), :3], flat, offsets)
    with pytest.raises(ValueError, match=r"offsets must be \(K, 3\).*got shape \(27, 2\)"):
        build(own, EVENT, own, offsets[:, :2])
    with pytest.raises(TypeError, match="offsets must be int64"):
        build(own, EVENT, own, offsets.int())
    with pytest.raises(ValueError, match="no box"):
        build(own, EVENT, own, offsets.flip(0), way="box")
    with pytest.raises(ValueError, match="levels must be positive, got 0"):
        build_pyramid(EVENT, levels=0)
    with pytest.raises(ValueError, match="factor"):
        build_pyramid(EVENT, levels=2, factor=0)
