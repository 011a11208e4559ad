"""What tests of gauge couplings share: layers that do something, gauge transformations, a mask that lies."""

import torch
from hepops.flows import CircularMixture, CircularSpline, Haar
from hepops.lattice.flows import SpectralCoupling, U1Coupling
from hepops.lattice.flows.masks import Mask


def stir(module, size=0.3):
    """Random weights in the last layer of every network: a fresh one is the identity."""
    generator = torch.Generator().manual_seed(5)
    for part in module.modules():
        last = getattr(part, "last", None)
        if isinstance(last, torch.nn.Linear):
            with torch.no_grad():
                last.weight += size * torch.randn(last.weight.shape, generator=generator, dtype=last.weight.dtype)
                last.bias += size * torch.randn(last.bias.shape, generator=generator, dtype=last.bias.dtype)
    return module


def u1_layer(mask, bijection="spline", **sight):
    h = CircularSpline(4) if bijection == "spline" else CircularMixture(3, weights=True)
    torch.manual_seed(3)
    return stir(U1Coupling(mask, h, hidden=(8,), **sight).double())


def sun_layer(mask, n, **sight):
    torch.manual_seed(3)
    return stir(SpectralCoupling(mask, n, 4, hidden=(8,), **sight).double())


def turned(U, seed=7):
    """U_mu(x) -> g(x) U_mu(x) g(x + mu)^+, with g of the Haar measure; for angles likewise."""
    d = U.shape[1]
    if not U.is_complex():
        g = Haar("U1", U.shape[2:], U.dtype).draw(len(U), seed)
        return torch.stack([g + U[:, mu] - torch.roll(g, -1, 1 + mu) for mu in range(d)], 1)
    g = Haar(f"SU{U.shape[-1]}", U.shape[2:-2], U.real.dtype).draw(len(U), seed)
    return torch.stack([g @ U[:, mu] @ torch.roll(g, -1, 1 + mu).mH for mu in range(d)], 1)


class Leaking(Mask):
    """Says that loops are frozen although an active link is on them."""

    def frozen(self, starts, path):
        return torch.ones(len(starts), dtype=torch.bool)
