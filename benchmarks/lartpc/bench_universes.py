"""100 universes of one event in one call: against one run, and against a loop of own runs; one thread.

Values are checked first: every twentieth universe against its own run. Single run, call and loop take turns, five
single runs a turn; the loop is timed over two universes, the response made anew for each where the field varies, as it
must be. Processor time, medians of three turns after three that warm up. Foreign files lie in ../shared beside the
checkout; without them muons of our own gun stand in.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record, seconds, shared
from hepops.lartpc import Detector, Parameters, Simulator, gun, read_segments
from hepops.lartpc.universes import alone, values_of

FILES = shared("data/lartpc/edepsim")
N, BAR = 100, 8.0
RUNS, LOOPED = 5, 2  # of one run, and of the loop, in a turn
SPREAD = {"lifetime": 440.0, "birks_a": 0.01, "birks_k": 0.0015}
SPREAD |= {"transverse_diffusion": 9e-7, "longitudinal_diffusion": 8e-7, "efield": 0.01}
VARIED = {
    "lifetime, A_b, k_b": list(SPREAD)[:3],
    "all six": list(SPREAD),
}
ERROR = {torch.float32: 5e-6, torch.float64: 5e-12}  # of a charge, tests/lartpc/test_universes.py has the reasons

torch.set_num_threads(1)
detector = Detector.module0()
muons = read_segments(FILES / "muons_1.h5") if FILES else gun.shoot(detector, events=16, energy=300.0, seed=1)
length = [float((muons.end - muons.start).norm(dim=1)[muons.event == e].sum()) for e in muons.events]
order = sorted(range(len(length)), key=lambda k: length[k])
EVENTS = {
    "median event": muons.select([int(muons.events[order[len(order) // 2]])]),
    "longest event": muons.select([int(muons.events[order[-1]])]),
    "16 events": muons,
}
generator = torch.Generator().manual_seed(1)
z = 2 * torch.rand(len(SPREAD), N, generator=generator, dtype=torch.float64) - 1
nominal = Parameters()
rows = {}
for dtype in (torch.float32, torch.float64):
    sim = Simulator(detector, dtype=dtype)
    for event, segments in EVENTS.items():
        for what, names in VARIED.items():
            sets = {n: getattr(nominal, n) + SPREAD[n] * z[list(SPREAD).index(n)] for n in names}
            values = values_of(sim, sets)
            result = sim.universes(sets, segments)
            with torch.no_grad():
                for i in range(0, N, 20):
                    own = alone(sim, values[i])(segments)
                    assert len(own) == len(result[i])
                    torch.testing.assert_close(result[i].charge, own.charge, rtol=ERROR[dtype], atol=0)

            def one(segments=segments, sim=sim):
                with torch.no_grad():
                    return [sim(segments) for _ in range(RUNS)]

            def call(segments=segments, sim=sim, sets=sets):
                return sim.universes(sets, segments)

            def loop(segments=segments, sim=sim, values=values):
                with torch.no_grad():
                    return [alone(sim, p)(segments) for p in values[:LOOPED]]

            times = seconds({"one": one, "call": call, "loop": loop}, 3)
            times["one"] /= RUNS
            ratio, gain = times["call"] / times["one"], times["loop"] * N / LOOPED / times["call"]
            name = f"{event}, {str(dtype)[6:]}, {what}"
            print(
                f"{name:45} one {times['one'] * 1e3:7.1f} ms   {N} {times['call'] * 1e3:7.0f} ms   "
                f"{ratio:5.1f} x one (bar {BAR:.0f})   the loop takes {gain:4.1f} x as long",
                flush=True,
            )
            more = {"one_run": times["one"], "times_one_run": ratio, "threads": 1}
            rows[name] = {"seconds": times["call"], "bar": BAR * times["one"], **more}
            rows[f"loop, {name}"] = {"seconds": times["loop"] * N / LOOPED, "threads": 1}
record(rows)
