"""From segments to hits, one core, float32, 5 x 5 pixels, 150 ticks: time and memory, and what two threads bring.

The rival's figures are quoted, not measured here: larnd-sim-jax in its table mode, one CPU core, the same muons in 2085
steps of 0.1 cm (43 s and more of compilation not counted). Foreign files lie in ../shared beside the checkout; without
them muons of our own gun stand in, and the mixed sample is left out.
"""

import resource
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record, seconds, shared
from hepops.lartpc import Detector, Parameters, Simulator, gun, read_segments

FILES = shared("data/lartpc/edepsim")
QUOTED = {"hits": 4.5, "hits, six tangents": 7.4, "hits, reverse mode": 17.0}  # [s] larnd-sim-jax
BAR = {"hits": 0.06, "hits, six tangents": 0.15, "hits, reverse mode": 0.15}  # [s]
QUOTED_MEMORY = 5.8  # [GB]

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
detector = Detector.module0()


def peak() -> float:
    """Largest resident memory so far [GB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


name = "muons_1.h5" if FILES else "muons of our gun"
segments = (read_segments(FILES / "muons_1.h5") if FILES else gun.shoot(detector, events=16, energy=300.0, seed=1)).to(
    device
)
sim = Simulator(detector).to(device)


def plain():
    with torch.no_grad():
        return sim(segments)


def tangents():
    with torch.no_grad():
        return sim(segments, tangents=Parameters.SIX)


def reverse():
    hits = sim(segments)
    return torch.autograd.grad(hits.charge.sum() + hits.time.sum(), list(sim.parameters())[:6])


imported = peak()
hits = plain()
first = peak() - imported
assert torch.equal(tangents().charge, hits.charge)
assert all(torch.isfinite(slope) for slope in reverse())
times = seconds({"hits": plain, "hits, six tangents": tangents, "hits, reverse mode": reverse}, 15)
memory = peak() - imported
rows = {}
print(f"{name}: {len(segments)} segments, {len(hits)} hits, float32, step 0.1 cm, one thread")
for what, t in times.items():
    quoted = f"larnd-sim-jax {QUOTED[what]:5.1f} s (quoted), {QUOTED[what] / t:5.0f} times" if FILES else ""
    print(f"  {what:22} {t:7.3f} s   bar {BAR[what]:.2f} s   {quoted}")
    rows[what] = {"seconds": t, "bar": BAR[what], "quoted_larnd_sim_jax": QUOTED[what]}
print(
    f"  memory above import    {memory:7.2f} GB  (hits alone {first:.2f})   larnd-sim-jax {QUOTED_MEMORY} GB (quoted)"
)
rows["memory"] = {"GB_above_import": memory, "hits_alone": first, "quoted_larnd_sim_jax": QUOTED_MEMORY}

if FILES and "--quick" not in sys.argv:
    mixed = read_segments(FILES / "mixed_sample.h5", offset=(0, 21.8236, 0)).to(device)
    with torch.no_grad():
        sim(mixed.select(slice(0, 2)))
        runs = {}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            wall, whole, main = time.perf_counter(), time.process_time(), time.thread_time()
            found = len(sim(mixed))
            runs[threads] = [time.perf_counter() - wall, time.process_time() - whole, time.thread_time() - main]
            wall, whole, main = runs[threads]
            print(
                f"mixed sample, {threads} threads: {wall:.2f} s by the wall, {whole:.2f} s of processor, {found} hits"
            )
    # By the wall only where nobody else wants the cores; the main thread's own time is the critical path: it waits
    # for the others without spinning (OMP_WAIT_POLICY=passive).
    print(f"  two threads: {runs[1][0] / runs[2][0]:.2f} times as fast by the wall, {runs[1][2] / runs[2][2]:.2f} by")
    print(f"  the main thread's processor time; peak memory of the process {peak():.2f} GB")
    rows["mixed sample"] = {
        "seconds": runs[1][0],
        "processor_seconds": runs[1][1],
        "speedup_two_threads_wall": runs[1][0] / runs[2][0],
        "speedup_two_threads_main_thread": runs[1][2] / runs[2][2],
        "GB_of_process": peak(),
    }
record(rows)
