import dataclasses
import json

import h5py
import numpy as np
import pytest
import torch
from hepops.lartpc import Detector, Hits, Parameters, Truth, read_config, read_hits
from hypothesis import given
from hypothesis import strategies as st

NAMES = ("event", "tpc", "ix", "iy", "row", "rank")


def some(n=6, seed=0, with_truth=True, tangents=2, dtype=torch.float64, **changes):
    """Hits with random values, two events, few pixels."""
    rng = torch.Generator().manual_seed(seed)
    columns = {name: torch.randint(0, 2, (n,), generator=rng) for name in NAMES}
    columns |= {name: torch.randn(n, generator=rng, dtype=dtype) for name in ("x", "y", "z", "time")}
    columns |= dict(
        charge=1 + torch.rand(n, generator=rng, dtype=dtype), adc=torch.randint(0, 256, (n,), generator=rng)
    )
    if tangents:
        columns |= dict(time_tangents=torch.randn(tangents, n, generator=rng, dtype=dtype))
        columns |= dict(charge_tangents=torch.randn(tangents, n, generator=rng, dtype=dtype))
        columns |= dict(tangent_names=("lifetime", "efield")[:tangents])
    if with_truth:
        entries = 3 * n
        hit = torch.randint(0, max(n, 1), (entries,), generator=rng)
        segment, fraction = (
            torch.randint(0, 2**40, (entries,), generator=rng),
            torch.rand(entries, generator=rng, dtype=dtype),
        )
        columns |= dict(truth=Truth(hit, segment, fraction))
    return Hits(**columns | dict(reports={"rejections": 3, "lost": {"electrons": 0.1 + 0.2}}) | changes)


def tensors(hits):
    parts = dict(hits.columns(), time_tangents=hits.time_tangents, charge_tangents=hits.charge_tangents)
    parts |= {} if hits.truth is None else hits.truth._asdict()
    return {name: part for name, part in parts.items() if part is not None}


def identical(a, b):
    """Of the same types, and equal to the last bit."""
    x, y = tensors(a), tensors(b)
    bits = lambda t: t.detach().contiguous().numpy().tobytes()  # noqa: E731
    same = x.keys() == y.keys() and all(
        x[n].dtype == y[n].dtype and x[n].shape == y[n].shape and bits(x[n]) == bits(y[n]) for n in x
    )
    return same and a.reports == b.reports and a.tangent_names == b.tangent_names


# ---- the file


@given(
    n=st.integers(0, 9),
    seed=st.integers(0, 99),
    truth=st.booleans(),
    tangents=st.integers(0, 2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_what_is_saved_is_loaded_to_the_last_bit(tmp_path_factory, n, seed, truth, tangents, dtype):
    path = tmp_path_factory.mktemp("hits") / "a.h5"
    hits = some(n, seed, truth and n > 0, tangents, dtype)
    hits.save(path)
    assert identical(Hits.load(path), hits) and identical(read_hits(path), hits)


def test_special_numbers_and_large_ids_survive(tmp_path):
    odd = torch.tensor([float("nan"), float("-inf"), -0.0, 5e-324], dtype=torch.float64)
    hits = some(4, time=odd, event=torch.tensor([0, 2**32 + 1, 2**62, 1]), adc=torch.tensor([0.5, 1.0, 2.0, 255.0]))
    hits.save(tmp_path / "a.h5")
    assert identical(read_hits(tmp_path / "a.h5"), hits)


def test_the_configuration_comes_back_as_the_same_objects(tmp_path):
    config = dict(
        detector=Detector.module0(),
        parameters=Parameters(efield=0.1 + 0.4),
        simulator={"step": 0.1, "dtype": "float32"},
        seed=2**63,
    )
    some().save(tmp_path / "a.h5", config=config)
    assert read_config(tmp_path / "a.h5") == config
    some().save(tmp_path / "a.h5")
    assert read_config(tmp_path / "a.h5") == {}


def test_a_configuration_above_64_kB_is_saved(tmp_path):
    """HDF5's attributes of old end at 64 kB; a detector may have any number of TPCs."""
    one = Detector.module0()
    many = one.replace(tpcs=one.tpcs * 1000)
    some().save(tmp_path / "a.h5", config={"detector": many})
    assert len(many.to_json()) > 2**16 and read_config(tmp_path / "a.h5") == {"detector": many}


def test_the_layout_is_the_documented_one(tmp_path):
    some().save(tmp_path / "a.h5", config={"seed": 3})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["format"] == "hepops.lartpc.hits" and file.attrs["version"] == 1
        assert set(file) == {"hits", "truth", "reports", "config"}
        columns = {"event", "tpc", "ix", "iy", "x", "y", "z", "time", "charge", "adc", "row", "rank"}
        assert set(file["hits"]) == columns | {"time_tangents", "charge_tangents"}
        units = {name: file["hits"][name].attrs["units"] for name in columns}
        assert (units["x"], units["time"], units["charge"], units["ix"]) == ("cm", "us", "e", "1")
        assert json.loads(file["hits/time_tangents"].attrs["names"]) == ["lifetime", "efield"]
        assert set(file["truth"]) == {"hit", "segment", "fraction"}
        assert file["config"].attrs["seed"] == "3" and json.loads(file["reports"].attrs["json"])["rejections"] == 3


def test_a_gradient_does_not_hinder_saving(tmp_path):
    charge = torch.ones(6, dtype=torch.float64, requires_grad=True)
    some(charge=2 * charge).save(tmp_path / "a.h5")
    assert read_hits(tmp_path / "a.h5").charge.tolist() == [2.0] * 6


def test_a_failed_save_leaves_the_old_file(tmp_path):
    some(seed=1).save(tmp_path / "a.h5")
    with pytest.raises(TypeError, match=r"config\['model'\] must be what JSON can hold"):
        some(seed=2).save(tmp_path / "a.h5", config={"model": object()})
    with pytest.raises(TypeError, match="reports must be what JSON can hold"):
        some(seed=2, reports={"a": torch.ones(1)}).save(tmp_path / "a.h5")
    assert identical(read_hits(tmp_path / "a.h5"), some(seed=1))
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_one_line(tmp_path, share):
    some(2000).save(tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[: int(share * len(whole))])
    for read in (read_hits, read_config):
        with pytest.raises(ValueError, match=r"a\.h5: .*truncated") as error:
            read(tmp_path / "a.h5")
        assert "\n" not in str(error.value)


def test_foreign_files_are_one_line(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_hits(path)
    path.write_text("x" * 10000)
    with pytest.raises(ValueError, match="not a readable HDF5 file"):
        read_hits(path)
    with h5py.File(path, "w") as file:
        file["segments"] = np.zeros(3)
    for read in (read_hits, read_config):
        with pytest.raises(ValueError, match="not a file of hits, its format is None"):
            read(path)


def test_incomplete_and_later_files_are_one_line(tmp_path):
    path = tmp_path / "a.h5"
    for change, message in (
        (lambda f: f.attrs.update(version=2), "version 2 is newer than this library's 1"),
        (lambda f: f.pop("hits/charge"), "incomplete, .*charge"),
        (lambda f: f.pop("reports"), "incomplete, .*reports"),
    ):
        some().save(path)
        with h5py.File(path, "a") as file:
            change(file)
        with pytest.raises(ValueError, match=message):
            read_hits(path)
    some().save(path)
    with h5py.File(path, "a") as file:
        del file["hits/charge"]
        file["hits/charge"] = np.zeros(5)
    with pytest.raises(ValueError, match=r"a\.h5: Hits: charge must have shape \(6,\), got \(5,\)"):
        read_hits(path)


# ---- the object


def test_shapes_and_kinds_are_checked():
    for change, message in (
        (dict(time=torch.zeros(5)), r"time must have shape \(6,\), got \(5,\)"),
        (dict(event=torch.zeros(6)), "event must be int64, got torch.float32"),
        (dict(time_tangents=torch.zeros(3, 6)), r"time_tangents must have shape \(2, 6\), got \(3, 6\)"),
        (dict(charge_tangents=torch.zeros(2, 5)), "charge_tangents must have shape"),
        (dict(truth=Truth(torch.zeros(3), torch.zeros(3), torch.zeros(2))), "truth must hold three equal lengths"),
    ):
        with pytest.raises(ValueError, match=message):
            some(**change)
    with pytest.raises(dataclasses.FrozenInstanceError):
        some().charge = torch.zeros(6)


def entries(truth, hit):
    """Segments and fractions of one hit."""
    here = truth.hit == hit
    return sorted(zip(truth.segment[here].tolist(), truth.fraction[here].tolist(), strict=True))


@given(st.integers(1, 12), st.data())
def test_an_index_takes_truth_and_tangents_along(n, data):
    hits = some(n)
    rows = data.draw(st.lists(st.integers(0, n - 1), max_size=2 * n))
    part = hits[torch.tensor(rows, dtype=torch.int64)]
    assert part.charge.tolist() == [hits.charge[r].item() for r in rows]
    assert torch.equal(part.time_tangents, hits.time_tangents[:, rows])
    for new, old in enumerate(rows):
        assert entries(part.truth, new) == entries(hits.truth, old)
    assert len(part.truth.hit) == sum(int((hits.truth.hit == r).sum()) for r in rows)


def test_a_mask_a_slice_and_a_number_are_indices():
    hits = some()
    assert torch.equal(hits[hits.charge > 1.5].charge, hits.charge[hits.charge > 1.5])
    assert torch.equal(hits[2:4].x, hits.x[2:4]) and hits[-1].time.tolist() == hits.time[-1:].tolist()
    assert len(hits[:0]) == 0 and len(hits[:0].truth.hit) == 0


@given(st.integers(0, 30), st.integers(0, 9))
def test_sorting_orders_by_event_tpc_pixel_and_time(n, seed):
    hits = some(n, seed, with_truth=False).sort()
    keys = list(zip(*(getattr(hits, name).tolist() for name in ("event", "tpc", "iy", "ix", "time")), strict=True))
    assert keys == sorted(keys)
    assert sorted(hits.charge.tolist()) == sorted(some(n, seed, with_truth=False).charge.tolist())


@given(st.integers(0, 30), st.integers(0, 9))
def test_sums_per_pixel_are_those_of_a_dictionary(n, seed):
    hits = some(n, seed, with_truth=False)
    expected = {}
    for key, q, t in zip(
        zip(*(getattr(hits, k).tolist() for k in ("event", "tpc", "iy", "ix")), strict=True),
        hits.charge.tolist(),
        hits.time.tolist(),
        strict=True,
    ):
        count, charge, moment = expected.get(key, (0, 0.0, 0.0))
        expected[key] = (count + 1, charge + q, moment + q * t)
    sums = hits.per_pixel()
    assert list(zip(*(getattr(sums, k).tolist() for k in ("event", "tpc", "iy", "ix")), strict=True)) == sorted(
        expected
    )
    for k, key in enumerate(sorted(expected)):
        count, charge, moment = expected[key]
        assert sums.num_hits[k].item() == count
        assert sums.charge[k].item() == pytest.approx(charge, rel=1e-14)
        assert sums.time[k].item() == pytest.approx(moment / charge, rel=1e-13, abs=1e-13)


def test_sums_per_pixel_have_gradients():
    hits = some(with_truth=False)
    pixels = hits.iy, hits.ix

    def sums(charge, time):
        result = dataclasses.replace(hits, charge=charge, time=time, iy=pixels[0], ix=pixels[1]).per_pixel()
        return result.charge, result.time

    inputs = hits.charge.clone().requires_grad_(), hits.time.clone().requires_grad_()
    assert torch.autograd.gradcheck(sums, inputs, atol=1e-8, rtol=1e-6)


def test_moves_to_a_device(device):
    hits = some().to(device)
    assert all(part.device.type == device for part in tensors(hits).values())
    assert identical(hits[1:3].to("cpu"), some()[1:3])
    assert all(isinstance(column, np.ndarray) for column in hits.numpy().values())
