"""A whole spectral coupling with its network, forward and backward, against the same layer in torch's operators.

The rival has the same network and weights; its loops are products of rolled links along their paths, its eigenvalues
torch.linalg.eig's, its spline that of `hepops.flows` in torch.
"""

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record, seconds
from hepops.flows._spline_formula import formula as spline_formula
from hepops.lattice import SUN, group
from hepops.lattice.flows import SpectralCoupling, lines, parity
from hepops.lattice.flows.masks import numbered
from hepops.lattice.observables import paths

# both packages have a function of this name
coupling_module = importlib.import_module("hepops.lattice.flows.spectral")
spectral_module = importlib.import_module("hepops.lattice.spectral")
torch.set_num_threads(1)
repeats = 10
rows = {}


class OpByOp(SpectralCoupling):
    """Every loop is a product of rolled links along its path, eigenvalues and spline are torch's."""

    def _change(self, x, inverse):
        with (
            patched(coupling_module, spectral_map=spectral_module.formula, products=paths.formula),
            patched(spectral_module, rational_quadratic_spline_packed=spline_op_by_op),
        ):
            return super()._change(x, inverse)

    def _numbers(self, x, each):
        here = (0,) * len(self.mask.shape)
        loops = tuple((coupling_module._steps(kind.path, here),) for kind in self.kinds)
        table = paths.formula(x, loops, paths.TRACES, 1 / self.n).flatten(2)
        # plaquettes of all sites, then the twins of the active links, as `near` looks for them
        parts = [table[:, k] for k, kind in enumerate(self.kinds) if kind.pair is None]
        parts += [table[:, k].index_select(1, self.heads) for k, kind in enumerate(self.kinds) if kind.pair]
        traces = torch.cat(parts, 1).to(x.dtype).t()
        return traces.real if self.n == 2 else torch.cat([traces.real, traces.imag])


def op_by_op(layer):
    rival = OpByOp(layer.mask, layer.n).double()
    rival.load_state_dict(layer.state_dict())
    rival.heads = numbered(
        layer.mask.shape, 0, layer.mask.sites + torch.eye(len(layer.mask.shape)).long()[layer.mask.mu]
    )
    return rival


@contextmanager
def patched(module, **names):
    before = {name: getattr(module, name) for name in names}
    vars(module).update(names)
    try:
        yield
    finally:
        vars(module).update(before)


def spline_op_by_op(x, raw, *, bins, inverse, tails):
    parts = raw[..., :bins], raw[..., bins : 2 * bins], raw[..., 2 * bins :]
    bound = torch.zeros((), dtype=x.dtype), torch.ones((), dtype=x.dtype)
    return spline_formula(x, *parts, inverse=inverse, tails=tails, bound=bound, convention="nflows")


def both_ways(function, U, seed):
    U = U.detach().requires_grad_()
    image, logdet = function(U)
    (torch.view_as_real(image).mul(seed).sum() + logdet.sum()).backward()
    # of the gradient only the part along the group counts: off it each form goes on in its own way
    return image.detach(), logdet.detach(), group.traceless_antihermitian(U.grad @ U.detach().mH)


def compare(n, mask, batch):
    torch.manual_seed(1)
    layer = SpectralCoupling(mask, n).double()
    torch.nn.init.normal_(layer.network.last.weight, std=0.1)
    rival = op_by_op(layer)
    U = SUN(n, mask.shape, 1.0).random(batch, seed=2)
    seed = torch.randn(*U.shape, 2, dtype=torch.float64)
    candidates = {
        "hepops": lambda: both_ways(layer, U, seed),
        "torch": lambda: both_ways(rival, U, seed),
    }
    for a, b in zip(*(run() for run in candidates.values()), strict=True):
        # torch's gradient of eigenvectors divides by the differences of eigenvalues
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    medians = seconds(candidates, repeats)
    links, ratio = batch * len(mask.sites), medians["torch"] / medians["hepops"]
    name = f"SU({n}) {'x'.join(map(str, mask.shape))}, batch {batch}"
    print(f"{name:26} {links:6} active links, {1e6 * medians['hepops'] / links:6.2f} us a link, {ratio:.1f} x torch")
    more = {"links": links, "threads": torch.get_num_threads()}
    return {f"{name}, {who}": {"seconds": s, **more} for who, s in medians.items()}


for n in (2, 3):
    for mask, batch in ((lines((8, 8), 0, 1), 128), (parity((4, 4, 4, 4), 1, 0), 16)):
        rows |= compare(n, mask, batch)
record(rows)
