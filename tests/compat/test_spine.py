"""SPINE's own networks on this backend, where SPINE is installed; its interface always."""

import importlib
import json
import os
import sys

import hepops.compat.spine as backend
import numpy as np
import pytest
import torch
from conftest import shared
from hepops.sparse import SparseTensor, models

NAMES = [
    "module", "create_tensor", "concatenate", "coordinates", "features", "tensor_stride", "coordinate_map_key",
    "coordinate_manager", "unique_index", "inverse_mapping", "features_at_coordinates",
]  # fmt: skip
OPERATIONS = [
    "Network", "Convolution", "ConvolutionTranspose", "ChannelwiseConvolution", "Linear", "BatchNorm", "InstanceNorm",
    "Dropout", "ReLU", "PReLU", "SELU", "CELU", "LeakyReLU", "ELU", "Tanh", "Sigmoid", "Softplus", "MaxPooling",
    "AvgPooling", "SumPooling", "PoolingTranspose", "GlobalPooling", "GlobalAvgPooling", "GlobalSumPooling",
    "GlobalMaxPooling", "Pruning", "Broadcast", "BroadcastMultiplication",
]  # fmt: skip


def table(n=150, size=16, batch=3, channels=1, dimension=3):
    """Unique voxels in random order, [batch, x, y, ..., features]."""
    place = torch.randperm(batch * size**dimension)[:n]
    columns = [place // size**dimension] + [place // size**a % size for a in range(dimension)]
    return torch.cat([torch.stack(columns, 1).float(), torch.randn(n, channels)], 1)


def tensor(**options):
    rows = table(**options)
    D = options.get("dimension", 3)
    return backend.create_tensor(features=rows[:, D + 1 :], coordinates=rows[:, : D + 1], duplicate_reduction="sum")


# The interface


def test_it_stands_where_spine_looks():
    assert importlib.import_module("spine.model.sparse.backends.hepops") is backend
    assert os.environ["SPINE_SPARSE_BACKEND"] == "hepops"
    assert all(callable(getattr(backend, name)) for name in NAMES)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_a_module_that_can_be_derived_from(operation):
    native = backend.module(operation)
    assert issubclass(type("Wrapper", (native,), {}), torch.nn.Module)


def test_unknown_operations_are_refused():
    with pytest.raises(ValueError, match="Deconvolution"):
        backend.module("Deconvolution")


def test_keys_of_the_state_dicts_are_minkowski_engines():
    convolution = backend.module("Convolution")(2, 4, kernel_size=3, bias=True, dimension=3)
    assert {k: tuple(v.shape) for k, v in convolution.state_dict().items()} == {"kernel": (27, 2, 4), "bias": (1, 4)}
    depthwise = backend.module("ChannelwiseConvolution")(4, kernel_size=3, dimension=2)
    assert {k: tuple(v.shape) for k, v in depthwise.state_dict().items()} == {"kernel": (9, 4)}
    assert list(backend.module("Linear")(2, 4).state_dict()) == ["linear.weight", "linear.bias"]
    assert list(backend.module("BatchNorm")(2).state_dict())[:2] == ["bn.weight", "bn.bias"]
    assert list(backend.module("PReLU")(num_parameters=1, init=0.25).state_dict()) == ["module.weight"]


def test_wrappers_as_spine_makes_them_forward_to_the_native_class():
    """SPINE unwraps its tensor, calls the native forward through a mixin before the native class, wraps the result."""

    class Mixin:
        def initialize(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

        def forward(self, input):
            return ("wrapped", super().forward(input))

    class Wrapper(Mixin, backend.module("Convolution")):
        def __init__(self, *args, **kwargs):
            self.initialize(*args, **kwargs)

    x = tensor()
    layer = Wrapper(1, 2, kernel_size=2, stride=2, dimension=3, kernel_generator=None, expand_coordinates=False)
    name, y = layer(x)
    assert name == "wrapped" and backend.tensor_stride(y) == (2, 2, 2) and layer.stride == (2, 2, 2)


def test_duplicates_are_merged_as_asked_and_the_rows_are_found_again():
    c = torch.tensor([[0, 5, 5], [0, 1, 1], [0, 5, 5], [1, 5, 5]])
    f = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    for rule, expected in [("sum", [4.0, 2, 4]), ("mean", [2.0, 2, 4]), ("first", [1.0, 2, 4])]:
        x = backend.create_tensor(features=f, coordinates=c, tensor_stride=(1, 1), duplicate_reduction=rule)
        assert backend.features(x)[:, 0].tolist() == expected
        assert backend.coordinates(x).tolist() == [[0, 5, 5], [0, 1, 1], [1, 5, 5]]
        assert backend.unique_index(x).tolist() == [0, 1, 3] and backend.inverse_mapping(x).tolist() == [0, 1, 0, 2]
        spread = backend.features_at_coordinates(x, c.float())
        assert torch.equal(spread, backend.features(x)[backend.inverse_mapping(x)])
    with pytest.raises(ValueError, match="duplicates"):
        backend.create_tensor(features=f, coordinates=c)
    with pytest.raises(ValueError, match="median"):
        backend.create_tensor(features=f, coordinates=c, duplicate_reduction="median")
    with pytest.raises(TypeError, match="bogus"):
        backend.create_tensor(features=f, coordinates=c, bogus=1)
    mode = backend.SparseTensorQuantizationMode
    x = backend.create_tensor(features=f, coordinates=c, quantization_mode=mode.MAX_POOL)
    assert backend.features(x)[:, 0].tolist() == [3.0, 2.0, 4.0]
    with pytest.raises(ValueError, match="SPLAT"):
        backend.create_tensor(features=f, coordinates=c, quantization_mode=mode.SPLAT_LINEAR_INTERPOLATION)


def test_features_can_be_replaced_on_known_voxels():
    x = tensor()
    key, manager = backend.coordinate_map_key(x), backend.coordinate_manager(x)
    assert tuple(key.get_tensor_stride()) == (1, 1, 1)
    y = backend.create_tensor(features=2 * x.features, coordinate_map_key=key, coordinate_manager=manager)
    assert torch.equal(y.coordinates, x.coordinates)
    both = backend.concatenate(x, y)
    assert torch.equal(backend.features(both), torch.cat([x.features, 2 * x.features], 1))
    again = backend.create_tensor(features=x.features, coordinates=x.coordinates, coordinate_manager=manager)
    assert (x + again).features.sum() == pytest.approx(2 * float(x.features.sum()), rel=1e-4)


def test_queries_in_half_precision_are_refused_where_they_are_ambiguous():
    x = backend.create_tensor(features=torch.ones(1, 1), coordinates=torch.tensor([[0, 700, 1]]))
    assert backend.features_at_coordinates(x, torch.tensor([[0.0, 700, 1]]).half()).tolist() == [[1.0]]
    with pytest.raises(ValueError, match="bfloat16"):
        backend.features_at_coordinates(x, torch.tensor([[0.0, 700, 1]]).bfloat16())


def test_expanded_coordinates_are_all_that_the_kernel_reaches():
    x = backend.create_tensor(features=torch.ones(1, 1), coordinates=torch.tensor([[0, 10, 20]]))
    layer = backend.module("Convolution")(1, 1, kernel_size=3, expand_coordinates=True, dimension=2)
    y = layer(x)
    assert sorted(y.coordinates[:, 1:].tolist()) == [[a, b] for a in (9, 10, 11) for b in (19, 20, 21)]
    dense = torch.zeros(1, 1, 5, 5)
    dense[0, 0, 2, 2] = 1
    kernel = layer.kernel.reshape(3, 3, 1, 1).permute(3, 2, 1, 0)
    expected = torch.conv2d(dense, kernel, padding=1)
    for (_, a, b), value in zip(y.coordinates.tolist(), y.features[:, 0], strict=True):
        torch.testing.assert_close(value, expected[0, 0, a - 8, b - 18])
    even = backend.module("Convolution")(1, 1, kernel_size=2, expand_coordinates=True, dimension=2)(x)
    assert sorted(even.coordinates[:, 1:].tolist()) == [[9, 19], [9, 20], [10, 19], [10, 20]]
    assert bool((even.features != 0).all())
    up = backend.module("ConvolutionTranspose")(1, 1, kernel_size=2, stride=2, expand_coordinates=True, dimension=2)
    coarse = backend.create_tensor(features=torch.ones(1, 1), coordinates=torch.tensor([[0, 4, 8]]), tensor_stride=2)
    assert sorted(up(coarse).coordinates[:, 1:].tolist()) == [[4, 8], [4, 9], [5, 8], [5, 9]]
    with pytest.raises(ValueError, match="stride 1"):
        backend.module("Convolution")(1, 1, kernel_size=3, stride=2, expand_coordinates=True, dimension=2)


def test_layers_say_what_they_lack():
    with pytest.raises(ValueError, match="dimension must be given"):
        backend.module("Convolution")(1, 1, kernel_size=3)
    with pytest.raises(ValueError, match="kernel_size must be given"):
        backend.module("AvgPooling")(stride=2, dimension=3)
    with pytest.raises(ValueError, match="MEDIAN"):
        backend.module("GlobalPooling")("GLOBAL_MEDIAN")


def test_pools_have_one_row_for_each_event():
    x = tensor(batch=4)
    rows = [x.coordinates[:, 0] == b for b in range(4)]
    for operation, mode, reduce in [
        ("GlobalPooling", None, lambda f: f.mean(0)),
        ("GlobalPooling", "GLOBAL_SUM_POOLING_DEFAULT", lambda f: f.sum(0)),
        ("GlobalAvgPooling", None, lambda f: f.mean(0)),
        ("GlobalSumPooling", None, lambda f: f.sum(0)),
        ("GlobalMaxPooling", None, lambda f: f.amax(0)),
    ]:
        pooled = backend.module(operation)(mode)(x) if mode else backend.module(operation)()(x)
        expected = torch.stack([reduce(x.features[r]) for r in rows])
        torch.testing.assert_close(pooled.features, expected, rtol=1e-5, atol=1e-6)
        assert pooled.coordinates[:, 0].tolist() == [0, 1, 2, 3]


def test_the_command_runs_spines_own_or_says_what_is_needed(monkeypatch):
    ran = []
    script = type("EntryPoint", (), {"load": lambda self: lambda: ran.append(list(sys.argv))})()
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **options: (script,))
    monkeypatch.setattr(sys, "argv", ["spine.py", "--config", "uresnet.yaml"])
    backend.main()
    assert ran == [["spine", "--config", "uresnet.yaml"]]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **options: ())
    with pytest.raises(SystemExit, match="pip install spine"):
        backend.main()


# SPINE itself


def spine(path):
    """A module of SPINE, or a skip where it is not installed."""
    return pytest.importorskip(path, exc_type=ImportError)


CONFIGURATION = {
    "num_input": 1, "filters": 4, "depth": 3, "reps": 1,
    "activation": {"name": "lrelu", "negative_slope": 0.33}, "norm_layer": {"name": "batch_norm", "eps": 1e-4},
}  # fmt: skip
ignore_old_names = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def batch(rows):
    data = spine("spine.data")
    return data.TensorBatch(rows, torch.bincount(rows[:, 0].long()).numpy())


def sorted_table(**options):
    rows = table(**options)
    return rows[rows[:, 0].argsort(stable=True)]  # SPINE's batches have their events one after another


@ignore_old_names
def test_spines_uresnet_makes_its_stored_logits_loss_and_gradients():
    uresnet = spine("spine.model.uresnet")
    golden = np.load(shared("golden/sparse/spine_uresnet_f8_d5_r2.npz"))
    network = uresnet.UResNetSegmentation(json.loads(str(golden["cfg"])))
    network.load_state_dict({k[3:]: torch.from_numpy(golden[k]) for k in golden.files if k.startswith("sd/")})
    rows = torch.from_numpy(golden["data"])
    logits = network(spine("spine.data").TensorBatch(rows, golden["counts"]))["segmentation"].tensor
    torch.testing.assert_close(logits, torch.from_numpy(golden["logits_train"]), rtol=1e-4, atol=1e-4)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(golden["labels"]))
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-6)
    loss.backward()
    for name, parameter in network.named_parameters():
        stored = torch.from_numpy(golden[f"grad/{name}"])
        assert (parameter.grad - stored).abs().max() <= 1e-4 * stored.abs().max(), name


@ignore_old_names
def test_spines_uresnet_gives_merged_rows_their_logits():
    uresnet = spine("spine.model.uresnet")
    network = uresnet.UResNetSegmentation({**CONFIGURATION, "num_classes": 3}).eval()
    rows = sorted_table()
    twice = torch.cat([rows, rows[::3]])
    twice = twice[twice[:, 0].argsort(stable=True)]
    whole = network(batch(twice))["segmentation"].tensor
    merged = models.from_table(twice)
    alone = network(batch(torch.cat([merged.coordinates.float(), merged.features], 1)))["segmentation"].tensor
    torch.testing.assert_close(whole, alone[merged.inverse_mapping], rtol=1e-4, atol=1e-5)


@ignore_old_names
@pytest.mark.parametrize("name", ["UResNet", "UResNeXt", "SENet", "MobileNetV3", "FPN"])
def test_spines_backbones_and_ours_agree_on_one_state_dict(name):
    places = {"UResNet": "uresnet_layers", "UResNeXt": "uresnext", "SENet": "senet", "MobileNetV3": "mobilenet"}
    theirs_class = getattr(spine(f"spine.model.cnn.{places.get(name, 'fpn')}"), name)
    extra = {"UResNeXt": {"cardinality": 4}, "SENet": {"se_ratio": 2}}.get(name, {})
    theirs = theirs_class(dict(CONFIGURATION), **extra).double()
    ours = getattr(models, "UResNetBackbone" if name == "UResNet" else name)(CONFIGURATION, **extra).double()
    ours.load_state_dict(theirs.state_dict())
    rows = sorted_table().double()
    x = models.from_table(rows)
    one, other = theirs(rows), ours(x)
    for planes in ("encoder_tensors", "decoder_tensors"):
        assert len(one[planes]) == len(other[planes])
        for a, b in zip(one[planes], other[planes], strict=True):
            assert torch.equal(a.C, b.coordinates)
            torch.testing.assert_close(b.features, a.F, rtol=1e-10, atol=1e-10)


BLOCKS = [
    ("ConvolutionBlock", "ConvolutionBlock", {"stride": 2}),
    ("ResNetBlock", "ResidualBlock", {}),
    ("ResNetBlock", "ResidualBlock", {"stride": 2, "bias": True}),
    ("ResNetBlock", "ResidualBlock", {"dilation": 32}),
    ("AtrousIIBlock", "AtrousBlock", {}),
    ("ResNeXtBlock", "ResNeXtBlock", {"cardinality": 2, "depth": 2, "kernel_sizes": [3, 5]}),
    ("SPP", "SPP", {"kernel_sizes": [2, 4], "mode": "avg"}),
    ("SPP", "SPP", {"kernel_sizes": [2, 8], "mode": "max"}),
    ("ASPP", "ASPP", {}),
    ("CascadeDilationBlock", "CascadeDilationBlock", {}),
    ("MBConv", "MBConv", {"expand_ratio": 3}),
    ("MBConv", "MBConv", {"expand_ratio": 1, "stride": 2}),
    ("MBResConv", "MBResConv", {}),
    ("MBResConv", "MBResConv", {"stride": 2}),
    ("SEBlock", "SEBlock", {}),
    ("SEResNetBlock", "SEResNetBlock", {"se_ratio": 2}),
    ("SEResNetBlock", "SEResNetBlock", {"stride": 2}),
    ("MBResConvSE", "MBResConvSE", {"se_ratio": 2}),
]


@ignore_old_names
@pytest.mark.parametrize(("theirs", "ours", "options"), BLOCKS, ids=lambda value: str(value))
def test_spines_blocks_and_ours_agree_on_one_state_dict(theirs, ours, options):
    blocks = spine("spine.model.cnn.blocks")
    frontend = spine("spine.model.sparse")
    widths = (4,) if theirs == "SEBlock" else (4, 6)
    one, other = (
        getattr(blocks, theirs)(*widths, **options).double(),
        getattr(models, ours)(*widths, **options).double(),
    )
    other.load_state_dict(one.state_dict())
    rows = sorted_table(channels=4).double()
    x = frontend.SparseTensor(rows[:, 4:], rows[:, :4].int())
    y = models.from_table(rows)
    a, b = one(x), other(y)
    assert torch.equal(a.C, b.coordinates)
    torch.testing.assert_close(b.features, a.F, rtol=1e-10, atol=1e-10)


@ignore_old_names
@pytest.mark.parametrize("mode", ["avg", "sum", "max", "conv"])
@pytest.mark.parametrize("coord_conv", [False, True])
def test_spines_encoder_and_ours_agree_on_one_state_dict(mode, coord_conv):
    encoder = spine("spine.model.cnn.encoder")
    options = {**CONFIGURATION, "pool_mode": mode, "coord_conv": coord_conv, "spatial_size": 16, "feature_size": 8}
    theirs, ours = encoder.SparseResidualEncoder(**options).double(), models.ResidualEncoder(options).double()
    ours.load_state_dict(theirs.state_dict())
    rows = sorted_table(batch=5).double()
    torch.testing.assert_close(ours(rows), theirs(rows), rtol=1e-10, atol=1e-10)


@ignore_old_names
def test_spines_empty_batches_pass():
    frontend = spine("spine.model.sparse")
    uresnet = spine("spine.model.uresnet")
    network = uresnet.UResNetSegmentation({**CONFIGURATION, "num_classes": 3}).eval()
    nothing = spine("spine.data").TensorBatch(torch.zeros(0, 5), np.zeros(2, dtype=int))
    assert network(nothing)["segmentation"].tensor.shape == (0, 3)
    x = frontend.SparseTensor(torch.ones(1, 1), torch.tensor([[1, 0, 0, 0]]), batch_size=3)
    assert frontend.GlobalAvgPooling()(x).F.tolist() == [[1.0]]


@ignore_old_names
def test_spines_point_proposals_train():
    ppn = spine("spine.model.uresnet.ppn")
    network = ppn.UResNetPPN({**CONFIGURATION, "num_classes": 3}, {})
    result = network(batch(sorted_table()))
    assert result["ppn_points"].tensor.shape[0] > 0
    total = result["ppn_points"].tensor.square().sum() + result["segmentation"].tensor.square().sum()
    total.backward()
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    assert grads and all(torch.isfinite(g).all() for g in grads)


@ignore_old_names
@pytest.mark.parametrize("mode", ["standard", "mc_dropout", "evidential"])
def test_spines_bayesian_network_runs(mode):
    uresnet = spine("spine.model.uresnet")
    network = uresnet.BayesianUResNet({**CONFIGURATION, "num_classes": 3, "mode": mode, "num_samples": 2})
    assert network(batch(sorted_table()))["segmentation"].tensor.shape == (150, 3)


def test_sparse_tensors_are_ours():
    assert isinstance(tensor(), SparseTensor)
