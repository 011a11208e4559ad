import math

import numpy as np
import pytest
import torch
from conftest import shared
from core.contract import Contract
from hepops.lartpc import Parameters, Simulator, Table, velocity, weighting_potential
from hepops.lartpc.response import Response, builtin_response, table_response
from torch.testing import assert_close

from .scenes import MODULE0, gauss_legendre, potential, segments

PITCH = 0.4434


def number(x):
    return torch.tensor(x, dtype=torch.float64)


class TestWeightingPotential(Contract):
    op = torch.ops.hepops.weighting_potential.default
    function = staticmethod(weighting_potential)
    sizes = (1, 15, 100)
    large = 400
    refused = ()  # the velocity is one number, of any kind

    @staticmethod
    def reference(velocity, pitch, tick, bins, size, length):
        centre = (torch.arange(size, dtype=torch.float64, device=velocity.device) + 0.5) * pitch / bins
        z = velocity.double() * tick * torch.arange(1, length + 1, dtype=torch.float64, device=velocity.device)
        phi = potential(centre[:, None, None], centre[None, :, None], z, pitch / 2)
        pad = (centre < pitch / 2).double()
        return torch.cat([(pad[:, None] * pad)[..., None], phi], 2)

    @staticmethod
    def sample(size, **at):
        return torch.tensor(0.7, **at), 1.0, 0.1, 4, 9, size

    def operands(self, args):
        return args[0].double(), *args[1:]

    @staticmethod
    def rounding(dtype):
        """The potential is always float64; its slope is a sum over the whole table."""
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 4e-15}

    def test_second_derivatives(self, device):
        v = torch.tensor(0.7, dtype=torch.float64, device=device, requires_grad=True)
        (slope,) = torch.autograd.grad(weighting_potential(v, 1.0).sum(), v, create_graph=True)
        with pytest.raises(RuntimeError):
            slope.backward()

    def test_registration(self, device, dtype):
        if dtype == torch.float64:
            super().test_registration(device, dtype)


def test_potential_is_the_solid_angle():
    """int_pad z / (2 pi r^3), the pad's share of the charge that a charge at height z draws to the plane."""
    phi = weighting_potential(0.16, PITCH, bins=4, size=12, length=80)
    s, w = gauss_legendre(64, -PITCH / 2, PITCH / 2)
    for i, k, m in ((0, 0, 10), (3, 0, 15), (11, 5, 30), (2, 2, 80)):
        x, y, z = (i + 0.5) * PITCH / 4, (k + 0.5) * PITCH / 4, 0.016 * m
        r = ((s[:, None] - x) ** 2 + (s - y) ** 2 + z**2).sqrt()
        assert phi[i, k, m].item() == pytest.approx((w[:, None] * w * z / (2 * math.pi * r**3)).sum().item(), rel=1e-12)


def test_potential_at_the_plane_and_far_away():
    phi = weighting_potential(0.16, PITCH, length=3000)
    on = torch.arange(30) < 5
    assert torch.equal(phi[..., 0], (on[:, None] & on).double())
    assert_close(phi, phi.transpose(0, 1), rtol=0, atol=1e-15)
    far = PITCH**2 / (2 * math.pi * (0.016 * 3000) ** 2)
    assert_close(phi[..., -1], torch.full((30, 30), far, dtype=torch.float64), rtol=2e-2, atol=0)
    assert bool((phi[0, 0].diff() < 0).all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pitch": 0.0}, r"pitch must be positive \[cm\], got 0"),
        ({"tick": -0.1}, r"tick must be positive \[us\], got -0.1"),
        ({"bins": 5}, r"bins per pixel must be even and positive, got 5"),
        ({"size": 0}, r"the table needs bins and ticks, got 0 and 150"),
        ({"length": 0}, r"the table needs bins and ticks, got 30 and 0"),
        ({"velocity": torch.ones(2)}, r"velocity must hold one number, got shape \(2,?\)"),
    ],
)
def test_potential_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        weighting_potential(**({"velocity": 0.16, "pitch": PITCH} | changes))


# ---- tables


def analytic_table(ticks=1900, tick=0.1, v=0.159645, drift=None, size=45, pitch=PITCH):
    """The current of a pad in a grounded plane, charge from the cathode; it ends at the plane unless `drift` is given.

    With 1950 ticks and a drift of 30.43095 cm, 1906 ticks, it is the golden runs' response.
    """
    drift = ticks * v * tick if drift is None else drift
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * pitch / 10
    z = (drift - v * tick * torch.arange(ticks + 1, dtype=torch.float64)).clamp(min=1e-300)
    phi = potential(centre[:, None, None], centre[None, :, None], z, pitch / 2)
    return phi.diff() / tick


@pytest.mark.parametrize(
    ("name", "tick", "pitch"),
    [("response_first_DUNE", 0.1, 0.4434), ("response_38_ynashed_pr3", 0.05, 0.38)],
)
def test_real_tables(name, tick, pitch):
    path = shared(f"data/lartpc/response/{name}.npy")
    table = Table.read(path, pitch)
    assert (table.tick, table.bins, table.velocity) == (tick, 10, pytest.approx(velocity(0.5), rel=1e-14))
    assert_close(Table.read(np.load(path), pitch).current, table.current, rtol=0, atol=0)
    total = table.current.sum(2) * table.tick
    on = torch.arange(15) < 5
    pad = (on[:, None] & on).double()
    assert_close(total, pad, rtol=0, atol=0.05)

    # The charge that a bin induces is kept at every velocity, both of whole and of half ticks.
    for v in (0.12, velocity(0.5), 0.2):
        response = table_response(table, number(v), 0.1, length=300, dtype=torch.float64)
        assert_close(response.r.sum(2), pad, rtol=0, atol=1e-14)
        assert_close(response.rv.sum(2), torch.zeros_like(pad), rtol=0, atol=1e-12)
        # less the potential at the cathode, it is the table's own sum
        assert_close(pad - response.potential[..., -1], total, rtol=0, atol=1e-14)
    # and the time before arrival stretches: the mean moment of induction, from arrival
    slow, fast = (table_response(table, number(v), 0.1, length=300, dtype=torch.float64) for v in (0.12, 0.24))
    from_end = torch.arange(fast.r.shape[2]) - 300.0
    times = [((r.r[0, 0] * from_end).sum() - 0.5).item() for r in (slow, fast)]
    assert times[0] == pytest.approx(2 * times[1], abs=0.02 * abs(times[1]))


def test_table_of_the_builtin_potential_is_the_builtin_response():
    """Sampled at the tick of the simulation and the same velocity, a table loses nothing."""
    v, length = 0.16, 120
    phi = weighting_potential(v, PITCH, size=30, length=1900)
    table = Table.read((phi[..., :-1] - phi[..., 1:]).flip(2) / 0.1, PITCH, tick=0.1, velocity=v)
    ours = table_response(table, number(v), 0.1, length=length, dtype=torch.float64)
    exact = builtin_response(number(v), PITCH, 0.1, reach=2, length=length, dtype=torch.float64)
    assert_close(ours.lead, exact.lead, rtol=0, atol=1e-13)
    assert_close(ours.potential[..., :100], phi[..., :100], rtol=0, atol=1e-13)


def test_table_arrives_where_the_drift_ends(tmp_path):
    """Production tables go on for some ticks after the arrival: what stands there must not shift the waveform."""
    np.savez(
        tmp_path / "table.npz",
        response=analytic_table(1950, drift=30.43095).numpy(),
        drift_length=30.43095,
        time_tick=0.1,
        bin_size=PITCH / 10,
    )
    table = Table.read(tmp_path / "table.npz", PITCH, velocity=0.159645)
    assert table.arrival == pytest.approx(1906.164, abs=1e-3)
    v = number(0.159645)
    ours = table_response(table, v, 0.1, length=150, dtype=torch.float64)
    exact = builtin_response(v, PITCH, 0.1, reach=2, length=150, dtype=torch.float64)
    # linear between the table's ticks, and its ticks are not aligned with the arrival
    assert_close(ours.lead[:30, :30], exact.lead, rtol=0, atol=0.02)
    assert_close(ours.lead[:30, :30, :140], exact.lead[..., :140], rtol=0, atol=2e-3)
    npy = tmp_path / "table.npy"
    np.save(npy, analytic_table(1950, drift=30.43095).numpy())
    given = Table.read(npy, PITCH, velocity=0.159645, drift_length=30.43095)
    assert_close(given.current, table.current, rtol=0, atol=0)
    assert given.arrival == table.arrival
    assert Table.read(npy, PITCH, velocity=0.159645).arrival == 1950


def test_slope_with_the_velocity():
    table = Table.read(analytic_table(1950, drift=30.43095), PITCH, velocity=0.159645, drift_length=30.43095)
    makers = [
        lambda v: builtin_response(v, PITCH, 0.1, reach=2, length=150, dtype=torch.float64),
        lambda v: table_response(table, v, 0.1, length=150, dtype=torch.float64),
    ]
    for make, h in zip(makers, (1e-5, 1e-9), strict=True):  # the table is piecewise linear
        at, up, down = (make(number(0.16 + d)) for d in (0, h, -h))
        assert_close(at.rv, (up.r - down.r) / (2 * h), rtol=0, atol=1e-6 * at.rv.abs().max().item())
        assert_close(at.leadv, (up.lead - down.lead) / (2 * h), rtol=0, atol=1e-6 * at.leadv.abs().max().item())


def test_lead_is_the_running_sum():
    for response in (
        builtin_response(number(0.16), PITCH, 0.1, reach=2, length=100, dtype=torch.float64),
        table_response(Table.read(analytic_table(), PITCH), number(0.16), 0.1, length=100, dtype=torch.float64),
    ):
        assert isinstance(response, Response)
        assert_close(response.r.cumsum(2)[..., :101], response.lead[..., :101], rtol=0, atol=1e-14)
        assert not response.r[..., 101:].any()


def good_table():
    table = np.zeros((15, 15, 85))
    table[:5, :5, -1] = 10.0
    return table


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda t: t[0], {}, r"must be \(bins_x, bins_y, ticks\), got \(15, 85\)"),
        (lambda t: t[:0], {}, r"must be \(bins_x, bins_y, ticks\), got \(0, 15, 85\)"),
        (lambda t: np.where(t > 0, np.nan, t), {}, "holds NaN or infinity"),
        (lambda t: np.where(t > 0, np.inf, t), {}, "holds NaN or infinity"),
        (lambda t: 3 * t, {}, r"sum\(i dt\), is 1.5, expected 1"),
        (lambda t: 0 * t, {}, r"sum\(i dt\), is 0, expected 1"),
        (lambda t: t, {"tick": 0.05}, r"sum\(i dt\), is 0.5, expected 1: is the tick 0.05 us right"),
        (lambda t: t, {"tick": 0.0}, r"tick must be positive \[us\], got 0"),
        (lambda t: t, {"bin_size": 0.03}, r"bins of 0.03 cm do not fit a pitch of 0.4434 cm"),
        (lambda t: t, {"bin_size": 0.4434 / 5}, r"do not fit a pitch of 0.4434 cm: an even number must fill a pixel"),
        (lambda t: t, {"bin_size": -1.0}, r"bins of -1.0 cm do not fit"),
        (lambda t: t, {"drift_length": -1.0}, r"drift_length must be positive \[cm\], got -1.0"),
        (lambda t: t, {"drift_length": 0.01}, r"a drift of 0.01 cm is over within one tick"),
    ],
)
def test_table_refuses(change, arguments, message):
    with pytest.raises(ValueError, match=message):
        Table.read(change(good_table()), PITCH, **arguments)


def test_table_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere.npy"):
        Table.read(tmp_path / "nowhere.npy", PITCH)
    np.savez(tmp_path / "other.npz", current=good_table())
    with pytest.raises(ValueError, match=r"has no array 'response', only \['current'\]"):
        Table.read(tmp_path / "other.npz", PITCH)
    (tmp_path / "text.npy").write_text("no table")
    with pytest.raises(ValueError, match=r"is not a whole \.npy or \.npz file"):
        Table.read(tmp_path / "text.npy", PITCH)
    np.save(tmp_path / "whole.npy", good_table())
    (tmp_path / "half.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:5000])
    with pytest.raises(ValueError):
        Table.read(tmp_path / "half.npy", PITCH)


@pytest.mark.parametrize("name", ["response_first_DUNE", "response_38_ynashed_pr3"])
def test_simulator_runs_with_real_tables(name):
    """On the pad alone, charge is collected whole; at any field."""
    path = shared(f"data/lartpc/response/{name}.npy")
    pitch = 0.4434 if "DUNE" in name else 0.38
    detector = MODULE0
    if pitch != MODULE0.pixel_pitch:
        tpcs = [
            t.model_copy(update={"y": (-0.19 * 280, 0.19 * 280), "z": (-0.19 * 140, 0.19 * 140)}) for t in MODULE0.tpcs
        ]
        detector = MODULE0.replace(pixel_pitch=pitch, tpcs=tuple(tpcs))
    centre = detector.pixel_centre(torch.tensor([0]), torch.tensor([70]), torch.tensor([140]))[0]
    points = segments([[-29.0, float(centre[1]), float(centre[2])], [-10.0, float(centre[1]), float(centre[2])]])
    for efield in (0.45, 0.5, 0.55):
        sim = Simulator(detector, Parameters(efield=efield, transverse_diffusion=1e-9), path, torch.float64, length=200)
        waves = sim.waveforms(points)
        electrons = sim.drift(points).electrons
        main = (waves.ix == 70) & (waves.iy == 140)
        # 29 cm is 1.4 cm above the plane, within the table: less the potential there; the other drifts all the table
        assert waves.charge[main].item() == pytest.approx(electrons.sum().item(), rel=0.06)
        hits = sim(points)
        assert len(hits) >= 2
        time = hits.time[(hits.ix == 70) & (hits.iy == 140)].detach()
        # the threshold is crossed within the table's reach before the arrival, never after
        for arrival in sim.drift(points).time.detach().tolist():
            first = time[time > arrival - 9.5][0].item()
            assert -9.5 < first - arrival < 0.5


def test_tables_of_odd_shapes_and_sums_are_refused():
    good = torch.zeros(15, 15, 20, dtype=torch.float64)
    good[:5, :5, -1] = 10.0
    Table.read(good, 0.4434, tick=0.1)
    with pytest.raises(ValueError, match=r"\(1, 1\) bins, less than the 5"):
        Table.read(good[:1, :1], 0.4434, tick=0.1)
    wrong = good.clone()
    wrong[3, 3] *= 50
    with pytest.raises(ValueError, match=r"charge of bin \(3, 3\), sum\(i dt\), is 50, expected 1"):
        Table.read(wrong, 0.4434, tick=0.1)
    with pytest.raises(ValueError, match="must hold real numbers"):
        Table.read(good.to(torch.complex128), 0.4434, tick=0.1)


def test_broken_archives_are_named(tmp_path):
    path = tmp_path / "table.npz"
    np.savez(path, response=np.zeros((15, 15, 20)), time_tick="a")
    with pytest.raises(ValueError, match=r"time_tick of .* must be one number"):
        Table.read(path, 0.4434)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"is not a whole \.npy or \.npz file"):
        Table.read(path, 0.4434)
