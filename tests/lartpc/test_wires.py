"""Planes of wires: potentials, conservation, an exact quadrature, derivatives, images, a fit."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hepops.lartpc import Parameters, drift, gun
from hepops.lartpc.wires import (
    WireDetector,
    WireFrontEnd,
    WirePlane,
    WireSimulator,
    WireTPC,
    cold_response,
    fit_wires,
    wire_potential,
)
from hepops.lartpc.wires.electronics import Shape, taps

from .scenes import differentiable, segments

APA = WireDetector.dune_apa()
MID = [4.0 + 30.0, 10.0, 3.0]  # 30 cm from the planes
TRACK = segments([MID], [[MID[0] + 4.0, MID[1] + 3.0, MID[2] + 5.0]], dE=15.0, dEdx=2.1)


def simulator(detector=APA, dtype=torch.float64, **options):
    return WireSimulator(detector, dtype=dtype, **options)


# ---- the weighting field


@pytest.mark.parametrize("detector", [APA, WireDetector.microboone()], ids=lambda d: d.name)
@pytest.mark.parametrize("plane", [0, 1, 2])
def test_the_potential_is_harmonic_and_shared_by_the_wires(detector, plane):
    pitch, stops = detector.planes[plane].pitch, [detector.shield, *(p.distance for p in detector.planes)]
    b = torch.linspace(-2.0, 2.0, 23, dtype=torch.float64)[:, None] * pitch
    middles = [(low + high) / 2 for high, low in itertools.pairwise(stops)]
    z, h = torch.tensor(middles, dtype=torch.float64)[None] + 0.013, 1e-3

    def phi(b, z):
        return wire_potential(detector, plane, b, z)[0]

    laplacian = (phi(b + h, z) + phi(b - h, z) + phi(b, z + h) + phi(b, z - h) - 4 * phi(b, z)) / h**2
    assert laplacian.abs().max() < 1e-2 / pitch**2  # h^2 phi'''' / 6, phi'''' below (pi / gap)^4
    slope = (phi(b, z + h) - phi(b, z - h)) / (2 * h)
    torch.testing.assert_close(wire_potential(detector, plane, b, z)[1], slope, rtol=0, atol=1e-3)
    wires = torch.arange(-150, 151, dtype=torch.float64)[:, None] * pitch
    above, own = stops[plane], stops[plane + 1]
    inside = torch.linspace(own, above, 9, dtype=torch.float64)
    total = phi(wires + 0.3 * pitch, inside[None]).sum(0)
    torch.testing.assert_close(total, (above - inside) / (above - own), rtol=0, atol=1e-9)


# ---- conservation


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_charge_is_conserved(dtype, tolerance):
    """Integral 0 on every wire that electrons pass, the charge that arrives on those that collect it."""
    tracks = gun.shoot(APA.volumes, 2, energy=300.0, topology="inside", seed=3)
    waves = simulator(dtype=dtype).induced(tracks)
    arriving = waves[2].reports["electrons_arriving"]
    for wave in waves[:2]:
        assert wave.charge.abs().max().item() < tolerance * arriving
        assert wave.values.abs().max() > 1e3
    collected = waves[2].charge.double().sum().item() + waves[2].reports["electrons_lost"]
    assert collected == pytest.approx(arriving, rel=tolerance)


def test_charge_made_between_the_planes_counts_from_there():
    """phi_w is 1 on the first plane: electrons made there induce -1 on their wire of it, and all else as before."""
    tpc = APA.tpcs[0]
    point = segments([[tpc.anode + 0.95 + 1e-6, 0.1, 0.1]], dE=1.0)
    still = Parameters(transverse_diffusion=0.0, longitudinal_diffusion=0.0)
    waves = simulator(parameters=still).induced(point)
    n = waves[0].reports["electrons_arriving"]
    assert waves[0].charge.min().item() == pytest.approx(-n, rel=1e-3)
    assert waves[1].charge.abs().max().item() < 1e-9 * n
    assert waves[2].charge.sum().item() == pytest.approx(n, rel=1e-9)


def test_induction_is_bipolar_and_collection_unipolar():
    point = segments([MID], dE=1.0)
    for number, wave in enumerate(simulator().induced(point)):
        best = int(wave.values.abs().argmax())
        row = int(wave.row[best])
        current = wave.values[wave.offsets[row] : wave.offsets[row + 1]].detach()
        negative = current[current < 0].sum().abs() / current[current > 0].sum()
        if number < 2:
            assert negative.item() == pytest.approx(1.0, rel=1e-9)
            assert int(current.argmax()) < int(current.argmin())  # towards the wire, then away
        else:
            assert negative.item() < 1e-9


# ---- electronics


def test_the_shaped_pulse():
    t = torch.arange(0, 20, 0.001, dtype=torch.float64)
    h = cold_response(t)
    assert float(h.max()) == pytest.approx(14.0 * 1.602176634e-4, rel=1e-4)
    assert float(h[0]) == 0.0 and float(cold_response(torch.tensor(-1.0))) == 0.0
    rise = t[h.argmax()] - t[(h > 0.05 * h.max()).int().argmax()]
    assert 1.7 < float(rise) < 2.0  # the chip's peaking time is told from 5 % on
    weights = taps(0.5, 4, 14.0, 2.0)
    assert sum(weights) == pytest.approx(float(h.sum()) * 0.001, rel=1e-4)


def test_shaping_is_linear_and_its_backward_the_transpose():
    weights = taps(0.5, 2, 14.0, 1.0)
    x, y = torch.randn(3, len(weights) + 60, dtype=torch.float64), torch.randn(3, 30, dtype=torch.float64)
    x.requires_grad_()
    out = Shape.apply(x, weights, 2)
    assert out.shape == y.shape
    (out * y).sum().backward()
    torch.testing.assert_close((out * y).sum(), (x.grad * x).sum(), rtol=1e-12, atol=0)
    spike = torch.zeros(len(weights) + 60, dtype=torch.float64)
    spike[len(weights) + 4] = 1.0  # a current during [1, 1.25) us
    shaped = Shape.apply(spike, weights, 2)
    assert shaped[2] == 0
    assert shaped[5].item() == pytest.approx(weights[5])  # at 2.5 us: six parts after the begin of the fifth


# ---- against a quadrature


def quadrature(detector, plane, wire, start, end, electrons, ticks, D_T):
    """V(t_n) of one wire: a line of charge, spread across the field, summed in points and in steps of 0.04 us."""
    tpc, p = detector.tpcs[0], detector.planes[plane]
    speed = 1 / float(drift(torch.tensor(1.0).double()).time)
    s = (np.arange(200) + 0.5) / 200
    points = np.array(start) + s[:, None] * (np.array(end) - np.array(start))
    cy, cz = p.across
    b = cy * points[:, 1] + cz * points[:, 2] - detector.span(plane)[0] - (wire + 0.5) * p.pitch
    arrival = (points[:, 0] - tpc.anode) / speed
    quantiles = torch.special.ndtri((torch.arange(20).double() + 0.5) / 20).numpy()
    b = (b[:, None] + np.sqrt(2 * D_T * arrival)[:, None] * quantiles).ravel()
    arrival = np.repeat(arrival, 20)
    d = 0.04
    steps = int(detector.shield / speed / d) + 2
    z = torch.from_numpy(speed * d * np.arange(steps + 1))[None]
    near = np.abs(b) < 4 * p.pitch
    phi = wire_potential(detector, plane, torch.from_numpy(b[near])[:, None], z)[0].numpy()
    if p.kind == "collection":
        phi[:, 0] = np.abs(b[near]) < p.pitch / 2
    induced = phi[:, :-1] - phi[:, 1:]
    when = arrival[near][:, None] - (np.arange(steps) + 0.5) * d
    x, charge = (when / d).ravel(), induced.ravel() * electrons / len(b)
    low = np.floor(x).astype(int)
    fine = np.bincount(low, charge * (low + 1 - x), 60_000) + np.bincount(low + 1, charge * (x - low), 60_000)
    times = np.arange(*ticks) * detector.tick
    k = np.flatnonzero(fine)
    response = cold_response(torch.from_numpy(times[:, None] - k[None] * d)).numpy()
    return response @ fine[k]


@pytest.mark.parametrize("angle", [0.0, 35.7, 60.0, 85.0])
@pytest.mark.parametrize("plane", [0, 2])
def test_a_slanted_track_is_its_quadrature(angle, plane):
    """Tracks along the planes, slanted, and towards them: within 1 % of the peak, where bins of a twentieth of the
    pitch and parts of a tick (0.05 us) are all that differs."""
    tilt = math.radians(angle)
    way = 3.0 * np.array([math.sin(tilt), 0.6 * math.cos(tilt), 0.8 * math.cos(tilt)])
    end = list(np.array(MID) + way)
    still = Parameters(longitudinal_diffusion=0.0, lifetime=1e9)
    sim = simulator(parameters=still, step=0.05, parts=10, bins=20)
    images = sim(segments([MID], [end], dE=6.3))
    n = images.reports["electrons_arriving"]
    image, first = images.dense(0, 0, plane)
    image = image.detach().numpy()
    for wire in np.argsort(-np.abs(image).max(1))[[0, 3]]:
        ticks = (first, first + image.shape[1])
        exact = quadrature(APA, plane, int(wire), MID, end, n, ticks, still.transverse_diffusion)
        assert np.abs(image[wire] - exact).max() < 0.01 * np.abs(image).max()


# ---- derivatives


def test_reverse_mode_by_differences():
    weights = torch.randn(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    base = segments([MID], [[MID[0] + 0.31, MID[1] + 0.22, MID[2] + 0.17]], dE=1.0, dEdx=2.1)
    sim = simulator()

    def scalar(start, end, dE, dEdx, t0):
        s = dataclasses.replace(base, start=start, end=end, dE=dE, dEdx=dEdx, t0=t0)
        values = sim(s).values
        return (values * weights[: len(values)]).sum()

    leaves = differentiable(base)
    inputs = tuple(getattr(leaves, n) for n in ("start", "end", "dE", "dEdx", "t0"))
    assert torch.autograd.gradcheck(scalar, inputs, eps=1e-6, atol=1e-5, rtol=1e-6)  # values are about 100


def test_forward_mode_is_reverse_mode():
    names = (*Parameters.SIX, "temperature")
    sim = simulator(parts=2)
    images = sim(TRACK, tangents=names)
    weights = torch.randn(len(images.values), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (images.values * weights).sum().backward()
    for k, name in enumerate(names):
        torch.testing.assert_close((images.tangents[k] * weights).sum(), getattr(sim, name).grad, rtol=1e-9, atol=1e-9)
    later = sim(TRACK, tangents=("time_offset",)).tangents[0]
    h = 1e-4
    moved = [sim(dataclasses.replace(TRACK, t0=TRACK.t0 + x)).dense(0, 0, 2, (350, 600))[0] for x in (h, -h)]
    slope = dataclasses.replace(images, values=later, tangents=None).dense(0, 0, 2, (350, 600))[0]
    torch.testing.assert_close(slope, (moved[0] - moved[1]) / (2 * h), rtol=1e-5, atol=1e-5)


def test_the_same_bits_for_any_number_of_threads():
    sim, before = simulator(dtype=torch.float32), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(sim(TRACK, tangents=("efield",)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0].values, results[1].values)
    assert torch.equal(results[0].tangents, results[1].tangents)


# ---- images


def test_events_stand_apart_and_images_are_whole():
    two = gun.shoot(APA.volumes, 2, energy=100.0, topology="inside", seed=1)
    images = simulator()(two)
    for event in (0, 1):
        alone = simulator()(two.select([event]))
        tpc = int(alone.tpc[0])
        for plane in "UVX":
            image, first = alone.dense(event, tpc, plane)
            same, _ = images.dense(event, tpc, plane, (first, first + image.shape[1]))
            assert torch.equal(image, same) and image.abs().max() > 1
    total = sum(images.dense(e, t, p)[0].sum() for e in (0, 1) for t in (0, 1) for p in range(3))
    torch.testing.assert_close(total, images.values.sum(), rtol=1e-9, atol=1e-6)


def test_digitised_images():
    images = simulator()(TRACK)
    chip, window = APA.frontend, (200, 1200)
    quiet, noisy = (images.adc(0, 0, "X", window, seed=seed) for seed in (None, 7))
    image, _ = images.dense(0, 0, "X", window)
    per_mV = 2**chip.adc_bits / chip.adc_range
    assert ((quiet - chip.pedestal_collection) - image.detach() * per_mV).abs().max() <= 0.5
    rms = (noisy - quiet).double().std().item()
    expected = chip.noise * 14.0 * 1.602176634e-4 * per_mV
    assert rms == pytest.approx(math.hypot(expected, 1 / 12**0.5), rel=0.02)  # 5e5 samples; the quiet one is round
    assert torch.equal(noisy, images.adc(0, 0, 2, window, seed=7))
    assert not torch.equal(noisy, images.adc(0, 0, 2, window, seed=8))
    assert int(images.adc(0, 0, "U", window).median()) == chip.pedestal_induction


# ---- a detector of one's own, a fit


def small():
    planes = (
        WirePlane(name="A", kind="induction", angle=45.0, pitch=0.5, distance=0.5),
        WirePlane(name="B", kind="collection", angle=-45.0, pitch=0.5),
    )
    return WireDetector(
        name="small",
        tpcs=(WireTPC(anode=0.0, cathode=-100.0, y=(-20, 20), z=(0, 40)),),
        planes=planes,
        shield=1.0,
        frontend=WireFrontEnd(peaking_time=1.0),
    )


def test_a_fit_without_noise_finds_all_six():
    detector = small()
    shots = [(-80.0, -9.0, 5.0, 25.0, 2.0, 1.5), (-10.0, 5.0, 12.0, -6.0, 9.0, 9.0), (-88.0, 3.0, 20.0, 1.0, 6.0, 12.0)]
    start = torch.tensor([s[:3] for s in shots]).double()
    step = torch.tensor([s[3:] for s in shots]).double()
    at = [start + step * k / 6 for k in range(7)]
    dEdx = torch.tensor([2.1, 6.0, 15.0]).repeat(6)
    tracks = segments(torch.cat(at[:-1]), torch.cat(at[1:]), dE=dEdx * step.norm(dim=1).repeat(6) / 6, dEdx=dEdx)
    hidden = Parameters(
        lifetime=1500.0, efield=0.49, birks_a=0.83, birks_k=0.055,
        transverse_diffusion=7e-6, longitudinal_diffusion=5e-6,
    )  # fmt: skip
    measured = simulator(detector, parameters=hidden, step=0.3)(tracks)
    result = fit_wires(simulator(detector, step=0.3), tracks, measured)
    assert result.converged
    for name in Parameters.SIX:
        assert result[name] == pytest.approx(getattr(hidden, name), rel=1e-6)


def test_bad_input_is_named():
    plane = WirePlane(name="A", kind="induction", angle=0.0, pitch=0.5, distance=0.5)
    last = WirePlane(name="B", kind="collection", angle=0.0, pitch=0.5)
    box = WireTPC(anode=0.0, cathode=10.0, y=(0, 1), z=(0, 1))
    for options, message in (
        (dict(planes=(plane,)), r"must end with the one of collection, at distance 0, got \[\]"),
        (dict(planes=(last, last)), r"got \['B', 'B'\]"),
        (dict(planes=(plane, last), shield=0.4), "plane A at 0.5 cm must be nearer to the collection plane than 0.4"),
        (dict(planes=(last,), shield=20.0), "TPC 0: the cathode must lie beyond the shield at 20.0 cm"),
    ):
        with pytest.raises(ValueError, match=message):
            WireDetector(**(dict(name="box", tpcs=(box,), shield=1.0) | options))
    with pytest.raises(ValueError, match="anode and cathode must differ"):
        WireTPC(anode=0.0, cathode=0.0, y=(0, 1), z=(0, 1))
    for options, message in (
        (dict(step=1.0), r"step must be in \(0, 0.4669\] cm \(one pitch\), got 1.0"),
        (dict(parts=0), "parts must be 1 to 50, got 0"),
        (dict(bins=3), "bins must be even and positive, got 3"),
        (dict(reach=20), "reach must be 1 to 16 wires, got 20"),
        (dict(model="birk"), "model must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            simulator(**options)
    with pytest.raises(TypeError, match="dtype must be"):
        simulator(dtype=torch.float16)
    sim = simulator()
    images = sim(TRACK)
    with pytest.raises(ValueError, match="no parameter 'lifetim'"):
        sim(TRACK, tangents=("lifetim",))
    with pytest.raises(ValueError, match=r"plane must be one of \['U', 'V', 'X'\], got 'Y'"):
        images.dense(0, 0, "Y")
    with pytest.raises(ValueError, match="images of dune-apa, not of small"):
        fit_wires(simulator(small()), TRACK, images)
    with pytest.raises(ValueError, match=r"start: efield = 0\.9 is outside"):
        fit_wires(sim, TRACK, images, ["efield"], start={"efield": 0.9})
    with pytest.raises(ValueError, match="none of its events"):
        fit_wires(sim, dataclasses.replace(TRACK, event=TRACK.event + 5), images)
    with pytest.raises(ValueError, match="'time_offset' is not fitted here"):
        fit_wires(sim, TRACK, images, ["time_offset"])
