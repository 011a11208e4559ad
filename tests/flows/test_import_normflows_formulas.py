"""State dicts of normflows' names and shapes: the flow follows normflows' formulas, number by number.

test_import_normflows.py holds it against normflows itself, where that is installed.
"""

import math

import hepops
import pytest
import torch
from hepops import flows
from torch.testing import assert_close

from .plain_networks import apply, linear, made, randn, resnet, run_resnet
from .plain_spline import softplus, spline

f64 = torch.float64
K, B, D, C = 4, 3.0, 4, 2
BOUNDS = torch.tensor([2.0, 3.0, 2.5, 1.5], dtype=f64)
CIRCLES = [0, 3]


def sigmoid(u):
    return 1 / (1 + math.exp(-u))


# ---- state dicts of our own making


def angles(state, name, ind, features, bounds):
    state[f"{name}.ind"] = torch.tensor(ind)
    state[f"{name}.ind_"] = torch.tensor([i for i in range(features) if i not in ind])
    state[f"{name}.inv_perm"] = torch.cat([state[f"{name}.ind"], state[f"{name}.ind_"]]).argsort()
    state[f"{name}.weights"], state[f"{name}.scale"] = randn(len(ind), 2), math.pi / bounds[ind]


def coupling(state, name, passive, active, slopes, context):
    """prqct of a layer: K widths, K heights and `slopes` for each number."""
    state[f"{name}.identity_features"], state[f"{name}.transform_features"] = (
        torch.tensor(passive),
        torch.tensor(active),
    )
    resnet(state, f"{name}.transform_net", len(passive), len(active) * (2 * K + slopes), context)
    rest = f"{name}.unconditional_transform.unnormalized"
    for part, count in (("widths", K), ("heights", K), ("derivatives", slopes)):
        state[f"{rest}_{part}"] = randn(len(passive), count)


def mlp(state, name, inputs, outputs, hidden=5):
    linear(state, f"{name}.net.0", hidden, inputs)
    linear(state, f"{name}.net.2", outputs, hidden)


def conditioned(context):
    """q0, then from the base to data: LULinearPermute, splines coupled and autoregressive, circles, an affine MADE."""
    state = {"q0.loc": randn(1, D), "q0.log_scale": 0.3 * randn(1, D)}
    state["flows.0.permutation._permutation"] = torch.tensor([2, 0, 3, 1])
    state["flows.0.linear.bias"], state["flows.0.linear.unconstrained_upper_diag"] = randn(D), randn(D)
    state["flows.0.linear.lower_entries"], state["flows.0.linear.upper_entries"] = randn(6), randn(6)
    coupling(state, "flows.1.prqct", [0, 3], [1, 2], K - 1, context)
    made(state, "flows.2.mprqat.autoregressive_net", D, 3 * K - 1, context)
    coupling(state, "flows.3.prqct", [0, 1], [2, 3], K + 1, context)
    angles(state, "flows.3.prqct.transform_net.preprocessing", [0], 2, BOUNDS)
    state["flows.3.prqct.tail_bound"] = BOUNDS[2:].clone()
    state["flows.3.prqct.unconditional_transform.tail_bound"] = BOUNDS[:2].clone()
    made(state, "flows.4.mprqat.autoregressive_net", D, 3 * K + 1, context)
    angles(state, "flows.4.mprqat.autoregressive_net.preprocessing", CIRCLES, D, BOUNDS)
    state["flows.4.mprqat.tail_bound"] = BOUNDS.clone()
    made(state, "flows.5.autoregressive_net", D, 2, context)
    return state


# ---- normflows' formulas, for one event


def mixed(x, raw, i):
    """A number of a layer with circles: y and the slope."""
    w, h, d = raw[:K], raw[K : 2 * K], raw[2 * K :]
    bound = BOUNDS[i].item()
    assert abs(x) <= bound
    if i in CIRCLES:
        return spline(x, w, h, [*d[:-1], d[0]], -bound, bound, linear=False)
    return spline(x, w, h, d[1:-1], -bound, bound)


def periodic(state, name, x):
    y = x.clone()
    for k, i in enumerate(state[f"{name}.ind"].tolist()):
        u, v = state[f"{name}.weights"][k].tolist()
        angle = state[f"{name}.scale"][k].item() * x[i].item()
        y[i] = u * math.sin(angle) + v * math.cos(angle)
    return y


def run_made(state, name, x, context):
    """As in nflows, but the context is added as it is, and gates the blocks."""
    h = apply(state, f"{name}.initial_layer", x)
    if len(context):
        h = h + apply(state, f"{name}.context_layer", context)
    for i in range(2):
        block = f"{name}.blocks.{i}"
        t = apply(state, f"{block}.linear_layers.0", h.clamp(min=0))
        t = apply(state, f"{block}.linear_layers.1", t.clamp(min=0))
        if len(context):
            t = t / (1 + torch.exp(-apply(state, f"{block}.context_layer", context)))
        h = h + t
    return apply(state, f"{name}.final_layer", h)


def plain_coupling(state, name, x, context, element):
    """x through prqct, by `element(x, raw, feature)`; widths and heights divided by sqrt(hidden_features)."""
    passive, active = (state[f"{name}.{n}_features"].tolist() for n in ("identity", "transform"))
    net, b = f"{name}.transform_net", x[passive]
    if f"{net}.preprocessing.ind" in state:
        b = periodic(state, f"{net}.preprocessing", b)
    raw = run_resnet(state, net, b, context).view(len(active), -1)
    raw[:, : 2 * K] /= math.sqrt(6)
    rest = [state[f"{name}.unconditional_transform.unnormalized_{n}"] for n in ("widths", "heights", "derivatives")]
    y, total = x.clone(), 0.0
    for features, parameters in ((active, raw), (passive, torch.cat(rest, -1))):
        for row, i in zip(parameters.tolist(), features, strict=True):
            value, slope = element(x[i].item(), row, i)
            y[i] = value
            total += math.log(slope)
    return y, total


def plain_made(state, name, x, context, element):
    seen = periodic(state, f"{name}.preprocessing", x) if f"{name}.preprocessing.ind" in state else x
    y, total = x.clone(), 0.0
    for i, row in enumerate(run_made(state, name, seen, context).view(D, -1).tolist()):
        value, slope = element(x[i].item(), row, i)
        y[i] = value
        total += math.log(slope)
    return y, total


def tails(x, raw, i):
    return spline(x, raw[:K], raw[K : 2 * K], raw[2 * K :], -B, B)


def plain_lu(state, name, x):
    """P, then L U x + b."""
    x = x[state[f"{name}.permutation._permutation"]]
    L, U = torch.eye(D, dtype=f64), torch.zeros(D, D, dtype=f64)
    lower = iter(state[f"{name}.linear.lower_entries"].tolist())
    upper = iter(state[f"{name}.linear.upper_entries"].tolist())
    for i in range(D):
        for j in range(i):
            L[i, j] = next(lower)
        U[i, i] = 1e-3 + softplus(state[f"{name}.linear.unconstrained_upper_diag"][i].item())
        for j in range(i + 1, D):
            U[i, j] = next(upper)
    return L @ (U @ x) + state[f"{name}.linear.bias"], U.diagonal().log().sum().item()


def plain(state, x, context):
    """z and the log-determinant of one event, given as what the affine MADE made of it."""
    x, a = plain_made(state, "flows.4.mprqat.autoregressive_net", x, context, mixed)
    x, b = plain_coupling(state, "flows.3.prqct", x, context, mixed)
    x, c = plain_made(state, "flows.2.mprqat.autoregressive_net", x, context, tails)
    x, d = plain_coupling(state, "flows.1.prqct", x, context, tails)
    x, e = plain_lu(state, "flows.0", x)
    return x, a + b + c + d + e


@pytest.mark.parametrize("context", [0, C])
def test_a_flow_of_every_kind_follows_the_formulas(context):
    state = conditioned(context)
    flow, report = flows.from_normflows(state, tail_bound=B)
    inner = (2 * torch.rand(6, D, dtype=f64) - 1) * BOUNDS
    c = randn(6, context)
    given = c if context else None
    # the affine MADE goes from the base to data in its fast direction: s = sigmoid(u + 2) + 1e-3
    x, jump = inner.clone(), torch.zeros(6, dtype=f64)
    for n in range(6):
        for i, (u, t) in enumerate(run_made(state, "flows.5.autoregressive_net", inner[n], c[n]).view(D, 2).tolist()):
            scale = sigmoid(u + 2) + 1e-3
            x[n, i] = inner[n, i] * scale + t
            jump[n] -= math.log(scale)
    z, logdet = flow.transform(x, given)
    for n in range(6):
        expected, total = plain(state, inner[n], c[n])
        assert_close(z[n], expected, rtol=1e-11, atol=1e-11)
        assert_close(logdet[n].item(), total + jump[n].item(), rtol=1e-10, atol=1e-10)
    base = torch.distributions.Normal(state["q0.loc"][0], state["q0.log_scale"][0].exp())
    assert_close(flow.log_prob(x, given), base.log_prob(z).sum(-1) + logdet, rtol=1e-12, atol=1e-12)
    back, logdet_back = flow.transform.inverse(z, given)
    # six random layers flatten some directions: what the inverse found is held against what forward can resolve
    assert_close(flow.transform(back, given)[0], z, rtol=1e-10, atol=1e-10)
    assert_close(logdet_back, -flow.transform(back, given)[1], rtol=1e-9, atol=1e-9)
    assert set(report.placed) | set(report.ignored) == set(state)
    assert report.inferred["circular"] == "[0, 3]" and report.inferred["layers"] == "6"
    assert "4 bins, circles [3], else linear tails" in report.inferred["flows.3.prqct"]


def real_nvp():
    """Layers of the base's side first: a block, a swap, a masked flow, an ActNorm, a permutation."""
    state = {"q0.loc": torch.zeros(1, D, dtype=f64), "q0.log_scale": torch.zeros(1, D, dtype=f64)}
    mlp(state, "flows.0.flows.1.param_map", 2, 4)
    state["flows.2.b"] = torch.tensor([[1.0, 0.0, 0.0, 1.0]], dtype=f64)
    mlp(state, "flows.2.s", D, D)
    mlp(state, "flows.2.t", D, D)
    state["flows.3.s"], state["flows.3.t"], state["flows.3.data_dep_init_done"] = (
        randn(1, D),
        randn(1, D),
        torch.ones(()),
    )
    state["flows.4.perm"] = torch.tensor([2, 0, 3, 1])
    state["flows.4.inv_perm"] = state["flows.4.perm"].argsort()
    return state


def run_mlp(state, name, x):
    return apply(state, f"{name}.net.2", apply(state, f"{name}.net.0", x).clamp(min=0))


@pytest.mark.parametrize("form", ["exp", "sigmoid", "sigmoid_inv"])
def test_affine_couplings_follow_the_formulas(form):
    state = real_nvp()
    flow, report = flows.from_normflows(state, fixed={"flows.1": "swap"}, scale_map=form)
    scale = {"exp": math.exp, "sigmoid": lambda s: 1 / sigmoid(s + 2), "sigmoid_inv": lambda s: sigmoid(s + 2)}[form]
    z = randn(5, D)
    x, logdet = flow.transform.inverse(z)
    for n in range(5):
        y, total = z[n].clone(), 0.0
        raw = run_mlp(state, "flows.0.flows.1.param_map", y[:2]).tolist()  # shift, scale, shift, scale
        for i in (0, 1):
            y[2 + i] = y[2 + i] * scale(raw[2 * i + 1]) + raw[2 * i]
            total += math.log(scale(raw[2 * i + 1]))
        y = torch.cat([y[2:], y[:2]])
        b = state["flows.2.b"][0]
        s, t = run_mlp(state, "flows.2.s", b * y), run_mlp(state, "flows.2.t", b * y)
        y = b * y + (1 - b) * (y * s.exp() + t)
        total += ((1 - b) * s).sum().item() + state["flows.3.s"].sum().item()
        y = (y * state["flows.3.s"][0].exp() + state["flows.3.t"][0])[state["flows.4.perm"]]
        assert_close(x[n], y, rtol=1e-12, atol=1e-12)
        assert_close(logdet[n].item(), total, rtol=1e-11, atol=1e-11)
    assert_close(flow.transform(x)[0], z, rtol=1e-10, atol=1e-10)
    assert report.assumed["split_mode"] == "channel" and report.assumed["flows.1"] == "swap"
    key = "flows.2.s.net.0.weight"
    assert_close(dict(flow.named_parameters())[report.placed[key]], state[key])


def test_the_uniform_and_normal_base():
    state = {"q0.ind": torch.tensor([2, 0]), "q0.ind_": torch.tensor([1]), "q0.inv_perm": torch.tensor([1, 2, 0])}
    state["q0.scale"] = torch.tensor([4.0, 0.5, 2 * math.pi], dtype=f64)
    state |= {"flows.0.perm": torch.arange(3), "flows.0.inv_perm": torch.arange(3)}
    flow, _ = flows.from_normflows(state)
    x = torch.tensor([[1.9, 0.3, -3.1]], dtype=f64)
    expected = -math.log(4.0) - math.log(2 * math.pi) - math.log(0.5) - 0.5 * (0.6**2 + math.log(2 * math.pi))
    assert_close(flow.log_prob(x).item(), expected, rtol=1e-13, atol=0)
    assert flow.log_prob(torch.tensor([[2.1, 0.3, 0.0]], dtype=f64)).isneginf().all()
    sample = flow.sample(4000, seed=1)
    # the standard error of a standard deviation of 4000 numbers is about 1 %
    assert_close(sample.std(0), torch.tensor([4 / 12**0.5, 0.5, 2 * math.pi / 12**0.5], dtype=f64), rtol=0.05, atol=0)


def test_an_imported_flow_trains_and_is_kept(tmp_path):
    flow, _ = flows.from_normflows(conditioned(0), tail_bound=B)
    x = randn(16, D)
    before = flow.log_prob(x).mean()
    optimiser = torch.optim.Adam(flow.parameters(), 1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()
    assert flow.log_prob(x).mean() > before
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())
    hepops.save(flow, tmp_path / "flow")
    assert_close(hepops.load(tmp_path / "flow").log_prob(x), flow.log_prob(x), rtol=0, atol=0)


def without(state, key):
    return {k: v for k, v in state.items() if not k.startswith(key)}


BLOCK = "flows.1.prqct.transform_net.blocks.0.linear_layers.1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: without(s, "flows.2.mprqat.autoregressive_net.final_layer.bias"),
            r"1 missing:\n  .*final_layer.bias",
        ),
        (lambda s: s | {f"{BLOCK}.weight": randn(6, 5)}, r"linear_layers.1.weight: \(6, 5\), needs \(6, 6\)"),
        (lambda s: s | {"flows.4.mprqat.tail_bound": randn(3)}, r"tail_bound: \(3,\), needs \(4,\)"),
        (lambda s: s | {"flows.1.prqct.spare": randn(1)}, r"1 unexpected:\n  flows.1.prqct.spare"),
        (lambda s: s | {"flows.1.weird": randn(1)}, "flows.1. has prqct, weird: no layer is known that has that"),
        (lambda s: s | {"flows.7.perm": torch.arange(D), "flows.7.inv_perm": torch.arange(D)}, "flows.6 has no keys"),
        (lambda s: s | {"flows.6.u": randn(1, D), "flows.6.w": randn(1, D), "flows.6.b": randn(1)}, "which is Planar"),
        (lambda s: s | {"flows.6.perm": torch.arange(3), "flows.6.inv_perm": torch.arange(3)}, "has 3 features, trans"),
        (lambda s: s | {"flows.0.permutation._permutation": torch.zeros(D).long()}, "is no permutation"),
        (lambda s: s | {"q0.log_scale": randn(1, 3)}, r"q0.log_scale: \(1, 3\), needs \(1, 4\)"),
        (lambda s: s | {"q0.loc": randn(1, 3, 4, 4)}, "images and class conditional bases"),
        (lambda s: without(s, "q0."), "q0 has no keys"),
        (lambda s: without(s, "flows."), "there is no layer under 'flows.'"),
        (lambda s: s | {f"{BLOCK}.bias": randn(6) / 0}, "has NaN or infinite numbers"),
        (
            lambda s: s | {"flows.4.mprqat.autoregressive_net.preprocessing.ind": torch.tensor([1, 3])},
            r"has \[1, 3\] of the features \[0, 1, 2, 3\] as angles, against other layers",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_by_name(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        flows.from_normflows(change(conditioned(0)), tail_bound=B)
    assert "from_normflows: " in str(caught.value) and len(str(caught.value).splitlines()) < 8


def test_what_a_state_dict_does_not_hold_must_be_given():
    state = conditioned(0)
    with pytest.raises(flows.StateDictError, match="give tail_bound"):
        flows.from_normflows(state)
    box = {k: v for k, v in state.items() if k.startswith("q0.")}
    coupling(box, "flows.0.prqct", [0, 3], [1, 2], K + 1, 0)
    with pytest.raises(flows.StateDictError, match=r"on \[0, 1\] \(tails=None\) or has circles: give circular"):
        flows.from_normflows(box)
    on_a_box, _ = flows.from_normflows(box, circular=[])
    assert on_a_box.transform.domain == (0.0, 1.0)
    circles, _ = flows.from_normflows(box, circular=[1], tail_bound=B)
    assert circles.transform.domain is None
    with pytest.raises(flows.StateDictError, match=r"sees the features \[0\] as numbers, which are circles"):
        flows.from_normflows(box, circular=[0, 1], tail_bound=B)
    angles(box, "flows.0.prqct.transform_net.preprocessing", [0], 2, BOUNDS)
    with pytest.raises(
        flows.StateDictError, match=r"no layer tells whether the features \[1, 2\] are circles: give circ"
    ):
        flows.from_normflows(box, tail_bound=B)
    with pytest.raises(flows.StateDictError, match="as angles, against circular"):
        flows.from_normflows(box, circular=[1], tail_bound=B)
    flows.from_normflows(box, circular=[0, 1], tail_bound=B)


def test_wrong_arguments_are_refused():
    state = real_nvp()
    for arguments, message in (
        ({"scale_map": "tanh"}, "scale_map must be one of exp, sigmoid, sigmoid_inv, got 'tanh'"),
        ({"split": {"flows.0": "half"}}, "split must be one of .*, got 'half'"),
        ({"tail_bound": -1.0}, "tail_bound must be positive and finite, got -1.0"),
        ({"circular": [4]}, r"circular must be of features 0 to 4 - 1, got \[4\]"),
        ({"activation": "sine"}, "activation must be a function or one of"),
        ({"fixed": {"flows.1": "turn"}}, "fixed must hold transforms or 'swap', got 'turn'"),
        ({"fixed": {"flows.1": "swap", "layer": "swap"}}, "fixed names what is not there: layer"),
        (
            {"fixed": {"flows.1": "swap"}, "networks": {"x": torch.nn.Linear(1, 1)}},
            "networks names what is not there: x",
        ),
        ({"fixed": {"flows.1": "swap"}, "split": "checkerboard", "base": flows.Normal(3, f64)}, "3 features"),
    ):
        with pytest.raises(ValueError, match=message):
            flows.from_normflows(state, **arguments)


def test_names_of_another_library_are_told():
    with pytest.raises(
        flows.StateDictError, match=r"names are those of normflows: from_normflows\(state, prefix='m.', ...\)"
    ):
        flows.from_normflows({f"m.{k}": v for k, v in real_nvp().items()})
    with pytest.raises(flows.StateDictError, match=r"names are those of normflows: from_normflows\(state, ...\)"):
        flows.from_nflows(real_nvp())
    with pytest.raises(flows.StateDictError, match=r"names are those of nflows: from_nflows\(state, ...\)"):
        flows.from_normflows({"_transform._permutation": torch.tensor([1, 0])})
