"""The figure of docs/field-maps.md: a space-charge map, the hits of straight tracks with and without it, a far pad.

python scripts/lartpc_field_maps.py docs/images/lartpc-field-maps.png
"""

import sys

import matplotlib.pyplot as plt
import torch
from hepops.lartpc import Detector, Hits, Segments, Simulator, Waveforms, space_charge_map, velocity

INK, BLUE, ORANGE = "#222222", "#0072B2", "#D55E00"
detector = Detector.module0()
tpc = detector.tpcs[0]
maps = [space_charge_map(t, alpha=1.3, bowing=(1.5, 0.8)) for t in detector.tpcs]  # strong, to be seen


def straight_tracks() -> Segments:
    """Two lines from cathode to anode, in one plane, near the wall and halfway to it."""
    y = torch.tensor([57.0, 45.0], dtype=torch.float64)
    start = torch.stack([torch.full_like(y, -0.4), y, torch.full_like(y, 5.0)], 1)
    end = torch.stack([torch.full_like(y, -30.2), y - 2, torch.full_like(y, 5.5)], 1)
    zero = torch.zeros(2, dtype=torch.int64)
    length = (end - start).norm(dim=1)
    return Segments(zero, start, end, 2.1 * length, torch.full_like(y, 2.1), torch.zeros_like(y), zero, zero)


def hits(field_map: object) -> Hits:
    with torch.no_grad():
        return Simulator(detector, field_map=field_map)(straight_tracks())  # type: ignore[arg-type]


def far_pad() -> tuple[Waveforms, Waveforms]:
    """A point of charge 20 cm from the anode, seen four pixels away and at the near field's edge."""
    at = torch.tensor([[-30.431 + 20.0, 0.05, 0.03]], dtype=torch.float64)
    zero, one = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.float64)
    point = Segments(zero, at, at.clone(), 2 * one, 2.1 * one, 0 * one, zero, zero)
    with torch.no_grad():
        near, both = (Simulator(detector, far_field=f, dtype=torch.float64).waveforms(point) for f in (0, 6))
    return near, both


def main(path: str) -> None:
    plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")

    x = torch.linspace(tpc.anode, tpc.cathode, 61, dtype=torch.float64)
    y = torch.linspace(*tpc.y, 81, dtype=torch.float64)
    points = torch.stack([*torch.meshgrid(x, y, torch.zeros(1, dtype=torch.float64), indexing="ij")], -1).reshape(-1, 3)
    shift = maps[0].at(points).displacement.reshape(61, 81, 3)
    image = left.contourf(x, y, shift[..., 0].T, levels=16, cmap="viridis")
    figure.colorbar(image, ax=left, label="apparent - true x [cm]")
    some = (slice(6, None, 10), slice(4, None, 9))
    left.quiver(
        *torch.meshgrid(x[some[0]], y[some[1]], indexing="ij"), 0 * shift[some][..., 1], shift[some][..., 1],
        color="white", edgecolor=INK, linewidth=0.5, angles="xy", scale_units="xy", scale=0.1, width=0.007,
    )  # fmt: skip
    left.set(xlabel="x [cm] (anode left)", ylabel="y [cm]", title="displacement; arrows: along y, 10 times")

    v = velocity(0.5)
    for name, some_hits, colour, size in (
        ("uniform field", hits(None), INK, 5),
        ("space charge", hits(maps), ORANGE, 5),
    ):
        apparent = tpc.anode + v * some_hits.time
        middle.scatter(apparent, some_hits.y, s=size, color=colour, label=name, linewidths=0)
    middle.set(
        xlabel="x by drift time [cm]", ylabel="y of the pixel [cm]", title="hits of two straight tracks", ylim=(40, 60)
    )
    middle.legend(loc="upper center", ncols=2, frameon=False, markerscale=2, bbox_to_anchor=(0.5, -0.2))

    near, both = far_pad()
    charge = both.reports["electrons_arriving"] / 1000
    under = both.ix[near.charge.argmax()] if len(near) == len(both) else near.ix[near.charge.argmax()]
    iy = near.iy[near.charge.argmax()]
    for distance, colour in ((3, BLUE), (4, ORANGE), (6, INK)):
        row = int(torch.nonzero((both.ix == under + distance) & (both.iy == iy))[0])
        current = both.values[both.offsets[row] : both.offsets[row + 1]]
        time = (both.first_tick[row] + torch.arange(len(current))) * both.tick
        right.plot(time, current, color=colour, lw=1, label=f"{distance} pixels away")
    right.axhline(0, color="#BBBBBB", lw=0.5, zorder=0)
    right.set(
        xlabel="time [µs]", ylabel="current [e/µs]", title=f"far field of {charge:.0f} 000 electrons", xlim=(85, 130)
    )
    right.legend(frameon=False)
    figure.savefig(path, dpi=95)


main(sys.argv[1])
