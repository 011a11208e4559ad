"""Tracks whose dE/dx is not given: are the errors honest? docs/calorimetry.md has the table.

    python benchmarks/lartpc/latent_dedx.py [toys] [first seed] [sample] [toys without fluctuations]

Each toy shoots stopping muons and protons ("stopping"), or through-going muons without the electrons above 1 MeV that
they knock on ("through"), with straggling, lets pixels measure their charges with noise, throws dE and dE/dx away, and
fits, with the losses integrated out and (the first 20 toys) without fluctuations: A_b, k_b and the lifetime with one
unknown end per stopping track; A_b and the lifetime with an unknown energy per through-going track. What is known
beforehand is measured anew in every toy: the lifetime within 20 or 10 %, ends within 0.2 cm, energies within a factor.
(A prior that always has the truth as its mean makes pulls narrower than 1.) It prints a row per toy, then the mean and
the width of the pulls, and the time.
"""

import sys
import time

import torch
from hepops.lartpc import TPC, Detector, Parameters, Segments, Simulator, gun
from hepops.lartpc.calorimetry import PixelCharges, StoppingTrack, ThroughTrack, Tracks, fit_charges

NOISE = 500.0  # of a pixel's charge [e]
TRUTH = Parameters(lifetime=1500.0)
STEP = 0.4  # of segments and of the simulation [cm]
CUT = 1.0  # of through-going muons: electrons above are tracks of their own [MeV]
LEAST = 8  # segments of a track that is used
KNOWN = {"stopping": 0.2, "through": 0.1}  # of the lifetime, how well it is known beforehand
THROUGH = 12  # through-going muons in a toy


def detector() -> Detector:
    """One TPC of 40 cm, so that no track crosses a gap."""
    plane = TPC(anode=-20.0, cathode=20.0, y=(-20.0, 20.0), z=(-20.0, 20.0), ny=90, nx=90)
    return Detector(name="box", tpcs=(plane,), pixel_pitch=4 / 9)


def simulator() -> Simulator:
    return Simulator(detector(), TRUTH, dtype=torch.float64, step=STEP, reach=1, length=40)


def sample(kind: str, seed: int, muons: int = 3, protons: int = 3) -> tuple[Segments, Tracks]:
    """The truth, and what the fit is told: points, particles, and ends within 0.3 cm or energies within a factor."""
    generator = torch.Generator().manual_seed(seed)
    parts, tracks = [], []
    wanted = [("muon", THROUGH, {"energy": 2000.0, "deltas": CUT})] if kind == "through" else []
    wanted = wanted or [("muon", muons, {"topology": "stopping"}), ("proton", protons, {"topology": "stopping"})]
    event = 0
    for particle, count, options in wanted:
        found = 0
        while found < count:
            shot = gun.shoot(
                detector(), 1, particle, step=STEP, straggling=True, seed=seed, first_event=event, **options
            )
            event += 1
            shot = shot[shot.track == 0]  # electrons above the cut are taken as found and removed
            inside = bool((shot.end[-1].abs() < 19.0).all())
            if len(shot) < LEAST or (kind == "stopping") != inside:
                continue
            found += 1
            parts.append(shot)
            if kind == "through":
                left = 2000.0 - float(shot.dE.sum())
                energy = left * float(torch.exp(0.5 * torch.randn(1, generator=generator)))
                tracks.append(ThroughTrack.from_segments(shot, particle=particle, energy=min(energy, 7000.0)))
            else:
                off = 0.2 * float(torch.randn(1, generator=generator))
                tracks.append(StoppingTrack.from_segments(shot, particle=particle, offset=off, sigma=0.2))
    return Segments.cat(parts), Tracks(tracks, cut=CUT if kind == "through" else None)


def toy(kind: str, seed: int, bare: bool) -> tuple[list[str], dict[str, tuple[torch.Tensor, torch.Tensor]], str]:
    """Values and errors of the fits of one toy."""
    sim = simulator()
    truth, tracks = sample(kind, seed)
    data = PixelCharges.measure(sim, truth, NOISE, seed)
    names = ["birks_a", "birks_k", "lifetime"] if kind == "stopping" else ["birks_a", "lifetime"]
    width = KNOWN[kind] * TRUTH.lifetime
    centre = TRUTH.lifetime + width * float(torch.randn(1, generator=torch.Generator().manual_seed(seed + 2**31)))
    prior = {"lifetime": (centre, width)}
    full = fit_charges(sim, tracks, data, names, priors=prior)
    inner = (tracks.layout.to_end > 1) & (truth.dE > 0)
    pulls = ((full.losses - truth.dE) / full.loss_errors)[inner]
    text = f"chi2 {full.chi2 / full.pixels:.2f}, losses {float(pulls.mean()):.2f} +- {float(pulls.std()):.2f}"
    text += f", steps {full.iterations}{'' if full.converged else '!'}"
    fits = {"losses integrated out": (full.values, full.errors)}
    if bare:
        other = fit_charges(sim, tracks, data, names, priors=prior, straggling=False)
        text += f" {other.iterations}{'' if other.converged else '!'}"
        fits["straggling ignored"] = (other.values, other.errors)
    return names, fits, text


def main() -> None:
    torch.set_num_threads(1)
    toys = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    kind = sys.argv[3] if len(sys.argv) > 3 else "stopping"
    bare = int(sys.argv[4]) if len(sys.argv) > 4 else 20
    pulls: dict[str, list[torch.Tensor]] = {}
    sizes: dict[str, list[torch.Tensor]] = {}
    names: list[str] = []
    began = time.process_time()
    for seed in range(first, first + toys):
        names, fits, message = toy(kind, seed, seed < first + bare)
        true = torch.tensor([getattr(TRUTH, name) for name in names], dtype=torch.float64)
        for label, (values, errors) in fits.items():
            pulls.setdefault(label, []).append((values - true) / errors)
            sizes.setdefault(label, []).append(torch.stack((values / true - 1, errors / true)))
        row = "  ".join(f"{float(x):6.2f}" for label in fits for x in pulls[label][-1])
        print(f"toy {seed}: {row}  {message}", flush=True)
    print(f"{toys} toys of {kind}, {(time.process_time() - began) / toys:.1f} s each; {', '.join(names)}")
    for label, rows in pulls.items():
        p, s = torch.stack(rows), torch.stack(sizes[label])
        for k, name in enumerate(names):
            bias, error = 100 * float(s[:, 0, k].mean()), 100 * float(s[:, 1, k].median())
            print(
                f"| {label} | {name} | {float(p[:, k].mean()):.2f} | {float(p[:, k].std()):.2f} "
                f"| {bias:.2f} % | {error:.2f} % |"
            )


if __name__ == "__main__":
    main()
