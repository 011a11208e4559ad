"""Flows on circles, tori and spheres: right Jacobians on the surface, densities of integral 1, no seam."""

import math

import pytest
import torch
from hepops import flows
from torch.testing import assert_close

f64 = torch.float64
CIRCLES = {
    "spline": lambda: flows.CircularSpline(6),
    "spline zuko": lambda: flows.CircularSpline(6, "zuko"),
    "moebius": lambda: flows.MoebiusMixture(5),
    "one moebius": lambda: flows.MoebiusMixture(1),
}


def shaken(module, scale=0.4, seed=3):
    """Parameters that are not those of a beginning."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, dtype=f64, generator=generator))
    return module


def turn(a, b):
    """The difference of two angles modulo 2 pi."""
    return torch.remainder(a - b + math.pi, 2 * math.pi) - math.pi


@pytest.fixture(params=CIRCLES)
def circle(request):
    return CIRCLES[request.param]()


def test_a_circle_bijection_has_its_derivative_and_inverse(circle, dtype):
    raw = 2 * torch.randn(500, circle.size, dtype=dtype)
    x = (math.pi * (2 * torch.rand(500, dtype=f64) - 1)).to(dtype)
    x[:3] = torch.tensor([0.0, 3.14159, -3.14159])
    y, logdet = circle.forward(x, raw)
    assert (y.abs() <= torch.tensor(math.pi, dtype=dtype)).all()
    back, logdet_back = circle.inverse(y, raw)
    slope = logdet.exp()
    eps = torch.finfo(dtype).eps
    assert (turn(back, x).abs() <= 50 * eps * (1 + 1 / slope)).all()  # y is known to rounding
    z = x.double().requires_grad_()
    (derivative,) = torch.autograd.grad(circle.forward(z, raw.double())[0].sum(), z)
    assert_close(logdet.double(), derivative.log(), rtol=0, atol=2e-3 if dtype == torch.float32 else 1e-9)
    if dtype == f64:
        assert_close(logdet_back, -logdet, rtol=0, atol=1e-8)


def test_nothing_jumps_at_pi(circle):
    """Over all of the circle and its seam, a small step gives a small step, and a small change of the slope."""
    raw = 2 * torch.randn(1, circle.size, dtype=f64)
    step = 1e-12
    ends = torch.tensor([math.pi - step, -math.pi + step], dtype=f64)
    y, logdet = circle.forward(ends, raw)
    assert 0 < turn(y[1], y[0]) < 1e4 * step
    assert abs(logdet[1] - logdet[0]) < 1e-4
    x = torch.linspace(-math.pi, math.pi, 4001, dtype=f64)
    y, logdet = circle.forward(x, raw)
    steps = turn(y[1:], y[:-1])
    assert (steps > 0).all()
    assert_close(steps.sum().item(), 2 * math.pi, rtol=1e-12, atol=0)  # once round
    assert_close(circle.forward(x + 4 * math.pi, raw)[1], logdet, rtol=0, atol=1e-9)
    moved = y[turn(y, raw.new_tensor(0.0)).abs() < 0.1].mean(), circle.forward(x.new_tensor(math.pi), raw[0])[0]
    assert turn(moved[1], x.new_tensor(math.pi)).abs() > 1e-3  # pi does not stay


def test_circle_gradients(circle):
    raw = torch.randn(4, circle.size, dtype=f64, requires_grad=True)
    x = (2 * torch.rand(4, dtype=f64) - 1).requires_grad_()
    assert torch.autograd.gradcheck(circle.forward, (x, raw), eps=1e-7, atol=1e-6)
    assert torch.autograd.gradcheck(circle.inverse, (x, raw), eps=1e-7, atol=1e-6, fast_mode=True)


def test_a_circle_bijection_begins_at_the_identity(circle):
    x = torch.linspace(-3, 3, 7)
    y, logdet = circle.forward(x, circle.identity().expand(7, -1))
    assert_close(y, x, rtol=0, atol=2e-6)
    assert_close(logdet, torch.zeros(7), rtol=0, atol=2e-6)


def test_a_real_moebius_map_is_the_non_compact_projection():
    s, x = torch.tensor([0.3, 2.0, -2.0], dtype=f64), torch.linspace(-math.pi, math.pi, 101, dtype=f64)[:, None]
    omega = torch.tanh(s / 2)
    raw = torch.stack([s * 0, omega / (0.99 - omega.abs()), s * 0, s * 0], -1)
    y, logdet = flows.MoebiusMixture(1).forward(x, raw)
    expected = 2 * torch.atan2(s.exp() * torch.sin(x / 2), torch.cos(x / 2))
    slope = 1 / ((-s).exp() * torch.cos(x / 2) ** 2 + s.exp() * torch.sin(x / 2) ** 2)
    assert_close(turn(y, expected), torch.zeros_like(y), rtol=0, atol=1e-13)
    assert_close(logdet, slope.log(), rtol=0, atol=1e-12)


def test_moebius_mixtures_turn_with_their_centres():
    g, turned = flows.MoebiusMixture(3), 0.7
    raw = torch.randn(10, g.size, dtype=f64)
    v, w = raw[:, 3:6], raw[:, 6:9]
    c, s = math.cos(turned), math.sin(turned)
    other = torch.cat([raw[:, :3], c * v - s * w, s * v + c * w, raw[:, 9:]], -1)
    x = torch.rand(10, dtype=f64)
    y, logdet = g.forward(x, raw)
    y_turned, logdet_turned = g.forward(x + turned, other)
    assert_close(turn(y_turned, y + turned), torch.zeros(10, dtype=f64), rtol=0, atol=1e-13)
    assert_close(logdet_turned, logdet, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["spline", "moebius"])
@pytest.mark.parametrize("autoregressive", [False, True])
def test_tori(kind, autoregressive):
    flow = shaken(flows.torus(3, 2, layers=3, bijection=kind, bins=5, hidden=(8,), autoregressive=autoregressive))
    x = math.pi * (2 * torch.rand(6, 3, dtype=f64) - 1)
    context = torch.randn(6, 2, dtype=f64)
    y, logdet = flow.transform(x, context)
    for i in range(6):
        J = torch.autograd.functional.jacobian(lambda t, i=i: flow.transform(t, context[i])[0], x[i])
        assert_close(logdet[i], torch.linalg.slogdet(J)[1], rtol=0, atol=1e-9)
    back, logdet_back = flow.transform.inverse(y, context)
    assert_close(turn(back, x), torch.zeros_like(x), rtol=0, atol=1e-9)
    assert_close(logdet_back, -logdet, rtol=0, atol=1e-7)
    periods = 2 * math.pi * torch.tensor([[1.0, -1.0, 2.0]], dtype=f64)
    assert_close(flow.transform(x + periods, context)[1], logdet, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ["spline", "moebius"])
def test_densities_on_a_torus_integrate_to_one_and_have_no_seam(kind):
    flow = shaken(flows.torus(2, layers=2, bijection=kind, bins=4, hidden=(8,)), 0.3)
    t = math.pi * (2 * (torch.arange(200, dtype=f64) + 0.5) / 200 - 1)
    grid = torch.cartesian_prod(t, t)
    with torch.no_grad():
        density = flow.log_prob(grid).exp()
        assert_close(density.sum().item() * (2 * math.pi / 200) ** 2, 1.0, rtol=1e-5, atol=0)
        assert density.max() / density.min() > 1.5
        for axis in (0, 1):
            seam = torch.rand(20, 2, dtype=f64)
            seam[:, axis] = math.pi - 1e-7
            other = seam.clone()
            other[:, axis] = -math.pi + 1e-7
            assert_close(flow.log_prob(other), flow.log_prob(seam), rtol=0, atol=1e-4)


def basis(x):
    """Orthonormal tangent vectors at unit vectors x, as columns."""
    n = x.shape[-1]
    full = torch.cat([x[..., None], torch.eye(n, dtype=x.dtype).expand(*x.shape, n)], -1)
    q = torch.linalg.qr(full)[0]
    return q[..., 1:n]


def surface_log_det(f, x):
    """The log-determinant on the sphere, from the derivatives of the coordinates."""
    y = f(x)
    J = torch.autograd.functional.jacobian(lambda t: f(t).sum(0), x).movedim(1, 0)
    return torch.linalg.slogdet(basis(y).mT @ J @ basis(x))[1]


SPHERES = {
    "recursive 1": (1, lambda: flows.RecursiveSphere(1, hidden=(8,))),
    "recursive 2": (2, lambda: flows.RecursiveSphere(2, hidden=(8,))),
    "recursive 3": (3, lambda: flows.RecursiveSphere(3, circle=flows.MoebiusMixture(3), hidden=(8,))),
    "recursive 5": (5, lambda: flows.RecursiveSphere(5, hidden=(8,))),
    "exponential 1": (1, lambda: flows.ExponentialMap(1, 4)),
    "exponential 2": (2, lambda: flows.ExponentialMap(2, 4)),
    "exponential 3": (3, lambda: flows.ExponentialMap(3, 4)),
    "rotation 2": (2, lambda: flows.Rotation(3, seed=1)),
    "flow 2": (2, lambda: flows.sphere(2, layers=2, hidden=(8,)).transform),
}


@pytest.mark.parametrize("name", SPHERES)
def test_spheres_have_the_determinant_of_the_surface(name):
    d, make = SPHERES[name]
    f = shaken(make())
    x = flows.UniformSphere(d, f64).draw(50, 1)
    y, logdet = f(x)
    assert_close(y.norm(dim=-1), torch.ones(50, dtype=f64), rtol=0, atol=1e-13)
    assert_close(logdet, surface_log_det(lambda t: f(t)[0], x), rtol=0, atol=1e-8)
    back, logdet_back = f.inverse(y)
    assert_close(back, x, rtol=0, atol=1e-8)
    assert_close(logdet_back, -logdet, rtol=0, atol=1e-6)
    assert_close(logdet_back, surface_log_det(lambda t: f.inverse(t)[0], y), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SPHERES)
def test_spheres_in_single_precision(name):
    d, make = SPHERES[name]
    f = shaken(make()).float()
    x = flows.UniformSphere(d).draw(200, 1)
    y, logdet = f(x)
    assert y.dtype == torch.float32
    assert logdet.dtype == f64
    assert_close(y.norm(dim=-1), torch.ones(200), rtol=0, atol=5e-7)
    back, _ = f.inverse(y)
    # y is known to 6e-8, x to that over the least stretch
    assert ((back - x).norm(dim=-1) < 1e-4).all()
    exact, logdet_exact = f.double()(x.double())
    assert_close(y.double(), exact, rtol=0, atol=1e-4)
    assert_close(logdet, logdet_exact, rtol=0, atol=1e-2)


def cylinder(d, n):
    """Points and weights of the surface of S^2 or S^3: midpoints of heights and angles."""
    r = 2 * (torch.arange(n, dtype=f64) + 0.5) / n - 1
    t = math.pi * r
    if d == 2:
        r, t = torch.cartesian_prod(r, t).unbind(-1)
        rho = (1 - r * r).sqrt()
        return torch.stack([rho * t.cos(), rho * t.sin(), r], -1), torch.full_like(r, 4 * math.pi / n**2)
    polar = math.pi * (torch.arange(n, dtype=f64) + 0.5) / n
    chi, r, t = torch.cartesian_prod(polar, r, t).unbind(-1)
    rho = (1 - r * r).sqrt()
    x = torch.stack([rho * t.cos(), rho * t.sin(), r], -1) * chi.sin()[:, None]
    return torch.cat([x, chi.cos()[:, None]], -1), chi.sin() ** 2 * 4 * math.pi**2 / n**3


@pytest.mark.parametrize(("name", "n", "tolerance"), [("recursive 2", 300, 1e-3), ("exponential 2", 300, 1e-4)])
def test_densities_on_spheres_integrate_to_one(name, n, tolerance):
    d, make = SPHERES[name]
    flow = flows.Flow(shaken(make(), 0.3), flows.UniformSphere(d, f64))
    x, w = cylinder(d, n)
    with torch.no_grad():
        density = flow.log_prob(x).exp()
    assert density.max() / density.min() > 1.5
    assert_close((density * w).sum().item(), 1.0, rtol=tolerance, atol=0)


@pytest.mark.parametrize("name", ["recursive 3", "exponential 3"])
def test_densities_on_the_sphere_of_su2_integrate_to_one(name):
    _, make = SPHERES[name]
    flow = flows.Flow(shaken(make(), 0.3), flows.UniformSphere(3, f64))
    x, w = cylinder(3, 40)
    with torch.no_grad():
        density = flow.log_prob(x).exp()
    assert density.max() / density.min() > 1.5
    assert_close((density * w).sum().item(), 1.0, rtol=3e-3, atol=0)


def test_an_exponential_map_turns_with_its_directions():
    f, R = shaken(flows.ExponentialMap(2, 4)), shaken(flows.Rotation(3, seed=1)).matrix.detach()
    x = flows.UniformSphere(2, f64).draw(20, 1)
    y, logdet = f(x)
    with torch.no_grad():
        f.directions.copy_(f.directions @ R.T)
    y_turned, logdet_turned = f(x @ R.T)
    assert_close(y_turned, y @ R.T, rtol=0, atol=1e-13)
    assert_close(logdet_turned, logdet, rtol=0, atol=1e-12)


def test_an_exponential_map_of_strong_peaks_inverts():
    f = flows.ExponentialMap(2, 2).double()
    with torch.no_grad():
        f.log_beta.fill_(math.log(30.0))
        f.logits.copy_(torch.tensor([7.0, 5.0, 0.0]))  # sum of alpha 0.999
    x = flows.UniformSphere(2, f64).draw(300, 1)
    with torch.no_grad():
        y, logdet = f(x)
        back, _ = f.inverse(y)
    assert logdet.max() - logdet.min() > 1
    assert_close(f(back)[0], y, rtol=0, atol=1e-12)


def test_poles_give_numbers():
    f = shaken(flows.RecursiveSphere(3, hidden=(8,)))
    x = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 1e-200, 1.0]], dtype=f64).requires_grad_()
    y, logdet = f(x)
    assert y.isfinite().all()
    assert logdet.isfinite().all()
    (y.sum() + logdet.sum()).backward()
    assert not x.grad.isnan().any()


def test_gradients_on_spheres():
    for f in (flows.RecursiveSphere(2, hidden=(4,)), flows.ExponentialMap(2, 3), flows.Rotation(3)):
        f = shaken(f)
        x = flows.UniformSphere(2, f64).draw(3, 1).requires_grad_()
        names, values = zip(*f.named_parameters(), strict=True)
        for method in (f.forward, f.inverse):

            def call(x, *values, method=method, f=f, names=names):
                with torch.nn.utils.stateless._reparametrize_module(f, dict(zip(names, values, strict=True))):
                    return method(x)

            assert torch.autograd.gradcheck(call, (x, *values), eps=1e-6, atol=1e-5, fast_mode=True)


def test_a_sphere_flow_learns_a_band():
    """A ring of latitude about a tilted axis: effective samples of 4096."""
    axis = torch.tensor([1.0, 1.0, 1.0]) / math.sqrt(3)
    flow = flows.sphere(2, layers=2, bins=8, hidden=(32,))
    optimiser = torch.optim.Adam(flow.parameters(), 0.01)

    def weights(n, step):
        x, log_q = flow.rsample_and_log_prob(n, seed=1, step=step)
        return -0.5 * ((x @ axis - 0.5) / 0.3).square() - log_q

    def ess(w):
        return ((2 * w.logsumexp(0) - (2 * w).logsumexp(0)).exp() / len(w)).item()

    with torch.no_grad():
        before = ess(weights(4096, 1 << 20))
    for step in range(120):
        optimiser.zero_grad()
        (-weights(256, step).mean()).backward()
        optimiser.step()
    with torch.no_grad():
        w = weights(4096, 1 << 20)
    assert before < 0.6
    assert ess(w) > 0.9
    # the surface between heights r and r + dr is 2 pi dr
    band = 0.3 * math.sqrt(math.pi / 2) * (math.erf(0.5 / 0.3 / math.sqrt(2)) + math.erf(1.5 / 0.3 / math.sqrt(2)))
    assert abs(w.logsumexp(0).item() - math.log(4096) - math.log(2 * math.pi * band)) < 0.03


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flows.MoebiusMixture(0), "components must be at least 1, got 0"),
        (lambda: flows.MoebiusMixture(2, 1.0), "limit must be inside"),
        (lambda: flows.CircularSpline(0), "bins must be 1 to 999, got 0"),
        (lambda: flows.RecursiveTorus(2, order=[0, 0]), "order must be a permutation of 2 angles"),
        (lambda: flows.RecursiveTorus(2)(torch.zeros(1, 3)), "x must have shape"),
        (lambda: flows.RecursiveSphere(0), "d must be at least 1, got 0"),
        (lambda: flows.RecursiveSphere(2)(torch.zeros(1, 2)), "x must have shape"),
        (lambda: flows.ExponentialMap(2)(torch.zeros(1, 2)), "x must have shape"),
        (lambda: flows.ExponentialMap(2, 0), "components must be at least 1"),
        (lambda: flows.Rotation(1), "n must be at least 2, got 1"),
        (lambda: flows.Rotation(3)(torch.zeros(2)), "x must have shape"),
        (lambda: flows.torus(2, bijection="ncp"), "bijection must be 'spline' or 'moebius', got 'ncp'"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nan_comes_out_as_nan():
    for f in (flows.RecursiveSphere(2), flows.ExponentialMap(2), flows.Rotation(3), flows.RecursiveTorus(3)):
        for method in (f.forward, f.inverse):
            y, _ = method(torch.tensor([[1.0, 0.0, math.nan], [0.6, 0.0, 0.8]]))
            assert y[0].isnan().any()
            assert y[1].isfinite().all()


def test_autocast_does_not_round_unit_vectors():
    flow = flows.sphere(2, layers=1, hidden=(8,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = flow.sample(20, seed=1)
    assert x.dtype == torch.float32
    assert_close(x.norm(dim=-1), torch.ones(20), rtol=0, atol=1e-6)
    assert_close(x, flow.sample(20, seed=1), rtol=0, atol=1e-4)  # the network's bias is rounded, the bijection is not


def test_refuses_what_is_off_the_sphere():
    flow = flows.sphere(2, layers=1, hidden=(8,))
    with pytest.raises(
        ValueError, match=r"x must hold unit vectors, got 1 of 2 that are not, the first \[3.0, 0.0, 1.0\]"
    ):
        flow.log_prob(torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 1.0]]))
