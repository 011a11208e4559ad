"""Impulse, photon counting, noise: areas, moments, spectra."""

import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lartpc.light import Impulse, NoiseSpectrum, SiPM, photon_spectrum
from hepops.lartpc.light.impulse import convolve
from hepops.lartpc.light.sipm import number_probability
from torch.autograd import gradcheck
from torch.testing import assert_close


class TestImpulse:
    @pytest.mark.parametrize("tick", [0.001, 0.01, 0.016])
    def test_built_in_is_the_damped_oscillation(self, tick):
        """Its kernel's means are the formula's, sampled in the middle: an error of second order in the tick."""
        kernel = Impulse.damped(0.055, 0.095).kernel(tick)
        t = torch.arange(1, 60, dtype=torch.float64) * tick
        norm = (0.095**2 + 0.055**2) / (0.095 * 0.055**2)
        law = norm * torch.exp(-t / 0.055) * torch.sin(t / 0.095)
        assert_close(kernel[1:60] / tick, law, rtol=0, atol=norm * (tick / 0.055) ** 2)
        assert_close(kernel.sum().item(), 1.0, rtol=1e-14, atol=0)

    def test_measured_keeps_its_area_on_any_tick(self):
        impulse = Impulse.read(shared("data/lartpc/light/sipm_impulse.npy"), 0.01)
        samples = np.load(shared("data/lartpc/light/sipm_impulse.npy"))
        for tick in (0.001, 0.0016, 0.01, 0.05):
            assert_close(impulse.kernel(tick).sum().item(), 1.0, rtol=1e-14, atol=0)
        fine = impulse.kernel(0.001)
        assert_close(fine[10:15].sum().item(), 0.5 * samples[1] / samples.sum(), rtol=0.1, atol=0)
        middles = (torch.arange(len(fine), dtype=torch.float64) * fine).sum() * 0.001
        expected = 0.01 * (np.arange(256) + 0.5) @ samples / samples.sum()
        assert_close(middles.item(), expected, rtol=1e-4, atol=0)

    def test_convolution_is_the_sum(self):
        signal, kernel = torch.randn(3, 50, dtype=torch.float64), torch.randn(20, dtype=torch.float64)
        plain = torch.stack([torch.from_numpy(np.convolve(row, kernel)) for row in signal])
        assert_close(convolve(signal, kernel, full=True), plain, rtol=0, atol=1e-13)
        assert_close(convolve(signal, kernel), plain[:, :50], rtol=0, atol=1e-13)
        assert_close(convolve(signal, kernel, full=True).sum(1), signal.sum(1) * kernel.sum(), rtol=0, atol=1e-12)
        assert gradcheck(convolve, (signal.requires_grad_(), kernel.requires_grad_()), atol=1e-8, rtol=1e-6)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Impulse.damped(0.0), "response_time must be positive"),
            (lambda: Impulse.damped(0.1, float("nan")), "oscillation_period must be positive"),
            (lambda: Impulse.measured(torch.zeros(5), 0.01), "sum must not vanish"),
            (lambda: Impulse.measured(torch.ones(5, 2), 0.01), "list of finite numbers"),
            (lambda: Impulse.measured(torch.tensor([1.0, float("nan")]), 0.01), "list of finite numbers"),
            (lambda: Impulse.measured(torch.ones(5), 0.0), "spacing must be positive"),
        ],
    )
    def test_refuses(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_refuses_foreign_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            Impulse.read(tmp_path / "none.npy")
        (tmp_path / "text.npy").write_text("impulse")
        for read in (Impulse.read, NoiseSpectrum.read):
            with pytest.raises(ValueError, match=r"text.npy: not a readable .npy"):
                read(tmp_path / "text.npy")
        np.save(tmp_path / "flat.npy", np.zeros(4))
        with pytest.raises(ValueError, match=r"flat.npy: Impulse: the samples' sum"):
            Impulse.read(tmp_path / "flat.npy")
        with pytest.raises(ValueError, match=r"flat.npy: noise: modulus must be"):
            NoiseSpectrum.read(tmp_path / "flat.npy")


FLASHES = 40_000


def flashes(sipm, mean, seed=11, ticks=40):
    """Charge of independent flashes of `mean` photoelectrons, on the first of 40 ticks of 0.02 us."""
    light = torch.zeros(FLASHES, ticks, dtype=torch.float64)
    light[:, 0] = mean
    return sipm.sample(light, 0.02, torch.arange(FLASHES), seed)


class TestSinglePhotons:
    @pytest.mark.parametrize(("mean", "crosstalk"), [(1.3, 0.0), (0.8, 0.25), (4.0, 0.1)])
    def test_numbers_follow_the_law(self, mean, crosstalk):
        """chi2 of the numbers of avalanches against the generalised Poisson law."""
        n = flashes(SiPM(crosstalk=crosstalk), mean).sum(1).long()
        expected = torch.tensor([FLASHES * number_probability(k, mean, crosstalk) for k in range(60)])
        seen = torch.bincount(n, minlength=60)[:60].double()
        enough = expected > 20
        chi2 = ((seen - expected) ** 2 / expected)[enough].sum().item()
        cells = int(enough.sum())
        assert abs(chi2 - cells) < 4 * (2 * cells) ** 0.5
        assert_close(n.double().mean().item(), mean / (1 - crosstalk), rtol=0.03, atol=0)

    @pytest.mark.parametrize("crosstalk", [0.0, 0.2])
    def test_the_spectrum_has_its_peaks(self, crosstalk):
        """Positions and widths of the peaks within four sigma, and chi2 of the whole spectrum."""
        spread, noise, mean = 0.08, 0.06, 1.5
        charge = flashes(SiPM(gain_spread=spread, crosstalk=crosstalk), mean).sum(1)
        charge = charge + noise * torch.randn(FLASHES, dtype=torch.float64)
        for n in range(4):
            peak = charge[(charge - n).abs() < 0.5]
            sigma = (noise**2 + n * spread**2) ** 0.5  # the neighbours' tails at half way are beyond 3 sigma
            assert abs(peak.mean().item() - n) < 4 * sigma / len(peak) ** 0.5 + 0.002
            assert abs(peak.std().item() / sigma - 1) < 4 / (2 * len(peak)) ** 0.5 + 0.01
        edges = torch.linspace(-0.3, 6.0, 127, dtype=torch.float64)
        fine = torch.linspace(-0.3, 6.0, 126 * 20 + 1, dtype=torch.float64)
        density = photon_spectrum((fine[1:] + fine[:-1]) / 2, mean, spread, noise, crosstalk)
        expected = FLASHES * (density * (fine[1] - fine[0])).reshape(126, 20).sum(1)
        seen = torch.histogram(charge, edges).hist
        enough = expected > 20
        chi2 = ((seen - expected) ** 2 / expected)[enough].sum().item()
        cells = int(enough.sum())
        assert abs(chi2 - cells) < 4 * (2 * cells) ** 0.5

    def test_the_spectrum_is_a_density(self):
        q = torch.linspace(-2, 60, 60_001, dtype=torch.float64)
        density = photon_spectrum(q, 3.0, 0.1, 0.05, 0.3)
        assert_close((density.sum() * (q[1] - q[0])).item(), 1.0, rtol=1e-9, atol=0)
        assert_close(((density * q).sum() * (q[1] - q[0])).item(), 3.0 / 0.7, rtol=1e-9, atol=0)

    def test_samples_have_the_expected_mean(self):
        """Crosstalk, afterpulses and dark counts, tick by tick; five sigma of a Poisson number with clusters of 2."""
        sipm = SiPM(crosstalk=0.2, afterpulses=0.3, afterpulse_time=0.1, dark_rate=0.5, gain_spread=0.2)
        light = torch.zeros(FLASHES, 40, dtype=torch.float64)
        light[:, 3], light[:, 20] = 2.0, 0.5
        mean = sipm.expected(light[:1], 0.02)[0]
        seen = sipm.sample(light, 0.02, torch.arange(FLASHES), seed=3).mean(0)
        assert ((seen - mean).abs() < 5 * (2 * mean / FLASHES).sqrt()).all()
        assert_close((mean.sum() / (2.5 + 0.5 * 0.8)).item(), sipm.excess, rtol=0.05, atol=0)  # the window cuts a tail

    def test_numbers_are_named(self):
        """By row and tick: neither the division into calls nor what other rows see matters."""
        sipm = SiPM(crosstalk=0.3, afterpulses=0.1, gain_spread=0.1)
        light, name = torch.rand(6, 100, dtype=torch.float64), torch.tensor([7, 3, 9, 1, 4, 2])
        all_rows = sipm.sample(light, 0.01, name, 5)
        assert torch.equal(sipm.sample(light[2:4], 0.01, name[2:4], 5), all_rows[2:4])
        assert not torch.equal(sipm.sample(light, 0.01, name, 6), all_rows)

    @pytest.mark.parametrize(
        "bad", [{"crosstalk": 1.0}, {"gain_spread": -0.1}, {"afterpulses": 2.0}, {"dark_rate": -1.0}]
    )
    def test_refuses(self, bad):
        with pytest.raises(ValueError, match=next(iter(bad))):
            SiPM(**bad)

    def test_the_spectrum_refuses(self):
        q = torch.zeros(1)
        for bad, name in (
            ((-1.0, 0.1, 0.1, 0.0), "photons"),
            ((1.0, 0.1, 0.0, 0.0), "noise"),
            ((1, 1, 1, 1), "crosstalk"),
        ):
            with pytest.raises(ValueError, match=name):
                photon_spectrum(q, *bad)


class TestNoise:
    def test_reproduces_the_file_exactly(self):
        """With random phases alone the transform of as many samples has the file's moduli."""
        path = shared("data/lartpc/light/light_noise-module0.npy")
        noise, modulus = NoiseSpectrum.read(path), torch.from_numpy(np.load(path))
        samples = noise.sample(torch.arange(96), 256, 0.01, seed=1)
        assert_close(torch.fft.rfft(samples).abs(), modulus, rtol=1e-9, atol=1e-7)
        assert_close(samples.square().mean(1).sqrt(), noise.rms, rtol=1e-10, atol=0)

    def test_keeps_the_power_on_other_ticks(self):
        """Ten times as many ticks of a tenth: the same power per frequency up to the file's last one."""
        noise = NoiseSpectrum.read(shared("data/lartpc/light/light_noise-module0.npy"))
        samples = noise.sample(torch.arange(96), 25_600, 0.001, seed=1)
        assert_close(samples.square().mean(1).sqrt(), noise.rms, rtol=0.03, atol=0)  # linear between frequencies
        assert torch.fft.rfft(samples)[:, 1281:].abs().max() < 1e-6

    def test_gaussian_noise_has_the_spectrum_on_average(self):
        """The mean of 4000 periodograms: their rms is their mean over sqrt(4000), 1.6 %."""
        noise = NoiseSpectrum.white(1, rms=2.0, spacing=0.01, corner=5.0)
        rows = 4000
        samples = noise.sample(torch.zeros(rows, dtype=torch.long), 256, 0.01, seed=2, index=torch.arange(rows))
        power = torch.fft.rfft(samples).abs().square().mean(0)
        assert_close(power, noise.moduli(torch.tensor([0]), 256, 0.01)[0] ** 2, rtol=5 * 2**0.5 / rows**0.5, atol=1e-9)
        long = noise.sample(torch.zeros(200, dtype=torch.long), 1024, 0.01, seed=2, index=torch.arange(200))
        assert_close(long.std().item(), 2.0, rtol=0.02, atol=0)  # a short noise lacks what is slower than itself
        frequency = torch.fft.rfftfreq(256, 0.01)
        low, high = power[(frequency > 0.5) & (frequency < 2)].mean(), power[frequency > 30].mean()
        assert low > 4 * high  # 1 + 5/f

    @pytest.mark.parametrize("ticks", [2, 7, 100, 101])
    def test_any_number_of_ticks(self, ticks):
        noise = NoiseSpectrum.white(3, rms=1.0, spacing=0.01)
        assert noise.sample(torch.arange(3), ticks, 0.01, seed=1).shape == (3, ticks)

    def test_is_named_by_row(self):
        noise = NoiseSpectrum.white(3, rms=1.0, spacing=0.01)
        name = torch.tensor([5, 8, 2])
        samples = noise.sample(torch.arange(3), 64, 0.01, seed=1, index=name)
        assert_close(noise.sample(torch.tensor([1]), 64, 0.01, seed=1, index=name[1:2]), samples[1:2])
        assert (samples[0] - samples[1]).abs().max() > 0.1

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: NoiseSpectrum(torch.ones(4), 0.01), "modulus must be"),
            (lambda: NoiseSpectrum(-torch.ones(2, 4), 0.01), "modulus of channel 0, frequency 0 is -1"),
            (lambda: NoiseSpectrum(torch.full((2, 4), float("nan")), 0.01), "is nan"),
            (lambda: NoiseSpectrum(torch.ones(2, 4), -1.0), "spacing must be positive"),
            (lambda: NoiseSpectrum.white(2, -1.0, 0.01), "rms and corner"),
            (lambda: NoiseSpectrum.white(2, 1.0, 0.01).sample(torch.tensor([5]), 8, 0.01, 1), "there is no channel 5"),
        ],
    )
    def test_refuses(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()
