"""A real geometry of each kind: simulated, displayed, fitted without noise; docs/your-detector.md holds the table.

    python benchmarks/lartpc/geometries.py [--data ../shared/data/lartpc] [--only 2x2] [--images FOLDER]

Tracks of the gun in a few modules, hits (or images of wires) at hidden values of six parameters, and a fit of all six
from the nominal ones, in float64. With --data the pixel detectors are read from larnd-sim's files; fsd and the wires
are built in. Prints the worst relative error of each.
"""

import argparse
import time
from pathlib import Path

import hepops
import torch
from hepops.lartpc import Detector, ModularSimulator, Parameters, Segments, Simulator, gun, plot
from hepops.lartpc.wires import WireDetector, WireSimulator, fit_wires

HIDDEN = dict(
    lifetime=1700.0, efield=0.49, birks_a=0.83, birks_k=0.053, transverse_diffusion=7.5e-6, longitudinal_diffusion=5e-6
)
KINDS = ("module0", "2x2", "fsd", "ndlar", "dune-apa")


def from_files(kind: str, data: Path) -> Detector:
    properties, layouts = data / "detector/DUNE", data / "layouts/DUNE"
    files = {
        "module0": (data / "detector/module0.yaml", ["2.4.16"]),
        "2x2": (properties / "2x2.yaml", ["2.4.16", "2.4.16", "2.5.16", "2.4.16"]),
        "ndlar": (properties / "ndlar-module.yaml", ["3.0.40"]),
    }
    name, versions = files[kind]
    paths = [layouts / f"multi_tile_layout-{v}.yaml" for v in versions]
    return Detector.from_yaml(name, paths[0] if len(paths) == 1 else paths, name=kind)


def detector_of(kind: str, data: Path | None) -> Detector:
    if data is not None and kind != "fsd":
        return from_files(kind, data)
    made = {"module0": Detector.module0, "2x2": Detector.two_by_two, "fsd": Detector.fsd, "ndlar": Detector.nd_lar}
    return made[kind]()


def shots(detector: Detector, short: bool = False) -> Segments:
    """A muon and a proton in each of up to four modules: where the wanted charges are, from every distance."""
    modules = detector.module_numbers
    chosen = modules if len(modules) <= 4 else [modules[i * (len(modules) - 1) // 3] for i in range(4)]
    parts = []
    for i, number in enumerate(chosen[: 2 if short else 4]):
        alone = detector.module(number)
        parts.append(gun.shoot(alone, 1, energy=150.0, topology="inside", seed=11 + i, first_event=2 * i))
        one = dict(energy=150.0, topology="inside", seed=11 + i, first_event=2 * i + 1)
        parts.append(gun.shoot(alone, 1, "proton", **one))
    return Segments.cat(parts)


def wire_shots(detector: WireDetector) -> Segments:
    one = dict(energy=150.0, topology="inside")
    muons = gun.shoot(detector.volumes, 4, seed=4, **one)
    return Segments.cat([muons, gun.shoot(detector.volumes, 3, "proton", seed=3, first_event=4, **one)])


def worst(result) -> tuple[str, float]:
    errors = {name: abs(result[name] / value - 1) for name, value in HIDDEN.items()}
    name = max(errors, key=errors.get)
    return name, errors[name]


def pixels(kind: str, data: Path | None, short: bool = False):
    """(hits, detector), the fit, and how many pixels."""
    detector = detector_of(kind, data)
    segments = shots(detector, short)
    make = Simulator if detector.is_uniform else ModularSimulator
    with torch.no_grad():
        measured = make(detector, Parameters(**HIDDEN), dtype=torch.float64)(segments)
    result = hepops.lartpc.fit(make(detector, Parameters(), dtype=torch.float64), segments, measured)
    return plot.array_display(measured, detector), result, f"{len(measured)} hits", result.iterations


def wires(kind: str, short: bool = False):
    detector = WireDetector.dune_apa()
    segments = wire_shots(detector)
    segments = segments.select([0, 1, 4, 5]) if short else segments
    with torch.no_grad():
        measured = WireSimulator(detector, Parameters(**HIDDEN), torch.float64)(segments)
    result = fit_wires(WireSimulator(detector, Parameters(), torch.float64), segments, measured)
    return plot.wire_views(measured), result, f"{len(measured)} wires", result.iterations


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path)
    arguments.add_argument("--only", choices=KINDS)
    arguments.add_argument("--images", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print("| detector | simulated | iterations | worst parameter | relative error | time [s] |")
    print("| --- | ---: | ---: | --- | ---: | ---: |")
    for kind in (given.only,) if given.only else KINDS:
        begin = time.process_time()
        figure, result, size, iterations = wires(kind) if kind == "dune-apa" else pixels(kind, given.data)
        seconds = time.process_time() - begin
        name, error = worst(result)
        print(f"| {kind} | {size} | {iterations} | {name} | {error:.1e} | {seconds:.0f} |", flush=True)
        if given.images is not None:
            figure.savefig(given.images / f"{kind}.png")
        if not error < 1e-3:
            raise SystemExit(f"{kind}: {name} is off by {error:.2g}, more than 0.1 %")


if __name__ == "__main__":
    main()
