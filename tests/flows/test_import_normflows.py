"""normflows itself and what is imported from it agree: layers, both directions, log-determinants, densities.

Runs where normflows is installed (`pip install normflows`); test_import_normflows_formulas.py needs it not.
"""

import math
from contextlib import contextmanager

import hepops
import pytest
import torch
from hepops import flows
from torch import nn
from torch.testing import assert_close

nf = pytest.importorskip("normflows")

f64 = torch.float64
D, B, H = 5, 2.5, 8  # features, bound of splines, width of networks
ANGLES = [0, 2, 3]


def randn(*shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=f64)


def shaken(module):
    """Away from the identity, as training leaves it; batch statistics and ActNorm as if it had been used."""
    with torch.no_grad():
        for name, p in [*module.named_parameters(), *module.named_buffers()]:
            last = name.rpartition(".")[2]
            if last == "running_var":
                p.uniform_(0.5, 2.0)
            elif last in ("running_mean",) or isinstance(p, nn.Parameter):
                p.add_(0.3 * torch.randn_like(p))
            elif last == "data_dep_init_done":
                p.fill_(1.0)
    return module.eval()


def mlp(inputs, outputs, **more):
    return nf.nets.MLP([inputs, H, H, outputs], **more)


BOUNDS = torch.tensor([1.0, 2.5, 2.0, 3.0, 1.5])
F = nf.flows
LAYERS = {
    "coupled splines": lambda c: [
        F.CoupledRationalQuadraticSpline(D, 2, H, c, 6, tail_bound=B, reverse_mask=bool(i)) for i in range(2)
    ],
    "coupled circles": lambda c: [F.CoupledRationalQuadraticSpline(D, 1, H, c, 5, "circular", B)],
    "coupled on a box": lambda c: [F.CoupledRationalQuadraticSpline(D, 1, H, c, 5, None)],
    "autoregressive splines": lambda c: [
        F.AutoregressiveRationalQuadraticSpline(D, 2, H, c, 6, B, permute_mask=permute) for permute in (False, True)
    ],
    "circular coupled": lambda c: [
        F.CircularCoupledRationalQuadraticSpline(D, 2, H, ANGLES, c, 6, B, reverse_mask=bool(i)) for i in range(2)
    ],
    "circular coupled, bounds": lambda c: [
        F.CircularCoupledRationalQuadraticSpline(D, 1, H, ANGLES, c, 6, BOUNDS, reverse_mask=bool(i)) for i in range(2)
    ],
    "circular autoregressive": lambda c: [F.CircularAutoregressiveRationalQuadraticSpline(D, 2, H, ANGLES, c, 6, B)],
    "circular autoregressive, bounds": lambda c: [
        F.CircularAutoregressiveRationalQuadraticSpline(D, 1, H, ANGLES, c, 6, BOUNDS)
    ],
    "masked affine autoregressive": lambda c: [F.MaskedAffineAutoregressive(D, H, c), F.LULinearPermute(D, False)],
    "feedforward autoregressive": lambda c: [F.MaskedAffineAutoregressive(D, H, None, 2, False, True)],
    "batch norm": lambda c: [F.MaskedAffineAutoregressive(D, H, c, use_batch_norm=True)],
    "layers within the others": lambda c: [
        F.LULinearPermute(D, False).linear,
        F.LULinearPermute(D, False).permutation,
        F.CoupledRationalQuadraticSpline(D, 1, H, c, 6, tail_bound=B).prqct,
        F.AutoregressiveRationalQuadraticSpline(D, 1, H, c, 6, B).mprqat,
    ],
    "mixing": lambda c: [F.LULinearPermute(D, False), F.Permute(D), F.LULinearPermute(D, False)],
}
UNCONDITIONED = {  # these layers of normflows take no context
    "RealNVP": lambda: [
        layer
        for i in range(3)
        for layer in (
            F.MaskedAffineFlow(torch.arange(D).add(i).remainder(2).float(), mlp(D, D), mlp(D, D)),
            F.ActNorm(D),
        )
    ],
    "NICE": lambda: [
        F.MaskedAffineFlow(torch.tensor([1.0, 0, 0, 1, 0]), mlp(D, D)),
        F.AffineConstFlow((D,), shift=False),
    ],
    "blocks": lambda: [F.AffineCouplingBlock(mlp(3, 4)), F.Permute(D, "swap")] * 2,
    "blocks, inverted split": lambda: [F.AffineCouplingBlock(mlp(2, 6), split_mode="channel_inv")],
    "blocks, sigmoid": lambda: [F.AffineCouplingBlock(mlp(3, 4), scale_map="sigmoid")],
    "blocks, sigmoid_inv": lambda: [F.AffineCouplingBlock(mlp(3, 4), scale_map="sigmoid_inv")],
    "blocks, shifts": lambda: [F.AffineCouplingBlock(mlp(3, 2), scale=False)],
    "dropout": lambda: [F.AffineCouplingBlock(mlp(3, 4, dropout=0.2))],
    "reverse, composite": lambda: [
        F.base.Reverse(F.base.Composite([F.AffineCouplingBlock(mlp(3, 4)), F.ActNorm(D), F.Permute(D)]))
    ],
}
ARGUMENTS = {
    "coupled on a box": {"circular": []},
    "blocks": {"fixed": {"flows.1": "swap", "flows.3": "swap"}},
    "blocks, sigmoid": {"scale_map": "sigmoid"},
    "blocks, sigmoid_inv": {"scale_map": {"flows.0": "sigmoid_inv"}},
}


def model_of(layers, base=None, context=None):
    base = nf.distributions.DiagGaussian(D) if base is None else base
    kind = nf.NormalizingFlow if context is None else nf.ConditionalNormalizingFlow
    return shaken(kind(base, layers).double())


@contextmanager
def default(dtype):
    """normflows sums log-determinants in torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def compare(source, flow, x, context=None, single=False):
    """Both directions, log-determinants and the density, of one model and its import."""
    # float32: a steep spline multiplies the rounding of its knots, and normflows sums log-determinants in single
    t = {"rtol": 1e-4, "atol": 2e-3} if single else {"rtol": 1e-12, "atol": 1e-11}
    more = {} if context is None else {"context": context}
    with torch.no_grad(), default(x.dtype):
        expected, expected_logdet = source.inverse_and_log_det(x, **more)
        z, logdet = flow.transform(x, context)
        assert_close(z, expected, **t)
        assert_close(logdet, expected_logdet.double(), **t)
        assert_close(flow.log_prob(x, context), source.log_prob(x, **more).double(), **t)
        if single:
            return
        there, there_logdet = source.forward_and_log_det(z, **more)
        ours, ours_logdet = flow.transform.inverse(z, context)
        # an inverse of a few steep layers multiplies 1e-16 by their slopes, in normflows' arithmetic as in ours
        assert_close(ours, there, rtol=1e-9, atol=1e-9)
        assert_close(ours_logdet, there_logdet, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("single", [False, True], ids=["f64", "f32"])
@pytest.mark.parametrize("context", [None, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_normflows_itself_gives_the_same(name, context, single):
    if context and name in ("feedforward autoregressive", "mixing"):
        pytest.skip("these have no context in normflows")
    source = model_of(LAYERS[name](context), context=context)
    x = randn(200, D, scale=1.5)
    if name == "coupled on a box":
        x = torch.rand(200, D, dtype=f64)
    elif name.startswith("circular"):  # beyond their bounds, see the test below
        x = (2 * torch.rand(200, D, dtype=f64) - 1) * (BOUNDS.double() if "bounds" in name else B)
    c = None if context is None else randn(200, context)
    if single:
        source, x, c = source.float(), x.float(), None if c is None else c.float()
    state = source.state_dict()
    flow, report = flows.from_normflows(state, tail_bound=B, **ARGUMENTS.get(name, {}))
    assert set(report.placed) | set(report.ignored) == set(state)
    assert all(p.dtype == x.dtype for p in flow.parameters())
    compare(source, flow, x, c, single)


def test_beyond_the_bounds_of_a_layer_with_circles_we_are_the_identity():
    """normflows gives 0 there, for features of linear tails as well: it is no bijection, and cannot be followed."""
    layer = F.CircularAutoregressiveRationalQuadraticSpline(D, 1, H, ANGLES, None, 6, B)
    source = model_of([layer])
    flow, _ = flows.from_normflows(source.state_dict(), tail_bound=B)
    x = torch.full((1, D), 2 * B, dtype=f64)
    with torch.no_grad():
        assert (source.flows[0].inverse(x)[0] == 0).all()
        z, logdet = flow.transform(x)
    assert torch.equal(z, x) and logdet == 0
    assert torch.equal(flow.transform.inverse(z)[0], x)


@pytest.mark.parametrize("name", UNCONDITIONED)
def test_normflows_itself_gives_the_same_without_context(name):
    source = model_of(UNCONDITIONED[name]())
    flow, report = flows.from_normflows(source.state_dict(), **ARGUMENTS.get(name, {}))
    assert set(report.placed) | set(report.ignored) == set(source.state_dict())
    assert report.inferred["layers"] == str(len(source.flows))
    compare(source, flow, randn(200, D))


@pytest.mark.parametrize("mode", ["channel", "channel_inv", "checkerboard", "checkerboard_inv"])
def test_an_even_number_of_features_is_split_as_told(mode):
    block = F.AffineCouplingBlock(mlp(2, 4), split_mode=mode)
    source = model_of([block, F.LULinearPermute(4, False)], nf.distributions.DiagGaussian(4))
    flow, _ = flows.from_normflows(source.state_dict(), split=mode)
    compare(source, flow, randn(50, 4))
    if mode != "channel":
        wrong, _ = flows.from_normflows(source.state_dict())  # the default is normflows' own, and the report says it
        assert (wrong.log_prob(randn(5, 4)) - flow.log_prob(randn(5, 4))).abs().min() > 1e-6


@pytest.mark.parametrize("ind", [[1], [3, 0], [0, 1, 2, 3, 4], [0, 1]], ids=str)
def test_the_base_of_circles(ind):
    scale = torch.tensor([2 * math.pi, 1.0, 2 * B, 0.7, 4.0])
    layer = F.CircularAutoregressiveRationalQuadraticSpline(D, 1, H, ind, None, 6, scale / 2)
    source = model_of([layer], nf.distributions.UniformGaussian(D, ind, scale))
    flow, report = flows.from_normflows(source.state_dict())
    with torch.no_grad():
        z = source.q0.sample(300)
        assert_close(flow.base.log_prob(z), source.q0.log_prob(z), rtol=1e-13, atol=1e-12)
        x = source.flows[0].forward(z)[0]
        compare(source, flow, x)
        ours = flow.base.draw(20000, seed=1)
        assert_close(ours.std(0)[ind], scale.double()[ind] / math.sqrt(12), rtol=0.03, atol=0)
        assert (ours[:, ind].abs() <= scale.double()[ind] / 2).all()
    assert report.placed["q0.ind"].startswith("base")
    beyond = z.clone()
    beyond[:, ind[0]] = 10.0
    assert flow.base.log_prob(beyond).isneginf().all()  # normflows would leave the constant


def test_a_mixture_is_a_base():
    source = model_of([F.LULinearPermute(D, False)], nf.distributions.GaussianMixture(3, D))
    flow, _ = flows.from_normflows(source.state_dict())
    compare(source, flow, randn(100, D))


def test_a_base_or_a_layer_or_a_network_may_be_given():
    box = nf.distributions.base.Uniform(D, -3.0, 3.0)
    source = nf.NormalizingFlow(
        box, [F.CoupledRationalQuadraticSpline(D, 1, H, tail_bound=3.0), F.Planar((D,))]
    ).double()
    source = shaken(source)
    with pytest.raises(flows.StateDictError, match="q0 has no keys"):
        flows.from_normflows(source.state_dict())
    base = flows.Uniform(D, -3.0, 3.0, dtype=f64)
    with pytest.raises(flows.StateDictError, match=r"flows\.1\. has .*, which is Planar: it is not imported"):
        flows.from_normflows(source.state_dict(), base=base, tail_bound=3.0)
    ours, report = flows.from_normflows(
        source.state_dict(), base=base, tail_bound=3.0, fixed={"flows.1": flows.Permutation(range(D))}
    )
    x = randn(50, D).clamp(-2.9, 2.9)
    _, logdet = source.flows[0].inverse(x)
    assert_close(ours.log_prob(x), logdet - D * math.log(6.0), rtol=1e-11, atol=1e-11)
    assert report.ignored["flows.1.u"] == "the layer is given"

    def net(outputs):
        return nn.Sequential(nn.Linear(3, H), nn.Tanh(), nn.Linear(H, outputs), nn.Tanh())

    for outputs, scale in ((4, True), (2, False)):
        source = model_of([F.AffineCouplingBlock(net(outputs), scale)])
        with pytest.raises(flows.StateDictError, match=r"param_map is no MLP of normflows.*give it in networks"):
            flows.from_normflows(source.state_dict())
        given = {"flows.0.flows.1.param_map": net(outputs)}
        flow, _ = flows.from_normflows(source.state_dict(), networks=given)
        compare(source, flow, randn(50, D))


REFUSED = {
    "Radial": lambda: F.Radial((D,)),
    "InvertibleAffine": lambda: F.InvertibleAffine(D),
    "InvertibleAffine or": lambda: F.InvertibleAffine(D, False),
    "BatchNorm, with which": lambda: F.BatchNorm(),
    "CCAffineConst": lambda: F.CCAffineConst((D,), 3),
    "PeriodicWrap": lambda: F.PeriodicWrap([0], torch.ones(1)),
    "PeriodicShift": lambda: F.PeriodicShift([0], 1.0, torch.ones(1)),
    "Residual": lambda: F.Residual(nf.nets.LipschitzMLP([D, 8, D])),
    "GlowBlock": lambda: F.GlowBlock(4, 8),
    "has an output function": lambda: F.AffineCouplingBlock(mlp(3, 4, output_fn="tanh", output_scale=2.0)),
    "an ActNorm that was never used": lambda: F.ActNorm(D),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_not_imported_is_refused_by_name(words):
    layers = [F.LULinearPermute(D), REFUSED[words](), F.LULinearPermute(D)]
    source = nf.NormalizingFlow(nf.distributions.DiagGaussian(D), layers)
    with pytest.raises(flows.StateDictError, match=rf"flows\.1.*{words}"):
        flows.from_normflows(source.state_dict())


def test_bases_that_are_not_imported_are_refused_by_name():
    for base, words in (
        (nf.distributions.base.ClassCondDiagGaussian(D, 3), "class conditional"),
        (nf.distributions.DiagGaussian((3, 8, 8)), "images"),
        (nf.distributions.base.ConditionalDiagGaussian(D, nn.Linear(2, 2 * D)), "ConditionalDiagGaussian"),
    ):
        source = nf.NormalizingFlow(base, [F.LULinearPermute(D)])
        with pytest.raises(flows.StateDictError, match=f"q0.*{words}"):
            flows.from_normflows(source.state_dict())


def test_the_target_stays_where_it_is_and_the_flow_is_kept(tmp_path):
    layers = LAYERS["circular coupled, bounds"](None)
    target = nf.distributions.CircularGaussianMixture()
    source = shaken(nf.NormalizingFlow(nf.distributions.UniformGaussian(D, ANGLES[::-1]), layers, target).double())
    source.save(tmp_path / "flow.pt")
    flow, report = flows.from_normflows(tmp_path / "flow.pt")
    assert report.ignored["p.scale"].startswith("of the target") and report.inferred["circular"] == "[0, 2, 3]"
    hepops.save(flow, tmp_path / "kept")
    x = 0.4 * torch.rand(20, D, dtype=f64)
    assert_close(hepops.load(tmp_path / "kept").log_prob(x), flow.log_prob(x), rtol=0, atol=0)
