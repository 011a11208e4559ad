"""The figures of docs/lattice-observables.md: two-dimensional U(1), scalar fields, and the Wilson flow of SU(2).

python scripts/lattice_figures.py docs/images
"""

import sys
from pathlib import Path

import torch
from hepops.lattice import SUN, U1, Phi4, plots
from hepops.lattice import observables as obs
from hepops.lattice import statistics as stat
from hepops.lattice.wilson_flow import wilson_flow


def hmc(theory, field, trajectories, steps, seed, size=1.0, thermalise=20):
    """Leapfrog trajectories of a batch of chains, the first ones accepted: fields after each, and which moved."""
    fields, flags = [], []
    noise = torch.Generator().manual_seed(seed)
    for trajectory in range(trajectories):
        p = theory.momenta(field, seed, trajectory)
        start, new, h = theory.action(field) + theory.kinetic(p), field, size / steps
        p = p - h / 2 * theory.force(new)
        for k in range(steps):
            new = theory.move(new, p, h)
            p = p - (h if k + 1 < steps else h / 2) * theory.force(new)
        lost = theory.action(new) + theory.kinetic(p) - start
        good = torch.rand(len(field), generator=noise, dtype=torch.float64).log() < -lost
        good |= torch.tensor(trajectory < thermalise)
        field = torch.where(good.view(-1, *[1] * (field.dim() - 1)), new, field)
        fields.append(field)
        flags.append(good)
    return torch.stack(fields), torch.stack(flags)


def main(folder: Path) -> None:
    torch.manual_seed(1)
    save = lambda name, figure: figure.savefig(folder / f"lattice-{name}.png", dpi=110)  # noqa: E731

    beta = 2.0
    theory = U1((16, 16), beta)
    plaquette = float(torch.special.i1e(torch.tensor(beta)) / torch.special.i0e(torch.tensor(beta)))
    chains, _ = hmc(theory, theory.cold(4), 1300, 8, seed=2)
    chains = chains[300:]
    P = theory.plaquette_angles(chains.flatten(0, 1)).cos().flatten(1).mean(1).view(-1, 4)
    save("history", plots.history(P[:, 0], r"$\langle\cos\theta_P\rangle$", exact=plaquette))
    print("plaquette", stat.gamma_method(list(P.T)), "exact", plaquette)
    Q = obs.topological_charge(chains.flatten(0, 1)).view(-1, 4)
    save("charge", plots.charge_history(Q[:, 0]))
    save("autocorrelation", plots.autocorrelation(stat.autocorrelation(list((Q**2).T))))
    loops = obs.wilson_loops(chains.flatten(0, 1), 4, 4)[:, 0].view(-1, 4, 4, 4)
    per_chain = [loops[:, c] for c in range(4)]
    save("wilson-loops", plots.wilson_loops(stat.jackknife(per_chain, bin_size=50)))
    chi = stat.jackknife(per_chain, obs.creutz_ratios, bin_size=50)
    save("creutz-ratios", plots.creutz_ratios(chi, exact=-torch.tensor(plaquette).log().item()))

    scalar = Phi4((12, 8, 8), m2=0.3, lam=0.05)
    phi, _ = hmc(scalar, 0.3 * scalar.random(8, seed=3), 400, 8, seed=4)
    C = [obs.correlator(phi[50:, c], 0) for c in range(8)]
    save("correlator", plots.correlator(stat.jackknife(C, bin_size=10)))
    mass = stat.jackknife(C, lambda C: obs.pole_mass(C, 1, 4), bin_size=10)
    print("mass", mass)
    save("effective-mass", plots.effective_mass(torch.cat(C), bin_size=10, mass=mass))

    gauge = SUN(2, (6, 6, 6, 6), 2.2)
    U, good = hmc(gauge, gauge.cold(1), 90, 16, seed=5)
    print("SU(2) plaquette", float(gauge.plaquette(U[-1])), "acceptance", float(good[20:].double().mean()))
    flowed = wilson_flow(U[30::4, 0], 3.0, step=0.05, every=2, charge=False)
    save("flow-scales", plots.flow_scales(flowed))

    x = torch.randn(20_000, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    log_w = 0.9 * x - 0.4 + 0.05 * x**2
    save("log-weights", plots.log_weights(log_w))
    accepted, now, u = [], 0, torch.rand(len(x), dtype=torch.float64).log()
    for k in range(1, len(x)):
        accepted.append(bool(u[k] < log_w[k] - log_w[now]))
        now = k if accepted[-1] else now
    save("acceptance-runs", plots.acceptance_runs(torch.tensor(accepted)))
    print("acceptance", stat.acceptance(torch.tensor(accepted)), "foretold", float(stat.expected_acceptance(log_w)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
