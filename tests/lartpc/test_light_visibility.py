"""Solid angles against quadrature, tables against their own voxels, and what both refuse."""

import math

import numpy as np
import pytest
import torch
from hepops.lartpc import TPC, Detector
from hepops.lartpc.light import Panel, SolidAngle, VisibilityTable, solid_angle
from hepops.lartpc.light.seen import frame_size, to_frame
from torch.autograd import gradcheck
from torch.testing import assert_close

MODULE0 = Detector.module0()
SIZE = frame_size(MODULE0)[0]


def inside(n, seed=1, edge=1.0):
    """Points of a TPC's frame, away from its walls by `edge` [cm]."""
    made = torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return edge + made * (SIZE - 2 * edge)


def quadrature(at, panel, rate, nodes=120):
    """The share of light on a panel normal to the first axis, by Gauss-Legendre integration over its surface."""
    x, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(nodes))
    u = panel.centre[1] + x * panel.size[0] / 2 - at[:, None, None, 1]
    v = (panel.centre[2] + x * panel.size[1] / 2)[:, None] - at[:, None, None, 2]
    h = (at[:, 0] - panel.centre[0]).abs()[:, None, None]
    r2 = u * u + v * v + h * h
    density = h / r2**1.5 * torch.exp(-rate * r2.sqrt())
    return (density * w * w[:, None]).sum((1, 2)) * panel.size[0] * panel.size[1] / 4 / (4 * math.pi)


class TestSolidAngle:
    def test_is_the_integral_over_the_panel(self):
        """Exact: 120 Gauss-Legendre nodes resolve the integrand from 4 cm to 1e-12."""
        panel = Panel(centre=(0.0, 60.0, 15.0), normal="along", size=(30.0, 28.0))
        model = SolidAngle([panel], absorption=1e15, rayleigh=1e15)
        at = inside(50, edge=4.0)
        assert_close(model(at, at).share[0], quadrature(at, panel, 0.0), rtol=1e-10, atol=1e-14)

    def test_walls_all_around_catch_everything(self):
        """Six panels that close a box: their solid angles sum to the whole sphere."""
        a, b, d = SIZE.tolist()
        panels = (
            [Panel(centre=(x, b / 2, d / 2), normal="along", size=(b, d)) for x in (0.0, a)]
            + [Panel(centre=(a / 2, y, d / 2), normal="up", size=(a, d)) for y in (0.0, b)]
            + [Panel(centre=(a / 2, b / 2, z), normal="depth", size=(a, b)) for z in (0.0, d)]
        )
        model = SolidAngle(panels, absorption=1e15, rayleigh=1e15)
        at = inside(200, edge=0.0)
        assert_close(model(at, at).share.sum(0), torch.ones(200, dtype=torch.float64), rtol=1e-12, atol=0)

    def test_in_the_plane_it_is_half_the_sphere_or_nothing(self):
        zero = torch.zeros(2, dtype=torch.float64)
        omega = solid_angle(torch.tensor([0.3, 5.0], dtype=torch.float64), zero, zero, 1.0, 2.0)
        assert_close(omega, torch.tensor([2 * math.pi, 0.0], dtype=torch.float64))

    @pytest.mark.parametrize(("divisions", "error"), [(1, 0.11), (2, 0.04), (4, 0.009)])
    def test_attenuation_converges_to_the_integral(self, divisions, error):
        """The solid angle is exact; the distance is that of each part's centre. In points 1 cm and more from a tile."""
        panel = Panel(centre=(0.0, 60.0, 15.0), normal="along", size=(30.0, 28.0))
        model = SolidAngle([panel], divisions=divisions)
        at = inside(100)
        exact = quadrature(at, panel, 1 / 2000.0 + 1 / 99.1, nodes=120)
        worst = (model(at, at).share[0] / exact - 1).abs().max().item()
        assert worst < error

    def test_light_needs_its_time(self):
        """From the middle to the nearest point of a wall: 31 cm at 7.46 ns/m."""
        middle = (SIZE / 2)[None]
        delay = SolidAngle.module0()(middle, middle).delay
        straight = 0.5 * 62.076 * 0.0746e-3
        assert (delay >= straight - 1e-12).all()
        facing = SolidAngle([Panel(centre=(0.0, 62.076, 15.0), normal="along", size=(30.0, 28.0))])
        assert_close(facing(middle, middle).delay.item(), straight)

    def test_gradients(self):
        model = SolidAngle.module0(divisions=2)
        at = inside(4).requires_grad_()

        def function(at, absorption, rayleigh):
            lengths = {"absorption": absorption, "rayleigh": rayleigh}
            seen = torch.func.functional_call(model, lengths, (at, at))
            return 1e4 * seen.share, 1e3 * seen.delay

        lengths = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (200.0, 60.0)]
        assert gradcheck(function, (at, *lengths), atol=1e-8, rtol=1e-6)

    def test_module0_has_channels_in_sixes(self):
        """An LCM module's two SiPMs share its light, an ArCLight's six; an LCM gets ten times as much."""
        share = SolidAngle.module0()(inside(30), SIZE.expand(30, 3)).share
        tiles = share.unflatten(0, (8, 6))
        assert_close(tiles[0::2, 0::2], tiles[0::2, 1::2])
        assert_close(tiles[1::2], tiles[1::2, :1].expand(-1, 6, -1))
        middle = (SIZE / 2)[None]
        lcm, arclight = SolidAngle.module0()(middle, middle).share.unflatten(0, (8, 6)).sum(1)[[6, 1], 0]
        assert_close(
            (lcm / arclight).item(), 10.0, rtol=0.01, atol=0
        )  # the distances of thirds and of the whole differ

    def test_both_tpcs_see_alike(self):
        """Half a turn about the vertical axis takes one TPC to the other."""
        at = inside(20)
        x, y, z = at[:, 2], at[:, 1] - 62.076, at[:, 0] - 31.038
        one = torch.stack((-30.431 + x, y, z), 1)
        two = torch.stack((30.431 - x, y, -z), 1)
        zeros, ones = torch.zeros(20, dtype=torch.long), torch.ones(20, dtype=torch.long)
        assert_close(to_frame(one, zeros, MODULE0), at)
        assert_close(to_frame(two, ones, MODULE0), at)

    def test_rings_and_windows_fit_any_detector(self):
        ring = SolidAngle.ring(MODULE0, tiles=3, channels_per_tile=2)
        windows = SolidAngle.x_arapuca(MODULE0, rows=5, columns=2)
        assert (ring.channels, windows.channels) == (12, 10)
        at = inside(20)
        for model in (ring, windows):
            share = model(at, at).share
            assert (share > 0).all() and (share.sum(0) < 0.05).all()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda p: SolidAngle([]), "at least one panel"),
            (lambda p: SolidAngle([p], absorption=0.0), "absorption must be positive"),
            (lambda p: SolidAngle([p], rayleigh=float("nan")), "rayleigh must be positive"),
            (lambda p: SolidAngle([p], delay_per_cm=-1.0), "delay_per_cm"),
            (lambda p: SolidAngle([p], divisions=0), "divisions"),
            (lambda p: SolidAngle([p.replace(shares=(0.7, 0.7))]), "shares of panel 0 sum to 1.4, above 1"),
            (lambda p: SolidAngle.ring(MODULE0, tiles=0), "tiles"),
            (lambda p: p.replace(detection=1.5), "detection"),
            (lambda p: p.replace(size=(0.0, 1.0)), "size"),
            (lambda p: SolidAngle([p]).check(MODULE0, 48), "has 1 channels, the light readout 48"),
            (lambda p: SolidAngle.ring(two_sizes()), "differ in size"),
        ],
    )
    def test_refuses(self, make, message):
        with pytest.raises(ValueError, match=message):
            make(Panel(centre=(0.0, 1.0, 1.0), normal="along", size=(1.0, 1.0)))


def two_sizes():
    small = TPC(anode=100.0, cathode=90.0, y=(-1.0, 1.0), z=(-1.0, 1.0), ny=20, nx=20)
    large = TPC(anode=0.0, cathode=30.0, y=(-1.0, 1.0), z=(-1.0, 1.0), ny=20, nx=20)
    return Detector(name="two sizes", tpcs=(large, small), pixel_pitch=0.1)


def random_table(shape=(4, 5, 3, 6), **options):
    generator = torch.Generator().manual_seed(3)
    vis = 0.9 / shape[3] * torch.rand(*shape, dtype=torch.float64, generator=generator)
    t0 = 5 * torch.rand(*shape, dtype=torch.float64, generator=generator)
    profile = torch.rand(*shape, 7, dtype=torch.float64, generator=generator)
    return VisibilityTable(vis, t0, t0 + 1, profile, **options)


def middles(table, size):
    """The middles of the voxels of a table that spans a TPC with its margin, in the order of its storage."""
    axes = [-0.02 + (size[k] + 0.04) * (torch.arange(n).double() + 0.5) / n for k, n in enumerate(table.vis.shape[:3])]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).double()


class TestTable:
    @pytest.mark.parametrize("interpolation", ["nearest", "trilinear"])
    def test_gives_back_its_voxels(self, interpolation):
        table = random_table(interpolation=interpolation)
        at = middles(table, SIZE)
        seen = table(at, SIZE.expand_as(at))
        assert_close(seen.share, table.vis.flatten(0, 2).T, rtol=1e-10, atol=0)
        assert_close(seen.delay, 1e-3 * table.t0.flatten(0, 2).T, rtol=1e-10, atol=0)

    def test_beyond_the_outermost_voxels_it_is_constant(self):
        at = torch.tensor([[-5.0, -5.0, -5.0], [999.0, 999.0, 999.0]], dtype=torch.float64)
        for interpolation in ("nearest", "trilinear"):
            table = random_table(interpolation=interpolation)
            share = table(at, SIZE.expand_as(at)).share
            assert_close(share, torch.stack((table.vis[0, 0, 0], table.vis[-1, -1, -1]), 1))

    def test_trilinear_is_exact_for_a_linear_field(self):
        table = random_table(interpolation="trilinear")
        at = middles(table, SIZE).reshape(*table.vis.shape[:3], 3)
        slope = torch.tensor([1e-3, 2e-4, 3e-3], dtype=torch.float64)
        table.vis.copy_((at @ slope)[..., None].expand_as(table.vis))
        low, high = at[0, 0, 0], at[-1, -1, -1]
        points = low + (high - low) * torch.rand(100, 3, dtype=torch.float64)
        assert_close(table(points, SIZE.expand_as(points)).share[0], points @ slope, rtol=1e-11, atol=1e-13)

    def test_voxels_are_those_of_larnd_sim(self):
        """Its rule (lightLUT.py, get_voxel) in its frame: x and z swapped, y from the top, odd TPCs turned in x."""
        x, y, z = (torch.rand(3, 400, dtype=torch.float64) - 0.5) * torch.tensor([[60.0], [124.0], [62.0]]).double()
        x = torch.where(x.abs() < 0.2, 1.0, x)
        points = torch.stack((x, y, z), 1)
        tpc = MODULE0.tpc_of(points)
        shape = torch.tensor([14, 26, 8])
        number = torch.arange(14 * 26 * 8, dtype=torch.float64).reshape(14, 26, 8, 1) / 1e4
        table = VisibilityTable(number.flip(1), number)  # `number` counts in the file's order, where y falls
        rule = torch.empty(400, 3, dtype=torch.long)
        for i, (px, py, pz) in enumerate(points.tolist()):
            plane = MODULE0.tpcs[int(tpc[i])]
            low, high = torch.tensor([plane.z[0], plane.y[0], plane.anode]), torch.tensor([plane.z[1], plane.y[1], 0.0])
            high[2] = plane.cathode
            width = high - low
            turned = plane.cathode < plane.anode
            along = (high[0] - pz if turned else pz - low[0]) / width[0]
            rule[i] = (torch.stack((along, (high[1] - py) / width[1], (px - low[2]) / width[2])) * shape).long()
        size = frame_size(MODULE0)[tpc]
        ours = (table(to_frame(points, tpc, MODULE0), size).share[0] * 1e4).round().long()
        theirs = (rule[:, 0] * 26 + rule[:, 1]) * 8 + rule[:, 2]
        # Their margin of 0.02 cm is left out of the rule above: 1 point in 100 lies so near to a border of voxels.
        assert (ours == theirs).double().mean() > 0.97

    def test_profile_spreads_what_arrives(self):
        table = random_table(delay="profile")
        at = inside(5)
        seen = table(at, SIZE.expand(5, 3))
        assert seen.profile.shape == (6, 5, 7)
        assert_close(seen.profile.sum(-1), torch.ones(6, 5, dtype=torch.float64))
        assert_close(seen.delay, torch.full((6, 5), 0.5e-3, dtype=torch.float64))
        mean = random_table(delay="mean")(at, SIZE.expand(5, 3))
        assert_close(mean.delay, random_table()(at, SIZE.expand(5, 3)).delay + 1e-3)

    def test_gradients_with_position_and_map(self):
        table = random_table(interpolation="trilinear")
        table.vis = torch.nn.Parameter(table.vis)
        at = inside(6).requires_grad_()

        def function(at, vis):
            seen = torch.func.functional_call(table, {"vis": vis}, (at, SIZE.expand(6, 3)))
            return seen.share, seen.delay

        assert gradcheck(function, (at, table.vis), atol=1e-8, rtol=1e-6)

    def test_is_read_and_written_in_the_rivals_frame(self, tmp_path):
        """y runs from the top in the file; float32."""
        table = random_table(extent=((-1.0, 63.0), (-1.0, 125.0), (-1.0, 31.0)), tpcs=(0, 1))
        table.write(tmp_path / "lut.npz")
        stored = np.load(tmp_path / "lut.npz")["arr"]
        assert stored.dtype.names == ("vis", "t0", "t0_avg", "time_dist")
        assert_close(torch.from_numpy(stored["vis"][1, 0, 2]).double(), table.vis[1, -1, 2], rtol=1e-6, atol=1e-8)
        back = VisibilityTable.read(tmp_path / "lut.npz")
        assert back.extent == table.extent and back.tpcs == (0, 1)
        for name in ("vis", "t0", "t0_avg", "time_dist"):
            assert_close(getattr(back, name), getattr(table, name), rtol=1e-6, atol=1e-8)
        np.save(tmp_path / "lut.npy", stored)
        assert_close(VisibilityTable.read(tmp_path / "lut.npy").vis, back.vis)

    def test_of_a_model_agrees_with_it_at_the_middles(self):
        model = SolidAngle.module0()
        table = VisibilityTable.of(model, MODULE0, (7, 13, 4), interpolation="trilinear")
        at = middles(table, SIZE)
        there, here = model(at, at), table(at, SIZE.expand_as(at))
        assert_close(here.share, there.share, rtol=1e-10, atol=1e-16)
        assert_close(here.delay, there.delay, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("vis", 1.2, r"vis of voxel \(1, 2, 0\), channel 3 is 1.2, expected at most 1"),
            ("vis", -1e-9, r"vis of voxel \(1, 2, 0\), channel 3 is -1e-09, expected a number >= 0"),
            ("vis", float("nan"), "is nan, expected a number >= 0"),
            ("vis", 0.9, r"the sum of vis over the channels of voxel \(1, 2, 0\)"),
            ("t0", -1.0, r"t0 of voxel \(1, 2, 0\), channel 3 is -1, expected a finite time >= 0"),
            ("t0_avg", float("inf"), "t0_avg of voxel"),
            ("time_dist", -1.0, "time_dist of voxel"),
        ],
    )
    def test_refuses_values_without_meaning(self, name, value, message):
        good = random_table()
        values = {k: getattr(good, k).clone() for k in ("vis", "t0", "t0_avg", "time_dist")}
        values[name][1, 2, 0, 3] = value
        with pytest.raises(ValueError, match=message):
            VisibilityTable(**values)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"extent": ((0.0, 60.0), (0.0, 130.0), (0.0, 31.0))}, "reach from 0.0 to 60.0 cm along, TPC 0 of module0"),
            ({"extent": ((0.0, 70.0), (0.0, 130.0), (0.5, 31.0))}, "cm depth, TPC 0"),
            ({"tpcs": (0,)}, r"for TPCs \[0\], module0 has TPC 1 too"),
            ({}, "the table has 6 channels, the light readout 48"),
        ],
    )
    def test_refuses_another_detector(self, options, message):
        table = random_table(**options)
        with pytest.raises(ValueError, match=message):
            table.check(MODULE0, 6 if options else 48)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"interpolation": "cubic"}, "interpolation must be one of"),
            ({"delay": "last"}, "delay must be one of"),
            ({"extent": ((0.0, 1.0),)}, "extent must be three pairs"),
            ({"extent": ((0.0, 1.0), (1.0, 0.0), (0.0, 1.0))}, "extent must be three pairs"),
        ],
    )
    def test_refuses_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            random_table(**options)

    def test_refuses_shapes(self):
        vis = torch.zeros(2, 2, 2, 3)
        with pytest.raises(ValueError, match="vis must be"):
            VisibilityTable(vis[0], vis[0])
        with pytest.raises(ValueError, match="t0 has shape"):
            VisibilityTable(vis, vis[:1])
        with pytest.raises(ValueError, match="time_dist must be"):
            VisibilityTable(vis, vis, vis, vis)
        with pytest.raises(ValueError, match="delay must be one of"):
            VisibilityTable(vis, vis, delay="profile")

    def test_refuses_foreign_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            VisibilityTable.read(tmp_path / "none.npz")
        (tmp_path / "text.npz").write_text("vis")
        with pytest.raises(ValueError, match=r"text.npz: not a readable"):
            VisibilityTable.read(tmp_path / "text.npz")
        np.savez(tmp_path / "other.npz", lut=np.zeros(3))
        with pytest.raises(ValueError, match=r"other.npz: has no array 'arr', only \['lut'\]"):
            VisibilityTable.read(tmp_path / "other.npz")
        np.save(tmp_path / "plain.npy", np.zeros((2, 2, 2, 3)))
        with pytest.raises(ValueError, match=r"needs the fields vis and t0, got float64"):
            VisibilityTable.read(tmp_path / "plain.npy")
        table = np.ones((2, 2, 2, 3), dtype=[("vis", "f4"), ("t0", "f4")])
        table["vis"] = 1.5
        np.savez(tmp_path / "bright.npz", arr=table)
        with pytest.raises(ValueError, match=r"bright.npz: visibility: vis of voxel \(0, 0, 0\), channel 0 is 1.5"):
            VisibilityTable.read(tmp_path / "bright.npz")
        whole = (tmp_path / "bright.npz").read_bytes()
        (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"cut.npz: not a readable"):
            VisibilityTable.read(tmp_path / "cut.npz")
