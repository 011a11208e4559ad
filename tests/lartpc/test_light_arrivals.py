import pytest
import torch
from core.contract import Contract
from hepops.lartpc.light.arrivals import light_arrivals, light_arrivals_in_torch
from hepops.lartpc.light.poisson import poisson
from torch.testing import assert_close


class TestLightArrivals(Contract):
    op = torch.ops.hepops.light_arrivals.default
    function = staticmethod(light_arrivals)
    reference = staticmethod(light_arrivals_in_torch)
    sizes = (0, 1, 40)
    large = 30_000

    @staticmethod
    def sample(size, dtype=None, **at):
        """Two groups, three channels; arrivals before, in and behind the windows, none on the edge of a tick."""
        kind = {"dtype": torch.float64, **at}
        time = (torch.randint(-5, 27, (3, size), **at) + 0.1 + 0.8 * torch.rand(3, size, **kind)) * 0.1
        offset = torch.tensor([0, size // 3, size], **at)
        tau = torch.tensor([0.1, 0.7], **kind)
        share = torch.rand(size, **kind)
        return torch.rand(3, size, **kind), time, share, tau, offset, torch.tensor([1, -2], **at), 20, 0.1

    @staticmethod
    def rounding(dtype):
        return {"rtol": 1e-12, "atol": 1e-12}  # sums of up to 40 numbers of order 1, and differences of exponentials

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e300])
    def test_a_time_without_meaning_stays_in_its_row(self, device, bad):
        photons, time, *rest = self.sample(9, device=device)
        time[1, 7] = bad
        n = light_arrivals(photons, time.requires_grad_(), *rest)
        n.sum().backward()
        assert n[:, [0, 2]].isfinite().all() and n[0, 1].isfinite().all()

    def test_refuses_other_dtypes(self, device):
        for kind in (torch.int64, torch.float16, torch.float32, torch.complex64):
            photons, *rest = self.sample(3, device=device)
            with pytest.raises(TypeError, match="photons must be float64"):
                light_arrivals(photons.to(kind), *rest)
        *args, begin, ticks, tick = self.sample(3, device=device)
        with pytest.raises(TypeError, match="begin must be int64"):
            light_arrivals(*args, begin.double(), ticks, tick)


def test_no_photon_is_lost_or_made(device):
    args = TestLightArrivals.sample(5000, device=device)
    n = light_arrivals(*args)
    photons, offset = args[0], args[4].tolist()
    for g in range(2):
        made = photons[:, offset[g] : offset[g + 1]].sum(1)
        assert_close(n[g].sum(1), made, rtol=1e-12, atol=0)
    assert (n >= 0).all()


def test_is_linear_in_the_photons(device):
    args = TestLightArrivals.sample(300, device=device)
    more = torch.rand_like(args[0])
    both = light_arrivals(args[0] + 3 * more, *args[1:])
    assert_close(both, light_arrivals(*args) + 3 * light_arrivals(more, *args[1:]), rtol=1e-13, atol=1e-13)


def test_ticks_of_any_length_share_the_same_light():
    """Ten short ticks hold what one long tick does: the integrals are exact, not sampled."""
    *args, begin, ticks, tick = TestLightArrivals.sample(200)
    long = light_arrivals(*args, begin, ticks, tick)
    short = light_arrivals(*args, 10 * begin, 10 * ticks, tick / 10)
    assert_close(short[..., 1:-1].unflatten(-1, (ticks, 10)).sum(-1), long[..., 1:-1], rtol=1e-12, atol=1e-13)


def test_an_hour_of_decay_does_not_overflow():
    kind = torch.float64
    one = torch.ones(1, 2, dtype=kind)
    times = torch.tensor([[-1e12, 1e12]], dtype=kind)
    tau = torch.tensor([1e-9, 1e3], dtype=kind)
    n = light_arrivals(one, times, one[0] / 2, tau, torch.tensor([0, 2]), torch.tensor([0]), 5, 0.001)
    assert_close(n[0, 0], torch.tensor([1.0, 0, 0, 0, 0, 0, 1], dtype=kind))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: (a[0][0], *a[1:]), r"photons must be \(channels, N\), got \(9,?\)"),
        (lambda a: (a[0], a[1][:2], *a[2:]), "time has shape"),
        (lambda a: (*a[:2], a[2][:4], *a[3:]), r"share must be \(9,\), got \(4"),
        (lambda a: (*a[:3], a[3][:1], *a[4:]), "singlet and triplet"),
        (lambda a: (*a[:3], 0 * a[3], *a[4:]), "tau must be positive"),
        (lambda a: (*a[:4], a[4][:2], *a[5:]), "one entry more than begin"),
        (lambda a: (*a[:4], a[4] + 1, *a[5:]), "offset must run from 0 to 9, got 1 to 10"),
        (lambda a: (*a[:4], torch.tensor([0, 12, 9]), *a[5:]), "offset must not fall, got 12 and then 9"),
        (lambda a: (*a[:6], 0, a[7]), "ticks must be positive"),
        (lambda a: (*a[:7], 0.0), "tick must be positive"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        light_arrivals(*change(TestLightArrivals.sample(9)))


class TestPoisson:
    @pytest.mark.parametrize("mean", [1e-3, 0.3, 4.0, 9.9, 10.1, 60.0, 1e5])
    def test_has_the_moments_of_the_law(self, mean):
        """Mean and variance within five sigma of theirs, for 2e5 numbers on both sides of the change of method."""
        rows, columns = 20, 10_000
        n = poisson(torch.full((rows, columns), mean, dtype=torch.float64), torch.arange(rows), seed=5)
        size = rows * columns
        assert abs(n.mean().item() - mean) < 5 * (mean / size) ** 0.5
        assert abs(n.var().item() / mean - 1) < 5 * ((2 + 1 / mean) / size) ** 0.5
        assert (n == n.round()).all() and (n >= 0).all()

    @pytest.mark.parametrize("mean", [3.0, 12.0])
    def test_has_the_probabilities_of_the_law(self, mean):
        size, most = 200_000, 40
        n = poisson(torch.full((20, size // 20), mean, dtype=torch.float64), torch.arange(20), seed=7).flatten()
        k = torch.arange(most, dtype=torch.float64)
        expected = size * torch.exp(k * torch.tensor(mean).log() - mean - torch.lgamma(k + 1))
        seen = torch.bincount(n.long(), minlength=most)[:most]
        enough = expected > 20
        chi2 = ((seen - expected) ** 2 / expected)[enough].sum().item()
        cells = int(enough.sum())
        assert abs(chi2 - cells) < 5 * (2 * cells) ** 0.5

    def test_numbers_are_named_by_row_and_column(self, device):
        mean = 30 * torch.rand(6, 50, dtype=torch.float64, device=device)
        name = torch.tensor([5, 1, 4, 9, 2, 6], device=device)
        n = poisson(mean, name, seed=3)
        assert torch.equal(poisson(mean[2:4], name[2:4], seed=3), n[2:4])
        assert torch.equal(poisson(mean[:, 20:30].contiguous(), name, seed=3, first=20), n[:, 20:30])
        assert not torch.equal(poisson(mean, name, seed=4), n)
        assert not torch.equal(poisson(mean, name, seed=3, purpose=1), n)

    def test_threads_do_not_matter(self):
        mean, before = 20 * torch.rand(8, 20_000, dtype=torch.float64), torch.get_num_threads()
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(poisson(mean, torch.arange(8), seed=1))
        torch.set_num_threads(before)
        assert torch.equal(*results)

    def test_refuses(self):
        row = torch.arange(1)
        for bad in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="means must be finite and >= 0"):
                poisson(torch.full((1, 2), bad, dtype=torch.float64), row, seed=1)
        good = torch.ones(1, 2, dtype=torch.float64)
        with pytest.raises(ValueError, match="seed must be in"):
            poisson(good, row, seed=-1)
        with pytest.raises(ValueError, match="steps must be in"):
            poisson(good, row, seed=1, first=-1)
        with pytest.raises(TypeError, match="mean must be float64"):
            poisson(good.float(), row, seed=1)
        with pytest.raises(ValueError, match=r"index \(rows\), got"):
            poisson(good, torch.arange(3), seed=1)
