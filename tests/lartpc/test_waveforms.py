import dataclasses

import pytest
import torch
from core.contract import Contract
from hepops.lartpc import Table, waveforms
from hepops.lartpc.response import builtin_response, table_response
from hepops.lartpc.waveforms import _arguments, collected, lost_by_node, plan, waveforms_and_tangents
from torch.library import opcheck
from torch.testing import assert_close

from .scenes import bin_shares, potential, tick_shares

PITCH, TICK, BINS, REACH, LENGTH, PIXELS = 1.0, 1.0, 4, 1, 12, 7
SETTINGS = {"pitch": PITCH, "tick": TICK, "reach": REACH, "cut": 8.0}  # the Gaussian beyond is below 1e-15


def response_at(velocity, dtype=torch.float64, lead="point"):
    if lead != "table":
        return builtin_response(velocity, PITCH, TICK, reach=REACH, length=LENGTH, dtype=dtype, bins=BINS, lead=lead)
    # linear in the depth between its own ticks, so that its slope with the velocity is exact
    centre = (torch.arange(BINS * 2, dtype=torch.float64) + 0.5) * PITCH / BINS
    z = 0.05 * torch.arange(80, dtype=torch.float64).clamp(min=1e-9)
    phi = potential(centre[:, None, None], centre[None, :, None], z, PITCH / 2)
    table = Table((phi[..., :-1] - phi[..., 1:]).flip(2) / 0.5, 0.5, 0.1, BINS)
    return table_response(table, velocity, TICK, length=LENGTH, dtype=dtype)


def layout_of(nodes, velocity, lead="point", group=None):
    n = nodes.shape[1]
    group = torch.zeros(n, dtype=torch.int64, device=nodes.device) if group is None else group
    pixels = torch.full((n, 2), PIXELS, dtype=torch.int64, device=nodes.device)
    return plan(nodes, group, pixels, velocity, response_at(velocity, lead=lead), **SETTINGS)


def some_nodes(n, device="cpu"):
    """Blurred everywhere, so that all is smooth; a third within the response's reach of the plane."""
    x = torch.rand(10, n, dtype=torch.float64, device=device)
    x[0] = 0.5 + x[0]
    x[1:3] = (1 + 5 * x[1:3]).floor() + 0.05 + 0.9 * x[1:3].frac()  # not where a difference would change the pixel
    x[3] = 0.1 + 20 * x[3]
    x[4] = 0.1 + 0.2 * x[4]
    x[5] = 0.4 + 0.6 * x[5]
    x[6:8] *= 0.4
    x[9] = torch.where(torch.arange(n, device=device) % 3 == 0, 3 * x[9], 12 + 10 * x[9]) + 0.2
    return x


def reference(nodes, velocity, layout, lead="point"):
    """Every node on every pixel in reach, densely, by quadrature; autograd does the rest."""
    charge, u, v, time, sigma, sigma_time, width_u, width_v, width_time, depth = nodes
    rows, total = len(layout.first), layout.total
    low = int(layout.first.min()) - 2 if rows else 0
    high = int((layout.first + layout.offset.diff()).max()) + 2 if rows else 0
    span = torch.arange(-4 * BINS, BINS * (PIXELS + 4))
    wu = bin_shares(u, sigma, width_u, PITCH / BINS, -4 * BINS, len(span))
    wv = bin_shares(v, sigma, width_v, PITCH / BINS, -4 * BINS, len(span))
    wt = tick_shares(time / TICK, sigma_time / TICK, width_time / TICK, low, high - low + LENGTH + 2)

    # phi at the bins' centres, 0 .. LENGTH ticks before the arrival
    size = 2 * BINS
    table = response_at(velocity.detach(), lead=lead)
    if lead == "table":
        phi = table.lead[..., : LENGTH + 1].flip(2)
        phi = phi + table.leadv[..., : LENGTH + 1].flip(2) * (velocity - velocity.detach())
    else:
        centre = (torch.arange(size, dtype=torch.float64) + 0.5) * PITCH / BINS
        z = velocity * TICK * torch.arange(1, LENGTH + 1, dtype=torch.float64)
        pad = (centre < PITCH / 2).double()
        phi = potential(centre[:, None, None], centre[None, :, None], z, PITCH / 2)
        phi = torch.cat([(pad[:, None] * pad)[..., None], phi], 2)

    row_of = torch.arange(rows).repeat_interleave(layout.offset.diff())
    at = torch.arange(total) - layout.offset[row_of] + layout.first[row_of] - low
    dense = []
    for row in range(rows):
        pu, pv = int(layout.pixel_u[row]), int(layout.pixel_v[row])
        reached = ((u / PITCH).floor() - pu).abs() <= REACH
        reached &= ((v / PITCH).floor() - pv).abs() <= REACH
        index = torch.nonzero(reached).squeeze(1)

        def folded(w, pixel):  # bins by their distance from the pixel's centre line
            from_centre = span - pixel * BINS - BINS // 2
            quadrant = torch.where(from_centre < 0, -from_centre - 1, from_centre)
            inside = quadrant < size
            return torch.zeros(len(w), size, dtype=torch.float64).index_add(1, quadrant[inside], w[:, inside])

        share = folded(wu[index], pu)[:, :, None] * folded(wv[index], pv)[:, None, :]
        far = torch.einsum("nxy,xym->nm", share, phi)  # m ticks before the arrival
        made = (depth[index] / (velocity * TICK)).floor().clamp(max=LENGTH).detach()
        start = torch.where(torch.arange(LENGTH + 1)[None, :] <= made[:, None], 1.0, 0.0).double()
        if lead == "point":
            phi0 = potential(u[index] - (pu + 0.5) * PITCH, v[index] - (pv + 0.5) * PITCH, depth[index], PITCH / 2)[
                :, None
            ]
        elif lead == "table":
            j = (depth[index] / table.dz).detach().floor().long().clamp(max=table.potential.shape[2] - 2)
            a, b = table.potential[..., j].permute(2, 0, 1), table.potential[..., j + 1].permute(2, 0, 1)
            local = a + (b - a) * (depth[index] / table.dz - j)[:, None, None]
            local = torch.where(
                (depth[index] > table.dz * (table.potential.shape[2] - 1))[:, None, None],
                table.potential[..., -1],
                local,
            )
            phi0 = (share * local).sum((1, 2))[:, None]
        if lead == "drop":
            induced = far[:, :-1] - far[:, 1:]  # in the tick that ends m before the arrival
        else:  # charge induced until m before the arrival, since it was made
            until = (far - phi0) * start
            induced = until - torch.cat([until[:, 1:], torch.zeros_like(until[:, :1])], 1)
        # what is induced in the tick that ends m ticks before the arrival
        shares = wt[index].unfold(1, high - low, 1)[:, 1 : induced.shape[1] + 1]
        row_current = torch.einsum("n,nm,nmt->t", charge[index], induced, shares)
        dense.append(row_current / TICK)
    if not rows:
        return nodes.new_zeros(0) + 0 * nodes.sum() + 0 * velocity.sum()
    return torch.stack(dense)[row_of, at]


class TestWaveforms(Contract):
    op = torch.ops.hepops.waveforms.default
    public = waveforms
    sizes = (0, 1, 15, 60)
    large = 3000

    @staticmethod
    def function(nodes, velocity, layout, dtype):
        return waveforms(nodes, velocity, response_at(velocity, dtype), layout, **SETTINGS)

    @staticmethod
    def reference(nodes, velocity, layout, dtype):
        on_cpu = dataclasses.replace(layout, **{k: x.cpu() for k, x in vars(layout).items() if torch.is_tensor(x)})
        return reference(nodes.cpu(), velocity.cpu(), on_cpu).to(nodes.device)

    @staticmethod
    def sample(size, device="cpu", dtype=torch.float64):
        nodes, velocity = some_nodes(size, device), torch.tensor(0.11, dtype=torch.float64, device=device)
        return nodes, velocity, layout_of(nodes, velocity), dtype

    def operands(self, args):
        nodes, velocity, layout, dtype = args
        return nodes, velocity, *_arguments(response_at(velocity, dtype), layout, PITCH, TICK, REACH, SETTINGS["cut"])

    @staticmethod
    def rounding(dtype):
        """Of sums of some thousand products of order one."""
        return {"rtol": 1e-10, "atol": 2e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}

    def test_finite_differences(self, device):
        nodes, velocity, layout, dtype = self.sample(4, device=device)
        onto = torch.randn(layout.total, 6, dtype=dtype, device=device)

        def few(nodes, velocity):
            return self.function(nodes, velocity, layout, dtype) @ onto

        args = nodes.requires_grad_(), velocity.requires_grad_()
        assert torch.autograd.gradcheck(few, args, atol=1e-7, rtol=1e-6)

    def test_refuses_other_dtypes(self, device):
        nodes, velocity, layout, _dtype = self.sample(3, device=device)
        response = response_at(velocity)
        for kind in (torch.int64, torch.float16, torch.float32, torch.complex64):
            with pytest.raises(TypeError, match="nodes must be float64"):
                waveforms(nodes.to(kind), velocity, response, layout, **SETTINGS)
        for kind in (torch.int64, torch.float16):
            other = dataclasses.replace(
                response, **{k: x.to(kind) for k, x in vars(response).items() if torch.is_tensor(x)}
            )
            with pytest.raises(TypeError, match=r"r must be .*float32 or float64"):
                waveforms(nodes, velocity, other, layout, **SETTINGS)

    def test_registration(self, device, dtype):
        for size in (0, 7):
            args = self.operands(self.sample(size, device=device, dtype=dtype))
            leaves = [a.detach().requires_grad_() for a in args[:2]]
            opcheck(self.op, (*leaves, *args[2:]))


@pytest.mark.parametrize("lead", ["point", "drop", "table"])
def test_every_lead_against_the_reference(lead):
    nodes, velocity = some_nodes(12), torch.tensor(0.11, dtype=torch.float64)
    layout = layout_of(nodes, velocity, lead)
    seed, results = torch.randn(layout.total, dtype=torch.float64), []
    for f in (
        lambda n, v: waveforms(n, v, response_at(v.detach(), lead=lead), layout, **SETTINGS),
        lambda n, v: reference(n, v, layout, lead),
    ):
        leaves = nodes.clone().requires_grad_(), velocity.clone().requires_grad_()
        values = f(*leaves)
        results.append((values, *torch.autograd.grad(values, leaves, seed, allow_unused=True, materialize_grads=True)))
    assert_close(*results, rtol=1e-10, atol=2e-12)


@pytest.mark.parametrize("lead", ["point", "drop", "table"])
def test_forward_mode_is_reverse_mode(lead):
    """<g, J t> = <J^T g, t>, for each of the five fields that move with the parameters and the velocity."""
    nodes, velocity = some_nodes(40), torch.tensor(0.11, dtype=torch.float64)
    layout, response = layout_of(nodes, velocity, lead), response_at(velocity, lead=lead)
    fields = [0, 3, 4, 5, 8]
    along = torch.zeros(7, 5, 40, dtype=torch.float64)
    for k in range(5):
        along[k, k] = torch.randn(40, dtype=torch.float64)
    along[6] = torch.randn(5, 40, dtype=torch.float64)
    along_v = torch.tensor([0, 0, 0, 0, 0, 1.0, 0.3], dtype=torch.float64)
    leaves = nodes.clone().requires_grad_(), velocity.clone().requires_grad_()
    values = waveforms(*leaves, response, layout, **SETTINGS)
    grad = torch.randn_like(values)
    by_nodes, by_velocity = torch.autograd.grad(values, leaves, grad)
    same, slopes = waveforms_and_tangents(nodes, velocity, along, along_v, response, layout, **SETTINGS)
    assert_close(same, values, rtol=0, atol=1e-14)
    terms = along * by_nodes[fields]
    reverse = terms.sum((1, 2)) + along_v * by_velocity
    assert_close(slopes @ grad, reverse, rtol=1e-12, atol=1e-12 * terms.abs().sum().item())


def test_sharp_nodes():
    """Without blur and extent: linear interpolation in time, one bin, the table as it stands."""
    v = torch.tensor(0.11, dtype=torch.float64)
    nodes = torch.zeros(10, 1, dtype=torch.float64)
    nodes[:, 0] = torch.tensor([2.0, 3.3, 3.6, 40.25, 0, 0, 0, 0, 0, 30.0])
    layout, response = layout_of(nodes, v), response_at(v)
    values = waveforms(nodes, v, response, layout, **SETTINGS)
    row = int(((layout.pixel_u == 3) & (layout.pixel_v == 3)).nonzero())
    window = values[layout.offset[row] : layout.offset[row + 1]]
    r = response.r[0, 0, : LENGTH + 1].clone()  # bins 13 and 14 of four per pixel: those around the centre
    r[0] -= potential(*torch.tensor([-0.2, 0.1, 30.0], dtype=torch.float64), 0.5).item()
    expected = torch.zeros_like(window)
    # the last tick of the response ends a quarter of a tick after tick 40 began
    at = 40 - 1 - LENGTH - int(layout.first[row])
    expected[at : at + LENGTH + 1] += 2.0 * 0.75 * r
    expected[at + 1 : at + LENGTH + 2] += 2.0 * 0.25 * r
    assert_close(window, expected, rtol=0, atol=1e-12)


def test_collects_and_loses_all():
    """Shares of the pixels and what falls beside the plane make up every node, also at corners."""
    nodes, v = some_nodes(200), torch.tensor(0.11, dtype=torch.float64)
    nodes[1:3] = (PIXELS + 0.8) * torch.rand(2, 200, dtype=torch.float64) - 0.4
    layout, pixels = layout_of(nodes, v), torch.full((200, 2), PIXELS)
    plane = {"pitch": PITCH, "bins": BINS, "cut": SETTINGS["cut"]}
    for reach in (1, 4):  # 8 sigma and the extent are 2.6 pixels
        settings = SETTINGS | {"reach": reach}
        layout = plan(nodes, torch.zeros(200, dtype=torch.int64), pixels, v, response_at(v), **settings)
        on, lost = collected(nodes, layout, pixels, reach=reach, **plane)
        beyond = 1e-12 if reach == 4 else 2e-3
        assert_close(on.sum() + lost.sum(), nodes[0].sum(), rtol=beyond, atol=0)
        assert bool((lost >= 0).all()) and 0.01 < lost.sum() / nodes[0].sum() < 0.3
        assert float(lost_by_node(nodes, layout, pixels, reach=reach, **plane).sum()) == pytest.approx(
            lost.sum().item(), rel=1e-14
        )


def test_groups_do_not_meet():
    """Nodes of different events, at the same place and time, are different rows with the same currents."""
    nodes, v = some_nodes(5), torch.tensor(0.11, dtype=torch.float64)
    both = torch.cat([nodes, nodes], 1)
    layout = layout_of(both, v, group=torch.tensor([0] * 5 + [3] * 5))
    values = waveforms(both, v, response_at(v), layout, **SETTINGS)
    assert layout.group.unique().tolist() == [0, 3]
    assert torch.equal(*values.chunk(2))
    assert torch.equal(values.chunk(2)[0], waveforms(nodes, v, response_at(v), layout_of(nodes, v), **SETTINGS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pitch": -1.0}, r"pitch must be positive \[cm\], got -1"),
        ({"tick": 0.0}, r"tick must be positive \[us\], got 0"),
        ({"reach": 17}, r"reach must be 0 to 16 pixels, got 17"),
        ({"reach": -1}, r"reach must be 0 to 16 pixels, got -1"),
        ({"cut": 0.0}, r"cut must be positive \[sigma\], got 0"),
        ({"reach": 2}, r"node_row has shape \(3, 9\), expected 75 numbers"),
    ],
)
def test_refuses(changes, message):
    nodes, velocity, layout, _ = TestWaveforms.sample(3)
    with pytest.raises(ValueError, match=message):
        waveforms(nodes, velocity, response_at(velocity), layout, **(SETTINGS | changes))


def test_refuses_shapes_that_do_not_fit():
    nodes, velocity, layout, _ = TestWaveforms.sample(3)
    response = response_at(velocity)
    with pytest.raises(ValueError, match=r"nodes must be \(10, N\), got \(9, 3\)"):
        waveforms(nodes[:9], velocity, response, layout, **SETTINGS)
    with pytest.raises(ValueError, match="places has shape"):
        waveforms(nodes[:, :2], velocity, response, layout, **SETTINGS)
    with pytest.raises(ValueError, match=r"velocity must hold one number, got shape \(2,?\)"):
        waveforms(nodes, velocity.expand(2), response, layout, **SETTINGS)
    with pytest.raises(ValueError, match=r"1 to 16 tangents, got 17"):
        tangents = (torch.zeros(17, 5, 3, dtype=torch.float64), torch.zeros(17, dtype=torch.float64))
        waveforms_and_tangents(nodes, velocity, *tangents, response, layout, **SETTINGS)
    with pytest.raises(ValueError, match=r"node_tangents must be \(K, 5, N\), got \(2, 5, 4\)"):
        tangents = (torch.zeros(2, 5, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
        waveforms_and_tangents(nodes, velocity, *tangents, response, layout, **SETTINGS)


def test_refuses_absurd_diffusion():
    nodes, velocity, *_ = TestWaveforms.sample(3)
    wide = nodes.clone()
    wide[4] = 5.0
    with pytest.raises(ValueError, match=r"covers \d+ bins, more than 64: is its diffusion right"):
        waveforms(wide, velocity, response_at(velocity), layout_of(wide, velocity), **SETTINGS)
    late = nodes.clone()
    late[5] = 10.0
    with pytest.raises(ValueError, match=r"arrives over \d+ ticks, more than 128: is its diffusion right"):
        waveforms(late, velocity, response_at(velocity), layout_of(late, velocity), **SETTINGS)
