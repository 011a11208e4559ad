"""Kernels of other libraries give the same convolution here."""

import pytest
import torch
from hepops.sparse import SparseTensor, models, nn, weights
from hepops.sparse import functional as F

CONV = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
UP = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}
SIZES = [(3,), (2,), (3, 3), (5, 3), (2, 4), (3, 3, 3), (5, 1, 3), (2, 2, 2)]


def full(sizes, channels, n=8):
    """A dense grid, and all of its voxels."""
    grid = torch.randn(2, channels, *[n] * len(sizes), dtype=torch.float64)
    return grid, F.from_dense(grid, where=torch.ones(2, *grid.shape[2:], dtype=torch.bool))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("layout", weights.LAYOUTS)
def test_layouts_turn_into_each_other_and_back(sizes, layout):
    kernel = torch.randn(torch.Size(sizes).numel(), 2, 3)
    for transposed in (False, True):
        there = weights.from_minkowski(kernel, sizes, layout, transposed=transposed)
        assert torch.equal(weights.to_minkowski(there, layout, transposed=transposed), kernel)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_dense_kernel_makes_the_dense_convolution(sizes):
    D, odd = len(sizes), all(k % 2 for k in sizes)
    dense = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[D]
    stride = 1 if odd else sizes
    theirs = dense(2, 3, sizes, stride, padding=tuple(k // 2 if odd else 0 for k in sizes)).double()
    ours = nn.Convolution(2, 3, sizes, stride, bias=True, dimension=D).double()
    report = weights.load_weights(ours, theirs.state_dict(), layout="dense", strict=True)
    assert report.complete and len(report.matched) == 2
    grid, x = full(sizes, 2)
    y = ours(x).dense(shape=None)[0]
    torch.testing.assert_close(y, theirs(grid), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [(2,), (2, 4), (2, 2, 2)], ids=str)
def test_a_dense_transposed_kernel_makes_the_dense_transposed_convolution(sizes):
    D = len(sizes)
    ours = nn.ConvolutionTranspose(3, 2, sizes, sizes, dimension=D).double()
    weight = torch.randn(3, 2, *sizes, dtype=torch.float64)
    weights.load_weights(ours, {"weight": weight}, layout="dense", strict=True)
    _, x = full(sizes, 1)
    coarse = F.pool(x, "avg", kernel=sizes, stride=sizes)
    coarse = coarse.replace(torch.randn(len(coarse), 3, dtype=torch.float64))
    expected = UP[D](coarse.dense()[0], weight, stride=sizes)
    torch.testing.assert_close(ours(coarse).dense()[0], expected, rtol=1e-12, atol=1e-12)


def spconv_tensor(x, grid, batch=2):
    from spconv.pytorch import SparseConvTensor

    return SparseConvTensor(x.features.detach(), x.coordinates.int(), list(grid), batch)


@pytest.mark.parametrize("sizes", [(3, 3, 3), (3, 1, 5), (1, 1, 1)], ids=str)
def test_spconvs_submanifold_layer_gives_what_ours_gives(sizes):
    spconv = pytest.importorskip("spconv.pytorch")
    theirs = spconv.SubMConv3d(2, 3, sizes, bias=True)
    ours = nn.Convolution(2, 3, sizes, bias=True)
    assert str(weights.load_weights(ours, theirs.state_dict(), strict=True)).startswith("2 of 2")
    x = sparse_voxels(2)
    torch.testing.assert_close(ours(x).features, theirs(spconv_tensor(x, [16] * 3)).features, rtol=1e-4, atol=1e-5)
    back = weights.export_state(ours, "spconv")
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.state_dict().items())


def test_spconvs_strided_layer_and_its_inverse_give_what_ours_give():
    spconv = pytest.importorskip("spconv.pytorch")
    down, up = spconv.SparseConv3d(2, 3, 2, 2, bias=False, indice_key="d"), None
    up = spconv.SparseInverseConv3d(3, 2, 2, bias=False, indice_key="d")
    ours = torch.nn.Sequential(nn.Convolution(2, 3, 2, 2), nn.ConvolutionTranspose(3, 2, 2, 2))
    weights.load_weights(
        ours, {f"{i}.weight": m.weight for i, m in enumerate((down, up))}, layout="spconv", strict=True
    )
    x = sparse_voxels(2)
    coarse, theirs = ours[0](x), down(spconv_tensor(x, [16] * 3))
    rows = x.coordinate_manager.find(coarse.coordinate_map_key, theirs.indices * torch.tensor([1, 2, 2, 2]))
    torch.testing.assert_close(coarse.features[rows], theirs.features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours(x).features, up(theirs).features, rtol=1e-4, atol=1e-5)


def sparse_voxels(channels, n=200):
    place = torch.randperm(2 * 16**3)[:n]
    columns = [place // 4096, place % 16, place // 16 % 16, place // 256 % 16]
    return SparseTensor(torch.randn(n, channels), torch.stack(columns, 1))


# State dicts


def network(**options):
    return models.UResNet(**{"num_classes": 3, "filters": 4, "depth": 3, "reps": 1, "bias": True, **options})


@pytest.mark.parametrize("layout", weights.LAYOUTS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_network_goes_out_and_comes_back_in_every_layout(layout, suffix, tmp_path):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    one, other = network(backbone="mobilenet"), network(backbone="mobilenet")
    weights.save_weights(one, tmp_path / f"weights{suffix}", layout=layout)
    report = weights.load_weights(other, tmp_path / f"weights{suffix}", layout=layout, strict=True)
    assert report.complete and report.missing == [] and len(report.matched) == len(one.state_dict())
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_checkpoints_of_parallel_training_are_found_within(tmp_path):
    one, other = network(), network()
    state = {f"module.{name}": value for name, value in one.state_dict().items()}
    torch.save({"state_dict": state, "optimizer": {"lr": 0.1}, "epoch": 3}, tmp_path / "snapshot.ckpt")
    report = weights.load_weights(other, tmp_path / "snapshot.ckpt", strict=True)
    assert report.complete
    assert torch.equal(other.backbone.encoder.input_layer.kernel, one.backbone.encoder.input_layer.kernel)


def test_files_that_would_run_code_are_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"weight": Payload()}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"bad\.pt holds more than tensors: a checkpoint with objects in it"):
        weights.load_weights(network(), tmp_path / "bad.pt")


def test_a_prefix_of_names_is_told_and_helps():
    one, other = network(), network()
    state = {f"net.model.{name}": value for name, value in one.state_dict().items()}
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(
        ValueError, match=r'rename=\{r"\^net\\.model\\.": ""\} would find places for (\d+) of them'
    ) as told:
        weights.load_weights(other, state)  # nothing fits: an error without strict, too
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert f"for {len(state)} of them" in str(told.value)
    assert len(str(told.value).splitlines()) < 32  # the first names, and how many more
    assert weights.load_weights(other, state, rename={r"^net\.model\.": ""}, strict=True).complete

    inner = {name.removeprefix("backbone."): value for name, value in one.state_dict().items()}
    report = weights.load_weights(other, inner)
    assert report.hint.startswith('rename={r"^": "backbone."} would find places for') and report.hint in str(report)


def test_a_source_without_anything_for_the_model_is_an_error_that_names_its_file(tmp_path):
    torch.save({"embedding": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"(?s)weights of .*other\.pt do not fit the model: 0 of .*1 unexpected"):
        weights.load_weights(network(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"got Convolution: give its state_dict\(\)"):
        weights.load_weights(network(), nn.Convolution(1, 1, 3))


def test_the_report_says_what_did_not_fit_and_the_model_keeps_it():
    small, large = network(), network(num_classes=7, ghost=True)
    state = {**small.state_dict(), "something.else": torch.zeros(2)}
    kept = large.linear_segmentation.linear.weight.clone()
    report = weights.load_weights(large, state)
    assert report.unexpected == ["something.else"]
    assert report.missing == ["linear_ghost.linear.weight", "linear_ghost.linear.bias"]
    assert [(a, b) for _, _, a, b in report.mismatched] == [((3, 4), (7, 4)), ((3,), (7,))]
    assert torch.equal(large.linear_segmentation.linear.weight, kept)
    assert torch.equal(large.backbone.encoder.input_layer.kernel, small.backbone.encoder.input_layer.kernel)
    for words in ("something.else", "linear_ghost.linear.weight", "(3, 4), needs (7, 4)", "tensors loaded"):
        assert words in repr(report)


def test_strict_raises_with_the_names_and_changes_nothing():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    del state["output.0.bn.bias"]
    state["extra"] = torch.ones(1)
    with pytest.raises(ValueError, match=r"(?s)output\.0\.bn\.bias.*extra"):
        weights.load_weights(model, state, strict=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_names_can_be_changed_on_the_way():
    one, other = network(), network()
    state = {name.replace("encoding_block", "down").replace("backbone.", ""): v for name, v in one.state_dict().items()}
    rename = {r"^(encoder|decoder)\.": r"backbone.\1.", r"\.down\.": ".encoding_block."}
    assert weights.load_weights(other, state, rename=rename, strict=True).complete
    skipped = weights.load_weights(other, one.state_dict(), rename=lambda name: "" if "decoder" in name else name)
    assert skipped.missing and all("decoder" in name for name in skipped.missing) and not skipped.unexpected


def test_bad_sources_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        weights.load_weights(network(), tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match="no tensors"):
        weights.load_weights(network(), {"a": 1})
    with pytest.raises(ValueError, match="layout must be"):
        weights.load_weights(network(), {}, layout="torchsparse")
    with pytest.raises(ValueError, match="both for"):
        weights.load_weights(nn.Convolution(1, 1, 3), {"kernel": torch.ones(27, 1, 1), "weight": torch.ones(27, 1, 1)})
    with pytest.raises(ValueError, match="no place"):
        cross = nn.Convolution(1, 1, nn.convolution.Kernel((3, 3, 3), shape="cross"))
        weights.export_state(cross, "spconv")
    with pytest.raises(ValueError, match="must be"):
        weights.from_minkowski(torch.zeros(8, 1, 1), (3, 3, 3))
