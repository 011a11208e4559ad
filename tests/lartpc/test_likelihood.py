import importlib.util
from pathlib import Path

import pytest
import torch
from core.contract import Contract
from hepops.lartpc import Chip, Detector, HitLikelihood, Parameters, Simulator, gun
from hepops.lartpc import hit_likelihood as public
from hepops.lartpc.likelihood import Clock, formula, match, trigger_tick
from hepops.lartpc.likelihood.operator import evaluate, scores
from torch.testing import assert_close

ROOT = Path(__file__).parents[2]
F64 = {"dtype": torch.float64}


def brute_force():
    spec = importlib.util.spec_from_file_location("brute", ROOT / "benchmarks/lartpc/likelihood_brute_force.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# In units in which numbers are of order one, so that central differences resolve them: ticks, thousands of electrons.
SHORT = Clock(tick=1.0, hold=4, reset=1, busy=3, rise_time=0.0)


class TestHitLikelihood(Contract):
    op = torch.ops.hepops.hit_likelihood.default
    public = public
    large = 200
    clock = SHORT

    def samples(self, **at):
        return [self.sample(size, **at) for size in (0, 1, 4)]

    @staticmethod
    def function(*args):
        return public(*args[:7], args[7], 0.0).log_probability

    @staticmethod
    def reference(values, offsets, ticks, first, edges, threshold, noise, clock):
        parts = []
        for row, (a, b) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            hits = slice(int(first[row]), int(first[row + 1]))
            bar = threshold[row if threshold.numel() > 1 else 0]
            parts.append(formula(values[a:b], ticks[hits].tolist(), edges[:, hits], bar, noise, clock))
        return torch.cat(parts) if parts else threshold.new_zeros(0) * values.sum() * noise.sum() * edges.sum()

    @classmethod
    def sample(cls, size, dtype=None, device="cpu", **at):
        random = torch.Generator().manual_seed(size)
        lengths = torch.randint(16, 22, (size,), generator=random)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        values = 0.1 * torch.randn(int(lengths.sum()), generator=random, dtype=torch.float64)
        for begin in offsets[:-1].tolist():  # two pulses, of which chips make hits at about the ticks below
            for tick in (2, 3, 4, 5, 11, 12, 13, 14):
                values[begin + tick] += 1.2
        values = values.to(dtype)
        count = torch.arange(size) % 3
        first = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)])
        ticks = torch.cat([torch.tensor([5, 14][:c], dtype=torch.int64) for c in count.tolist()] or [first[:0]])
        low = 4.5 + torch.rand(len(ticks), generator=random, dtype=torch.float64)
        edges = torch.stack([low, low + 0.9])
        threshold = 4.5 + torch.rand(size, generator=random, dtype=torch.float64)
        noise = torch.tensor([0.9, 0.5, 0.65], dtype=torch.float64)
        tensors = (values, offsets, ticks, first, edges, threshold, noise)
        return *(x.to(device) for x in tensors), cls.clock

    def operands(self, args):
        clock = args[7]
        return *args[:7], clock.tick, clock.hold, clock.reset, clock.busy, clock.rise_time, 0.0, True

    @staticmethod
    def rounding(dtype):
        # Quadrature: the table of Mills' ratio is good to 5e-14, sums over 100 nodes and 20 looks lose three digits.
        return {"rtol": 1e-9, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}


class TestWithFilter(TestHitLikelihood):
    clock = Clock(tick=1.0, hold=4, reset=1, busy=3, rise_time=0.8)


CHIP = Chip.of(Detector.module0())
NOISE = torch.tensor([900.0, 500.0, 650.0], **F64)
BAR = torch.tensor(5000.0, **F64)


def row(current, ticks, edges, tolerance=0.0, derivatives=False, noise=NOISE, bar=BAR, clock=None):
    first = torch.tensor([0, len(ticks)])
    offsets = torch.tensor([0, len(current)])
    ticks = torch.tensor(ticks, dtype=torch.int64)
    return evaluate(current, offsets, ticks, first, edges, bar, noise, clock or Clock(), tolerance, derivatives)


def test_all_outcomes_together_are_certain():
    """Of a short row: no hit, or a hit at any tick with any charge, with the look that is due after it."""
    current = torch.zeros(24, **F64)
    current[3:15] = 5500.0
    ends = torch.tensor([[-torch.inf], [torch.inf]], **F64)
    total = row(current, [], ends[:, :0])[0].exp().sum()
    for k in range(24):
        after = row(current, [k], ends)[0]
        total = total + after.sum().exp()
        if k + 28 >= 24:  # the look at the end of the busy time may trigger, and so on at the end of the next
            chain, edges = [k], ends
            for _ in range(3):
                chain, edges = [*chain, chain[-1] + 28], torch.cat([edges, ends], 1)
                total = total + row(current, chain, edges)[0].sum().exp()
    assert abs(float(total) - 1) < 1e-11


def test_the_codes_of_a_hit_add_up():
    current = torch.zeros(40, **F64)
    current[10:14] = 25000.0
    code = torch.arange(256, **F64)
    edges, _, _ = CHIP.edges(code, code, torch.zeros(256, dtype=torch.int64))
    codes = sum(row(current, [12], edges[:, [c]])[0][0].exp() for c in range(256))
    ends = torch.tensor([[-torch.inf], [torch.inf]], **F64)
    assert_close(codes, row(current, [12], ends)[0][0].exp(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("number", [0, 2, 3, 5, 7, 9])
def test_against_sampled_chips(number):
    """2e5 chips here; a million for fifty waveforms in benchmarks/lartpc/likelihood_brute_force.py."""
    _, outcomes, worst, chi2, freedom = brute_force().compare(number, 100_000)
    assert outcomes >= 10
    assert worst < 4
    assert chi2 < freedom + 4.5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("rise_time", [0.0, 0.1])
def test_improbable_outcomes_stay_finite_and_smooth(rise_time):
    """A hit far from where the current says, a charge that nobody expects, and a silence that is none."""
    clock = Clock(rise_time=rise_time)
    current = torch.zeros(90, **F64)
    current[10:30] = 4000.0
    for ticks, charge in (([29], 20000.0), ([17], 40000.0), ([60], 6000.0), ([15, 43], 9000.0)):
        edges = torch.tensor([[charge] * len(ticks), [charge + 988.0] * len(ticks)], **F64)
        ours = row(current, ticks, edges, 0.0, True, clock=clock)
        leaf = current.clone().requires_grad_()
        theirs = formula(leaf, ticks, edges, BAR, NOISE, clock)
        assert ours[0].min() < -20
        # Over a bin at which the integrand falls by many powers of ten the quadratures differ: measured 1.7e-5.
        assert_close(ours[0], theirs.detach(), rtol=5e-5, atol=1e-9)
        assert_close(ours[1], torch.autograd.grad(theirs.sum(), leaf)[0], rtol=1e-4, atol=1e-9)
        assert_close(row(current, ticks, edges, 1e-6, clock=clock)[0], ours[0], rtol=1e-4, atol=1e-5)
    current[10:30] = 9000.0
    silence = row(current, [], edges[:, :0], 0.0, True, clock=clock)
    assert -600 < float(silence[0]) < -20
    assert_close(silence[0], formula(current, [], edges[:, :0], BAR, NOISE, clock), rtol=0.3, atol=0)


# Two histories that hardly happen: a first look, after the busy time, at a charge far above the threshold, which must
# not trigger, and then a reading of twice that charge; a pulse that must be reset silently, and a hit after it.
IMPROBABLE = {
    "late": (((15, 22, 12000.0), (42, 51, 15000.0)), [20, 51], [[6000.0, 28000.0], [7000.0, 29000.0]]),
    "reset": (((10, 14, 24000.0), (55, 62, 6000.0)), [62], [[6000.0], [7000.0]]),
}


@pytest.mark.parametrize("kind", IMPROBABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_improbable_readings_are_as_near_as_probable_ones(kind, dtype):
    """Whatever the tolerance, log P and its slopes are those of tolerance 0, and that is the formula's."""
    pulses, ticks, edges = IMPROBABLE[kind]
    current, edges = torch.zeros(90, **F64), torch.tensor(edges, **F64)
    for begin, end, height in pulses:
        current[begin:end] = height
    exact = row(current, ticks, edges, 0.0, True)
    leaf, bar = current.clone().requires_grad_(), BAR.clone().requires_grad_()
    theirs = formula(leaf, ticks, edges, bar, NOISE)
    slopes = torch.autograd.grad(theirs.sum(), (leaf, bar))
    assert exact[0].min() < (-500 if kind == "late" else -12)
    # The quadratures over a bin in which the integrand falls by many powers of ten differ by 1e-4.
    assert_close(exact[0], theirs.detach(), rtol=1e-4, atol=1e-9)
    assert_close(exact[1], slopes[0], rtol=0, atol=1e-4 * float(slopes[0].abs().max()))
    assert_close(exact[2].sum(), slopes[1], rtol=1e-4, atol=0)
    for tolerance in (1e-7, 1e-5, 1e-4):
        near = row(current.to(dtype), ticks, edges, tolerance, True)
        # 32 nodes in r instead of 128 cost 1e-4 of an improbable P (docs/likelihood.md), each history a tolerance.
        bound = 3e-4 + 10 * tolerance
        assert_close(near[0], exact[0], rtol=0, atol=bound)
        for ours, reference in zip(near[1:5], exact[1:5], strict=True):
            assert ours.isfinite().all()
            assert_close(ours.double(), reference, rtol=0, atol=bound * max(1.0, float(reference.abs().max())))


def test_tolerance_bounds_what_is_left_out():
    module = brute_force()
    for number in range(10):
        _, current, rise_time = module.waveform(number)
        exact = row(current, [], torch.zeros(2, 0, **F64), clock=Clock(rise_time=rise_time))
        for tolerance in (1e-6, 1e-4):
            near = row(current, [], torch.zeros(2, 0, **F64), tolerance, clock=Clock(rise_time=rise_time))
            if not exact[0].isfinite():  # a silence below 1e-300, which is none in either
                assert torch.equal(near[0], exact[0])
                continue
            nodes = 2e-4 if float(exact[0]) < -7 else 0.0  # 32 for 128 cost a silence of probability 2e-5 1.1e-4
            left_out = float(near[5]) * float((-exact[0]).clamp(max=600).exp())
            assert abs(float(near[0] - exact[0])) < left_out + 20 * tolerance + nodes


def test_a_known_charge_is_a_density():
    current = torch.zeros(40, **F64)
    current[10:14] = 25000.0
    at = torch.tensor([[9800.0], [9800.0]], **F64)
    narrow = at + torch.tensor([[-0.5], [0.5]], **F64)
    assert_close(row(current, [12], at)[0], row(current, [12], narrow)[0], rtol=0, atol=1e-6)


def test_one_bit_for_any_threads():
    args = TestHitLikelihood.sample(200, dtype=torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            results.append(evaluate(*args[:7], SHORT, 1e-4, True))
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_scores_are_sums_over_an_intervals_ticks():
    args = TestHitLikelihood.sample(7, dtype=torch.float64)
    slopes, tangents = torch.randn_like(args[0]), torch.randn(3, len(args[0]), **F64)
    owner = torch.zeros_like(args[0], dtype=torch.int64)
    for r in range(7):
        begin, end = int(args[1][r]), int(args[1][r + 1])
        owner[begin:end] = int(args[3][r]) + r
        for h in range(int(args[3][r]), int(args[3][r + 1])):
            owner[min(begin + int(args[2][h]) + 6, end) : end] += 1
    expected = torch.zeros(7 + len(args[2]), 3, **F64).index_add_(0, owner, (slopes * tangents).T)
    assert_close(scores(slopes, tangents, *args[1:4], SHORT), expected, rtol=1e-12, atol=1e-12)


# ---- the object


@pytest.fixture(scope="module")
def muon():
    sim = Simulator(Detector.module0(), dtype=torch.float64)
    segments = gun.shoot(sim.detector, events=3, energy=120.0, seed=3)
    with torch.no_grad():
        hits = sim(segments, seed=5)
    assert len(hits) > 50
    return sim, segments, hits


PHYSICAL = (*Parameters.SIX, "time_offset")
OF_CHIP = ("threshold", "gain", "pedestal", "reset_noise", "uncorrelated_noise", "discriminator_noise")


@pytest.fixture(scope="module")
def short_track(muon):
    """A few segments of one event with their hits, and the score at tolerances 0 and the default."""
    sim, segments, hits = muon
    few = segments[segments.event == segments.event[0]][:2]
    hits = hits[hits.event == few.event[0]]
    objects = {t: HitLikelihood(CHIP, tolerance=t) for t in (0.0, 1e-4)}
    names = (*PHYSICAL, *OF_CHIP)
    return sim, few, hits, {t: (o, o.likelihood(sim, few, hits, names, True).score) for t, o in objects.items()}


@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
@pytest.mark.parametrize("name", [*PHYSICAL, *OF_CHIP])
def test_score_is_the_slope_of_the_value(short_track, name, tolerance):
    """Central differences of fourth order in every parameter, float64: 1e-6 of the slope.

    With a tolerance the value has small steps, where a history begins to count: 1.6e-6 measured across one.
    """
    sim, few, hits, scores = short_track
    object_, score = scores[tolerance]
    base = {**{n: float(getattr(Parameters(), n)) for n in Parameters.SIX}, "time_offset": 0.0, **CHIP.values()}[name]
    h = {"time_offset": 1e-4, "efield": 1e-6, "pedestal": 1e-3}.get(name, 1e-5 * base)

    def at(value):
        if name in Parameters.SIX:
            other = Simulator(sim.detector, Parameters(**{name: value}), dtype=torch.float64)
            return float(object_.likelihood(other, few, hits, (), False).value)
        return float(object_.at(**{name: value}).likelihood(sim, few, hits, (), False).value)

    one, two = ((at(base + n * h) - at(base - n * h)) / (2 * n * h) for n in (1, 2))
    slope = (4 * one - two) / 3
    found = float(score[(*PHYSICAL, *OF_CHIP).index(name)])
    bound = 1e-6 if tolerance == 0 else 5e-6
    assert abs(slope - found) < bound * max(abs(slope), 0.01 / abs(base or 1.0))


@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
@pytest.mark.parametrize(
    ("number", "ticks", "codes"),
    [(0, [30], [78]), (1, [16], [82]), (3, [12, 42], [84, 80]), (5, [24], [76]), (5, [], []), (9, [16], [84])],
)
def test_slopes_of_the_operator(number, ticks, codes, tolerance):
    """Central differences of fourth order in currents, edges, threshold and noise: 1e-6 of the largest."""
    _, current, rise_time = brute_force().waveform(number)
    code = torch.tensor(codes, **F64)
    edges, _, _ = CHIP.edges(code, code, torch.zeros(len(codes), dtype=torch.int64))
    first, clock = torch.tensor([0, len(ticks)]), Clock(rise_time=rise_time)
    ticks, offsets = torch.tensor(ticks, dtype=torch.int64), torch.tensor([0, len(current)])
    base = [current, edges, BAR, NOISE]

    def value(arguments):
        return public(arguments[0], offsets, ticks, first, *arguments[1:], clock, tolerance).log_probability.sum()

    leaves = [x.clone().requires_grad_() for x in base]
    slopes = torch.autograd.grad(value(leaves), leaves)
    for k, step in enumerate((5.0, 2.0, 2.0, 0.5)):
        at = range(0, len(current), 4) if k == 0 else range(base[k].numel())
        differences, found = [], slopes[k].reshape(-1)

        def moved(i, by, k=k):
            x = base[k].clone().reshape(-1)
            x[i] += by
            return float(value([x.reshape(base[k].shape) if n == k else base[n] for n in range(4)]))

        for i in at:
            near, far = (moved(i, n * step) - moved(i, -n * step) for n in (1, 2))
            differences.append((8 * near - far) / (12 * step))
        if differences:
            scale = float(found.abs().max())
            assert_close(torch.tensor(differences, **F64), found[list(at)], rtol=0, atol=1e-6 * scale)


def test_chunks_and_intervals_add_up(muon):
    sim, segments, hits = muon
    names = ("lifetime", "threshold")
    whole = HitLikelihood().likelihood(sim, segments, hits, names, True)
    sim.chunk, chunk = 1, sim.chunk
    try:
        parts = HitLikelihood().intervals(sim, segments, hits, names)
        divided = HitLikelihood().likelihood(sim, segments, hits, names, True)
    finally:
        sim.chunk = chunk
    assert_close(divided.value, whole.value, rtol=1e-12, atol=0)
    assert_close(divided.information, whole.information, rtol=1e-12, atol=0)
    assert_close(-parts.scores.sum(0), whole.score, rtol=1e-9, atol=1e-9)
    assert sorted(parts.hit[parts.hit >= 0].tolist()) == list(range(len(hits)))
    assert (hits.event[parts.hit[parts.hit >= 0]] == parts.event[parts.hit >= 0]).all()
    assert whole.report["matched"] == len(hits)


def test_operator_and_formula_give_the_object_alike(muon):
    sim, segments, hits = muon
    few = segments[segments.event == segments.event[0]][:1]
    mine = hits[hits.event == few.event[0]]
    a, b = (HitLikelihood(CHIP, tolerance=0.0, method=m).likelihood(sim, few, mine, ("efield", "gain"), True)
            for m in ("operator", "formula"))  # fmt: skip
    assert_close(a.value, b.value, rtol=1e-9, atol=1e-9)
    assert_close(a.score, b.score, rtol=1e-6, atol=1e-9)


def test_absurd_hits_are_counted_and_cost_their_rate(muon):
    sim, segments, hits = muon
    import dataclasses

    clean = HitLikelihood(CHIP).likelihood(sim, segments, hits, ("lifetime",), True)
    alien = dataclasses.replace(hits[:1], event=hits.event[:1] + 1000)
    late = dataclasses.replace(hits[:1], time=hits.time[:1] + 5000.0)
    from hepops.lartpc import Hits

    pixels = {"pixels": 0}
    mixed = Hits.cat([dataclasses.replace(h, reports=pixels) for h in (hits, alien, late)])
    dirty = HitLikelihood(CHIP).likelihood(sim, segments, mixed, ("lifetime",), True)
    assert dirty.report["without_row"] == 1 and dirty.report["outside_window"] == 1
    cost = float(dirty.value - clean.value)
    assert abs(cost / 2 + torch.tensor(CHIP.foreign_probability()).log()) < 1e-4
    assert_close(dirty.score, clean.score, rtol=1e-9, atol=1e-9)


# ---- matching


class Rows:
    def __init__(self, first_tick, ticks):
        n = len(first_tick)
        self.event, self.tpc, self.ix, self.iy = (torch.zeros(n, dtype=torch.int64) for _ in range(4))
        self.first_tick = torch.tensor(first_tick)
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.tensor(ticks).cumsum(0)])


def hits_at(ticks):
    from hepops.lartpc import Hits

    zero = torch.zeros(len(ticks), dtype=torch.int64)
    x = torch.zeros(len(ticks), **F64)
    time = 0.1 * (torch.tensor(ticks, **F64) + 1)
    return Hits(zero, zero, zero, zero, x, x, x, time, x, zero, zero, zero)


def test_hits_find_the_window_that_holds_them():
    found = match(Rows([100, 3000], [60, 60]), hits_at([3010, 99, 120, 148, 130, 5000]), Clock())
    assert found.tick.tolist() == [20, 48, 10] and found.hit.tolist() == [2, 3, 0]
    assert found.first.tolist() == [0, 2, 3]
    assert found.report == {"matched": 3, "without_row": 1, "outside_window": 1, "dead_time": 1}


def test_the_look_after_the_busy_time_may_lie_beyond_the_end():
    found = match(Rows([0], [60]), hits_at([50, 78, 106, 140]), Clock())
    assert found.tick.tolist() == [50, 78, 106] and found.report["outside_window"] == 1


def test_times_between_ticks_are_those_of_the_next_end():
    assert trigger_tick(torch.tensor([0.1, 0.11, 0.2], **F64), 0.1).tolist() == [0, 1, 1]
    assert trigger_tick(0.1 * (torch.arange(100_000, **F64) + 1), 0.1).equal(torch.arange(100_000))


# ---- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.nan}, "currents must be finite"),
        ({"ticks": [20, 10]}, "ticks of row 0"),
        ({"ticks": [5, 30]}, "ticks of row 0"),
        ({"ticks": [5, 70]}, "ticks of row 0"),
        ({"noise": [900.0, 0.0, 650.0]}, "threshold and noise must be positive"),
        ({"bar": 0.0}, "threshold and noise must be positive"),
        ({"edges": (2.0, 1.0)}, "edges must rise"),
    ],
)
def test_refuses(change, message):
    current = torch.full((60,), change.get("values", 100.0), **F64)
    ticks = change.get("ticks", [5, 40])
    low, high = change.get("edges", (1.0, 2.0))
    edges = torch.tensor([[low] * len(ticks), [high] * len(ticks)], **F64)
    with pytest.raises(ValueError, match=message):
        row(current, ticks, edges, 1e-6, True, torch.tensor(change.get("noise", [900.0, 500.0, 650.0]), **F64),
            torch.tensor(change.get("bar", 5000.0), **F64))  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": -1.0}, "threshold must be finite and not negative, got -1"),
        ({"uncorrelated_noise": 0.0}, "uncorrelated_noise must be positive"),
        ({"gain": torch.tensor([4e-3, torch.nan])}, "gain must be finite"),
        ({"v_ref": 100.0}, "v_ref must exceed v_cm"),
        ({"foreign_rate": -1.0}, "foreign_rate must not be negative"),
        ({"treshold": 1.0}, "did you mean 'threshold'"),
    ],
)
def test_chip_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        Chip.of(Detector.module0(), **values)


def test_codes_outside_the_adc_and_missing_thresholds_are_refused():
    code = torch.tensor([256.0], **F64)
    with pytest.raises(ValueError, match="adc must be 0 to 255, got 256"):
        CHIP.edges(code, code, torch.zeros(1, dtype=torch.int64))
    short = Chip.of(Detector.module0(), threshold=torch.full((10,), 5000.0))
    with pytest.raises(ValueError, match="threshold has 10 values, there is none for pixel id 11"):
        short.at("threshold", torch.tensor([3, 11]))
    with pytest.raises(ValueError, match="'lifetime' cannot be fitted"):
        CHIP.with_values(lifetime=1.0)
