import numpy as np
import pytest
import torch
from core.contract import Contract
from hepops.lartpc import trilinear
from torch.testing import assert_close

ORIGIN, SPACING = (-1.0, 2.0, 10.0), (0.5, 0.25, 2.0)
SHAPE = (5, 4, 6)


def grid(**at):
    """x, y, z of the nodes, each (nx, ny, nz)."""
    axes = [torch.tensor(o, **at) + h * torch.arange(n, **at) for o, h, n in zip(ORIGIN, SPACING, SHAPE, strict=True)]
    return torch.meshgrid(*axes, indexing="ij")


def points(n, **at):
    """Inside the grid, and not within 1e-3 of a face between cells, where the slope jumps."""
    cells = torch.tensor([m - 1 for m in SHAPE], **at)
    cell = (torch.rand(n, 3, **at) * cells).floor().minimum(cells - 1)
    inside = cell + 0.05 + 0.9 * torch.rand(n, 3, **at)
    return torch.tensor(ORIGIN, **at) + torch.tensor(SPACING, **at) * inside


class TestTrilinear(Contract):
    op = torch.ops.hepops.trilinear.default
    function = staticmethod(trilinear)
    twice = True

    @staticmethod
    def sample(size, outside="error", **at):
        return torch.randn(3, *SHAPE, **at), points(size, **at), ORIGIN, SPACING, outside

    def samples(self, **at):
        wide = list(self.sample(20, "clamp", **at))
        wide[1] = (3 * wide[1] - 2 * torch.tensor([0.1, 2.4, 14.9], **at)).clone()
        return [self.sample(size, **at) for size in self.sizes] + [tuple(wide)]

    def operands(self, args):
        map, x, origin, spacing, outside = args
        return map, x, *origin, *spacing, ("error", "clamp").index(outside)

    @staticmethod
    def reference(map, x, origin, spacing, outside):
        """grid_sample, which clamps to the border."""
        count = torch.tensor(map.shape[1:], dtype=x.dtype, device=x.device)
        t = (x - torch.tensor(origin, dtype=x.dtype, device=x.device)) / torch.tensor(
            spacing, dtype=x.dtype, device=x.device
        )
        unit = (2 * t / (count - 1) - 1).flip(1)[None, None, None]
        f = torch.nn.functional.grid_sample(map[None], unit, "bilinear", "border", align_corners=True)
        return f[0, :, 0, 0].T

    @staticmethod
    def rounding(dtype):
        eps = torch.finfo(dtype).eps  # a coordinate of 10 in steps of 0.25 loses two digits as a fraction of a cell
        return {"rtol": 200 * eps, "atol": 1000 * eps}


def test_a_linear_function_is_exact(device, dtype):
    x, y, z = grid(device=device, dtype=dtype)
    at = points(200, device=device, dtype=dtype)
    f = trilinear((2 * x - 3 * y + 0.5 * z + 1)[None], at, ORIGIN, SPACING)[:, 0]
    assert_close(f, at @ torch.tensor([2.0, -3.0, 0.5], device=device, dtype=dtype) + 1)


def test_nodes_keep_their_values_up_to_the_last_corner(device):
    x, y, z = grid(device=device, dtype=torch.float64)
    f = torch.randn(2, *SHAPE, device=device, dtype=torch.float64)
    at = torch.stack((x, y, z), -1).reshape(-1, 3)
    assert_close(trilinear(f, at, ORIGIN, SPACING), f.reshape(2, -1).T, rtol=0, atol=1e-14)


def test_forward_and_gradient_of_the_map_are_adjoint(device):
    """<A f, g> = <f, A^T g>: the map's gradient is the transpose of the interpolation."""
    f = torch.randn(2, *SHAPE, device=device, dtype=torch.float64, requires_grad=True)
    g = torch.randn(500, 2, device=device, dtype=torch.float64)
    at = points(500, device=device, dtype=torch.float64)
    out = trilinear(f, at, ORIGIN, SPACING)
    (transposed,) = torch.autograd.grad(out, f, g)
    other = torch.randn_like(f)
    assert_close((trilinear(other, at, ORIGIN, SPACING) * g).sum(), (other * transposed).sum(), rtol=1e-13, atol=1e-12)


def test_beyond_the_grid_it_is_clamped_only_when_asked():
    f = torch.randn(1, *SHAPE, dtype=torch.float64)
    far = torch.tensor([[9.0, 2.3, 11.0]], dtype=torch.float64, requires_grad=True)
    message = r"point 0 has x = 9, outside the grid's -1 to 1"
    with pytest.raises(ValueError, match=message):
        trilinear(f, far, ORIGIN, SPACING)
    value = trilinear(f, far, ORIGIN, SPACING, "clamp")
    edge = torch.tensor([[1.0, 2.3, 11.0]], dtype=torch.float64)
    assert_close(value, trilinear(f, edge, ORIGIN, SPACING))
    (slope,) = torch.autograd.grad(value.sum(), far)
    assert slope[0, 0] == 0 and (slope[0, 1:] != 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_point_that_is_no_number_is_refused(bad):
    f, at = torch.zeros(1, *SHAPE, dtype=torch.float64), torch.tensor([[0.0, bad, 11.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="point 0 has y"):
        trilinear(f, at, ORIGIN, SPACING)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f, x: (f[0], x, ORIGIN, SPACING), ValueError, r"map must be \(C, nx, ny, nz\).*got \(5, 4, 6\)"),
        (lambda f, x: (f[:, :1], x, ORIGIN, SPACING), ValueError, "two nodes or more"),
        (lambda f, x: (f, x[:, :2], ORIGIN, SPACING), ValueError, r"points must be \(N, 3\), got \(3, 2\)"),
        (lambda f, x: (f, x.float(), ORIGIN, SPACING), TypeError, "points has dtype Float"),
        (lambda f, x: (f, x, ORIGIN, (1, 0, 1)), ValueError, "spacing along y must be positive and finite, got 0"),
        (
            lambda f, x: (f, x, ORIGIN, (1, np.inf, 1)),
            ValueError,
            "spacing along y must be positive and finite, got inf",
        ),
        (lambda f, x: (f, x, (1, 2, np.nan), SPACING), ValueError, "origin along z must be finite, got nan"),
        (lambda f, x: (f, x, (1, 2), SPACING), ValueError, r"origin must be three numbers, got \(1, 2\)"),
        (lambda f, x: (f, x, ORIGIN, SPACING, "wrap"), ValueError, r"one of \['error', 'clamp'\], got 'wrap'"),
    ],
)
def test_refuses(change, error, message):
    f, x = torch.zeros(1, *SHAPE, dtype=torch.float64), points(3, dtype=torch.float64)
    with pytest.raises(error, match=message):
        trilinear(*change(f, x))


def test_what_is_clamped_and_no_number_stays_none():
    f = torch.randn(2, *SHAPE, dtype=torch.float64)
    at = torch.tensor([[0.0, 2.3, 11.0], [0.0, np.nan, 11.0], [np.inf, 2.3, 11.0]], dtype=torch.float64)
    value = trilinear(f, at, ORIGIN, SPACING, "clamp")
    assert torch.isfinite(value[[0, 2]]).all() and torch.isnan(value[1]).all()


def test_second_derivatives_where_a_coordinate_is_just_clamped(device):
    """1e-4 of a cell beyond an end: the slope is 0 there, and so are the slope's own derivatives."""
    f = torch.randn(1, *SHAPE, device=device, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[1.0 + 5e-5, 2.3, 11.0]], device=device, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(trilinear(f, x, ORIGIN, SPACING, "clamp").sum(), x, create_graph=True)
    assert slope[0, 0] == 0
    per_map, per_point = torch.autograd.grad(slope[0, 0], (f, x), retain_graph=True)
    assert not per_map.any() and not per_point.any()
    (per_map,) = torch.autograd.grad(slope[0, 1], f)
    assert not per_map[:, :-1].any() and per_map[:, -1].any()  # the nodes on the end's face alone
