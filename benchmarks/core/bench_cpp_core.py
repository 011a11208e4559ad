"""The torch-free library's simulation of events against the operators' in Python, on the same events and one thread."""

import sys
from pathlib import Path

import torch
from hepops.core.libraries import DIRECTORY
from hepops.lartpc import Detector, Simulator, gun

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "tests" / "core")]

import capi  # noqa: E402
import harness  # noqa: E402


def compare(core: "capi.Core", events: int, seed: int | None) -> dict[str, dict[str, float]]:
    """Both times, printed with their ratio, once the hits are found to be the same."""
    detector = Detector.module0()
    segments, sim = gun.shoot(detector, events=events, seed=1), Simulator(detector)
    config, kept = capi.configure(core, sim)
    simulator = core.simulator(config)
    with torch.no_grad():
        expected, found = sim(segments, seed), core.simulate(simulator, segments, seed)
        assert torch.equal(found["ix"], expected.ix)
        torch.testing.assert_close(found["charge"], expected.charge.double(), rtol=1e-5, atol=1e-3)
        times = harness.seconds(
            {
                "operators": lambda: sim(segments, seed),
                "core": lambda: core.simulate(simulator, segments, seed, columns=False),
            },
            repeats=15,
        )
    del kept
    what = f"{events} events, {len(expected)} hits, {'noise-free' if seed is None else 'with noise'}"
    mine, theirs = times["core"] * 1e3, times["operators"] * 1e3
    print(f"{what:36} core {mine:8.2f} ms, operators {theirs:8.2f} ms, ratio {mine / theirs:.2f}")
    return {
        f"core, {what}": {"seconds": times["core"], "threads": 1},
        f"operators in Python, {what}": {"seconds": times["operators"], "threads": 1},
    }


def main() -> None:
    torch.set_num_threads(1)
    core = capi.Core(DIRECTORY / "libhepops_core.so")
    for events, seed in ((1, None), (10, None), (10, 1)):
        harness.record(compare(core, events, seed))


if __name__ == "__main__":
    main()
