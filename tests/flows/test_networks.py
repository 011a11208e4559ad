"""Networks: what an output may depend on, and what a product keeps."""

import pytest
import torch
from hepops.flows import MADE, MLP, ConvNet, Periodic, ResidualMLP
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close

ACTIVATIONS = ["relu", "leaky_relu", "elu", "tanh", "silu", "gelu", "softplus"]
MODULES = dict(
    relu=nn.ReLU, leaky_relu=nn.LeakyReLU, elu=nn.ELU, tanh=nn.Tanh, silu=nn.SiLU, gelu=nn.GELU, softplus=nn.Softplus
)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_is_its_layers_in_turn(activation, dtype, device):
    network = MLP(3, 5, (16, 8), 2, activation).to(device, dtype)
    x, c = torch.randn(7, 3, dtype=dtype, device=device), torch.randn(7, 2, dtype=dtype, device=device)
    plain = torch.cat([x, c], -1)
    for layer in network.layers:
        plain = layer(plain)
    assert_close(network(x, c), plain)
    assert isinstance(network.layers[1], MODULES[activation])
    assert_close(network(x, c[0])[0], network(x, c)[0])  # a context that broadcasts
    assert_close(network(x[0], c)[3], network(x[:1].expand(7, 3), c)[3])
    assert_close(network(x.view(7, 1, 3), c[:, None])[:, 0], network(x, c))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_has_derivatives(activation):
    network = MLP(2, 3, (5, 4), 1, activation).double()
    x, c = torch.randn(4, 2).double().requires_grad_(), torch.randn(4, 1).double().requires_grad_()
    assert gradcheck(network, (x, c), atol=1e-8, rtol=1e-6)
    assert gradgradcheck(network, (x, c), atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "tanh"])
def test_training_keeps_one_tensor_a_layer(activation):
    network = MLP(3, 5, (64, 64), activation=activation)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    x = torch.randn(100, 3)
    with saved_tensors_hooks(pack, lambda t: t):
        y = network(x)
    assert sum(n for p, n in kept.items() if p not in own) <= 4 * 100 * (3 + 64 + 64) and y.requires_grad


def reach(network, D, P, c=None):
    """Which features' parameters depend on which features, over some points."""
    total = torch.zeros(D, D)
    for x in torch.randn(20, D).double():
        total += torch.func.jacrev(lambda x: network(x, c))(x).view(D, P, D).abs().sum(1).float()
    return total > 0


@pytest.mark.parametrize("order", [None, "reverse", "random", [2, 0, 3, 1]])
@pytest.mark.parametrize("hidden", [(), (16,), (16, 11), (2, 3)])
def test_made_sees_the_features_before_and_no_others(order, hidden):
    network = MADE(4, 3, hidden, order=order, seed=5, activation="tanh").double()
    seen = reach(network, 4, 3)[network.visits][:, network.visits]
    allowed = torch.ones(4, 4).tril(-1).bool()
    assert not (seen & ~allowed).any()
    if hidden != (2, 3):
        assert (seen == allowed).all()


def test_made_gives_context_to_every_feature():
    network = MADE(3, 2, (16, 16), context=2, activation="tanh").double()
    slope = torch.func.jacrev(lambda c: network(torch.randn(3).double(), c))(torch.randn(2).double())
    assert (slope.view(3, 2, 2).abs().sum((1, 2)) > 0).all()


def test_made_stays_autoregressive_when_it_is_trained():
    network = MADE(4, 3, (16, 11)).double()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(50, 4).double()).square().sum().backward()
        optimizer.step()
        for p in network.parameters():  # as an average of weights would change them, without a trace
            p.data += 0.01
    assert not reach(network, 4, 3).triu().any()


@pytest.mark.parametrize("order", [None, "random"])
@pytest.mark.parametrize("degrees", [None, [[2, 0, 1, 3, 3, 1], [0, 3, 2, 1, 1]]])
def test_visits_give_what_one_pass_gives(order, degrees, dtype, device):
    hidden = (16, 11) if degrees is None else (6, 5)
    network = MADE(4, 3, hidden, 2, order, 5, "tanh", degrees).to(device, dtype)
    x, c = torch.randn(7, 4, dtype=dtype, device=device), torch.randn(7, 2, dtype=dtype, device=device)
    for context in (c, c[:1]):
        visit = network.visit(7, context)
        whole = network(x, context.expand(7, 2)).view(7, 4, 3)
        for feature in network.visits:
            assert_close(visit.raw(), whole[:, feature])
            visit.tell(x[:, feature])


def test_residual_blocks_follow_their_formula():
    network = ResidualMLP(2, 3, 8, 2, context=4).double()
    x, c = torch.randn(5, 2).double(), torch.randn(5, 4).double()
    h = network.first(torch.cat([x, c], -1))
    for block in network.blocks:
        h = h + torch.sigmoid(block.gate(c)) * block.second(torch.relu(block.first(torch.relu(h))))
    assert_close(network(x, c), network.last(h))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions_are_periodic(dims):
    network = ConvNet(1, 2, (4,), dims=dims, context=1).double()
    x, c = torch.randn(3, 1, *[4] * dims).double(), torch.randn(3, 1).double()
    y = network(x, c)
    assert y.shape == (3, 2, *[4] * dims)
    assert_close(network(x.roll(1, -1), c), y.roll(1, -1))
    assert_close(network(x[0], c[0]), y[0])


def test_angles_may_turn():
    network = Periodic(MLP(4, 3)).double()
    x = torch.randn(5, 2).double()
    assert_close(network(x), network(x - 2 * torch.pi))
    assert network.last is network.network.last


def test_refuses_by_name():
    with pytest.raises(ValueError, match=r"MLP: activation must be one of relu, .*got 'sine'"):
        MLP(2, 3, activation="sine")
    with pytest.raises(ValueError, match="MLP: outputs must not be negative, got -1"):
        MLP(2, -1)
    with pytest.raises(ValueError, match=r"order must be a permutation of 0 ... 2, got \[0, 0, 1\]"):
        MADE(3, 1, order=[0, 0, 1])
    with pytest.raises(ValueError, match='order must be None, "reverse", "random"'):
        MADE(3, 1, order="sideways")
    with pytest.raises(ValueError, match=r"degrees must be in \[0, 2\]"):
        MADE(3, 1, (2,), degrees=[[0, 3]])
    with pytest.raises(ValueError, match="degrees must be lists of"):
        MADE(3, 1, (2,), degrees=[[0, 1, 2]])
    with pytest.raises(ValueError, match="kernel must be odd, got 4"):
        ConvNet(1, 1, kernel=4)
    with pytest.raises(ValueError, match="dims must be 1, 2 or 3, got 4"):
        ConvNet(1, 1, dims=4)
