"""The far field, against the exact weighting potential of pads between an anode and a cathode."""

import pytest
import torch
from hepops.lartpc import TPC, Parameters, Simulator, velocity
from hepops.lartpc.dipole import TICKS, far_field, far_plan
from torch.testing import assert_close

from .scenes import MODULE0, assert_same, changed, differentiable, potential, segments
from .test_response import analytic_table

PITCH = MODULE0.pixel_pitch
V = velocity(0.5)
# One small drift volume: 61 x 61 pixels, 5 cm of drift, so that the plane ends where nothing is induced any more.
HALF = 61 * PITCH / 2
SMALL = MODULE0.replace(
    tpcs=(TPC(anode=0.0, cathode=5.0, y=(-HALF, HALF), z=(-HALF, HALF), ny=61, nx=61),), name="small"
)


def exact(x, y, z, L, images=200):
    """Pad in the anode, grounded cathode at L: the plane's own potential, odd in z, at z + 2 n L."""
    x, y, z = torch.broadcast_tensors(*(torch.as_tensor(t, dtype=torch.float64) for t in (x, y, z)))
    total = potential(x, y, z, PITCH / 2)
    for n in range(1, images + 1):
        total = total + potential(x, y, z + 2 * n * L, PITCH / 2) - potential(x, y, 2 * n * L - z, PITCH / 2)
    return total


def simulator(detector=SMALL, far_field=8, lifetime=1e9, **options):
    options = {"dtype": torch.float64, "reach": 2, "length": 30} | options
    parameters = Parameters(lifetime=lifetime, transverse_diffusion=0.0, longitudinal_diffusion=0.0)
    return Simulator(detector, parameters, far_field=far_field, **options)


def at(x, y=0.05, z=-0.03, **changes):
    return segments([[x, y, z]], **changes)


def positions(waves, y=0.05, z=-0.03):
    """From the centre of every row's pad to the point, along z and y."""
    return z - ((waves.ix + 0.5) * PITCH - HALF), y - ((waves.iy + 0.5) * PITCH - HALF)


def far_rows(waves, reach=2):
    centre = 30
    return ((waves.ix - centre).abs() > reach) | ((waves.iy - centre).abs() > reach)


@pytest.mark.parametrize("depth", [0.3, 1.0, 2.5, 4.9])
def test_every_far_pad_ends_with_the_potential_where_the_charge_was_made(depth):
    """Charge -phi(z0): from 2.4 pitches on to 0.2 % of the largest that any far pad ever has."""
    sim = simulator()
    with torch.no_grad():
        waves, q = sim.waveforms(at(depth)), sim.drift(at(depth)).electrons
    far = far_rows(waves)
    assert far.sum() == 17**2 - 5**2
    ours, theirs = waves.charge[far] / q, -exact(*positions(waves), depth, 5.0)[far]
    nearest = float(exact(2.5 * PITCH, 0.0, torch.linspace(0.1, 4.9, 49), 5.0).max())  # what a far pad sees at most
    assert float((ours - theirs).abs().max()) < 2e-3 * nearest
    third = (torch.maximum((waves.ix - 30).abs(), (waves.iy - 30).abs()) > 3)[far]
    assert float((ours - theirs).abs()[third].max()) < 5e-4 * nearest  # from 3.4 pitches on


def test_far_current_is_that_of_the_exact_potential_at_every_edge_of_the_coarse_bins():
    depth = 3.0
    sim = simulator()
    with torch.no_grad():
        waves, drifted = sim.waveforms(at(depth)), sim.drift(at(depth))
    far = far_rows(waves)
    dense = (waves.values * waves.tick).reshape(len(waves), -1)[far]
    sums = dense.reshape(len(dense), -1, TICKS).sum(2).cumsum(1) / drifted.electrons
    edge = (waves.first_tick[0] + TICKS * torch.arange(1, sums.shape[1] + 1)) * waves.tick
    z = (V * (drifted.time - edge)).clamp(1e-12, depth)  # at 0 their form divides by it
    x, y = (p[far][:, None] for p in positions(waves))
    theirs = exact(x, y, z[None], 5.0) - exact(x, y, depth, 5.0)
    assert float((sums - theirs).abs().max()) < 3e-3 * float(theirs.abs().max())
    assert float(sums.max()) > 0  # first the one sign, then the other
    assert float(sums[:, -1].max()) < 0


@pytest.mark.parametrize("depth", [1.0, 2.5, 4.0])
def test_all_pads_together_see_the_charge_cross_the_gap(depth):
    """z0 / L: what one large electrode would see. The near field knows no cathode; its 25 pads' images are added here.

    Without the far field half of it is missing or made up.
    """
    with torch.no_grad():
        q = simulator().drift(at(depth)).electrons
        waves, near = (simulator(far_field=f).waveforms(at(depth)) for f in (30, 0))
    x, y = positions(near)
    images = (exact(x, y, depth, 5.0) - potential(x, y, torch.tensor(depth).double(), PITCH / 2)).sum()
    assert (waves.charge.sum() / q - images).item() == pytest.approx(depth / 5.0, abs=2e-3)
    assert abs((near.charge.sum() / q - images).item() - depth / 5.0) > 0.05


def test_the_near_field_is_left_as_it_is():
    with torch.no_grad():
        both, near = (simulator(far_field=f).waveforms(at(2.0)) for f in (8, 0))
    inner = torch.nonzero(~far_rows(both)).squeeze(1)
    assert len(inner) == len(near) == 25
    for i, row in enumerate(inner.tolist()):
        begin, end = int(near.offsets[i]), int(near.offsets[i + 1])
        shift = int(near.first_tick[i] - both.first_tick[row]) + int(both.offsets[row])
        assert torch.equal(both.values[shift : shift + end - begin], near.values[begin:end])
    assert float(both.charge[inner].sum() - near.charge.sum()) == pytest.approx(0, abs=1e-6)


def tracks():
    start = [[-20.0, 11.03, 4.01], [9.0, -31.13, -6.07]]
    end = [[-20.31, 11.35, 4.52], [9.4, -30.81, -6.19]]
    return segments(start, end, dE=1.6, dEdx=2.6)


def module0(**options):
    return Simulator(MODULE0, **({"dtype": torch.float64, "far_field": 5} | options))


def weighted(waves, seed=0.01):
    row = waves.row
    pixel = (waves.tpc[row] * 280 + waves.iy[row]) * 140 + waves.ix[row]
    tick = torch.arange(len(row)) - waves.offsets[row] + waves.first_tick[row]
    return torch.cos(seed * tick.double() + pixel.double())


def test_slopes_with_everything_that_moves_a_node():
    """The operator alone, against central differences: charge, position, time, depth and velocity."""
    sim = module0(far_field=4)
    layouts = []
    import hepops.lartpc.simulator as module

    original = module.far_plan
    module.far_plan = lambda *a, **k: layouts.append((a, k)) or original(*a, **k)
    try:
        sim.waveforms(tracks())
    finally:
        module.far_plan = original
    (nodes, v, *rest), settings = layouts[0]
    layout = far_plan(nodes, v, *rest, **settings)
    scale = torch.ones(10, 1, dtype=torch.float64)
    scale[0] = 1e4  # so that all inputs are of order one

    def f(x, v):
        full = nodes.detach().clone()
        full[:, :3] = x * scale
        return far_field(full, v, layout)[::37] / 1e4

    x = (nodes.detach()[:, :3] / scale).requires_grad_()
    assert torch.autograd.gradcheck(f, (x, v.detach().requires_grad_()), eps=1e-6, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("name", ["lifetime", "efield", "birks_k", "temperature"])
def test_tangents_agree_with_reverse_mode_and_with_differences(name):
    sim = module0()
    waves = sim.waveforms(tracks(), tangents=(name,))
    weights = weighted(waves)
    forward = (waves.tangents[0].detach() * weights).sum()
    (reverse,) = torch.autograd.grad((waves.values * weights).sum(), getattr(sim, name))
    assert_close(forward, reverse, rtol=1e-9, atol=1e-9 * float(reverse.abs()))
    value, ends = getattr(sim, name).item(), []
    for h in (-1e-6, 1e-6):
        with changed(sim, **{name: value * (1 + h)}), torch.no_grad():
            moved = sim.waveforms(tracks())
            ends.append((moved.values * weighted(moved)).sum())
    difference = (ends[1] - ends[0]) / (2e-6 * value)
    assert_close(forward, difference, rtol=1e-5, atol=1e-7 * float(waves.values.detach().abs().sum()) / value)


def test_a_later_event_is_the_same_later():
    """The tangent along a common time offset: the derivative of a current with time, minus itself in all."""
    waves = module0().waveforms(tracks(), tangents=("time_offset",))
    sums = torch.zeros(len(waves), dtype=torch.float64).index_add(0, waves.row, waves.tangents[0].detach())
    assert float(sums.abs().max()) < 1e-6 * float(waves.tangents.abs().max())


def test_positions_receive_gradients():
    s = differentiable(tracks())
    waves = module0()(s)
    for slope in torch.autograd.grad(waves.charge.sum(), (s.start, s.end, s.dE, s.dEdx)):
        assert torch.isfinite(slope).all() and (slope != 0).any()


def test_chunks_threads_and_truth():
    s = segments(*(torch.cat([getattr(tracks(), e)] * 3) for e in ("start", "end")), event=torch.arange(6) // 2)
    one, all_ = (module0(chunk=c)(s, truth=True) for c in (1, 30_000))
    assert_same(one, all_)
    assert torch.equal(one.truth.segment, all_.truth.segment) and torch.equal(one.truth.fraction, all_.truth.fraction)
    plain = module0(far_field=0)(s, truth=True)
    assert len(plain.truth.segment) == len(one.truth.segment)  # the far field alone triggers nothing here
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = module0()(s, truth=True)
    finally:
        torch.set_num_threads(before)
    assert_same(two, all_)


def test_no_charge_no_rows():
    nothing = segments([[500.0, 0.0, 0.0]])
    with pytest.warns(UserWarning, match="outside every drift volume"):
        assert len(module0().waveforms(nothing)) == 0


@pytest.mark.parametrize("far", [1, 2, -1, 1001])
def test_refuses(far):
    with pytest.raises(ValueError, match=rf"far_field must be 0, or 3 \(beyond reach\) to 1000, got {far}"):
        Simulator(MODULE0, far_field=far)


def test_a_table_serves_the_near_field_if_it_reaches_as_far():
    """The far field does not know whether a table or the built-in response is nearer; together they lack nothing."""
    table = analytic_table(400)
    with torch.no_grad():
        builtin, ours = (module0(response=r, dtype=torch.float64).waveforms(tracks()) for r in ("builtin", table))
    assert torch.equal(builtin.ix, ours.ix) and torch.equal(builtin.offsets, ours.offsets)
    near = module0(far_field=0).waveforms(tracks())
    seen = {(int(t), int(y), int(x)) for t, y, x in zip(near.tpc, near.iy, near.ix, strict=True)}
    rows = [i for i, p in enumerate(zip(ours.tpc, ours.iy, ours.ix, strict=True)) if tuple(map(int, p)) not in seen]
    assert len(rows) > 50
    for i in rows:
        span = slice(int(ours.offsets[i]), int(ours.offsets[i + 1]))
        assert torch.equal(builtin.values[span], ours.values[span])
    with pytest.raises(
        ValueError, match="table covers 1 pixels on each side, the far field begins beyond 2: reach must"
    ):
        module0(response=analytic_table(400, size=15))
    module0(response=analytic_table(400, size=15), reach=1)
