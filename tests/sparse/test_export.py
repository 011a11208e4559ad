"""torch.export of networks on sparse tensors, for any number of voxels."""

import pytest
import torch
from hepops.sparse import SparseTensor, models, nn
from hepops.sparse.pytree import dynamic_shapes


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            nn.Convolution(1, 4, 3),
            nn.BatchNorm(4),
            nn.ReLU(),
            nn.Convolution(4, 8, 2, stride=2, bias=True),
            nn.ConvolutionTranspose(8, 2, 2, stride=2),
        )

    def forward(self, x):
        return self.layers(x).features


class Logits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = models.UResNet(num_classes=2, filters=4, depth=2, reps=1)

    def forward(self, x):
        return self.network(x).features


def event(network, voxels, seed):
    """An event of a batch, with the maps that the network wants."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.unique(torch.randint(0, 12, (voxels, 4), generator=generator) % torch.tensor([2, 12, 12, 12]), dim=0)
    x = SparseTensor(torch.randn(len(c), 1, generator=generator), c)
    network(x)
    return x


@pytest.mark.parametrize("kind", [Small, Logits])
def test_an_exported_network_takes_events_of_other_sizes(kind):
    torch.manual_seed(0)
    network = kind().eval()
    x = event(network, 300, seed=1)
    exported = torch.export.export(network, (x,), dynamic_shapes=(dynamic_shapes(x),)).module()
    for voxels in (300, 900, 40):
        y = event(network, voxels, seed=voxels)
        torch.testing.assert_close(exported(y), network(y), rtol=1e-6, atol=1e-6)


def test_dynamic_shapes_of_what_holds_a_sparse_tensor():
    x = SparseTensor(torch.ones(1, 1), torch.zeros(1, 4, dtype=torch.int32))
    free = {0: torch.export.Dim.DYNAMIC}
    shapes = dynamic_shapes({"x": x, "weights": [torch.ones(3), torch.tensor(1.0)], "flag": True})
    assert shapes["x"][0] == free and isinstance(shapes["x"][1], list)
    assert shapes["weights"] == [free, None] and shapes["flag"] is None
