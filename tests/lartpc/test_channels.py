"""Channel maps of all layouts at hand, and constants of every channel."""

import copy
import dataclasses
import functools
import json

import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lartpc import TPC, Detector, FrontEnd, Module, Parameters, Segments, Simulator, gun, read_thresholds
from hepops.lartpc.packets import ChannelMap, Channels, Tile, channel_files, read_packets, write_packets
from hepops.lartpc.packets.format import unique_id
from hypothesis import given, settings
from hypothesis import strategies as st

from .packet_files import bench, some_hits

DETECTOR = bench()
MAP = ChannelMap.builtin(DETECTOR)
FILES = [
    ("module0.yaml", "multi_tile_layout-2.4.16_v4.yaml", None, 78400),
    ("module0.yaml", "multi_tile_layout-2.0.16.yaml", None, 78400),
    ("module0.yaml", "multi_tile_layout-2.2.16.yaml", None, 77616),
    ("DUNE/module0.yaml", "DUNE/multi_tile_layout-2.4.16.yaml", None, 78400),
    (
        "DUNE/module0.yaml",
        "DUNE/multi_tile_layout-2.3.16.yaml",
        None,
        77665,
    ),  # 15 chips fewer, of 49 pixels each; above 16
    ("DUNE/2x2.yaml", "DUNE/multi_tile_layout-2.4.16.yaml", None, 4 * 78400),
    ("DUNE/2x2.yaml", "DUNE/multi_tile_layout-2.5.16.yaml", 3, 102400),
]


def files(properties, layout):
    return shared(f"data/lartpc/detector/{properties}"), shared(f"data/lartpc/layouts/{layout}")


@functools.cache  # libyaml takes half a second for a layout
def loaded(properties, layout, module=None):
    """The map of files, and what is in them."""
    paths = files(properties, layout)
    detector = Detector.from_yaml(*paths, module=module)
    channel_map = ChannelMap.from_yaml(*paths, detector=detector, module=module)
    return channel_map, *(channel_files.load(path) for path in paths)


def bijective(channel_map, pixel):
    """Every pixel that is read has a channel of its own, which leads back to it."""
    address = channel_map.address(pixel)
    read = address.chip >= 0
    assert torch.equal(channel_map.pixel(*address)[read], pixel[read])
    ids = unique_id(*(c[read].numpy() for c in address))
    assert len(np.unique(ids)) == len(ids)
    assert bool((channel_map.pixel(*address)[~read] < 0).all())
    return int(read.sum())


# ---- channel maps


@pytest.mark.parametrize("properties, layout, module, channels", FILES)
def test_channels_and_pixels_are_one_to_one(properties, layout, module, channels):
    channel_map = loaded(properties, layout, module)[0]
    assert bijective(channel_map, torch.arange(channel_map.detector.num_pixels)) == channels == channel_map.num_channels


def test_the_near_detector_has_a_channel_for_each_of_14_million_pixels():
    channel_map = ChannelMap.from_yaml(*files("DUNE/ndlar-module.yaml", "DUNE/multi_tile_layout-3.0.40.yaml"))
    assert channel_map.detector.num_pixels == 14_336_000 and channel_map.io_groups == list(range(1, 141))
    every = torch.arange(0, channel_map.detector.num_pixels, 171)  # 171 and the tiles' sides share no factor
    assert bijective(channel_map, every) == len(every)


@pytest.mark.parametrize("module", [None, 2])
def test_larndsims_way_from_a_pixel_to_its_channel(module):
    """Its own steps, with tile_map, rotated tiles and the layout's tables, for random pixels."""
    channel_map, found, table = loaded("DUNE/2x2.yaml", "DUNE/multi_tile_layout-2.4.16.yaml", module)
    pad_of = {tuple(place): pad for pad, place in table["chip_channel_to_position"].items()}
    rng = np.random.default_rng(0)
    for pixel in rng.integers(0, channel_map.detector.num_pixels, 300).tolist():
        tpc, ix, iy = (int(c) for c in channel_map.detector.pixel_from_id(torch.tensor([pixel])))
        number = (module or 1) + tpc // 2
        tile = found["tile_map"][tpc % 2][ix // 70][iy // 70]
        _, up, along = table["tile_orientations"][tile]
        place = (ix % 70 if along > 0 else 69 - ix % 70, iy % 70 if up > 0 else 69 - iy % 70)
        chip, pad = divmod(pad_of[place], 1000)
        group, lane = divmod(table["tile_chip_to_io"][tile][chip], 1000)
        expected = found["module_to_io_groups"][number][group - 1], lane, chip, pad
        assert tuple(int(c) for c in channel_map.address(torch.tensor([pixel]))) == expected


@functools.cache
def whole():
    """The 2x2 of four modules, the third with the layout of smaller pixels."""
    names = [f"DUNE/multi_tile_layout-{v}.yaml" for v in ("2.4.16", "2.4.16", "2.5.16", "2.4.16")]
    properties = shared("data/lartpc/detector/DUNE/2x2.yaml")
    layouts = [shared(f"data/lartpc/layouts/{name}") for name in names]
    return ChannelMap.from_yaml(properties, layouts)


def slower(channel_map, module):
    """The same channels of a detector of which a module is another."""
    changed = copy.copy(channel_map)
    changed.detector = channel_map.detector.replace(modules=(module,))
    return changed


def test_the_whole_2x2_has_the_channels_of_its_modules():
    channel_map = whole()
    detector = channel_map.detector
    assert {detector.pitch_of(i) for i in (4, 5)} == {0.387975} and detector.pitch_of(0) == 0.4434
    assert channel_map.num_channels == 3 * 78400 + 102400 == detector.num_pixels
    assert bijective(channel_map, torch.arange(detector.num_pixels)) == detector.num_pixels
    alone = loaded("DUNE/2x2.yaml", "DUNE/multi_tile_layout-2.5.16.yaml", 3)[0]
    third = torch.arange(102400)
    here, there = channel_map.address(third + int(detector.geometry.first_pixel[4])), alone.address(third)
    for ours, theirs in zip(here, there, strict=True):
        assert torch.equal(ours, theirs)


def test_packets_of_the_whole_2x2_come_back(tmp_path):
    channel_map = whole()
    detector = channel_map.detector
    shots = [gun.shoot(detector.module(n), 1, energy=300.0, seed=n, first_event=n) for n in (2, 3)]
    hits = Simulator(detector)(Segments.cat(shots), seed=1)
    assert {int(t) // 2 for t in hits.tpc.unique()} == {1, 2}
    write_packets(tmp_path / "packets.h5", hits, channel_map)
    again = read_packets(tmp_path / "packets.h5", channel_map, truth=False)
    for name in ("event", "tpc", "ix", "iy", "adc", "y", "z"):
        assert torch.equal(getattr(again, name), getattr(hits, name)), name
    torch.testing.assert_close(again.time, hits.time, rtol=0, atol=1e-9)
    # x with the velocity of each module's own field
    slow = Module(number=3, nominal=Parameters(efield=0.4))
    other = read_packets(tmp_path / "packets.h5", slower(channel_map, slow), truth=False)
    third = hits.tpc // 2 == 2
    assert torch.equal(other.x[~third], again.x[~third])
    late = again.time[third] > 5.0
    assert bool((other.x - again.x)[third][late].abs().min() > 0)


def test_default_constants_are_those_of_each_module():
    own = Module(number=3, frontend=FrontEnd(gain=5e-3, v_ped=600.0, threshold=4000.0))
    detector = Detector.two_by_two().replace(modules=(own,))
    channels = Channels.default(detector)
    first = detector.geometry.first_pixel.tolist()
    gain = detector.frontend.gain
    assert channels.gain[[0, first[4] - 1, first[4], first[6] - 1, first[6]]].tolist() == [gain, gain, 5e-3, 5e-3, gain]
    assert channels.threshold[first[4]] == 4000.0 and channels.pedestal[first[5]] == 600.0
    odd = detector.replace(modules=(Module(number=3, frontend=FrontEnd(adc_bits=10)),))
    with pytest.raises(ValueError, match=r"modules of 2x2 have ADCs of \[256, 1024\] codes"):
        Channels.default(odd)


def test_tiles_lie_where_the_layout_puts_them():
    """The middle of a tile's pixels, by the detector's own positions, is the position that the layout states."""
    channel_map, found, table = loaded("DUNE/module0.yaml", "DUNE/multi_tile_layout-2.4.16.yaml")
    offset = found["tpc_offsets"][0]
    pixel = torch.arange(channel_map.detector.num_pixels)
    x, y, z = channel_map.detector.pixel_centre(*channel_map.detector.pixel_from_id(pixel)).unbind(-1)
    address = channel_map.address(pixel)
    for tile, io in table["tile_chip_to_io"].items():
        group, lane = divmod(io[11], 1000)
        mine = (address.io_group == group) & ((address.io_channel - 1) // 4 == (lane - 1) // 4)
        at = [0.1 * a + b for a, b in zip(table["tile_positions"][tile], offset, strict=True)]
        assert int(mine.sum()) == 4900
        assert [c[mine].mean().item() for c in (x, y, z)] == pytest.approx(at, abs=1e-3)


@settings(max_examples=25)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 3))
def test_the_builtin_numbering_serves_any_plane(nx, ny, planes):
    tpcs = tuple(
        TPC(anode=10.0 * k, cathode=10.0 * k + 5, y=(0, 0.4 * ny), z=(0, 0.4 * nx), ny=ny, nx=nx) for k in range(planes)
    )
    detector = Detector(name="any", tpcs=tpcs, pixel_pitch=0.4)
    channel_map = ChannelMap.builtin(detector)
    assert bijective(channel_map, torch.arange(detector.num_pixels)) == detector.num_pixels
    assert channel_map.io_groups == list(range(1, planes + 1))


def test_the_builtin_numbering_is_that_of_its_docstring():
    channel_map = ChannelMap.builtin(Detector.module0())
    detector = channel_map.detector
    for tpc, ix, iy in [(0, 0, 0), (1, 139, 279), (1, 83, 161), (0, 79, 80)]:
        pixel = detector.pixel_id(*(torch.tensor([k]) for k in (tpc, ix, iy)))
        lane = 1 + ix // 80 + 2 * (iy // 80)
        chip = 11 + ix % 80 // 8 + 10 * (iy % 80 // 8)
        assert [int(c) for c in channel_map.address(pixel)] == [tpc + 1, lane, chip, ix % 8 + 8 * (iy % 8)]


@given(st.lists(st.integers(0, 300), min_size=4, max_size=4))
def test_any_four_numbers_are_a_channel_or_none(address):
    pixel = MAP.pixel(*(torch.tensor([a]) for a in address))
    if pixel >= 0:
        assert [int(c) for c in MAP.address(pixel)] == address


def test_layouts_that_make_no_map_are_refused(monkeypatch):
    channel_map, found, table = loaded("DUNE/module0.yaml", "DUNE/multi_tile_layout-2.4.16.yaml")
    detector = channel_map.detector

    def make(keys=None, **changes):
        contents = {"p.yaml": {**found, **(keys or {})}, "l.yaml": {**table, **changes}}
        monkeypatch.setattr(channel_files, "load", lambda path: contents[path.name])
        return ChannelMap.from_yaml("p.yaml", "l.yaml", detector=detector)

    assert make().num_channels == 78400
    tile_map = [[[7, 5, 3, 1], [8, 6, 4, 2]], [[16, 14, 12, 10], [15, 13, 9, 11]]]
    with pytest.raises(ValueError, match=r"p.yaml has tile 11 where the layout has tile 9"):
        make({"tile_map": tile_map})
    with pytest.raises(ValueError, match=r"module_to_io_groups must name 2 io_groups of module 1, got \[1\]"):
        make({"module_to_io_groups": {1: [1]}})
    places = table["chip_channel_to_position"]
    with pytest.raises(ValueError, match=r"two channels read the pixel \[3, 68\] of a tile"):
        make(chip_channel_to_position={**places, 11001: [3, 68]})
    with pytest.raises(ValueError, match="channels count to 63, chip_channel_to_position has 11064"):
        make(chip_channel_to_position={**places, 11064: [3, 68]})
    with pytest.raises(ValueError, match="tile_chip_to_io is missing"):
        make(tile_chip_to_io=None)
    with pytest.raises(ValueError, match=r"two tiles have io_group 1, io_channel 1, chip 11"):
        make(tile_chip_to_io={**table["tile_chip_to_io"], 2: table["tile_chip_to_io"][1]})
    with pytest.raises(ValueError, match=r"l.yaml: makes no channel map \(KeyError: 16\)"):
        make(tile_chip_to_io={k: v for k, v in table["tile_chip_to_io"].items() if k != 16})
    with pytest.raises(ValueError, match=r"module must be one of \[1\], got 9"):
        ChannelMap.from_yaml("p.yaml", "l.yaml", detector=detector, module=9)


def test_maps_by_hand_are_checked():
    place = {64 * 11: (0, 0), 64 * 11 + 1: (1, 0)}

    def tile(column=0, row=0, io=None):
        return Tile(0, column, row, (False, False), 0, io or {11: 256 + 1})

    assert ChannelMap(DETECTOR, [place], [tile()]).num_channels == 2
    with pytest.raises(ValueError, match="tiles 1 and 2 of TPC 0 overlap"):
        ChannelMap(DETECTOR, [place], [tile(), tile(column=1, io={11: 256 + 2})])
    with pytest.raises(ValueError, match="tile 1 lies beyond the 20 x 30 pixels of TPC 0"):
        ChannelMap(DETECTOR, [place], [tile(column=19)])
    with pytest.raises(ValueError, match=r"beyond 0 ... 255"):
        ChannelMap(DETECTOR, [place], [tile(io={300: 257})])
    with pytest.raises(ValueError, match="io_groups count to 255, many has 256 TPCs"):
        ChannelMap.builtin(
            DETECTOR.replace(name="many", tpcs=tuple(DETECTOR.tpcs[0].replace(anode=-20.0 - k) for k in range(256)))
        )
    with pytest.raises(ValueError, match=r"pixels must be 0 ... 1199, got 1200 to 1200"):
        MAP.address(torch.tensor([1200]))


# ---- constants


def varied(seed=0):
    rng = torch.Generator().manual_seed(seed)
    channels = Channels.default(DETECTOR)
    n = len(channels)

    def around(middle, width):
        return middle + width * (2 * torch.rand(n, generator=rng, dtype=torch.float64) - 1)

    return channels.replace(
        gain=around(4e-3, 4e-4), pedestal=around(580.0, 30.0), v_cm=around(288.0, 5.0), v_ref=around(1300.0, 20.0),
        threshold=around(5000.0, 500.0), status=torch.randint(0, 3, (n,), generator=rng),
    )  # fmt: skip


@given(st.integers(0, 1199), st.integers(0, 255))
def test_a_code_and_its_charge_belong_together(pixel, code):
    channels, where = varied(), torch.tensor([pixel])
    charge = channels.calibrate(torch.tensor([code]), where)
    back = channels.digitise(charge, where)
    lowest = channels.digitise(torch.tensor([-1e9]), where)
    assert back.item() == code and lowest.item() == 0
    step = (channels.v_ref - channels.v_cm)[where] / 256 / channels.gain[where]
    assert channels.digitise(charge + 0.49 * step, where).item() == code
    assert channels.digitise(charge + 0.51 * step, where).item() == min(code + 1, 255)


def test_default_constants_give_the_front_ends_codes():
    detector = Detector.module0()
    hits = Simulator(detector)(gun.shoot(detector, 3, seed=1), seed=2)
    pixel = detector.pixel_id(hits.tpc, hits.ix, hits.iy)
    assert torch.equal(Channels.default(detector).digitise(hits.charge, pixel), hits.adc)


def test_calibration_is_differentiable_in_the_constants():
    columns = {k: v[:5].clone() for k, v in varied().columns().items()}
    adc, pixel = torch.tensor([90, 130, 200, 255, 0]), torch.arange(5)
    free = ("gain", "pedestal", "v_cm", "v_ref")
    inputs = [torch.zeros(5, dtype=torch.float64, requires_grad=True) for _ in free]

    def charge(*changes):  # relative changes, charges in ke
        values = {name: columns[name] * (1 + u) for name, u in zip(free, changes, strict=True)}
        return 1e-3 * Channels(**{**columns, **values}).calibrate(adc, pixel)

    assert torch.autograd.gradcheck(charge, inputs, atol=1e-8, rtol=1e-6)


def test_thresholds_per_channel_make_other_hits():
    detector = Detector.module0()
    segments, sim = gun.shoot(detector, 2, seed=4), Simulator(Detector.module0())
    channels = Channels.default(detector)
    high = torch.where(torch.arange(len(channels)) % 2 == 0, 5000.0, 20_000.0).double()
    few, many = (len(sim(segments, threshold=c.threshold)) for c in (channels.replace(threshold=high), channels))
    assert 0 < few < many


def test_dead_and_noisy_channels_of_a_simulation():
    hits = some_hits(DETECTOR, 60)
    pixel = DETECTOR.pixel_id(hits.tpc, hits.ix, hits.iy)
    channels = Channels.default(DETECTOR).with_status(pixel[:5], "dead").with_status(pixel[5:9].tolist(), "noisy")
    status = channels.status[pixel]
    kept = channels.apply(hits, DETECTOR)
    assert torch.equal(kept.charge, hits.charge[status != 1])
    assert kept.reports["channels"]["on dead channels"] == int((status == 1).sum())
    assert kept.reports["channels"]["on noisy channels, kept"] == int((status == 2).sum())
    dropped = channels.apply(hits, DETECTOR, noisy="drop", digitise=False)
    assert torch.equal(dropped.adc, hits.adc[status == 0])
    bright = channels.apply(dataclasses.replace(hits, charge=hits.charge * 100), DETECTOR)
    assert bright.reports["channels"]["saturated, kept"] == len(bright)


def test_meaningless_constants_are_refused():
    channels = Channels.default(DETECTOR)
    bad = torch.ones(1200, dtype=torch.float64)
    bad[7] = 0.0
    with pytest.raises(ValueError, match="gain of pixel 7 is 0, of 1 pixels without meaning"):
        channels.replace(gain=bad)
    with pytest.raises(ValueError, match="threshold of pixel 7 is nan"):
        channels.replace(threshold=bad / bad)
    with pytest.raises(ValueError, match="v_ref of pixel 0"):
        channels.replace(v_ref=channels.v_cm)
    with pytest.raises(ValueError, match=r"gain must have shape|pedestal must have shape \(3,\)"):
        channels.replace(gain=bad[:3])
    with pytest.raises(ValueError, match="status of pixel 0 is 5"):
        channels.replace(status=torch.full((1200,), 5))
    with pytest.raises(ValueError, match="status must be int64"):
        channels.replace(status=bad)
    with pytest.raises(ValueError, match=r"pixels must be 0 ... 1199, got \[1200\]"):
        channels.with_status([1200], "dead")
    with pytest.raises(ValueError, match="status must be one of"):
        channels.with_status([1], "tired")
    # A dead channel needs no constants.
    assert len(channels.with_status([7], "dead").replace(gain=bad)) == 1200


# ---- files


@pytest.mark.parametrize("kind", [".npz", ".json", ".csv"])
def test_files_hold_every_digit(tmp_path, kind):
    channels = varied()
    channels.save(tmp_path / f"a{kind}")
    again = Channels.load(tmp_path / f"a{kind}", DETECTOR)
    assert all(torch.equal(column, again.columns()[name]) for name, column in channels.columns().items())
    assert [p.name for p in tmp_path.iterdir()] == [f"a{kind}"]


def test_pixels_that_a_file_lacks(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("pixel,threshold,status\n3,6000,good\n5,7000,noisy\n")
    with pytest.raises(ValueError, match="1198 of 1200 pixels have no threshold, status, the first is pixel 0"):
        Channels.load(path, DETECTOR)
    default = Channels.load(path, DETECTOR, missing="default")
    assert default.threshold[:6].tolist() == [7000, 7000, 7000, 6000, 7000, 7000]
    assert default.status[:6].tolist() == [0, 0, 0, 0, 0, 2]
    assert default.notes == {"not in a.csv, default constants": 1198}
    dead = Channels.load(path, DETECTOR, missing="dead")
    assert int((dead.status == 1).sum()) == 1198 and "1198 dead" in dead.report()


def test_larndsims_tables(tmp_path):
    keys, pixel = np.arange(1200), 1
    np.savez(tmp_path / "t.npz", keys=keys, values=np.full(1200, 6500.0), default=np.array([7000.0]))
    np.savez(
        tmp_path / "c.npz", keys=keys[:4], values=np.full(4, 6500 * 1.602176634e-19), default=[7000 * 1.602176634e-19]
    )
    np.savez(tmp_path / "g.npz", keys=keys, values=np.full(1200, 4.4e-3))
    assert Channels.load(tmp_path / "t.npz", DETECTOR).threshold[pixel].item() == 6500
    coulomb = Channels.load(tmp_path / "c.npz", DETECTOR)
    assert coulomb.threshold[[1, 9]].tolist() == pytest.approx([6500, 7000], rel=1e-12)
    assert Channels.load(tmp_path / "g.npz", DETECTOR).gain[pixel].item() == 4.4e-3


def test_the_thresholds_at_hand():
    path, detector = shared("data/lartpc/thresholds/module0-fake_thresholds-6ke.npz"), Detector.module0()
    assert torch.equal(Channels.load(path, detector).threshold, read_thresholds(path, detector))


def test_the_modules_pedestals_and_references(tmp_path):
    address = MAP.address(torch.arange(1200))
    ids = unique_id(*(c.numpy() for c in address)).tolist()
    (tmp_path / "ped.json").write_text(json.dumps({str(k): {"pedestal_mv": 570.0 + i} for i, k in enumerate(ids)}))
    (tmp_path / "ref.json").write_text(json.dumps({str(k): {"vref_mv": 1568.0, "vcm_mv": 478.1} for k in [*ids, 1]}))
    pedestals = Channels.load(tmp_path / "ped.json", DETECTOR, MAP)
    assert pedestals.pedestal[[0, 1199]].tolist() == [570.0, 1769.0] and not pedestals.notes
    references = Channels.load(tmp_path / "ref.json", DETECTOR, MAP)
    assert references.v_ref.unique().tolist() == [1568.0] and references.v_cm.unique().tolist() == [478.1]
    assert references.notes == {"of ref.json that read no pixel": 1}
    with pytest.raises(ValueError, match="names channels, not pixels: a channel_map is needed"):
        Channels.load(tmp_path / "ped.json", DETECTOR)


def test_larndsims_bad_channels_are_dead(tmp_path):
    group, lane, chip, channel = (int(c) for c in MAP.address(torch.tensor([77])))
    (tmp_path / "bad.yaml").write_text(f"{group}-{lane}-{chip}: [{channel}]\n9-9-99: [3]\n")
    channels = Channels.load(tmp_path / "bad.yaml", DETECTOR, MAP)
    assert channels.status.nonzero().flatten().tolist() == [77]
    assert channels.notes == {"of bad.yaml that read no pixel": 1}
    (tmp_path / "bad.yaml").write_text("chip9: [3]\n")
    with pytest.raises(ValueError, match="must hold 'io_group-io_channel-chip'"):
        Channels.load(tmp_path / "bad.yaml", DETECTOR, MAP)


BAD = {
    "a.csv": [
        ("pixel,colour\n1,2\n", "unknown column 'colour'"),
        ("pixel\n1\n", "has none of the columns gain"),
        ("pixel,gain\n1,2\n1,2\n", "pixel 1 stands twice"),
        ("pixel,gain\n1200,2\n", "pixel 1200 is outside the detector of 1200 pixels"),
        ("pixel,gain\n1\n", "line 2 has 1 values, not 2"),
        ("pixel,gain\n1,x\n", "could not convert string to float: 'x'"),
        ("", "is empty"),
        ("pixel,gain\n1,-3\n", "gain of pixel 1 is -3"),
        ("io_group,gain\n1,2\n", "channels need the columns io_group, io_channel, chip, channel"),
    ],
    "a.json": [
        ("{", "not a table of channels"),
        ("[1]", "must hold names and values, got list"),
        ('{"123": {"colour": 3}}', "channels must have one of pedestal_mv"),
        ('{"1": {"vref_mv": 3}, "2": {"vcm_mv": 3}}', "channel 1 lacks one of vcm_mv, vref_mv"),
    ],
    "a.npz": [("junk", "a.npz")],
}


@pytest.mark.parametrize("name, text, message", [(n, t, m) for n, cases in BAD.items() for t, m in cases])
def test_bad_files_are_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        Channels.load(tmp_path / name, DETECTOR, MAP, missing="default")
    assert "\n" not in str(error.value) and name in str(error.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        Channels.load(tmp_path / "a.npz", DETECTOR)
    with pytest.raises(ValueError, match=r"must end in .npz, .json, .csv"):
        Channels.load(tmp_path / "a.txt", DETECTOR)
    with pytest.raises(ValueError, match=r"must end in .npz, .json, .csv"):
        varied().save(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="missing must be"):
        Channels.load(tmp_path / "a.npz", DETECTOR, missing="maybe")
