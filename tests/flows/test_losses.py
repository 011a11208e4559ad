"""Every loss's mean gradient is the gradient of its law, and the ones that promise it have no noise at the optimum."""

import copy
import math

import pytest
import torch
from hepops.flows import Flow, Normal, Transform, nsf
from hepops.flows.training import (
    alpha_divergence,
    forward_kl,
    forward_path,
    path_gradient,
    reinforce,
    reverse_kl,
    variance,
)

GRID = torch.linspace(-14, 14, 4001, dtype=torch.float64)  # trapezoids of smooth functions: exact to 1e-12
MEAN, WIDTH = 0.4, 1.3  # of the target
LOG_Z = 0.7


class Shift(Transform):
    """z = (x - t) e^-s: the flow is a normal density of mean t and width e^s."""

    def __init__(self, t, s):
        super().__init__()
        self.t = torch.nn.Parameter(torch.tensor(t, dtype=torch.float64))
        self.s = torch.nn.Parameter(torch.tensor(s, dtype=torch.float64))

    def forward(self, x, context=None):
        return (x - self.t) * (-self.s).exp(), -self.s.expand(x.shape[:-1])

    def inverse(self, z, context=None):
        return z * self.s.exp() + self.t, self.s.expand(z.shape[:-1])


def _flow(t=0.1, s=0.4):
    return Flow(Shift(t, s), Normal(1, dtype=torch.float64))


def _log_p(x):  # of mass e^LOG_Z
    return (-0.5 * ((x - MEAN) / WIDTH) ** 2).sum(-1) - math.log(WIDTH * math.sqrt(2 * math.pi)) + LOG_Z


def _integral(function):
    return torch.trapezoid(function, GRID)


def _gradient(flow, value):
    return torch.stack(torch.autograd.grad(value, list(flow.parameters())))


def _law(flow, name, alpha):
    x = GRID[:, None]
    log_q, log_p = flow.log_prob(x), _log_p(x)
    q, p = log_q.exp(), log_p.exp()
    f = _integrand(x)
    return {
        "forward_kl": lambda: -_integral(p / math.exp(LOG_Z) * log_q),
        "reverse_kl": lambda: _integral(q * (log_q - log_p)),
        "alpha": lambda: (_integral(q * (alpha * (log_p - LOG_Z - log_q)).exp()) - 1) / (alpha * (alpha - 1)),
        "variance": lambda: _integral(f**2 / q) - _integral(f) ** 2,
    }[name]()


def _integrand(x):  # of both signs, narrow enough for a finite variance of f^2/q
    return ((x - 0.3) * torch.exp(-(x**2)) + 0.2 * torch.exp(-((x - 1) ** 2)))[..., 0]


def _data(n, seed):
    return MEAN + WIDTH * torch.randn(n, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _drawn(flow, n, seed, detached):
    x, log_q = flow.rsample_and_log_prob(n, seed=seed)
    return (x.detach(), flow.log_prob(x.detach())) if detached else (x, log_q)


def _other(flow, n, seed):
    """The integrand at samples of a density that is not the flow's."""
    other = _flow(-0.2, 0.3)
    x = _drawn(other, n, seed, True)[0]
    return _integrand(x), flow.log_prob(x), other.log_prob(x)


def _alpha(alpha, detached):
    def loss(flow, n, seed):
        x, log_q = _drawn(flow, n, seed, detached)
        return alpha_divergence(log_q, _log_p(x), alpha, log_z=LOG_Z, detached=detached)

    return loss


def _reverse(flow, n, seed):
    x, log_q = _drawn(flow, n, seed, False)
    return reverse_kl(log_q, _log_p(x))


def _reinforce(flow, n, seed):
    x, log_q = _drawn(flow, n, seed, True)
    return reinforce(log_q, _log_p(x))


def _variance(flow, n, seed):
    x, log_q = _drawn(flow, n, seed, False)
    return variance(_integrand(x), log_q, relative=False)


CASES = {
    "forward_kl": ("forward_kl", lambda flow, n, seed: forward_kl(flow.log_prob(_data(n, seed))), 0),
    "forward_path": ("forward_kl", lambda flow, n, seed: forward_path(flow, _data(n, seed), _log_p), 0),
    "reverse_kl": ("reverse_kl", _reverse, 0),
    "path_gradient": ("reverse_kl", lambda flow, n, seed: path_gradient(flow, _log_p, n, seed=seed)[0], 0),
    "reinforce": ("reverse_kl", _reinforce, 0),
    "alpha .5": ("alpha", _alpha(0.5, False), 0.5),
    "alpha .5 by the score": ("alpha", _alpha(0.5, True), 0.5),
    "alpha 2": ("alpha", _alpha(2.0, False), 2.0),
    "alpha -.5 by the score": ("alpha", _alpha(-0.5, True), -0.5),
    "variance": ("variance", _variance, 0),
    "variance of others": ("variance", lambda f, n, seed: variance(*_other(f, n, seed), relative=False), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_gradient_is_unbiased(case):
    law, loss, alpha = CASES[case]
    flow = _flow()
    exact = _gradient(flow, _law(flow, law, alpha))
    # small batches: what is biased by O(1/N) shows
    drawn = torch.stack([_gradient(flow, loss(flow, 32, seed)) for seed in range(600)])
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - exact).abs() < 4.5 * error).all(), (drawn.mean(0), exact, error)
    assert (error < 0.1 * exact.norm()).all()  # else the line above says nothing


@pytest.mark.parametrize("case", ["reverse_kl", "alpha .5", "variance", "variance of others", "reinforce"])
def test_value_is_unbiased(case):
    law, loss, alpha = CASES[case]
    flow = _flow()
    drawn = torch.stack([loss(flow, 16, seed).detach() for seed in range(500)])
    assert abs(drawn.mean() - _law(flow, law, alpha).detach()) < 4.5 * drawn.std() / math.sqrt(500)


@pytest.mark.parametrize("case", ["path_gradient", "forward_path", "reinforce"])
def test_no_noise_at_the_optimum(case):
    flow = _flow(MEAN, math.log(WIDTH))
    noise = torch.stack([_gradient(flow, CASES[case][1](flow, 16, seed)) for seed in range(20)])
    assert noise.abs().max() < 1e-13
    plain = {"path_gradient": "reverse_kl", "forward_path": "forward_kl", "reinforce": "forward_kl"}[case]
    noisy = torch.stack([_gradient(flow, CASES[plain][1](flow, 16, seed)) for seed in range(20)])
    assert noisy.std() > 0.1


def test_no_noise_at_the_optimum_of_a_spline_flow(dtype):
    torch.manual_seed(2)
    flow, x = nsf(3, layers=2, hidden=(16,)).to(dtype), torch.randn(32, 3, dtype=dtype)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.3)
    same = copy.deepcopy(flow).requires_grad_(False)
    loss, log_w = path_gradient(flow, same.log_prob, 32, seed=1)
    still = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(flow.parameters()))]).norm()
    loss = forward_path(flow, x, same.log_prob)
    still = still + torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(flow.parameters()))]).norm()
    noisy = torch.autograd.grad(forward_kl(flow.log_prob(x)), list(flow.parameters()))
    noisy = torch.cat([g.flatten() for g in noisy]).norm()
    assert still < {torch.float32: 1e-4, torch.float64: 1e-12}[dtype] * noisy
    assert log_w.abs().max() == 0 and not log_w.requires_grad


def test_path_gradient_leaves_the_parameters_as_they_were():
    flow = _flow()
    loss, _ = path_gradient(flow, _log_p, 8, seed=1)
    assert all(p.requires_grad for p in flow.parameters())
    loss.backward()
    assert all(p.grad is not None for p in flow.parameters())


@pytest.mark.parametrize("loss", ["log", "variance"])
def test_a_constant_in_the_target_changes_no_gradient(loss):
    flow = _flow()
    x, log_q = _drawn(flow, 64, 3, False)
    log_p = _log_p(x)
    one, other = (
        {
            "log": lambda c: alpha_divergence(log_q, log_p + c, 2.0),
            "variance": lambda c: variance((log_p + c).exp(), log_q),
        }[loss],
        200.0,
    )
    parameters = list(flow.parameters())
    a, b = (torch.stack(torch.autograd.grad(one(c), parameters, retain_graph=True)) for c in (0.0, other))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=0)


def test_variance_over_channels():
    # two channels with known moments: V = (sqrt V_0 + sqrt V_1)^2
    f = torch.randn(40_000, dtype=torch.float64) * 2 + 1
    channels = (torch.arange(len(f)) % 4 == 0).long()
    f = torch.where(channels == 1, 0.5 * f, f)
    v = variance(f, torch.zeros_like(f), channels=channels, number=2, relative=False)
    expected = (f[channels == 0].std() + f[channels == 1].std()) ** 2
    torch.testing.assert_close(v, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        variance(f, torch.zeros_like(f), channels=channels, number=2),
        expected / (f[channels == 0].mean() + f[channels == 1].mean()) ** 2,
        rtol=1e-12,
        atol=0,
    )


def test_variance_of_a_perfect_map_is_zero_and_zeros_have_finite_gradients():
    flow = _flow()
    x, log_q = _drawn(flow, 100, 1, False)
    assert variance(3 * log_q.exp(), log_q).abs() < 1e-13
    cut = torch.where(x[:, 0] > 0, _integrand(x), 0.0)
    assert _gradient(flow, variance(cut, log_q)).isfinite().all()
    assert variance(torch.zeros(3), torch.zeros(3), relative=False) == 0


def test_refused_by_name():
    zeros = torch.zeros(3)
    with pytest.raises(ValueError, match="alpha must be finite and neither"):
        alpha_divergence(zeros, zeros, 1)
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        reinforce(zeros[:1], zeros[:1])
    with pytest.raises(ValueError, match=r"one shape \(N\), got \(3,\) and \(2,\)"):
        variance(zeros, zeros[:2])
    with pytest.raises(ValueError, match="number = 0"):
        variance(zeros, zeros, channels=zeros.long())
    with pytest.raises(ValueError, match=r"context must be \(C\)"):
        path_gradient(nsf(2, 1), lambda x: x.sum(-1), 4, torch.zeros(3, 1))
