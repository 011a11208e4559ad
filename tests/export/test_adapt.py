"""What is exported of a model: maps built again from voxels alone, and modules without voxels."""

import pytest
import torch
from hepops import export
from hepops.export.adapt import adapt
from hepops.sparse import SparseTensor
from hepops.sparse.models import UResNet
from torch import nn


def uresnet(**options):
    torch.manual_seed(0)
    return UResNet(num_input=2, num_classes=5, filters=4, depth=3, reps=1, **options).eval()


@pytest.mark.parametrize("backbone", ["uresnet", "uresnext", "fpn"])
def test_maps_are_built_again_as_the_network_built_them(event, backbone):
    network = uresnet(backbone={"name": backbone, **({"cardinality": 2} if backbone == "uresnext" else {})})
    with torch.no_grad():
        adapted = adapt(network, None)
        assert adapted.names == ("coordinates", "features") and adapted.example[1].shape[1] == 2
        for steps in (30, 1500):
            coordinates, charge = event(steps, seed=steps)
            features = torch.stack([charge, charge.sqrt()], 1)
            expected = network(SparseTensor(features, coordinates)).features
            assert torch.equal(adapted.module(coordinates, features), expected)


def test_an_example_that_does_not_fit_is_refused(event):
    coordinates, charge = event(30)
    for example, message in [
        ((coordinates.float(), charge[:, None]), "coordinates must be integers"),
        ((coordinates, charge[:3, None]), "needs two voxels or more"),
        ((coordinates,), "coordinates and features"),
    ]:
        with pytest.raises(ValueError, match=message):
            adapt(uresnet(), example)
    with pytest.raises(TypeError, match="example must be tensors"):
        adapt(uresnet(), ([1, 2], charge))


class Two(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x, weight):
        y = torch.tanh(self.first(x))
        return self.second(y) * weight[:, None], y.sum(1)


@pytest.mark.slow
def test_a_module_of_plain_tensors_exports_with_its_example(tmp_path):
    torch.manual_seed(1)
    module = Two().train()
    made = export.export(module, tmp_path / "two.pt2", (torch.randn(7, 3), torch.rand(7)), metadata={"doi": "10.1/x"})
    assert module.training  # as it was
    assert made["metadata"] == {"doi": "10.1/x"} and [x["name"] for x in made["outputs"]] == ["output0", "output1"]
    loaded = export.load(tmp_path / "two.pt2", sha256=made["sha256"])
    for n in (1, 2, 100):
        x, weight = torch.randn(n, 3), torch.rand(n)
        with torch.no_grad():
            expected = module(x, weight)
        for mine, theirs in zip(loaded(x, weight), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)  # products of eight numbers in float32
