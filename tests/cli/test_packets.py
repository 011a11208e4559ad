"""hepops export-packets and import-packets."""

import h5py
import pytest
import torch
from conftest import shared
from hepops.cli.readout import chip_of
from hepops.lartpc import Channels, Detector, read_config, read_hits

from .test_cli import SHORT, done, refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tracks, and hits with noise."""
    folder = tmp_path_factory.mktemp("packets")
    done("gun", "-o", folder / "tracks.h5", "-n", 2, "--seed", 1, *SHORT)
    done("simulate", folder / "tracks.h5", "-o", folder / "hits.h5", "--seed", 3, "-q")
    return folder


def test_hits_go_out_and_come_back(folder, tmp_path):
    said = done("export-packets", folder / "hits.h5", "-o", tmp_path / "a.h5", "--tracks", folder / "tracks.h5")
    hits = read_hits(folder / "hits.h5")
    assert f"packets: {len(hits)} data" in said.stdout
    with h5py.File(tmp_path / "a.h5") as file:
        assert {"packets", "mc_packets_assn", "segments", "configs", "messages", "_header"} <= set(file)
    said = done("import-packets", tmp_path / "a.h5", "-o", tmp_path / "b.h5")
    assert f"{len(hits)} hits of 2 events" in said.stdout
    again = read_hits(tmp_path / "b.h5")
    for name in ("event", "tpc", "ix", "iy", "time", "adc", "rank"):
        assert torch.equal(getattr(again, name), getattr(hits, name)), name
    assert torch.equal(again.truth.segment.sort().values, hits.truth.segment.sort().values)
    config = read_config(tmp_path / "b.h5")
    assert config["detector"] == Detector.module0() and config["source"]["events"]["how"] == "truth"
    done("display", tmp_path / "b.h5", "-o", tmp_path / "b.png", "-q")


def test_constants_clock_and_windows_are_taken(folder, tmp_path):
    detector = Detector.module0()
    hits = read_hits(folder / "hits.h5")
    pixel = detector.pixel_id(hits.tpc, hits.ix, hits.iy)
    channels = Channels.default(detector).with_status(pixel[:1], "dead")
    channels = channels.replace(pedestal=channels.pedestal + 20)
    channels.save(tmp_path / "c.npz")
    dead = int((pixel == pixel[0]).sum())
    clock = ["--clock", "rollover", "--delay", 1898]
    said = done("export-packets", folder / "hits.h5", "-o", tmp_path / "a.h5", "--channels", tmp_path / "c.npz", *clock)
    assert f"left out: {dead} on dead channels" in said.stdout
    options = ["--channels", tmp_path / "c.npz", "--events", "trigger", "--window", 500, "--before", 0, *clock]
    done("import-packets", tmp_path / "a.h5", "-o", tmp_path / "b.h5", *options)
    again = read_hits(tmp_path / "b.h5")
    assert len(again) == len(hits) - dead
    kept = hits[pixel != pixel[0]]
    assert torch.equal(again.time, kept.time) and (again.charge - kept.charge).abs().median() < 1000
    # A fit finds what the codes mean beside the hits, and says so where it is gone.
    config = read_config(tmp_path / "b.h5")
    assert config["measured"] is True and config["seed"] is None and config["channels"] == "b.channels.npz"
    ours = chip_of([tmp_path / "b.h5"], [config], detector)
    assert ours.masked.nonzero()[:, 0].tolist() == [int(pixel[0])]
    good = ~ours.masked
    torch.testing.assert_close(ours.pedestal[good], channels.pedestal[good], rtol=1e-14, atol=0)
    (tmp_path / "b.channels.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.channels\.npz: no such file"):
        chip_of([tmp_path / "b.h5"], [config], detector)


def test_layout_files_name_the_channels(folder, tmp_path):
    files = [
        "--properties", shared("data/lartpc/detector/DUNE/module0.yaml"),
        "--layout", shared("data/lartpc/layouts/DUNE/multi_tile_layout-2.3.16.yaml"),
    ]  # fmt: skip
    # 15 chips of this layout are not connected.
    done("export-packets", folder / "hits.h5", "-o", tmp_path / "a.h5", "--on-absent", "exclude", *files)
    done("import-packets", tmp_path / "a.h5", "-o", tmp_path / "b.h5", *files)
    hits, again = read_hits(folder / "hits.h5"), read_hits(tmp_path / "b.h5")
    assert torch.equal(again.adc, hits.adc) and torch.equal(again.iy, hits.iy)
    masked = chip_of([tmp_path / "b.h5"], [read_config(tmp_path / "b.h5")], Detector.module0()).masked
    assert int(masked.sum()) == 78400 - 77665  # where nothing reads, silence says nothing
    with h5py.File(tmp_path / "a.h5") as file:  # the built-in numbering has 8
        assert file["packets"]["io_channel"].max() > 8


def test_what_is_refused_is_one_line(folder, tmp_path):
    packets, out = tmp_path / "a.h5", tmp_path / "b.h5"
    done("export-packets", folder / "hits.h5", "-o", packets, "-q")
    assert "exists already" in refused("export-packets", folder / "hits.h5", "-o", packets)
    assert "is the input" in refused("import-packets", packets, "-o", packets, "--overwrite")
    assert "there is no dataset 'packets'" in refused("import-packets", folder / "hits.h5", "-o", out)
    assert "not a file of hits" in refused("export-packets", packets, "-o", out)
    assert "no such file" in refused("import-packets", packets, "-o", out, "--channels", tmp_path / "c.npz")
    assert "window: Input should be greater than 0" in refused("import-packets", packets, "-o", out, "--window", 0)
    with h5py.File(packets, "a") as file:
        rows = file["packets"][:]
        rows["valid_parity"] = 0
        file["packets"][:] = rows
    assert "of bad parity" in refused("import-packets", packets, "-o", out, "--on-bad", "raise")
    assert not out.exists()
    said = done("import-packets", packets, "-o", out)
    assert "of bad parity" in said.stdout and "0 hits of 0 events" in said.stdout
