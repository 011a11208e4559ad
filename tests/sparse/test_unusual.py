"""Input that nobody should give, and some that one might."""

import numpy as np
import pytest
import torch
from hepops.sparse import SparseTensor, functional, models, nn, weights
from hepops.sparse.pytree import mark_dynamic


def sparse(channels=2):
    coordinates = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 5, 2], [1, 0, 0]])
    return SparseTensor(torch.arange(4.0 * channels).reshape(4, channels), coordinates)


def test_coordinates_that_the_caller_changes_later_stay_what_they_were():
    c = torch.tensor([[0, 0], [0, 3]])
    x = SparseTensor(torch.ones(2, 1), c)
    c.zero_()
    assert x.coordinates.tolist() == [[0, 0], [0, 3]]
    assert len(nn.MaxPool(3, 3, dimension=1)(x)) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_mean_of_merged_halves_does_not_overflow(dtype):
    largest = torch.finfo(dtype).max / 2
    x = SparseTensor(torch.full((4, 1), largest, dtype=dtype), torch.zeros(4, 2, dtype=torch.int32), duplicates="mean")
    assert x.dtype == dtype
    if dtype == torch.float16:  # a sum of such bfloat16 is beyond float32 too
        assert x.features.item() == torch.tensor(largest, dtype=dtype).item()


def test_from_dense_wants_a_corner_of_its_axes():
    with pytest.raises(ValueError, match=r"min_coordinate must have 1 entries, got \[1, 2\]"):
        functional.from_dense(torch.ones(1, 1, 3), min_coordinate=[1, 2])


@pytest.mark.parametrize(("stride", "factor"), [(3, 2), (1, 2)])
def test_a_transposed_layer_at_coordinates_wants_a_stride_that_divides(stride, factor):
    x = SparseTensor(torch.ones(1, 1), torch.tensor([[0, 0]]), stride)
    layer = nn.ConvolutionTranspose(1, 1, 2, stride=factor, dimension=1)
    with pytest.raises(ValueError, match=rf"must divide the stride \({stride},\).*got \({factor},\)"):
        layer(x, torch.tensor([[0, 0]]))


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_file_that_holds_no_weights(tmp_path, name):
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors")
    (tmp_path / name).write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=f"{name} holds no weights that can be read"):
        weights.load_weights(nn.Linear(1, 1), tmp_path / name)


def test_group_norm_without_its_groups():
    with pytest.raises(ValueError, match="group_norm needs num_groups"):
        models.UResNet(num_classes=2, filters=4, depth=2, norm="group_norm")


def test_all_that_torch_compile_sees_of_a_tensor_is_marked():
    x = SparseTensor(torch.ones(3, 1), torch.tensor([[0, 0], [0, 3], [0, 4]]))
    mark_dynamic((x,))
    for leaf in (x.features, x.coordinates, x.unique_index, x.inverse_mapping):
        assert 0 in leaf._dynamo_weak_dynamic_indices


def test_forward_mode_is_refused_and_not_zero():
    x = sparse()
    layer = nn.Convolution(x.num_channels, 2, 3, dimension=x.dimension)
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(lambda f: layer(x.replace(f)).features, (x.features,), (x.features,))


def test_what_is_no_sparse_tensor_or_does_not_suit_is_refused_by_name():
    x = sparse()
    layer = nn.Convolution(x.num_channels, 2, 3, dimension=x.dimension)
    with pytest.raises(TypeError, match="input must be a SparseTensor, got Tensor"):
        layer(x.features)
    with pytest.raises(ValueError, match="dimension must be 1 to 6, got 7"):
        nn.Convolution(1, 1, 3, dimension=7)
    with pytest.raises(ValueError, match="features must be"):
        x.features = torch.ones(len(x) + 1, 1)
    with pytest.raises(ValueError, match="does not suit features"):
        x.map(lambda f: f[:, :1]) + torch.ones(len(x))
    with pytest.raises(TypeError):
        x + np.ones((len(x), x.num_channels), np.float32)


def test_a_union_made_twice_is_made_once():
    x = sparse()
    y = SparseTensor(x.features[:3], x.coordinates[:3] + 1, coordinate_manager=x.coordinate_manager)
    first, second = x + y, x + y
    assert first.coordinate_map_key == second.coordinate_map_key
    assert torch.equal(first.features, second.features)
