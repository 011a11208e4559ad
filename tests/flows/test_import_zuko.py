"""State dicts of zuko: equal to zuko where it is installed, and to its formulas where not."""

import math

import hepops
import pytest
import torch
from hepops import flows
from torch.testing import assert_close

from .plain_spline import clipped, spline

f64 = torch.float64
K, D, C = 4, 3, 2


def randn(*shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=f64)


def linear(state, name, outputs, inputs, mask=None):
    state[f"{name}.weight"], state[f"{name}.bias"] = randn(outputs, inputs, scale=0.5), randn(outputs, scale=0.5)
    if mask is not None:
        state[f"{name}.mask"] = mask


def masked(state, name, order, per, context, hidden=8):
    """The masks of a MaskedMLP for `order`, one layer of which is hidden: unit k sees what feature k % D may."""
    sees = order[:, None] > order  # (D, D)
    first = torch.cat([sees, torch.ones(D, context, dtype=torch.bool)], 1)
    units = torch.arange(hidden) % D
    # an output of feature i may read the units whose inputs are among its own
    reads = torch.stack([torch.stack([~(sees[k] & ~sees[i]).any() for k in range(D)]) for i in range(D)])
    linear(state, f"{name}.hyper.0", hidden, D + context, first[units])
    linear(state, f"{name}.hyper.2", D * per, hidden, reads[:, units].repeat_interleave(per, 0))
    state[f"{name}.order"] = order


def apply(state, name, x):
    weight = state[f"{name}.weight"]
    if f"{name}.mask" in state:
        weight = weight * state[f"{name}.mask"]
    return weight @ x + state[f"{name}.bias"]


def run(state, name, x):
    return apply(state, f"{name}.2", apply(state, f"{name}.0", x).clamp(min=0))


def split(raw):
    raw = raw.tolist()
    return raw[:K], raw[K : 2 * K], raw[2 * K :]


def everything(context):
    """An autoregressive spline, an affine coupling, a permutation, an inverse autoregressive affine map."""
    state = {}
    masked(state, "transform.transforms.0", torch.tensor([2, 0, 1]), 3 * K - 1, context)
    name = "transform.transforms.1"
    state[f"{name}.mask"] = torch.tensor([True, False, False])
    linear(state, f"{name}.hyper.0", 8, 1 + context)
    linear(state, f"{name}.hyper.2", 4, 8)
    state["transform.transforms.2._0"] = torch.tensor([1, 2, 0])
    masked(state, "transform.transforms.3.transform", torch.tensor([0, 1, 1]), 2, context)
    state["base.loc"], state["base.scale"] = randn(D), randn(D).abs() + 0.5
    return state


def affine(x, raw):
    log_scale = clipped(raw[1].item(), 1)
    return x * math.exp(log_scale) + raw[0].item(), log_scale


def plain(state, x, context):
    """z and the log-determinant of one event by zuko's formulas, number by number."""
    total = 0.0
    raw = run(state, "transform.transforms.0.hyper", torch.cat([x, context])).view(D, -1)
    y = x.clone()
    for i in range(D):
        y[i], slope = spline(x[i].item(), *split(raw[i]), -5.0, 5.0, zuko=True)
        total += math.log(slope)
    x = y
    raw = run(state, "transform.transforms.1.hyper", torch.cat([x[:1], context])).view(2, 2)
    y = x.clone()
    for row, i in enumerate((1, 2)):
        value, log_scale = affine(x[i].item(), raw[row])
        y[i] = value
        total += log_scale
    y = y[state["transform.transforms.2._0"]]
    # the inverse: features of order 0, then of order 1
    x = torch.zeros(D, dtype=f64)
    for i in range(D):
        raw = run(state, "transform.transforms.3.transform.hyper", torch.cat([x, context])).view(D, 2)
        log_scale = clipped(raw[i, 1].item(), 1)
        x[i] = (y[i] - raw[i, 0]) * math.exp(-log_scale)
        total -= log_scale
    return x, total


@pytest.mark.parametrize("context", [0, C])
def test_a_flow_of_every_kind_follows_the_formulas(context):
    state = everything(context)
    flow, report = flows.from_zuko(state)
    x, c = randn(6, D, scale=2.0), randn(6, context)
    x[0, 0] = 7.0  # outside of the bound
    given = c if context else None
    z, logdet = flow.transform(x, given)
    for i in range(6):
        expected, total = plain(state, x[i], c[i])
        assert_close(z[i], expected, rtol=1e-12, atol=1e-12)
        assert_close(logdet[i].item(), total, rtol=1e-11, atol=1e-11)
    base = torch.distributions.Normal(state["base.loc"], state["base.scale"])
    assert_close(flow.log_prob(x, given), base.log_prob(z).sum(-1) + logdet, rtol=1e-12, atol=1e-12)
    back, logdet_back = flow.transform.inverse(z, given)
    assert_close(back, x, rtol=1e-9, atol=1e-9)
    assert_close(logdet_back, -logdet, rtol=1e-9, atol=1e-9)
    assert set(report.placed) | set(report.ignored) == set(state)
    assert report.inferred["transform.transforms.0.passes"] == "3"
    assert report.inferred["transform.transforms.3.transform.passes"] == "2"
    assert "rational-quadratic spline, 4 bins" in str(report)


def test_angles_turn_by_half_a_circle_first():
    state = {
        "base.lower": torch.full((D,), -math.pi - 1e-5, dtype=f64),
        "base.upper": torch.full((D,), math.pi + 1e-5, dtype=f64),
    }
    masked(state, "transform.transforms.0", torch.arange(D), 3 * K - 1, 0)
    flow, report = flows.from_zuko(state)
    x = math.pi * (2 * torch.rand(10, D, dtype=f64) - 1)
    z, logdet = flow.transform(x)
    for n in range(10):
        raw = run(state, "transform.transforms.0.hyper", x[n]).view(D, -1)
        for i in range(D):
            shifted = x[n, i].item() % (2 * math.pi) - math.pi
            y, slope = spline(shifted, *split(raw[i]), -math.pi, math.pi, zuko=True)
            assert_close(z[n, i].item(), y, rtol=1e-12, atol=1e-12)
            logdet[n] -= math.log(slope)
    assert_close(logdet, torch.zeros(10, dtype=f64), rtol=0, atol=1e-11)
    assert_close(flow.transform.inverse(z)[0], x, rtol=0, atol=1e-9)
    assert_close(flow.base.log_prob(z), torch.full((10,), -D * math.log(2 * math.pi + 2e-5), dtype=f64))
    assert report.inferred["transform.transforms.0"] == "circular rational-quadratic spline, 4 bins"
    # as zuko before 1.3 named the bounds
    old = {k.replace("lower", "_0").replace("upper", "_1"): v for k, v in state.items()}
    assert_close(flows.from_zuko(old)[0].log_prob(x), flow.log_prob(x))


def test_one_feature_has_parameters_or_a_network_of_the_context():
    state = {"transform.transforms.0.phi.0": randn(1, K), "transform.transforms.0.phi.1": randn(1, K)}
    state |= {"transform.transforms.0.phi.2": randn(1, K - 1), "base.loc": torch.zeros(1), "base.scale": torch.ones(1)}
    flow, _ = flows.from_zuko(state)
    y, slope = spline(0.7, *[state[f"transform.transforms.0.phi.{i}"][0].tolist() for i in range(3)], -5, 5, zuko=True)
    expected = -0.5 * y**2 - 0.5 * math.log(2 * math.pi) + math.log(slope)
    assert_close(flow.log_prob(torch.tensor([[0.7]], dtype=f64)).item(), expected, rtol=1e-12, atol=0)

    state = {"base.loc": torch.zeros(1), "base.scale": torch.ones(1)}
    linear(state, "transform.hyper.0", 8, C)
    linear(state, "transform.hyper.2", 2, 8)
    flow, _ = flows.from_zuko(state)
    context = randn(C)
    y, log_scale = affine(0.7, run(state, "transform.hyper", context))
    expected = -0.5 * y**2 - 0.5 * math.log(2 * math.pi) + log_scale
    assert_close(flow.log_prob(torch.tensor([0.7], dtype=f64), context).item(), expected, rtol=1e-12, atol=0)


def test_a_masked_network_stays_autoregressive_in_training():
    flow, _ = flows.from_zuko(everything(0))
    layer = flow.transform.transforms[0]
    optimiser = torch.optim.SGD(flow.parameters(), 0.01)
    (-flow.log_prob(randn(16, D)).mean()).backward()
    optimiser.step()
    J = torch.autograd.functional.jacobian(lambda t: layer(t)[0], randn(D))
    order = torch.tensor([2, 0, 1])
    assert J[(order[:, None] < order)].eq(0).all()


FIRST = "transform.transforms.0.hyper"


def without(state, key):
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, f"{FIRST}.0.weight"), rf"1 missing:\n  {FIRST}.0.weight"),
        (lambda s: s | {f"{FIRST}.0.spare": randn(1)}, rf"1 unexpected:\n  {FIRST}.0.spare"),
        (lambda s: s | {"transform.transforms.5.phi.0": randn(3)}, "a transform without keys: 4"),
        (
            lambda s: s | {"transform.transforms.4.weird": randn(3)},
            "transforms.4.: no transform is known that has weird",
        ),
        (lambda s: without(s, "base.loc"), "no base is known that has scale"),
        (lambda s: s | {"base.scale": torch.ones(2)}, r"base.scale: \(2,\), needs \(3,\)"),
        (
            lambda s: s | {"transform.transforms.1.mask": torch.ones(4).bool()},
            r"transforms.1.mask: \(4,\), needs \(3,\)",
        ),
        (lambda s: s | {f"{FIRST}.2.mask": torch.ones(33, 8).bool()}, "its masks have a cycle"),
        (lambda s: s | {f"{FIRST}.2.mask": torch.ones(33, 7).bool()}, r"hyper.2.mask: \(33, 7\), needs \(33, 8\)"),
        (lambda s: s | {f"{FIRST}.0.bias": randn(7)}, r"hyper.0.bias: \(7,\), needs \(8,\)"),
        (lambda s: s | wider(s), r"hyper.2.weight: \(33, 9\), needs \(33, 8\)"),
        (
            lambda s: s | {"transform.transforms.1.hyper.0.weight": randn(8, 0)},
            "1 inputs too few for what it is to see",
        ),
        (lambda s: s | {f"{FIRST}.0.bias": randn(8) / 0}, "has NaN or infinite numbers"),
        (lambda s: s | {"other": randn(1)}, r"1 unexpected:\n  other"),
        (
            lambda s: {"transform.phi.0": randn(4), "base.loc": randn(3), "base.scale": torch.ones(3)},
            r"\(4,\), needs \(3,\)",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_by_name(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        flows.from_zuko(change(everything(0)))
    if isinstance(caught.value, flows.StateDictError):
        assert "zuko: " in str(caught.value.report)
        assert len(str(caught.value).splitlines()) < 6  # one thing does not fit: nothing else is listed


def wider(state):
    """The last layer of one network, and its mask, as of another width."""
    return {f"{FIRST}.2.weight": randn(33, 9), f"{FIRST}.2.mask": torch.ones(33, 9).bool()}


def test_all_that_differs_is_told_at_once_and_briefly():
    """A user who changed the network sees every layer it concerns, the first few by name, and the count."""
    state = everything(0)
    state |= {"transform.transforms.1.hyper.2.bias": randn(5), f"{FIRST}.0.bias": randn(6)}
    state = without(state, "transform.transforms.3.transform.hyper.2.weight")
    state |= {f"transform.transforms.1.hyper.0.extra{i}": randn(1) for i in range(9)}
    with pytest.raises(flows.StateDictError) as caught:
        flows.from_zuko(state)
    text, report = str(caught.value), caught.value.report
    assert report.missing == ["transform.transforms.3.transform.hyper.2.weight"]
    assert report.misshapen == [
        f"{FIRST}.0.bias: (6,), needs (8,)",
        "transform.transforms.1.hyper.2.bias: (5,), needs (4,)",
    ]
    assert report.unexpected == [f"transform.transforms.1.hyper.0.extra{i}" for i in range(9)]
    for words in ("1 missing:", "2 of another shape:", "9 unexpected:", "extra4\n  ... 4 more", "keys were read"):
        assert words in text
    assert "extra5" not in text and "placed" not in text and len(text.splitlines()) < 16


def test_names_of_another_library_or_a_prefix_are_told():
    state = everything(0)
    with pytest.raises(
        flows.StateDictError, match=r"names are those of zuko: from_zuko\(state, prefix='net.flow.', ...\)$"
    ):
        flows.from_zuko({f"net.flow.{k}": v for k, v in state.items()})
    both = {**{f"net.flow.{k}": v for k, v in state.items()}, "net.embedding.weight": randn(1)}
    with pytest.raises(
        flows.StateDictError, match=r"prefix='net.flow.', ...\); leave out the 1 keys that do not begin so"
    ):
        flows.from_zuko(both)
    with pytest.raises(
        ValueError, match=r"keys must begin with the prefix 'net.flow.', but there are net.embedding.weight"
    ):
        flows.from_zuko(both, prefix="net.flow.")
    with pytest.raises(flows.StateDictError, match=r"names are those of zuko: from_zuko\(state, ...\)"):
        flows.from_nflows(state)
    with pytest.raises(flows.StateDictError, match=r"names are those of nflows: from_nflows\(state, ...\)"):
        flows.from_zuko({"_transform._permutation": torch.tensor([1, 0])})
    with pytest.raises(ValueError, match=r"got a Linear: give its state_dict\(\)"):
        flows.from_zuko(torch.nn.Linear(1, 1))


def test_a_checkpoint_that_holds_the_state_dict_will_do(tmp_path):
    state, x = everything(0), randn(5, D)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "last.ckpt")
    expected = flows.from_zuko(state)[0].log_prob(x)
    assert_close(flows.from_zuko(tmp_path / "last.ckpt")[0].log_prob(x), expected, rtol=0, atol=0)


def test_an_imported_flow_is_kept_with_its_description(tmp_path):
    flow, _ = flows.from_zuko(everything(C))
    hepops.save(flow, tmp_path / "flow")
    x, c = randn(5, D), randn(5, C)
    assert_close(hepops.load(tmp_path / "flow").log_prob(x, c), flow.log_prob(x, c), rtol=0, atol=0)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="univariate must be"):
        flows.from_zuko(everything(0), univariate="cubic")
    with pytest.raises(flows.StateDictError, match="has 11 parameters a feature: no affine has as many"):
        flows.from_zuko(everything(0), univariate="affine")
    with pytest.raises(ValueError, match="names to tensors, got list"):
        flows.from_zuko([1])


# ---- zuko itself

ZUKO = {
    "NSF": ("NSF", {"features": 4, "transforms": 3}),
    "NSF of couplings": ("NSF", {"features": 4, "transforms": 3, "passes": 2, "bins": 5}),
    "NSF in random order": ("NSF", {"features": 4, "transforms": 2, "randperm": True, "hidden_features": (32, 16, 8)}),
    "NSF residual": ("NSF", {"features": 4, "transforms": 2, "residual": True, "hidden_features": (16, 16, 8)}),
    "NSF of one": ("NSF", {"features": 1, "transforms": 2}),
    "NCSF": ("NCSF", {"features": 4, "transforms": 2}),
    "MAF": ("MAF", {"features": 4, "transforms": 3}),
    "MAF ELU": ("MAF", {"features": 4, "transforms": 2, "activation": torch.nn.ELU}),
    "NICE": ("NICE", {"features": 4, "transforms": 3}),
    "NICE normalised": ("NICE", {"features": 4, "transforms": 2, "normalize": True, "randmask": True}),
    "MAF on a graph": (
        "MAF",
        {"features": 3, "transforms": 1, "adjacency": torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 1]]).bool()},
    ),
}


@pytest.mark.parametrize("name", ZUKO)
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("single", [False, True])
def test_zuko_itself_gives_the_same(name, context, single):
    zuko = pytest.importorskip("zuko")
    kind, options = ZUKO[name]
    dtype = torch.float32 if single else f64
    options = dict(options)
    if "adjacency" in options:
        source = zuko.flows.Flow(
            [zuko.flows.autoregressive.MaskedAutoregressiveTransform(3, context, adjacency=options["adjacency"])],
            zuko.lazy.UnconditionalDistribution(
                zuko.distributions.DiagNormal, torch.zeros(3), torch.ones(3), buffer=True
            ),
        )
    else:
        source = getattr(zuko.flows, kind)(context=context, **options)
    source = source.to(dtype)
    with torch.no_grad():
        for p in source.parameters():
            p.add_(0.2 * torch.randn_like(p))
    x = randn(200, options["features"]).to(dtype)
    c = randn(200, context).to(dtype) if context else None
    flow, report = flows.from_zuko(source.state_dict(), activation="elu" if "ELU" in name else "relu")
    assert set(report.placed) | set(report.ignored) == set(source.state_dict())
    # float32: a steep spline multiplies the rounding of its knots
    t = {"rtol": 1e-4, "atol": 1e-3} if single else {"rtol": 1e-11, "atol": 1e-11}
    with torch.no_grad():
        q = source(c)
        z, logdet = q.transform.call_and_ladj(x)
        ours, our_logdet = flow.transform(x, c)
        assert_close(ours, z, **t)
        assert_close(our_logdet, logdet.double(), **t)
        assert_close(flow.log_prob(x, c), q.log_prob(x).double(), **t)
        if not single:
            assert_close(flow.transform.inverse(z, c)[0], q.transform.inv(z), rtol=1e-9, atol=1e-9)
