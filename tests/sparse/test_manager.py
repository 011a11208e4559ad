"""The manager: in which order rows stand, that maps are made once, and that maps of several tensors stay apart."""

import copy
import itertools

import pytest
import torch
from hepops.sparse import CoordinateManager, CoordinateMapKey, Kernel, SparseTensor, nn
from hepops.sparse import functional as F
from torch.testing import assert_close

from . import truth


def voxels(n=60, D=2, seed=0, side=9, **options):
    return truth.random_voxels(n, D, seed=seed, side=side, **options)


def features(n, C=2, seed=0):
    return torch.randn(n, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs_of(pairs):
    """The list of a kernel map as a set of (row read, row written, k), by its definition."""
    found = []
    entries = pairs.entries.tolist()
    for (first, k), (last, _) in itertools.pairwise(entries):
        for row, place in pairs.pairs[first:last].tolist():
            found.append((row, int(pairs.schedule[place]), k))
    assert len(found) == len(pairs.pairs) == len(set(found))
    return set(found)


# The order of rows


@pytest.mark.parametrize("D", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("stride", [2, 3, 5, "axes"])
def test_strided_maps_are_sorted_by_batch_then_morton(D, stride):
    stride = tuple((2, 1, 3, 4, 1, 2)[:D]) if stride == "axes" else (stride,) * D
    coordinates = voxels(80, D, batches=3, side=(40, 12, 9, 7, 6, 5)[D - 1])
    manager = CoordinateManager(D)
    key = manager.stride(manager.insert(coordinates).key, stride)
    assert key.stride == stride
    assert truth.listed(manager.coordinates(key)) == truth.strided(coordinates, stride)


@pytest.mark.parametrize("extra", [[], [[0, 3000, 0]], [[0, 0, -70_000]], [[5, 2**30, -(2**30)], [-7, -1, 4]]])
def test_the_order_does_not_depend_on_what_else_is_there(extra):
    """Voxels far away widen the keys, and leave the rest in its order."""
    coordinates = torch.unique(torch.cat([voxels(50), torch.tensor(extra, dtype=torch.int32).reshape(-1, 3)]), dim=0)
    for stride in (2, (1, 3), 4):
        manager = CoordinateManager(2)
        key = manager.stride(manager.insert(coordinates).key, stride)
        assert truth.listed(manager.coordinates(key)) == truth.strided(coordinates, key.stride)


def test_axes_of_different_signs_and_extents_are_sorted_alike():
    """One axis straddles zero narrowly, one widely, one not at all."""
    generator = torch.Generator().manual_seed(3)
    c = torch.stack(
        [
            torch.randint(0, 2, (120,), generator=generator),
            torch.randint(-2, 2, (120,), generator=generator),
            torch.randint(-300, 300, (120,), generator=generator),
            torch.randint(40, 47, (120,), generator=generator),
        ],
        1,
    )
    coordinates = torch.unique(c, dim=0)
    for stride in (1, 2, 3):
        manager = CoordinateManager(3)
        one = manager.insert(coordinates[::2]).key
        key = manager.stride(one, stride)
        if stride == 1:
            key, _ = manager.union([one, manager.insert(coordinates[1::2]).key])
            expected = truth.order(truth.listed(coordinates), (1, 1, 1))
        else:
            expected = truth.strided(coordinates[::2], (stride,) * 3)
        assert truth.listed(manager.coordinates(key)) == expected


def test_generated_and_united_maps_are_sorted():
    a, b = voxels(40, seed=1), voxels(40, seed=2)
    manager = CoordinateManager(2)
    keys = [manager.insert(c, 1).key for c in (a, b)]
    key, rows = manager.union(keys)
    assert truth.listed(manager.coordinates(key)) == truth.order(set(truth.listed(a)) | set(truth.listed(b)), (1, 1))
    for c, r in zip((a, b), rows, strict=True):
        assert torch.equal(manager.coordinates(key)[r], c)
    coarse = manager.stride(keys[0], 2)
    for kernel in (
        Kernel.of(3, 2),
        Kernel.of(2, 2),
        Kernel.of(3, 2, shape="cross"),
        Kernel.of(1, 2, offsets=[[1, -2]]),
    ):
        made = manager.generate(coarse, kernel, 2)
        reached = {
            truth.add(c, offset) for c in truth.listed(manager.coordinates(coarse)) for offset in kernel.offsets()
        }
        assert truth.listed(manager.coordinates(made)) == truth.order(reached, (1, 1))


def test_pruned_rows_keep_their_order():
    coordinates = voxels()
    keep = torch.rand(len(coordinates)) < 0.5
    manager = CoordinateManager(2)
    key = manager.prune(manager.insert(coordinates).key, keep)
    assert torch.equal(manager.coordinates(key), coordinates[keep])


def test_global_rows_ascend_by_batch_id():
    coordinates = voxels(40, batches=1) + torch.tensor([0, 0, 0], dtype=torch.int32)
    ids = torch.tensor([7, 3, 2**20 + 1, -4])[torch.arange(len(coordinates)) % 4]
    coordinates = torch.cat([ids[:, None], coordinates[:, 1:].long()], 1)
    manager = CoordinateManager(2)
    origin = manager.coordinates(manager.origin(manager.insert(coordinates).key))
    assert origin.tolist() == [[b, 0, 0] for b in (-4, 3, 7, 2**20 + 1)]


# Kernel maps: what is in them


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "kernel",
    [
        Kernel.of(3, 2),
        Kernel.of(2, 2),
        Kernel.of((5, 2), 2, (1, 3)),
        Kernel.of(5, 2, 2, shape="cross"),
        Kernel.of(1, 2, offsets=[[2, 0], [0, 0], [-2, 0]]),
        Kernel.of(1, 2, offsets=[[1, 0], [0, 1]]),
    ],
)
def test_a_kernel_map_holds_every_pair_once(kernel, seed):
    coordinates = voxels(300, side=17, seed=seed)  # more than one tile
    manager = CoordinateManager(2)
    key = manager.insert(coordinates).key
    table = kernel.table().tolist()
    for source, target in itertools.product((key, manager.stride(key, 2), manager.stride(key, (1, 3))), repeat=2):
        if any(t % s for s, t in zip(source.stride, target.stride, strict=True)):
            continue  # a layer only writes to coarser voxels
        offsets = [tuple(o * s for o, s in zip(row, source.stride, strict=True)) for row in table]
        found = truth.triples(manager.coordinates(source), manager.coordinates(target), offsets)
        expected = {tuple(row) for row in found.tolist()}
        made = manager.kernel_map(source, target, kernel)
        forward = {(i, o, made.volume - 1 - k if made.flip else k) for i, o, k in pairs_of(made.forward)}
        assert forward == expected and made.volume == len(table)
        backward = pairs_of(made.backward)
        if made.mirrored:
            assert {(i, o, made.volume - 1 - k) for o, i, k in backward} == expected
        else:
            assert {(i, o, k) for o, i, k in backward} == expected
        up = made.transposed()
        flip = up.flip
        assert {(i, o, up.volume - 1 - k if flip else k) for o, i, k in pairs_of(up.forward)} == expected
        assert (up.num_in, up.num_out) == (made.num_out, made.num_in)


def test_a_mirrored_map_is_one_that_mirrors():
    """Odd kernels onto their own voxels; even ones, and odd ones between different voxels, are not."""
    manager = CoordinateManager(2)
    key = manager.insert(voxels()).key
    coarse = manager.stride(key, 2)
    assert manager.kernel_map(key, key, Kernel.of(3, 2)).mirrored
    assert manager.kernel_map(key, key, Kernel.of((3, 5), 2, 2)).mirrored
    assert manager.kernel_map(key, key, Kernel.of(1, 2, offsets=[[1, 2], [-1, -2]])).mirrored
    assert not manager.kernel_map(key, key, Kernel.of(2, 2)).mirrored
    assert not manager.kernel_map(key, key, Kernel.of(5, 2, shape="cross")).mirrored
    assert not manager.kernel_map(key, coarse, Kernel.of(3, 2)).mirrored


# Made once


def test_forward_backward_and_further_layers_share_one_map(monkeypatch):
    from hepops.sparse import manager as module

    built = []
    build = module.build

    def counting(*args, **kwargs):
        built.append(args)
        return build(*args, **kwargs)

    monkeypatch.setattr(module, "build", counting)
    coordinates = voxels()
    x = SparseTensor(features(len(coordinates)).requires_grad_(), coordinates)
    layers = [nn.Convolution(2, 2, 3, dimension=2).double() for _ in range(3)]
    down = nn.Convolution(2, 2, 2, 2, dimension=2).double()
    up = nn.ConvolutionTranspose(2, 2, 2, 2, dimension=2).double()
    y = layers[2](layers[1](layers[0](x)))
    assert len(built) == 1
    z = up(down(y))
    assert len(built) == 3  # the list that the layer down reads, and the list that the layer up reads
    z = nn.PoolTranspose(2, 2, dimension=2)(nn.MaxPool(2, 2, dimension=2)(z))
    z.features.square().sum().backward()
    layers[0](z)
    assert len(built) == 3  # which are those of the pools and of the gradients too
    F.convolve(x, torch.rand(25, 2, 2).double(), kernel=5)
    F.convolve(x, torch.rand(9, 2, 2).double(), kernel=Kernel.of(3, 2, 2))
    F.convolve(x, torch.rand(4, 2, 2).double(), kernel=2, stride=(2, 1))
    assert len(built) >= 6
    asked = [(id(args[0]), id(args[2]), tuple(map(tuple, args[3].tolist()))) for args in built]
    assert len(set(asked)) == len(asked)  # no list is made twice


def test_the_same_question_gives_the_same_objects():
    x = SparseTensor(features(len(voxels())), voxels())
    manager, key = x.coordinate_manager, x.coordinate_map_key
    assert manager.stride(key, 2) == manager.stride(key, (2, 2)) != manager.stride(key, (2, 1))
    assert manager.stride(manager.stride(key, 2), 2) == manager.stride(key, 4)  # either way down
    assert manager.stride(manager.stride(key, 2), 3) == manager.stride(manager.stride(key, 3), 2)
    assert manager.stride(key, 1) == key
    kernel = Kernel.of(3, 2)
    assert manager.kernel_map(key, key, kernel) is manager.kernel_map(key, key, Kernel((3, 3)))
    assert manager.kernel_map(key, key, kernel).forward.pairs is manager.kernel_map(key, key, kernel).forward.pairs
    down = manager.kernel_map(key, manager.stride(key, 2), kernel)
    assert down.transposed().forward.pairs is down.backward.pairs  # the transposed layer reads the backward list
    assert down.transposed().backward.pairs is down.forward.pairs
    assert manager.origin(key) == manager.origin(key)
    maps = len(manager)
    F.union(x, F.prune(x, torch.ones(len(x), dtype=torch.bool)))
    assert len(manager) == maps + 2
    assert manager.generate(manager.stride(key, 2), kernel, 2) == manager.generate(manager.stride(key, 2), kernel, 2)
    assert manager.generate(manager.stride(key, 2), kernel, 2) != manager.generate(
        manager.stride(key, 2), Kernel.of(2, 2), 2
    )


@pytest.mark.parametrize("size, dilation", [((3, 5), (1, 1)), ((5, 3), (1, 1)), ((3, 3), (1, 2)), ((3, 3), (2, 1))])
def test_maps_of_kernels_that_resemble_each_other_are_told_apart(size, dilation):
    """Same volume or same reach, and on one manager."""
    coordinates = voxels()
    x = SparseTensor(features(len(coordinates)), coordinates)
    for s, d in [((3, 5), (1, 1)), ((5, 3), (1, 1)), ((3, 3), (1, 2)), ((3, 3), (2, 1)), (size, dilation)]:
        offsets = truth.box(s, d)
        weight = torch.randn(len(offsets), 2, 1, dtype=torch.float64)
        out = F.convolve(x, weight, kernel=Kernel.of(s, 2, d))
        found = truth.triples(coordinates, coordinates, offsets)
        assert_close(out.features, truth.convolve(x.features, weight, found, len(x)), rtol=1e-13, atol=1e-13)


# Several tensors on one manager


def test_tensors_on_one_manager_are_not_mixed_up():
    """Two tensors, pruned, united, strided, and up again: each as if it were alone."""
    manager = CoordinateManager(2)
    weights = torch.randn(9, 2, 2, dtype=torch.float64), torch.randn(4, 2, 2, dtype=torch.float64)

    def chain(x):
        x = F.convolve(x, weights[0], kernel=3)
        y = F.convolve(x, weights[1], kernel=2, stride=2)
        y = F.convolve(y, weights[0], kernel=3)
        z = F.conv_transpose(y, weights[1], kernel=2, stride=2)
        assert torch.equal(z.coordinates, x.coordinates)
        return x + z

    sets = [voxels(seed=s) for s in (1, 2)]
    together = [SparseTensor(features(len(c), seed=i), c, coordinate_manager=manager) for i, c in enumerate(sets)]
    apart = [SparseTensor(features(len(c), seed=i), c) for i, c in enumerate(sets)]
    keep = [torch.rand(len(c)) < 0.6 for c in sets]
    for x, y, k in zip(together, apart, keep, strict=True):
        for mine, alone in [(x, y), (F.prune(x, k), F.prune(y, k))]:
            a, b = chain(mine), chain(alone)
            assert torch.equal(a.coordinates, b.coordinates) and torch.equal(a.features, b.features)
    united = F.union(*together)
    table = dict.fromkeys(truth.order(set(truth.listed(sets[0])) | set(truth.listed(sets[1])), (1, 1)), 0.0)
    for c, x in zip(sets, together, strict=True):
        for voxel, row in zip(truth.listed(c), x.features, strict=True):
            table[voxel] = table[voxel] + row
    alone = SparseTensor(torch.stack(list(table.values())), torch.tensor(list(table)))
    assert torch.equal(united.coordinates.long(), alone.coordinates.long())
    a, b = chain(united), chain(alone)
    assert torch.equal(a.coordinates.long(), b.coordinates.long())
    assert_close(a.features, b.features, rtol=1e-13, atol=1e-13)
    a, b = (chain(F.prune(x, torch.arange(len(x)) % 3 != 0)) for x in (united, alone))
    assert torch.equal(a.coordinates.long(), b.coordinates.long())
    assert_close(a.features, b.features, rtol=1e-13, atol=1e-13)


def test_second_tensor_finds_its_own_way_back():
    """The finer voxels of a strided map are those it came from, not the first of that stride."""
    manager = CoordinateManager(2)
    first, second = (manager.insert(voxels(seed=s)).key for s in (1, 2))
    coarse = manager.stride(manager.stride(second, 2), 2)
    assert manager.finer(coarse, 2) == manager.stride(second, 2)
    assert manager.finer(coarse, 4) == second != first
    assert manager.finer(manager.stride(first, 4), 2) is None  # nobody made that level
    assert manager.finer(manager.stride(first, 4), 4) == first


def test_a_pruned_coarse_map_goes_back_to_its_own_fine_voxels():
    """And not to an unrelated map that pruning also made."""
    x = SparseTensor(features(len(voxels(seed=1))), voxels(seed=1))
    manager = x.coordinate_manager
    other = SparseTensor(features(len(voxels(seed=2))), voxels(seed=2), coordinate_manager=manager)
    unrelated = F.prune(other, torch.arange(len(other)) % 2 == 0)
    assert unrelated.coordinate_map_key == CoordinateMapKey((1, 1), "pruned")
    down = F.pool(x, "sum", kernel=2, stride=2)
    pruned = F.prune(down, torch.arange(len(down)) % 2 == 0)
    up = F.pool_transpose(pruned, kernel=2, stride=2)
    assert up.coordinate_map_key == x.coordinate_map_key
    # a level below, the pruned map is the finer one; two levels below, its origin
    deeper = F.pool(pruned, "sum", kernel=2, stride=2)
    assert deeper.coordinate_map_key != F.pool(down, "sum", kernel=2, stride=2).coordinate_map_key
    assert F.pool_transpose(deeper, kernel=2, stride=2).coordinate_map_key == pruned.coordinate_map_key
    assert F.pool_transpose(deeper, kernel=4, stride=4).coordinate_map_key == x.coordinate_map_key


def test_united_and_given_maps_go_back_too():
    x = SparseTensor(features(len(voxels(seed=1))), voxels(seed=1))
    manager = x.coordinate_manager
    other = SparseTensor(features(len(voxels(seed=2))), voxels(seed=2), coordinate_manager=manager)
    a, b = (F.pool(t, "sum", kernel=2, stride=2) for t in (other, x))
    F.union(x, other)  # at stride 1, and of no concern
    assert F.pool_transpose(F.union(a, b), kernel=2, stride=2).coordinate_map_key == other.coordinate_map_key
    target = manager.coordinates(b.coordinate_map_key).flip(0)[::2]
    given = F.pool(x, "sum", kernel=2, stride=2, coordinates=target)
    assert torch.equal(given.coordinates, target)
    assert F.pool_transpose(given, kernel=2, stride=2).coordinate_map_key == x.coordinate_map_key


def test_a_coarse_tensor_of_the_caller_finds_the_fine_one_by_its_name():
    fine = voxels()
    manager = CoordinateManager(2)
    keys = {name: manager.insert(fine[i:], 1, name).key for i, name in enumerate(("", "track"))}
    for name in ("", "track"):
        coarse = manager.insert(torch.tensor(truth.strided(fine, (2, 2))), 2, name).key
        assert manager.finer(coarse, 2) == keys[name]
    assert manager.finer(manager.insert(torch.tensor([[0, 0, 0]]), 2, "shower").key, 2) is None


def test_names_are_never_taken_twice():
    manager = CoordinateManager(1)
    keys = [manager.insert(torch.tensor([[0, i]]), 1, name).key for i, name in enumerate(["", "", "a", "a", "", "1"])]
    assert len(set(keys)) == len(keys) == len(manager)
    assert [manager.coordinates(key)[0, 1].item() for key in keys] == list(range(6))
    assert manager.keys(1) == keys and manager.keys(2) == []


@pytest.mark.parametrize("size", [3, 2])
def test_pruning_then_striding_sees_the_pruned_voxels_alone(size):
    coordinates = voxels(120)
    x = SparseTensor(features(len(coordinates)), coordinates)
    F.pool(x, "sum", kernel=size, stride=2)  # the unpruned map of that stride is there already
    keep = torch.rand(len(x)) < 0.3
    pruned = F.prune(x, keep)
    out = F.pool(pruned, "sum", kernel=size, stride=2)
    left = coordinates[keep]
    assert truth.listed(out.coordinates) == truth.strided(left, (2, 2))
    found = truth.triples(left, out.coordinates, truth.box((size,) * 2, (1, 1)))
    assert_close(out.features, truth.pool(x.features[keep], found, len(out), "sum"), rtol=1e-14, atol=1e-14)


def test_two_prunings_of_one_tensor_are_two_maps():
    x = SparseTensor(features(len(voxels())), voxels())
    odd = torch.arange(len(x)) % 2 == 1
    a, b = F.prune(x, odd), F.prune(x, ~odd)
    assert a.coordinate_map_key != b.coordinate_map_key
    back = F.union(a, b)
    rows = truth.match(back.coordinates, x.coordinates)
    assert torch.equal(back.features[rows], x.features)


def test_global_pools_of_two_tensors_can_be_added():
    manager = CoordinateManager(2)
    x = SparseTensor(features(3), torch.tensor([[0, 1, 1], [2, 0, 0], [2, 1, 0]]), coordinate_manager=manager)
    y = SparseTensor(features(2, seed=1), torch.tensor([[2, 1, 1], [1, 0, 0]]), coordinate_manager=manager)
    total = F.global_pool(x, "sum") + F.global_pool(y, "sum")
    assert total.coordinates[:, 0].tolist() == [0, 1, 2]
    assert torch.equal(
        total.features, torch.stack([x.features[0], y.features[1], x.features[1:].sum(0) + y.features[0]])
    )
    kept = F.prune(total, torch.tensor([True, False, True]))
    assert kept.coordinates[:, 0].tolist() == [0, 2]
    point = nn.Convolution(2, 3, 1, dimension=2).double()  # squeeze and excite by a kernel of one offset
    assert_close(point(total).features, total.features @ point.kernel, rtol=1e-14, atol=1e-14)


def test_segments_say_which_rows_are_whose():
    coordinates = voxels(50, batches=4)
    manager = CoordinateManager(2)
    key = manager.insert(coordinates).key
    for batch_size in (None, 6):
        manager.batch_size = batch_size
        order, starts, batches, row_batch = manager.segments(key)
        ids = coordinates[:, 0].tolist()
        assert batches.tolist() == (sorted(set(ids)) if batch_size is None else list(range(6)))
        assert sorted(order.tolist()) == list(range(len(ids)))
        for b, (first, last) in enumerate(itertools.pairwise(starts.tolist())):
            assert {ids[row] for row in order[first:last]} <= {batches[b].item()}
            assert last - first == ids.count(batches[b].item())
        assert [batches[b].item() for b in row_batch] == ids


def test_a_copied_manager_is_independent():
    x = SparseTensor(features(len(voxels())), voxels())
    F.pool(x, "sum", kernel=2, stride=2)
    other = copy.deepcopy(x.coordinate_manager)
    maps = len(x.coordinate_manager)
    other.insert(torch.tensor([[0, 0, 0]]))
    assert len(x.coordinate_manager) == maps == len(other) - 1


def test_a_manager_without_maps_can_be_shared():
    """It is empty, and so false: no reason to make another."""
    manager = CoordinateManager(2)
    x = SparseTensor(torch.zeros(1, 1), torch.zeros(1, 3).int(), coordinate_manager=manager)
    assert x.coordinate_manager is manager


def test_its_text_names_the_maps():
    x = SparseTensor(features(len(voxels())), voxels())
    F.pool(x, "sum", kernel=2, stride=2)
    text = repr(x.coordinate_manager)
    assert "2D" in text and f"stride (1, 1): {len(x)}" in text and "stride (2, 2): " in text and "1 kernel map" in text


def test_large_kernels_hold_existing_pairs_only():
    """48^3 offsets and three voxels: lists of a few rows."""
    coordinates = torch.tensor([[0, 1, 2, 3], [0, 47, 0, 47], [1, 48, 5, 100]])
    manager = CoordinateManager(3)
    key = manager.insert(coordinates).key
    coarse = manager.stride(key, 48)
    made = manager.kernel_map(key, coarse, Kernel.of(48, 3))
    assert made.volume == 110_592
    index = {0: 1 + 48 * (2 + 48 * 3), 1: 47 + 48 * (0 + 48 * 47), 2: 0 + 48 * (5 + 48 * 4)}
    rows = {c: i for i, c in enumerate(truth.listed(manager.coordinates(coarse)))}
    written = [rows[0, 0, 0, 0], rows[0, 0, 0, 0], rows[1, 48, 0, 96]]
    assert pairs_of(made.forward) == {(i, written[i], index[i]) for i in range(3)}
    assert all(t.numel() < 30 for t in (*made.forward, *made.backward))
    layer = nn.Convolution(1, 2, 48, 48)
    out = layer(SparseTensor(torch.ones(3, 1), coordinates))
    rows = truth.match(out.coordinates, torch.tensor([[0, 0, 0, 0], [1, 48, 0, 96]]))
    kernel = layer.kernel.detach()
    expected = torch.stack([kernel[index[0], 0] + kernel[index[1], 0], kernel[index[2], 0]])
    assert_close(out.features[rows], expected)
    out.features.sum().backward()
    assert layer.kernel.grad.nonzero()[:, 0].unique().tolist() == sorted(index.values())
