"""HMC, heatbath and Metropolis of every theory against exact numbers, and HMC against heatbath in four dimensions.

    python benchmarks/lattice/exact_references.py [PART OF A NAME ...]

Errors are those of independent chains. Exact numbers: ../shared/golden/flows (transfer matrices, characters). Ends with
an error if a row is off by more than 4 standard errors (3, of two runs), or its error exceeds 1e-3 of the value.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

import torch
from hepops.lattice import HMC, SUN, U1, Heatbath, Metropolis, Phi4

PLACES = [os.environ.get("HEPOPS_SHARED"), *(p / "shared" for p in Path(__file__).resolve().parents)]
GOLDEN = next(Path(p) / "golden/flows" for p in PLACES if p and (Path(p) / "golden/flows").exists())
GAUGE = json.loads((GOLDEN / "exact_2d_gauge.json").read_text())
SCALAR = json.loads((GOLDEN / "scalar_exact.json").read_text())["interacting_exact_convA"]
failed = False


def powers(p):
    return lambda phi: phi.pow(p).flatten(1).mean(1)


def theory(group, shape, beta):
    if group == "U1":
        t = U1(shape, beta)
        return t, lambda f: t.plaquette_angles(f).cos().flatten(1).mean(1)
    t = SUN(int(group[2:]), shape, beta)
    return t, t.plaquette


def row(name, kind, run, observable, exact, other=None, seconds=0.0):
    global failed
    mean, error = (float(v) for v in run.mean(observable))
    sigma = error if other is None else math.hypot(error, other)
    pull, relative = (mean - exact) / sigma, error / abs(mean)
    bad = abs(pull) > (4 if other is None else 3) or relative > 1e-3
    failed |= bad
    accepted = "" if math.isnan(run.acceptance) else f"{run.acceptance:.2f}"
    print(
        f"| {name} | {kind} | {observable} | {mean:.6f} +- {error:.6f} | {exact:.6f} | {pull:+.1f} | {relative:.1e} "
        f"| {accepted} | {seconds:.0f} |{' FAILS' if bad else ''}",
        flush=True,
    )
    return mean, error


def measure(sampler, n, chains, thermalise, observables):
    start = time.process_time()
    run = sampler.run(n, chains=chains, seed=2026, thermalise=thermalise, observables=observables)
    return run, time.process_time() - start


def scalars(wanted):
    for key, shape in (
        ("1D_L8_m2_-4.0_lam_8.0", (8,)),
        ("1D_L16_m2_1.0_lam_0.5", (16,)),
        ("2D_2x8_m2_-4.0_lam_8.0", (2, 8)),
    ):
        m2, lam = (float(key.split("_")[i]) for i in (3, 5))
        t = Phi4(shape, m2=m2, lam=lam)
        samplers = (
            ("HMC", HMC(t, 0.1, 2, tune=0.9), 20000),  # longer ones of the second are half a period of its modes
            ("Metropolis", Metropolis(t, 1.0, hits=2, tune=0.5), 3000),
        )
        for kind, sampler, n in samplers:
            name = f"phi^4 {key}"
            if not wanted(f"{name} {kind}"):
                continue
            run, seconds = measure(sampler, n, 512, 300, {"phi2": powers(2), "phi4": powers(4)})
            for observable in ("phi2", "phi4"):
                row(name, kind, run, observable, SCALAR[key][observable], seconds=seconds)
    t = Phi4((8, 8), m2=0.25, lam=0.0, convention="B")
    if wanted("free field 8x8 HMC"):
        run, seconds = measure(HMC(t, 0.15, 8, tune=0.9), 20000, 256, 100, {"S": t.action, "phi2": powers(2)})
        p = 4 * torch.sin(math.pi * torch.arange(8, dtype=torch.float64) / 8).square()
        exact = {"S": 32.0, "phi2": (1 / (p[:, None] + p[None, :] + 0.25)).mean().item()}
        for observable in exact:
            row("free field 8x8, m2 = 0.25", "HMC", run, observable, exact[observable], seconds=seconds)


def gauge(wanted):
    for group, L, beta in (
        ("U1", 4, 2.0),
        ("U1", 8, 1.0),
        ("U1", 8, 2.0),
        ("SU2", 4, 2.2),
        ("SU2", 8, 4.0),
        ("SU3", 4, 6.0),
        ("SU3", 8, 4.0),
    ):
        t, mean = theory(group, (L, L), beta)
        exact = float(GAUGE[f"{group}_2D"][str(beta)][f"L{L}"]["plaq"])
        few = {"U1": 4, "SU2": 1, "SU3": 1}[group]
        samplers = (
            ("heatbath", Heatbath(t, overrelax=1), 800),
            ("HMC", HMC(t, 0.2, 4, tune=0.85), 600 * few if L == 4 else 200 * few),
        )
        for kind, sampler, n in samplers:
            name = f"{group} {L}x{L}, beta = {beta}"
            if wanted(f"{name} {kind}"):
                run, seconds = measure(sampler, n, 256, 80, {"plaquette": mean})
                row(name, kind, run, "plaquette", exact, seconds=seconds)


def four_dimensions(wanted):
    for group, beta, L in (("SU2", 2.3, 4), ("SU3", 5.7, 4)):
        t, mean = theory(group, (L,) * 4, beta)
        name = f"{group} {L}^4, beta = {beta}"
        if not wanted(name):
            continue
        run, seconds = measure(Heatbath(t, overrelax=1), 400, 32, 100, {"plaquette": mean})
        value, error = (float(v) for v in run.mean("plaquette"))
        relative = error / value
        print(f"| {name} | heatbath | plaquette | {value:.6f} +- {error:.6f} | | | {relative:.1e} | | {seconds:.0f} |")
        run, seconds = measure(HMC(t, 0.12, 8, tune=0.85), 600, 32, 100, {"plaquette": mean})
        row(name, "HMC", run, "plaquette", value, error, seconds)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parts = sys.argv[1:]

    def wanted(name):
        return not parts or any(part in name for part in parts)

    print("| theory | sampler | observable | measured | exact | pull | relative error | acceptance | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    scalars(wanted)
    gauge(wanted)
    four_dimensions(wanted)
    sys.exit(failed)
