"""SU(2) and SU(3), 16 384 matrices in float64, one thread: exponential, eigen-decomposition, logarithm, projection."""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path += [str(Path(__file__).parents[1])]

import torch
from harness import record, seconds
from hepops.lattice import group
from hepops.lattice.group.exponential import formula as exp_formula
from hepops.lattice.group.project import formula as polar_formula
from hepops.lattice.group.project import log_formula

torch.set_num_threads(1)
torch.manual_seed(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
n = 16384


def both(f: Callable[..., torch.Tensor], X: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
    """Value and gradient."""
    leaf = X.detach().requires_grad_()
    (grad,) = torch.autograd.grad(f(leaf), leaf, seed)
    return grad


def rebuilt(eig: Callable[..., tuple[torch.Tensor, torch.Tensor]], U: torch.Tensor) -> torch.Tensor:
    phases, V = eig(U)
    return V * torch.polar(torch.ones_like(phases), phases)[..., None, :] @ V.mH


def torch_eig(U: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values, V = torch.linalg.eig(U)
    return values.angle(), V


for N in (2, 3):
    M = torch.randn(n, N, N, dtype=torch.complex128, device=device)
    X = 0.5 * group.traceless_antihermitian(M)
    U = group.exp(X)
    seed = group.traceless_antihermitian(torch.randn_like(M))
    pairs: dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]] = {
        "exp": (lambda X=X: group.exp(X), lambda X=X: torch.linalg.matrix_exp(X)),
        "exp + backward": (lambda X=X, s=seed: both(group.exp, X, s), lambda X=X, s=seed: both(exp_formula, X, s)),
        "eig": (lambda U=U: group.eig(U)[0], lambda U=U: group.eigen.alcove(torch_eig(U)[0])[0]),
        "eig + reassembly": (lambda U=U: rebuilt(group.eig, U), lambda U=U: rebuilt(torch_eig, U)),
        "log": (lambda U=U: group.log(U), lambda U=U: log_formula(U)),
        "project": (lambda M=M: group.project(M), lambda M=M: polar_formula(M)),
    }
    for name, (ours, theirs) in pairs.items():
        torch.testing.assert_close(ours(), theirs(), rtol=1e-9, atol=1e-9)
        times = seconds({"hepops": ours, "torch": theirs}, 7)
        per = {key: 1e9 * value / n for key, value in times.items()}
        label = f"SU({N}) {name}"
        print(f"{label:26} {per['hepops']:8.1f} ns {per['torch']:9.1f} ns  {per['torch'] / per['hepops']:6.1f}x")
        record({f"{label}, {key}": {"seconds": value, "matrices": n} for key, value in times.items()})
