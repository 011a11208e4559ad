from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from hepops.lartpc import FieldMap, Simulator, arrive, drift, recombine, space_charge_map
from torch.autograd import gradcheck
from torch.testing import assert_close

from .scenes import MODULE0, assert_same, changed, differentiable, segments

TPCS = MODULE0.tpcs
LOW, SPACING = (-31.0, -63.0, -32.0), (62.0 / 8, 126.0 / 6, 64.0 / 4)
SHAPE = (9, 7, 5)


def uniform(shift=(0.0, 0.0, 0.0), field=0.5, **changes):
    """One map over both TPCs, the same everywhere."""
    displacement = torch.tensor(shift, dtype=torch.float64).expand(*SHAPE, 3).clone()
    values = {"origin": LOW, "spacing": SPACING, "nominal": 0.5} | changes
    return FieldMap(displacement, torch.full(SHAPE, field, dtype=torch.float64), **values)


def maps(alpha=0.5, bowing=(0.6, 0.4)):
    return [space_charge_map(tpc, alpha, bowing=bowing, nodes=(17, 9, 9)) for tpc in TPCS]


def tracks():
    """One short track in each TPC, away from the walls of pixels, and one beside the cathode."""
    start = [[-20.0, 11.03, 4.01], [9.0, -31.13, -6.07], [-1.2, 40.03, 20.03]]
    end = [[-20.31, 11.35, 4.52], [9.4, -30.81, -6.19], [-1.6, 40.41, 20.09]]
    return segments(start, end, dE=1.6, dEdx=2.6)


def simulator(**options):
    return Simulator(MODULE0, **({"dtype": torch.float64} | options))


# ---- the map itself


def test_without_distortion_nothing_changes_but_rounding():
    plain, flat = (simulator(field_map=m).waveforms(tracks()) for m in (None, uniform()))
    assert torch.equal(plain.ix, flat.ix) and torch.equal(plain.first_tick, flat.first_tick)
    assert_close(plain.values, flat.values, rtol=1e-9, atol=1e-6)  # 1e-15 cm of z + z_low moves a share by 1e-12


def test_charge_arrives_where_the_map_says():
    """A shift by three pixels along z and two along y moves the picture by as many, and its times by dx / v."""
    pitch, v = MODULE0.pixel_pitch, 0.15964524821542871
    ticks = 7
    # 7 ticks of depth: the sign of x is that of the TPC, so a track in TPC 0 (x grows from the anode) alone
    shift = (ticks * 0.1 * v, 2 * pitch, 3 * pitch)
    one = segments([[-20.0, 11.03, 4.01]], [[-20.31, 11.35, 4.52]])
    short = {"length": 100}  # the induction that begins with creation is earlier: no difference in what is resolved
    a, b = (simulator(field_map=m, **short).waveforms(one) for m in (uniform(), uniform(shift)))
    assert torch.equal(a.ix + 3, b.ix) and torch.equal(a.iy + 2, b.iy)
    a, b = a.dense(1000).detach(), b.dense(1000).detach()
    # 0.7 us of a drift of 65 us widens the cloud by half a percent, and loses 3e-4 of the charge
    assert float((a.roll(ticks, 1) - b).abs().max()) < 0.01 * float(a.abs().max())
    assert float((a.roll(ticks - 1, 1) - b).abs().max()) > 0.1 * float(a.abs().max())


@pytest.mark.parametrize("number", [0, 1])
def test_drift_time_is_that_of_the_distorted_field(number):
    """Not by the map's own arithmetic: the integral of dx / v(E(x)) for one point, at a node of the map."""
    from hepops.lartpc.argon import mobility
    from hepops.lartpc.space_charge import anode_field

    tpc, alpha = TPCS[number], 0.5
    depth = 5 / 16 * tpc.drift_length
    point = segments([[tpc.anode + tpc.direction * depth, 0.0, 0.0]])
    time = simulator(field_map=maps(alpha, (0, 0))).drift(point).time.item()
    x = torch.linspace(0, depth, 20001, dtype=torch.float64)
    E = 0.5 * torch.sqrt(anode_field(alpha) ** 2 + (alpha * x / tpc.drift_length) ** 2)
    assert time == pytest.approx(torch.trapezoid(1000 / (mobility(E) * E), x).item(), rel=1e-8)


def test_recombination_happens_in_the_local_field():
    sim = simulator(field_map=uniform(field=0.6))
    ours, plain = sim.drift(tracks()), simulator().drift(tracks())
    dedx = torch.tensor([2.6], dtype=torch.float64)
    ratio = recombine(dedx, field=0.6) / recombine(dedx, field=0.5)
    assert_close(ours.electrons / plain.electrons, ratio.expand(3), rtol=1e-12, atol=0)
    assert_close(ours.time, plain.time, rtol=1e-13, atol=0)


def test_a_simulator_with_another_drift_field_keeps_the_distortion():
    """The map's field is in proportion to the drift field: at 0.55 kV/cm it is 0.66 where the map of 0.5 has 0.6."""
    sim = simulator(field_map=uniform(field=0.6))
    with changed(sim, efield=0.55), torch.no_grad():
        ours = sim.drift(tracks()).electrons
    depth = 30.431 - torch.tensor([20.155, 1.4, 9.2], dtype=torch.float64)  # sorted by TPC
    survival = drift(depth, field=0.55).survival
    expected = recombine(torch.full((3,), 2.6, dtype=torch.float64), field=0.66) * 1.6 / 23.6e-6 * survival
    assert_close(ours, expected, rtol=1e-12, atol=0)


def test_one_map_for_each_tpc_serves_each_tpc():
    both = simulator(field_map=maps()).drift(tracks())
    for k in (0, 1):
        own = [m if j == k else uniform() for j, m in enumerate(maps())]
        mine = both.tpc == k
        alone = simulator(field_map=own).drift(tracks())
        assert torch.equal(alone.time[mine], both.time[mine]) and not torch.equal(alone.time[~mine], both.time[~mine])


def test_chunks_and_threads_do_not_matter():
    s = segments(*(torch.cat([getattr(tracks(), e)] * 4) for e in ("start", "end")), event=torch.arange(12) // 3)
    m = maps()
    a, b = (simulator(field_map=m, chunk=c)(s) for c in (1, 30_000))
    assert_same(a, b)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert_same(a, simulator(field_map=m)(s))
    finally:
        torch.set_num_threads(before)


# ---- derivatives


def test_waveforms_are_differentiable_in_map_positions_and_parameters():
    """Against central differences: two amplitudes of the map, the positions, the field."""
    sim, s = simulator(), tracks()
    basis = [maps(0.5, (0, 0)), maps(0.0, (0.6, 0.4))]

    def loss(amplitudes, start, efield):
        """A sum of currents with weights that depend on pixel and tick alone, whatever rows there are."""
        sim.field_map = tuple(FieldMap.sum(pair, amplitudes) for pair in zip(*basis, strict=True))
        with torch.no_grad():
            sim.efield.fill_(efield)
        waves = sim.waveforms(replace(s, start=start))
        row = waves.row
        pixel = (waves.tpc[row] * 280 + waves.iy[row]) * 140 + waves.ix[row]
        tick = torch.arange(len(row)) - waves.offsets[row] + waves.first_tick[row]
        return (waves.values * torch.cos(0.01 * tick.double() + pixel.double())).sum() / 1e5

    amplitudes = torch.tensor([0.7, 0.9], dtype=torch.float64, requires_grad=True)
    start = s.start.clone().requires_grad_()
    efield = 0.5
    *ours, per_E = torch.autograd.grad(loss(amplitudes, start, efield), (amplitudes, start, sim.efield))

    def difference(change, h):
        return (change(h) - change(-h)) / (2 * h)

    for k in range(2):
        unit = torch.eye(2, dtype=torch.float64)[k]
        d = difference(lambda h, u=unit: loss(amplitudes.detach() + h * u, start.detach(), efield).detach(), 1e-5)
        assert_close(ours[0][k], d, rtol=1e-6, atol=1e-8)
    for i, j in ((0, 0), (1, 1), (2, 2)):
        unit = torch.zeros_like(start)
        unit[i, j] = 1
        d = difference(lambda h, u=unit: loss(amplitudes.detach(), start.detach() + h * u, efield).detach(), 1e-5)
        assert_close(ours[1][i, j], d, rtol=1e-6, atol=1e-8)
    d = difference(lambda h: loss(amplitudes.detach(), start.detach(), efield + h).detach(), 1e-6)
    assert_close(per_E, d, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["lifetime", "efield", "birks_k", "longitudinal_diffusion", "temperature"])
def test_tangents_with_a_map_agree_with_reverse_mode(name):
    sim = simulator(field_map=maps())
    waves = sim.waveforms(tracks(), tangents=(name,))
    weights = torch.randn_like(waves.values)
    (reverse,) = torch.autograd.grad((waves.values * weights).sum(), getattr(sim, name))
    assert_close((waves.tangents[0].detach() * weights).sum(), reverse, rtol=1e-9, atol=1e-9 * float(reverse.abs()))


def test_positions_and_energies_receive_gradients_through_hits():
    s = differentiable(tracks())
    hits = simulator(field_map=maps())(s)
    for slope in torch.autograd.grad(hits.charge.sum(), (s.start, s.end, s.dE, s.dEdx)):
        assert torch.isfinite(slope).all() and (slope != 0).any()


def test_map_at_points_gradcheck():
    points = torch.tensor([[-20.1, 3.3, 5.1], [7.2, -33.0, 20.2]], dtype=torch.float64, requires_grad=True)
    displacement = torch.randn(*SHAPE, 3, dtype=torch.float64, requires_grad=True)
    field = torch.randn(*SHAPE, 3, dtype=torch.float64, requires_grad=True)

    def f(points, displacement, field):
        return FieldMap(displacement, field, LOW, SPACING).at(points)

    assert gradcheck(f, (points, displacement, field), atol=1e-8, rtol=1e-6)


def test_amplitudes_of_space_charge_are_found_from_tracks():
    """A noise-free fit: the strength along the drift and two bowings, from the hits of a few straight tracks."""
    torch.manual_seed(3)
    start = torch.tensor([[-29.0, 50.0, 20.0], [-28.0, -55.0, -25.0], [-3.0, 30.0, -28.0]], dtype=torch.float64)
    along = torch.tensor([[26.0, -9.0, 7.0], [25.0, 6.0, 9.0], [-2.0, -9.0, 5.0]], dtype=torch.float64)
    s = segments(start, start + along, dE=2.1 * along.norm(dim=1), dEdx=2.1)
    basis = [
        space_charge_map(TPCS[0], a, bowing=b, nodes=(17, 9, 9))
        for a, b in ((0.5, (0, 0)), (0.0, (1, 0)), (0.0, (0, 1)))
    ]
    sim = Simulator(MODULE0, dtype=torch.float64, step=0.4)
    for p in sim.parameters():
        p.requires_grad_(False)

    s.event[:] = torch.arange(3)

    def moments(amplitudes):
        """Of every track: mean time, and charge-weighted means of y, z, y t and z t over its pixels."""
        sim.field_map = (FieldMap.sum(basis, amplitudes), uniform())
        w = sim.waveforms(s)
        row = w.row
        t = (torch.arange(len(row)) - w.offsets[row] + w.first_tick[row]).double() / 1000
        q, qt = (w.values.new_zeros(len(w)).index_add(0, row, x) for x in (w.values, w.values * t))
        centre = MODULE0.pixel_centre(w.tpc, w.ix, w.iy)
        some = [qt, q * centre[:, 1], q * centre[:, 2], qt * centre[:, 1], qt * centre[:, 2]]
        total = q.new_zeros(3).index_add(0, w.event, q)
        return torch.stack([q.new_zeros(3).index_add(0, w.event, x) / total for x in some]).reshape(-1)

    truth = torch.tensor([1.0, 0.3, -0.2], dtype=torch.float64)
    target = moments(truth)
    a = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(4):  # Gauss-Newton, the Jacobian by reverse mode
        values = moments(a)
        jacobian = torch.stack([torch.autograd.grad(m, a, retain_graph=True)[0] for m in values])
        step = torch.linalg.lstsq(jacobian, (values.detach() - target)[:, None]).solution[:, 0]
        a = (a.detach() - step).requires_grad_()
    assert_close(a.detach(), truth, rtol=1e-6, atol=1e-6)


# ---- what does not fit


def test_a_map_that_does_not_cover_a_tpc_is_refused_by_axis_and_numbers():
    short = uniform(spacing=(SPACING[0], 15.0, SPACING[2]))
    with pytest.raises(
        ValueError, match=r"TPC 0 reaches from y = -62.076 to 62.076 cm, the map only from -63.0 to 27.0"
    ):
        Simulator(MODULE0, field_map=short)
    with pytest.raises(ValueError, match=r"TPC 1 reaches from x = 0.15875 to 30.431 cm, the map only from -30.431"):
        Simulator(MODULE0, field_map=[maps()[0], maps()[0]])
    with pytest.raises(ValueError, match=r"one for each of 2 TPCs, got 1"):
        Simulator(MODULE0, field_map=maps()[:1])


def test_charge_that_would_arrive_before_it_is_made_is_refused():
    with pytest.raises(ValueError, match="arrive before it is made"):
        simulator(field_map=uniform((-11.0, 0, 0))).waveforms(tracks())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"displacement": torch.zeros(3, 3, 3)},
            ValueError,
            r"displacement must be \(nx, ny, nz, 3\).*got \(3, 3, 3\)",
        ),
        ({"field": torch.ones(2, 2, 2).double()}, ValueError, r"field must be \(9, 7, 5\) or .*got \(2, 2, 2\)"),
        ({"field": torch.ones(SHAPE)}, TypeError, "field must be float64, got torch.float32"),
        ({"field": torch.zeros(SHAPE).double()}, ValueError, "must be positive everywhere"),
        ({"displacement": torch.full((*SHAPE, 3), np.nan).double()}, ValueError, "displacement holds NaN"),
        ({"spacing": (1.0, 0.0, 1.0)}, ValueError, r"spacing must be positive \[cm\], got \(1.0, 0.0, 1.0\)"),
        ({"origin": (1.0, np.inf, 1.0)}, ValueError, "origin must be three finite numbers"),
        ({"nominal": 0.0}, ValueError, "nominal must be positive"),
        ({"nominal": np.inf}, ValueError, "nominal must be positive and finite"),
    ],
)
def test_refuses(change, error, message):
    good = {"displacement": torch.zeros(*SHAPE, 3).double(), "field": torch.ones(SHAPE).double()}
    with pytest.raises(error, match=message):
        FieldMap(**({**good, "origin": LOW, "spacing": SPACING} | change))


def test_maps_of_different_grids_do_not_add():
    with pytest.raises(ValueError, match="differ in grid"):
        FieldMap.sum([uniform(), uniform(origin=(-40.0, -63.0, -32.0))], [1.0, 1.0])
    with pytest.raises(ValueError, match="1 maps with 2 amplitudes"):
        FieldMap.sum([uniform()], [1.0, 1.0])


# ---- files


def test_a_map_survives_its_file(tmp_path):
    before = maps()[0]
    before.write(tmp_path / "map.h5")
    after = FieldMap.read(tmp_path / "map.h5")
    assert torch.equal(before.displacement, after.displacement) and torch.equal(before.field, after.field)
    assert (before.origin, before.spacing, before.nominal) == (after.origin, after.spacing, after.nominal)
    assert [p.name for p in tmp_path.iterdir()] == ["map.h5"]


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "map.h5"
    with pytest.raises(FileNotFoundError, match="no such file"):
        FieldMap.read(path)
    maps()[0].write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        FieldMap.read(path)
    for change, message in (
        (lambda f: f.attrs.update(format="other"), "no field map of hepops"),
        (lambda f: f.attrs.update(version=9), "version 9"),
        (lambda f: f["field"].attrs.update(unit="V/m"), r"field is in 'V/m', expected 'kV/cm'"),
        (lambda f: f.pop("displacement"), "no dataset 'displacement'"),
        (lambda f: f.attrs.pop("nominal"), "no attribute 'nominal'"),
        (lambda f: f["field"].__setitem__((0, 0, 0), np.nan), "field holds NaN"),
    ):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(ValueError, match=message):
            FieldMap.read(path)


def root_file(path, shape=(5, 4, 3), drop=None, edges=None):
    uproot = pytest.importorskip("uproot")
    generator = np.random.default_rng(1)
    edges = edges or [
        np.linspace(-10, 10, shape[0] + 1),
        np.linspace(-4, 4, shape[1] + 1),
        np.linspace(0, 9, shape[2] + 1),
    ]
    values = {}
    with uproot.recreate(path) as file:
        for kind in ("TrueFwd_Displacement", "True_ElecField"):
            for axis in "XYZ":
                values[kind, axis] = generator.uniform(-0.1, 0.1, shape)
                if f"{kind}_{axis}" != drop:
                    file[f"{kind}_{axis}"] = (values[kind, axis], *edges)
    return values


def test_histograms_of_larsoft_are_read(tmp_path):
    values = root_file(tmp_path / "sce.root")
    map = FieldMap.read_root(tmp_path / "sce.root", nominal=0.5)
    assert map.origin == pytest.approx((-8.0, -3.0, 1.5)) and map.spacing == pytest.approx((4.0, 2.0, 3.0))
    for k, axis in enumerate("XYZ"):
        assert_close(
            map.displacement[..., k], torch.from_numpy(values["TrueFwd_Displacement", axis]), rtol=1e-6, atol=1e-7
        )
        expected = 0.5 * (values["True_ElecField", axis] + (1.0 if k == 0 else 0.0))
        assert_close(map.field[..., k], torch.from_numpy(expected), rtol=1e-6, atol=1e-7)


def test_histograms_that_are_missing_or_uneven_are_refused(tmp_path):
    root_file(tmp_path / "a.root", drop="True_ElecField_Y")
    with pytest.raises(ValueError, match="no histogram 'True_ElecField_Y'"):
        FieldMap.read_root(tmp_path / "a.root", 0.5)
    assert FieldMap.read_root(tmp_path / "a.root", 0.5, electric=False).magnitude.unique().tolist() == [0.5]
    uneven = [np.array([0.0, 1, 2, 3, 4, 9]), np.linspace(-4, 4, 5), np.linspace(0, 9, 4)]
    root_file(tmp_path / "b.root", edges=uneven)
    with pytest.raises(ValueError, match="bins must be regular"):
        FieldMap.read_root(tmp_path / "b.root", 0.5)
    with pytest.raises(FileNotFoundError, match="no such file"):
        FieldMap.read_root(tmp_path / "c.root", 0.5)


def test_arrive_without_a_map_gets_six_rows():
    """What makes results without a map those of before, bit by bit."""
    rows = torch.rand(6, 10, dtype=torch.float64)
    p = torch.tensor(
        (2200.0, 0.5, 0.8, 0.0486, 8.8e-6, 4e-6, 0.93, 0.207, 1.25, 1.38, 87.17, 23.6e-6), dtype=torch.float64
    )
    one = torch.cat([rows, torch.ones_like(rows[:1])])
    assert torch.equal(arrive(rows, p), arrive(one, p))


def test_a_map_that_folds_space_is_refused_by_place():
    """Charge from farther away must not arrive earlier, and paths must not cross; nodes beyond the TPC are free."""
    steps = torch.zeros(*SHAPE, 3, dtype=torch.float64)
    steps[2:, :, :, 0] = -7.75  # as far as the nodes are apart: two places arrive at once
    good = uniform()
    with pytest.raises(ValueError, match=r"folds TPC 0 along x: from x y z = \[-23.25, .* goes from 0 to -7.75 cm"):
        Simulator(MODULE0, field_map=FieldMap(steps, good.field, LOW, SPACING))
    Simulator(MODULE0, field_map=FieldMap(0.99 * steps, good.field, LOW, SPACING))
    crossing = torch.zeros(*SHAPE, 3, dtype=torch.float64)
    crossing[:, 4:, :, 1] = -22.0
    with pytest.raises(ValueError, match="folds TPC 0 along y"):
        Simulator(MODULE0, field_map=FieldMap(crossing, good.field, LOW, SPACING))
    beyond = torch.zeros(*SHAPE, 3, dtype=torch.float64)
    beyond[5:, :, :, 0] = -8.0  # x = 7.75 cm and more: not in TPC 0, whose own map this is
    Simulator(MODULE0, field_map=[FieldMap(beyond, good.field, LOW, SPACING), good])


def test_numbers_in_other_units_are_refused():
    for field in (500.0, 50.0, 0.05):  # V/cm, kV/m, MV/m
        with pytest.raises(ValueError, match=rf"field is {field:g} kV/cm in the mean.*in other units"):
            uniform(field=field)
    with pytest.raises(ValueError, match=r"moves charge of TPC 0 by up to 40 cm, which is 30.27\d* cm wide"):
        Simulator(MODULE0, field_map=uniform((40.0, 0, 0)))


def test_a_map_set_later_is_checked_as_at_the_beginning():
    sim, map = simulator(), uniform((0.3, 0.0, 0.0))
    before = sim.drift(tracks()).time
    sim.field_map = map
    assert sim.field_map == (map, map)
    assert torch.equal(sim.drift(tracks()).time, simulator(field_map=map).drift(tracks()).time)
    with pytest.raises(ValueError, match="one for each of 2 TPCs, got 1"):
        sim.field_map = [map]
    with pytest.raises(TypeError, match="field_map must be a FieldMap or a sequence of them, got float"):
        sim.field_map = 0.5
    sim.field_map = None
    assert torch.equal(sim.drift(tracks()).time, before)


def test_segments_beyond_every_tpc_leave_nothing_for_the_maps():
    nothing = segments([[500.0, 0.0, 0.0]])
    for map in (uniform(), maps()):
        with pytest.warns(UserWarning, match="outside every drift volume"):
            assert len(simulator(field_map=map).waveforms(nothing)) == 0


@pytest.mark.parametrize(
    "options",
    [{"field_map": maps()}, {"attachment": "O2"}, {"density_law": "boiling"}, {"far_field": 3}],
    ids=["field_map", "attachment", "density_law", "far_field"],
)
@pytest.mark.parametrize("how", ["seed", "hits", "tangents"])
def test_universes_know_all_options(options, how):
    """Each universe is what a simulator of its own gives, with the same options."""
    sim = simulator(**options)
    extra = {"seed": {"seed": 3}, "hits": {}, "tangents": {"tangents": ("efield",)}}[how]
    many = sim.universes(
        {"efield": [0.48, 0.53], "temperature": [87.0, 88.5], "lifetime": [300.0, 500.0]}, tracks(), **extra
    )
    for i in range(2):
        ours = many[i]
        with changed(sim, **{name: many.parameters[name][i].item() for name in ("efield", "temperature", "lifetime")}):
            own = sim(tracks(), **extra)
        assert len(ours) == len(own) > 0
        assert_close(ours.charge, own.charge.detach(), rtol=1e-9, atol=1e-6)
        assert_close(ours.time, own.time.detach(), rtol=1e-9, atol=1e-9)
