"""The detector, built in and from every file at hand."""

import copy
import re

import numpy as np
import pytest
import torch
import yaml
from conftest import shared
from hepops.lartpc import TPC, Detector, FrontEnd, Module, Parameters, read_thresholds
from hypothesis import given
from hypothesis import strategies as st

MODULE0 = Detector.module0()
FILES = "data/lartpc"


def from_files(properties, layout, **options):
    return Detector.from_yaml(
        shared(f"{FILES}/detector/{properties}.yaml"), shared(f"{FILES}/layouts/{layout}.yaml"), **options
    )


def layout(name):
    return f"DUNE/multi_tile_layout-{name}"


# ---- geometry


def test_module0_is_that_of_larnd_sim():
    """TPC_BORDERS of larnd-sim, rows (x, y, z) of its frame, which is (z, y, x) of ours; z is (anode, cathode)."""
    borders = np.load(shared("golden/lartpc/dune_cudasim.npz"))["TPC_BORDERS"]
    ours = [[t.z, t.y, (t.anode, t.cathode)] for t in MODULE0.tpcs]
    np.testing.assert_allclose(ours, borders, rtol=0, atol=1e-12)
    assert [(t.nx, t.ny, t.direction) for t in MODULE0.tpcs] == [(140, 280, 1.0), (140, 280, -1.0)]


def test_layout_v4_is_that_of_larnd_sim_jax():
    golden = np.load(shared("golden/lartpc/jax_lut.npz"))
    detector = from_files("module0", "multi_tile_layout-2.4.16_v4")
    ours = [[t.z, t.y, (t.anode, t.cathode)] for t in detector.tpcs]
    np.testing.assert_allclose(ours, golden["tpc_borders"], rtol=0, atol=2e-6)  # float32
    assert detector.pixel_pitch == golden["pixel_pitch"]
    assert [t.direction for t in detector.tpcs] == [-1.0, 1.0]  # the planes have changed sides
    assert detector.drift_length == pytest.approx(30.431, abs=1e-12)


def test_the_built_in_module0_is_that_of_its_files():
    detector = from_files("module0", layout("2.4.16"))
    assert detector.replace(ignored=(), nominal=Parameters()) == MODULE0
    assert detector.nominal == Parameters(w_ion=1 / 4.237e4)  # MeVToElectrons
    assert detector.ignored == ("time_interval", "vdrift")


def test_pixels_are_larnd_sims():
    """active_pixels of four segments: ix + 140 (iy + 280 plane)."""
    golden = np.load(shared("golden/lartpc/dune_cudasim.npz"), allow_pickle=True)
    tracks = golden["tracks_drifted"][golden["cur_sel"]]
    for end, column in (("start", 0), ("end", 1)):
        points = torch.tensor([[t[f"z_{end}"], t[f"y_{end}"], t[f"x_{end}"]] for t in tracks], dtype=torch.float64)
        ids = MODULE0.pixel_id(*MODULE0.pixel_of(points))
        assert ids.tolist() == golden["active_pixels"][:, column].tolist()


# ---- every file


@pytest.mark.parametrize("properties", ["module0", "module0_norng", "DUNE/module0", "DUNE/2x2", "DUNE/2x2_no_modvar"])
@pytest.mark.parametrize("version", ["2.0.16", "2.1.16", "2.2.16", "2.3.16", "2.4.16", "2.5.16"])
def test_every_layout_of_argoncube_is_read(properties, version):
    detector = from_files(properties, layout(version))
    pixels = 160 if version == "2.5.16" else 140
    for tpc in detector.tpcs:
        assert (tpc.nx, tpc.ny) == (pixels, 2 * pixels)
        assert tpc.drift_length == pytest.approx(30.27225, abs=1e-9)
        assert tpc.z[1] - tpc.z[0] == pytest.approx(62.076, abs=0.003)
    assert len(detector.tpcs) == (8 if "2x2" in properties else 2)
    assert Detector.from_json(detector.to_json()) == detector


def test_two_by_two():
    detector = from_files("DUNE/2x2", layout("2.4.16"))
    assert [t.module for t in detector.tpcs] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [t.anode for t in detector.tpcs[:3]] == pytest.approx([33.5 - 30.431, 33.5 + 30.431, 33.5 - 30.431])
    assert [sum(t.z) / 2 for t in detector.tpcs[::2]] == pytest.approx([33.5, -33.5, 33.5, -33.5])
    frontend = detector.frontend
    assert (frontend.threshold, frontend.gain, frontend.v_cm, frontend.v_ref) == (5000, 4.522e-3, 478.1, 1568)
    assert "light_gain" in detector.ignored and "tile_map" in detector.ignored


LAYOUTS_2X2 = ("2.4.16", "2.4.16", "2.5.16", "2.4.16")


def two_by_two(versions=LAYOUTS_2X2, **options):
    layouts = [shared(f"{FILES}/layouts/{layout(v)}.yaml") for v in versions]
    return Detector.from_yaml(shared(f"{FILES}/detector/DUNE/2x2.yaml"), layouts, **options)


def test_two_by_two_with_its_own_layouts():
    """Module 3 has smaller pixels than the others."""
    detector = two_by_two()
    assert [detector.pitch_of(i) for i in range(8)] == [0.4434] * 4 + [0.387975] * 2 + [0.4434] * 2
    assert detector.geometry.pitch.tolist() == [detector.pitch_of(i) for i in range(8)]
    assert detector.modules == () and not detector.is_uniform
    third = two_by_two(module=3)
    assert (third.pixel_pitch, len(third.tpcs), third.tpcs[0].module, third.tpcs[0].nx) == (0.387975, 2, 3, 160)
    assert third.tpcs[0].anode == pytest.approx(-33.5 - 30.431)
    assert detector.module(3) == third and third.is_uniform
    with pytest.raises(ValueError, match=r"module must be one of \[1, 2, 3, 4\], got 5"):
        two_by_two(module=5)
    with pytest.raises(ValueError, match=r"module must be one of \[1, 2, 3, 4\], got 5"):
        detector.view(5)
    with pytest.raises(ValueError, match="one for each of 4 modules, got 2"):
        two_by_two(LAYOUTS_2X2[:2])


def test_the_layout_of_another_module_is_refused():
    wrong = r"2\.5\.16.yaml: its pitch of 0.387975 cm is not that of module 2.*in the order of the modules"
    with pytest.raises(ValueError, match=wrong):
        two_by_two(("2.4.16", "2.5.16", "2.4.16", "2.4.16"))


def test_pixels_of_mixed_pitch_are_found_again():
    detector = Detector.two_by_two()
    tpc, ix, iy = torch.tensor([0, 4, 5, 7]), torch.tensor([3, 159, 0, 139]), torch.tensor([279, 319, 7, 0])
    centre = detector.pixel_centre(tpc, ix, iy)
    centre[:, 0] += 0.1 * detector.geometry.direction[tpc]
    for got, expected in zip(detector.pixel_of(centre), (tpc, ix, iy), strict=True):
        assert got.tolist() == expected.tolist()
    for got, expected in zip(detector.pixel_from_id(detector.pixel_id(tpc, ix, iy)), (tpc, ix, iy), strict=True):
        assert got.tolist() == expected.tolist()


def test_built_ins_are_those_of_their_files():
    two, nd = two_by_two(), from_files("DUNE/ndlar-module", layout("3.0.40"))
    for built_in, file in ((Detector.two_by_two(), two), (Detector.nd_lar(), nd)):
        assert built_in == file.replace(ignored=(), name=built_in.name)
    fsd = Detector.fsd()
    assert [(t.nx, t.ny, t.drift_length, t.direction) for t in fsd.tpcs] == [(256, 800, 50.4, 1), (256, 800, 50.4, -1)]
    last = nd.tpcs[2 * 17]  # the module at x = 0 in the middle of the seven
    shift = (last.y[0] - fsd.tpcs[0].y[0], last.z[0] - fsd.tpcs[0].z[0])
    assert (last.anode, last.cathode) == (fsd.tpcs[0].anode, fsd.tpcs[0].cathode)
    assert shift == pytest.approx((-60.929, 665.7559))


def test_nd_lar():
    detector = from_files("DUNE/ndlar-module", layout("3.0.40"))
    assert len(detector.tpcs) == 70 and detector.num_pixels == 70 * 256 * 800
    assert {(t.nx, t.ny) for t in detector.tpcs} == {(256, 800)}
    assert {round(t.drift_length, 9) for t in detector.tpcs} == {50.4}
    assert (detector.tpcs[0].anode, detector.tpcs[0].cathode) == (-350.4, -300.0)
    assert (detector.tpcs[0].module, detector.tpcs[-1].module) == (0, 34)
    last = detector.pixel_id(torch.tensor(69), torch.tensor(255), torch.tensor(799))
    assert last.item() == detector.num_pixels - 1
    inside = torch.tensor([[-320.0, 0, 450], [320, 0, 900], [0, 200, 450]])
    assert detector.tpc_of(inside).tolist() == [0, 69, -1]
    assert Detector.from_json(detector.to_json()) == detector


def test_both_dialects_say_the_same(tmp_path):
    """larnd-sim's names and larnd-sim-jax's."""
    common = dict(drift_length=30.27225, lifetime=2000.0, long_diff=5e-6, tran_diff="9e-6")
    new = common | dict(
        e_field=[0.48], tpc_offsets=[[0, 1, 0]], discrimination_threshold=6e3, v_cm=300, larpix_gain=5e-3
    )
    old = common | dict(eField=0.48, tpc_centers=[[0, 1, 0]] * 2, DISCRIMINATION_THRESHOLD=6e3, V_CM=300, GAIN=5e-3)
    a, b = (read(tmp_path, properties=p) for p in (new, old))
    assert a == b and a.nominal == Parameters(
        efield=0.48, lifetime=2000, longitudinal_diffusion=5e-6, transverse_diffusion=9e-6
    )
    assert a.frontend == FrontEnd(threshold=6000, v_cm=300, gain=5e-3)
    assert a.tpcs[0].y == (-61.076, 63.076)


# ---- bad files

LAYOUT = {
    "pixel_pitch": 4.434,
    "chip_channel_to_position": {1000 * (i + 1) + j: [i, j] for i in range(70) for j in range(70)},
    "tile_positions": {
        i + 1: [x, y, z]
        for i, (x, y, z) in enumerate(
            (x, y, z) for x in (-304.31, 304.31) for y in (465.57, 155.19, -155.19, -465.57) for z in (-155.19, 155.19)
        )
    },
    "tile_orientations": {i + 1: [1 if i < 8 else -1, 1, 1] for i in range(16)},
    "tile_indeces": {i + 1: [1 + i // 8, 1 + i % 8] for i in range(16)},
}
PROPERTIES = {"tpc_offsets": [[0, 0, 0]], "drift_length": 30.27225}


def read(folder, properties=None, layout=None, **options):
    paths = []
    for name, content in (("detector", properties or PROPERTIES), ("layout", layout or LAYOUT)):
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(yaml.dump(content))
    return Detector.from_yaml(*paths, **options)


def without(values, key):
    return {k: v for k, v in values.items() if k != key}


def test_the_made_up_files_are_module0(tmp_path):
    assert read(tmp_path).tpcs == MODULE0.tpcs


def test_the_drift_length_is_the_layouts_then_the_properties_then_half_the_gap(tmp_path):
    assert read(tmp_path, layout=LAYOUT | {"drift_length": 300.0}).drift_length == pytest.approx(30.0)
    assert read(tmp_path).drift_length == pytest.approx(30.27225)
    assert read(tmp_path, properties=without(PROPERTIES, "drift_length")).drift_length == pytest.approx(30.431)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"liftime": 1}, r"detector.yaml: unknown key 'liftime', did you mean 'lifetime'\?"),
        ({"E_fields": 1}, r"unknown key 'E_fields', did you mean 'e_field'\?"),
        ({"quux": 1}, "unknown key 'quux', known are"),
        ({"lifetime": -3}, r"detector.yaml: Parameters: lifetime must lie in \[1, 1e\+09\] us, got -3"),
        ({"lifetime": [1, 2]}, "lifetime must hold 1 or 1 values, got 2"),
        ({"v_ref": 100}, "FrontEnd: v_ref must exceed v_cm"),
        ({"adc_counts": 100}, "adc_counts must be a power of 2, got 100"),
        ({"tpc_offsets": []}, "tpc_offsets must be a list"),
        ({"tpc_offsets": [[0, 0]]}, r"tpc_offsets must hold \[x, y, z\]"),
        ({"tpc_offsets": [["a", 0, 0]]}, "tpc_offsets must be a number, got 'a'"),
        ({"lifetime": 2000, "Lifetime": 3000}, "a key stands twice"),
        ({"module_to_tpcs": {1: [0, 1], 2: [2, 3]}}, "module_to_tpcs must name 1 modules"),
    ],
)
def test_bad_properties_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, properties=PROPERTIES | change)
    assert "\n" not in str(error.value)


def test_modules_keep_what_they_have_of_their_own(tmp_path):
    two = PROPERTIES | {"tpc_offsets": [[0, 0, 0], [0, 0, 70]], "e_field": [0.5, 0.51]}
    two |= {"discrimination_threshold": [5000, 6000], "lifetime": [2000, 2000]}
    detector = read(tmp_path, properties=two)
    (second,) = detector.modules
    assert (second.number, second.nominal.efield, second.frontend.threshold) == (2, 0.51, 6000)
    assert (detector.nominal.efield, detector.frontend.threshold, detector.nominal.lifetime) == (0.5, 5000, 2000)
    assert Detector.from_json(detector.to_json()) == detector
    alone = read(tmp_path, properties=two, module=2)
    assert alone.nominal.efield == 0.51 and alone.is_uniform and not detector.is_uniform
    assert detector.module(2) == alone and detector.view(2).nominal == alone.nominal
    with pytest.raises(ValueError, match=r"modules differ in clock_cycle, \[0.1, 0.05\]: choose one with module="):
        read(tmp_path, properties=two | {"clock_cycle": [0.1, 0.05]})


def test_a_layout_has_a_channel_for_every_pixel(tmp_path):
    full = LAYOUT["chip_channel_to_position"]
    for table, message in (
        ({k: v for k, v in full.items() if v != [3, 4]}, r"1 of 70 x 70 pixels with no channel, the first is \[3, 4\]"),
        (full | {99999: [0, 0]}, r"1 of 70 x 70 pixels with more than one channel, the first is \[0, 0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path, layout=LAYOUT | {"chip_channel_to_position": table})


def test_modules_fit_together():
    box = dict(y=(0.0, 4.0), z=(0.0, 2.0), ny=4, nx=2)
    first, second = TPC(anode=0.0, cathode=10.0, **box), TPC(anode=5.0, cathode=15.0, module=2, **box)
    with pytest.raises(ValueError, match="TPCs 0 and 1 of modules 1 and 2 overlap by 5 x 4 x 2 cm"):
        Detector(name="box", tpcs=(first, second), pixel_pitch=1.0)
    second = second.replace(anode=20.0)
    for options, message in (
        (dict(modules=(Module(number=3),)), r"no TPC is of module 3, only of \[1, 2\]"),
        (dict(modules=(Module(number=2), Module(number=2))), "module 2 stands twice"),
        (dict(tpcs=(first, second.replace(module=1, pitch=0.999))), r"module 1 differ in pixel pitch, \[0.999, 1.0\]"),
        (dict(tpcs=(first, second.replace(pitch=0.5))), "TPC 1: 2 pixels of 0.5 cm do not make 2.0000 cm along z"),
    ):
        with pytest.raises(ValueError, match=message):
            Detector(**(dict(name="box", tpcs=(first, second), pixel_pitch=1.0) | options))


def test_bad_layouts_are_named(tmp_path):
    for key in LAYOUT:
        with pytest.raises(ValueError, match=f"layout.yaml: {key} is missing"):
            read(tmp_path, layout=without(LAYOUT, key))
    with pytest.raises(ValueError, match="unknown key 'pixel_pich', did you mean 'pixel_pitch'"):
        read(tmp_path, layout=LAYOUT | {"pixel_pich": 1})
    mixed = copy.deepcopy(LAYOUT)
    mixed["tile_orientations"][1] = [-1, 1, 1]
    with pytest.raises(ValueError, match="tile_orientations of anode 1 must be all 1 or all -1"):
        read(tmp_path, layout=mixed)
    bent = copy.deepcopy(LAYOUT)
    bent["tile_positions"][1][0] = -300.0
    with pytest.raises(ValueError, match="tiles of one anode must share x"):
        read(tmp_path, layout=bent)
    with pytest.raises(ValueError, match=r"TPC 0: 140 pixels of 0.3 cm do not make .* cm along z"):
        read(tmp_path, layout=LAYOUT | {"pixel_pitch": 3.0})
    with pytest.raises(ValueError, match="pixel_pitch must be a number, got 'wide'"):
        read(tmp_path, layout=LAYOUT | {"pixel_pitch": "wide"})


def cut(key):
    """The table without its first entry."""
    return dict(list(LAYOUT[key].items())[1:])


ODD = [None, [], {}, "text", 3, [1, 2], {1: None}, {1: "a"}, {1: []}, {1: {}}]
TABLES = ["chip_channel_to_position", "tile_positions", "tile_orientations", "tile_indeces"]


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize("key", [*TABLES, "tpc_centers"])
def test_layouts_of_another_shape_are_named(tmp_path, key, value):
    if key == "tpc_centers" and value == {}:
        pytest.skip("no centres are none")
    with pytest.raises(ValueError, match=f"layout.yaml: {key}") as error:
        read(tmp_path, layout=LAYOUT | {key: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["tile_orientations", "tile_indeces"])
def test_a_tile_without_entry_is_named(tmp_path, key):
    with pytest.raises(ValueError, match=f"layout.yaml: {key} has no entry for tile 1$"):
        read(tmp_path, layout=LAYOUT | {key: cut(key)})


@pytest.mark.parametrize("value", [None, [], {}, "text", [None], [[1]], [{}], 0, -1], ids=repr)
@pytest.mark.parametrize(
    "key", ["MeVToElectrons", "lifetime", "clock_cycle", "adc_counts", "drift_length", "tpc_offsets"]
)
def test_properties_of_another_shape_are_named(tmp_path, key, value):
    if key == "drift_length" and value in (None, 0, -1):
        pytest.skip("taken from the tiles, or refused by the record")
    with pytest.raises(ValueError, match=key if key != "clock_cycle" else "clock_cycle|tick") as error:
        read(tmp_path, properties=PROPERTIES | {key: value})
    if key != "clock_cycle":
        assert "detector.yaml: " in str(error.value)
    assert "\n" not in str(error.value)


def test_whatever_else_is_broken_names_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr("hepops.lartpc.detector_yaml._tpcs", lambda *_: {}["x"])
    with pytest.raises(ValueError, match=r"detector.yaml, .*layout.yaml: make no detector \(KeyError: 'x'\)"):
        read(tmp_path)


def test_files_that_are_no_yaml(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [1, 2\nb: }")
    (tmp_path / "b.yaml").write_text("just text")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    for name, message in (
        ("a", "not a YAML file"),
        ("b", "must hold keys and values, got str"),
        ("c", "not a YAML file"),
    ):
        with pytest.raises(ValueError, match=f"{name}.yaml: {message}") as error:
            Detector.from_yaml(tmp_path / f"{name}.yaml", tmp_path / "layout.yaml")
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError):
        Detector.from_yaml(tmp_path / "none.yaml", tmp_path / "layout.yaml")


# ---- the records


def test_records_refuse_what_has_no_meaning():
    tpc = dict(anode=0.0, cathode=10.0, y=(0.0, 4.0), z=(0.0, 2.0), ny=4, nx=2)
    for change, message in (
        (dict(cathode=0.0), "TPC: anode and cathode must differ, got x = 0.0 cm for both"),
        (dict(y=(4.0, 0.0)), r"TPC: y must be \(low, high\)"),
        (dict(nx=0), "TPC: nx: Input should be greater than 0"),
        (dict(depth=3), "TPC: unknown name 'depth', did you mean 'pitch'"),
    ):
        with pytest.raises(ValueError, match=message):
            TPC(**tpc | change)
    with pytest.raises(ValueError, match=r"TPC 0: 2 pixels of 2\.0 cm do not make 2.0000 cm along z"):
        Detector(name="a", tpcs=(TPC(**tpc),), pixel_pitch=2.0)
    with pytest.raises(ValueError, match="tpcs: Tuple should have at least 1 item"):
        Detector(name="a", tpcs=(), pixel_pitch=1.0)
    with pytest.raises(ValueError, match="'cathode' is missing"):
        Detector(name="a", tpcs=[{k: v for k, v in tpc.items() if k != "cathode"}], pixel_pitch=1.0)
    with pytest.raises(ValueError, match="frozen"):
        MODULE0.pixel_pitch = 1.0


def test_derived_numbers():
    assert (FrontEnd().integration, FrontEnd().adc_counts) == (18, 256)
    assert MODULE0.num_pixels == 78400 and MODULE0.drift_length == pytest.approx(30.27225)


def test_geometry_survives_a_copy():
    """What is cached does not travel to a changed copy, nor into files."""
    MODULE0.geometry  # noqa: B018
    shorter = MODULE0.replace(tpcs=MODULE0.tpcs[:1])
    assert len(shorter.geometry.anode) == 1 and "geometry" not in MODULE0.to_dict()
    assert Detector.from_dict(MODULE0.to_dict()) == MODULE0


# ---- points and pixels

points = st.tuples(st.floats(-40, 40), st.floats(-70, 70), st.floats(-40, 40))


@given(st.integers(0, 1), st.integers(0, 139), st.integers(0, 279))
def test_a_pixels_centre_lies_in_it(tpc, ix, iy):
    where = torch.tensor([tpc]), torch.tensor([ix]), torch.tensor([iy])
    centre = MODULE0.pixel_centre(*where)
    assert all(torch.equal(a, b) for a, b in zip(MODULE0.pixel_of(centre), where, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(MODULE0.pixel_from_id(MODULE0.pixel_id(*where)), where, strict=True))
    assert MODULE0.drift_distance(centre).item() == 0.0
    assert centre.dtype == torch.float64
    assert centre[0, 1].item() == pytest.approx(-62.076 + (iy + 0.5) * 0.4434, abs=1e-13)
    assert centre[0, 2].item() == pytest.approx(-31.038 + (ix + 0.5) * 0.4434, abs=1e-13)


@given(points)
def test_a_point_lies_within_half_a_pitch_of_its_pixel(point):
    point = torch.tensor([point], dtype=torch.float64)
    tpc, ix, iy = MODULE0.pixel_of(point)
    if tpc.item() < 0:
        assert ix.item() == iy.item() == -1 and MODULE0.drift_distance(point).isnan()
    else:
        off = (MODULE0.pixel_centre(tpc, ix, iy) - point)[0, 1:].abs()
        assert off.max().item() <= MODULE0.pixel_pitch / 2 + 1e-9
        distance = MODULE0.drift_distance(point)
        assert -0.02 - 1e-9 <= distance.item() <= 30.27225 + 0.02 + 1e-9
        torch.testing.assert_close(MODULE0.drift_position(distance, tpc), point[:, 0])


def test_borders_and_margin():
    at = torch.tensor(
        [[-30.431, 0, 0], [-30.445, 0, 0], [-30.46, 0, 0], [-0.15, 0, 0], [0.0, 0, 0], [float("nan"), 0, 0]],
        dtype=torch.float64,
    )
    assert MODULE0.tpc_of(at).tolist() == [0, 0, -1, 0, -1, -1]
    assert MODULE0.tpc_of(at, margin=0.0).tolist() == [0, -1, -1, -1, -1, -1]
    assert MODULE0.drift_distance(at)[1].item() == pytest.approx(-0.014)
    assert MODULE0.pixel_of(torch.tensor([[-10.0, 62.08, 31.04]]))[1:] == (torch.tensor([140]), torch.tensor([280]))


def test_the_drift_distance_has_the_drifts_sign_for_a_gradient():
    x = torch.tensor([[-10.0, 0, 0], [10, 0, 0]], dtype=torch.float64, requires_grad=True)
    MODULE0.drift_distance(x).sum().backward()
    assert x.grad.tolist() == [[1, 0, 0], [-1, 0, 0]]


def test_points_on_every_device_and_of_any_shape(device, dtype):
    x = torch.tensor([[-10.0, 1, 1], [10, 2, 2], [0, 0, 99]], device=device, dtype=dtype)
    many = x.reshape(1, 3, 1, 3).expand(2, 3, 5, 3)
    assert MODULE0.tpc_of(many).shape == (2, 3, 5)
    one, all_of_them = MODULE0.pixel_of(x), MODULE0.pixel_of(many)
    for a, b in zip(one, all_of_them, strict=True):
        assert a.device.type == device and torch.equal(b[1, :, 4], a)
    assert MODULE0.drift_distance(x).dtype == dtype


# ---- thresholds


def test_thresholds_of_module0_are_in_electrons_and_in_our_order():
    path = shared(f"{FILES}/thresholds/module0-fake_thresholds-6ke.npz")
    thresholds = read_thresholds(path, MODULE0)
    assert thresholds.shape == (78400,)
    assert thresholds.mean().item() == pytest.approx(5884, abs=1) and thresholds.std().item() == pytest.approx(
        593, abs=1
    )
    raw = np.load(path)
    for tpc, ix, iy in ((0, 0, 0), (0, 139, 5), (1, 17, 279)):
        value = raw["values"][raw["keys"] == ix + 140 * (iy + 280 * tpc)][0]
        place = MODULE0.pixel_id(torch.tensor(tpc), torch.tensor(ix), torch.tensor(iy))
        assert thresholds[place].item() == pytest.approx(value / 1.602176634e-19, rel=1e-12)


def table(path, **changes):
    columns = dict(keys=np.array([3, 1]), values=np.array([5000.0, 6000.0]), default=np.array([7000.0])) | changes
    np.savez(path, **{name: column for name, column in columns.items() if column is not None})
    return path.with_suffix(".npz")


def test_thresholds_fall_back_to_the_default(tmp_path):
    thresholds = read_thresholds(table(tmp_path / "a"), MODULE0)
    assert thresholds[:4].tolist() == [7000, 6000, 7000, 5000] and thresholds[4:].unique().tolist() == [7000]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(keys=None), "not a table of thresholds"),
        (dict(keys=np.array([1, 78400])), "pixel id 78400 is outside module0 of 78400 pixels"),
        (dict(keys=np.array([1, -1])), "pixel id -1 is outside"),
        (dict(keys=np.array([1, 1])), "a pixel id stands twice"),
        (dict(keys=np.array([1, 2, 3])), "must be equally long lists"),
        (dict(keys=np.array([1.0, 2.0])), "must be equally long lists"),
        (dict(values=np.array([5000.0, np.nan])), r"thresholds must be positive \[e\], got nan for pixel id 1"),
        (dict(values=np.array([5000.0, -1.0])), "thresholds must be positive"),
    ],
)
def test_bad_thresholds_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_thresholds(table(tmp_path / "a", **changes), MODULE0)


def test_a_threshold_file_that_is_none(tmp_path):
    whole = table(tmp_path / "a").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(ValueError, match=re.escape("b.npz: not a table of thresholds")):
            read_thresholds(tmp_path / "b.npz", MODULE0)
    with pytest.raises(FileNotFoundError):
        read_thresholds(tmp_path / "c.npz", MODULE0)
