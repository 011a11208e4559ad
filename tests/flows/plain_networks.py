"""Networks of nflows and normflows as keys of a state dict, and what their formulas make of one event."""

import torch

f64 = torch.float64


def randn(*shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=f64)


def linear(state, name, outputs, inputs):
    state[f"{name}.weight"], state[f"{name}.bias"] = randn(outputs, inputs, scale=0.5), randn(outputs, scale=0.5)


def resnet(state, name, inputs, outputs, context, hidden=6):
    linear(state, f"{name}.initial_layer", hidden, inputs + context)
    for i in range(2):
        block = f"{name}.blocks.{i}"
        for j in range(2):
            linear(state, f"{block}.linear_layers.{j}", hidden, hidden)
        if context:
            linear(state, f"{block}.context_layer", hidden, context)
    linear(state, f"{name}.final_layer", outputs, hidden)


def apply(state, name, x):
    weight = state[f"{name}.weight"] * state.get(f"{name}.mask", 1.0)
    return weight @ x + state[f"{name}.bias"]


def run_resnet(state, name, x, context):
    h = apply(state, f"{name}.initial_layer", torch.cat([x, context]))
    for i in range(2):
        block = f"{name}.blocks.{i}"
        t = apply(state, f"{block}.linear_layers.0", h.clamp(min=0))
        t = apply(state, f"{block}.linear_layers.1", t.clamp(min=0))
        if len(context):
            t = t / (1 + torch.exp(-apply(state, f"{block}.context_layer", context)))
        h = h + t
    return apply(state, f"{name}.final_layer", h)


def made(state, name, D, outputs, context, hidden=6):
    """Masks of degrees, as any MADE has them."""
    degrees = torch.arange(hidden) % max(1, D - 1) + min(1, D - 1)
    out_degrees = torch.arange(1, D + 1).repeat_interleave(outputs)
    chain = [("initial_layer", degrees, torch.arange(1, D + 1), torch.ge)]
    for i in range(2):
        chain += [(f"blocks.{i}.linear_layers.{j}", degrees, degrees, torch.ge) for j in range(2)]
    for key, outs, ins, compare in [*chain, ("final_layer", out_degrees, degrees, torch.gt)]:
        linear(state, f"{name}.{key}", len(outs), len(ins))
        state[f"{name}.{key}.mask"] = compare(outs[:, None], ins).float()
        state[f"{name}.{key}.degrees"] = outs.clone()
    if context:
        linear(state, f"{name}.context_layer", hidden, context)
        for i in range(2):
            linear(state, f"{name}.blocks.{i}.context_layer", hidden, context)
