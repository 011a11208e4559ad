"""larnd-sim-jax's files of hits."""

import h5py
import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lartpc import Detector, velocity
from hepops.lartpc.packets import Channels, read_jax_hits

from .packet_files import bench

DETECTOR = bench()


def event(name="batch_0/event_4", number=4, rank=0, **changes):
    """Three hits on two pixels, in larnd-sim-jax's names."""
    pixel = np.array([7, 7, 650])
    tpc, ix, iy = DETECTOR.pixel_from_id(torch.from_numpy(pixel))
    x, y, z = DETECTOR.pixel_centre(tpc, ix, iy).T.numpy()
    columns = dict(
        adc=np.array([90.25, 80.5, 100.0]), Q=np.array([14.5, 9.0, 30.0]), pixels=pixel + rank * 1200,
        ticks=np.array([50.0, 20.0, 7.0]), pix_x=z, pix_y=y, pix_z=x, eventID=np.full(3, number),
    )  # fmt: skip
    return {f"{name}/{k}": v for k, v in {**columns, **changes}.items() if v is not None}


def write(path, *events):
    with h5py.File(path, "w") as file:
        for columns in events:
            for name, values in columns.items():
                file[name] = values
    return path


def test_fields_units_and_order(tmp_path):
    path = write(tmp_path / "a.h5", event(), event("batch_0/event_2", 2, rank=1), event("batch_10/event_9", 9, rank=0))
    hits = read_jax_hits(path, DETECTOR)
    assert hits.event.tolist() == [2, 2, 2, 4, 4, 4, 9, 9, 9]
    assert (
        hits.ix[:3].tolist() == [7, 7, 10] and hits.iy[:3].tolist() == [0, 0, 2] and hits.tpc[:3].tolist() == [0, 0, 1]
    )
    assert hits.time[:3].mul(10).round().tolist() == [22, 52, 9]
    assert hits.charge[:3].tolist() == [9000.0, 14500.0, 30000.0] and hits.adc[:3].tolist() == [80.5, 90.25, 100.0]
    assert hits.rank[:3].tolist() == [0, 1, 0] and hits.row.tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5]
    assert hits.reports["packets"] == {"batches": 2, "events": 3, "rows": 9, "excluded": {}}


@pytest.mark.parametrize(
    "number, hits, pixels", [(0, 777, 419), (1, 786, 446), (2, 479, 258), (3, 538, 294), (4, 748, 393)]
)
def test_the_files_at_hand(number, hits, pixels):
    """Read whole: every row, on the pixel that it states, with the charge that our constants make of its ADC."""
    detector = Detector.from_yaml(
        shared("data/lartpc/detector/module0.yaml"), shared("data/lartpc/layouts/multi_tile_layout-2.4.16_v4.yaml")
    )
    found = read_jax_hits(shared(f"data/lartpc/larnd_sim_jax_hits/output_{number}.h5"), detector, on_bad="raise")
    assert len(found) == hits and found.reports["pixels"] == pixels
    pixel = detector.pixel_id(found.tpc, found.ix, found.iy)
    charge = Channels.default(detector).calibrate(found.adc, pixel)
    assert (charge - found.charge).abs().max() < 0.01  # [e]: float32 of both
    # Its x is that of its tick, two before ours.
    x = detector.drift_position((found.time - 0.2) * velocity(0.5, 87.17), found.tpc)
    assert (x - found.x).abs().max() < 1e-4


def test_bad_rows_are_counted_or_refused(tmp_path):
    far = event()["batch_0/event_4/pix_x"] + np.array([0, 0, 1.0])
    for changes, reason in (
        ({"pixels": np.array([-1, 7, 650])}, "without a pixel"),
        ({"adc": np.array([90.0, np.nan, 1])}, "that are not finite"),
        ({"pix_x": far}, "whose position is not that of their pixel"),
    ):
        path = write(tmp_path / "a.h5", event(**changes))
        hits = read_jax_hits(path, DETECTOR)
        assert len(hits) == 2 and hits.reports["packets"]["excluded"] == {reason: 1}
        with pytest.raises(ValueError, match=f"a.h5: 1 hits {reason}, the first is row"):
            read_jax_hits(path, DETECTOR, on_bad="raise")


def test_positions_and_event_ids_may_be_absent(tmp_path):
    path = write(tmp_path / "a.h5", event(pix_x=None, pix_y=None, pix_z=None, eventID=None))
    hits = read_jax_hits(path, DETECTOR)
    assert hits.event.tolist() == [4, 4, 4] and bool(hits.x.isnan().all())


def test_bad_files_are_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_jax_hits(tmp_path / "a.h5", DETECTOR)
    with pytest.raises(ValueError, match=r"there are no groups batch_0 ..., only \['adc'\]"):
        read_jax_hits(write(tmp_path / "a.h5", {"adc": [1.0]}), DETECTOR)
    with pytest.raises(ValueError, match="batch_0/event_4 has no dataset ticks, only"):
        read_jax_hits(write(tmp_path / "a.h5", event(ticks=None)), DETECTOR)
    with pytest.raises(ValueError, match="event_4/ticks must hold 3 numbers"):
        read_jax_hits(write(tmp_path / "a.h5", event(ticks=np.zeros(2))), DETECTOR)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_group("batch_0")
    with pytest.raises(ValueError, match="no events in 1 batches"):
        read_jax_hits(tmp_path / "b.h5", DETECTOR)
    with pytest.raises(ValueError, match="on_bad must be"):
        read_jax_hits(tmp_path / "b.h5", DETECTOR, on_bad="maybe")
    (tmp_path / "c.h5").write_text("not HDF5\n" * 99)
    with pytest.raises(ValueError, match="not a readable HDF5 file"):
        read_jax_hits(tmp_path / "c.h5", DETECTOR)
