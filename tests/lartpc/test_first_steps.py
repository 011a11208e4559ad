"""What somebody meets who brings own data for the first time: short words for objects, tables as input, errors that say
what to do."""

import h5py
import hepops
import numpy as np
import pytest
import torch
from hepops.lartpc import Detector, Parameters, Segments, Simulator, gun, read_hits, read_segments, write_segments
from hepops.lartpc.edepsim import segment_table

DETECTOR = Detector.module0()


class Frame:
    """What a pandas DataFrame has of names and columns: rows by name only, an Index that is no list."""

    def __init__(self, table: np.ndarray) -> None:
        self.columns = np.array(table.dtype.names)
        self._table = table

    def __getitem__(self, name: str) -> np.ndarray:
        return self._table[name]


@pytest.fixture(scope="module")
def segments() -> Segments:
    return gun.shoot(DETECTOR, events=2, particle="proton", topology="inside", energy=(50.0, 60.0), seed=1)


def same(a: Segments, b: Segments) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.columns().values(), b.columns().values(), strict=True))


def test_a_table_and_an_open_file_give_the_segments_of_the_file(segments, tmp_path):
    path = tmp_path / "tracks.h5"
    write_segments(path, segments, positions="f8")
    want = read_segments(path)
    table = segment_table(segments, positions="f8")
    assert same(read_segments(Frame(table)), want)
    with h5py.File(path) as file:
        assert same(read_segments(file), want)
        assert same(read_segments(file["segments"]), want)


def test_objects_print_in_few_words(segments):
    hits = Simulator(DETECTOR)(segments, tangents=("lifetime",))
    assert len(repr(segments)) < 300 and "2 events" in repr(segments) and segments.extent() in repr(segments)
    assert len(repr(hits)) < 200 and f"{len(hits)} hits of 2 events" in repr(hits) and "lifetime" in repr(hits)
    none = torch.zeros(len(hits), dtype=torch.bool)
    assert "0 hits of 0 events" in repr(hits[none]) and "0 segments" in repr(segments[:0])


def test_the_extent_leaves_out_what_is_not_finite(segments):
    start = segments.start.clone()
    start[0] = torch.nan
    broken = Segments(**{**segments.columns(), "start": start})
    rest = torch.cat([start[1:], segments.end])
    assert broken.extent().startswith(f"x {rest[:, 0].min():.4g} ... {rest[:, 0].max():.4g}, y ")


def test_a_result_prints_as_its_summary(segments):
    sim = Simulator(DETECTOR, dtype=torch.float64)
    hits = Simulator(DETECTOR, Parameters(lifetime=2000.0), dtype=torch.float64)(segments)
    result = hepops.lartpc.fit(sim, segments, hits, ["lifetime"])
    assert str(result) == result.summary()


def test_what_is_no_segments_is_refused_by_name(segments, tmp_path):
    sim = Simulator(DETECTOR)
    for wrong in ({"dE": [1.0]}, "tracks.h5", np.zeros(3)):
        for use in (sim, sim.drift, sim.waveforms):
            with pytest.raises(
                TypeError, match=rf"segments must be Segments, got {type(wrong).__name__}: read_segments"
            ):
                use(wrong)
        with pytest.raises(TypeError, match="segments must be Segments, got"):
            write_segments(tmp_path / "no.h5", wrong)
    assert not (tmp_path / "no.h5").exists()
    with pytest.raises(TypeError, match=r"detector must be a Detector, such as .* got 'module0'"):
        Simulator("module0")
    hits = sim(segments)
    with pytest.raises(TypeError, match=r"fit: segments must be Segments .* got Hits"):
        hepops.lartpc.fit(sim, hits, segments, ["lifetime"])
    with pytest.raises(TypeError, match=r"fit: measured must be Hits .* got str"):
        hepops.lartpc.fit(sim, segments, "hits.h5", ["lifetime"])
    with pytest.raises(TypeError, match=rf"a mask of {len(segments)}: segments\[mask\]"):
        segments.select(segments.event == 1)


def test_files_of_another_kind_say_what_they_are(segments, tmp_path):
    tracks, hits, table = tmp_path / "tracks.h5", tmp_path / "hits.h5", tmp_path / "tracks.csv"
    write_segments(tracks, segments)
    Simulator(DETECTOR)(segments).save(hits)
    table.write_text("event_id,dE\n0,1.0\n")
    with pytest.raises(ValueError, match=r"hits.h5: there is no dataset 'segments', it holds hits, which read_hits"):
        read_segments(hits)
    with pytest.raises(
        ValueError, match=r"tracks.h5: not a file of hits, .*; it holds energy deposits, of which `hepops simulate`"
    ):
        read_hits(tracks)
    with pytest.raises(ValueError, match=r"tracks.csv: segments are read from HDF5 or ROOT; .* read_segments\(pandas"):
        read_segments(table)
    for read in (read_segments, read_hits):
        with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
            read(tmp_path)


def test_deposits_in_another_unit_are_shown_beside_the_detector(segments):
    columns = segments.columns()
    far = Segments(**{**columns, "start": 100 * columns["start"], "end": 100 * columns["end"]})
    with pytest.warns(UserWarning, match=r"deposits at x .* cm, volumes at x -30.43 ... 30.43, y .* unit\?") as caught:
        Simulator(DETECTOR).waveforms(far)
    assert far.extent() in str(caught[0].message)


def test_swapped_files_of_a_detector_are_named(tmp_path):
    properties, layout = tmp_path / "properties.yaml", tmp_path / "layout.yaml"
    properties.write_text("lifetime: 2200.0\n")
    layout.write_text("pixel_pitch: 4.4\n")
    with pytest.raises(ValueError, match=r"'pixel_pitch' is a key of a layout, .* swapped\?"):
        Detector.from_yaml(properties=layout, layout=properties)
