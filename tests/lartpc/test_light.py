"""The light simulator: quanta, conservation, gradients, readout, and what charge and light know together."""

import dataclasses
import math

import h5py
import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lartpc import (
    Detector,
    FieldMap,
    LightSimulator,
    ModularSimulator,
    Parameters,
    Simulator,
    read_segments,
    recombine,
)
from hepops.lartpc.detector import Module
from hepops.lartpc.light import (
    Impulse,
    LightProperties,
    LightReadout,
    NoiseSpectrum,
    SingletShare,
    SiPM,
    SolidAngle,
    VisibilityTable,
)
from hepops.lartpc.light.readout import coincidence, digitise, sample_means, sums_beyond, trigger_samples
from torch.autograd import gradcheck
from torch.testing import assert_close

from .scenes import changed, differentiable, segments

MODULE0 = Detector.module0()
COARSE = LightProperties.module0().replace(
    efficiency=(1.0,) * 96, tick=0.01, window=(0.1, 3.0), trigger_window=(0.1, 1.6)
)


def track(n=4, event=0, **values):
    """A track of n segments through both TPCs."""
    ends = torch.tensor([[-20.0, -40.0, -20.0], [25.0, 30.0, 22.0]], dtype=torch.float64)
    points = ends[0] + torch.linspace(0, 1, n + 1, dtype=torch.float64)[:, None] * (ends[1] - ends[0])
    made = {"dE": 30.0, "dEdx": 2.1, "t0": 0.0, "event": event, **values}
    return dataclasses.replace(segments(points[:-1], points[1:], **made), pdg=torch.full((n,), 13))


def coarse(parameters=None, **options):
    return LightSimulator.module0(parameters, properties=options.pop("properties", COARSE), step=20.0, **options)


class TestQuanta:
    @pytest.mark.parametrize("model", ["birks", "box", "ellipsoid"])
    def test_every_quantum_is_an_electron_or_a_photon(self, model):
        """Whatever the field and the fluctuation: the sum is dE / W_ph, to the rounding of one subtraction."""
        light, s = coarse(model=model), track(50, dEdx=3.0)
        for field in (0.2, 0.5, 1.0):
            with changed(light, efield=field):
                for seed in (None, 1, 2):
                    quanta = light.quanta(s, seed)
                    assert_close(quanta.electrons + quanta.photons, s.dE / 19.5e-6, rtol=1e-15, atol=0)
                    assert (quanta.photons > 0).all()

    def test_electrons_are_those_of_recombination(self):
        light, s = coarse(), track(5, dEdx=5.0)
        expected = recombine(s.dEdx) * s.dE / 23.6e-6
        assert_close(light.quanta(s).electrons, expected, rtol=1e-13, atol=0)

    def test_fluctuations_are_binomial_and_opposite(self):
        s = segments(torch.zeros(5000, 3) + 5.0, dE=1.0, dEdx=2.1)
        light = coarse()
        mean, quanta = light.quanta(s), light.quanta(s, seed=3)
        moved = quanta.electrons - mean.electrons
        fraction = mean.electrons[0] * 23.6e-6
        sigma = (1 / 23.6e-6 * fraction * (1 - fraction)).sqrt().item()
        assert abs(moved.std().item() / sigma - 1) < 5 / math.sqrt(10_000)
        assert_close(quanta.photons - mean.photons, -moved, rtol=0, atol=1e-9)

    def test_numbers_do_not_depend_on_other_events(self):
        both = type(track()).cat([track(3, event=4), track(5, event=9)])
        light = coarse()
        assert torch.equal(light.quanta(both[3:], seed=1).photons, light.quanta(both, seed=1).photons[3:])

    def test_light_without_light_is_counted(self):
        """W_ion below W_ph and no recombination: more electrons than quanta."""
        light = coarse(Parameters(w_ion=18e-6, birks_a=1.0, birks_k=0.0))
        result = light.photons(track(3))
        assert result.reports["without_light"] > 0 and result.values.sum() == 0


class TestSinglet:
    PDG = torch.tensor([11, -13, 2212, 1000020040, 1000180400, 22])

    def test_particles_have_their_shares(self):
        share = SingletShare("particle")(self.PDG, torch.ones(6, dtype=torch.float64))
        assert_close(share, torch.tensor([0.3 / 1.3, 0.3 / 1.3, 0.29, 1.3 / 2.3, 0.7, 0.3 / 1.3], dtype=torch.float64))

    def test_other_policies(self):
        dEdx = torch.tensor([1.0, 2.1, 50.0, 1.2e3, 4e4, 1e6], dtype=torch.float64)
        by_dedx = SingletShare("dedx")(self.PDG, dEdx)
        assert_close(by_dedx[[0, 1, 3, 4, 5]], torch.tensor([0.3 / 1.3, 0.3 / 1.3, 1.3 / 2.3, 0.75, 0.75]).double())
        assert by_dedx[1] < by_dedx[2] < by_dedx[3]
        assert (SingletShare(0.4)(self.PDG, dEdx) == 0.4).all()
        mapped = SingletShare({11: 0.2, 2212: 0.5}, unknown=0.1)(self.PDG, dEdx)
        assert_close(mapped, torch.tensor([0.2, 0.1, 0.5, 0.1, 0.1, 0.1], dtype=torch.float64))
        x = torch.tensor([3.0, 80.0, 5e3], dtype=torch.float64, requires_grad=True)
        assert gradcheck(lambda x: SingletShare("dedx")(torch.zeros(3).long(), x), (x,), atol=1e-8, rtol=1e-6)

    def test_alphas_are_prompt(self):
        """Light in the first 100 ns of a muon and of an alpha, of the same place."""
        light = coarse(singlet="particle")
        muon = segments([[-10.0, 0.0, 0.0]], dE=5.0, dEdx=2.1)
        for code, share in ((13, 0.3 / 1.3), (1000020040, 1.3 / 2.3)):
            n = light.photons(dataclasses.replace(muon, pdg=torch.tensor([code]))).values.sum((0, 1))
            late = (1 - share) * math.exp(-0.1 / 0.752)
            assert_close((n[:20].sum() / n.sum()).item(), 1 - late, rtol=0.03, atol=0)  # delays of up to 5 ns

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: SingletShare(1.5), "share must lie in"),
            (lambda: SingletShare({11: -0.1}), "share must lie in"),
            (lambda: SingletShare("fast"), "'particle', 'dedx'"),
            (lambda: SingletShare("particle", unknown="ignore"), "unknown must be 'refuse'"),
            (lambda: SingletShare("particle")(torch.tensor([5]), torch.ones(1)), "no share for particle 5"),
            (lambda: coarse(singlet="particle").photons(segments([[5.0, 0.0, 0.0]])), "no share for particle 0"),
        ],
    )
    def test_refuses(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestConservation:
    def test_photons_in_are_photons_out(self):
        """Every detected photon is before, in or behind the window: 1e-12 in float64."""
        light, s = LightSimulator.module0(), read_segments(shared("data/lartpc/edepsim/muons_0.h5"))
        s = s.select(slice(0, 3))
        n = light.photons(s)
        total = n.values.sum(2) + n.before + n.after
        assert_close(total.sum().item(), n.reports["photons_detected"], rtol=1e-12, atol=0)
        one = VisibilityTable(torch.full((1, 1, 1, 48), 1 / 48.0, dtype=torch.float64), torch.ones(1, 1, 1, 48))
        all_seen = LightSimulator.module0(visibility=one).photons(s)
        assert_close(all_seen.reports["photons_detected"], all_seen.reports["photons"], rtol=1e-12, atol=0)
        assert (n.values >= 0).all()

    def test_no_photon_is_lost_on_the_way_to_the_channels(self):
        """Cut at the cathode and divided into pieces, a track makes the photons of its quanta."""
        light, s = LightSimulator.module0(), segments([[-20.0, -40.0, -20.0]], [[-5.0, 30.0, 22.0]], dE=200.0)
        assert_close(light.photons(s).reports["photons"], light.quanta(s).photons.sum().item(), rtol=1e-12, atol=0)

    def test_each_channel_has_its_share_of_each_deposit(self):
        light = LightSimulator.module0()
        s = segments([[-10.0, 0.0, 3.0], [12.0, 20.0, -7.0]], dE=5.0)
        n = light.photons(s)
        share = light.seen(s.start).share
        expected = share * light.quanta(s).photons
        total = n.values.sum(2) + n.before + n.after
        assert_close(total, expected.T, rtol=1e-12, atol=0)
        assert n.channel.tolist() == [list(range(48)), list(range(48, 96))]

    @pytest.mark.parametrize("sipm", [SiPM(), SiPM(crosstalk=0.2, afterpulses=0.05, afterpulse_time=0.05)])
    def test_waveforms_integrate_to_gain_times_photons(self, sipm):
        """A window that is long enough: nothing of the answer leaves it. 1e-12 is the transform's rounding."""
        properties = LightProperties.module0().replace(efficiency=(1.0,) * 96, tick=0.01, tau_t=0.05, window=(0.1, 8.0))
        light = coarse(properties=properties, sipm=sipm)
        n, adc = light.photons(track()), light.waveforms(track())
        area = adc.values.sum(2) * adc.tick
        gain = torch.tensor(properties.gain, dtype=torch.float64)[n.channel]
        assert_close(area, gain * sipm.excess * n.values.sum(2), rtol=1e-12, atol=1e-12)

    def test_the_window_tells_what_it_cuts(self):
        early = track(t0=torch.tensor([0.0, 0.0, 2.5, 7.0], dtype=torch.float64))
        n = coarse().photons(early)
        assert n.reports["photons_after"] > 0.2 * n.reports["photons_detected"]
        beam = coarse(properties=COARSE.replace(trigger="beam")).photons(track(t0=-5.0))
        assert beam.reports["photons_before"] > 0.9 * beam.reports["photons_detected"]
        assert beam.begin.tolist() == [-10, -10]

    def test_profile_of_a_table_conserves(self):
        model = SolidAngle.module0()
        plain = VisibilityTable.of(model, MODULE0, (4, 6, 3))
        profile = torch.rand(*plain.vis.shape, 9, dtype=torch.float64)
        table = VisibilityTable(plain.vis, plain.t0, None, profile, delay="profile")
        spread, prompt = (coarse(visibility=v).photons(track()) for v in (table, plain))
        total = lambda n: n.values.sum(2) + n.before + n.after  # noqa: E731
        assert_close(total(spread), total(prompt), rtol=1e-12, atol=1e-14)

    def test_groups_and_order_do_not_matter(self):
        """Events simulated together or alone have the same bits; shuffled segments the same sums."""
        one, two = track(5, event=3), track(7, event=1, dEdx=4.0)
        both = type(one).cat([one, two])
        light = coarse()
        n, alone = light.photons(both), light.photons(two)
        assert n.event.tolist() == [1, 1, 3, 3] and n.tpc.tolist() == [0, 1, 0, 1]
        assert torch.equal(n.values[:2], alone.values)
        shuffled = light.photons(both[torch.randperm(12)])
        assert_close(shuffled.values, n.values, rtol=1e-12, atol=1e-15)

    def test_energy_outside_is_counted(self):
        with pytest.warns(UserWarning, match="lies outside"):
            n = coarse().photons(segments([[-10.0, 0, 0], [99.0, 0, 0]], dE=2.0))
        assert n.reports["segments_outside"] == 1 and n.reports["energy_outside"] == 2.0


class TestGradients:
    def test_of_waveforms(self):
        """Reverse mode against central differences: positions, energies, times and all parameters."""
        light = coarse(properties=COARSE.replace(window=(0.1, 0.4)))
        light.visibility.absorption.data.fill_(50.0)
        s = differentiable(track(2, t0=0.003))
        shaken = torch.tensor([[0.3, 0.1, -0.2], [0.0, 0.4, 0.1]], dtype=torch.float64)
        s = dataclasses.replace(s, start=(s.start + shaken).detach().requires_grad_())
        names = ["efield", "birks_a", "birks_k", "tau_t", "tau_s", "singlet_fraction", "visibility.absorption"]
        scale = {"tau_s": 0.01, "visibility.absorption": 50.0}
        weight = torch.randn(2, 48, 50, dtype=torch.float64)

        def function(start, dE, dEdx, t0, *values):
            moved = dataclasses.replace(s, start=start, dE=30 * dE, dEdx=dEdx, t0=t0)
            given = {name: v * scale.get(name, 1.0) for name, v in zip(names, values, strict=True)}
            with _replaced(light, given):
                return (light.waveforms(moved).values * weight).sum(2) / 100

        parameters = dict(light.named_parameters())
        values = []
        for name in names:
            start_value = 0.02 / 0.01 if name == "tau_s" else parameters[name].item() / scale.get(name, 1.0)
            values.append(torch.tensor(start_value, dtype=torch.float64, requires_grad=True))
        inputs = (s.start, (s.dE / 30).detach().requires_grad_(), s.dEdx, s.t0, *values)
        assert gradcheck(function, inputs, atol=1e-8, rtol=1e-6)

    def test_of_efficiencies_and_yield(self):
        light = coarse(properties=COARSE.replace(window=(0.1, 0.4)))
        n = light.waveforms(track())
        slope = torch.autograd.grad(n.values.sum(), light.efficiency)[0]
        area = n.values.sum(2).flatten()  # linear: d sum / d efficiency = sum / efficiency
        assert_close(slope[n.channel.flatten()], area, rtol=1e-10, atol=1e-12)
        step = 1e-9
        with torch.no_grad():
            high = light.quanta(track()).photons.sum()
        per_w = torch.autograd.grad(light.quanta(track()).photons.sum(), light.w_ph)[0].item()
        with changed(light, w_ph=19.5e-6 + step):
            higher = light.quanta(track()).photons.sum()
        assert_close(((higher - high) / step).item(), per_w, rtol=1e-4, atol=0)

    def test_tangents_are_the_jacobian(self):
        """Of all six, and of a model with other parameters, against reverse mode."""
        for model, names in (("birks", Parameters.SIX), ("box", ("efield", "box_beta", "density", "w_ion"))):
            light = coarse(model=model, sipm=SiPM(crosstalk=0.1, dark_rate=0.2))
            n = light.waveforms(track(), tangents=names)
            weight = torch.randn(n.values.shape, dtype=torch.float64)
            reverse = torch.autograd.grad((n.values * weight).sum(), [getattr(light, k) for k in names])
            forward = (n.tangents * weight).sum((1, 2, 3))
            assert_close(forward, torch.stack(reverse), rtol=1e-10, atol=1e-10)
            assert n.tangent_names == tuple(names)
        still = [Parameters.SIX.index(k) for k in ("lifetime", "transverse_diffusion", "longitudinal_diffusion")]
        assert (coarse().photons(track(), Parameters.SIX).tangents[still] == 0).all()

    def test_light_falls_where_charge_rises(self):
        """d photons / dp = - d electrons / dp for every parameter of recombination."""
        light, names = coarse(), ("efield", "birks_a", "birks_k")
        quanta = light.quanta(track())
        parameters = [getattr(light, k) for k in names]
        up = torch.autograd.grad(quanta.electrons.sum(), parameters, retain_graph=True)
        down = torch.autograd.grad(quanta.photons.sum(), parameters)
        assert_close(torch.stack(up), -torch.stack(down), rtol=1e-12, atol=0)


class _replaced:
    """Parameters of a module replaced by tensors for a while, so that gradients reach these."""

    def __init__(self, module, values):
        self.module, self.values = module, values

    def __enter__(self):
        self.kept = {}
        for name, value in self.values.items():
            owner, _, leaf = name.rpartition(".")
            module = self.module.get_submodule(owner)
            self.kept[name] = module._parameters[leaf]
            module._parameters[leaf] = value

    def __exit__(self, *error):
        for name, value in self.kept.items():
            owner, _, leaf = name.rpartition(".")
            self.module.get_submodule(owner)._parameters[leaf] = value


class TestTogether:
    """What charge and light know together; sums over a few tracks of different dE/dx."""

    def setup_method(self):
        self.sim = Simulator(MODULE0)
        self.light = coarse(self.sim)
        self.tracks = [track(3, event=e, dEdx=x, dE=10.0 * x) for e, x in enumerate((2.0, 4.0, 8.0, 16.0))]

    def observed(self, gain):
        """Charge in unknown units of `gain`, and photons that a known efficiency makes photoelectrons, per track."""
        quanta = [self.light.quanta(s) for s in self.tracks]
        charge = gain * torch.stack([q.electrons.sum() for q in quanta])
        return charge, torch.stack([q.photons.sum() for q in quanta])

    def jacobian(self, names):
        gain = torch.ones((), dtype=torch.float64, requires_grad=True)
        charge, photons = self.observed(gain)
        parameters = [gain if k == "gain" else getattr(self.sim, k) for k in names]
        rows = []
        for y in (*charge, *photons):
            slopes = torch.autograd.grad(y, parameters, retain_graph=True, allow_unused=True)
            at = [p.item() for p in parameters]
            rows.append([0.0 if g is None else (g.item() * x / y.item()) for g, x in zip(slopes, at, strict=True)])
        made = torch.tensor(rows, dtype=torch.float64)  # d ln y / d ln p
        return made[:4], made[4:]

    def test_parameters_are_shared(self):
        assert self.light.birks_a is self.sim.birks_a
        assert "birks_a" in dict(self.light.named_parameters())

    def test_charge_alone_does_not_know_its_gain(self):
        """A_b and the gain: the same direction for the charge, two for charge and light."""
        charge, photons = self.jacobian(["birks_a", "gain"])
        alone = torch.linalg.svdvals(charge)
        together = torch.linalg.svdvals(torch.cat((charge, photons)))
        assert alone[1] < 1e-12 * alone[0]
        assert together[1] > 0.2 * together[0]

    def test_but_w_ion_and_a_stay_one(self):
        """Both act through A_b / W_ion, which the electrons take and leave to the photons alike."""
        charge, photons = self.jacobian(["birks_a", "w_ion"])
        both = torch.linalg.svdvals(torch.cat((charge, photons)))
        assert both[1] < 1e-12 * both[0]

    def test_a_fit_of_both_finds_gain_and_recombination(self):
        """Gauss-Newton on ln charge and ln photons, noise-free: A_b, k_b and the gain to 1e-8, from 5 % away."""
        truth = {"birks_a": 0.8, "birks_k": 0.0486, "gain": 0.93}
        with torch.no_grad():
            data = torch.cat(self.observed(truth["gain"])).log()
        now = {"birks_a": 0.84, "birks_k": 0.052, "gain": 1.0}
        for _ in range(8):
            with changed(self.sim, birks_a=now["birks_a"], birks_k=now["birks_k"]):
                with torch.enable_grad():
                    jacobian = torch.cat(self.jacobian(list(now)))
                with torch.no_grad():
                    residual = data - torch.cat(self.observed(now["gain"])).log()
            step = torch.linalg.lstsq(jacobian, residual[:, None]).solution[:, 0].tolist()
            now = {k: v * math.exp(s) for (k, v), s in zip(now.items(), step, strict=True)}
        for name, value in truth.items():
            assert abs(now[name] / value - 1) < 1e-8, name

    def test_the_sum_measures_energy_without_recombination(self):
        """Charge alone fluctuates with recombination; charge and light do not."""
        s = segments(torch.zeros(2000, 3) + 5.0, dE=1.0, dEdx=2.1)
        quanta = self.light.quanta(s, seed=1)
        assert quanta.electrons.std() / quanta.electrons.mean() > 2e-3
        assert (quanta.electrons + quanta.photons).std() < 1e-9


class TestFieldMap:
    """Charge and light recombine in the same local field."""

    @staticmethod
    def distorted():
        places = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in (3, 2, 2)), indexing="ij")
        magnitude = 0.5 * (1 + 0.2 * places[0])
        zero = torch.zeros(3, 2, 2, 3, dtype=torch.float64)
        field = FieldMap(zero, magnitude, (-32.0, -63.0, -32.0), (32.0, 126.0, 64.0))
        return Simulator(MODULE0, dtype=torch.float64, field_map=field)

    def test_quanta_and_photons_follow_the_field(self):
        sim, s = self.distorted(), track(400, dE=0.5)
        light = coarse(sim)
        quanta = light.quanta(s)
        assert_close(quanta.electrons + quanta.photons, s.dE / 19.5e-6, rtol=1e-15, atol=0)
        at = sim.drift(s)
        arriving = torch.zeros(400, dtype=torch.float64).index_add(0, at.segment, at.electrons)
        alone = Simulator(MODULE0, dtype=torch.float64).drift(s)
        plain = torch.zeros(400, dtype=torch.float64).index_add(0, alone.segment, alone.electrons)
        ratio = quanta.electrons / coarse().quanta(s).electrons
        inside = plain > 0.9 * plain.median()
        # The middles of a segment and of its parts on both sides of the cathode differ.
        assert_close(ratio[inside], (arriving / plain)[inside], rtol=1e-4, atol=0)
        assert ratio.min() < 0.985 and ratio.max() > 1.015
        n = light.photons(s, ("efield",))
        kept = 1 - n.reports["energy_outside"] / 200.0
        assert_close(n.reports["photons"], kept * quanta.photons.sum().item(), rtol=1e-3, atol=0)
        weight = torch.randn(n.values.shape, dtype=torch.float64)
        reverse = torch.autograd.grad((n.values * weight).sum(), sim.efield)[0]
        assert_close((n.tangents[0] * weight).sum(), reverse, rtol=1e-10, atol=1e-10)

    def test_density_follows_the_temperature_where_the_charge_does(self):
        sim = Simulator(MODULE0, density_law="boiling")
        light = coarse(sim)
        n = light.photons(track(), ("temperature", "density"))
        slope = torch.autograd.grad(n.values.sum(), sim.temperature)[0]
        assert_close(n.tangents.sum((1, 2, 3)), torch.stack((slope, slope * 0)), rtol=1e-10, atol=1e-10)
        assert slope != 0


class TestModules:
    def test_the_2x2_reads_out_the_module_that_is_hit(self):
        detector = Detector.two_by_two()
        properties = LightProperties.uniform(8, 48, tick=0.016, sample_spacing=0.016, window=(0.16, 3.2))
        light = LightSimulator(detector, Parameters(), properties=properties, visibility=SolidAngle.module0(), step=5.0)
        tpc = detector.tpcs[5]
        x = (tpc.anode + tpc.cathode) / 2
        s = segments([[x, sum(tpc.y) / 2, sum(tpc.z) / 2]], dE=200.0)
        n = light.photons(s)
        mates = [i for i, t in enumerate(detector.tpcs) if t.module == tpc.module]
        assert n.tpc.tolist() == mates and (n.values[mates.index(5)] > 0).any()
        assert n.values[1 - mates.index(5)].sum() == 0
        out = light(s, seed=1, poisson=False)
        assert len(out) == 1 and out.module.tolist() == [tpc.module] and out.codes.shape[1] == 96

    def test_modules_of_other_fields_are_refused(self):
        detector = Detector.two_by_two()
        low = type(detector)(
            **{
                **{k: getattr(detector, k) for k in type(detector).model_fields},
                "modules": (Module(number=2, nominal=Parameters(efield=0.4)),),
            }
        )
        options = {"properties": LightProperties.uniform(8, 48), "visibility": SolidAngle.module0()}
        with pytest.raises(ValueError, match=r"efield of module 2 of .* is 0.4, of the others 0.5"):
            LightSimulator(low, **options)
        sim = ModularSimulator(low)
        with pytest.raises(ValueError, match="efield of the simulator shared differs by module"):
            LightSimulator(low, sim, **options)


class TestReadout:
    def test_sums_thresholds_and_coincidence(self):
        signal = torch.zeros(4, 10, dtype=torch.float64)
        signal[0, 3] = signal[1, 3] = -6.0
        signal[2:, 5] = 20.0
        beyond = sums_beyond(signal, torch.tensor([-10.0, 30.0], dtype=torch.float64), 2)
        assert torch.nonzero(beyond).tolist() == [[0, 3], [1, 5]]
        assert torch.nonzero(coincidence(beyond, 1, 0)).flatten().tolist() == [3, 5]
        assert not coincidence(beyond, 2, 1).any()
        assert torch.nonzero(coincidence(beyond, 2, 2)).flatten().tolist() == [5]
        assert trigger_samples(coincidence(beyond, 1, 0), 0, 10, 2) == [3, 5]
        assert trigger_samples(coincidence(beyond, 1, 0), 0, 10, 3) == [3]
        assert trigger_samples(coincidence(beyond, 1, 0), 4, 10, 3) == [5]
        assert trigger_samples(coincidence(beyond, 1, 0), 4, 5, 3) == []

    def test_digits_round_and_saturate(self):
        p = COARSE.replace(bits=10, baseline=100.0)
        codes = digitise(torch.tensor([0.0, -100.0, 27.9, 28.1 - 64, 1e6, -1e6]), p)
        assert codes.tolist() == [2, 0, 2, 1, 511, -512]
        assert p.lsb == 64
        assert sample_means(torch.arange(7.0), 3).tolist() == [1.0, 4.0]

    def test_a_muon_is_triggered_and_read_out(self):
        light = coarse()
        out = light(track(), seed=1)
        assert len(out) >= 1 and out.codes.shape[1:] == (96, COARSE.samples)
        assert out.channel[0].tolist() == list(range(96))
        before = out.sample_time()[0] < -0.02
        assert (out.codes[0][:, before] == 0).all()  # no noise, no light yet
        assert out.codes[0].min() < -10 and out.module.tolist()[0] == 1
        assert -0.02 <= out.time[0].item() < 0.1

    def test_the_readout_is_the_waveform(self):
        """Without Poisson numbers and noise: samples are the means of the waveform's ticks, to half a count."""
        light, s = coarse(), track()
        out, wave = light(s, seed=1, poisson=False), light.waveforms(s)
        adc = wave.values.flatten(0, 1)
        first = round(out.time[0].item() / 0.01) - round(COARSE.trigger_window[0] / 0.01) - int(wave.begin[0])
        expected = torch.zeros(96, COARSE.samples, dtype=torch.float64)
        inside = [k for k in range(COARSE.samples) if 0 <= first + k < wave.ticks]
        expected[:, inside] = adc[:, [first + k for k in inside]].detach()
        clipped = expected.clamp(-(2**15), 2**15 - 64)
        assert (out.adc[0] - clipped).abs().max() <= 32

    def test_the_same_numbers_in_any_division(self):
        """Events together, alone, or in another order; with all noise."""
        light = coarse(noise=NoiseSpectrum.white(96, rms=40.0, spacing=0.01), sipm=SiPM(crosstalk=0.1, gain_spread=0.1))
        both = type(track()).cat([track(3, event=8), track(5, event=2, dEdx=4.0)])
        out = light(both, seed=7)
        for event in (2, 8):
            alone = light(both[both.event == event], seed=7)
            assert torch.equal(alone.codes, out.codes[out.event == event]) and len(alone) > 0
        assert not torch.equal(light(both, seed=8).codes[0], out.codes[0])
        assert out.reports["events"] == 2 and out.reports["triggers"] == len(out)

    def test_noise_alone_does_not_trigger(self):
        """Sums of six channels of 40 ADC: 1500 is 15 sigma."""
        light = coarse(noise=NoiseSpectrum.white(96, rms=40.0, spacing=0.01))
        faint = segments([[-10.0, 0.0, 0.0]], dE=1e-4)
        out = light(faint, seed=1)
        assert len(out) == 0 and out.codes.shape == (0, 48, COARSE.samples)

    def test_poisson_numbers_have_the_mean_of_the_waveforms(self):
        light = coarse()
        n = light.photons(track())
        sums = torch.stack([light.sampled(n, seed).values.sum((1, 2)) for seed in range(60)])
        expected = light.waveforms(track()).values.sum((1, 2)).detach()
        per_group = (n.values.sum(2) * torch.tensor(COARSE.gain)[n.channel] ** 2).sum(1).sqrt() / COARSE.tick
        assert ((sums.mean(0) - expected).abs() < 5 * per_group.detach() / math.sqrt(60)).all()

    def test_single_photons_in_digitised_waveforms(self):
        """Photons, impulse, gain, noise, digits, integral over .6 us: peaks at whole photoelectrons, and widths."""
        flashes, spread, channel = 4000, 0.1, torch.full((4000,), 8)  # an ArCLight's: -55 ADC us
        light, p = coarse(), COARSE.replace(bits=14)
        photons = torch.zeros(flashes, 300, dtype=torch.float64)
        photons[:, 50] = 1.2
        charge = SiPM(gain_spread=spread).sample(photons, 0.01, torch.arange(flashes), seed=2)
        noise = NoiseSpectrum.white(96, rms=20.0, spacing=0.01)
        dark = noise.sample(channel, 300, 0.01, seed=3, index=torch.arange(flashes))
        with torch.no_grad():
            adc = light.shape(charge[:, None], channel[:, None])[:, 0]

        def integral(waveforms):
            return digitise(waveforms, p)[:, 50:110].sum(1).double() * p.lsb * 0.01 / -55.0

        seen, sigma = integral(adc + dark), integral(dark).std().item()
        for n in range(4):
            peak = seen[(seen - n).abs() < 0.5]
            width = math.sqrt(sigma**2 + n * spread**2)
            assert len(peak) > 200 and 0.02 < width < 0.25
            assert abs(peak.mean().item() - n) < 4 * width / math.sqrt(len(peak)) + 0.002
            assert abs(peak.std().item() / width - 1) < 4 / math.sqrt(2 * len(peak)) + 0.03  # the neighbours' tails

    def test_beam_trigger_needs_no_light(self):
        light = coarse(properties=COARSE.replace(trigger="beam"))
        out = light(segments([[-10.0, 0.0, 0.0]], dE=1e-6), seed=1)
        assert len(out) == 1 and abs(out.time[0].item()) < 1e-9


class TestFiles:
    def test_a_readout_comes_back(self, tmp_path):
        out = coarse()(type(track()).cat([track(3, event=8), track(5, event=2)]), seed=7)
        out.write(tmp_path / "light.h5")
        back = LightReadout.read(tmp_path / "light.h5")
        for name in ("event", "module", "time", "channel", "codes"):
            assert torch.equal(getattr(back, name), getattr(out, name)), name
        for name in ("lsb", "sample_spacing", "before", "reports"):
            assert getattr(back, name) == getattr(out, name), name

    def test_larnd_sim_finds_what_it_knows(self, tmp_path):
        """Its datasets, types and units; and its own file, which has no more, is read."""
        out = coarse()(track(t0=3.0), seed=7)
        out.write(tmp_path / "light.h5")
        with h5py.File(tmp_path / "light.h5", "a") as file:
            trigger = file["light_trig"]
            assert trigger.dtype["op_channel"].subdtype == (np.dtype("i4"), (96,))
            assert trigger["ts_s"][0] == pytest.approx(1e-6 * out.time[0].item())
            assert trigger["ts_sync"][0] == int(out.time[0].item() / 0.1)
            assert np.array_equal(file["light_wvfm"][:], out.adc.numpy())
            del file["light_event"]
            for name in ("lsb", "sample_spacing", "before", "reports"):
                del file.attrs[name]
        with pytest.raises(ValueError, match="does not state lsb"):
            LightReadout.read(tmp_path / "light.h5")
        theirs = LightReadout.read(tmp_path / "light.h5", COARSE)
        assert torch.equal(theirs.codes, out.codes) and theirs.event.tolist() == [-1] * len(out)
        assert_close(theirs.time, out.time, rtol=1e-12, atol=0)

    def test_refuses_foreign_files(self, tmp_path):
        path = tmp_path / "light.h5"
        with pytest.raises(FileNotFoundError):
            LightReadout.read(path)
        path.write_text("light")
        with pytest.raises(ValueError, match="not a readable HDF5 file"):
            LightReadout.read(path)
        with h5py.File(path, "w") as file:
            file["hits"] = np.zeros(3)
        with pytest.raises(ValueError, match=r"no dataset 'light_trig', only \['hits'\]"):
            LightReadout.read(path)
        coarse()(track(), seed=1).write(path)
        with h5py.File(path, "a") as file:
            del file["light_wvfm"]
            file["light_wvfm"] = np.zeros((1, 3, 5))
        with pytest.raises(ValueError, match=r"light_wvfm has shape \(1, 3, 5\)"):
            LightReadout.read(path)


class TestProperties:
    def test_files_of_module0_and_the_2x2(self):
        one = LightProperties.from_yaml(shared("data/lartpc/detector/DUNE/module0.yaml"))
        assert (one.num_channels, one.singlet_fraction, one.tau_t, one.bits) == (96, 0.375, 0.752, 10)
        assert (one.impulse, one.smearing) == ("measured", False)
        assert one.threshold[:2] == (-1500.0, -9e9) and one.efficiency[0] == 0.38 and one.gain[0] == -5.2589
        two = LightProperties.from_yaml(shared("data/lartpc/detector/DUNE/2x2.yaml"))
        assert (two.num_channels, two.trigger, two.bits, two.sample) == (384, "beam", 14, 16)
        assert two.smearing and two.impulse_tick == 0.01
        assert two.gain == (-7.0,) * 384 and two.window == (0.0, 16.0) and two.samples == 1000
        assert len(two.tpc_to_channel) == 8

    def test_uniform_detectors(self):
        p = LightProperties.uniform(3, 8, tau_t=1.6)
        assert p.num_channels == 24 and p.channels_per_sum == 1 and len(p.threshold) == 24

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"tau_t": 0.0}, "tau_t"),
            ({"tau_s": -1.0}, "tau_s"),
            ({"singlet_fraction": 1.2}, "singlet_fraction"),
            ({"window": (-1.0, 2.0)}, "window"),
            ({"gain": (1.0,) * 95}, "gain must hold one number per channel, 96, got 95"),
            ({"threshold": (1.0,) * 3}, "threshold must hold one number per sum of 6 channels, 16, got 3"),
            ({"efficiency": (1.5,) * 96}, "efficiency"),
            ({"sample_spacing": 0.0105, "tick": 0.01}, "whole number of ticks"),
            ({"channels_per_sum": 7}, "must divide the 48"),
            ({"tpc_to_channel": ((0, 1), (3, 4))}, "channel 2 belongs to no TPC"),
            ({"tpc_to_channel": (tuple(range(40)), tuple(range(40, 96)))}, "every TPC must have as many channels"),
            ({"bits": 17}, "bits"),
        ],
    )
    def test_refuses(self, change, message):
        with pytest.raises(ValueError, match=message):
            LightProperties.module0().replace(**change)

    def test_refuses_files(self, tmp_path):
        path = tmp_path / "light.yaml"
        with pytest.raises(FileNotFoundError):
            LightProperties.from_yaml(path)
        for text, message in (
            ("e_field: 0.5", "has no light readout"),
            ("n_op_channel: [", "not YAML"),
            ("n_op_channel: 6\ntpc_to_op_channel: [[0,1,2,3,4,5]]\nlight_gian: 3", "did you mean 'light_gain'"),
            ("n_op_channel: 6\ntpc_to_op_channel: [[0,1,2,3,4,7]]", "channel 5 belongs to no TPC"),
            (
                "n_op_channel: 6\ntpc_to_op_channel: [[0,1,2,3,4,5]]\nlight_trig_mode: 3",
                "light_trig_mode must be 0 or 1",
            ),
            (
                "n_op_channel: 6\ntpc_to_op_channel: [[0,1,2,3,4,5]]\nop_channel_efficiency: [1]",
                "hold 6 numbers, got 1",
            ),
        ):
            path.write_text(text)
            with pytest.raises(ValueError, match=message):
                LightProperties.from_yaml(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: coarse(model="none"), "model must be one of"),
        (lambda: LightSimulator.module0(step=0.0), "step must be in"),
        (lambda: coarse(noise=NoiseSpectrum.white(48, 1.0, 0.01)), "noise has 48 channels, the readout 96"),
        (lambda: coarse(visibility=SolidAngle.ring(MODULE0, tiles=3)), "the light readout 48 per TPC"),
        (lambda: coarse(properties=LightProperties.uniform(1, 48)), "has 1 TPCs, module0 has 2"),
        (lambda: coarse(properties=COARSE.replace(impulse="measured")), "ask for a measured impulse"),
        (lambda: coarse().photons(track(), ["tau"]), "no parameter 'tau'"),
        (lambda: coarse().photons(track(dE=-1.0)), "dE of segment 0 is -1.0"),
        (lambda: coarse().photons(track(t0=float("nan"))), "t0 of segment 0"),
        (lambda: coarse().seen(torch.tensor([[99.0, 0.0, 0.0]])), "point 0, .* lies in no TPC"),
        (lambda: coarse()(track(event=1 << 40), seed=1), "events must be below"),
        (lambda: coarse()(track(), seed=-1), "seed must be in"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("efield", 99.0, "efield is 99.0"),
        ("tau_t", -1.0, "tau_t must be positive, got -1.0"),
        ("w_ph", 0.0, "w_ph must be positive"),
    ],
)
def test_refuses_parameters_out_of_range(name, value, message):
    light = coarse()
    with changed(light, **{name: value}), pytest.raises(ValueError, match=message):
        light.photons(track())
    with torch.no_grad():
        light.efficiency[7] = 1.2
    with pytest.raises(ValueError, match=r"efficiency of channel 7 is 1.2, expected 0 to 1"):
        light.photons(track())


def test_runs_where_the_segments_are(device):
    light, s = coarse(noise=NoiseSpectrum.white(96, rms=40.0, spacing=0.01), sipm=SiPM(crosstalk=0.1)), track()
    there = light.photons(s, ("efield",))
    light.to(device)
    here = light.photons(s.to(device), ("efield",))
    assert here.values.device.type == device
    assert_close(here.values.cpu(), there.values, rtol=1e-10, atol=1e-12)
    assert_close(here.tangents.cpu(), there.tangents, rtol=1e-10, atol=1e-12)
    assert len(light(s.to(device), seed=1)) >= 1


def test_measured_parts_fit_together():
    """The files of module0: impulse, noise, properties; a muon file to digitised waveforms."""
    properties = LightProperties.from_yaml(shared("data/lartpc/detector/DUNE/module0.yaml"))
    light = LightSimulator(
        MODULE0,
        properties=properties.replace(efficiency=(1.0,) * 96, tick=0.01),
        visibility=SolidAngle.module0(),
        impulse=Impulse.read(shared("data/lartpc/light/sipm_impulse.npy")),
        noise=NoiseSpectrum.read(shared("data/lartpc/light/light_noise-module0.npy")),
    )
    out = light(read_segments(shared("data/lartpc/edepsim/muons_0.h5")).select(slice(0, 4)), seed=1)
    assert len(out) >= 1 and out.reports["events"] == 4
    assert out.codes.shape[1:] == (96, 256)
