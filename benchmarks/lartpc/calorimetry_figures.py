"""The pictures of docs/calorimetry.md.

python benchmarks/lartpc/latent_dedx.py 200 5000 > stopping.txt
python benchmarks/lartpc/latent_dedx.py 30 7000 through 0 > through.txt
python benchmarks/lartpc/calorimetry_figures.py docs/images stopping.txt through.txt
"""

import sys
from pathlib import Path

import torch
from hepops.lartpc import gun
from hepops.lartpc.calorimetry import PixelCharges, RangeTable, StoppingTrack, Tracks, fit_charges
from hepops.lartpc.plot import BLUE, GREY, ORANGE, _figure
from latent_dedx import NOISE, detector, simulator


def stopping(particle: str, event: int):
    """A track of the gun that ends inside."""
    while True:
        shot = gun.shoot(
            detector(), 1, particle, topology="stopping", step=0.4, straggling=True, seed=7, first_event=event
        )
        if len(shot) >= 25 and bool((shot.end[-1].abs() < 19).all()):
            return shot
        event += 1


def bragg(folder: Path) -> None:
    figure = _figure(6.4, 4.2)
    axes = figure.add_subplot()
    for particle, colour in (("proton", ORANGE), ("muon", BLUE)):
        for event in range(0, 240, 40):
            track = StoppingTrack.from_segments(shot := stopping(particle, event), particle=particle)
            axes.plot(track.to_end + track.length / 2, shot.dEdx, ".", color=colour, ms=2.5, alpha=0.5)
        R = torch.logspace(-2, 1.55, 300, dtype=torch.float64)
        table = RangeTable(particle)
        axes.plot(R, table.dedx(R), color=colour, lw=1.8, label=f"{particle}, mean")
        far = R[R > 0.4]
        axes.plot(far, table.most_probable(far, 0.4), "--", color="k", lw=0.9)
    axes.plot([], [], "--", color="k", lw=0.9, label="most probable over 0.4 cm")
    axes.plot([], [], ".", color=GREY, label="segments of the gun")
    axes.set(xscale="log", yscale="log", xlabel="residual range [cm]", ylabel="dE/dx [MeV/cm]", xlim=(0.01, 35))
    axes.set_ylim(1.4, 200)
    axes.legend(frameon=False)
    figure.savefig(folder / "lartpc-residual-range.png")


def latent(folder: Path) -> None:
    shots = [stopping("proton", 0), stopping("muon", 500)]
    tracks = Tracks(
        [StoppingTrack.from_segments(s, particle=p, sigma=0.2) for s, p in zip(shots, ("proton", "muon"), strict=True)]
    )
    sim = simulator()
    truth = type(shots[0]).cat(shots)
    result = fit_charges(sim, tracks, PixelCharges.measure(sim, truth, NOISE, 1), ["birks_a"])
    figure = _figure(9.0, 3.8)
    for k, (shot, name) in enumerate(zip(shots, ("proton", "muon"), strict=True)):
        axes = figure.add_subplot(1, 2, 1 + k)
        ours = tracks.layout.event == int(shot.event[0])
        R = tracks.layout.to_end[ours] + tracks.layout.length[ours] / 2
        axes.step(R, shot.dEdx, where="mid", color=GREY, lw=1.0, label="true")
        length, colour = tracks.layout.length[ours], ORANGE if k == 0 else BLUE
        found, error = result.losses[ours] / length, result.loss_errors[ours] / length
        axes.errorbar(R, found, error, fmt=".", color=colour, ms=5, lw=0.8, label="mean given the data")
        mean = tracks.segments().dEdx[ours]
        axes.plot(R, mean, "--", color="k", lw=0.9, label="mean at this range")
        axes.set(xlabel="residual range [cm]", ylabel="dE/dx [MeV/cm]", title=name)
        axes.set(xlim=(0.8, float(R.max()) + 0.5), ylim=(0, float(shot.dEdx[R > 0.8].max()) * 1.1))
        axes.legend(frameon=False)
    figure.savefig(folder / "lartpc-latent-dedx.png")


def pulls(folder: Path, stopping_toys: Path, through_toys: Path) -> None:
    """Of the rows that `latent_dedx.py` printed: losses integrated out and, of the first toys, without fluctuations."""
    figure = _figure(11.0, 2.8)
    panels = [(stopping_toys, 3, k, f"{name}, stopping") for k, name in enumerate(("$A_b$", "$k_b$", "lifetime"))]
    panels += [(through_toys, 2, k, f"{name}, through-going") for k, name in enumerate(("$A_b$", "lifetime"))]
    for place, (toys, count, k, label) in enumerate(panels):
        rows = [line.split(":")[1].split("chi2")[0].split() for line in toys.read_text().splitlines() if "chi2" in line]
        full = torch.tensor([float(row[k]) for row in rows])
        bare = torch.tensor([float(row[count + k]) for row in rows if len(row) == 2 * count]).clamp(-4.99, 4.99)
        axes = figure.add_subplot(1, 5, 1 + place)
        each = {"bins": torch.linspace(-5, 5, 21 if len(full) > 100 else 11).tolist(), "density": True}
        if len(bare):
            axes.hist(bare, histtype="step", color=GREY, label="straggling ignored", **each)
        axes.hist(full, color=BLUE, alpha=0.8, label="integrated out", **each)
        x = torch.linspace(-5, 5, 200)
        axes.plot(x, torch.exp(-(x**2) / 2) / (2 * torch.pi) ** 0.5, color=ORANGE, lw=1.4)
        axes.set(xlabel="pull", xlim=(-5, 5), ylim=(0, 0.8), yticks=[])
        axes.set_title(label, fontsize=10)
        if place == 0:
            axes.legend(frameon=False, fontsize=8, loc="upper center")
    figure.savefig(folder / "lartpc-calorimetry-pulls.png")


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    bragg(folder)
    latent(folder)
    if len(sys.argv) > 3:
        pulls(folder, Path(sys.argv[2]), Path(sys.argv[3]))


if __name__ == "__main__":
    main()
