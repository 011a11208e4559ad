"""Base distributions: normalised, drawn by number, right in their tails."""

import math

import pytest
import torch
from hepops import flows
from torch.testing import assert_close

f64 = torch.float64
BASES = {
    "normal": lambda t: flows.Normal(3, t),
    "uniform": lambda t: flows.Uniform(3, -1.0, [1.0, 2.0, 3.0], t),
    "diagonal": lambda t: flows.DiagonalNormal([0.0, 1.0, 2.0], [0.1, 1.0, 10.0], dtype=t),
    "multivariate": lambda t: flows.MultivariateNormal([0.0, 1.0], [[2.0, 0.0], [-1.0, 0.5]], dtype=t),
    "von Mises": lambda t: flows.VonMises([0.0, 1.0, -3.0], [0.0, 2.0, 300.0], dtype=t),
    "truncated": lambda t: flows.TruncatedNormal(0.0, 1.0, [-1.0, 5.0, -math.inf], [1.0, 6.0, 0.0], dtype=t),
    "sphere": lambda t: flows.UniformSphere(2, t),
    "U1": lambda t: flows.Haar("U1", 3, t),
    "SU2": lambda t: flows.Haar("SU2", 2, t),
    "SU3": lambda t: flows.Haar("SU3", (2, 2), t),
    "SU4": lambda t: flows.Haar("SU4", (), t),
    "mixture": lambda t: flows.Mixture([flows.Normal(2, t), flows.DiagonalNormal([5.0, 5.0], 0.1, dtype=t)], [1, 3]),
    "product": lambda t: flows.Product([flows.Normal(2, t), flows.Normal(2, t), flows.VonMises(0.0, [1.0], dtype=t)]),
}


@pytest.fixture(params=BASES)
def base(request, dtype, device):
    return BASES[request.param](dtype).to(device)


def scripted(base, u):
    """The base with its uniform numbers given."""
    base._uniform = lambda *args, **kwargs: u
    return base


def test_a_sample_has_its_numbers_whatever_the_batch(base):
    whole = base.draw(9, seed=3, step=2)
    parts = [base.draw(n, seed=3, first=first, step=2) for first, n in [(0, 1), (1, 5), (6, 0), (6, 3)]]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(base.draw(9, seed=4, step=2), whole)
    assert not torch.equal(base.draw(9, seed=3, step=3), whole)


def test_samples_are_in_the_support(base, dtype):
    z = base.draw(200, seed=1)
    assert z.shape == (200, *base.event_shape)
    assert z.real.dtype == dtype
    log_prob = base.log_prob(z)
    assert log_prob.dtype == f64
    assert log_prob.shape == (200,)
    assert log_prob.isfinite().all()
    assert_close(base.log_prob(z.reshape(4, 50, *base.event_shape)).flatten(), log_prob)


def test_single_precision_draws_the_rounded_samples_of_double():
    for make in BASES.values():
        assert_close(make(torch.float32).draw(50, 7), make(f64).draw(50, 7), check_dtype=False, rtol=1e-5, atol=1e-5)


def test_nan_stays_nan_and_shapes_are_checked(base):
    z = base.draw(3, seed=1)
    z.view(3, -1)[1, -1] = math.nan
    log_prob = base.log_prob(z)
    assert log_prob.isnan().tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"z must have shape"):
        base.log_prob(torch.zeros(3, 17, 19))
    with pytest.raises(ValueError, match=r"n and first must not be negative, got -1"):
        base.draw(-1, seed=1)
    with pytest.raises(ValueError, match="seed must be"):
        base.draw(1, seed=1 << 64)


def quadrature(low, high, n=4001):
    """Nodes and weights of Simpson's rule."""
    x = torch.linspace(low, high, n, dtype=f64)
    w = torch.full((n,), 2.0, dtype=f64)
    w[1::2] = 4
    w[0] = w[-1] = 1
    return x[:, None], w * (high - low) / (n - 1) / 3


@pytest.mark.parametrize(
    ("base", "low", "high"),
    [
        (flows.Normal(1), -12, 12),
        (flows.Uniform(1, -1.0, 3.0), -1, 3),
        (flows.DiagonalNormal([3.0], 0.5), -3, 9),
        (flows.MultivariateNormal([3.0], covariance=[[0.25]]), -3, 9),
        (flows.VonMises([1.0], 0.0), 0, 2 * math.pi),
        (flows.VonMises([1.0], 40.0), 0, 2 * math.pi),
        (flows.TruncatedNormal(0.0, 1.0, [-0.5], 2.0), -0.5, 2),
        (flows.TruncatedNormal(0.0, 1.0, [-math.inf], -6.0), -12, -6),
        (flows.TruncatedNormal(0.0, 2.0, [100.0], 100.01, dtype=f64), 100, 100.01),
        (flows.Mixture([flows.DiagonalNormal([3.0], 0.5), flows.Uniform(1, 0.0, 4.0)], [3, 1]), 0, 4),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, flows.Base) else None,
)
def test_densities_integrate_to_one(base, low, high):
    x, w = quadrature(low, high)
    total = (base.log_prob(x).exp() * w).sum()
    missing = 0.75 * math.erfc(6 / math.sqrt(2)) / 2 + 0.75 * math.erfc(2 / math.sqrt(2)) / 2
    expected = 1 - missing if isinstance(base, flows.Mixture) else 1.0
    assert_close(total.item(), expected, rtol=1e-6, atol=0)  # parameters are float32


def test_a_normal_of_any_covariance_against_torch():
    A = torch.randn(4, 4, dtype=f64)
    cov, loc = A @ A.T + 0.1 * torch.eye(4), torch.randn(4, dtype=f64)
    base = flows.MultivariateNormal(loc, covariance=cov, dtype=f64)
    z = base.draw(20000, seed=1)
    assert_close(base.log_prob(z), torch.distributions.MultivariateNormal(loc, cov).log_prob(z), rtol=1e-10, atol=1e-9)
    assert_close(z.T.cov(), cov, rtol=0, atol=5 * cov.diagonal().max().item() / math.sqrt(10000))
    assert base.log_prob(z[:6].reshape(2, 3, 4)).shape == (2, 3)


# -ln of the normalisation and quantiles from mpmath, 60 digits
@pytest.mark.parametrize(
    ("low", "high", "log_mass", "quantiles"),
    [
        (10, math.inf, -53.2312851505124706, [10.0000990776623439, 10.0684118360814294, 10.6625284007895525]),
        (40, 41, -804.608442013753788, [40.0000249968969414, 40.0173141267646511, 40.1722158824790763]),
        (200, math.inf, -20006.2172808981904, [200.000005002376552, 200.003465619241109, 200.034534931485577]),
        (-0.001, 0.001, -7.13354679829352002, [-9.97999999335331889e-4, 0, 9.97999999335331889e-4]),
        (5, 5 + 2**-20, -27.2818845285885741, [5.00000000095367204, 5.00000047683658977, 5.00000095272063982]),
        (-8, 9, -6.2220891626777399e-16, [-3.09023230616762897, 7.79540335961278783e-16, 3.09023230616781369]),
    ],
)
@pytest.mark.parametrize("mirror", [1, -1])
def test_the_truncated_normal_in_its_tails(low, high, log_mass, quantiles, mirror):
    bounds = {"low": [low], "high": high} if mirror == 1 else {"low": [-high], "high": -low}
    base = flows.TruncatedNormal(0.0, 1.0, dtype=f64, **bounds)
    u = torch.tensor([[0.001], [0.5], [0.999]], dtype=f64)
    z = scripted(base, u if mirror == 1 else 1 - u).draw(3, 0)[:, 0]
    # u itself is known to 1e-16, which is 3e-16 in z near 0
    assert_close(mirror * z, torch.tensor(quantiles, dtype=f64), rtol=1e-14, atol=1e-15)
    expected = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) - log_mass
    assert_close(base.log_prob(z[:, None]), expected, rtol=1e-13, atol=1e-12)
    outside = torch.tensor([[mirror * (low - 1e-6)], [math.inf if math.isfinite(high) else -math.inf]], dtype=f64)
    assert base.log_prob(outside).tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize(
    ("kappa", "quantiles"),
    [
        (0.0, [0.1 * math.pi, 0.9 * math.pi, 0.999999 * math.pi]),
        (0.5, [0.20334083911427506, 2.6038014381753885, 3.1415871451600194]),
        (30.0, [0.023040486200365308, 0.30275342036778835, 0.93054694910273686]),
        (1e4, [0.0012566292597877094, 0.016448927333294929, 0.04892187491496849]),
    ],
)
def test_von_mises_quantiles(kappa, quantiles):
    base = flows.VonMises([0.0], kappa, dtype=f64)
    p = torch.tensor([[0.1], [0.9], [0.999999]], dtype=f64)
    expected = torch.tensor(quantiles, dtype=f64)
    assert_close(scripted(base, (1 + p) / 2).draw(3, 0)[:, 0], expected, rtol=1e-9, atol=1e-14)
    assert_close(scripted(base, (1 - p) / 2).draw(3, 0)[:, 0], -expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("kappa", "log_z"),
    [(1e-3, 1.83687731640932986), (1.0, 1.07379142491652413), (50.0, -1.03454743171884993), (1e8, -8.2914018375215)],
)
def test_von_mises_density_at_any_concentration(kappa, log_z):
    base = flows.VonMises([2.0], kappa, dtype=f64)
    d = torch.tensor([[0.0], [1e-4], [3.0]], dtype=f64)
    expected = -2 * kappa * torch.sin(d[:, 0] / 2).square() - log_z
    assert_close(base.log_prob(2.0 + d), expected, rtol=1e-12, atol=1e-9 * math.sqrt(kappa))
    assert_close(base.log_prob(2.0 + d + 2 * math.pi), base.log_prob(2.0 + d), rtol=1e-7, atol=1e-9)
    moment = torch.cos(base.draw(20000, 1) - 2.0).mean().item()
    exact = (torch.special.i1e(torch.tensor(kappa)) / torch.special.i0e(torch.tensor(kappa))).item()
    assert abs(moment - exact) < 5 / math.sqrt(20000 * max(kappa, 1))


def test_a_float32_angle_at_high_concentration_keeps_its_density():
    base, exact = flows.VonMises([1.0], 1e6), flows.VonMises([1.0], 1e6, dtype=f64)
    z = base.draw(100, 1)
    assert_close(base.log_prob(z), exact.log_prob(z.double()), rtol=1e-6, atol=0)  # the parameter's rounding


LEARNABLE = [
    flows.VonMises([0.5], [3.0], learnable=True, dtype=f64),
    flows.VonMises([0.5], [0.1], learnable=True, dtype=f64),
    flows.TruncatedNormal([0.5], [0.7], [3.0], [5.0], learnable=True, dtype=f64),
    flows.TruncatedNormal([0.5], [0.7], [-1.0], [math.inf], learnable=True, dtype=f64),
    flows.TruncatedNormal([0.5], [0.7], [0.5], [0.6], learnable=True, dtype=f64),
    flows.DiagonalNormal([0.5], [0.7], learnable=True, dtype=f64),
    flows.MultivariateNormal([0.5, 1.0], [[1.0, 0.0], [0.5, 2.0]], learnable=True, dtype=f64),
]


@pytest.mark.parametrize("base", LEARNABLE, ids=lambda b: type(b).__name__)
def test_gradients_of_samples_and_densities(base):
    names, values = zip(*[(k, v.detach().clone()) for k, v in base.named_parameters()], strict=True)
    z = base.draw(4, 1).detach()

    def call(method, *args):
        def function(*parameters):
            with torch.nn.utils.stateless._reparametrize_module(base, dict(zip(names, parameters, strict=True))):
                return getattr(base, method)(*args)

        return function

    values = [v.requires_grad_() for v in values]
    assert torch.autograd.gradcheck(call("draw", 4, 1), values, eps=1e-6, atol=1e-7, rtol=1e-5)
    assert torch.autograd.gradcheck(call("log_prob", z), values, eps=1e-6, atol=1e-7, rtol=1e-5)
    x = z.requires_grad_()
    assert torch.autograd.gradcheck(base.log_prob, (x,), eps=1e-7, atol=1e-6, rtol=1e-5)


def moments(U):
    """Numbers whose means tell a measure on a group: entries, products of two, and traces."""
    tr = U.diagonal(dim1=-2, dim2=-1).sum(-1)
    entries = U.flatten(-2)
    pairs = entries[:, :, None] * entries[:, None].conj()
    return torch.cat([entries, pairs.flatten(1), tr[:, None] ** 2, tr[:, None] ** 3, tr.abs()[:, None] ** 4], 1)


@pytest.mark.parametrize("N", [2, 3, 4])
def test_haar_is_left_and_right_invariant(N):
    base, n = flows.Haar(f"SU{N}", dtype=f64), 20000
    U = base.draw(n, seed=1)
    eye = torch.eye(N, dtype=U.dtype)
    assert_close(U.mH @ U, eye.expand_as(U), rtol=0, atol=1e-14)
    assert_close(torch.linalg.det(U), torch.ones(n, dtype=U.dtype), rtol=0, atol=1e-14)
    V = base.draw(1, seed=99)[0]
    m, error = moments(U).mean(0), moments(U).std(0) / math.sqrt(n)
    for other in (V @ U, U @ V, V @ U @ V):
        difference = (moments(other).mean(0) - m).abs() / (error + 1e-12)
        assert difference.max() < 8  # two correlated means, some hundred of them
    # <U_ij> = 0, <U_ij U*_kl> = delta_ik delta_jl / N, <|tr U|^2> = 1, and <|tr U|^4> = 3 for SU(2)/2 -> C_2 = 2
    tr = U.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert abs(tr.abs().square().mean().item() - 1) < 5 * tr.abs().square().std().item() / math.sqrt(n)
    assert abs(tr.abs().pow(4).mean().item() - 2) < 5 * tr.abs().pow(4).std().item() / math.sqrt(n)
    pairs = (U.flatten(1)[:, :, None] * U.flatten(1)[:, None].conj()).mean(0)
    expected = torch.eye(N * N, dtype=U.dtype) / N
    if N == 2:  # SU(2) has <U_ij U_kl> != 0 as well; <U U*> is the same
        assert abs((U[:, 0, 0] - U[:, 1, 1].conj()).abs().max()) < 1e-14
    assert (pairs - expected).abs().max() < 5 / math.sqrt(n)
    assert base.log_prob(U).eq(0).all()
    assert base.log_prob(1.01 * U).eq(-math.inf).all()
    assert base.log_prob(U * torch.exp(torch.tensor(0.1j)).to(U.dtype)).eq(-math.inf).all()


def test_su3_eigenphases_follow_weyl():
    """<cos> moments: tr U^k of SU(3): <tr U^3> = <lambda sums> = 1 (antisymmetric singlet of three quarks)."""
    U = flows.Haar("SU3", dtype=f64).draw(40000, seed=5)
    tr = U.diagonal(dim1=-2, dim2=-1).sum(-1)
    cube = (tr**3).real  # <(tr U)^3> = number of singlets in 3 x 3 x 3 = 1
    assert abs(cube.mean().item() - 1) < 5 * cube.std().item() / 200
    power = (U @ U @ U).diagonal(dim1=-2, dim2=-1).sum(-1).real  # p_3 = s_3 - s_21 + s_111: 1
    assert abs(power.mean().item() - 1) < 5 * power.std().item() / 200


def test_u1_is_uniform_and_spheres_are():
    theta = flows.Haar("U1", 1).draw(20000, 1)
    assert (theta.abs() <= torch.tensor(math.pi)).all()
    for k in (1, 2, 3):
        assert torch.exp(1j * k * theta).mean().abs() < 5 / math.sqrt(20000)
    for d in (1, 2, 3):
        x = flows.UniformSphere(d, f64).draw(20000, 1)
        assert_close(x.norm(dim=-1), torch.ones(20000, dtype=f64), rtol=0, atol=1e-15)
        assert_close(x.T.cov(), torch.eye(d + 1, dtype=f64) / (d + 1), rtol=0, atol=0.02)
        assert_close(x.pow(4).mean(0), torch.full((d + 1,), 3 / (d + 1) / (d + 3), dtype=f64), rtol=0, atol=0.02)
        area = math.exp(-flows.UniformSphere(d).log_prob(torch.eye(d + 1)[0]).item())
        assert_close(area, {1: 2 * math.pi, 2: 4 * math.pi, 3: 2 * math.pi**2}[d], rtol=1e-12, atol=0)
    assert flows.UniformSphere(2).log_prob(torch.tensor([0.0, 0.0, 1.1])) == -math.inf


def test_the_parts_of_mixtures_and_products_are_independent():
    product = flows.Product([flows.Normal(1), flows.Normal(1)])
    z = product.draw(20000, 1)
    assert z.T.corrcoef()[0, 1].abs() < 5 / math.sqrt(20000)
    mixture = flows.Mixture([flows.DiagonalNormal([0.0], 1.0), flows.DiagonalNormal([100.0], 1.0)], [1, 3])
    z = mixture.draw(20000, 1)
    far = z[:, 0] > 50
    assert abs(far.double().mean().item() - 0.75) < 5 * math.sqrt(0.25 * 0.75 / 20000)
    assert abs(z[far].mean().item() - 100) < 0.05
    assert mixture.log_prob(torch.tensor([[50.0]])).isfinite()
    box = flows.Mixture([flows.Uniform(1), flows.Uniform(1, 2.0, 3.0)], learnable=True)
    x = torch.tensor([[0.5], [1.5], [2.5]])
    assert box.log_prob(x).exp().tolist() == [0.5, 0.0, 0.5]
    box.log_prob(x[::2]).sum().backward()
    assert box.log_weights.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flows.Normal(0), "event_shape must have positive sizes, got \\(0,\\)"),
        (lambda: flows.Normal(1, torch.float16), "dtype must be float32 or float64, got torch.float16"),
        (lambda: flows.Uniform(1, 1.0, 1.0), "low must be below high"),
        (lambda: flows.Uniform(2, 0.0, [1.0, math.inf]), "both finite"),
        (lambda: flows.Uniform(2, 0.0, [1.0, 2.0, 3.0]), "must broadcast to event_shape \\(2,\\)"),
        (lambda: flows.DiagonalNormal([0.0], -1.0), "scale must be positive"),
        (lambda: flows.DiagonalNormal([math.nan], 1.0), "loc must not be NaN"),
        (lambda: flows.DiagonalNormal([0.0, 1.0], [1.0, 1.0, 1.0]), "must broadcast to each other"),
        (lambda: flows.MultivariateNormal([0.0]), "give scale_tril or covariance"),
        (lambda: flows.MultivariateNormal([0.0, 0.0], covariance=[[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
        (lambda: flows.MultivariateNormal([0.0, 0.0], [[1.0, 1.0], [0.0, 1.0]]), "lower triangular"),
        (lambda: flows.MultivariateNormal([0.0, 0.0], [[1.0]]), "must have shape \\(2, 2\\), got \\(1, 1\\)"),
        (lambda: flows.VonMises(0.0, [-1.0]), "concentration must be >= 0"),
        (lambda: flows.VonMises(0.0, [0.0], learnable=True), "learnable concentration must be positive"),
        (lambda: flows.TruncatedNormal(low=[2.0], high=1.0), "low must be below high, got \\[2.0\\] and 1.0"),
        (lambda: flows.TruncatedNormal(scale=[0.0]), "scale must be positive"),
        (lambda: flows.Haar("SU1"), "group must be 'U1', 'SU2', 'SU3', ..., got 'SU1'"),
        (lambda: flows.UniformSphere(0), "d must be at least 1, got 0"),
        (lambda: flows.Mixture([]), "components must not be empty"),
        (lambda: flows.Mixture([flows.Normal(1), flows.Normal(2)]), "one event shape"),
        (lambda: flows.Mixture([flows.Normal(1)], [-1.0]), "weights must be 1 non-negative"),
        (lambda: flows.Product([flows.Haar("SU2")]), "must have one dimension"),
    ],
)
def test_bad_parameters_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_module_keeps_and_moves_its_parameters():
    base = flows.VonMises([0.5, 1.0], [3.0, 4.0], learnable=True)
    other = flows.VonMises([0.0, 0.0], [1.0, 1.0], learnable=True)
    other.load_state_dict(base.state_dict())
    assert torch.equal(other.draw(5, 1), base.draw(5, 1))
    assert base.double().draw(5, 1).dtype == f64


@pytest.mark.parametrize("first", [-1, 1 << 62, 1 << 63])
def test_refuses_samples_without_a_number(first):
    base = flows.Normal(3)
    with pytest.raises(ValueError, match="first"):
        base.draw(2, seed=1, first=first)
