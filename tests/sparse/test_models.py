"""Networks against SPINE's stored answers, and against dense torch networks on full grids."""

import json

import numpy as np
import pytest
import torch
import yaml
from conftest import needs_gpu, shared
from hepops.sparse import SparseTensor, models
from torch.nn.functional import batch_norm, cross_entropy, leaky_relu

SPINE_ACTIVATION = {"name": "lrelu", "negative_slope": 0.33}
SPINE_NORM = {"name": "batch_norm", "eps": 1e-4, "momentum": 0.01}


def state_of(golden):
    return {key[3:]: torch.from_numpy(golden[key]) for key in golden.files if key.startswith("sd/")}


def voxels(n=60, size=12, dimension=3, channels=1, batch=2, dtype=torch.float32):
    """Unique voxels in random row order."""
    place = torch.randperm(batch * size**dimension)[:n]
    columns = [place // size**dimension] + [place // size**a % size for a in range(dimension)]
    return SparseTensor(torch.randn(n, channels, dtype=dtype), torch.stack(columns, 1))


# SPINE's stored UResNet: logits, loss, planes, gradients


@pytest.fixture(scope="module")
def golden():
    return np.load(shared("golden/sparse/spine_uresnet_f8_d5_r2.npz"))


@pytest.fixture(
    scope="module",
    params=[
        ("cpu", torch.float32),
        ("cpu", torch.float64),
        pytest.param(("cuda", torch.float32), marks=needs_gpu),
        pytest.param(("cuda", torch.float64), marks=needs_gpu),
    ],
    ids=["cpu-f32", "cpu-f64", "cuda-f32", "cuda-f64"],
)
def trained(golden, request):
    """The network after one forward and backward pass, what it returned, and the loss."""
    device, dtype = request.param
    network = models.UResNet(json.loads(str(golden["cfg"]))).to(device, dtype)
    network.load_state_dict(state_of(golden))
    x = models.from_table(torch.from_numpy(golden["data"]).to(device, dtype))
    made = network(x, planes=True)
    loss = cross_entropy(made["segmentation"].features, torch.from_numpy(golden["labels"]).to(device))
    loss.backward()
    return network, made, loss.item()


# The stored numbers are float32: in float64 we may differ from them by their rounding, in float32 by both.
def close(ours, stored, tolerance):
    ours, stored = ours.detach().cpu().double(), stored.detach().cpu().double()
    assert ((ours - stored).abs().max() / stored.abs().max().clamp(min=1e-6)).item() < tolerance


def test_uresnet_has_the_keys_and_shapes_of_spines_checkpoint(golden):
    network = models.UResNet(json.loads(str(golden["cfg"])))
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in state_of(golden).items()}


def test_uresnet_makes_spines_logits_and_loss(golden, trained):
    _, made, loss = trained
    close(made["segmentation"].features, torch.from_numpy(golden["logits_train"]), 1e-5)
    assert loss == pytest.approx(float(golden["loss"]), rel=1e-6)


def test_uresnet_makes_spines_planes(golden, trained):
    _, made, _ = trained
    planes = [("enc", made["encoder_tensors"]), ("dec", made["decoder_tensors"])]
    for kind, tensors in planes:
        assert f"{kind}{len(tensors)}_C" not in golden.files
        for i, plane in enumerate(tensors):
            stored = {
                tuple(c): f
                for c, f in zip(golden[f"{kind}{i}_C"].tolist(), torch.from_numpy(golden[f"{kind}{i}_F"]), strict=True)
            }
            assert len(stored) == len(plane)
            close(plane.features, torch.stack([stored[tuple(c)] for c in plane.coordinates.tolist()]), 1e-4)


def test_uresnet_makes_every_gradient_of_spines(golden, trained):
    network, _, _ = trained
    for name, parameter in network.named_parameters():
        close(parameter.grad, torch.from_numpy(golden[f"grad/{name}"]), 1e-4)


def test_uresnet_has_spines_number_of_parameters():
    network = models.UResNet(num_classes=5, filters=32, depth=5, reps=2, norm=SPINE_NORM)
    assert sum(p.numel() for p in network.parameters()) == 10_956_229


# SPINE's stored encoder


def test_encoder_makes_spines_vectors_for_the_right_clusters():
    golden = np.load(shared("golden/sparse/spine_cnn_encoder_f4_d4.npz"))
    encoder = models.ResidualEncoder(filters=4, depth=4, reps=1, coord_conv=True, spatial_size=256, feature_size=16)
    encoder.load_state_dict(state_of(golden))
    table, stored = torch.from_numpy(golden["data"]), torch.from_numpy(golden["out"])
    with torch.no_grad():
        ours = encoder(table)
        # MinkowskiEngine's global average gave rows to the wrong clusters; the set of rows is right.
        nearest = torch.cdist(ours, stored).argmin(1)
        assert sorted(nearest.tolist()) == list(range(13))
        close(ours, stored[nearest], 1e-4)
        encoder.eval()
        together = encoder(table)
        alone = torch.cat([encoder(table[table[:, 0] == cluster]) for cluster in range(13)])
    close(together, alone, 1e-5)


# Dense networks on full grids, independent of everything sparse


def dense_kernel(kernel, sizes):
    """(K, Ci, Co), first axis fastest, to torch's (Co, Ci, *sizes)."""
    D = len(sizes)
    grid = kernel.reshape(*reversed(sizes), *kernel.shape[-2:])
    return grid.permute(D + 1, D, *reversed(range(D)))


class Dense:
    """What a network computes where every voxel exists, by torch's dense convolutions."""

    def __init__(self, dimension, slope):
        self.dimension, self.slope = dimension, slope
        self.conv = [torch.conv1d, torch.conv2d, torch.conv3d][dimension - 1]
        self.up = [torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d][dimension - 1]

    def convolve(self, layer, x):
        if hasattr(layer, "linear"):
            weight = layer.linear.weight
            return self.conv(x, weight.reshape(*weight.shape, *[1] * self.dimension), layer.linear.bias)
        weight = dense_kernel(layer.kernel, layer.kernel_size)
        if layer.is_transposed:
            return self.up(x, weight.transpose(0, 1), stride=layer.stride)
        padding = [
            k // 2 * d if s == 1 else 0 for k, s, d in zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
        ]
        return self.conv(x, weight, stride=layer.stride, padding=padding, dilation=layer.dilation)

    def norm_act(self, norm, x):
        bn = norm.bn
        x = batch_norm(x, None, None, bn.weight, bn.bias, True, 0.0, bn.eps)
        return leaky_relu(x, self.slope)

    def block(self, block, x):
        y = self.convolve(block.conv1, self.norm_act(block.norm1, x))
        y = self.convolve(block.conv2, self.norm_act(block.norm2, y))
        return y + (x if isinstance(block.residual, torch.nn.Identity) else self.convolve(block.residual, x))

    def uresnet(self, network, x):
        encoder, decoder = network.backbone.encoder, network.backbone.decoder
        x = self.convolve(encoder.input_layer, x)
        skips = []
        for blocks, down in zip(encoder.encoding_block, encoder.encoding_conv, strict=True):
            for block in blocks:
                x = self.block(block, x)
            skips.append(x)
            if len(down):
                x = self.convolve(down[2], self.norm_act(down[0], x))
        for i, (up, blocks) in enumerate(zip(decoder.decoding_conv, decoder.decoding_block, strict=True)):
            x = torch.cat([skips[-2 - i], self.convolve(up[2], self.norm_act(up[0], x))], 1)
            for block in blocks:
                x = self.block(block, x)
        return self.convolve(network.linear_segmentation, self.norm_act(network.output[0], x))


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"input_kernel": 5, "dilations": [1, 2, 3], "kernel_size": 3}], ids=["", "wide"]
)
def test_uresnet_is_the_dense_network_on_a_full_grid(dimension, options):
    from hepops.sparse import functional as F

    network = models.UResNet(
        num_classes=3, num_input=2, filters=3, depth=3, reps=2, data_dim=dimension, norm=SPINE_NORM,
        activation=SPINE_ACTIVATION, **options,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    grid = torch.randn(2, 2, *[8] * dimension, dtype=torch.float64)
    expected = Dense(dimension, 0.33).uresnet(network, grid)
    wanted = torch.autograd.grad(expected.square().sum(), list(network.parameters()))

    x = F.from_dense(grid, where=torch.ones(2, *[8] * dimension, dtype=torch.bool))
    order = torch.randperm(len(x))
    logits = network(SparseTensor(x.features[order], x.coordinates[order]))
    rows = expected.movedim(1, -1).reshape(-1, 3)[order]
    close(logits.features, rows, 1e-11)
    got = torch.autograd.grad(logits.features.square().sum(), list(network.parameters()))
    for ours, theirs in zip(got, wanted, strict=True):
        close(ours, theirs, 1e-9)


# Rows


def test_output_rows_are_the_input_rows_in_any_order():
    network = models.UResNet(num_classes=2, filters=2, depth=3, reps=1).double().eval()
    x = voxels(dtype=torch.float64)
    order = torch.randperm(len(x))
    shuffled = network(SparseTensor(x.features[order], x.coordinates[order])).features
    torch.testing.assert_close(shuffled, network(x).features[order], rtol=1e-12, atol=1e-12)


def test_merged_rows_get_back_their_logits():
    network = models.UResNet(num_classes=2, filters=2, depth=2, reps=1).eval()
    x = voxels(20)
    twice = torch.cat([torch.arange(20), torch.randint(20, (15,))])[torch.randperm(35)]
    table = torch.cat([x.coordinates[twice].float(), x.features[twice]], 1)
    y = network(models.from_table(table, duplicates="mean"))
    expected = network(x).features[twice]
    assert len(y) == 20 and y.coordinates.tolist() != x.coordinates.tolist()
    torch.testing.assert_close(y.features[y.inverse_mapping], expected, rtol=1e-4, atol=1e-5)


def test_empty_events_and_empty_tensors_pass():
    network = models.UResNet(num_classes=2, filters=2, depth=3, reps=1).eval()
    nothing = SparseTensor(torch.zeros(0, 1), torch.zeros(0, 4, dtype=torch.int32))
    assert network(nothing).shape == (0, 2)
    encoder = models.ResidualEncoder(filters=2, depth=2, reps=1, feature_size=3).eval()
    x = SparseTensor(torch.ones(1, 1), torch.tensor([[2, 0, 0, 0]]), batch_size=4)
    vectors = encoder(x)
    assert vectors.shape == (4, 3)
    torch.testing.assert_close(vectors[0], encoder.linear.linear.bias)


def test_lattice_phase_moves_events_in_training_only_and_keeps_the_rows():
    network = models.UResNet(num_classes=2, filters=2, depth=3, reps=1, lattice={"period": "auto"})
    x = voxels()
    made = network(x, planes=True)
    shift = made["encoder_tensors"][0].coordinates - x.coordinates
    assert shift[:, 0].eq(0).all() and shift.ge(0).all() and shift.lt(4).all()
    for batch in (0, 1):
        assert shift[x.coordinates[:, 0] == batch].unique(dim=0).shape[0] == 1
    assert made["segmentation"].coordinate_map_key == x.coordinate_map_key
    network.eval()
    assert network(x, planes=True)["encoder_tensors"][0].coordinate_map_key == x.coordinate_map_key


# Options


@pytest.mark.parametrize(
    "options",
    [
        *[{"activation": name} for name in ("none", "relu", "relu6", "prelu", "elu", "selu", "celu", "gelu", "silu")],
        *[{"activation": name} for name in ("tanh", "sigmoid", "softplus", "hardtanh", "mish")],
        *[{"norm": name} for name in ("none", "pixel_norm", "instance_norm", "layer_norm")],
        {"norm": {"name": "group_norm", "num_groups": 2}},
        {"activation": {"provider": "celu", "config": {"alpha": 0.5}}},
        {"bias": True, "ghost": True},
        {"backbone": {"name": "uresnext", "cardinality": 2, "path_dilations": [1, 3]}},
        {"backbone": "senet"},
        {"backbone": "mobilenet"},
        {"backbone": "fpn"},
        *[{"bottleneck": name} for name in ("aspp", "cascade")],
        {"bottleneck": {"name": "spp", "kernel_sizes": [2, 4], "mode": "max"}},
        {"depth": 1},
        {"dimension": 2},
        {"dimension": 4},
    ],
    ids=str,
)
def test_every_option_makes_a_network_that_learns(options):
    """All parameters that the output depends on have a finite gradient, and some of them is not 0."""
    network = models.UResNet(**{"num_classes": 3, "in_channels": 2, "filters": 4, "depth": 2, "reps": 1, **options})
    x = voxels(40, 6, options.get("dimension", 3), 2)
    made = network(x, planes=True)
    assert made["segmentation"].shape == (40, 3)
    total = sum(made[name].features.square().sum() for name in ("segmentation", "ghost") if name in made)
    total.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert sum(bool(p.grad.abs().max() > 0) for p in network.parameters()) > len(list(network.parameters())) // 2


@pytest.mark.parametrize("mode", ["avg", "sum", "max", "conv"])
@pytest.mark.parametrize("coord_conv", [False, True])
def test_encoder_gives_each_cluster_the_vector_it_has_alone(mode, coord_conv):
    encoder = models.ResidualEncoder(
        filters=2, depth=3, reps=1, pool_mode=mode, coord_conv=coord_conv, spatial_size=16, feature_size=5
    ).double().eval()  # fmt: skip
    x = voxels(80, 16, batch=7, dtype=torch.float64)
    x = SparseTensor(x.features, x.coordinates * torch.tensor([1000, 1, 1, 1]))  # cluster numbers are no small ones
    alone = []
    for cluster in x.coordinates[:, 0].unique():
        rows = x.coordinates[:, 0] == cluster
        alone.append(encoder(SparseTensor(x.features[rows], x.coordinates[rows])))
    torch.testing.assert_close(encoder(x), torch.cat(alone), rtol=1e-11, atol=1e-12)


def test_configurations_come_from_dictionaries_files_and_arguments(tmp_path):
    options = {"num_classes": 5, "filters": 8, "depth": 2, "reps": 1, "norm_layer": {"name": "batch_norm", "eps": 1e-3}}
    file = tmp_path / "spine.yaml"
    whole = {"model": {"name": "uresnet", "modules": {"uresnet": options, "uresnet_loss": {"loss": "ce"}}}}
    file.write_text(yaml.safe_dump(whole))
    given = [models.UResNet(options), models.UResNet(file), models.UResNet(str(file)), models.UResNet(**options)]
    assert all(network.config == given[0].config for network in given)
    assert given[0].output[0].bn.eps == 1e-3
    assert models.UResNet(file, filters=4).config.planes == (4, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fliters": 8}, "fliters"),
        ({"filters": 0}, "filters must be at least 1, got 0"),
        ({"depth": 2.5}, "depth must be an integer"),
        ({"dilations": [1, 2, 3]}, "dilations must be one number or 2"),
        ({"activation": "swoosh"}, "swoosh"),
        ({"norm": "bath_norm"}, "bath_norm"),
        ({"backbone": "resunet"}, "resunet"),
        ({"bottleneck": "neck"}, "neck"),
        ({"lattice": {"phase": 1}}, "lattice needs period"),
        ({"in_channels": 1, "num_input": 1}, "num_input is given twice"),
        ({"num_classes": None}, "num_classes"),
        ({"norm": {"eps": 1e-3}}, "needs one name"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        models.UResNet(**{"num_classes": 2, "filters": 2, "depth": 2, "reps": 1, **options})


def test_encoder_refuses_what_it_cannot_pool():
    with pytest.raises(ValueError, match="spatial_size"):
        models.ResidualEncoder(pool_mode="conv")
    with pytest.raises(ValueError, match="pool_mode must be"):
        models.ResidualEncoder(pool_mode="median")
    encoder = models.ResidualEncoder(filters=2, depth=2, reps=1, pool_mode="conv", spatial_size=8, feature_size=2)
    with pytest.raises(ValueError, match="within"):
        encoder(SparseTensor(torch.ones(2, 1), torch.tensor([[0, 0, 0, 0], [0, 9, 0, 0]])))
    with pytest.raises(ValueError, match="data_dim 3"):
        encoder(voxels(dimension=2))
    with pytest.raises(ValueError, match="channels"):
        encoder(voxels(channels=3))


# Fused units against modules one after another


FUSED = [
    {},
    {"activation": "relu", "bias": True},
    {"activation": "none", "norm": {"name": "batch_norm", "affine": False}},
    {"norm": {"name": "batch_norm", "momentum": None}},
    {"norm": {"name": "batch_norm", "track_running_stats": False}},
    {"activation": "elu"},
    {"backbone": "fpn"},
    {"backbone": "senet"},
    {"backbone": "mobilenet"},
    {"bottleneck": "aspp"},
    {"depth": 1},
]


def both_ways(network, x, training):
    """Planes, gradients and running statistics: fused, then module by module from the same state."""
    network.train(training)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    results = []
    for unfused in (False, True):
        network.load_state_dict(state)
        network.zero_grad()
        f = x.features.clone().requires_grad_()
        y = SparseTensor(f, coordinate_map_key=x.coordinate_map_key, coordinate_manager=x.coordinate_manager)
        if unfused:
            with models.unfused():
                made = network(y, planes=True)
        else:
            made = network(y, planes=True)
        planes = [*made["encoder_tensors"], *made["decoder_tensors"], made["segmentation"]]
        weighted = [(p.features * torch.linspace(-1, 2, p.features.numel()).view(p.shape).to(f)).sum() for p in planes]
        torch.stack(weighted).sum().backward()
        grads = {name: p.grad.clone() for name, p in network.named_parameters()} | {"input": f.grad}
        results.append((planes, grads, {k: v.clone() for k, v in network.named_buffers()}))
    return results


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("options", FUSED, ids=str)
def test_fused_units_make_what_the_modules_make_one_after_another(options, training):
    network = models.UResNet(**{"num_classes": 3, "filters": 8, "depth": 3, "reps": 2, **options}).double()
    x = voxels(300, 12, dtype=torch.float64)
    network(x)  # so that the running statistics are not those of the beginning
    (planes, grads, buffers), (planes_, grads_, buffers_) = both_ways(network, x, training)
    for one, other in zip(planes, planes_, strict=True):
        close(one.features, other.features, 1e-11)
    for name, grad in grads_.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-8, atol=1e-8 * float(grad.abs().max()) + 1e-9, msg=name)
    for name, buffer in buffers_.items():
        torch.testing.assert_close(buffers[name], buffer, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("options", FUSED, ids=str)
def test_inference_without_gradients_makes_the_same_planes(options):
    network = models.UResNet(**{"num_classes": 3, "filters": 8, "depth": 3, "reps": 2, **options}).double()
    x = voxels(300, 12, dtype=torch.float64)
    network(x)
    network.eval()
    with torch.no_grad():
        fused, again = network(x, planes=True), network(x)
        with models.unfused():
            plain = network(x, planes=True)
    assert torch.equal(fused["segmentation"].features, again.features)
    for kind in ("encoder_tensors", "decoder_tensors"):
        for one, other in zip(fused[kind], plain[kind], strict=True):
            close(one.features, other.features, 1e-11)
    close(fused["segmentation"].features, plain["segmentation"].features, 1e-11)
    close(fused["final_tensor"].features, plain["final_tensor"].features, 1e-11)


def test_weights_changed_between_two_inferences_count():
    """What was applied ahead of its time for one network does not reach another that reads the same planes."""
    network = models.UResNet(num_classes=3, filters=4, depth=2, reps=1).eval()
    x = voxels(60)
    with torch.no_grad():
        encoded = network.backbone.encoder(x)
        before = network.backbone.decoder(encoded["final_tensor"], encoded["encoder_tensors"])[-1].features
        for parameter in network.backbone.decoder.parameters():
            parameter.add_(0.5)
        after = network.backbone.decoder(encoded["final_tensor"], encoded["encoder_tensors"])[-1].features
        with models.unfused():
            plain = network.backbone.decoder(encoded["final_tensor"], encoded["encoder_tensors"])[-1].features
    assert not torch.allclose(before, after)
    close(after, plain, 1e-5)


def test_hooks_of_modules_within_a_unit_still_run():
    network = models.UResNet(num_classes=3, filters=4, depth=2, reps=1).eval()
    seen = []
    for name, module in network.named_modules():
        if name.endswith(("norm1", "act_fn2", "conv1")):
            module.register_forward_hook(lambda m, i, o, name=name: seen.append(name))
    with torch.no_grad():
        network(voxels(60))
    assert len(seen) == 3 * 3
