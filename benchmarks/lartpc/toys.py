"""Toys of the calibration: pulls of the likelihood, expected errors, full fits, and the biases of what the field does.

Sample: muons_0..3 and the protons (pdg 2212) of events 0-19 of mixed_sample, measured again and again by module0's
noisy, clocked chips. Six parameters and a common time offset. Parts, each resumed where it was stopped:

    steps    toys by one scoring step from the truth. The information is the expected one, the mean over the toys of
             the outer products of their scores, the same for all: those of one toy correlate with its scores.
             Waveforms and tangents at the truth are the same for all toys, and made once.
    fits     whole fits from far starts, a Latin hypercube across the published ranges.
    matched  least squares on hits matched by rank, from the truth.
    mmd      Adam on the maximum mean discrepancy, from the truth, muons alone.

    python benchmarks/lartpc/toys.py steps --toys 200 --out toys.json
    python benchmarks/lartpc/toys.py report --out toys.json --plot pulls.png

Waveforms in float32 (their rounding is 1e-7 of a current; probabilities and scores are float64); histories of a chip
less probable than 1e-5 are left out, which moved no parameter of muons_0 by 1e-4 of its error.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "tests")]

import torch
from conftest import shared
from hepops.core.files import atomic
from hepops.lartpc import Detector, Parameters, Segments, Simulator, fit, frontend, read_segments
from hepops.lartpc.fit import Coverage, FitResult, HitLoss, MatchedHits, Noise
from hepops.lartpc.fit.space import space
from hepops.lartpc.likelihood import HitLikelihood

SIX = Parameters.SIX
NAMES = (*SIX, "time_offset")
TRUTH = torch.tensor([*(getattr(Parameters(), name) for name in SIX), 0.0], dtype=torch.float64)
BARS = {"lifetime": 2.5, "efield": 0.01, "birks_a": 0.2, "birks_k": 0.4, "transverse_diffusion": 1.2,
        "longitudinal_diffusion": 7.0}  # fmt: skip
TOLERANCE = 1e-5
PRIOR = 0.4e-6  # of the longitudinal diffusion, muons alone: 10 %
# Ranges so wide that the bias of a loss is seen, and not the end of the published range
WIDE = {"lifetime": (500.0, 20000.0), "transverse_diffusion": (1e-6, 50e-6), "longitudinal_diffusion": (0.1e-6, 50e-6)}


def samples() -> dict[str, Segments]:
    """Muons and protons, with event ids of their own."""
    files = [shared(f"data/lartpc/edepsim/muons_{i}.h5") for i in range(4)]
    muons = read_segments(files, same_event="renumber")
    mixed = read_segments(shared("data/lartpc/edepsim/mixed_sample.h5"), offset=(0.0, 21.8236, 0.0))
    mixed = mixed.select(slice(0, 20))
    protons = mixed[mixed.pdg == 2212]
    first = int(muons.event.max()) + 1
    _, number = torch.unique(protons.event, return_inverse=True)
    columns = {**protons.columns(), "event": first + number}
    return {"muons": muons, "protons": Segments(**columns)}


def simulator() -> Simulator:
    return Simulator(Detector.module0(), dtype=torch.float32)


class Record:
    """What was done, in one JSON file, whole after every toy."""

    def __init__(self, path: Path):
        self.path = path
        self.content = json.loads(path.read_text()) if path.exists() else {}

    def done(self, part: str) -> dict:
        return self.content.setdefault(part, {})

    def add(self, part: str, toy: int, row: dict) -> None:
        self.done(part)[str(toy)] = row
        with atomic(self.path) as path:
            path.write_text(json.dumps(self.content))


def steps(record: Record, toys: range) -> None:
    """Score and outer products of each toy at the truth, muons and protons apart."""
    sim, likelihood, waves = simulator(), HitLikelihood(tolerance=TOLERANCE), {}
    for name, segments in samples().items():
        with torch.no_grad():
            waves[name] = sim.waveforms(segments, tangents=NAMES)
    for toy in toys:
        if str(toy) in record.done("steps"):
            continue
        begin, row = time.process_time(), {}
        for name, wave in waves.items():
            hits = frontend(wave, sim.detector, seed=1000 + toy)
            found = likelihood.of_waveforms(wave, sim.detector, hits, NAMES)
            g = found.scores
            row[name] = {"score": g.sum(0).tolist(), "information": (g.T @ g).tolist(), "hits": len(hits),
                         "neglected": float(found.neglected.sum())}  # fmt: skip
        row["seconds"] = time.process_time() - begin
        record.add("steps", toy, row)
        print(f"toy {toy}: {row['seconds']:.1f} s", flush=True)


def measured(sim: Simulator, toy: int, names: tuple[str, ...]) -> tuple[Segments, object]:
    whole = Segments.cat([samples()[name] for name in names])
    with torch.no_grad():
        return whole, sim(whole, seed=5000 + toy)


def fits(record: Record, toys: range) -> None:
    """Whole fits from far starts: pulls with the errors that each states."""
    starts = space(SIX).draw(10, seed=7)
    for toy in toys:
        if str(toy) in record.done("fits"):
            continue
        sim = simulator()
        segments, hits = measured(sim, toy, ("muons", "protons"))
        start = dict(zip(SIX, starts[toy % 10].tolist(), strict=True))
        begin = time.process_time()
        result = fit(sim, segments, hits, NAMES, residual=HitLikelihood(), start=start)
        pulls = ((result.values - TRUTH) / result.errors).tolist()
        row = {"pulls": pulls, "values": result.values.tolist(), "errors": result.errors.tolist(), "start": start,
               "converged": result.converged, "message": result.message, "iterations": result.iterations,
               "seconds": time.process_time() - begin}  # fmt: skip
        record.add("fits", toy, row)
        print(f"fit {toy}: {result.outcome}, pulls {[round(p, 2) for p in pulls]}, {row['seconds']:.0f} s", flush=True)


def matched(record: Record, toys: range) -> None:
    """Least squares on hits matched by rank, from the truth."""
    sim = simulator()
    for toy in toys:
        if str(toy) in record.done("matched"):
            continue
        segments, hits = measured(sim, toy, ("muons", "protons"))
        residual = MatchedHits(Noise.of(sim.detector))
        begin = time.process_time()
        result = fit(sim, segments, hits, NAMES, residual=residual, bounds=WIDE, tolerance=1e-4, max_iterations=25)
        _field(record, "matched", toy, result, begin)


def mmd(record: Record, toys: range) -> None:
    """Adam on the MMD of charge distributions; the six, muons alone."""
    sim = simulator()
    for toy in toys:
        if str(toy) in record.done("mmd"):
            continue
        segments, hits = measured(sim, toy, ("muons",))
        loss = HitLoss("mmd_charge", charge_weight=10.0)
        begin = time.process_time()
        options = {"bounds": WIDE, "method": "adam", "max_iterations": 60, "learning_rate": 0.05}
        result = fit(sim, segments, hits, NAMES, residual=loss, **options)
        _field(record, "mmd", toy, result, begin)


def _field(record: Record, part: str, toy: int, result: FitResult, begin: float) -> None:
    row = {"values": result.values.tolist(), "converged": result.converged, "at_limit": list(result.at_limit),
           "seconds": time.process_time() - begin}  # fmt: skip
    record.add(part, toy, row)
    off = [round(100 * x, 3) for x in (result.values / TRUTH - 1)[:6].tolist()]
    print(f"{part} {toy}: {result.outcome}, {off} %, at an end: {row['at_limit']}, {row['seconds']:.0f} s", flush=True)


def stepped(rows: list[dict], kinds: tuple[str, ...], prior: float | None) -> Coverage:
    """Pulls of a scoring step with the mean information of all toys."""
    score = sum(torch.tensor([r[k]["score"] for r in rows], dtype=torch.float64) for k in kinds)
    information = sum(torch.tensor([r[k]["information"] for r in rows], dtype=torch.float64).mean(0) for k in kinds)
    if prior is not None:  # an outer measurement, which each toy has its own of
        at = NAMES.index("longitudinal_diffusion")
        drawn = torch.randn(len(rows), generator=torch.Generator().manual_seed(99), dtype=torch.float64)
        score[:, at] += drawn / prior
        information[at, at] += prior**-2
    size = information.diagonal().rsqrt()
    covariance = torch.linalg.inv(information * size * size[:, None]) * size * size[:, None]
    errors = covariance.diagonal().sqrt()
    return Coverage(
        NAMES, TRUTH, errors, score @ covariance / errors, torch.ones(len(rows), dtype=torch.bool), "a step"
    )


def table(title: str, c: Coverage, plot: Path | None, bars: dict[str, float]) -> None:
    """Expected errors and pulls, beside the bars."""
    n = len(c.pulls)
    print(
        f"\n{title}: {n} toys by one scoring step, a mean is known to {n**-0.5:.3f}, a width to {(2 * n) ** -0.5:.3f}"
    )
    for k, name in enumerate(NAMES):
        error, mean, width = float(c.errors[k]), float(c.means[k]), float(c.widths[k])
        relative = f"{100 * error / float(TRUTH[k]):8.4f} %" if TRUTH[k] else f"{error:.2g} us"
        bar = f"<= {bars[name]}" if name in bars else ""
        verdict = "ok" if abs(mean) < 0.25 and abs(width - 1) < 0.18 else "OUTSIDE"
        print(f"  {name:24} error {relative:>12} {bar:8} mean {mean:6.3f} width {width:6.3f}  {verdict}")
    if plot is not None:
        c.plot().savefig(plot, dpi=80)


def report(record: Record, plot: Path | None) -> None:
    """Tables, and whether the bars are met."""
    rows = list(record.done("steps").values())
    if len(rows) > 2:
        table("muons and protons", stepped(rows, ("muons", "protons"), None), plot, BARS)
        table("muons, with a prior of 10 % on D_L", stepped(rows, ("muons",), PRIOR), None, {})
        seconds = sum(row["seconds"] for row in rows) / len(rows)
        neglected = max(row[k]["neglected"] for row in rows for k in ("muons", "protons"))
        print(f"  {seconds:.1f} s of processor time per toy; neglected, summed over all intervals: {neglected:.2g}")
    for number, row in record.done("fits").items():
        print(f"fit {number}: converged {row['converged']} in {row['iterations']}, worst pull "
              f"{max(abs(p) for p in row['pulls']):.2f}")  # fmt: skip
    errors = stepped(rows, ("muons", "protons"), None).errors if len(rows) > 2 else None
    alone = stepped(rows, ("muons",), None).errors if len(rows) > 2 else None
    for part, sigma in (("matched", errors), ("mmd", alone)):
        if record.done(part) and sigma is not None:
            biases(part, list(record.done(part).values()), sigma)


def biases(part: str, rows: list[dict], sigma: torch.Tensor) -> None:
    """Mean shifts of a loss from the truth, in percent and in units of the likelihood's errors."""
    n, off = len(rows), torch.tensor([row["values"] for row in rows], dtype=torch.float64) - TRUTH
    print(f"\n{part}: mean shift of {n} toys, {sum(row['converged'] for row in rows)} converged, "
          f"{sum(bool(row['at_limit']) for row in rows)} at the end of a range")  # fmt: skip
    for k, name in enumerate(NAMES):
        mean, spread = float(off[:, k].mean()), float(off[:, k].std()) / n**0.5 if n > 1 else float("nan")
        scale, unit = (100 / float(TRUTH[k]), "%") if TRUTH[k] else (1.0, "us")
        print(f"  {name:24} {mean * scale:9.3f} +- {spread * scale:.3f} {unit:2}  "
              f"{mean / float(sigma[k]):8.1f} +- {spread / float(sigma[k]):.1f} sigma")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("steps", "fits", "matched", "mmd", "report"))
    parser.add_argument("--toys", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("toys.json"))
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    record, toys = Record(given.out), range(given.first, given.first + given.toys)
    if given.part == "report":
        report(record, given.plot)
    else:
        {"steps": steps, "fits": fits, "matched": matched, "mmd": mmd}[given.part](record, toys)


if __name__ == "__main__":
    main()
