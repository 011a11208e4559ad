"""The likelihood against the chip itself: fifty small waveforms, a million sampled chips each.

Every outcome (ticks and codes of all hits) of probability above 1e-3 is compared with its share among the chips, in
standard deviations of the binomial distribution; a chi2 joins all outcomes of ticks above 1e-4. Prints a table of the
largest deviations. `python benchmarks/lartpc/likelihood_brute_force.py [chips] [waveforms]`
"""

import math
import sys
from collections import Counter

import torch
from hepops.lartpc import Chip, Detector, frontend
from hepops.lartpc.likelihood import hit_likelihood

torch.set_num_threads(1)
KINDS = (
    "slow rise",
    "fast rise",
    "bipolar",
    "two pulses",
    "below threshold",
    "silent resets",
    "near the end",
    "busy look",
)
KINDS = (*KINDS, "saturated", "filter")
CODES, MOST = 256, 4  # of the ADC; hits in a row of 60 ticks, each of 28


def waveform(number: int) -> tuple[str, torch.Tensor, float]:
    """Kind, current (ticks) [e/us] and rise time of the buffer filter [us] of waveform `number`."""
    random = torch.Generator().manual_seed(number)
    u = torch.rand(4, generator=random, dtype=torch.float64).tolist()
    kind, n = KINDS[number % len(KINDS)], 60
    current = torch.zeros(n, dtype=torch.float64)

    def pulse(start: int, ticks: int, charge: float) -> None:
        current[start : start + ticks] += charge / (0.1 * len(current[start : start + ticks]))

    if kind == "slow rise":
        pulse(5, 45, 7000 + 8000 * u[0])
    elif kind == "fast rise":
        pulse(10 + int(10 * u[1]), 4, 6000 + 6000 * u[0])
    elif kind == "bipolar":
        pulse(5, 15, 5000 + 3000 * u[0])
        pulse(25, 20, -4000 - 3000 * u[1])
    elif kind == "two pulses":
        pulse(8, 6, 7000 + 3000 * u[0])
        pulse(26 + int(12 * u[1]), 6, 5000 + 4000 * u[2])
    elif kind == "below threshold":
        pulse(10, 20, 2000 + 2500 * u[0])
    elif kind == "silent resets":
        pulse(2, 50, 9000 + 3000 * u[0])  # about a threshold in each integration
    elif kind == "near the end":
        pulse(n - 8 - int(10 * u[1]), 8, 6000 + 5000 * u[0])
    elif kind == "busy look":
        pulse(n - 22 - int(5 * u[1]), 22, 20000 + 6000 * u[0])  # the next look is due beyond the end
    elif kind == "saturated":
        pulse(10, 5, 170000 + 10000 * u[0])  # about the last code
    else:
        pulse(10, 10 + int(10 * u[1]), 6000 + 5000 * u[0])
    return kind, current, 0.1 if kind == "filter" else 0.0


def sampled(current: torch.Tensor, detector: Detector, chips: int, seed: int) -> tuple[Counter, Counter]:
    """How often each outcome occurs: of ticks and codes, and of ticks alone."""
    both: Counter = Counter()
    for piece in range(0, chips, 100_000):
        rows = min(100_000, chips - piece)
        hits = frontend(current.expand(rows, -1).contiguous(), detector, seed=seed + piece)
        tick = torch.round(hits.time / detector.tick).long() - 1
        order = torch.argsort(hits.row * 1024 + tick)
        row, hit = hits.row[order], (tick * CODES + hits.adc.long() + 1)[order]
        first = torch.searchsorted(row, torch.arange(rows))
        place = torch.arange(len(row)) - first[row]  # among the hits of its row
        if len(row):
            assert int(place.max()) < MOST and int(tick.max()) < 126  # what 16 bits hold
        packed = torch.zeros(rows, dtype=torch.int64).index_add_(0, row, hit << (16 * place))
        for key, count in zip(*(x.tolist() for x in torch.unique(packed, return_counts=True)), strict=True):
            both[_unpack(key)] += count
    ticks: Counter = Counter()
    for outcome, count in both.items():
        ticks[tuple(k for k, _ in outcome)] += count
    return both, ticks


def _unpack(key: int) -> tuple[tuple[int, int], ...]:
    """The hits of a row, (tick, code), from 16 bits for each."""
    hits = [(key >> 16 * place & 0xFFFF) - 1 for place in range(MOST)]
    return tuple(divmod(hit, CODES) for hit in hits if hit >= 0)


def probabilities(current: torch.Tensor, outcomes: list, chip: Chip, tolerance: float = 1e-6) -> torch.Tensor:
    """P of each outcome, a tuple of (tick, code); code None: any."""
    code = torch.tensor([0.0 if c is None else float(c) for o in outcomes for _, c in o], dtype=torch.float64)
    any_code = torch.tensor([c is None for o in outcomes for _, c in o], dtype=torch.bool)
    edges, _, _ = chip.edges(code, code, torch.zeros(len(code), dtype=torch.int64))
    ends = torch.tensor([[-torch.inf], [torch.inf]], dtype=torch.float64)
    edges = torch.where(any_code, ends, edges)
    counts = torch.tensor([len(o) for o in outcomes], dtype=torch.int64)
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    ticks = torch.tensor([k for o in outcomes for k, _ in o], dtype=torch.int64)
    noise = torch.tensor([chip.reset_noise, chip.uncorrelated_noise, chip.discriminator_noise], dtype=torch.float64)
    log_p, _ = hit_likelihood(
        current.repeat(len(outcomes)),
        torch.arange(len(outcomes) + 1) * len(current),
        ticks,
        first,
        edges,
        torch.tensor(chip.threshold, dtype=torch.float64),
        noise,
        chip.clock,
        tolerance,
    )
    rows = torch.repeat_interleave(counts + 1)
    return torch.zeros(len(outcomes), dtype=torch.float64).index_add_(0, rows, log_p).exp()


def compare(number: int, chips: int) -> tuple[str, int, float, float, int]:
    """Kind, outcomes above 1e-3, largest deviation [sigma], chi2 of the ticks and its degrees of freedom."""
    kind, current, rise_time = waveform(number)
    detector = Detector.module0()
    detector = detector.replace(frontend=detector.frontend.replace(buffer_risetime=rise_time))
    chip = Chip.of(detector)
    both, ticks = sampled(current, detector, chips, seed=1_000_003 * (number + 1))
    # every outcome seen often enough that it may be above 1e-3 in truth
    seen = [o for o, n in both.items() if n > 0.5e-3 * chips]
    P = probabilities(current, seen, chip)
    n = torch.tensor([both[o] for o in seen], dtype=torch.float64)
    deviation = ((n - chips * P) / (chips * P * (1 - P)).sqrt())[P > 1e-3]
    likely = [o for o, n in ticks.items() if n > 1e-4 * chips]
    p = probabilities(current, [tuple((k, None) for k in o) for o in likely], chip)
    m = torch.tensor([ticks[o] for o in likely], dtype=torch.float64)
    rest_p, rest_m = 1 - float(p.sum()), chips - float(m.sum())
    chi2 = float(((m - chips * p) ** 2 / (chips * p)).sum())
    freedom = len(likely) - 1
    if rest_p * chips > 5:
        chi2, freedom = chi2 + (rest_m - chips * rest_p) ** 2 / (chips * rest_p), freedom + 1
    worst = float(deviation.abs().max()) if len(deviation) else 0.0
    return kind, len(deviation), worst, chi2, freedom


def main() -> None:
    chips = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    rows = []
    for i in range(number):
        rows.append(compare(i, chips))
        kind, outcomes, worst, chi2, freedom = rows[-1]
        print(f"{i:3} {kind:16} {outcomes:5} outcomes, {worst:5.2f} sigma, chi2 {chi2:7.1f} / {freedom}", flush=True)
    print(f"{'kind':16} {'waveforms':>9} {'outcomes':>8} {'largest':>8} {'chi2':>9} {'freedom':>7}")
    for kind in KINDS:
        mine = [r for r in rows if r[0] == kind]
        if mine:
            worst = max(r[2] for r in mine)
            sums = [sum(r[i] for r in mine) for i in (1, 3, 4)]
            print(f"{kind:16} {len(mine):9} {sums[0]:8} {worst:8.2f} {sums[1]:9.1f} {sums[2]:7}")
    outcomes, chi2, freedom = (sum(r[i] for r in rows) for i in (1, 3, 4))
    largest, pull = max(r[2] for r in rows), (chi2 - freedom) / math.sqrt(2 * max(freedom, 1))
    print(
        f"all: {outcomes} outcomes above 1e-3, largest {largest:.2f} sigma; chi2 {chi2:.1f} / {freedom} ({pull:+.2f} sigma)"
    )


if __name__ == "__main__":
    main()
