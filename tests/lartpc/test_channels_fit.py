"""From ADC codes of channels that differ to a fit: thresholds, gains, pedestals, dead and noisy channels."""

import dataclasses

import hepops
import pytest
import torch
from hepops.lartpc import Detector, FrontEnd, Hits, Module, Parameters, Segments, Simulator, gun
from hepops.lartpc.likelihood import Chip, HitLikelihood
from hepops.lartpc.packets import ChannelMap, Channels, Clock, read_packets, write_packets

DETECTOR = Detector.module0()
SEGMENTS = gun.shoot(DETECTOR, 1, energy=60.0, topology="inside", seed=3)
TRUTH = Parameters(lifetime=1500.0)


def uneven(dead=0.15, noisy=0.05):
    """Channels as a detector has them: every constant another in every pixel."""
    draw = torch.Generator().manual_seed(5)
    n = DETECTOR.num_pixels

    def normal():
        return torch.randn(n, generator=draw, dtype=torch.float64)

    plain = Channels.default(DETECTOR)
    share = torch.rand(n, generator=draw)
    status = torch.where(share < dead, 1, torch.where(share < dead + noisy, 2, 0))
    return plain.replace(
        gain=plain.gain * (1 + 0.05 * normal()),
        pedestal=plain.pedestal + 20 * normal(),
        v_cm=plain.v_cm + 5 * normal(),
        v_ref=plain.v_ref + 15 * normal(),
        threshold=plain.threshold * (1 + 0.1 * normal()),
        status=status,
    )


CHANNELS = uneven()


def measured(tmp_path, seed=1):
    """Packets of the simulated chips, with hot channels that fire on their own."""
    sim = Simulator(DETECTOR, TRUTH, dtype=torch.float64)
    hits = sim(SEGMENTS, seed=seed, threshold=CHANNELS.threshold)
    hot = torch.nonzero(CHANNELS.status == 2)[:40, 0]
    tpc, ix, iy = DETECTOR.pixel_from_id(hot)
    k = len(hot)
    number = torch.arange(k)
    noise = {n: c[:1].repeat(k) for n, c in hits.columns().items()} | {
        "tpc": tpc, "ix": ix, "iy": iy, "time": 5.0 + 0.1 * number.double(), "rank": 0 * number,
        "charge": torch.full((k,), 9000.0, dtype=torch.float64),
    }  # fmt: skip
    both = Hits(**{n: torch.cat([c, noise[n]]) for n, c in hits.columns().items()})
    channel_map = ChannelMap.builtin(DETECTOR)
    write_packets(tmp_path / "p.h5", both, channel_map, CHANNELS, starts=torch.tensor([10_005_000]))
    clock = Clock.pps()
    again = read_packets(tmp_path / "p.h5", channel_map, CHANNELS, clock=clock)
    return again, len(hits)


def test_codes_in_fit_out(tmp_path):
    """The right constants give the lifetime back; those of the front end alone are off by many of its errors."""
    hits, all_hits = measured(tmp_path)
    assert len(hits) < all_hits + 40  # dead channels sent nothing

    sim = Simulator(DETECTOR, TRUTH, dtype=torch.float64)
    right, wrong = (
        HitLikelihood(chip).likelihood(sim, SEGMENTS, hits, ("lifetime",), True)
        for chip in (CHANNELS.chip(DETECTOR), Chip.of(DETECTOR))
    )
    assert right.report["masked"] == int((CHANNELS.status[pixel_of(hits)] == 2).sum()) > 30
    assert right.report["without_row"] == 0 and right.report["foreign"] == 0
    assert wrong.report["without_row"] > 10 and wrong.report["foreign"] > 10
    assert float(wrong.value) > 2 * float(right.value)
    objective = HitLikelihood(CHANNELS.chip(DETECTOR))
    result = hepops.lartpc.fit(
        Simulator(DETECTOR, dtype=torch.float64), SEGMENTS, hits, ["lifetime"], residual=objective
    )
    assert (
        result.converged and len(result.trace) < 25
    )  # its toys have the channels' thresholds, gains and pedestals: else it creeps
    assert abs(result["lifetime"] - TRUTH.lifetime) < 4 * float(result.errors[0])


def pixel_of(hits):
    return DETECTOR.pixel_id(hits.tpc, hits.ix, hits.iy)


def test_masked_pixels_say_nothing():
    sim = Simulator(DETECTOR, TRUTH, dtype=torch.float64)
    hits = sim(SEGMENTS, seed=1, threshold=CHANNELS.threshold)
    hits = dataclasses.replace(hits, adc=CHANNELS.digitise(hits.charge, pixel_of(hits)))
    chip = CHANNELS.chip(DETECTOR)
    bare = dataclasses.replace(chip, masked=None)
    every, some = (HitLikelihood(c).intervals(sim, SEGMENTS, hits, ("lifetime", "gain")) for c in (bare, chip))
    keep = ~chip.masked[DETECTOR.pixel_id(every.tpc, every.ix, every.iy)]
    assert 0 < int(keep.sum()) < len(keep)
    for name in ("event", "tpc", "ix", "iy", "hit", "log_probability", "scores"):
        assert torch.equal(getattr(every, name)[keep], getattr(some, name)), name
    seen = CHANNELS.status[pixel_of(hits)] > 0
    assert some.report["masked"] == int(seen.sum()) and len(some.left_over) == 0
    kept = CHANNELS.chip(DETECTOR, noisy="keep")
    assert int(kept.masked.sum()) == int((CHANNELS.status == 1).sum())
    # hits of events without a segment, on good pixels and on masked ones
    alien = dataclasses.replace(hits, event=hits.event + 100)
    lost = HitLikelihood(chip).intervals(sim, SEGMENTS, alien)
    assert len(lost.left_over) == int((~seen).sum()) and lost.report["masked"] == int(seen.sum())


def test_edges_are_those_of_the_channels_own_adc():
    """What a code stands for begins and ends half a code from its middle, whatever the references of the pixel."""
    pixel = torch.arange(0, DETECTOR.num_pixels, 97)
    pixel = pixel[CHANNELS.status[pixel] == 0]
    code = torch.arange(len(pixel)) % 254 + 1
    low, high = CHANNELS.chip(DETECTOR).edges(code, code.double(), pixel)[0]
    torch.testing.assert_close(low, CHANNELS.calibrate(code - 0.5, pixel), rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(high, CHANNELS.calibrate(code + 0.5, pixel), rtol=1e-9, atol=1e-6)


def test_dead_channels_need_no_constants():
    plain = Channels.default(DETECTOR).with_status([0, 5], "dead")
    none = {n: getattr(plain, n).clone() for n in ("gain", "pedestal", "threshold", "v_cm", "v_ref")}
    for column in none.values():
        column[[0, 5]] = torch.nan
    channels = plain.replace(**none)
    chip = channels.chip(DETECTOR)
    assert chip.masked.nonzero()[:, 0].tolist() == [0, 5] and chip.gain[5] == DETECTOR.frontend.gain
    sim = Simulator(DETECTOR)
    assert len(sim(SEGMENTS, seed=1, threshold=channels.threshold)) > 50
    with pytest.raises(ValueError, match="Channels: gain of pixel 0 is nan"):
        channels.with_status([0], "good")


def test_chips_of_modules_that_differ():
    """The whole's likelihood is that of each module with its own front end."""
    own = Module(number=3, frontend=FrontEnd(gain=5e-3, v_ref=1200.0, threshold=4000.0))
    whole = Detector.two_by_two().replace(modules=(own,))
    shots = [gun.shoot(whole.module(n), 1, energy=200.0, seed=n, first_event=n) for n in (1, 3)]
    sim = Simulator(whole, dtype=torch.float64)
    hits = sim(Segments.cat(shots), seed=1)
    names = ("lifetime", "threshold", "gain", "pedestal")
    both = [HitLikelihood(c).likelihood(sim, Segments.cat(shots), hits, names, True) for c in (None, Chip.of(whole))]
    apart = []
    for number, segments in zip((1, 3), shots, strict=True):
        first = 2 * (number - 1)
        mine = hits[hits.tpc // 2 == first // 2]
        alone = Simulator(whole.module(number), dtype=torch.float64)
        mine = dataclasses.replace(mine, tpc=mine.tpc - first)
        apart.append(HitLikelihood().likelihood(alone, segments, mine, names, True))
    value, score = sum(a.value for a in apart), sum(a.score for a in apart)
    for found in both:
        assert found.report["matched"] == len(hits)
        torch.testing.assert_close(found.value, value, rtol=1e-9, atol=0)
    torch.testing.assert_close(both[0].score, score, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(both[1].score[:2], score[:2], rtol=1e-8, atol=1e-8)  # gain in terms of one ADC
    odd = whole.replace(modules=(Module(number=3, frontend=FrontEnd(hold=20)),))
    with pytest.raises(ValueError, match=r"Chip: integration must be the same in all modules of 2x2, got \[18, 23\]"):
        Chip.of(odd)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"Channels: 78400 channels, 2x2 has"):
        CHANNELS.chip(Detector.two_by_two())
    with pytest.raises(ValueError, match="Channels: 256 codes, the ADC of module0 has 1024"):
        CHANNELS.chip(DETECTOR.replace(frontend=FrontEnd(adc_bits=10)))
    with pytest.raises(ValueError, match="noisy must be 'mask' or 'keep', got 'drop'"):
        CHANNELS.chip(DETECTOR, noisy="drop")
    with pytest.raises(ValueError, match=r"Chip: masked must be bool \(num_pixels,\), got torch.int64 \(3,\)"):
        Chip.of(DETECTOR, masked=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="masked has 3 values, there is none for pixel id"):
        HitLikelihood(Chip.of(DETECTOR, masked=torch.zeros(3, dtype=torch.bool))).intervals(
            Simulator(DETECTOR), SEGMENTS, Simulator(DETECTOR)(SEGMENTS, seed=1)
        )
