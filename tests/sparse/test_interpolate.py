import itertools
import json

import numpy as np
import pytest
import torch
from conftest import shared
from core.contract import Contract, assert_same_bits, differentiable
from hepops.sparse import interpolate
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

axes = pytest.mark.parametrize("D", range(1, 7))


def plain(x, rows, fractions):
    corners = torch.tensor(list(itertools.product((0, 1), repeat=fractions.shape[1])), device=x.device)
    weights = torch.where(corners == 1, fractions[:, None], 1 - fractions[:, None]).prod(2) * (rows >= 0)
    if len(x) == 0:
        return x.sum() + 0 * (fractions.sum(1, keepdim=True) * x.new_zeros(1, x.shape[1]))
    return (weights[..., None] * x[rows.clamp(min=0)]).sum(1)


class TestInterpolate(Contract):
    op = torch.ops.hepops.sparse_interpolate.default
    function = staticmethod(interpolate)
    reference = staticmethod(plain)
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = "must be float16, bfloat16, float32 or float64|fractions must be of floating dtype|rows must be int64"

    @staticmethod
    def sample(size, **at):
        """A third of the corners does not exist; some rows are met by many queries, the last one by none."""
        rows = torch.randint(-1, max(size // 2 - 1, 0), (size, 4), device=at["device"])
        rows = torch.where(torch.rand(size, 4, device=at["device"]) < 0.3, -1, rows)
        return torch.randn(size // 2, 3, **at), rows, torch.rand(size, 2, **at)


class TestInterpolateInThreeDimensions(TestInterpolate, Contract):
    @staticmethod
    def sample(size, **at):
        rows = torch.randint(-1, 5, (size, 8), device=at["device"])
        return torch.randn(5, 20, **at), rows, torch.rand(size, 3, **at)

    large = 10_000
    sizes = (0, 1, 15)

    @staticmethod
    def rounding(dtype):
        """Hundreds of queries meet in one row."""
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}


def test_agrees_with_golden_values(device):
    names = [n for n in json.loads(shared("golden/sparse/index.json").read_text()) if n.endswith("_interp")]
    assert len(names) == 5
    for name in names:
        file = np.load(shared(f"golden/sparse/{name}.npz"))
        row_of = {tuple(c): n for n, c in enumerate(file["coords_in"].tolist())}
        low = np.floor(file["query"][:, 1:]).astype(int)
        batch = file["query"][:, 0].astype(int)
        corners = list(itertools.product((0, 1), repeat=low.shape[1]))
        rows = torch.tensor(
            [
                [row_of.get((int(b), *(c + np.array(j)).tolist()), -1) for j in corners]
                for b, c in zip(batch, low, strict=True)
            ],
            device=device,
        )
        x = torch.tensor(file["feats_in"], device=device, requires_grad=True)
        y = interpolate(x, rows, torch.tensor(file["query"][:, 1:] - low, device=device))
        (grad,) = torch.autograd.grad(y, x, torch.tensor(file["grad_out"], device=device))
        assert_close(y.detach().cpu(), torch.tensor(file["feats_out"]), rtol=1e-10, atol=1e-10)
        assert_close(grad.cpu(), torch.tensor(file["grad_in"]), rtol=1e-10, atol=1e-10)


@axes
@pytest.mark.parametrize("channels", [0, 1, 16, 33])
def test_any_number_of_axes_and_channels(device, D, channels):
    at = {"device": device, "dtype": torch.float64}
    rows = torch.randint(-1, 9, (80, 2**D), device=device)
    args = torch.randn(9, channels, **at), rows, torch.rand(80, D, **at)
    seed = torch.randn(80, channels, **at)
    ours, theirs = (
        torch.autograd.grad(f(*a), (a[0], a[2]), seed) for f in (interpolate, plain) for a in [differentiable(args)]
    )
    assert_close(interpolate(*args), plain(*args), rtol=1e-13, atol=1e-13)
    assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@axes
def test_a_linear_function_is_met_exactly(device, D):
    """Values a + b . corner between all corners give a + b . f; the gradient by f is b."""
    corners = torch.tensor(list(itertools.product((0, 1), repeat=D)), dtype=torch.float64, device=device)
    slope = torch.randn(D, 1, dtype=torch.float64, device=device)
    fractions = torch.rand(50, D, dtype=torch.float64, device=device, requires_grad=True)
    rows = torch.arange(2**D, device=device).expand(50, -1)
    y = interpolate(2 + corners @ slope, rows, fractions)
    assert_close(y, 2 + fractions @ slope, rtol=1e-13, atol=1e-13)
    assert_close(torch.autograd.grad(y.sum(), fractions)[0], slope.T.expand(50, -1), rtol=1e-13, atol=1e-13)


def test_at_a_corner_the_corner_counts_alone(device, dtype):
    x, rows = torch.randn(6, 4, device=device, dtype=dtype), torch.randint(0, 6, (30, 8), device=device)
    for corner in range(8):
        f = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=device, dtype=dtype).expand(30, -1)
        assert_same_bits(interpolate(x, rows, f), x[rows[:, corner]])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_halves_are_summed_in_double_and_rounded_once(device, kind):
    rows, fractions = torch.randint(-1, 40, (300, 8), device=device), torch.rand(300, 3, device=device)
    x, seed = torch.randn(40, 5, device=device).to(kind), torch.randn(300, 5, device=device).to(kind)
    results = []
    for y in (x, x.double()):
        y = y.detach().requires_grad_()
        f = fractions.detach().requires_grad_()
        out = interpolate(y, rows, f)
        results.append((out.detach(), *torch.autograd.grad(out, (y, f), seed.to(y))))
    for ours, exact in zip(*results, strict=True):
        limit = 0.51 * torch.finfo(ours.dtype).eps  # half a step; the weights are float32's
        assert_close(ours.double(), exact.double(), rtol=limit + 1e-6, atol=1e-5)


def test_third_derivatives():
    torch.manual_seed(4)
    rows = torch.randint(-1, 4, (5, 4))
    x, fractions = torch.randn(4, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)

    def slope(x, fractions):
        return torch.autograd.grad((interpolate(x, rows, fractions) ** 3).sum(), (x, fractions), create_graph=True)

    args = differentiable([x, fractions])
    assert gradcheck(slope, args, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(slope, args, atol=1e-8, rtol=1e-6)


def test_only_what_is_asked_for_has_a_gradient(device):
    rows = torch.randint(-1, 4, (5, 2), device=device)
    x, fractions = torch.randn(4, 2, device=device), torch.rand(5, 1, device=device)
    interpolate(x.requires_grad_(), rows, fractions).sum().backward()
    assert x.grad is not None and fractions.grad is None
    interpolate(x.detach(), rows, fractions.requires_grad_()).sum().backward()
    assert fractions.grad.abs().sum() > 0


def test_refuses_what_has_no_meaning():
    x, rows, fractions = torch.rand(3, 2), torch.zeros(4, 8, dtype=torch.int64), torch.rand(4, 3)
    with pytest.raises(ValueError, match=r"rows must be \(4, 8\), got shape \(4, 7\)"):
        interpolate(x, rows[:, :7], fractions)
    with pytest.raises(ValueError, match=r"rows must be in \[-1, 3\), got 3 at \(0, 0\)"):
        interpolate(x, rows + 3, fractions)
    with pytest.raises(ValueError, match=r"rows must be in \[-1, 3\), got -2 at \(0, 0\)"):
        interpolate(x, rows - 2, fractions)
    with pytest.raises(ValueError, match=r"fractions must be \(Q, D\) with D = 1 to 6, got shape \(4, 7\)"):
        interpolate(x, rows, torch.rand(4, 7))
    with pytest.raises(ValueError, match=r"features must be \(N, C\), got shape \(3\)"):
        interpolate(x[:, 0], rows, fractions)
    with pytest.raises(TypeError, match="rows must be int64, got Int"):
        interpolate(x, rows.int(), fractions)
