"""Golden kernels: fields and what other code made of them (shared/golden/flows/README.md)."""

import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lattice import SUN, U1, Phi4, group
from torch.testing import assert_close

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def golden():
    return {k: torch.from_numpy(v) for k, v in np.load(shared("golden/flows/lattice_kernels.npz")).items()}


@pytest.mark.parametrize("field, tag", [("phi_2d", ""), ("phi_4d", "_4d")])
def test_phi4(golden, field, tag, device):
    phi = golden[field].to(device)
    theory = Phi4(phi.shape[1:], m2=-4, lam=8)
    assert_close(theory.action(phi).cpu(), golden[f"phi4{tag}_S_m2-4_lam8"], **EXACT)
    assert_close(theory.force(phi).cpu(), golden[f"phi4{tag}_F_m2-4_lam8"], **EXACT)


@pytest.mark.parametrize("d", [2, 4])
def test_u1(golden, d, device):
    theta = golden[f"u1_{d}d_theta"].to(device)
    theory = U1(theta.shape[2:], beta=2)
    assert_close(theory.action(theta).cpu(), golden[f"u1_{d}d_S_beta2"], **EXACT)
    assert_close(theory.force(theta).cpu(), golden[f"u1_{d}d_F_beta2"], **EXACT)


@pytest.mark.parametrize("n, beta", [(2, 2.2), (3, 6.0)])
@pytest.mark.parametrize("d", [2, 4])
def test_sun(golden, n, beta, d, device):
    name = f"su{n}_{d}d"
    U = golden[f"{name}_U"].to(device)
    theory = SUN(n, U.shape[2:-2], beta)
    assert_close(theory.action(U).cpu(), golden[f"{name}_S_beta{beta}"], **EXACT)
    assert_close(theory.force(U).cpu(), golden[f"{name}_F_beta{beta}"], **EXACT)
    assert_close(theory.staples(U)[:, 0].cpu(), golden[f"{name}_staple0"], **EXACT)
    traces = theory.plaquettes(U)[:, 0].diagonal(dim1=-2, dim2=-1).sum(-1).real / n
    assert_close(traces.cpu(), golden[f"{name}_plaq01_retr_over_N"], **EXACT)


@pytest.mark.parametrize("n", [2, 3])
def test_exponential(golden, n, device):
    assert_close(group.exp(golden[f"exp{n}_X"].to(device)).cpu(), golden[f"exp{n}_expX"], **EXACT)
