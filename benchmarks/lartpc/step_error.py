"""What the step of the quadrature along a track costs in accuracy: docs/lartpc.md#quadrature holds the table.

    python benchmarks/lartpc/step_error.py [tracks.h5]

Without a file, four muons of the gun. Everything in float64, against steps of 1/160 cm.
"""

import sys

import torch
from hepops.lartpc import Detector, Segments, Simulator, gun, read_segments

STEPS, REFERENCE = (0.4, 0.2, 0.1, 0.05, 0.025), 1 / 160


def simulate(segments: Segments, step: float):
    sim = Simulator(Detector.module0(), dtype=torch.float64, step=step)
    with torch.no_grad():
        return sim.waveforms(segments), sim(segments)


def keys(rows) -> torch.Tensor:
    columns = [rows.event, rows.tpc, rows.iy, rows.ix]
    return ((columns[0] * 16 + columns[1]) * 4096 + columns[2]) * 4096 + columns[3]


def main() -> None:
    if len(sys.argv) > 1:
        segments = read_segments(sys.argv[1])
    else:
        segments = gun.shoot(Detector.module0(), 4, "muon", directions="cosmic", seed=1)
    reference, hits = simulate(segments, REFERENCE)
    pixel, current = keys(reference), reference.dense(4000)
    large = reference.charge > 5000
    print(f"{len(segments)} segments, {int(large.sum())} pixels above 5000 e, {len(hits)} hits")
    print(
        "| step [cm] | charge of a pixel, rms | current, rms of its peak | hits "
        "| time of a hit, rms [ns] | charge of a hit, rms [e] |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for step in STEPS:
        waves, ours = simulate(segments, step)
        where = torch.searchsorted(keys(waves), pixel[large])
        assert torch.equal(keys(waves)[where], pixel[large])
        charge = (waves.charge[where] / reference.charge[large] - 1).square().mean().sqrt()
        peak = current[large].amax(1, keepdim=True)
        shape = (
            ((waves.dense(4000)[where] - current[large]) / peak).square()[current[large] > 0.01 * peak].mean().sqrt()
        )
        a, b = keys(hits) * 64 + hits.rank, keys(ours) * 64 + ours.rank
        i, j = torch.isin(a, b), torch.isin(b, a)
        same = a[i].argsort(), b[j].argsort()
        time = (ours.time[j][same[1]] - hits.time[i][same[0]]).square().mean().sqrt() * 1000
        read = (ours.charge[j][same[1]] - hits.charge[i][same[0]]).square().mean().sqrt()
        print(f"| {step} | {100 * charge:.2g} % | {100 * shape:.2g} % | {len(ours)} | {time:.2g} | {read:.2g} |")


main()
