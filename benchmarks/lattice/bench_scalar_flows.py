"""A training step of phi^4, 16 affine layers (8, 8), L = 16, batch 1024, against the same in torch's operators, and the
memory that is kept for the backward."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record, seconds
from hepops.lattice import Phi4
from hepops.lattice.flows import affine_flow
from torch import Tensor
from torch.nn import functional as F

L, BATCH, LAYERS, BAR_BYTES = 16, 1024, 16, 24
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
torch.manual_seed(1)
theory = Phi4((L, L), -4.0, 8.0)
z = torch.randn(BATCH, L, L, device=device)


def action(phi: Tensor) -> Tensor:
    """As a notebook writes it."""
    density = theory.m2 * phi**2 + theory.lam * phi**4
    for mu in (1, 2):
        density = density + (torch.roll(phi, -1, mu) - phi) ** 2
    return density.sum((1, 2))


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight, bias)


def op_by_op(layers, phi: Tensor) -> Tensor:
    total = 0
    for layer in layers:
        frozen = torch.where(layer.mask, 0, phi)
        h = frozen[:, None]
        *hidden, (weight, bias) = layer.weights()
        for w, b in hidden:
            h = convolution(h, w, b)
            h = torch.tanh(h) if layer.sizes.odd else F.leaky_relu(h)
        if layer.sizes.odd:
            s, t = convolution(h**2, weight[:1], bias), convolution(h, weight[1:], None)
        else:
            s, t = convolution(h, weight, bias).chunk(2, 1)
        s = torch.where(layer.mask, 2 * torch.tanh(s[:, 0] / 2), 0)
        phi = torch.where(layer.mask, phi * torch.exp(s) + t[:, 0], phi)
        total = total + s.sum((1, 2))
    return (action(phi) - total).mean()


def kept(run) -> int:
    """Bytes of all tensors that the backward holds."""
    sizes: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = run()
    assert loss.requires_grad
    return sum(sizes.values())


rows = {}
for odd in (False, True):
    options = {"odd": odd, "activation": "tanh" if odd else "leaky_relu"}
    flows = {r: affine_flow(theory, LAYERS, recompute=r, **options).to(device) for r in (None, "inverse")}
    with torch.no_grad():
        for p in flows[None].parameters():
            p.add_(0.05 * torch.randn_like(p))
    flows["inverse"].load_state_dict(flows[None].state_dict())

    def step(flow) -> Tensor:
        phi, logdet = flow.transform.inverse(z)
        return (theory.action(phi) - logdet).mean()

    layers = list(flows[None].transform.inv.transforms)
    runs = {
        "layer inputs kept": lambda flows=flows: step(flows[None]),
        "undone in the backward": lambda flows=flows: step(flows["inverse"]),
        "op by op, torch": lambda layers=layers: op_by_op(layers, z),
    }
    values = [run().item() for run in runs.values()]
    assert max(values) - min(values) < 1e-3 * abs(values[0]), values
    gradients = []
    for run in runs.values():
        gradients.append(
            torch.cat(torch.autograd.grad(run(), flows[None].parameters(), allow_unused=True))
            if run is not runs["undone in the backward"]
            else torch.cat(torch.autograd.grad(run(), flows["inverse"].parameters()))
        )
    for g in gradients[:2]:
        assert (g - gradients[2]).norm() < 1e-3 * gradients[2].norm()
    times = seconds({name: lambda run=run: run().backward() for name, run in runs.items()}, 3)
    print("odd layers (tanh)" if odd else "layers without a symmetry (leaky ReLU)")
    for name, run in runs.items():
        per_site = kept(run) / (BATCH * L * L * LAYERS)
        ratio = times["op by op, torch"] / times[name]
        print(
            f"    {name:24} {times[name]:7.3f} s a step, {ratio:4.1f} x as fast, {per_site:7.2f} bytes a site and layer"
        )
        rows[f"{'odd, ' if odd else ''}{name}"] = {
            "seconds": times[name],
            "bytes_per_site_and_layer": round(per_site, 2),
        }
record(rows)
