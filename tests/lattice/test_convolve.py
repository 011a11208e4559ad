import itertools

import pytest
import torch
from core.contract import Contract
from hepops.lattice import convolve
from hepops.lattice.convolve import ACTIVATIONS, formula
from torch.nn import functional as F
from torch.testing import assert_close


class Convolution:
    op = torch.ops.hepops.lattice_convolve.default
    public = staticmethod(convolve)
    sizes = (0, 1, 5, 18)  # one register holds 16 or 8 configurations, fewer are cut into slabs
    large = 3000
    twice = True

    @staticmethod
    def rounding(dtype):
        """Sums over 18 taps, and over 18 configurations of 12 sites: their rounding, where they cancel."""
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}

    @staticmethod
    def sample(size, **at):
        x = torch.randn(size, 2, 4, 3, **at)
        return x, 0.3 * torch.randn(3, 2, 3, 3, **at), torch.randn(3, **at)

    def operands(self, args):
        return *args, ACTIVATIONS.index(self.activation)

    def reference(self, *args):
        return formula(*args, activation=self.activation)

    def function(self, *args):
        return convolve(*args, activation=self.activation)


class TestConvolve(Convolution, Contract):
    activation = None


class TestConvolveLeakyRelu(Convolution, Contract):
    activation = "leaky_relu"


class TestConvolveTanh(Convolution, Contract):
    activation = "tanh"


class TestConvolveSilu(Convolution, Contract):
    activation = "silu"


CASES = [
    # batch, in, out, lattice, kernel
    (3, 2, 5, (7,), (3,)),
    (33, 8, 8, (8, 8), (3, 3)),
    (2, 1, 8, (6, 4), (3, 3)),
    (5, 8, 2, (4, 3, 5), (3, 1, 5)),
    (1, 3, 7, (4, 2, 3, 6), (3, 3, 3, 3)),
    (40, 12, 16, (2, 2), (5, 3)),
    (17, 13, 1, (1, 3), (3, 7)),
    (9, 1, 1, (2, 2, 2, 2), (3, 3, 3, 3)),
]


@pytest.mark.parametrize(("batch", "inputs", "outputs", "shape", "kernel"), CASES)
def test_any_channels_kernel_and_lattice(batch, inputs, outputs, shape, kernel, device, dtype):
    at = {"device": device, "dtype": dtype}
    args = (
        torch.randn(batch, inputs, *shape, **at),
        torch.randn(outputs, inputs, *kernel, **at),
        torch.randn(outputs, **at),
    )
    ours, exact = [a.clone().requires_grad_() for a in args], [a.double().requires_grad_() for a in args]
    y, right = convolve(*ours), formula(*exact)
    G = torch.randn_like(y)
    grads, rights = torch.autograd.grad(y, ours, G), torch.autograd.grad(right, exact, G.double())
    for a, b in zip((y, *grads), (right, *rights), strict=True):
        scale = b.abs().max()  # of sums of up to 2000 terms
        assert_close(a / scale, b / scale, rtol=0, atol=64 * torch.finfo(dtype).eps, check_dtype=False)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_it_is_the_convolution_of_torch(dims):
    x, w, b = torch.randn(5, 3, *[6] * dims).double(), torch.randn(4, 3, *[3] * dims).double(), torch.randn(4).double()
    conv = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    assert_close(convolve(x, w, b), conv(F.pad(x, [1, 1] * dims, mode="circular"), w, b), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("batch", [1, 3, 16, 21])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 4, 3), (4, 2, 2, 4)])
def test_translations_and_batches_do_not_change_a_bit(batch, shape, device, dtype):
    at = {"device": device, "dtype": dtype}
    x, D = torch.randn(batch, 2, *shape, **at), len(shape)
    w, b = torch.randn(3, 2, *[3] * D, **at), torch.randn(3, **at)
    y = convolve(x, w, b, "tanh")
    for mu in range(D):
        assert torch.equal(convolve(x.roll(1, mu + 2), w, b, "tanh"), y.roll(1, mu + 2))
    for config in range(batch):
        assert torch.equal(convolve(x[config : config + 1], w, b, "tanh")[0], y[config])


def test_an_odd_network_is_odd(device, dtype):
    x, w = torch.randn(20, 2, 4, 4, device=device, dtype=dtype), torch.randn(3, 2, 3, 3, device=device, dtype=dtype)
    assert torch.equal(convolve(-x, w, None, "tanh"), -convolve(x, w, None, "tanh"))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_over_the_whole_range(activation, device, dtype):
    """Against double, in units of the last place; NaN stays."""
    a = torch.cat([torch.logspace(-30, 1.9, 500), -torch.logspace(-30, 1.9, 500), torch.tensor([0.0])])
    a = a.to(device, dtype)[None, None]
    y = convolve(a, torch.ones(1, 1, 1, device=device, dtype=dtype), None, activation)
    exact = formula(a.double(), torch.ones(1, 1, 1, device=device).double(), None, activation)
    assert_close(y.double(), exact, rtol=8 * torch.finfo(dtype).eps, atol=1e-38)
    nan = convolve(a * torch.nan, torch.ones(1, 1, 1, device=device, dtype=dtype), None, activation)
    assert nan.isnan().all()


def test_under_vmap_and_vjp():
    x, w = torch.randn(3, 4, 2, 4).double(), torch.randn(3, 2, 3).double()
    batched = torch.func.vmap(lambda x: convolve(x, w, None, "tanh"))(x)
    assert_close(batched, torch.stack([convolve(c, w, None, "tanh") for c in x]), rtol=1e-13, atol=1e-13)


def test_gradients_that_nobody_wants_are_not_computed():
    x, w, b = torch.randn(4, 2, 4), torch.randn(3, 2, 3), torch.randn(3)
    for wanted in itertools.product([False, True], repeat=3):
        args = [a.clone().requires_grad_(g) for a, g in zip((x, w, b), wanted, strict=True)]
        if not any(wanted):
            continue
        full = [a.clone().requires_grad_() for a in (x, w, b)]
        convolve(*args, "silu").sum().backward()
        convolve(*full, "silu").sum().backward()
        for a, f, g in zip(args, full, wanted, strict=True):
            assert a.grad is None if not g else torch.equal(a.grad, f.grad)


@pytest.mark.parametrize(
    ("x", "w", "b", "message"),
    [
        ((4, 2, 4), (3, 2, 2), (3,), "kernel must be odd in every direction"),
        ((4, 2, 4), (3, 1, 3), (3,), r"weight must have shape \(outputs, 2, K_1, ..., K_1\), got \(3, 1, 3\)"),
        ((4, 2, 4), (3, 2, 3), (2,), r"bias must have shape \(3\), got \(2\)"),
        ((4, 2), (3, 2), (3,), r"x must have shape \(B, channels, L_1, ..., L_D\), D = 1 to 4, got \(4, 2\)"),
        ((4, 2, 0), (3, 2, 3), (3,), "extent of 0"),
    ],
)
def test_refuses(x, w, b, message):
    with pytest.raises(ValueError, match=message):
        convolve(torch.zeros(x), torch.zeros(w), torch.zeros(b))


def test_refuses_an_unknown_activation():
    with pytest.raises(ValueError, match="activation must be None, 'leaky_relu', 'tanh' or 'silu', got 'relu6'"):
        convolve(torch.zeros(1, 1, 4), torch.zeros(1, 1, 3), activation="relu6")
