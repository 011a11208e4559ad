"""SparseTensor, TensorField and CoordinateManager behave as their users expect."""

import pickle

import hepops.compat.minkowski as ME
import hepops.sparse as sparse
import numpy as np
import pytest
import torch
from hepops.compat.minkowski.manager import corners
from torch.testing import assert_close

MODES = ME.SparseTensorQuantizationMode
C = torch.tensor([[0, 0, 0], [0, 1, 2], [0, 1, 2], [1, -3, 4], [0, 0, 0], [0, 5, 5]], dtype=torch.int32)
F = torch.tensor([[1.0, 8.0], [2.0, 7.0], [4.0, 3.0], [5.0, 5.0], [3.0, 9.0], [6.0, 6.0]], dtype=torch.float64)


def unique(n=200, D=3, seed=0, batch=3, extent=12):
    g = torch.Generator().manual_seed(seed)
    c = torch.randint(-extent, extent, (n, D), generator=g)
    c = torch.cat([torch.randint(0, batch, (n, 1), generator=g), c], 1).unique(dim=0)
    return c[torch.randperm(len(c), generator=g)].int()


def tensor(n=200, channels=4, D=3, seed=0, **options):
    c = unique(n, D, seed)
    features = torch.rand(len(c), channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return ME.SparseTensor(features, c, **options)


# Making


def test_the_callers_rows_are_kept():
    x = tensor()
    c = unique()
    assert torch.equal(x.C, c) and x.C.dtype == torch.int32
    assert torch.equal(x.unique_index, torch.arange(len(c))) and torch.equal(x.inverse_mapping, torch.arange(len(c)))
    assert (x.D, x.dimension, x.tensor_stride, len(x)) == (3, 3, [1, 1, 1], len(c))
    assert x.coordinate_map_key.get_key() == ([1, 1, 1], "") and x.coordinate_key == x.coordinate_map_key
    assert isinstance(x, sparse.SparseTensor) and x.size() == x.shape == x.F.shape


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (MODES.RANDOM_SUBSAMPLE, [[1.0, 8.0], [2.0, 7.0], [5.0, 5.0], [6.0, 6.0]]),
        (MODES.UNWEIGHTED_AVERAGE, [[2.0, 8.5], [3.0, 5.0], [5.0, 5.0], [6.0, 6.0]]),
        (MODES.UNWEIGHTED_SUM, [[4.0, 17.0], [6.0, 10.0], [5.0, 5.0], [6.0, 6.0]]),
        (MODES.MAX_POOL, [[3.0, 9.0], [4.0, 7.0], [5.0, 5.0], [6.0, 6.0]]),
    ],
)
def test_duplicates_are_merged_where_the_first_was(mode, expected):
    features = F.clone().requires_grad_()
    x = ME.SparseTensor(features, C, quantization_mode=mode)
    assert x.F.tolist() == expected
    assert x.C.tolist() == [[0, 0, 0], [0, 1, 2], [1, -3, 4], [0, 5, 5]]
    assert x.unique_index.tolist() == [0, 1, 3, 5] and x.inverse_mapping.tolist() == [0, 1, 1, 2, 0, 3]
    assert torch.equal(x.C[x.inverse_mapping], C)
    assert torch.autograd.gradcheck(lambda f: ME.SparseTensor(f, C, quantization_mode=mode).F, (features,))


def test_output_rows_pair_with_shuffled_input_rows():
    """Users write layer(x).F beside x.C, or the rows that they gave, without looking."""
    x = tensor()
    layer = ME.MinkowskiConvolution(4, 3, 3, dimension=3).double()
    shuffle = torch.randperm(len(x))
    y = ME.SparseTensor(x.F[shuffle], x.C[shuffle])
    assert torch.equal(layer(y).C, x.C[shuffle])
    assert_close(layer(y).F, layer(x).F[shuffle], rtol=1e-13, atol=1e-13)


def test_duplicates_keep_their_pairing():
    """The merged output, spread by inverse_mapping, is in the order of the rows that were given."""
    layer = ME.MinkowskiConvolution(2, 3, 3, dimension=2).double()
    x = ME.SparseTensor(F, C, quantization_mode=MODES.UNWEIGHTED_SUM)
    back = layer(x).F[x.inverse_mapping]
    shuffle = torch.tensor([5, 2, 0, 4, 3, 1])
    y = ME.SparseTensor(F[shuffle], C[shuffle], quantization_mode=MODES.UNWEIGHTED_SUM)
    assert_close(layer(y).F[y.inverse_mapping], back[shuffle], rtol=1e-13, atol=1e-13)


def test_the_same_bits_in_every_run_and_for_every_number_of_threads():
    c, f = unique(3000), torch.rand(len(unique(3000)), 8)
    layer, results = ME.MinkowskiConvolution(8, 8, 3, stride=2, dimension=3), []
    threads = torch.get_num_threads()
    for n in (1, 2, 2):
        torch.set_num_threads(n)
        features = f.clone().requires_grad_()
        y = layer(ME.SparseTensor(features, c))
        results.append((y.C, y.F, *torch.autograd.grad(y.F.square().sum(), [features, layer.kernel])))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_real_coordinates_are_floored_and_say_so():
    with pytest.warns(UserWarning, match="floored"):
        x = ME.SparseTensor(torch.rand(2, 1), torch.tensor([[0.0, -0.5], [0.0, 1.5]]))
    assert x.C.tolist() == [[0, -1], [0, 1]] and x.C.dtype == torch.int32
    assert ME.SparseTensor(torch.rand(1, 1), torch.tensor([[0.0, 3.0]])).C.tolist() == [[0, 3]]
    assert ME.SparseTensor(torch.rand(1, 1), torch.tensor([[0, 3]])).C.dtype == torch.int32
    huge = torch.tensor([[0, 2**40]])
    assert torch.equal(ME.SparseTensor(torch.rand(1, 1), huge).C, huge)


def test_requires_grad_and_device():
    x = ME.SparseTensor(torch.rand(1, 1), torch.tensor([[0, 3]]), requires_grad=True, device="cpu")
    assert x.requires_grad and x.F.is_leaf and x.get_device() == -1
    x.requires_grad_(False)
    assert not x.requires_grad


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (lambda: ([[1.0]], C[:1]), TypeError, "features must be a torch.Tensor"),
        (lambda: (torch.rand(3), C[:3]), ValueError, r"features must be \(N, C\)"),
        (lambda: (torch.rand(2, 1), C[:3]), ValueError, "features has 2 rows, coordinates 3"),
        (lambda: (torch.rand(2, 1),), ValueError, "either coordinates or coordinate_map_key"),
        (lambda: (torch.rand(2, 1), np.zeros((2, 3))), TypeError, "coordinates must be a torch.Tensor"),
        (lambda: (torch.rand(2, 1), torch.zeros(2, 1).int()), ValueError, "D = 1 to 6"),
        (lambda: (torch.rand(2, 1), torch.zeros(2, 9).int()), ValueError, "D = 1 to 6"),
        (lambda: (torch.rand(1, 1), torch.tensor([[0.0, torch.nan]])), ValueError, "coordinates"),
        (lambda: (torch.rand(1, 1), C[:1], 0), ValueError, "stride"),
        (lambda: (torch.rand(1, 1), torch.tensor([[0, 1, 2]]), 2), ValueError, "multiples of the stride"),
        (lambda: (F, C, 1, None, None, MODES.NO_QUANTIZATION), ValueError, "2 duplicates"),
        (lambda: (F, C, 1, None, None, MODES.SPLAT_LINEAR_INTERPOLATION), ValueError, "splat"),
        (lambda: (F, C, 1, None, None, 1), TypeError, "quantization_mode"),
        (lambda: (F, C, 1, None, sparse.CoordinateManager(2)), TypeError, "CoordinateManager"),
        (lambda: (F, C, 1, None, ME.CoordinateManager(3)), ValueError, "2 axes, the coordinate_manager 3"),
        (lambda: (F, None, 1, ME.CoordinateMapKey([1, 1])), ValueError, "needs its coordinate_manager"),
        (lambda: (F, None, 1, ME.CoordinateMapKey(3), ME.CoordinateManager(2)), ValueError, "not set"),
        (lambda: (F, None, 1, ME.CoordinateMapKey([1, 1]), ME.CoordinateManager(2)), ValueError, "not in this manager"),
    ],
)
def test_wrong_input_is_refused_by_name(arguments, error, match):
    with pytest.raises(error, match=match):
        ME.SparseTensor(*arguments())


def test_names_of_the_old_version_are_named():
    x = tensor()
    with pytest.raises(AttributeError, match="use coordinate_map_key"):
        _ = x.coords_key
    with pytest.raises(AttributeError, match="use coordinate_manager"):
        _ = x.coords_man


def test_sharing_one_manager():
    x = tensor()
    y = ME.SparseTensor(x.F * 2, coordinate_map_key=x.coordinate_map_key, coordinate_manager=x.coordinate_manager)
    assert torch.equal((x + y).F, x.F * 3) and (x + y).coordinate_map_key == x.coordinate_map_key
    z = ME.SparseTensor(x.F, x.C, coordinate_manager=x.coordinate_manager)
    assert z.coordinate_map_key != x.coordinate_map_key  # same stride, another name
    with pytest.raises(ValueError, match="different coordinate managers"):
        x + tensor(seed=1)


def test_the_global_manager():
    assert ME.sparse_tensor_operation_mode() is ME.SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER
    with pytest.raises(TypeError, match="operation_mode"):
        ME.set_sparse_tensor_operation_mode(1)
    try:
        ME.set_sparse_tensor_operation_mode(ME.SparseTensorOperationMode.SHARE_COORDINATE_MANAGER)
        x, y = tensor(seed=1), tensor(seed=2)
        assert x.coordinate_manager is y.coordinate_manager is ME.global_coordinate_manager()
        assert len(x + y) == len({tuple(c) for c in torch.cat([x.C, y.C]).tolist()})
        ME.clear_global_coordinate_manager()
        assert ME.global_coordinate_manager() is None
        assert tensor().coordinate_manager is not x.coordinate_manager
        ME.set_global_coordinate_manager(x.coordinate_manager)
        assert tensor().coordinate_manager is x.coordinate_manager
    finally:
        ME.clear_global_coordinate_manager()
        ME.set_sparse_tensor_operation_mode(ME.SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER)
    assert tensor().coordinate_manager is not tensor().coordinate_manager


def test_an_empty_tensor():
    x = ME.SparseTensor(torch.zeros(0, 2), torch.zeros(0, 4).int())
    y = ME.MinkowskiConvolution(2, 3, 3, stride=2, dimension=3)(x)
    assert y.shape == (0, 3) and y.C.shape == (0, 4) and y.decomposed_features == []
    assert (x + x).shape == (0, 2)


# Attributes


def test_conversions_are_in_place():
    x = tensor().float()
    assert x.dtype == torch.float32
    y = x.double()
    assert y is x and x.dtype == torch.float64
    x.requires_grad_()
    assert (x * 2).detach().requires_grad is False and x.requires_grad


def test_events_are_told_apart_by_batch_id():
    c = torch.tensor([[3, 1], [0, 1], [3, 0], [0, 2], [1, 5]])
    x = ME.SparseTensor(torch.arange(5.0)[:, None], c)
    assert [f.flatten().tolist() for f in x.decomposed_features] == [[1, 3], [4], [], [0, 2]]
    assert [c.flatten().tolist() for c in x.decomposed_coordinates] == [[1, 2], [5], [], [1, 0]]
    assert [r.tolist() for r in x.decomposition_permutations] == [[1, 3], [4], [], [0, 2]]
    assert x.features_at(3).flatten().tolist() == [0, 2] and x.coordinates_at(3).flatten().tolist() == [1, 0]
    both = x.decomposed_coordinates_and_features
    assert torch.equal(both[0][3], x.coordinates_at(3)) and torch.equal(both[1][3], x.features_at(3))
    assert x.coordinates_and_features_at(2)[1].shape == (0, 1)


def test_features_can_be_set():
    x = tensor()
    x._F = x._F + 1
    assert float(x.F.min()) >= 1
    assert torch.equal(x._C, x.C) and x._D == 3 and x._manager is x.coordinate_manager


# Arithmetic


def test_arithmetic_counts_missing_rows_as_zero():
    a = tensor(seed=1)
    b = ME.SparseTensor(
        torch.rand(len(unique(seed=2)), 4).double(), unique(seed=2), coordinate_manager=a.coordinate_manager
    )
    shape = torch.Size([3, 4, 24, 24, 24])
    corner = torch.tensor([-12, -12, -12], dtype=torch.int32)
    dense = [x.dense(shape, corner)[0] for x in (a, b)]
    for op in (torch.add, torch.sub, torch.mul):
        y = {torch.add: a + b, torch.sub: a - b, torch.mul: a * b}[op]
        assert_close(y.dense(shape, corner)[0], op(*dense))
        assert len(y) == int(((dense[0] != 0) | (dense[1] != 0)).any(1).sum())


def test_arithmetic_with_tensors_and_numbers():
    x = tensor()
    assert torch.equal((x + 1).F, x.F + 1) and torch.equal((2 * x).F, 2 * x.F) and torch.equal((x / 2).F, x.F / 2)
    w = torch.rand(len(x), 1).double()
    assert torch.equal((x * w).F, x.F * w)
    assert torch.equal((1 - x).F, 1 - x.F) and torch.equal((x**2).F, x.F**2)


def test_arithmetic_in_place_keeps_the_object():
    x = tensor()
    alias, before = x, x.F
    x += x * 2
    assert x is alias and torch.equal(x.F, before * 3)
    x -= x
    assert float(x.F.abs().max()) == 0
    with pytest.raises(ValueError, match="different coordinate"):
        x += tensor(seed=3)
    with pytest.raises(TypeError, match="SparseTensor"):
        x += "1"


# Dense


def test_dense_and_back():
    x = tensor()
    with pytest.raises(ValueError, match="negative"):
        x.dense()
    corner = torch.tensor([-12, -12, -12], dtype=torch.int32)
    dense, low, stride = x.dense(min_coordinate=corner)
    assert low.tolist() == [[-12] * 3] and stride.tolist() == [1, 1, 1] and low.dtype == stride.dtype == torch.int32
    c = x.C.long()
    assert torch.equal(dense[c[:, 0], :, c[:, 1] + 12, c[:, 2] + 12, c[:, 3] + 12], x.F)
    assert int((dense != 0).any(1).sum()) == len(x)
    y = ME.to_sparse(dense)
    assert_close(ME.SparseTensor(y.F, y.C).dense(dense.shape)[0], dense)
    with pytest.raises(ValueError, match="outside"):
        x.dense(torch.Size([3, 4, 8, 8, 8]), corner)


def test_dense_of_a_strided_tensor():
    c = torch.tensor([[0, 0, 4], [0, 2, 0], [1, 6, 6]], dtype=torch.int32)
    x = ME.SparseTensor(torch.rand(3, 1), c, tensor_stride=2)
    assert x.dense()[0].shape == (2, 1, 4, 4)
    assert x.dense()[2].tolist() == [2, 2]
    assert x.dense(contract_stride=False)[0].shape == (2, 1, 7, 7)
    assert x.dense(torch.Size([4, 99, 5, 5]))[0].shape == (4, 1, 5, 5)  # channels are the tensor's
    assert torch.equal(x.dense(contract_stride=False)[0][1, :, 6, 6], x.F[2])
    features = x.F.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: ME.SparseTensor(f, c, tensor_stride=2).dense()[0], (features,))


def test_torch_sparse():
    x = ME.SparseTensor(F[[0, 1, 5]], C[[0, 1, 5]])
    s, low, stride = x.sparse()
    assert s.shape == (1, 6, 6, 2) and low.tolist() == [[0, 0]] and stride.tolist() == [1, 1]
    assert torch.equal(s.to_dense().movedim(-1, 1), x.dense()[0])
    assert x.sparse(max_coords=torch.tensor([7, 5]))[0].shape == (1, 8, 6, 2)
    assert torch.equal(x.C, C[[0, 1, 5]])  # MinkowskiEngine shifts the coordinates here
    with pytest.raises(ValueError, match="outside"):
        x.sparse(min_coords=torch.tensor([1, 0]))


# Fields


def field(n=60, seed=0, **options):
    g = torch.Generator().manual_seed(seed)
    c = torch.rand(n, 3, generator=g).double() * 6 - 3
    c[:, 0] = torch.randint(0, 2, (n,), generator=g)
    return ME.TensorField(torch.rand(n, 4, generator=g).double(), c, **options)


@pytest.mark.parametrize("mode", ["UNWEIGHTED_AVERAGE", "UNWEIGHTED_SUM", "RANDOM_SUBSAMPLE", "MAX_POOL"])
def test_a_field_is_merged_as_its_floored_points(mode):
    x = field()
    y = x.sparse(quantization_mode=MODES[mode])
    z = ME.SparseTensor(x.F, x.C.floor().int(), quantization_mode=MODES[mode])
    assert torch.equal(y.C, z.C) and torch.equal(y.F, z.F)
    assert torch.equal(x.inverse_mapping(y.coordinate_map_key), z.inverse_mapping)


def test_slices_go_back_to_the_points_at_any_stride():
    x = field()
    y = x.sparse()
    down = ME.MinkowskiConvolution(4, 3, 3, stride=2, dimension=2).double()
    z = down(y)
    back = z.slice(x)
    assert type(back) is ME.TensorField and back.coordinate_field_map_key == x.coordinate_field_map_key
    place = {tuple(c): f for c, f in zip(z.C.tolist(), z.F.tolist(), strict=True)}
    for c, f in zip(x.C.tolist(), back.F.tolist(), strict=True):
        assert f == place[(int(c[0]), *(int(v // 2) * 2 for v in c[1:]))]
    assert torch.equal(z.cat_slice(x).F, torch.cat([back.F, x.F], 1))
    coarse = x.sparse(tensor_stride=2)
    assert coarse.tensor_stride == [2, 2] and sorted(map(tuple, coarse.C.tolist())) == sorted(map(tuple, z.C.tolist()))
    onto = x.sparse(coordinate_map_key=z.coordinate_map_key)
    assert onto.coordinate_map_key == z.coordinate_map_key and len(onto) == len(z)
    assert_close(onto.F.sum(0), (coarse.F).sum(0))


def test_points_without_a_voxel_slice_to_zero():
    x = field()
    y = x.sparse()
    keep = y.C[:, 1] >= 0
    z = ME.MinkowskiPruning()(y, keep)
    back = z.slice(x)
    outside = x.C[:, 1].floor() < 0
    assert float(back.F[outside].abs().max()) == 0 and float(back.F[~outside].min()) > 0


def test_a_sparse_tensor_slices_to_the_rows_that_made_it():
    x = ME.SparseTensor(F, C, quantization_mode=MODES.UNWEIGHTED_AVERAGE)
    y = ME.MinkowskiLinear(2, 3).double()(x)
    back = y.slice(x)
    assert torch.equal(back.F, y.F[x.inverse_mapping]) and torch.equal(back.C, C.double())
    assert torch.equal(y.cat_slice(x).F, torch.cat([y.F, x.F], 1)[x.inverse_mapping])
    summed = ME.SparseTensor(F, C, quantization_mode=MODES.UNWEIGHTED_SUM)
    with pytest.raises(ValueError, match="UNWEIGHTED_AVERAGE"):
        summed.slice(summed)
    with pytest.raises(TypeError, match="TensorField"):
        y.slice(F)


def test_splat_is_the_adjoint_of_interpolation():
    x = field()
    y = x.splat()
    assert len(y) == len({tuple(c) for c in y.C.tolist()})
    other = y.replace(torch.rand_like(y.F))
    forward = (y.F * other.F).sum()
    back = (x.F * other.interpolate(x).F).sum()
    assert_close(forward, back)
    assert_close(y.F.sum(0), x.F.sum(0))  # weights add to 1
    rows, weights = corners(y.coordinate_manager, y.coordinate_map_key, x.C)
    assert bool((rows >= 0).all())
    assert_close(weights.sum(1), torch.ones(len(x)).double())
    features = x.F.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: ME.TensorField(f, x.C).splat().F, (features,))


def test_fields_add_point_by_point():
    x = field()
    y = x.replace(x.F * 2)
    assert torch.equal((x + y).F, x.F * 3) and torch.equal((y - x).F, x.F) and torch.equal((x * 2).F, y.F)
    assert torch.equal((y / x).F, torch.full_like(x.F, 2))
    assert ME.cat(x, y).shape == (60, 8) and torch.equal(ME.mean(x, y).F, (x.F + y.F) / 2)
    with pytest.raises(ValueError, match="different coordinate"):
        x + field(seed=1)
    assert [len(f) for f in x.decomposed_features] == [int((x.C[:, 0] == b).sum()) for b in (0, 1)]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (lambda: (torch.rand(2, 1), torch.tensor([[0.0, torch.inf], [0.0, 1.0]])), "finite"),
        (lambda: (torch.rand(2, 1), torch.rand(3, 3)), "2 rows, coordinates 3"),
        (lambda: (torch.rand(2, 1),), "either coordinates"),
        (lambda: (torch.rand(2, 1), torch.rand(2, 3), 1, None, None, MODES.NO_QUANTIZATION), "quantization_mode"),
        (lambda: (torch.rand(2, 1), None, 1, ME.CoordinateMapKey([1]), ME.CoordinateManager(1)), "not in this manager"),
    ],
)
def test_wrong_fields_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        ME.TensorField(*arguments())
    with pytest.raises(ValueError, match="splat"):
        field().sparse(quantization_mode=MODES.SPLAT_LINEAR_INTERPOLATION)


# Keys and managers


def test_keys():
    key = ME.CoordinateMapKey([2, 4], "a")
    assert key == ME.CoordinateMapKey([2, 4], "a") != ME.CoordinateMapKey([2, 4])
    assert hash(key) == hash(sparse.CoordinateMapKey((2, 4), "a")) and key == sparse.CoordinateMapKey((2, 4), "a")
    assert {key: 1}[sparse.CoordinateMapKey((2, 4), "a")] == 1
    assert repr(key) == "coordinate map key:[2, 4]:a" and key.get_tensor_stride() == [2, 4]
    unset = ME.CoordinateMapKey(3)
    assert not unset.is_key_set() and unset != unset.__class__(3) and unset.get_coordinate_size() == 3
    unset.set_key([2, 4], "a")
    assert unset == key and pickle.loads(pickle.dumps(key)) == key
    with pytest.raises(ValueError, match="not set"):
        ME.CoordinateMapKey(3).get_key()
    with pytest.raises(ValueError, match="2 entries"):
        ME.CoordinateMapKey(3).set_key([1, 1, 1])


def test_kernel_maps_list_the_pairs():
    x = tensor(D=2)
    cm = x.coordinate_manager
    out = cm.stride(x.coordinate_map_key, 2)
    for kernel, options in [(3, {}), ([2, 3], {}), (5, {"region_type": 1}), (3, {"dilation": 2})]:
        found = cm.kernel_map(x.coordinate_map_key, out, stride=2, kernel_size=kernel, **options)
        region = ME.RegionType(options.get("region_type", 0))
        generator = ME.KernelGenerator(kernel, 2, options.get("dilation", 1), region_type=region, dimension=2)
        offsets = generator.kernel.table()
        place = {tuple(c): i for i, c in enumerate(x.C.tolist())}
        expected = {}
        for k, offset in enumerate(offsets.tolist()):
            for o, (b, *c) in enumerate(cm.get_coordinates(out).tolist()):
                i = place.get((b, *(v + d for v, d in zip(c, offset, strict=True))))
                if i is not None:
                    expected.setdefault(k, set()).add((i, o))
        assert {k: set(zip(*v.tolist(), strict=True)) for k, v in found.items()} == expected
        assert all(v.dtype == torch.int32 and v.shape[0] == 2 for v in found.values())
        back = cm.kernel_map(out, x.coordinate_map_key, stride=2, kernel_size=kernel, is_transpose=True, **options)
        assert {k: set(zip(*v.flip(0).tolist(), strict=True)) for k, v in back.items()} == expected
    pool = cm.kernel_map(x.coordinate_map_key, out, 2, 2, is_pool=True)
    assert list(pool) == [0] and pool[0].shape == (2, len(x))
    with pytest.warns(DeprecationWarning, match="kernel_map"):
        assert len(cm.get_kernel_map(x.coordinate_map_key, x.coordinate_map_key, kernel_size=1)) == 1


def test_maps_between_maps():
    x = tensor(D=2)
    cm = x.coordinate_manager
    half = cm.stride(x.coordinate_map_key, [2, 2])
    assert half.get_tensor_stride() == [2, 2] and cm.stride(x.coordinate_map_key, 2) == half
    rows, coarse = cm.stride_map(x.coordinate_map_key, half)
    assert torch.equal(rows, torch.arange(len(x)))
    c = cm.get_coordinates(half)[coarse]
    assert torch.equal(c[:, 1:], torch.div(x.C[:, 1:], 2, rounding_mode="floor") * 2) and torch.equal(
        c[:, 0], x.C[:, 0]
    )
    other, _ = cm.insert_and_map(unique(D=2, seed=5), 1, "other")
    assert other.get_key() == ([1, 1], "other")
    out = ME.CoordinateMapKey(3)
    first, second = cm.union_map([x.coordinate_map_key, other], out)
    merged = cm.get_coordinates(out)
    assert torch.equal(merged[first[1]], x.C[first[0]]) and torch.equal(merged[second[1]], cm.get_coordinates(other))
    with pytest.raises(ValueError, match="must not be set"):
        cm.union_map([x.coordinate_map_key, other], out)
    assert cm.get_coordinates(2) is cm.get_coordinates(half)
    with pytest.raises(ValueError, match="no coordinate map"):
        cm.get_coordinates(16)
    fresh = cm.get_unique_coordinate_map_key([2, 2])
    assert fresh.get_tensor_stride() == [2, 2] and fresh.native not in cm.maps
    assert cm.get_coordinate_map_keys(1)[:2] == [x.coordinate_map_key, other]


def test_unions_of_different_strides_have_the_smallest():
    x = tensor(D=2)
    y = ME.MinkowskiConvolution(4, 4, 2, stride=2, dimension=2).double()(x)
    z = ME.MinkowskiUnion()(x, y)
    assert z.tensor_stride == [1, 1]
    assert len(z) == len({tuple(c) for c in torch.cat([x.C, y.C]).tolist()})
    assert_close(z.F.sum(0), x.F.sum(0) + y.F.sum(0))


def test_origins_and_fields_of_a_manager():
    x = tensor()
    cm = x.coordinate_manager
    assert cm.number_of_unique_batch_indices() == 3
    assert cm.get_coordinates(cm.origin()).tolist() == [[b, 0, 0, 0] for b in range(3)]
    assert cm.origin() == ME.MinkowskiGlobalSumPooling()(x).coordinate_map_key == cm.origin_field()
    ids, rows = cm.origin_map(x.coordinate_map_key)
    assert ids.tolist() == [0, 1, 2] and all(bool((x.C[r, 0] == b).all()) for b, r in enumerate(rows))
    key = cm.insert_field(torch.rand(5, 4), 1)
    assert cm.size(cm.insert_field(torch.rand(7, 4), 1)) == 7 and cm.get_coordinate_field(key).shape == (5, 4)
    made, (first, inverse) = cm.field_to_sparse_insert_and_map(key, 1)
    assert cm.exists_field_to_sparse(key, made) and cm.field_to_sparse_keys(key) == [made]
    assert all(torch.equal(a, b) for a, b in zip(cm.get_field_to_sparse_map(key, made), (first, inverse), strict=True))
    assert torch.equal(cm.field_to_sparse_map(key, made)[0], inverse)
    with pytest.raises(ValueError, match="was not put"):
        cm.get_field_to_sparse_map(key, x.coordinate_map_key)
    assert len(cm.origin_field_map(key)[1]) == int(cm.get_coordinate_field(key)[:, 0].round().max()) + 1
    assert "voxels" in repr(cm)


def test_interpolation_maps():
    x = tensor(D=2)
    q = torch.tensor([[0.0, 0.5, 0.25], [1.0, -1.0, 2.0]]).double()
    read, written, weights = x.coordinate_manager.interpolation_map_weight(x.coordinate_map_key, q)
    values = torch.zeros(2, 4).double().index_add(0, written, weights[:, None] * x.F[read])
    assert_close(values, x.features_at_coordinates(q))
    value, (rows, samples), w = ME.MinkowskiInterpolation(True, True)(x, q)
    assert_close(value, values)
    assert torch.equal(rows, read) and torch.equal(samples, written) and torch.equal(w, weights)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda cm: ME.CoordinateManager(), "D must be 1 to 6"),
        (lambda cm: cm.origin(), "no coordinates yet"),
        (lambda cm: cm.insert_and_map(torch.zeros(2, 5).int()), r"\(N, 3\)"),
        (lambda cm: cm.insert_field(torch.zeros(2, 5), 1), r"\(N, 3\)"),
        (lambda cm: cm.size(ME.CoordinateMapKey([1, 1])), "not in this manager"),
        (lambda cm: cm.get_coordinate_field(1), "not in this manager"),
    ],
)
def test_managers_refuse(call, match):
    with pytest.raises(ValueError, match=match):
        call(ME.CoordinateManager(2))
