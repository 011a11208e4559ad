"""What a fresh environment must do with the wheel: each domain forward and backward, the commands, the C++ package."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

started = time.process_time()
import hepops  # noqa: E402  (its time is measured)

seconds = time.process_time() - started


def lartpc() -> str:
    from hepops.lartpc import Detector, Simulator, gun

    detector = Detector.module0()
    segments = gun.shoot(detector, events=1, particle="proton", topology="inside", energy=(60.0, 90.0), seed=1)
    simulator = Simulator(detector)
    hits = simulator(segments)
    (hits.charge.sum() + hits.time.sum()).backward()
    slopes = [p.grad.item() for p in simulator.parameters() if p.grad is not None]
    assert len(hits) > 0 and any(slopes), slopes
    return f"{len(hits)} hits, {sum(map(bool, slopes))} slopes"


def sparse() -> str:
    from hepops.sparse import SparseTensor
    from hepops.sparse.models import UResNet

    torch.manual_seed(1)
    coordinates = torch.cat([torch.zeros(300, 1, dtype=torch.int32), torch.randint(0, 12, (300, 3)).int()], 1).unique(dim=0)
    network = UResNet(1, 2, filters=4, depth=2)
    out = network(SparseTensor(torch.rand(len(coordinates), 1), coordinates))
    out.features.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    return f"{len(coordinates)} voxels, {sum(p.numel() for p in network.parameters())} weights"


def flows() -> str:
    from hepops.flows import nsf

    torch.manual_seed(1)
    flow = nsf(features=2)
    loss = -flow.log_prob(torch.randn(200, 2)).mean()
    loss.backward()
    x, log_q = flow.sample_and_log_prob(100, seed=2)
    assert torch.allclose(flow.log_prob(x), log_q, atol=1e-4)  # float32, 5 splines and their inverses
    return f"loss {loss.item():.3f}"


def lattice() -> str:
    from hepops.lattice import SUN

    theory = SUN(3, (4, 4), beta=4.0)
    links = theory.random(2, seed=1).requires_grad_()
    theory.action(links).sum().backward()
    assert links.grad is not None and links.grad.abs().sum() > 0
    return f"action {theory.action(links)[0].item():.3f}"


def hepops_command(*words: str) -> str:
    run = subprocess.run([Path(sys.executable).parent / "hepops", *words], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def main() -> None:
    at = Path(hepops.__file__).parent
    assert "site-packages" in at.parts, f"imported from {at}, not from the wheel"
    compilers = [name for name in ("cc", "c++", "gcc", "g++", "clang", "nvcc", "cmake") if shutil.which(name)]
    assert not compilers, f"PATH holds {compilers}"
    facts = json.loads(hepops_command("info", "--json"))
    print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, hepops {hepops.__version__}")
    print(f"  import: {seconds:.2f} s of processor time beyond torch's")
    print(f"  {facts['CPU level']}; CUDA: {facts['CUDA, built with']}; compiled against {facts['torch, built with']}")
    for domain in (lartpc, sparse, flows, lattice):
        print(f"  {domain.__name__}: {domain()}")
    configuration = hepops.cmake_path() / "hepops" / "hepopsConfig.cmake"
    assert configuration.exists() and (at / "include" / "hepops" / "lartpc" / "recombine.h").exists()
    printed = subprocess.run([sys.executable, "-m", "hepops.cmake"], capture_output=True, text=True, check=True).stdout
    assert Path(printed.strip()) == hepops.cmake_path()
    print(f"  find_package: {configuration.relative_to(at)}")
    hepops_command("demo", "-o", "demo", "--threads", "1")
    values = json.loads(Path("demo/parameters.json").read_text())["parameters"]
    hidden = json.loads(Path("demo/demo.json").read_text())["hidden"]
    worst = max(abs(values[name]["value"] / hidden[name] - 1) for name in values)
    assert worst < 1e-3, worst
    print(f"  demo: {len(values)} parameters found again, the worst to {worst:.1e}")


if __name__ == "__main__":
    main()
