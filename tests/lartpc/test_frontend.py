import itertools
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import shared
from core.contract import Contract
from hepops import _core
from hepops.core.libraries import DIRECTORY
from hepops.lartpc import Detector, frontend
from torch.library import opcheck
from torch.testing import assert_close

MODULE0 = Detector.module0()


def detector(**chip):
    return MODULE0.model_copy(update={"frontend": MODULE0.frontend.model_copy(update=chip)})


# ------------------------------------------------------------------------- the law again, in torch and in plain Python


def charge(current, tick, keep, restart, moment):
    """At `moment`, since `restart` [ticks], tick by tick."""
    total = inflow = current.new_zeros(())
    for k in range(math.floor(restart.item()), math.ceil(moment.item())):
        start = restart if restart.item() > k else k
        width = k + 1 - start
        inflow = keep * inflow + (1 - keep) * width * tick * (current[k] if k < len(current) else 0.0)
        total = total + (inflow if moment.item() >= k + 1 else inflow * (moment - start) / width)
    return total


def continuous(current, threshold, tick, hold, reset, busy, risetime=0.0):
    """Triggers of one pixel, (time [ticks], charge, accepted), where the charge crosses; the rest is autograd."""
    keep = math.exp(-tick / risetime) if risetime else 0.0
    restart = ready = current.new_zeros(())
    triggers = []

    def at(moment):
        return charge(current, tick, keep, restart, torch.as_tensor(moment, dtype=current.dtype))

    while True:
        time = ready if at(ready) >= threshold else None
        k = math.floor(ready.item())
        while time is None and k < len(current):
            if at(k + 1) >= threshold:  # between two points of the line
                start = torch.maximum(ready, torch.tensor(k, dtype=ready.dtype)).detach()
                low, high = at(start), at(k + 1)
                time = start + (k + 1 - start) * (threshold - low) / (high - low)
            k += 1
        if time is None:
            return triggers
        read = at(time + hold)
        triggers.append((time, read, bool(read >= threshold)))
        restart = time + hold + reset
        ready = restart + busy if read >= threshold else restart


def clocked(current, threshold, tick, hold, reset, busy, risetime=0.0):
    """Triggers of one pixel, (tick, charge, accepted), tick by tick."""
    n, keep = len(current), math.exp(-tick / risetime) if risetime else 0.0
    k = charge = waiting = ready = 0
    triggers = []

    def add(k):
        nonlocal charge, waiting
        waiting = keep * waiting + (1 - keep) * (tick * float(current[k]) if k < n else 0.0)
        charge += waiting

    while k < n or k <= ready:
        add(k)
        if charge >= threshold and k >= ready:
            for j in range(k + 1, k + hold + 1):
                add(j)
            triggers.append((k, charge, charge >= threshold))
            ready = k + hold + reset + busy if charge >= threshold else 0
            k, charge, waiting = k + hold + reset, 0.0, 0.0
        k += 1
    return triggers


def pulses(pixels, ticks, length, height, seed=0, **at):
    """Currents up and down, over `length` ticks each."""
    random = torch.Generator().manual_seed(seed)
    steps = torch.randn(pixels, -(-ticks // length), generator=random, dtype=torch.float64)
    ripple = 1 + 0.3 * torch.randn(pixels, ticks, generator=random, dtype=torch.float64)
    return (height * steps.repeat_interleave(length, 1)[:, :ticks] * ripple).to(**at)


class TestFrontend(Contract):
    """A small clock (hold 3, busy 2) and charges of order one: many triggers, and central differences that resolve."""

    op = torch.ops.hepops.frontend.default
    public = staticmethod(frontend)
    sizes = (0, 1, 12)
    risetime = 0.0
    chip = detector(hold=2, latency=1, reset=1, busy=2, gain=4.0, v_ped=300.0, v_cm=300.0)

    @classmethod
    def function(cls, currents, threshold):
        hits = frontend(currents, cls.chip, threshold=threshold)
        return hits.time, hits.charge, hits.adc

    @classmethod
    def reference(cls, currents, threshold):
        found = [continuous(*pixel, 0.1, 3, 1, 2, cls.risetime) for pixel in zip(currents, threshold, strict=True)]
        hits = [(t, q) for pixel in found for t, q, accepted in pixel if accepted]
        nothing = 0 * (currents.sum() + threshold.sum()) + currents.new_zeros(0)
        time, charge = (torch.stack(part) if hits else nothing for part in (zip(*hits, strict=True) if hits else "  "))
        chip = cls.chip.frontend
        volts = (charge * chip.gain + chip.v_ped - chip.v_cm).clamp(min=0)
        return 0.1 * time, charge, (volts * 256 / (chip.v_ref - chip.v_cm)).clamp(max=255)

    @staticmethod
    def sample(size, **at):
        return pulses(size, 24, 3, 20.0, **at), torch.linspace(0.8, 1.2, size, **at)

    def operands(self, args):
        currents, threshold = args
        return currents.reshape(-1), torch.arange(len(currents) + 1) * 24, threshold, 0.1, 3, 1, 2, self.risetime

    @staticmethod
    def rounding(dtype):
        """A slope 1 / I(t*) multiplies sums of the chain before it."""
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}

    def test_compiles_whole(self, device, dtype):
        with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
            super().test_compiles_whole(device, dtype)

    def test_the_sample_meets_every_case(self):
        currents, threshold = self.sample(40, dtype=torch.float64)
        found = [continuous(*pixel, 0.1, 3, 1, 2, self.risetime) for pixel in zip(currents, threshold, strict=True)]
        pairs = [(a, b) for pixel in found for a, b in itertools.pairwise(pixel)]
        assert sum(len(pixel) for pixel in found) > 50
        assert sum(not accepted for pixel in found for _, _, accepted in pixel) > 5
        assert sum(a[2] and float(b[0]) == float(a[0]) + 6 for a, b in pairs) > 5
        assert sum(not a[2] for a, _ in pairs) > 3


class TestFiltered(TestFrontend):
    risetime = 0.1
    chip = detector(hold=2, latency=1, reset=1, busy=2, gain=4.0, v_ped=300.0, v_cm=300.0, buffer_risetime=0.1)


# --------------------------------------------------------------------------------------------------------- golden


def golden():
    """30 waveforms of larnd-sim-jax [e/us], and what DUNE's and its own front end made of them."""
    dune = np.load(shared("golden/lartpc/dune_cudasim.npz"))
    jax = np.load(shared("golden/lartpc/jax_param_mc.npz"))
    return torch.from_numpy(jax["wfs"][dune["jaxwfs_keep"]]), dune


@pytest.mark.parametrize("risetime", [0.0, 0.1])
def test_larnd_sim_to_the_tick(risetime, device, dtype):
    currents, dune = golden()
    name = f"fee_on_jaxwfs_rise{risetime:g}"
    hits = frontend(
        currents.to(device, dtype), detector(buffer_risetime=risetime), threshold=5000.0, sampled=True, seed=None
    )
    charges = torch.from_numpy(dune[f"{name}_adc_e"])
    row, rank = charges.nonzero(as_tuple=True)
    assert_close((hits.row.cpu(), hits.rank.cpu()), (row, rank))
    # larnd-sim's time: tick k + 19 less 2 us, on a window that is not padded.
    ticks = torch.from_numpy(dune[f"{name}_ticks"])[row, rank] * 10 + 1
    assert_close(hits.time.cpu() * 10, ticks + 1, rtol=0, atol=1e-9)
    # Its filter ends after ten rise times: exp(-11) of the charge.
    tolerance = 2e-5 if risetime else 1e-12 if dtype is torch.float64 else 1e-7
    assert_close(hits.charge.double().cpu(), charges[row, rank], rtol=tolerance, atol=0)
    count, total = (45, 949_259) if risetime else (46, 962_275)
    assert len(hits) == count
    assert hits.charge.double().sum().item() == pytest.approx(total, rel=2e-5)


def test_larnd_sim_jax_to_the_tick():
    """Its first hits, that is: later ones follow a dead time of its own."""
    currents, dune = golden()
    hits = frontend(currents, threshold=5000.0, sampled=True)
    first = hits.rank == 0
    assert_close(hits.time[first] * 10, torch.from_numpy(dune["jaxwfs_ticks"][:, 0]).double() + 2, rtol=0, atol=1e-9)
    assert_close(hits.charge[first], torch.from_numpy(dune["jaxwfs_integral"][:, 0]), rtol=1e-6, atol=0)
    assert hits.charge.double().sum().item() == pytest.approx(962_261.1, rel=1e-4)


def test_other_golden_sums():
    currents, _ = golden()
    clock = frontend(currents, threshold=7000.0, sampled=True)
    assert (len(clock), round(clock.charge.double().sum().item())) == (36, 923_508)
    smooth = frontend(currents, threshold=5000.0)
    assert (len(smooth), round(smooth.charge.double().sum().item())) == (48, 966_772)


def test_the_faces_differ_by_the_clock():
    """The figures of the docstring, on hits that both faces have."""
    currents, _ = golden()
    clock, smooth = (frontend(currents, threshold=5000.0, sampled=face) for face in (True, False))
    name = {(int(r), int(k)): i for i, (r, k) in enumerate(zip(smooth.row, smooth.rank, strict=True))}
    pairs = torch.tensor([name[int(r), int(k)] for r, k in zip(clock.row, clock.rank, strict=True)])
    later, more = (clock.time - smooth.time[pairs]) * 10, (clock.charge - smooth.charge[pairs]).double()
    assert later.mean().item() == pytest.approx(0.497, abs=1e-3)
    assert later.std(correction=0).item() == pytest.approx(0.352, abs=1e-3)
    assert more.mean().item() == pytest.approx(122.6, abs=0.1)
    assert more.std(correction=0).item() == pytest.approx(379.3, abs=0.1)


# ---------------------------------------------------------------------------------------------- faces against the law


@pytest.mark.parametrize("risetime", [0.0, 0.1])
def test_sampled_is_the_loop(risetime, device, dtype):
    currents = pulses(60, 300, 6, 4000.0, device=device, dtype=dtype)
    hits = frontend(currents, detector(buffer_risetime=risetime), threshold=5000.0, sampled=True)
    found = [clocked(current, 5000.0, 0.1, 18, 1, 9, risetime) for current in currents.cpu()]
    expected = [(row, k, q) for row, pixel in enumerate(found) for k, q, accepted in pixel if accepted]
    row, k, charge = (torch.from_numpy(np.array(part)) for part in zip(*expected, strict=True))
    assert_close(hits.row.cpu(), row)
    assert_close(hits.time.cpu(), 0.1 * (k + 1).double(), rtol=1e-14, atol=0)
    assert_close(hits.charge.cpu(), charge.to(dtype), rtol=1e-12 if dtype is torch.float64 else 1e-7, atol=0)
    silent = torch.tensor([sum(not accepted for *_, accepted in pixel) for pixel in found])
    assert silent.sum() > 10
    assert_close(hits.reports["rejected"].cpu(), silent)


def test_the_filter_lowers_both_faces_alike():
    """On the golden waveforms: the continuous face's hits that both faces have, within half a tick and its current."""
    currents, _ = golden()
    chip = detector(buffer_risetime=0.1)
    clock, smooth = (frontend(currents, chip, threshold=5000.0, sampled=face) for face in (True, False))
    first = [h.rank == 0 for h in (clock, smooth)]
    later = (clock.time[first[0]] - smooth.time[first[1]]) * 10
    assert later.min() >= 0 and later.max() < 1
    plain = frontend(currents, threshold=5000.0)
    delay = ((smooth.time[first[1]] - plain.time[plain.rank == 0]) * 10).mean()
    assert 0.3 < delay < 1.0  # keep / (1 - keep) = 0.58 ticks for a steady current


def test_a_clock_of_any_phase_surrounds_the_continuous_face():
    """Shifting the waveform by a part of a tick is shifting the clock: the first hit's sampled time, less the shift,
    is later by 0 to 1 ticks, half a tick in the mean over phases."""
    currents = pulses(40, 200, 40, 1500.0, dtype=torch.float64).abs()
    smooth = frontend(currents, threshold=5000.0)
    first = smooth.time[smooth.rank == 0]
    phases = (torch.arange(50, dtype=torch.float64) + 0.5) / 50
    later = []
    for phase in phases:
        shifted = torch.nn.functional.pad((1 - phase) * currents, (0, 1)) + phase * torch.nn.functional.pad(
            currents, (1, 0)
        )
        clock = frontend(shifted, threshold=5000.0, sampled=True)
        later.append(clock.time[clock.rank == 0] * 10 - phase - first * 10)
    later = torch.stack(later)
    assert later.min() > -1e-9 and later.max() < 1 + 1e-9
    # Within a tick the shifted charge is a chord of two slopes, so the phase is uniform up to that.
    assert later.mean().item() == pytest.approx(0.5, abs=0.02)


# --------------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("risetime", [0.0, 0.1])
def test_gradients_are_central_differences_on_long_chains(risetime):
    """On the chip's own clock, in electrons; what the differences cannot resolve is rounding over the step."""
    currents = pulses(40, 400, 6, 4000.0, dtype=torch.float64)
    tangent = pulses(40, 400, 12, 1.0, seed=1, dtype=torch.float64)
    threshold = torch.linspace(1900, 2100, 40, dtype=torch.float64)
    chip = detector(buffer_risetime=risetime)
    hits = frontend(currents, chip, threshold=threshold, tangents=tangent[None])
    assert hits.reports["rejected"].sum() > 20 and len(hits) > 60

    step = 1e-4
    up, down = (frontend(currents + sign * step * tangent, chip, threshold=threshold) for sign in (1, -1))
    assert torch.equal(up.row, hits.row) and torch.equal(down.row, hits.row)
    for ours, more, less in (
        (hits.time_tangents, up.time, down.time),
        (hits.charge_tangents, up.charge, down.charge),
    ):
        assert_close(ours[0], (more - less) / (2 * step), rtol=1e-6, atol=1e-6 * ours.abs().median().item())


@pytest.mark.parametrize("risetime", [0.0, 0.1])
def test_forward_mode_is_reverse_mode(risetime, device):
    currents = pulses(30, 400, 6, 4000.0, dtype=torch.float64, device=device).requires_grad_()
    threshold = torch.linspace(1900, 2100, 30, dtype=torch.float64, device=device).requires_grad_()
    v = torch.stack([pulses(30, 400, 12, 1.0, seed=s, dtype=torch.float64, device=device) for s in range(1, 7)])
    w = torch.randn(6, 30, dtype=torch.float64, device=device)
    hits = frontend(currents, detector(buffer_risetime=risetime), threshold=threshold, tangents=v, threshold_tangents=w)
    for of, tangents in ((hits.time, hits.time_tangents), (hits.charge, hits.charge_tangents)):
        seed = torch.randn_like(of)
        g, h = torch.autograd.grad(of, (currents, threshold), seed, retain_graph=True)
        reverse, forward = (v * g).sum((1, 2)) + (w * h).sum(1), tangents @ seed
        scale = (tangents * seed).abs().sum().item()
        assert_close(reverse, forward, rtol=0, atol=1e-13 * scale)


def test_one_threshold_for_all_collects_the_gradients_of_each(dtype):
    currents = pulses(200, 300, 12, 1500.0, dtype=dtype)
    one = torch.tensor(5000.0, dtype=dtype, requires_grad=True)
    each = torch.full((200,), 5000.0, dtype=dtype, requires_grad=True)
    (together,) = torch.autograd.grad(frontend(currents, threshold=one).charge.sum(), one)
    (single,) = torch.autograd.grad(frontend(currents, threshold=each).charge.sum(), each)
    assert together.shape == ()
    assert_close(together.double(), single.double().sum(), rtol=1e-6 if dtype is torch.float32 else 1e-12, atol=0)

    v = torch.ones(1, 1, dtype=dtype)
    hits = frontend(currents, threshold=one, tangents=torch.zeros(1, 200, 300, dtype=dtype), threshold_tangents=v)
    assert_close(hits.charge_tangents.double().sum(), together.double(), rtol=1e-5, atol=0)


def test_the_adc_is_differentiable():
    currents = pulses(20, 300, 12, 1500.0, dtype=torch.float64)
    gain, pedestal = (torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in (4e-3, 580.0))
    hits = frontend(currents, threshold=5000.0, gain=gain, pedestal=pedestal)
    chip = MODULE0.frontend
    per_mv = 256 / (chip.v_ref - chip.v_cm)
    assert (hits.adc < 255).all()
    assert_close(hits.adc, (hits.charge * 4e-3 + 580 - chip.v_cm) * per_mv)
    slopes = torch.autograd.grad(hits.adc.sum(), (gain, pedestal))
    assert_close(slopes, (hits.charge.sum() * per_mv, torch.tensor(len(hits) * per_mv, dtype=torch.float64)))

    clock = frontend(currents, threshold=5000.0, sampled=True)
    assert clock.adc.dtype is torch.int64
    assert_close(clock.adc, ((clock.charge * 4e-3 + 580 - chip.v_cm) * per_mv).round().long())
    assert (frontend(100 * currents, threshold=5000.0, sampled=True).adc == 255).any()


# --------------------------------------------------------------------------------------------------------------- noise


def test_noise_of_a_quiet_pixel_has_the_moments_asked_for(device):
    """A steady current from tick 0 and one look at it: the reading is its charge, reset and uncorrelated noise."""
    pixels = 40_000
    currents = torch.zeros(pixels, 30, device=device, dtype=torch.float64)
    currents[:, 5] = 200_000.0  # 20 000 e at once: every pixel triggers there, none is rejected
    hits = frontend(currents, threshold=10_000.0, seed=11)
    assert len(hits) == pixels
    assert_close(hits.time, torch.full_like(hits.time, 0.6))
    noise, sigma = hits.charge - 20_000.0, math.hypot(900, 500)
    assert abs(noise.mean().item()) < 5 * sigma / math.sqrt(pixels)
    assert noise.std().item() == pytest.approx(sigma, rel=5 / math.sqrt(2 * pixels))


def test_a_charge_at_threshold_triggers_and_passes_half_the_time():
    """P(trigger) = Phi((q - threshold) / sqrt(900^2 + 500^2 + 650^2)) for one look at a charge that then stands."""
    pixels, chip = 40_000, detector(hold=0, latency=0)
    for above in (-1500.0, 0.0, 1000.0):
        current = torch.full((pixels, 1), 10 * (50_000.0 + above), dtype=torch.float64)
        hits = frontend(current, chip, threshold=50_000.0, seed=5)
        triggers = len(hits) + int(hits.reports["rejected"].sum())
        p = 0.5 * (1 + math.erf(above / math.sqrt(2 * (900**2 + 500**2 + 650**2))))
        assert triggers / pixels == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / pixels))
        # The reading is compared anew: q + r + n' >= threshold + d', given that q + r + n >= threshold + d.
        r = 900 * np.random.default_rng(1).standard_normal(2_000_000)
        look = 0.5 * (1 + np.vectorize(math.erf)((above + r[:200_000]) / math.sqrt(2 * (500**2 + 650**2))))
        both = (look * look).mean()
        assert len(hits) / pixels == pytest.approx(both, abs=5 * math.sqrt(both / pixels))


def test_noise_alone_triggers_as_often_as_a_plain_simulation():
    """Rates of hits and silent resets of an empty pixel at a low threshold, against the loop in numpy."""
    pixels, ticks, threshold = 3000, 400, 3000.0
    hits = frontend(torch.zeros(pixels, ticks), threshold=threshold, seed=3)
    random, counts = np.random.default_rng(0), np.zeros(2)
    q, wait, block = 900 * random.standard_normal(pixels), np.zeros(pixels, int), np.zeros(pixels, int)
    for k in range(ticks + 9):
        look = q + np.hypot(500, 650) * random.standard_normal(pixels)
        trigger = (look >= threshold) & (wait <= k) & (block <= k) & ((k < ticks) | (block == k) & (k > 0))
        read = q + 500 * random.standard_normal(pixels) >= threshold + 650 * random.standard_normal(pixels)
        counts += (trigger & read).sum(), (trigger & ~read).sum()
        wait[trigger] = k + 20
        block[trigger & read] = k + 28
        q = np.where(trigger, 900 * random.standard_normal(pixels), q)
    for ours, theirs in zip((len(hits), int(hits.reports["rejected"].sum())), counts, strict=True):
        assert abs(ours - theirs) < 5 * math.sqrt(ours + theirs)


def windows(currents, first_tick=0, event=0):
    """As a Waveforms: each pixel by its own name."""
    pixels, ticks = currents.shape
    index = torch.arange(pixels)
    return SimpleNamespace(
        event=torch.full((pixels,), event) + index % 3,
        tpc=index % 2,
        ix=index % 140,
        iy=index % 280,
        first_tick=torch.full((pixels,), first_tick),
        offsets=torch.arange(pixels + 1) * ticks,
        values=currents.reshape(-1),
        tick=0.1,
        tangents=None,
    )


def take(waves, rows):
    ticks = int(waves.offsets[1])
    names = {name: getattr(waves, name)[rows] for name in ("event", "tpc", "ix", "iy", "first_tick")}
    values = waves.values.reshape(-1, ticks)[rows].reshape(-1)
    return SimpleNamespace(**names, values=values, offsets=torch.arange(len(rows) + 1) * ticks, tick=0.1, tangents=None)


def test_noise_depends_on_the_pixel_and_the_tick_alone():
    waves = windows(pulses(200, 300, 12, 1500.0, dtype=torch.float64), event=2**40)
    whole = frontend(waves, MODULE0, threshold=5000.0, seed=7)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:77]
    part = frontend(take(waves, order), MODULE0, threshold=5000.0, seed=7)
    place = {int(r): i for i, r in enumerate(order)}
    kept = [i for i, r in enumerate(whole.row.tolist()) if r in place]
    kept.sort(key=lambda i: (place[int(whole.row[i])], int(whole.rank[i])))
    for name in ("event", "tpc", "ix", "iy", "time", "charge", "rank"):
        assert_close(getattr(part, name), getattr(whole, name)[kept], rtol=0, atol=0)
    assert not torch.equal(frontend(waves, MODULE0, threshold=5000.0, seed=8).charge, whole.charge)


def test_noise_depends_on_no_window():
    """The same pixels in a window with 50 ticks more on either side, looked at in the same interval."""
    currents = pulses(100, 300, 12, 1500.0, dtype=torch.float64)
    narrow, wide = windows(currents, 1000), windows(torch.nn.functional.pad(currents, (50, 50)), 950)
    interval = (900, 1400)
    a, b = (frontend(w, MODULE0, threshold=3000.0, seed=1, interval=interval) for w in (narrow, wide))
    assert (a.time < 100.0).any() or (a.time > 130.0).any()  # noise triggers outside the window, too
    for name in ("row", "rank", "time", "charge"):
        assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)


def test_an_interval_bounds_the_looks_and_starts_the_integration():
    currents = torch.zeros(1, 100, dtype=torch.float64)
    currents[0, 20] = currents[0, 60] = 60_000.0

    def times(*interval):
        return frontend(currents, threshold=5000.0, sampled=True, interval=interval).time.tolist()

    assert times(0, 100) == pytest.approx([2.1, 6.1])
    assert times(21, 100) == pytest.approx([6.1])
    assert times(0, 60) == pytest.approx([2.1])
    assert times(-50, 500) == pytest.approx([2.1, 6.1])


def test_threads_do_not_matter_to_noise():
    waves = windows(pulses(5000, 300, 12, 1500.0, dtype=torch.float32))
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 2):
            torch.set_num_threads(n)
            results.append(frontend(waves, MODULE0, threshold=5000.0, seed=1))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for name in ("row", "rank", "time", "charge", "adc"):
            assert_close(getattr(other, name), getattr(results[0], name), rtol=0, atol=0)


HASH = """
import hashlib, torch
from hepops.lartpc import frontend
random = torch.Generator().manual_seed(0)
currents = (4000 * torch.randn(500, 50, generator=random)).repeat_interleave(6, 1)
digest = hashlib.sha256()
for face in ({}, {"sampled": True}, {"seed": 3}):
    hits = frontend(currents, threshold=3000.0, **face)
    for column in (hits.row, hits.rank, hits.time, hits.charge):
        digest.update(column.numpy().tobytes())
print(len(hits), digest.hexdigest())
"""


def test_cpu_levels_agree_to_the_last_bit():
    levels = sorted(path.stem.removeprefix("libhepops_cpu_") for path in DIRECTORY.glob("libhepops_cpu_*.so"))
    levels = [level for level in levels if level <= _core.cpu_level()]
    if len(levels) < 2:
        pytest.skip(f"built for {levels} alone")
    printed = set()
    for level in levels:
        environment = {**os.environ, "HEPOPS_CPU_LEVEL": level}
        run = subprocess.run([sys.executable, "-c", HASH], env=environment, capture_output=True, text=True, check=True)
        printed.add(run.stdout)
    assert len(printed) == 1 and int(printed.pop().split()[0]) > 500


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_agrees_with_the_cpu_to_the_last_bit():
    currents = pulses(3000, 300, 12, 1500.0, dtype=torch.float32)
    for face in ({"seed": 1}, {"sampled": True}, {}):
        cpu, gpu = (frontend(currents.to(d), threshold=5000.0, **face) for d in ("cpu", "cuda"))
        for name in ("row", "rank", "time", "charge"):
            assert_close(getattr(gpu, name).cpu(), getattr(cpu, name), rtol=0, atol=0)


# -------------------------------------------------------------------------------------------- windows, names, positions


def test_windows_of_any_length_and_place():
    """Ragged rows, far from tick 0, in float32: the same hits as in a dense plane."""
    currents = pulses(50, 300, 12, 1500.0, dtype=torch.float32)
    dense = frontend(currents, threshold=5000.0)
    first, far = torch.arange(50) % 7, 10**9
    waves = windows(currents)
    waves.values = torch.cat([row[f:] for row, f in zip(currents, first, strict=True)])
    waves.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (300 - first).cumsum(0)])
    for row, f in enumerate(first):
        currents[row, :f] = 0
    dense = frontend(currents, threshold=5000.0)
    waves.first_tick = first + far
    ragged = frontend(waves, MODULE0, threshold=5000.0)
    assert_close(ragged.row, dense.row)
    assert_close(ragged.charge, dense.charge, rtol=1e-6, atol=0)
    assert_close(ragged.time - 0.1 * far, dense.time, rtol=0, atol=1e-7)  # 1e8 us in float64
    assert ragged.time.dtype is torch.float64


@pytest.mark.parametrize("face", [{}, {"sampled": True}])
def test_the_charge_is_that_of_the_reported_integration(face):
    """In the continuous face at fractions of ticks; silent resets in between count, too."""
    currents = pulses(40, 300, 6, 4000.0, dtype=torch.float64)
    hits = frontend(currents, threshold=5000.0, **face)
    total = torch.nn.functional.pad((0.1 * currents).cumsum(1), (1, 40))
    total[:, 301:] = total[:, 300:301]

    def until(moment):
        k = moment.floor().long()
        return total[hits.row, k] + (moment - k) * (total[hits.row, k + 1] - total[hits.row, k])

    begin, end = hits.reports["integration"]
    assert hits.reports["rejected"][hits.row].sum() > 10
    assert_close(until(end) - until(begin), hits.charge, rtol=1e-12, atol=0)
    assert_close(end, hits.time * 10 + 18)


def test_tangents_come_with_the_waveforms():
    currents = pulses(20, 300, 12, 1500.0, dtype=torch.float64)
    waves = windows(currents, first_tick=40)
    waves.tangents = torch.randn(3, currents.numel(), dtype=torch.float64)
    ours = frontend(waves, MODULE0, threshold=5000.0)
    theirs = frontend(currents, threshold=5000.0, tangents=waves.tangents.reshape(3, 20, 300))
    assert ours.time_tangents.shape == (3, len(ours))
    assert_close((ours.time_tangents, ours.charge_tangents), (theirs.time_tangents, theirs.charge_tangents))


def test_positions_are_pixel_centres_and_drift_times():
    currents = torch.zeros(3, 400, dtype=torch.float64)
    currents[:, 200:230] = 5000.0
    velocity = torch.tensor(0.16, dtype=torch.float64, requires_grad=True)
    hits = frontend(windows(currents), MODULE0, threshold=5000.0, velocity=velocity)
    assert len(hits) == 3
    low = MODULE0.tpcs[0]
    assert_close(hits.z, low.z[0] + (torch.arange(3) + 0.5).double() * 0.4434)
    assert_close(hits.y, low.y[0] + (torch.arange(3) + 0.5).double() * 0.4434)
    drifted = 0.16 * hits.time
    sign = torch.tensor([MODULE0.tpcs[i].direction for i in (0, 1, 0)], dtype=torch.float64)
    anode = torch.tensor([MODULE0.tpcs[i].anode for i in (0, 1, 0)], dtype=torch.float64)
    assert_close(hits.x, anode + sign * drifted)
    (slope,) = torch.autograd.grad(hits.x[0], velocity)
    assert_close(slope, sign[0] * hits.time[0])
    assert frontend(currents).x.isnan().all()


# ----------------------------------------------------------------------------------------------------------- bad input


def test_nothing_comes_of_nothing(device, dtype):
    for shape in ((0, 0), (0, 10), (5, 0), (5, 10)):
        for face in ({}, {"sampled": True}, {"seed": 1}):
            hits = frontend(torch.zeros(shape, device=device, dtype=dtype), threshold=50_000.0, **face)
            assert len(hits) == 0
            assert hits.reports["rejected"].tolist() == [0] * shape[0]
            assert hits.charge.dtype is dtype and hits.time.dtype is torch.float64


@pytest.mark.parametrize("face", [{}, {"sampled": True}, {"seed": 1}])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_current_that_is_no_number_is_refused(face, bad, device):
    currents = torch.zeros(100, 50, device=device)
    currents[17, 3] = bad
    with pytest.raises(ValueError, match=r"currents must be finite \[e/us\], row 17 is not"):
        frontend(currents, threshold=5000.0, **face)


@pytest.mark.parametrize("face", [{}, {"sampled": True}, {"seed": 1}])
def test_a_threshold_must_be_positive(face, device):
    currents = torch.zeros(4, 50, device=device)
    for bad in (0.0, -3.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"threshold must be positive \[e\], got {bad:g} for row 0"):
            frontend(currents, threshold=bad, **face)
    with pytest.raises(ValueError, match="got -1 for row 2"):
        frontend(currents, threshold=torch.tensor([1.0, 1.0, -1.0, -2.0], device=device), **face)
    with pytest.raises(ValueError, match=r"threshold must be one number or one per row, 4, got shape \(3\)"):
        frontend(currents, threshold=torch.ones(3, device=device), **face)


def test_refuses_what_has_no_meaning():
    currents = torch.zeros(4, 50)
    with pytest.raises(ValueError, match=r"currents must be \(pixels, ticks\), got shape \(4,\)"):
        frontend(currents[:, 0])
    with pytest.raises(ValueError, match="the continuous face is free of noise, got seed 3"):
        frontend(currents, seed=3, sampled=False)
    with pytest.raises(ValueError, match=r"the continuous face looks always, got interval \(0, 9\)"):
        frontend(currents, interval=(0, 9))
    with pytest.raises(ValueError, match="an interval needs a first tick and a last one that is not before it"):
        frontend(currents, sampled=True, interval=(9, 0))
    with pytest.raises(ValueError, match=r"tangents must be \(directions, 200\), got \(2, 199\)"):
        frontend(currents, tangents=torch.zeros(2, 199))
    with pytest.raises(ValueError, match=r"threshold_tangents must be \(2, 1\), got \(3, 1\)"):
        frontend(currents, tangents=torch.zeros(2, 200), threshold_tangents=torch.zeros(3, 1))
    waves = windows(currents)
    waves.offsets = torch.tensor([0, 50, 40, 150, 200])
    with pytest.raises(ValueError, match="offsets must rise from 0 to 200, got 50 and 40 for row 1"):
        frontend(waves)
    waves = windows(currents)
    waves.first_tick = waves.first_tick.int()
    with pytest.raises(TypeError, match="first_tick must be int64"):
        frontend(waves, seed=1)


# ---------------------------------------------------------------------------------------------- parts that are internal


def test_internal_operators_are_registered_whole(device, dtype):
    currents, threshold = TestFrontend.sample(12, dtype=dtype, device=device)
    values, offsets = currents.reshape(-1), torch.arange(13, device=device) * 24
    clock = (0.1, 3, 1, 2, 0.0)
    time, charge, _, rank, first = torch.ops.hepops.frontend(values, offsets, threshold, *clock)
    found = (values, offsets, threshold, rank, time, first, *clock)
    ops = torch.ops.hepops
    for share in (None, torch.randn(2, 12, dtype=dtype, device=device)):
        opcheck(ops.frontend_jvp.default, (torch.randn(2, 288, dtype=dtype, device=device), share, *found))
    opcheck(ops.frontend_backward.default, (torch.randn_like(time), torch.randn_like(charge), *found))
    names = torch.arange(48, device=device).reshape(12, 4)
    for interval in ((None, None), (-5, 30)):
        arguments = (values, offsets, offsets[:-1].contiguous(), names, threshold, 1, *clock, 0.3, 0.2, 0.1, *interval)
        opcheck(ops._frontend_sampled.default, arguments)
