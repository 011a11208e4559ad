"""One whole fit of unknown losses from the noisy hits of a self-triggered chip. docs/calorimetry.md says what is shown.

    python benchmarks/lartpc/latent_hits.py [samples] [first seed] [draws]

Each sample is two stopping muons and two stopping protons of the gun in module0, with straggling; its chips make hits,
with all their noise; dE and dE/dx are thrown away. A_b, k_b, the residual range of every track (known within 0.2 cm),
the lifetime (measured beforehand, within 20 %) and the loss of every segment are unknown. The last centimetre of a
track is taken out of truth and fit alike: the energy has a singular slope where a particle ends, and with ends inside
the sampler's step fell to 0.015 of a width, from 0.3. The density is the exact likelihood of the
hits (`HitObjective`), its gradient one backward pass through the simulator; the No-U-Turn sampler draws from it, begun
6 % and 10 % away from the truth in A_b and k_b. Values and errors are the mean and the standard deviation of the draws.
"""

import sys
import time

import torch
from hepops.lartpc import Detector, Parameters, Segments, Simulator, gun
from hepops.lartpc.calorimetry import HitObjective, LatentPosterior, StoppingTrack, Tracks

NAMES = ("birks_a", "birks_k", "lifetime")
START = Parameters(birks_a=0.85, birks_k=0.0535)
KNOWN = 0.2  # of the lifetime
STEP = 0.4  # of segments and of the simulation [cm]
SEGMENTS = (8, 16)  # of a track that is used
MARGIN = 1.0  # of a track that is left out, at its end [cm]


def simulator(parameters: Parameters) -> Simulator:
    return Simulator(Detector.module0(), parameters, dtype=torch.float64, step=STEP)


def sample(seed: int) -> tuple[Segments, Tracks]:
    """The truth, and what the fit is told of it."""
    generator = torch.Generator().manual_seed(seed)
    parts, tracks, event = [], [], 0
    for particle in ("muon", "muon", "proton", "proton"):
        while True:
            shot = gun.shoot(
                Detector.module0(),
                1,
                particle,
                topology="stopping",
                step=STEP,
                straggling=True,
                seed=seed,
                first_event=event,
            )
            event += 1
            left = (shot.end - shot.start).norm(dim=1).flip(0).cumsum(0).flip(0)  # residual range where segments begin
            shot, left = shot[left > MARGIN], left[left > MARGIN]
            planes = torch.unique(torch.sign(torch.cat([shot.start[:, 0], shot.end[:, 0]])))
            if SEGMENTS[0] <= len(shot) <= SEGMENTS[1] and len(planes) == 1:  # across no cathode
                break
        parts.append(shot)
        end = float(left[-1] - (shot.end[-1] - shot.start[-1]).norm()) + 0.2 * float(
            torch.randn(1, generator=generator)
        )
        tracks.append(StoppingTrack.from_segments(shot, particle=particle, offset=end, sigma=0.2))
    return Segments.cat(parts), Tracks(tracks)


def fit(seed: int, draws: int) -> torch.Tensor:
    """Prints one row; returns the pulls (3)."""
    began, nominal = time.process_time(), Parameters()
    truth, tracks = sample(seed)
    hits = simulator(nominal)(truth, seed=seed)
    generator = torch.Generator().manual_seed(seed + 2**31)
    centre = nominal.lifetime * (1 + KNOWN * float(torch.randn(1, generator=generator)))
    prior = {"lifetime": (centre, KNOWN * nominal.lifetime)}
    posterior = LatentPosterior(simulator(START), tracks, HitObjective(hits), NAMES, prior)
    found = posterior.sample(draws, draws // 3, seed=seed)
    true = torch.tensor([getattr(nominal, name) for name in NAMES], dtype=torch.float64)
    pulls = (found.mean - true) / found.errors
    losses, errors = found.losses.mean(0), found.losses.std(0)
    mean = (tracks.segments().dE - truth.dE).square().mean().sqrt()
    ours = losses - truth.dE
    shown = "  ".join(
        f"{name} {float(m):.4g} +- {float(e):.2g} ({float(p):.2f})"
        for name, m, e, p in zip(NAMES, found.mean, found.errors, pulls, strict=True)
    )
    print(f"sample {seed}: {len(hits)} hits, {posterior.size} unknowns: {shown}", flush=True)
    print(
        f"  losses {float(ours.square().mean().sqrt()) * 1000:.0f} keV off the true (the mean loss "
        f"{float(mean) * 1000:.0f}), pulls of width {float((ours / errors).std()):.2f}; effective draws "
        f"{[round(x) for x in found.effective.tolist()]} of {draws}, {int(found.chain.diverged.sum())} diverged, depth "
        f"{float(found.chain.depth.double().mean()):.1f}, step {found.chain.step:.2f}, "
        f"{time.process_time() - began:.0f} s",
        flush=True,
    )
    return pulls


def main() -> None:
    torch.set_num_threads(1)
    samples, first, draws = (int(a) for a in (sys.argv[1:] + ["1", "0", "300"][len(sys.argv) - 1 :]))
    pulls = torch.stack([fit(seed, draws) for seed in range(first, first + samples)])
    print(f"| largest pull of {samples} samples | {', '.join(f'{float(p):.2f}' for p in pulls.abs().amax(0))} |")


if __name__ == "__main__":
    main()
