"""State dicts of nflows: equal to nflows where it is installed, and to its formulas where not."""

import math
import pickle

import hepops
import pytest
import torch
from hepops import flows
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from .plain_networks import apply, made, randn, resnet, run_resnet
from .plain_spline import softplus, spline

f64 = torch.float64


def sigmoid(u):
    return 1 / (1 + math.exp(-u))


# ---- state dicts of our own making, and what nflows' formulas make of them


def run_made(state, name, x, context):
    h = apply(state, f"{name}.initial_layer", x)
    if len(context):
        h = h + apply(state, f"{name}.context_layer", context).clamp(min=0)
    for i in range(2):
        block = f"{name}.blocks.{i}"
        t = apply(state, f"{block}.linear_layers.0", h.clamp(min=0))
        if len(context):
            t = t + apply(state, f"{block}.context_layer", context)
        h = h + apply(state, f"{block}.linear_layers.1", t.clamp(min=0))
    return apply(state, f"{name}.final_layer", h)


def split(raw, K):
    raw = raw.tolist()
    return raw[:K], raw[K : 2 * K], raw[2 * K :]


K, B, D, C = 4, 3.0, 4, 2


def everything(context):
    """Permutation, LU, spline coupling, spline MADE, affine coupling, affine MADE."""
    state = {"_transform._transforms.0._permutation": torch.tensor([2, 0, 3, 1])}
    lu = "_transform._transforms.1."
    state[f"{lu}bias"], state[f"{lu}unconstrained_upper_diag"] = randn(D), randn(D)
    state[f"{lu}lower_entries"], state[f"{lu}upper_entries"] = randn(6), randn(6)
    for i, per in ((2, 3 * K - 1), (4, 2)):
        name = f"_transform._transforms.{i}"
        state[f"{name}.identity_features"] = torch.tensor([0, 3])
        state[f"{name}.transform_features"] = torch.tensor([1, 2])
        resnet(state, f"{name}.transform_net", 2, 2 * per, context)
    made(state, "_transform._transforms.3.autoregressive_net", D, 3 * K - 1, context)
    made(state, "_transform._transforms.5.autoregressive_net", D, 2, context)
    return state


def plain(state, x, context):
    """z and the log-determinant of one event by nflows' formulas, number by number."""
    total = 0.0
    x = x[state["_transform._transforms.0._permutation"]]
    name = "_transform._transforms.1."
    L, U = torch.eye(D, dtype=f64), torch.zeros(D, D, dtype=f64)
    entries = iter(state[f"{name}lower_entries"].tolist())
    for i in range(D):
        for j in range(i):
            L[i, j] = next(entries)
    entries = iter(state[f"{name}upper_entries"].tolist())
    for i in range(D):
        U[i, i] = 1e-3 + softplus(state[f"{name}unconstrained_upper_diag"][i].item())
        for j in range(i + 1, D):
            U[i, j] = next(entries)
    x = L @ (U @ x) + state[f"{name}bias"]
    total += U.diagonal().log().sum().item()

    name = "_transform._transforms.2"
    raw = run_resnet(state, f"{name}.transform_net", x[[0, 3]], context).view(2, -1)
    y = x.clone()
    for row, i in enumerate((1, 2)):
        w, h, d = split(raw[row], K)
        w, h = ([v / math.sqrt(6) for v in values] for values in (w, h))  # the trap: sqrt(hidden_features)
        y[i], slope = spline(x[i].item(), w, h, d, -B, B)
        total += math.log(slope)
    x = y

    raw = run_made(state, "_transform._transforms.3.autoregressive_net", x, context).view(D, -1)
    y = x.clone()
    for i in range(D):
        y[i], slope = spline(x[i].item(), *split(raw[i], K), -B, B)  # MADE has no hidden_features
        total += math.log(slope)
    x = y

    name = "_transform._transforms.4"
    raw = run_resnet(state, f"{name}.transform_net", x[[0, 3]], context).tolist()
    y = x.clone()
    for row, i in enumerate((1, 2)):
        scale = sigmoid(raw[2 + row] + 2) + 1e-3  # shifts first, then scales
        y[i] = x[i] * scale + raw[row]
        total += math.log(scale)
    x = y

    raw = run_made(state, "_transform._transforms.5.autoregressive_net", x, context).view(D, 2)
    scale = torch.tensor([softplus(u) + 1e-3 for u in raw[:, 0].tolist()], dtype=f64)
    return x * scale + raw[:, 1], total + scale.log().sum().item()


@pytest.mark.parametrize("context", [0, C])
def test_a_flow_of_every_kind_follows_the_formulas(context):
    state = everything(context)
    flow, report = flows.from_nflows(state, tail_bound=B)
    x, c = randn(6, D, scale=1.5), randn(6, context)
    given = c if context else None
    z, logdet = flow.transform(x, given)
    for i in range(6):
        expected, total = plain(state, x[i], c[i])
        assert_close(z[i], expected, rtol=1e-12, atol=1e-12)
        assert_close(logdet[i].item(), total, rtol=1e-11, atol=1e-11)
    log_prob = -0.5 * z.square().sum(-1) - D / 2 * math.log(2 * math.pi) + logdet
    assert_close(flow.log_prob(x, given), log_prob, rtol=1e-13, atol=1e-12)
    back, logdet_back = flow.transform.inverse(z, given)
    assert_close(back, x, rtol=1e-9, atol=1e-9)
    assert_close(logdet_back, -logdet, rtol=1e-9, atol=1e-9)
    assert set(report.placed) | set(report.ignored) == set(state)
    assert not report.unexpected
    assert flow.base.reference.dtype == f64
    assert "rational-quadratic spline, 4 bins, linear tails" in str(report)
    assert report.assumed["tail_bound"] == "3"
    # every weight is where the report says
    parameters = dict(flow.named_parameters())
    key = "_transform._transforms.3.autoregressive_net.blocks.1.linear_layers.0.weight"
    assert_close(parameters[report.placed[key]], state[key])


def test_a_flow_is_imported_in_the_precision_of_its_weights():
    state = {k: v.float() if v.is_floating_point() else v for k, v in everything(0).items()}
    flow, _ = flows.from_nflows(state, tail_bound=B)
    x = randn(20, D).float()
    exact, _ = flows.from_nflows(
        {k: v.double() if v.is_floating_point() else v for k, v in state.items()}, tail_bound=B
    )
    assert_close(flow.log_prob(x), exact.log_prob(x.double()), rtol=1e-4, atol=1e-4)
    for name, p in flow.named_parameters():
        assert p.dtype == torch.float32, name


def test_an_imported_flow_trains_within_its_masks():
    flow, _ = flows.from_nflows(everything(0), tail_bound=B)
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    x = randn(64, D)
    before = flow.log_prob(x).mean()
    for _ in range(5):
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()
    assert flow.log_prob(x).mean() > before
    layer = flow.transform.transforms[3]
    J = torch.autograd.functional.jacobian(lambda t: layer(t)[0], x[0])
    assert J.triu(1).eq(0).all()


def test_norms_rescaling_marginals_and_bases():
    state = {
        "_transform._transforms.0._shift": randn(2),
        "_transform._transforms.0._scale": randn(2).abs() + 0.1,
        "_transform._transforms.1.unconstrained_weight": randn(2),
        "_transform._transforms.1.bias": randn(2),
        "_transform._transforms.1.running_mean": randn(2),
        "_transform._transforms.1.running_var": randn(2).square() + 0.1,
        "_transform._transforms.2.initialized": torch.tensor(True),
        "_transform._transforms.2.log_scale": randn(2),
        "_transform._transforms.2.shift": randn(2),
        "_transform._transforms.3.unnormalized_widths": randn(2, K),
        "_transform._transforms.3.unnormalized_heights": randn(2, K),
        "_transform._transforms.3.unnormalized_derivatives": randn(2, K - 1),
        "_transform._transforms.4._transform._permutation": torch.tensor([1, 0]),
        "_distribution.mean_": randn(1, 2),
        "_distribution.log_std_": randn(1, 2),
    }
    flow, report = flows.from_nflows(state, tail_bound=B)
    t = {k.removeprefix("_transform._transforms."): v for k, v in state.items()}
    x = randn(5, 2)
    y = x * t["0._scale"] + t["0._shift"]
    total = t["0._scale"].log().sum()
    weight = torch.tensor([softplus(u) + 1e-5 for u in t["1.unconstrained_weight"].tolist()], dtype=f64)
    std = (t["1.running_var"] + 1e-5).sqrt()
    y = weight * (y - t["1.running_mean"]) / std + t["1.bias"]
    y = t["2.log_scale"].exp() * y + t["2.shift"]
    total = (total + (weight / std).log().sum() + t["2.log_scale"].sum()).expand(5).clone()
    for n in range(5):
        for i in range(2):
            parts = [t[f"3.unnormalized_{name}"][i].tolist() for name in ("widths", "heights", "derivatives")]
            y[n, i], slope = spline(y[n, i].item(), *parts, -B, B)
            total[n] += math.log(slope)
    y = y.flip(-1)
    z, logdet = flow.transform(x)
    assert_close(z, y, rtol=1e-12, atol=1e-12)
    assert_close(logdet, total, rtol=1e-11, atol=1e-11)
    base = torch.distributions.Normal(state["_distribution.mean_"][0], state["_distribution.log_std_"][0].exp())
    assert_close(flow.log_prob(x), base.log_prob(y).sum(-1) + total, rtol=1e-11, atol=1e-11)
    assert_close(flow.transform.inverse(z)[0], x, rtol=1e-9, atol=1e-9)
    assert report.placed["_distribution.mean_"] == "base.loc"


def test_an_embedding_and_a_gap_are_given():
    embedding = nn.Linear(5, C)
    state = {f"_embedding_net.{k}": v for k, v in nn.Linear(5, C).double().state_dict().items()}
    for k, v in everything(C).items():
        number = int(k.split(".")[2])
        state[k.replace(f"_transforms.{number}", f"_transforms.{number + (number > 1)}")] = v
    gap = {"_transform._transforms.2": flows.Permutation([0, 1, 2, 3])}
    flow, report = flows.from_nflows(state, tail_bound=B, embedding=embedding, fixed=gap)
    x, c = randn(3, D), randn(3, 5)
    embedded = c @ state["_embedding_net.weight"].T + state["_embedding_net.bias"]
    plain_flow, _ = flows.from_nflows({k: v for k, v in state.items() if "embedding" not in k}, tail_bound=B, fixed=gap)
    assert_close(flow.log_prob(x, c), plain_flow.log_prob(x, embedded))
    assert report.assumed["_transform._transforms.2"] == "Permutation"
    with pytest.raises(flows.StateDictError, match=r"_transforms\.2 has no keys"):
        flows.from_nflows(state, tail_bound=B, embedding=embedding)
    with pytest.raises(flows.StateDictError, match=r"2 unexpected:\n  _embedding_net.weight\n  _embedding_net.bias"):
        flows.from_nflows(state, tail_bound=B, fixed=gap)


def test_files_are_read_and_never_executed(tmp_path):
    state = everything(0)
    x = randn(3, D)
    expected = flows.from_nflows(state, tail_bound=B)[0].log_prob(x)
    torch.save(state, tmp_path / "flow.pt")
    save_file(state, tmp_path / "flow.safetensors")
    for name in ("flow.pt", "flow.safetensors"):
        assert_close(flows.from_nflows(tmp_path / name, tail_bound=B)[0].log_prob(x), expected)

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    with open(tmp_path / "evil.pt", "wb") as file:
        pickle.dump({"weight": Evil()}, file, protocol=2)
    torch.save({"weight": Evil()}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(ValueError, match="holds more than tensors"):
            flows.from_nflows(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def without(state, *keys):
    return {k: v for k, v in state.items() if k not in keys}


FINAL = "_transform._transforms.3.autoregressive_net.final_layer"
NET = "_transform._transforms.2.transform_net"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, f"{FINAL}.bias"), rf"1 missing:\n  {FINAL}.bias"),
        (lambda s: s | {"_transform._transforms.0.spare": randn(1)}, "no transform is known that has"),
        (lambda s: s | {f"{FINAL}.spare": randn(1)}, rf"1 unexpected:\n  {FINAL}.spare"),
        (lambda s: s | {"_distribution.other": randn(1)}, r"1 unexpected:\n  _distribution.other"),
        (lambda s: s | {f"{FINAL}.weight": randn(48, 6)}, "12 parameters a feature"),
        (lambda s: s | {f"{FINAL}.weight": randn(7, 6)}, "has 7 outputs for 4 features"),
        (lambda s: s | {"_transform._transforms.0._permutation": torch.arange(3)}, "4 features, .* before it have 3"),
        (lambda s: s | {"_transform._transforms.1.lower_entries": randn(5)}, r"entries: \(5,\), needs \(6,\)"),
        (lambda s: s | {f"{FINAL}.mask": torch.ones(44, 5)}, r"final_layer.mask: \(44, 5\), needs \(44, 6\)"),
        (lambda s: s | {f"{NET}.blocks.1.linear_layers.0.weight": randn(6, 5)}, r"0.weight: \(6, 5\), needs \(6, 6\)"),
        (lambda s: s | {f"{NET}.blocks.0.linear_layers.1.bias": randn(5)}, r"1.bias: \(5,\), needs \(6,\)"),
        (
            lambda s: without(s, f"{NET}.initial_layer.weight", f"{NET}.initial_layer.bias"),
            r"2 missing:\n  .*initial_layer.weight\n  .*layer.bias",
        ),
        (lambda s: s | {f"{NET}.context_layer.weight": randn(6, 2)}, r"1 missing:\n  .*context_layer.bias"),
        (
            lambda s: s | {"_transform._transforms.0._permutation": torch.zeros(4).long()},
            "_permutation is no permutation",
        ),
        (lambda s: s | {f"{FINAL}.bias": randn(44) * math.nan}, "has NaN or infinite numbers"),
        (lambda s: s | {"epoch": 3}, "names to tensors, got int at 'epoch'"),
        (lambda s: {}, "names to tensors, got an empty one"),
    ],
)
def test_what_does_not_fit_is_an_error_by_name(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        flows.from_nflows(change(everything(0)), tail_bound=B)
    if isinstance(caught.value, flows.StateDictError):
        assert caught.value.report.library == "nflows"
        assert "from_nflows: " in str(caught.value) and len(str(caught.value).splitlines()) < 8


def test_an_imported_flow_is_kept_with_its_description(tmp_path):
    flow, _ = flows.from_nflows(everything(C), tail_bound=B)
    hepops.save(flow, tmp_path / "flow")
    x, c = randn(5, D), randn(5, C)
    assert_close(hepops.load(tmp_path / "flow").log_prob(x, c), flow.log_prob(x, c), rtol=0, atol=0)


def test_what_a_state_dict_does_not_hold_must_be_given():
    with pytest.raises(flows.StateDictError, match="give tail_bound"):
        flows.from_nflows(everything(0))
    with pytest.raises(ValueError, match="activation must be a function or one of"):
        flows.from_nflows(everything(0), tail_bound=B, activation="sine")
    with pytest.raises(ValueError, match="divided must be"):
        flows.from_nflows(everything(0), tail_bound=B, divided="some")
    with pytest.raises(ValueError, match="must begin with the prefix"):
        flows.from_nflows(everything(0), tail_bound=B, prefix="module.")
    with pytest.raises(ValueError, match="fixed has no such gap: x"):
        flows.from_nflows(everything(0), tail_bound=B, fixed={"x": flows.Permutation([0])})


# ---- nflows itself


def theirs(kind, context):
    nets = pytest.importorskip("nflows.nn.nets")
    from nflows import distributions, transforms
    from nflows import flows as nflows_flows

    def net(a, b):
        return nets.ResidualNet(a, b, hidden_features=8, context_features=context, num_blocks=2, use_batch_norm=norm)

    norm, D = kind == "batch norm", 5
    mask = torch.tensor([1, -1, 1, -1, 1])
    spline = {"num_bins": 6, "tails": "linear", "tail_bound": 2.5}
    made = {"features": D, "hidden_features": 16, "context_features": context, "num_blocks": 2}
    layers = {
        "couplings": lambda: [
            transforms.RandomPermutation(D),
            transforms.LULinear(D, identity_init=False),
            transforms.PiecewiseRationalQuadraticCouplingTransform(mask, net, **spline),
            transforms.AffineCouplingTransform(-mask, net),
            transforms.AdditiveCouplingTransform(mask, net),
        ],
        "unconditional": lambda: [
            transforms.PiecewiseRationalQuadraticCouplingTransform(
                mask, net, apply_unconditional_transform=True, **spline
            )
        ],
        "masked": lambda: [
            transforms.ReversePermutation(D),
            transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(**made, **spline),
            transforms.MaskedAffineAutoregressiveTransform(**made),
        ],
        "feedforward": lambda: [
            transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                **made, **spline, use_residual_blocks=False, random_mask=True
            ),
        ],
        "batch norm": lambda: [
            transforms.PiecewiseRationalQuadraticCouplingTransform(mask, net, **spline),
            transforms.BatchNorm(D),
            transforms.MaskedAffineAutoregressiveTransform(**made, use_batch_norm=True),
            transforms.InverseTransform(transforms.ActNorm(D)),
            transforms.PointwiseAffineTransform(0.5, 2.0),
        ],
    }
    flow = nflows_flows.Flow(transforms.CompositeTransform(layers[kind]()), distributions.StandardNormal([D]))
    return flow.double()


def shaken(module):
    with torch.no_grad():
        for name, p in [*module.named_parameters(), *module.named_buffers()]:
            if "running_var" in name:
                p.uniform_(0.5, 2.0)
            elif p.is_floating_point() and "mask" not in name and "log_z" not in name:
                p.add_(0.2 * torch.randn_like(p))
            elif "initialized" in name:
                p.fill_(True)
    return module.eval()


@pytest.mark.parametrize("kind", ["couplings", "unconditional", "masked", "feedforward", "batch norm"])
@pytest.mark.parametrize("context", [None, 3])
@pytest.mark.parametrize("single", [False, True])
def test_nflows_itself_gives_the_same(kind, context, single):
    source = shaken(theirs(kind, context))
    if single:
        source = source.float()
    dtype = torch.float32 if single else f64
    x = randn(200, 5).to(dtype)
    c = None if context is None else randn(200, context).to(dtype)
    flow, report = flows.from_nflows(source.state_dict(), tail_bound=2.5)
    assert set(report.placed) | set(report.ignored) == set(source.state_dict())
    with torch.no_grad():
        # float32: nflows sums log-determinants in single, and a steep spline multiplies the rounding
        t = {"rtol": 1e-4, "atol": 1e-3} if single else {"rtol": 1e-12, "atol": 1e-12}
        z, logdet = source._transform(x, c)
        ours, our_logdet = flow.transform(x, c)
        assert_close(ours, z, **t)
        assert_close(our_logdet, logdet.double(), **(t if single else {"rtol": 1e-11, "atol": 1e-11}))
        assert_close(
            flow.log_prob(x, c), source.log_prob(x, c).double(), **(t if single else {"rtol": 1e-11, "atol": 1e-11})
        )
        if not single:  # nflows' own inverse raises on legal float32 input
            back, _ = source._transform.inverse(z, c)
            assert_close(flow.transform.inverse(z, c)[0], back, rtol=1e-9, atol=1e-9)
